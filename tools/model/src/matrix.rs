//! Matrices of the dense parts, held in the type that they are stored in, or another, and never expanded as a whole.
//!
//! Few tokens are multiplied straight from the bytes, by the kernels: all that there is to do is to read the matrix
//! once. For many, pieces of it become f32, and candle multiplies them, but for types whose products the kernels make of
//! bytes: these are faster than that for any number of tokens, and the same whatever their number.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Result as Computed, Tensor};
use lnp_kernels::{Input, KernelError, Numbers, Rows, TOKENS_MAX};
use rayon::prelude::*;
use zerocopy::IntoBytes;

use super::checkpoint::Checkpoint;
use super::dense_type::{DenseOptions, DenseType, HeldType};
use super::stored::{StoredType, quantised, to_f32};
use super::with_numbers;

/// Bytes of rows that a thread multiplies at least: less is not worth waking one up.
const THREAD_BYTES_MIN: usize = 1 << 20;
/// Most tokens that are multiplied straight from numbers of 16 bits: for more it pays to make them f32.
const TOKENS_16_BITS_MAX: usize = 64;
/// Numbers of a piece that is made f32 at once.
pub(crate) const PIECE_NUMBERS: usize = 1 << 20;

/// A matrix `[rows, columns]` with its bias `[rows]`, if it has one: `y = x W^T + b`.
pub(crate) struct Matrix {
    held: Held,
    rows: usize,
    columns: usize,
    /// None where the columns are not whole blocks: candle multiplies it then.
    kernel: Option<Rows>,
    bias: Option<Tensor>,
}

enum Held {
    F32(Tensor),
    Bytes(DenseType, Vec<u8>),
    /// What candle multiplies as it is.
    Ggml(StoredType, Arc<QTensor>),
    /// Nothing: rows are read when they are asked for. The name of the tensor.
    Flash(Checkpoint, String),
}

impl Matrix {
    /// Reads a matrix out of a checkpoint, whose shape has been checked.
    pub(crate) fn read(
        checkpoint: &Checkpoint,
        name: &str,
        [rows, columns]: [usize; 2],
        held: HeldType,
        options: &DenseOptions,
    ) -> Result<Self> {
        let stored = checkpoint.dtype(name)?;
        let held = match held {
            HeldType::Ggml(dtype) => {
                let bytes = checkpoint.read_raw(name)?.1;
                Held::Ggml(dtype, Arc::new(quantised(dtype, &bytes, (rows, columns))?))
            }
            HeldType::Of(DenseType::F32) => {
                let values = checkpoint.read_f32(name)?;
                Held::F32(Tensor::from_vec(values, (rows, columns), &Device::Cpu)?)
            }
            HeldType::Of(numbers) if stored == numbers.stored() => {
                Held::Bytes(numbers, checkpoint.read_raw(name)?.1)
            }
            HeldType::Of(numbers) => {
                Held::Bytes(numbers, rounded(checkpoint, name, [rows, columns], numbers)?)
            }
        };
        Self::of(held, rows, columns, options)
    }

    /// A table of which rows are looked up, read from the checkpoint each time.
    pub(crate) fn on_flash(
        checkpoint: &Checkpoint,
        name: &str,
        [rows, columns]: [usize; 2],
        options: &DenseOptions,
    ) -> Result<Self> {
        Self::of(Held::Flash(checkpoint.clone(), name.to_owned()), rows, columns, options)
    }

    /// A matrix of numbers that are there already, and are stored so.
    pub(crate) fn of_tensor(
        weights: &Tensor,
        stored: StoredType,
        options: &DenseOptions,
    ) -> Result<Self> {
        let (rows, columns) = weights.dims2()?;
        let held = match options.held(stored, columns) {
            HeldType::Of(numbers) if numbers != DenseType::F32 => {
                let values = weights.flatten_all()?.to_vec1::<f32>()?;
                let mut bytes = Vec::new();
                append_rounded(values, numbers, &mut bytes)?;
                Held::Bytes(numbers, bytes)
            }
            _ => Held::F32(weights.contiguous()?),
        };
        Self::of(held, rows, columns, options)
    }

    fn of(held: Held, rows: usize, columns: usize, options: &DenseOptions) -> Result<Self> {
        let kernel = match &held {
            Held::F32(_) => Rows::new(Numbers::F32, columns, options.features).ok(),
            Held::Bytes(numbers, bytes) => {
                let (found, expected) = (bytes.len(), numbers.numbers().row_bytes(columns) * rows);
                ensure!(found == expected, "a matrix of {found} bytes, not {expected}");
                Rows::new(numbers.numbers(), columns, options.features).ok()
            }
            Held::Ggml(..) | Held::Flash(..) => None,
        };
        Ok(Self { held, rows, columns, kernel, bias: None })
    }

    /// What is held, row after row; numbers in f32 as the caller makes them bytes.
    pub(crate) fn bytes_or(self, of_f32: impl Fn(Tensor) -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        match self.held {
            Held::F32(tensor) => of_f32(tensor),
            Held::Bytes(_, bytes) => Ok(bytes),
            Held::Ggml(_, tensor) => Ok(tensor.data()?.into_owned()),
            Held::Flash(checkpoint, name) => Ok(checkpoint.read_raw(&name)?.1),
        }
    }

    /// The same with a bias `[rows]`, if there is one.
    pub(crate) fn with_bias(self, bias: Option<Tensor>) -> Self {
        Self { bias, ..self }
    }

    /// Bytes held, without the bias.
    pub(crate) fn bytes(&self) -> usize {
        match &self.held {
            Held::F32(tensor) => tensor.elem_count() * size_of::<f32>(),
            Held::Bytes(_, bytes) => bytes.len(),
            Held::Ggml(_, tensor) => tensor.storage_size_in_bytes(),
            Held::Flash(..) => 0,
        }
    }

    /// The products [tokens, rows] with x [tokens, columns].
    pub(crate) fn forward(&self, x: &Tensor) -> Computed<Tensor> {
        let tokens = x.dim(0)?;
        let products = match &self.kernel {
            Some(kernel) if tokens <= self.few_tokens() => self.few(kernel, x, tokens)?,
            _ => self.many(x)?,
        };
        match &self.bias {
            Some(bias) => products.broadcast_add(bias),
            None => Ok(products),
        }
    }

    /// Most tokens that are multiplied straight from the bytes.
    fn few_tokens(&self) -> usize {
        match &self.held {
            Held::Bytes(DenseType::Q8_0 | DenseType::Q4_0, _) => usize::MAX,
            Held::Bytes(..) => TOKENS_16_BITS_MAX,
            _ => TOKENS_MAX,
        }
    }

    /// Some rows, as embeddings are looked up [rows, columns].
    pub(crate) fn rows_of(&self, rows: &[u32]) -> Computed<Tensor> {
        match &self.held {
            Held::F32(tensor) => {
                tensor.index_select(&Tensor::from_slice(rows, rows.len(), &Device::Cpu)?, 0)
            }
            _ => {
                let each = rows.iter().map(|row| self.piece(*row as usize, 1));
                Tensor::cat(&each.collect::<Computed<Vec<_>>>()?, 0)
            }
        }
    }

    /// Straight from the bytes.
    fn few(&self, kernel: &Rows, x: &Tensor, tokens: usize) -> Computed<Tensor> {
        let mut out = vec![0.0; tokens * self.rows];
        let mut multiply = |weights: &[u8]| {
            with_numbers(x, |x| -> Result<()> {
                let batches = x.chunks(TOKENS_MAX * self.columns);
                for (x, out) in batches.zip(out.chunks_mut(TOKENS_MAX * self.rows)) {
                    let tokens = x.len() / self.columns;
                    let mut memory = vec![0; tokens * kernel.input_bytes()];
                    let mut inputs = [Input::default(); TOKENS_MAX];
                    let mut rest = &mut memory[..];
                    for (input, x) in inputs.iter_mut().zip(x.chunks_exact(self.columns)) {
                        let (own, after) = rest.split_at_mut(kernel.input_bytes());
                        *input = kernel.prepare(x, own)?;
                        rest = after;
                    }
                    multiply_rows(kernel, &inputs[..tokens], weights, out)?;
                }
                Ok(())
            })
        };
        let done = match &self.held {
            Held::Bytes(_, bytes) => multiply(bytes)?,
            Held::F32(tensor) => with_numbers(tensor, |weights| multiply(weights.as_bytes()))??,
            Held::Ggml(..) | Held::Flash(..) => candle_core::bail!("a matrix without kernels"),
        };
        done.map_err(|error| candle_core::Error::Msg(format!("{error:#}")))?;
        Tensor::from_vec(out, (tokens, self.rows), &Device::Cpu)
    }

    /// Piece by piece in f32.
    fn many(&self, x: &Tensor) -> Computed<Tensor> {
        match &self.held {
            Held::F32(tensor) => return x.matmul(&tensor.t()?),
            Held::Ggml(_, tensor) => {
                return QMatMul::from_arc(Arc::clone(tensor))?.forward(&x.contiguous()?);
            }
            Held::Bytes(..) | Held::Flash(..) => {}
        }
        let step = (PIECE_NUMBERS / self.columns.max(1)).max(1);
        let pieces = (0..self.rows)
            .step_by(step)
            .map(|first| x.matmul(&self.piece(first, step.min(self.rows - first))?.t()?));
        Tensor::cat(&pieces.collect::<Computed<Vec<_>>>()?, 1)
    }

    /// `count` rows in f32 [count, columns].
    fn piece(&self, first: usize, count: usize) -> Computed<Tensor> {
        let cut = |dtype: StoredType, bytes: &[u8]| {
            let row_bytes = bytes.len() / self.rows.max(1);
            let piece = bytes.get(first * row_bytes..(first + count) * row_bytes);
            piece.and_then(|piece| to_f32(dtype, piece))
        };
        let values = match &self.held {
            Held::F32(tensor) => return tensor.narrow(0, first, count),
            Held::Bytes(numbers, bytes) => cut(numbers.stored(), bytes),
            Held::Ggml(dtype, tensor) => cut(*dtype, &tensor.data()?),
            Held::Flash(checkpoint, name) => {
                let read = checkpoint.read_rows_raw(name, first..first + count);
                let (dtype, bytes) =
                    read.map_err(|error| candle_core::Error::Msg(format!("{error:#}")))?;
                to_f32(dtype, &bytes)
            }
        };
        let Some(values) = values else { candle_core::bail!("rows beyond a matrix") };
        Tensor::from_vec(values, (count, self.columns), &Device::Cpu)
    }
}

/// `out[t * rows + i] = row i . xs[t]`, on as many of rayon's threads as it is worth.
///
/// # Errors
/// As [`Rows::multiply_batch`].
pub fn multiply_rows(
    kernel: &Rows,
    inputs: &[Input<'_>],
    weights: &[u8],
    out: &mut [f32],
) -> Result<(), KernelError> {
    let row_bytes = kernel.row_bytes().max(1);
    let rows = weights.len() / row_bytes;
    let threads = rayon::current_num_threads().min(weights.len() / THREAD_BYTES_MIN).max(1);
    if threads == 1 {
        return match inputs {
            [only] => kernel.multiply(only, weights, out),
            several => kernel.multiply_batch(several, weights, out),
        };
    }
    // Whole groups of four, which some kernels take together.
    let each = rows.div_ceil(threads).next_multiple_of(4);
    let pieces = weights.par_chunks(each * row_bytes);
    if let [input] = inputs {
        let done = pieces.zip(out.par_chunks_mut(each));
        return done.try_for_each(|(weights, out)| kernel.multiply(input, weights, out));
    }
    let products = pieces.map(|weights| {
        let mut out = vec![0.0; weights.len() / row_bytes * inputs.len()];
        kernel.multiply_batch(inputs, weights, &mut out).map(|()| out)
    });
    for (piece, products) in products.collect::<Result<Vec<_>, _>>()?.iter().enumerate() {
        let count = products.len() / inputs.len();
        for (token, products) in products.chunks_exact(count).enumerate() {
            let first = token * rows + piece * each;
            out[first..first + count].copy_from_slice(products);
        }
    }
    Ok(())
}

/// A matrix of a checkpoint rounded to another type, some rows at a time.
fn rounded(
    checkpoint: &Checkpoint,
    name: &str,
    [rows, columns]: [usize; 2],
    numbers: DenseType,
) -> Result<Vec<u8>> {
    let step = (PIECE_NUMBERS / columns.max(1)).max(1);
    let mut bytes = Vec::with_capacity(numbers.numbers().row_bytes(columns) * rows);
    for first in (0..rows).step_by(step) {
        let (stored, piece) = checkpoint.read_rows_raw(name, first..rows.min(first + step))?;
        let values = to_f32(stored, &piece);
        let values = values.with_context(|| format!("tensor `{name}` is {stored}, no weights"))?;
        append_rounded(values, numbers, &mut bytes)?;
    }
    Ok(bytes)
}

/// Appends numbers, whole blocks, in another type.
fn append_rounded(values: Vec<f32>, numbers: DenseType, bytes: &mut Vec<u8>) -> Result<()> {
    let ggml = match numbers {
        DenseType::F32 => GgmlDType::F32,
        DenseType::F16 => GgmlDType::F16,
        DenseType::Bf16 => GgmlDType::BF16,
        DenseType::Q8_0 => GgmlDType::Q8_0,
        DenseType::Q4_0 => GgmlDType::Q4_0,
    };
    let count = values.len();
    let tensor = Tensor::from_vec(values, count, &Device::Cpu)?;
    bytes.extend_from_slice(&QTensor::quantize(&tensor, ggml)?.data()?);
    Ok(())
}

#[cfg(test)]
#[path = "matrix_tests.rs"]
mod tests;
