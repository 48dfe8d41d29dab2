//! Rotary positions, with the two halves of a head as the pairs that turn (the convention of Hugging
//! Face checkpoints).

use anyhow::Result;
use candle_core::{Device, Tensor};
use candle_nn::rotary_emb::rope_thd;

use super::architecture::{Rope, RopeScaling};

/// The frequencies of one kind of rotary positions.
pub(crate) struct Rotary {
    /// Radians per position, one for each pair of columns.
    frequencies: Vec<f32>,
}

impl Rotary {
    pub(crate) fn new(rope: &Rope) -> Self {
        let (columns, theta) = (rope.columns as f32, rope.theta as f32);
        let frequency =
            |pair: usize| scaled(1.0 / theta.powf((2 * pair) as f32 / columns), &rope.scaling);
        Self { frequencies: (0..rope.columns / 2).map(frequency).collect() }
    }

    pub(crate) fn angles(&self, position: usize, tokens: usize) -> Result<Angles> {
        let angles: Vec<f32> = (position..position + tokens)
            .flat_map(|position| self.frequencies.iter().map(move |f| position as f32 * f))
            .collect();
        let angles = Tensor::from_vec(angles, (tokens, self.frequencies.len()), &Device::Cpu)?;
        Ok(Angles { cos: angles.cos()?, sin: angles.sin()? })
    }
}

fn scaled(frequency: f32, scaling: &RopeScaling) -> f32 {
    match *scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear(factor) => frequency / factor as f32,
        RopeScaling::Llama3 { factor, low, high, original } => {
            let wave = 2.0 * std::f64::consts::PI / f64::from(frequency);
            if wave < original / high {
                return frequency;
            }
            if wave > original / low {
                return frequency / factor as f32;
            }
            let smooth = (original / wave - low) / (high - low);
            let frequency = f64::from(frequency);
            ((1.0 - smooth) * frequency / factor + smooth * frequency) as f32
        }
    }
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
