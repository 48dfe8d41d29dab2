//! From checkpoint tensors to matrices, and to norms and biases in f32, with the bytes held counted.

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{LayerNorm, RmsNorm};

use super::architecture::NormKind;
use super::checkpoint::Checkpoint;
use super::matrix::{DenseOptions, Matrix};

/// A norm of either kind.
pub(crate) enum Norm {
    Layer(LayerNorm),
    Rms(RmsNorm),
}

impl Norm {
    /// An RMSNorm without weights.
    pub(crate) fn plain(width: usize, eps: f64) -> Result<Self> {
        let ones = Tensor::ones(width, DType::F32, &Device::Cpu)?;
        Ok(Self::Rms(RmsNorm::new(ones, eps)))
    }
}

impl Module for Norm {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Layer(norm) => norm.forward(x),
            Self::Rms(norm) => norm.forward(x),
        }
    }
}

/// Loads tensors of known shape and counts their bytes.
pub(crate) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    options: DenseOptions,
    bytes: usize,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(checkpoint: &'a Checkpoint, options: DenseOptions) -> Self {
        Self { checkpoint, options, bytes: 0 }
    }

    /// Bytes of all tensors loaded so far, as held in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where the tensors are.
    pub(crate) fn checkpoint(&self) -> &'a Checkpoint {
        self.checkpoint
    }

    /// Whether there is such a tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.checkpoint.contains(name)
    }

    /// A bias `[width]`, if named.
    pub(crate) fn bias(&mut self, name: Option<&str>, width: usize) -> Result<Option<Tensor>> {
        name.map(|name| self.tensor(name, &[width])).transpose()
    }

    /// Checks that a tensor is of a shape.
    pub(crate) fn check_shape(&self, name: &str, shape: &[usize]) -> Result<()> {
        let found = self.checkpoint.shape(name)?;
        ensure!(
            found == shape,
            "{}: tensor `{name}` has shape {found:?}, {} makes it {shape:?}",
            self.checkpoint.path().display(),
            self.checkpoint.description()
        );
        Ok(())
    }

    /// A tensor as f32, after a check of its shape.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.check_shape(name, shape)?;
        let data = self.checkpoint.read_f32(name)?;
        self.bytes += size_of_val(data.as_slice());
        Ok(Tensor::from_vec(data, shape, &Device::Cpu)?)
    }

    /// The matrix `weight` `[output, input]` with its bias `[output]`, if named.
    pub(crate) fn matrix(
        &mut self,
        weight: &str,
        bias: Option<&str>,
        output: usize,
        input: usize,
    ) -> Result<Matrix> {
        self.check_shape(weight, &[output, input])?;
        let matrix = Matrix::read(self.checkpoint, weight, [output, input], &self.options)?;
        self.bytes += matrix.bytes();
        Ok(matrix.with_bias(self.bias(bias, output)?))
    }

    /// A matrix of numbers that were loaded.
    pub(crate) fn matrix_of(&self, weights: &Tensor, bias: Option<Tensor>) -> Result<Matrix> {
        Ok(Matrix::of_tensor(weights, &self.options)?.with_bias(bias))
    }

    /// An RMSNorm of the weights `weight` `[width]`.
    pub(crate) fn rms_norm(&mut self, weight: &str, width: usize, eps: f64) -> Result<Norm> {
        Ok(Norm::Rms(RmsNorm::new(self.tensor(weight, &[width])?, eps)))
    }

    /// `{name}.weight` `[width]`, and `{name}.bias` where the kind has one.
    pub(crate) fn norm(
        &mut self,
        name: &str,
        width: usize,
        kind: NormKind,
        eps: f64,
    ) -> Result<Norm> {
        let mut weight = self.tensor(&format!("{name}.weight"), &[width])?;
        if matches!(kind, NormKind::LayerPlusOne | NormKind::RmsPlusOne) {
            weight = (weight + 1.0)?;
        }
        Ok(match kind {
            NormKind::Rms | NormKind::RmsPlusOne => Norm::Rms(RmsNorm::new(weight, eps)),
            NormKind::Layer | NormKind::LayerPlusOne => {
                let bias = self.tensor(&format!("{name}.bias"), &[width])?;
                Norm::Layer(LayerNorm::new(weight, bias, eps))
            }
        })
    }
}
