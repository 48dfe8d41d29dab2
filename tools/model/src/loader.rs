//! From checkpoint tensors to matrices, and to norms and biases in f32, with the bytes held counted.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{LayerNorm, RmsNorm};

use super::architecture::NormKind;
use super::checkpoint::Checkpoint;
use super::dense_type::{DenseOptions, HeldType};
use super::matrix::Matrix;

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

/// Loads tensors of known shape and counts their bytes; or counts them only.
pub(crate) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    options: DenseOptions,
    bytes: usize,
    /// Whether nothing is read: tensors are zeros then, and matrices have no numbers at all.
    counting: bool,
    /// All that was asked for, by name.
    wanted: BTreeMap<String, Wanted>,
}

/// What a model wants of its checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) shape: Vec<usize>,
    /// How a matrix is held; none for what is no matrix.
    pub(crate) held: Option<HeldType>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(checkpoint: &'a Checkpoint, options: DenseOptions) -> Self {
        Self { checkpoint, options, bytes: 0, counting: false, wanted: BTreeMap::new() }
    }

    /// One that reads no weights: for telling how much memory they will take.
    pub(crate) fn counting(checkpoint: &'a Checkpoint, options: DenseOptions) -> Self {
        Self { counting: true, ..Self::new(checkpoint, options) }
    }

    /// Bytes of all tensors loaded so far, as held in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How matrices are held.
    pub(crate) fn options(&self) -> &DenseOptions {
        &self.options
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

    /// All that was asked for so far, by name.
    pub(crate) fn wanted(self) -> BTreeMap<String, Wanted> {
        self.wanted
    }

    fn want(&mut self, name: &str, shape: &[usize], held: Option<HeldType>) {
        self.wanted.insert(name.to_owned(), Wanted { shape: shape.to_vec(), held });
    }

    /// A table of which rows are read when they are asked for, by whoever asks: checks its shape.
    pub(crate) fn on_demand(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        self.check_shape(name, shape)?;
        self.want(name, shape, None);
        Ok(())
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
        self.want(name, shape, None);
        self.bytes += shape.iter().product::<usize>() * size_of::<f32>();
        if self.counting {
            return Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?);
        }
        Ok(Tensor::from_vec(self.checkpoint.read_f32(name)?, shape, &Device::Cpu)?)
    }

    /// The matrix `weight` `[output, input]` with its bias `[output]`, if named.
    pub(crate) fn matrix(
        &mut self,
        weight: &str,
        bias: Option<&str>,
        output: usize,
        input: usize,
    ) -> Result<Matrix> {
        let options = self.options;
        let matrix = self.read(weight, [output, input], options)?;
        Ok(matrix.with_bias(self.bias(bias, output)?))
    }

    fn read(&mut self, name: &str, shape: [usize; 2], options: DenseOptions) -> Result<Matrix> {
        self.check_shape(name, &shape)?;
        let [rows, columns] = shape;
        let held = options.held(self.checkpoint.dtype(name)?, columns);
        self.want(name, &shape, Some(held));
        if self.counting {
            self.bytes += rows * held.row_bytes(columns);
            return Matrix::on_flash(self.checkpoint, name, shape, &options);
        }
        let matrix = Matrix::read(self.checkpoint, name, shape, held, &options)?;
        self.bytes += matrix.bytes();
        Ok(matrix)
    }

    /// Some rows of the matrix `name` `[.., columns]`, each of `parts` as the caller cuts it out.
    pub(crate) fn cut(
        &mut self,
        name: &str,
        [rows, columns]: [usize; 2],
        parts: [usize; 3],
        cut: impl Fn(&Tensor, usize) -> candle_core::Result<Tensor>,
    ) -> Result<[Matrix; 3]> {
        self.check_shape(name, &[rows, columns])?;
        let (stored, options) = (self.checkpoint.dtype(name)?, self.options);
        // Rows of blocks are rounded one by one: cut up before or after, they are the same.
        self.want(name, &[rows, columns], Some(options.held(stored, columns)));
        let all = match self.counting {
            true => None,
            false => {
                let values = self.checkpoint.read_f32(name)?;
                Some(Tensor::from_vec(values, (rows, columns), &Device::Cpu)?)
            }
        };
        let mut part = |number: usize| -> Result<Matrix> {
            let Some(all) = &all else {
                self.bytes += parts[number] * options.held(stored, columns).row_bytes(columns);
                return Matrix::on_flash(self.checkpoint, name, [parts[number], columns], &options);
            };
            let matrix = Matrix::of_tensor(&cut(all, number)?, stored, &options)?;
            self.bytes += matrix.bytes();
            Ok(matrix)
        };
        Ok([part(0)?, part(1)?, part(2)?])
    }

    /// A table `[rows, columns]` of which rows are looked up, and nothing is rounded. On flash it stays where it is.
    pub(crate) fn table(&mut self, name: &str, shape: [usize; 2]) -> Result<Matrix> {
        let options = self.options.lossless();
        if options.embeddings_on_flash {
            self.check_shape(name, &shape)?;
            self.want(name, &shape, None);
            return Matrix::on_flash(self.checkpoint, name, shape, &options);
        }
        self.read(name, shape, options)
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
