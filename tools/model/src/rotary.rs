//! Rotary positions, with the two halves of a head as the pairs that turn (the convention of Hugging
//! Face checkpoints).

use std::f64::consts::PI;

use anyhow::Result;
use candle_core::{Device, Tensor};
use candle_nn::rotary_emb::rope_thd;

use super::architecture::{Rope, RopeScaling};

/// The frequencies of one kind of rotary positions.
pub(crate) struct Rotary {
    /// Radians per position, one for each pair of columns.
    frequencies: Vec<f32>,
    /// What cosines and sines are multiplied by.
    magnitude: Option<f64>,
}

impl Rotary {
    pub(crate) fn new(rope: &Rope) -> Self {
        let (columns, theta) = (rope.columns as f32, rope.theta as f32);
        let frequency = |pair: usize| {
            let plain = 1.0 / theta.powf((2 * pair) as f32 / columns);
            scaled(rope, pair, plain)
        };
        let magnitude = match rope.scaling {
            RopeScaling::Yarn { magnitude, .. } => Some(magnitude),
            _ => None,
        };
        Self { frequencies: (0..rope.columns / 2).map(frequency).collect(), magnitude }
    }

    pub(crate) fn angles(&self, position: usize, tokens: usize) -> Result<Angles> {
        let angles: Vec<f32> = (position..position + tokens)
            .flat_map(|position| self.frequencies.iter().map(move |f| position as f32 * f))
            .collect();
        let angles = Tensor::from_vec(angles, (tokens, self.frequencies.len()), &Device::Cpu)?;
        let (mut cos, mut sin) = (angles.cos()?, angles.sin()?);
        if let Some(magnitude) = self.magnitude {
            (cos, sin) = ((cos * magnitude)?, (sin * magnitude)?);
        }
        Ok(Angles { cos, sin })
    }
}

/// The frequency of a pair as the model's scaling makes it.
fn scaled(rope: &Rope, pair: usize, plain: f32) -> f32 {
    let wide = f64::from(plain);
    // how much of it is kept, the rest being divided
    let (kept, factor) = match rope.scaling {
        RopeScaling::None => return plain,
        RopeScaling::Divided(ref by) => return plain / by[pair],
        RopeScaling::Linear(factor) => return plain / factor as f32,
        RopeScaling::Llama3 { factor, low, high, original } => {
            let turns = original * wide / (2.0 * PI);
            ((turns - low) / (high - low), factor)
        }
        RopeScaling::Yarn { factor, slow, fast, original, .. } => {
            let columns = rope.columns as f64;
            // the pair, not always whole, that turns so many times
            let pair_of = |turns: f64| {
                columns * (original / (turns * 2.0 * PI)).ln() / (2.0 * rope.theta.ln())
            };
            let first = pair_of(fast).floor().max(0.0);
            let last = pair_of(slow).ceil().min(columns - 1.0);
            let width = if first == last { 0.001 } else { last - first };
            (1.0 - (pair as f64 - first) / width, factor)
        }
    };
    let kept = kept.clamp(0.0, 1.0);
    ((1.0 - kept) * wide / factor + kept * wide) as f32
}

/// Cosines and sines [tokens, columns / 2] of the tokens at hand.
pub(crate) struct Angles {
    cos: Tensor,
    sin: Tensor,
}

impl Angles {
    /// Turns each head of x [tokens, heads * width of a head].
    pub(crate) fn turn(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let (head_dim, columns) = (width / heads, 2 * self.cos.dim(1)?);
        let x = x.reshape((1, tokens, heads, head_dim))?;
        let turned = if columns == head_dim {
            rope_thd(&x, &self.cos, &self.sin)?
        } else {
            let first = rope_thd(&x.narrow(3, 0, columns)?.contiguous()?, &self.cos, &self.sin)?;
            Tensor::cat(&[&first, &x.narrow(3, columns, head_dim - columns)?], 3)?
        };
        Ok(turned.reshape((tokens, width))?)
    }
}
