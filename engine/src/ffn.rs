//! The FFN: joins the engine to the kernels.

use lnp_format::{self as format, Layer, Shape};
use lnp_kernels::{Activation, CpuFeatures, Dtype, Kernel, KernelError, KernelShape, Tier};

mod batch;
mod sums;

use batch::{Batch, Inputs};
use sums::{Norms, bias, start_with_bias};

use crate::arena::{Arena, ArenaSize};
use crate::engine::{ActiveSet, Alone, Engine, FetchStats, Session, Workers};
use crate::error::EngineError;
use crate::limits::{ARENA_ALIGN, BATCH_TOKENS_MAX};
use crate::predictors::Predictors;
use crate::queue::TimedQueue;
use crate::sync::AtomicU32;

/// The sparse FFN of a pack's layers, for up to [`BATCH_TOKENS_MAX`] tokens at a time.
#[derive(Debug)]
pub struct Ffn<'m> {
    kernel: Kernel,
    /// The packs that it is for.
    shape: Shape,
    tokens_max: usize,
    /// The hidden states in the kernel's form, `input_bytes` for each token.
    inputs: &'m mut [u8],
    /// The neurons of the layer that was begun: those active for any of its tokens.
    active: &'m mut [u32],
    /// For a batch: which tokens a neuron is active for, a bit each, `mask_bytes` for each neuron.
    masks: &'m mut [u8],
    /// For a batch: a value for each token of each neuron, f32 as bits.
    coefficients: &'m [AtomicU32],
    /// By token: what products have to be above, where that was told.
    cutoffs: &'m mut [f32],
    /// By token: sums of the squares of its coefficients, where a norm over them comes before down.
    squares: &'m mut [f64],
    begun: Begun,
}

/// What was begun.
#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    tokens: usize,
    /// How many of `active`.
    count: usize,
    /// Whether cutoffs were told.
    cut: bool,
}

impl<'m> Ffn<'m> {
    /// Chooses the kernel for a pack's shape. `memory` is the caller's, of
    /// [`Ffn::required_bytes`], at any alignment.
    ///
    /// # Errors
    /// [`EngineError::NotComputable`] for placeholders and for types without kernels;
    /// [`EngineError::Config`] for 0 tokens or more than [`BATCH_TOKENS_MAX`];
    /// [`EngineError::ArenaTooSmall`].
    pub fn new(
        shape: &Shape,
        features: CpuFeatures,
        tokens_max: usize,
        memory: &'m mut [u8],
    ) -> Result<Self, EngineError> {
        let kernel = kernel(shape, features, tokens_max)?;
        let (expected, found) = (required_bytes(&kernel, shape, tokens_max), memory.len());
        if found < expected {
            return Err(EngineError::ArenaTooSmall { expected, found });
        }
        let mut arena = Arena::new(memory);
        let neurons = batch_neurons(shape, tokens_max);
        Ok(Self {
            kernel,
            shape: *shape,
            tokens_max,
            inputs: arena.take_bytes(tokens_max * kernel.input_bytes(), ARENA_ALIGN)?,
            active: arena.take(shape.neurons as usize)?,
            masks: arena.take_bytes(neurons * mask_bytes(tokens_max), ARENA_ALIGN)?,
            coefficients: arena.take(neurons * tokens_max)?,
            cutoffs: arena.take(tokens_max)?,
            squares: arena.take(tokens_max)?,
            begun: Begun::default(),
        })
    }

    /// Bytes of memory for batches of up to `tokens_max` tokens.
    ///
    /// # Errors
    /// As [`Ffn::new`].
    pub fn required_bytes(
        shape: &Shape,
        features: CpuFeatures,
        tokens_max: usize,
    ) -> Result<usize, EngineError> {
        Ok(required_bytes(&kernel(shape, features, tokens_max)?, shape, tokens_max))
    }

    /// The kernels' tier.
    pub const fn tier(&self) -> Tier {
        self.kernel.tier()
    }

    /// Most tokens of a batch.
    pub const fn tokens_max(&self) -> usize {
        self.tokens_max
    }

    /// Computes a layer's output `y` for the hidden state `x` (`hidden` values each) over the
    /// active neurons (ids strictly ascending): the output bias, then each neuron's share in
    /// ascending id, so that the bits do not depend on order, cache, back end or collapse.
    ///
    /// # Errors
    /// As [`Engine::fetch`]; [`EngineError::Kernel`] where `x` or `y` has the wrong length.
    pub fn forward<'a, Q: TimedQueue<'a> + Send>(
        &mut self,
        engine: &mut Engine<'a, Q>,
        layer: u32,
        x: &[f32],
        active: &[u32],
        y: &mut [f32],
    ) -> Result<FetchStats, EngineError> {
        engine.session(|session| self.forward_in(session, &Alone, layer, x, &[active], y))
    }

    /// The same for several tokens, within a session: `x` and `y` are row-major `[tokens][hidden]`, `active` has
    /// a set for each token. The union of the sets is fetched, each bundle once. The bits are those of one token
    /// after the other, and with `workers`, which take the dot products of what has arrived while this thread
    /// reads and adds up, those of any number of them.
    ///
    /// # Errors
    /// As [`Ffn::begin`] and [`Ffn::finish`].
    pub fn forward_in<'a, Q: TimedQueue<'a> + Send>(
        &mut self,
        session: &mut Session<'_, 'a, Q>,
        workers: &dyn Workers,
        layer: u32,
        x: &[f32],
        active: &[&[u32]],
        y: &mut [f32],
    ) -> Result<FetchStats, EngineError> {
        // Before anything is read.
        check_lengths(&self.kernel, active.len(), x, y)?;
        self.begin(session, layer, active)?;
        self.finish(session, workers, layer, x, y)
    }

    /// The same from the hidden states alone: reads and computes what the pack's predictors name at a `quality` (0 to
    /// 1, see [`Predictors::predict`]).
    ///
    /// # Errors
    /// As [`Predictors::predict`] and [`Ffn::forward_in`].
    pub fn forward_predicted<'a, Q: TimedQueue<'a> + Send>(
        &mut self,
        session: &mut Session<'_, 'a, Q>,
        workers: &dyn Workers,
        (predictors, quality): (&mut Predictors<'_>, f32),
        layer: u32,
        x: &[f32],
        y: &mut [f32],
    ) -> Result<FetchStats, EngineError> {
        let pack = session.engine().pack();
        let predicted = predictors.predict(pack, (layer, 0), quality, x)?;
        self.forward_in(session, workers, layer, x, predicted.sets(), y)
    }

    /// Begins a layer: submits the reads of what is active for any of some tokens, of which `active` has a set
    /// each. What the caller does before [`Ffn::finish`], it does while they are read.
    ///
    /// # Errors
    /// [`EngineError::OtherShape`]; [`EngineError::Kernel`] for 0 tokens or more than `tokens_max`; or as
    /// [`Session::begin`].
    pub fn begin<'a, Q: TimedQueue<'a>>(
        &mut self,
        session: &mut Session<'_, 'a, Q>,
        layer: u32,
        active: &[&[u32]],
    ) -> Result<(), EngineError> {
        let tokens = active.len();
        if tokens == 0 || tokens > self.tokens_max {
            let (expected, found) = (self.tokens_max, tokens);
            return Err(KernelError::Length { what: "batch", expected, found }.into());
        }
        self.layer_of(session, layer)?;
        let count = self.unite(active)?;
        self.begun = Begun { tokens, count, cut: false };
        session.begin(layer, self.active_set()?)
    }

    /// Tells the cutoffs of the tokens of the layer that was begun, one each: what products with the gate (or up) rows
    /// have to be above. Needed where the layer's activation is `gaussian_topk`, whose cutoffs go by all neurons and not
    /// only by those that are read; ignored elsewhere.
    ///
    /// # Errors
    /// [`EngineError::Kernel`] where there are not as many as tokens.
    pub fn cut(&mut self, cutoffs: &[f32]) -> Result<(), EngineError> {
        let (expected, found) = (self.begun.tokens, cutoffs.len());
        if expected != found {
            return Err(KernelError::Length { what: "cutoffs", expected, found }.into());
        }
        self.cutoffs.iter_mut().zip(cutoffs).for_each(|(own, cutoff)| *own = *cutoff);
        self.begun.cut = true;
        Ok(())
    }

    /// Finishes the layer that was begun: computes the outputs `y` for the hidden states `x`, row-major
    /// `[tokens][hidden]` both.
    ///
    /// # Errors
    /// [`EngineError::NotBegun`]; [`EngineError::NoCutoffs`]; as [`Engine::fetch`]; [`EngineError::Kernel`] where `x` or
    /// `y` has the wrong length.
    pub fn finish<'a, Q: TimedQueue<'a> + Send>(
        &mut self,
        session: &mut Session<'_, 'a, Q>,
        workers: &dyn Workers,
        layer: u32,
        x: &[f32],
        y: &mut [f32],
    ) -> Result<FetchStats, EngineError> {
        let Begun { tokens, cut, .. } = self.begun;
        check_lengths(&self.kernel, tokens, x, y)?;
        let view = self.layer_of(session, layer)?;
        let activation = activation(view.activation());
        let kernel = self.kernel.with_activation(activation);
        if activation == Activation::GaussianTopk && !cut {
            return Err(EngineError::NoCutoffs { layer });
        }
        if !cut {
            self.cutoffs.fill(0.0);
        }
        self.squares.fill(0.0);
        let hidden = kernel.shape().hidden;
        y.chunks_exact_mut(hidden).for_each(|y| start_with_bias(&view, y));
        for (token, x) in x.chunks_exact(hidden).enumerate() {
            kernel.prepare(x, &mut self.inputs[token * kernel.input_bytes()..])?;
        }
        let inputs = Inputs { kernel, x, prepared: self.inputs, cutoffs: self.cutoffs };
        let mut norms = Norms::of(&view, self.squares);
        let active = ActiveSet::new(&self.active[..self.begun.count], self.shape.neurons)?;
        let mut in_vain = 0;
        let stats = if tokens == 1 {
            let input = inputs.of(0)?;
            let arrive = |neuron, bundle: &[u8], later: &[u8]| {
                Ok(kernel.coefficient(&input, bundle, bias(&view, neuron), later)?)
            };
            let mut finish = |neuron, coefficient, bundle: &[u8], later: &[u8]| {
                in_vain += u64::from(coefficient == 0.0);
                let share = norms.share(0, neuron, coefficient);
                Ok(kernel.accumulate(share, bundle, later, y)?)
            };
            session.finish(workers, layer, active, arrive, &mut finish)?
        } else {
            let batch = Batch {
                inputs,
                tokens,
                masks: self.masks,
                mask_bytes: mask_bytes(self.tokens_max),
                coefficients: self.coefficients,
            };
            let arrive = |neuron, bundle: &[u8], later: &[u8]| {
                batch.arrive(neuron, bundle, later, bias(&view, neuron))
            };
            let mut finish = |neuron, _, bundle: &[u8], later: &[u8]| {
                in_vain += u64::from(!batch.finish(neuron, bundle, later, &mut norms, y)?);
                Ok(())
            };
            session.finish(workers, layer, active, arrive, &mut finish)?
        };
        norms.finish(&view, &self.shape, y);
        Ok(FetchStats { in_vain, ..stats })
    }

    /// The active set of what was begun.
    fn active_set(&self) -> Result<ActiveSet<'_>, EngineError> {
        ActiveSet::new(&self.active[..self.begun.count], self.shape.neurons)
    }

    /// A layer's view, if the pack is of the shape that this was made for.
    fn layer_of<'a, Q: TimedQueue<'a>>(
        &self,
        session: &Session<'_, 'a, Q>,
        layer: u32,
    ) -> Result<Layer<'a>, EngineError> {
        let pack = session.engine().pack();
        if *pack.shape() != self.shape {
            return Err(EngineError::OtherShape);
        }
        pack.layer(layer).ok_or(EngineError::Layer { found: layer, layers: pack.shape().layers })
    }

    /// Merges the sets into `active`, and notes which tokens each neuron is of; returns how many neurons.
    fn unite(&mut self, sets: &[&[u32]]) -> Result<usize, EngineError> {
        let neurons = self.shape.neurons;
        if let [only] = sets {
            let ids = ActiveSet::new(only, neurons)?.ids();
            self.active[..ids.len()].copy_from_slice(ids);
            return Ok(ids.len());
        }
        self.masks.fill(0);
        let mask_bytes = mask_bytes(self.tokens_max);
        for (token, set) in sets.iter().enumerate() {
            for neuron in ActiveSet::new(set, neurons)?.ids() {
                self.masks[*neuron as usize * mask_bytes + token / 8] |= 1 << (token % 8);
            }
        }
        let mut count = 0;
        for (neuron, mask) in (0..).zip(self.masks.chunks_exact(mask_bytes.max(1))) {
            if mask.iter().any(|bits| *bits != 0) {
                self.active[count] = neuron;
                count += 1;
            }
        }
        Ok(count)
    }
}

fn kernel(shape: &Shape, features: CpuFeatures, tokens_max: usize) -> Result<Kernel, EngineError> {
    if !(1..=BATCH_TOKENS_MAX).contains(&tokens_max) {
        let found = tokens_max as u64;
        return Err(EngineError::Config { field: "tokens_max", rule: "must be 1 to 256", found });
    }
    let dtype = match shape.dtype {
        format::Dtype::F32 => Dtype::F32,
        format::Dtype::F16 => Dtype::F16,
        format::Dtype::Bf16 => Dtype::Bf16,
        format::Dtype::Q8_0 => Dtype::Q8_0,
        format::Dtype::Q4_0 => Dtype::Q4_0,
        other => return Err(EngineError::NotComputable { dtype: other.name() }),
    };
    let activation = activation((shape.activation, shape.activation_threshold));
    let (hidden, parts) = (shape.hidden as usize, shape.parts as usize);
    Ok(Kernel::new(KernelShape { hidden, parts, dtype, activation }, features)?)
}

/// An activation of a pack, with its threshold, as the kernels have it.
fn activation((activation, threshold): (format::Activation, f32)) -> Activation {
    match activation {
        format::Activation::Relu => Activation::Relu,
        format::Activation::Fatrelu => Activation::Fatrelu { threshold },
        format::Activation::Relu2 => Activation::Relu2,
        format::Activation::Silu => Activation::Silu,
        format::Activation::Gelu => Activation::Gelu,
        format::Activation::Drelu => Activation::Drelu,
        format::Activation::GeluTanh => Activation::GeluTanh,
        // how many deviations is in the cutoffs
        format::Activation::GaussianTopk => Activation::GaussianTopk,
    }
}

/// Bytes of the bits that say which tokens a neuron is active for.
const fn mask_bytes(tokens_max: usize) -> usize {
    tokens_max.div_ceil(8)
}

/// Neurons to keep books of: none for single tokens.
const fn batch_neurons(shape: &Shape, tokens_max: usize) -> usize {
    if tokens_max > 1 { shape.neurons as usize } else { 0 }
}

fn required_bytes(kernel: &Kernel, shape: &Shape, tokens_max: usize) -> usize {
    let neurons = batch_neurons(shape, tokens_max);
    let mut size = ArenaSize::default();
    size.add_bytes(tokens_max.saturating_mul(kernel.input_bytes()), ARENA_ALIGN);
    size.add::<u32>(shape.neurons as usize);
    size.add_bytes(neurons.saturating_mul(mask_bytes(tokens_max)), ARENA_ALIGN);
    size.add::<AtomicU32>(neurons.saturating_mul(tokens_max));
    size.add::<f32>(tokens_max);
    size.add::<f64>(tokens_max);
    size.bytes()
}

fn check_lengths(kernel: &Kernel, tokens: usize, x: &[f32], y: &[f32]) -> Result<(), EngineError> {
    let expected = tokens.saturating_mul(kernel.shape().hidden);
    for (what, found) in [("hidden state", x.len()), ("output", y.len())] {
        if found != expected {
            return Err(KernelError::Length { what, expected, found }.into());
        }
    }
    Ok(())
}
