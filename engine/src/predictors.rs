//! Predictors: which neurons a layer's tokens will need, told by the pack from few bytes. Decides what is read; no
//! I/O, and nothing is allocated.
//!
//! What is computed is section 9.2 of `spec/lnp-v1.md`; in which order of summation, the kernels decide.

use lnp_format::{Pack, Predictor, PredictorBody, PredictorNumbers, Shape};
use lnp_kernels::{
    CpuFeatures, Input, KernelError, Numbers, Rows, TOKENS_MAX, estimate_strengths, select,
};
use zerocopy::IntoBytes;

use crate::arena::{Arena, ArenaSize};
use crate::error::EngineError;
use crate::limits::ARENA_ALIGN;

/// What predictors of layers of one shape are computed in, for up to [`TOKENS_MAX`] tokens at a time.
#[derive(Debug)]
pub struct Predictors<'m> {
    shape: Shape,
    rank_max: u32,
    features: CpuFeatures,
    tokens_max: usize,
    /// The inputs in the kernels' form, `input_bytes_max` for each token.
    inputs: &'m mut [u8],
    /// What is between the two matrices of a low-rank predictor, and that in the kernels' form.
    between: &'m mut [f32],
    between_inputs: &'m mut [u8],
    /// `[tokens][neurons]`.
    scores: &'m mut [f32],
    ids: &'m mut [u32],
}

/// What a predictor says of some tokens.
#[derive(Clone, Copy, Debug)]
pub struct Predicted<'p> {
    sets: [&'p [u32]; TOKENS_MAX],
    strengths: [&'p [f32]; TOKENS_MAX],
    tokens: usize,
}

impl<'p> Predicted<'p> {
    /// For each token the ids of the neurons to be read, ascending.
    pub fn sets(&self) -> &[&'p [u32]] {
        self.sets.get(..self.tokens).unwrap_or_default()
    }

    /// For each token the estimated strengths of these neurons, in their order; none where the predictor tells none.
    pub fn strengths(&self) -> &[&'p [f32]] {
        self.strengths.get(..self.tokens).unwrap_or_default()
    }
}

/// The highest rank among a pack's low-rank predictors; 0 where it has none.
pub fn rank_max(pack: &Pack<'_>) -> u32 {
    pack.predictors().map(|(_, _, predictor)| predictor.rank()).max().unwrap_or(0)
}

/// A rank that no predictor of a pack is above whose index has so many bytes: for whoever has to find memory before
/// the index is read.
pub fn rank_bound(shape: &Shape, index_bytes: u64) -> u32 {
    // Each of the rank's numbers is there for each neuron and each component, in the fewest bits that there are.
    let for_32 = PredictorNumbers::Bits1.row_bytes(32);
    let columns = u64::from(shape.neurons) + u64::from(shape.hidden);
    let rank = index_bytes.saturating_mul(32) / (for_32 * columns).max(1);
    rank.min(lnp_format::limits::HIDDEN_MAX.into()) as u32
}

impl<'m> Predictors<'m> {
    /// For predictors of at most this rank ([`rank_max`], [`rank_bound`]). `memory` is the caller's, of
    /// [`Predictors::required_bytes`], at any alignment.
    ///
    /// # Errors
    /// [`EngineError::Config`] for 0 tokens or more than [`TOKENS_MAX`]; [`EngineError::ArenaTooSmall`].
    pub fn new(
        shape: &Shape,
        rank_max: u32,
        features: CpuFeatures,
        tokens_max: usize,
        memory: &'m mut [u8],
    ) -> Result<Self, EngineError> {
        let (expected, found) =
            (Self::required_bytes(shape, rank_max, features, tokens_max)?, memory.len());
        if found < expected {
            return Err(EngineError::ArenaTooSmall { expected, found });
        }
        let bytes = Bytes::of(shape, rank_max, features)?;
        let mut arena = Arena::new(memory);
        let scores = tokens_max.saturating_mul(shape.neurons as usize);
        Ok(Self {
            shape: *shape,
            rank_max,
            features,
            tokens_max,
            inputs: arena.take_bytes(tokens_max * bytes.input, ARENA_ALIGN)?,
            between: arena.take(tokens_max * bytes.between)?,
            between_inputs: arena.take_bytes(tokens_max * bytes.between_input, ARENA_ALIGN)?,
            scores: arena.take(scores)?,
            ids: arena.take(scores)?,
        })
    }

    /// Bytes of memory for batches of up to `tokens_max` tokens, by predictors of at most this rank.
    ///
    /// # Errors
    /// As [`Predictors::new`].
    pub fn required_bytes(
        shape: &Shape,
        rank_max: u32,
        features: CpuFeatures,
        tokens_max: usize,
    ) -> Result<usize, EngineError> {
        if !(1..=TOKENS_MAX).contains(&tokens_max) {
            let found = tokens_max as u64;
            return Err(EngineError::Config { field: "tokens_max", rule: "must be 1 to 8", found });
        }
        let bytes = Bytes::of(shape, rank_max, features)?;
        let scores = tokens_max.saturating_mul(shape.neurons as usize);
        let mut size = ArenaSize::default();
        size.add_bytes(tokens_max.saturating_mul(bytes.input), ARENA_ALIGN);
        size.add::<f32>(tokens_max.saturating_mul(bytes.between));
        size.add_bytes(tokens_max.saturating_mul(bytes.between_input), ARENA_ALIGN);
        size.add::<f32>(scores);
        size.add::<u32>(scores);
        Ok(size.bytes())
    }

    /// Most tokens of a batch.
    pub const fn tokens_max(&self) -> usize {
        self.tokens_max
    }

    /// The neurons of `layer` that will be needed, by a pack's predictor for `x`, the FFN inputs of the layer `horizon`
    /// before it. The rest as [`Predictors::predict_by`].
    ///
    /// # Errors
    /// [`EngineError::NoPredictor`]; as [`Predictors::predict_by`].
    pub fn predict(
        &mut self,
        pack: &Pack<'_>,
        (layer, horizon): (u32, u32),
        quality: f32,
        x: &[f32],
    ) -> Result<Predicted<'_>, EngineError> {
        let missing = EngineError::NoPredictor { layer, horizon };
        let predictor = pack.predictor(layer, horizon).ok_or(missing)?;
        self.predict_by(&predictor, quality, x)
    }

    /// As [`Predictors::predict_by_with`], with all products on this thread.
    ///
    /// # Errors
    /// As there.
    pub fn predict_by(
        &mut self,
        predictor: &Predictor<'_>,
        quality: f32,
        x: &[f32],
    ) -> Result<Predicted<'_>, EngineError> {
        self.predict_by_with(predictor, quality, x, &multiply_here)
    }

    /// The neurons that a predictor names at the operating point of a `quality` (0 to 1: the first point of at least
    /// that, or the last) for the inputs `x`: `[tokens][hidden]`, row-major. `multiply` makes the products, on as many
    /// threads as it likes: each row's bits are its own.
    ///
    /// # Errors
    /// [`EngineError::OtherShape`] for a predictor of another shape or a higher rank than this was made for;
    /// [`EngineError::Kernel`] where `x` is no whole tokens, none, or more than `tokens_max`.
    pub fn predict_by_with(
        &mut self,
        predictor: &Predictor<'_>,
        quality: f32,
        x: &[f32],
        multiply: &Multiply<'_>,
    ) -> Result<Predicted<'_>, EngineError> {
        let (hidden, neurons) = (self.shape.hidden as usize, (self.shape.neurons as usize).max(1));
        if predictor.rank() > self.rank_max || predictor.offsets(0).len() != neurons {
            return Err(EngineError::OtherShape);
        }
        let tokens = x.len() / hidden.max(1);
        if tokens == 0 || tokens > self.tokens_max || x.len() != tokens * hidden {
            let (expected, found) = (hidden, x.len());
            return Err(KernelError::Length { what: "hidden state", expected, found }.into());
        }
        self.score(predictor, x, tokens, multiply)?;
        let point = predictor.point_of(quality);
        let threshold = predictor.points().get(point).map_or(f32::MAX, |at| at.threshold.get());
        let offsets = predictor.offsets(point).as_bytes();
        let mut counts = [0; TOKENS_MAX];
        let rows = self.scores.chunks_exact_mut(neurons).zip(self.ids.chunks_exact_mut(neurons));
        let scales = predictor.strength_scales().as_bytes();
        for ((scores, ids), count) in rows.take(tokens).zip(&mut counts) {
            *count = select(scores, offsets, threshold, ids);
            let named = ids.get(..*count).unwrap_or_default();
            if !scales.is_empty() {
                estimate_strengths(scores, named, offsets, scales);
            }
        }
        let mut strengths = [&[][..]; TOKENS_MAX];
        if !scales.is_empty() {
            let rows = self.scores.chunks_exact(neurons).zip(counts);
            for (strengths, (row, count)) in strengths.iter_mut().zip(rows) {
                *strengths = row.get(..count).unwrap_or_default();
            }
        }
        let mut sets = [&[][..]; TOKENS_MAX];
        for ((set, ids), count) in sets.iter_mut().zip(self.ids.chunks_exact(neurons)).zip(counts) {
            *set = ids.get(..count).unwrap_or_default();
        }
        Ok(Predicted { sets, strengths, tokens })
    }

    /// Fills `scores` for these tokens; the offsets are still to be added.
    fn score(
        &mut self,
        predictor: &Predictor<'_>,
        x: &[f32],
        tokens: usize,
        multiply: &Multiply<'_>,
    ) -> Result<(), EngineError> {
        let (hidden, neurons) = (self.shape.hidden as usize, self.shape.neurons as usize);
        let numbers = numbers(predictor.numbers());
        let scores = self.scores.get_mut(..tokens * neurons).unwrap_or_default();
        let first = Rows::new(numbers, hidden, self.features)?;
        match predictor.body() {
            PredictorBody::Rows(rows) => times(&first, x, rows, (self.inputs, scores), multiply),
            PredictorBody::LowRank { rank, reduce, expand, reduce_bias } => {
                let rank = rank as usize;
                let between = self.between.get_mut(..tokens * rank).unwrap_or_default();
                times(&first, x, reduce, (self.inputs, between), multiply)?;
                for between in between.chunks_exact_mut(rank) {
                    let biased = between.iter_mut().zip(reduce_bias);
                    biased.for_each(|(value, bias)| *value += bias.get());
                }
                if predictor.relu_between() {
                    between.iter_mut().for_each(|value| *value = value.max(0.0));
                }
                let second = Rows::new(numbers, rank, self.features)?;
                times(&second, between, expand, (self.between_inputs, scores), multiply)
            }
        }
    }
}

/// Makes the products of all rows with each of some vectors, as [`Rows::multiply_batch`] does.
pub type Multiply<'m> =
    dyn Fn(&Rows, &[Input<'_>], &[u8], &mut [f32]) -> Result<(), KernelError> + 'm;

/// On this thread.
fn multiply_here(
    kernel: &Rows,
    inputs: &[Input<'_>],
    rows: &[u8],
    out: &mut [f32],
) -> Result<(), KernelError> {
    match inputs {
        [only] => kernel.multiply(only, rows, out),
        several => kernel.multiply_batch(several, rows, out),
    }
}

/// `out = rows x` for each of some vectors, in `memory` for these.
fn times(
    kernel: &Rows,
    x: &[f32],
    rows: &[u8],
    (memory, out): (&mut [u8], &mut [f32]),
    multiply: &Multiply<'_>,
) -> Result<(), EngineError> {
    let mut inputs = [Input::default(); TOKENS_MAX];
    let mut rest = memory;
    let mut count = 0;
    for (input, x) in inputs.iter_mut().zip(x.chunks_exact(kernel.columns())) {
        let too_short = KernelError::Length {
            what: "memory for the input",
            expected: kernel.input_bytes(),
            found: rest.len(),
        };
        let (own, after) = rest.split_at_mut_checked(kernel.input_bytes()).ok_or(too_short)?;
        rest = after;
        *input = kernel.prepare(x, own)?;
        count += 1;
    }
    Ok(multiply(kernel, inputs.get(..count).unwrap_or_default(), rows, out)?)
}

/// What one token takes.
struct Bytes {
    input: usize,
    /// Values, not bytes.
    between: usize,
    between_input: usize,
}

impl Bytes {
    fn of(shape: &Shape, rank: u32, features: CpuFeatures) -> Result<Self, EngineError> {
        let rank = (rank as usize).next_multiple_of(32);
        let (mut input, mut between_input) = (0, 0);
        for numbers in Numbers::ALL {
            input = input.max(Rows::new(numbers, shape.hidden as usize, features)?.input_bytes());
            if rank > 0 {
                between_input =
                    between_input.max(Rows::new(numbers, rank, features)?.input_bytes());
            }
        }
        Ok(Self { input, between: rank, between_input })
    }
}

const fn numbers(of_pack: PredictorNumbers) -> Numbers {
    match of_pack {
        PredictorNumbers::F32 => Numbers::F32,
        PredictorNumbers::F16 => Numbers::F16,
        PredictorNumbers::Q8_0 => Numbers::Q8_0,
        PredictorNumbers::Bits1 => Numbers::Bits1,
        PredictorNumbers::Bits2 => Numbers::Bits2,
        PredictorNumbers::Bits4 => Numbers::Bits4,
        PredictorNumbers::Bits8 => Numbers::Bits8,
    }
}
