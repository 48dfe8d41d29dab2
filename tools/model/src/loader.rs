//! From checkpoint tensors to candle layers in f32, with the bytes held counted.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use candle_nn::{LayerNorm, Linear, RmsNorm};

use super::checkpoint::Checkpoint;

/// Loads tensors of known shape and counts their bytes.
pub(crate) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    bytes: usize,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(checkpoint: &'a Checkpoint) -> Self {
        Self { checkpoint, bytes: 0 }
    }

    /// Bytes of all tensors loaded so far, as held in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A tensor as f32, after a check of its shape.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let found = self.checkpoint.shape(name)?;
        ensure!(
            found == shape,
            "{}: tensor `{name}` has shape {found:?}, config.json makes it {shape:?}",
            self.checkpoint.dir().display()
        );
        let data = self.checkpoint.read_f32(name)?;
        self.bytes += size_of_val(data.as_slice());
        Ok(Tensor::from_vec(data, shape, &Device::Cpu)?)
    }

    /// The matrix `weight` `[output, input]` with its bias `[output]`, if named.
    pub(crate) fn linear(
        &mut self,
        weight: &str,
        bias: Option<&str>,
        output: usize,
        input: usize,
    ) -> Result<Linear> {
        let weight = self.tensor(weight, &[output, input])?;
        let bias = bias.map(|bias| self.tensor(bias, &[output])).transpose()?;
        Ok(Linear::new(weight, bias))
    }

    /// `{name}.weight` and `{name}.bias`, both `[width]`.
    pub(crate) fn layer_norm(&mut self, name: &str, width: usize, eps: f64) -> Result<LayerNorm> {
        let weight = self.tensor(&format!("{name}.weight"), &[width])?;
        let bias = self.tensor(&format!("{name}.bias"), &[width])?;
        Ok(LayerNorm::new(weight, bias, eps))
    }

    /// `{name}.weight` `[width]`.
    pub(crate) fn rms_norm(&mut self, name: &str, width: usize, eps: f64) -> Result<RmsNorm> {
        Ok(RmsNorm::new(self.tensor(&format!("{name}.weight"), &[width])?, eps))
    }
}
