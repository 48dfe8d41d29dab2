//! Factors of a low-rank map refined by gradient descent on what decides reads: which neurons are active.
//!
//! The whitened decomposition, from which this starts, brings the scores near the pre-activations, of all
//! neurons alike. Here the scores are taken for logits of the active bits. The loss is the binary
//! cross-entropy, that of inactive pairs weighted by the density and 0.005, as Deja Vu has it. Steps are
//! AdamW's (candle's), in shares of the size that the factors have, which fall to zero towards the end.

use anyhow::Result;
use candle_core::{Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Rows of a step.
pub(crate) const BATCH: usize = 512;
/// Copies of a batch's scores that a step holds at once, about.
pub(crate) const COPIES: usize = 12;
/// The first step, as a share of the root mean square of a factor.
const STEP_SHARE: f64 = 0.01;
/// What is added to the density for the weight of the inactive.
const WEIGHT_LEAST: f64 = 0.005;
/// Powers of two tried as the scale that makes scores logits, in shares of their root mean square.
const SCALES: std::ops::RangeInclusive<i32> = -4..=8;
const SEED: u64 = 0x6c6e_7019;

/// What is refined: factors and offsets of centred inputs, row-major.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Factors {
    /// [rank, hidden]
    pub(crate) reduce: Vec<f32>,
    /// [neurons, rank]
    pub(crate) expand: Vec<f32>,
    /// `[neurons]`
    pub(crate) level: Vec<f32>,
}

/// Rows to learn from.
pub(crate) struct Lesson {
    /// Centred inputs, row-major.
    pub(crate) inputs: Vec<f32>,
    pub(crate) hidden: usize,
    /// Which neurons are active, row-major.
    pub(crate) active: Vec<bool>,
}

impl Lesson {
    fn neurons(&self) -> usize {
        self.active.len() / (self.inputs.len() / self.hidden).max(1)
    }

    /// Inputs and active bits of rows drawn by lot.
    fn batch(&self, random: &mut Xoshiro256PlusPlus) -> candle_core::Result<(Tensor, Tensor)> {
        let (hidden, neurons) = (self.hidden, self.neurons());
        let rows = self.inputs.len() / hidden;
        let (mut inputs, mut active) = (Vec::new(), Vec::new());
        for _ in 0..BATCH {
            let row = random.random_range(0..rows);
            inputs.extend_from_slice(&self.inputs[row * hidden..(row + 1) * hidden]);
            let bits = &self.active[row * neurons..(row + 1) * neurons];
            active.extend(bits.iter().map(|bit| f32::from(u8::from(*bit))));
        }
        let inputs = Tensor::from_vec(inputs, (BATCH, hidden), &Device::Cpu)?;
        Ok((inputs, Tensor::from_vec(active, (BATCH, neurons), &Device::Cpu)?))
    }
}

/// Refines factors by so many steps; `step` is called after each. The scores come out in the same scale.
///
/// # Errors
/// No memory.
pub(crate) fn refine(
    start: &Factors,
    lesson: &Lesson,
    steps: usize,
    step: &dyn Fn(),
) -> Result<Factors> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    let density =
        lesson.active.iter().filter(|bit| **bit).count() as f64 / lesson.active.len().max(1) as f64;
    let off = density + WEIGHT_LEAST;
    let neurons = lesson.neurons();
    let rank = start.expand.len() / neurons.max(1);
    let tensor =
        |values: &[f32], rows, columns| Tensor::from_slice(values, (rows, columns), &Device::Cpu);
    let reduce = Var::from_tensor(&tensor(&start.reduce, rank, lesson.hidden)?)?;
    let (expand, level) =
        (tensor(&start.expand, neurons, rank)?, tensor(&start.level, 1, neurons)?);
    let (inputs, active) = lesson.batch(&mut random)?;
    let scores = scores(&inputs, &reduce, &expand, &level)?;
    let scale = scale(&scores, &active, off)?;
    let (expand, level) =
        (Var::from_tensor(&(expand * scale)?)?, Var::from_tensor(&(level * scale)?)?);
    let mut optimisers = Vec::new();
    for var in [&reduce, &expand, &level] {
        let size = root_mean_square(var)?.max(f64::MIN_POSITIVE);
        let params = ParamsAdamW { lr: STEP_SHARE * size, weight_decay: 0.0, ..Default::default() };
        optimisers.push((AdamW::new(vec![var.clone()], params)?, STEP_SHARE * size));
    }
    for at in 0..steps {
        let (inputs, active) = lesson.batch(&mut random)?;
        let loss = loss(&self::scores(&inputs, &reduce, &expand, &level)?, &active, off)?;
        let gradients = loss.backward()?;
        for (optimiser, first) in &mut optimisers {
            optimiser.set_learning_rate(*first * (1.0 - at as f64 / steps as f64));
            optimiser.step(&gradients)?;
        }
        step();
    }
    let numbers = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
    let (expand, level) = ((expand.as_tensor() / scale)?, (level.as_tensor() / scale)?);
    Ok(Factors { reduce: numbers(&reduce)?, expand: numbers(&expand)?, level: numbers(&level)? })
}

fn scores(
    inputs: &Tensor,
    reduce: &Tensor,
    expand: &Tensor,
    level: &Tensor,
) -> candle_core::Result<Tensor> {
    inputs.matmul(&reduce.t()?)?.matmul(&expand.t()?)?.broadcast_add(level)
}

/// Mean of the binary cross-entropy of logits; pairs that are not active weigh `off`.
fn loss(logits: &Tensor, active: &Tensor, off: f64) -> candle_core::Result<Tensor> {
    // log(1 + e^z), whatever z; that of -z is less by z
    let softplus = (logits.relu()? + (logits.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
    let weight = active.affine(1.0 - off, off)?;
    ((weight * softplus)? - (active * logits)?)?.mean_all()
}

/// What the scores are to be multiplied by, so that the loss is least as they are.
fn scale(scores: &Tensor, active: &Tensor, off: f64) -> candle_core::Result<f64> {
    let size = root_mean_square(scores)?.max(f64::MIN_POSITIVE);
    let (mut best, mut least) = (1.0, f32::INFINITY);
    for power in SCALES {
        let scale = f64::from(power).exp2() / size;
        let found = loss(&(scores * scale)?, active, off)?.to_scalar::<f32>()?;
        if found < least {
            (best, least) = (scale, found);
        }
    }
    Ok(best)
}

fn root_mean_square(tensor: &Tensor) -> candle_core::Result<f64> {
    Ok(f64::from(tensor.sqr()?.mean_all()?.to_scalar::<f32>()?).sqrt())
}

#[cfg(test)]
#[path = "train_tests.rs"]
mod tests;
