//! Matrices of the dense parts, held in the type that they are stored in, or another, and never expanded as a whole.
//!
//! Few tokens are multiplied straight from the bytes, by the kernels: all that there is to do is to read the matrix
//! once. For many, pieces of it become f32, and candle multiplies them.

use anyhow::{Context, Result, ensure};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Result as Computed, Tensor};
use lnp_engine::sys::cpu::detect;
use lnp_kernels::{CpuFeatures, Input, Numbers, Rows, TOKENS_MAX, Tier};
use rayon::prelude::*;
use zerocopy::IntoBytes;

use super::checkpoint::Checkpoint;
use super::stored::{StoredType, to_f32};
use super::with_numbers;

/// Bytes of rows that a thread multiplies at least: less is not worth waking one up.
const THREAD_BYTES_MIN: usize = 1 << 20;
/// Numbers of a piece that is made f32 at once.
const PIECE_NUMBERS: usize = 1 << 20;

/// How the dense parts of a model are held: attention, embeddings, head.
#[derive(Debug, Clone, Copy)]
pub struct DenseOptions {
    /// In which type; none for one that loses nothing: f16 where the checkpoint is in f16, else f32.
    pub numbers: Option<DenseType>,
    /// What the kernels may use.
    pub features: CpuFeatures,
}

impl Default for DenseOptions {
    /// Without loss, of the weights and of what is multiplied with them: kernels that round their input are left out.
    fn default() -> Self {
        Self { numbers: None, features: detect().up_to(Tier::Neon) }
    }
}

impl DenseOptions {
    /// The same in f32, whatever the checkpoint has.
    pub(crate) fn in_f32() -> Self {
        Self { numbers: Some(DenseType::F32), ..Self::default() }
    }
}

/// A type that matrices of the dense parts are held in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenseType {
    /// Exact, of any checkpoint but one in f64.
    F32,
    /// Rounded, where the checkpoint is not in f16.
    F16,
    /// Rounded to 8 bits, a scale for each 32.
    Q8_0,
}

impl DenseType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Q8_0];

    /// The type of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dense| dense.name() == name)
    }

    /// Its name on the command line and in JSON.
    pub const fn name(self) -> &'static str {
        self.numbers().name()
    }

    const fn numbers(self) -> Numbers {
        match self {
            Self::F32 => Numbers::F32,
            Self::F16 => Numbers::F16,
            Self::Q8_0 => Numbers::Q8_0,
        }
    }

    const fn stored(self) -> StoredType {
        match self {
            Self::F32 => StoredType::F32,
            Self::F16 => StoredType::F16,
            Self::Q8_0 => StoredType::Q8_0,
        }
    }

    /// What holds a checkpoint's type without loss.
    fn of_stored(stored: StoredType) -> Self {
        if stored == StoredType::F16 { Self::F16 } else { Self::F32 }
    }
}

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
}

impl Matrix {
    /// Reads a matrix out of a checkpoint, whose shape has been checked.
    pub(crate) fn read(
        checkpoint: &Checkpoint,
        name: &str,
        [rows, columns]: [usize; 2],
        options: &DenseOptions,
    ) -> Result<Self> {
        let stored = checkpoint.dtype(name)?;
        let numbers = options.numbers.unwrap_or_else(|| DenseType::of_stored(stored));
        let blocks = columns.is_multiple_of(32);
        let held = match numbers {
            DenseType::F16 | DenseType::Q8_0 if blocks => {
                let bytes = if stored == numbers.stored() {
                    checkpoint.read_raw(name)?.1
                } else {
                    rounded(checkpoint, name, [rows, columns], numbers)?
                };
                Held::Bytes(numbers, bytes)
            }
            _ => Held::F32(Tensor::from_vec(
                checkpoint.read_f32(name)?,
                (rows, columns),
                &Device::Cpu,
            )?),
        };
        Self::of(held, rows, columns, options)
    }

    /// The same of numbers that are there already.
    pub(crate) fn of_tensor(weights: &Tensor, options: &DenseOptions) -> Result<Self> {
        let (rows, columns) = weights.dims2()?;
        Self::of(Held::F32(weights.contiguous()?), rows, columns, options)
    }

    fn of(held: Held, rows: usize, columns: usize, options: &DenseOptions) -> Result<Self> {
        let numbers = match &held {
            Held::F32(_) => Numbers::F32,
            Held::Bytes(numbers, _) => numbers.numbers(),
        };
        let kernel = Rows::new(numbers, columns, options.features).ok();
        if let Held::Bytes(_, bytes) = &held {
            let expected = numbers.row_bytes(columns) * rows;
            ensure!(bytes.len() == expected, "a matrix of {} bytes, not {expected}", bytes.len());
        }
        Ok(Self { held, rows, columns, kernel, bias: None })
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
        }
    }

    /// The products [tokens, rows] with x [tokens, columns].
    pub(crate) fn forward(&self, x: &Tensor) -> Computed<Tensor> {
        let tokens = x.dim(0)?;
        let products = match &self.kernel {
            Some(kernel) if tokens <= TOKENS_MAX => self.few(kernel, x, tokens)?,
            _ => self.many(x)?,
        };
        match &self.bias {
            Some(bias) => products.broadcast_add(bias),
            None => Ok(products),
        }
    }

    /// Some rows, as embeddings are looked up [rows, columns].
    pub(crate) fn rows_of(&self, rows: &[u32]) -> Computed<Tensor> {
        match &self.held {
            Held::F32(tensor) => {
                tensor.index_select(&Tensor::from_slice(rows, rows.len(), &Device::Cpu)?, 0)
            }
            Held::Bytes(..) => {
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
                let mut memory = vec![0; tokens * kernel.input_bytes()];
                let mut inputs = [Input::default(); TOKENS_MAX];
                let mut rest = &mut memory[..];
                for (input, x) in inputs.iter_mut().zip(x.chunks_exact(self.columns)) {
                    let (own, after) = rest.split_at_mut(kernel.input_bytes());
                    *input = kernel.prepare(x, own)?;
                    rest = after;
                }
                multiply_rows(kernel, &inputs[..tokens], weights, &mut out)
            })
        };
        let done = match &self.held {
            Held::Bytes(_, bytes) => multiply(bytes)?,
            Held::F32(tensor) => with_numbers(tensor, |weights| multiply(weights.as_bytes()))??,
        };
        done.map_err(|error| candle_core::Error::Msg(format!("{error:#}")))?;
        Tensor::from_vec(out, (tokens, self.rows), &Device::Cpu)
    }

    /// Piece by piece in f32.
    fn many(&self, x: &Tensor) -> Computed<Tensor> {
        if let Held::F32(tensor) = &self.held {
            return x.matmul(&tensor.t()?);
        }
        let step = (PIECE_NUMBERS / self.columns.max(1)).max(1);
        let pieces = (0..self.rows)
            .step_by(step)
            .map(|first| x.matmul(&self.piece(first, step.min(self.rows - first))?.t()?));
        Tensor::cat(&pieces.collect::<Computed<Vec<_>>>()?, 1)
    }

    /// `count` rows in f32 [count, columns].
    fn piece(&self, first: usize, count: usize) -> Computed<Tensor> {
        match &self.held {
            Held::F32(tensor) => tensor.narrow(0, first, count),
            Held::Bytes(numbers, bytes) => {
                let row_bytes = numbers.numbers().row_bytes(self.columns);
                let piece = bytes.get(first * row_bytes..(first + count) * row_bytes);
                let values = piece.and_then(|piece| to_f32(numbers.stored(), piece));
                let Some(values) = values else { candle_core::bail!("rows beyond a matrix") };
                Tensor::from_vec(values, (count, self.columns), &Device::Cpu)
            }
        }
    }
}

/// `out[t * rows + i] = row i . xs[t]`, on as many threads as it is worth.
fn multiply_rows(
    kernel: &Rows,
    inputs: &[Input<'_>],
    weights: &[u8],
    out: &mut [f32],
) -> Result<()> {
    let row_bytes = kernel.row_bytes().max(1);
    let rows = weights.len() / row_bytes;
    let threads = rayon::current_num_threads().min(weights.len() / THREAD_BYTES_MIN).max(1);
    if threads == 1 {
        return Ok(kernel.multiply_batch(inputs, weights, out)?);
    }
    // Whole groups of four, which some kernels take together.
    let each = rows.div_ceil(threads).next_multiple_of(4);
    let pieces = weights.par_chunks(each * row_bytes);
    if let [input] = inputs {
        let done = pieces.zip(out.par_chunks_mut(each));
        return Ok(done.try_for_each(|(weights, out)| kernel.multiply(input, weights, out))?);
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
        if numbers == DenseType::F16 {
            bytes.extend(values.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()));
            continue;
        }
        let count = values.len();
        let tensor = Tensor::from_vec(values, count, &Device::Cpu)?;
        bytes.extend_from_slice(&QTensor::quantize(&tensor, GgmlDType::Q8_0)?.data()?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    /// Few tokens and many, every type, on threads or not: what f64 makes of the numbers that are held.
    #[test]
    fn products_agree_with_f64() -> Result<()> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(2);
        let features = DenseOptions::default().features;
        for (rows, columns) in [(5, 32), (70, 96), (3, 20), (6000, 128)] {
            let mut numbers = |count: usize| -> Vec<f32> {
                (0..count).map(|_| random.random::<f32>() - 0.5).collect()
            };
            let weights = numbers(rows * columns);
            let bias = Tensor::from_vec(numbers(rows), rows, &Device::Cpu)?;
            for dtype in DenseType::ALL {
                let options = DenseOptions { numbers: Some(dtype), features };
                let whole = Tensor::from_slice(&weights, (rows, columns), &Device::Cpu)?;
                let bytes = |ggml| -> Result<Vec<u8>> {
                    Ok(QTensor::quantize(&whole, ggml)?.data()?.into_owned())
                };
                let held = match dtype {
                    _ if !columns.is_multiple_of(32) => Held::F32(whole.clone()),
                    DenseType::F32 => Held::F32(whole.clone()),
                    DenseType::F16 => Held::Bytes(dtype, bytes(GgmlDType::F16)?),
                    DenseType::Q8_0 => Held::Bytes(dtype, bytes(GgmlDType::Q8_0)?),
                };
                let matrix = Matrix::of(held, rows, columns, &options)?;
                let matrix = matrix.with_bias(Some(bias.clone()));
                let held = matrix.piece(0, rows)?.to_vec2::<f32>()?;
                let looked_up = matrix.rows_of(&[2, 0])?.to_vec2::<f32>()?;
                assert_eq!(looked_up, [held[2].clone(), held[0].clone()]);
                for tokens in [1, 2, 7, 8, 9, 40] {
                    let x = Tensor::from_vec(
                        numbers(tokens * columns),
                        (tokens, columns),
                        &Device::Cpu,
                    )?;
                    let found = matrix.forward(&x)?.to_vec2::<f32>()?;
                    for (x, found) in x.to_vec2::<f32>()?.iter().zip(&found) {
                        let bias = bias.to_vec1::<f32>()?;
                        for ((row, bias), found) in held.iter().zip(&bias).zip(found) {
                            let terms =
                                || row.iter().zip(x).map(|(a, b)| f64::from(*a) * f64::from(*b));
                            let (sum, size) =
                                (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
                            let off = (f64::from(*found) - sum - f64::from(*bias)).abs();
                            // inputs of 8-bit kernels are rounded to 8 bits
                            let most = if dtype == DenseType::Q8_0 { 0.02 } else { 1e-3 };
                            assert!(off <= most * (size + 1.0), "{dtype:?} {rows} {tokens}: {off}");
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
