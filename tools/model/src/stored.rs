//! The types that files have weights in, and what the bytes mean as f32.

use std::fmt;

use candle_core::Device;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::{GgmlDType, QTensor};
use half::{bf16, f16};
use rayon::prelude::*;

/// Below this many elements a conversion is not worth splitting between threads.
const CONVERT_ELEMENTS_MIN: usize = 1 << 16;

/// A type of weights as files have them. Numbers of the types from `Q4_0` on share scales in blocks: ggml's
/// types, under the names that GGUF files are known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum StoredType {
    F64,
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    /// What is no type of weights, or none that can be read; its name.
    Other(&'static str),
}

impl StoredType {
    /// Elements that share a scale, along a row: 1 where each stands alone.
    pub fn block(self) -> usize {
        match self {
            Self::F64 | Self::F32 | Self::F16 | Self::Bf16 | Self::Other(_) => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 | Self::Iq4Nl => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// The type of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        const ALL: [StoredType; 15] = [
            StoredType::F64,
            StoredType::F32,
            StoredType::F16,
            StoredType::Bf16,
            StoredType::Q4_0,
            StoredType::Q4_1,
            StoredType::Q5_0,
            StoredType::Q5_1,
            StoredType::Q8_0,
            StoredType::Q2K,
            StoredType::Q3K,
            StoredType::Q4K,
            StoredType::Q5K,
            StoredType::Q6K,
            StoredType::Iq4Nl,
        ];
        ALL.into_iter().find(|stored| stored.name() == name)
    }

    /// Elements of a row of so many bytes; none where they are no whole blocks.
    pub fn columns(self, row_bytes: usize) -> Option<usize> {
        let block_bytes = self.row_bytes(self.block())?;
        row_bytes.is_multiple_of(block_bytes).then(|| row_bytes / block_bytes * self.block())
    }

    /// Bytes of a row of so many elements, whole blocks; none for what is no type of weights.
    pub fn row_bytes(self, columns: usize) -> Option<usize> {
        let block_bytes = match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Iq4Nl => 18,
            Self::Other(_) => return None,
            quantised => quantised.ggml()?.type_size(),
        };
        Some(columns / self.block() * block_bytes)
    }

    /// Whether elements share scales, so that no single one can be cut out of the bytes.
    pub fn is_quantised(self) -> bool {
        self.block() > 1
    }

    fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
            Self::Iq4Nl => "IQ4_NL",
            Self::Other(name) => name,
        }
    }

    /// Name in candle, which knows ggml's types but for IQ4_NL.
    fn ggml(self) -> Option<GgmlDType> {
        Some(match self {
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q5_1 => GgmlDType::Q5_1,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q2K => GgmlDType::Q2K,
            Self::Q3K => GgmlDType::Q3K,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q6K => GgmlDType::Q6K,
            _ => return None,
        })
    }
}

impl fmt::Display for StoredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<safetensors::Dtype> for StoredType {
    fn from(dtype: safetensors::Dtype) -> Self {
        use safetensors::Dtype;
        match dtype {
            Dtype::F64 => Self::F64,
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::Bf16,
            Dtype::BOOL => Self::Other("BOOL"),
            Dtype::U8 => Self::Other("U8"),
            Dtype::I8 => Self::Other("I8"),
            Dtype::U16 => Self::Other("U16"),
            Dtype::I16 => Self::Other("I16"),
            Dtype::U32 => Self::Other("U32"),
            Dtype::I32 => Self::Other("I32"),
            Dtype::U64 => Self::Other("U64"),
            Dtype::I64 => Self::Other("I64"),
            Dtype::F8_E4M3 => Self::Other("F8_E4M3"),
            Dtype::F8_E5M2 => Self::Other("F8_E5M2"),
            _ => Self::Other("of a type that holds no weights"),
        }
    }
}

/// Bytes of weights (little-endian) as f32: exact, but for F64, which is rounded, and for types with scales,
/// where it is what ggml makes of them. None if the type holds no weights that can be read.
pub fn to_f32(dtype: impl Into<StoredType>, bytes: &[u8]) -> Option<Vec<f32>> {
    fn convert<const N: usize>(bytes: &[u8], one: fn([u8; N]) -> f32) -> Vec<f32> {
        let (elements, _) = bytes.as_chunks::<N>();
        elements.par_iter().with_min_len(CONVERT_ELEMENTS_MIN).map(|&bytes| one(bytes)).collect()
    }
    let dtype = dtype.into();
    match dtype {
        StoredType::F64 => Some(convert(bytes, |bytes| f64::from_le_bytes(bytes) as f32)),
        StoredType::F32 => Some(convert(bytes, f32::from_le_bytes)),
        StoredType::F16 => Some(convert(bytes, |bytes| f16::from_le_bytes(bytes).to_f32())),
        StoredType::Bf16 => Some(convert(bytes, |bytes| bf16::from_le_bytes(bytes).to_f32())),
        StoredType::Iq4Nl => Some(bytes.as_chunks().0.iter().flat_map(iq4_nl).collect()),
        StoredType::Other(_) => None,
        quantised => {
            let ggml = quantised.ggml()?;
            let piece = CONVERT_ELEMENTS_MIN / ggml.block_size() * ggml.type_size();
            let pieces = bytes.par_chunks(piece).map(|bytes| dequantised(ggml, bytes));
            Some(pieces.collect::<Option<Vec<_>>>()?.concat())
        }
    }
}

/// The weights with each element standing alone, so that columns can be cut out: those that share scales
/// become F32.
pub fn standing_alone(dtype: StoredType, bytes: Vec<u8>) -> Option<(StoredType, Vec<u8>)> {
    if !dtype.is_quantised() {
        return Some((dtype, bytes));
    }
    let values = to_f32(dtype, &bytes)?;
    Some((StoredType::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
}

/// Row-major `[rows][columns]` to `[columns][rows]`, in tiles so that both sides stay in the cache.
/// The size of an element follows from the length.
pub(crate) fn transposed(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    const TILE: usize = 32;
    let size = bytes.len() / (rows * columns).max(1);
    let mut out = vec![0; bytes.len()];
    for row_tile in (0..rows).step_by(TILE) {
        for column_tile in (0..columns).step_by(TILE) {
            for row in row_tile..(row_tile + TILE).min(rows) {
                for column in column_tile..(column_tile + TILE).min(columns) {
                    let from = (row * columns + column) * size;
                    let to = (column * rows + row) * size;
                    out[to..to + size].copy_from_slice(&bytes[from..from + size]);
                }
            }
        }
    }
    out
}

/// Whole blocks, by candle. Its reader takes blocks of bytes for its structs: what it needs of their length
/// is checked here.
fn dequantised(ggml: GgmlDType, blocks: &[u8]) -> Option<Vec<f32>> {
    if !blocks.len().is_multiple_of(ggml.type_size()) {
        return None;
    }
    let elements = blocks.len() / ggml.type_size() * ggml.block_size();
    let tensor = qtensor_from_ggml(ggml, blocks, vec![elements], &Device::Cpu).ok()?;
    tensor.dequantize(&Device::Cpu).ok()?.to_vec1().ok()
}

/// A matrix of one of the types of blocks as candle has it, from whole rows of bytes.
pub(crate) fn quantised(
    dtype: StoredType,
    bytes: &[u8],
    (rows, columns): (usize, usize),
) -> candle_core::Result<QTensor> {
    let expected = dtype.row_bytes(columns).map(|row| row * rows);
    match dtype.ggml() {
        Some(ggml) if expected == Some(bytes.len()) => {
            qtensor_from_ggml(ggml, bytes, vec![rows, columns], &Device::Cpu)
        }
        _ => candle_core::bail!("{} bytes are no matrix of {dtype}", bytes.len()),
    }
}

/// A block of IQ4_NL: a scale in f16, then 32 numbers of 4 bits that choose from this table. The first half
/// of the block is in the low bits.
fn iq4_nl(block: &[u8; 18]) -> [f32; 32] {
    const TABLE: [i8; 16] =
        [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
    let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
    std::array::from_fn(|at| {
        let pair = block[2 + at % 16];
        scale * f32::from(TABLE[usize::from(if at < 16 { pair & 15 } else { pair >> 4 })])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposes() {
        let (rows, columns) = (37, 70);
        let bytes: Vec<u8> = (0..rows * columns).flat_map(|at| (at as u16).to_le_bytes()).collect();
        let out = transposed(&bytes, rows, columns);
        for row in 0..rows {
            for column in 0..columns {
                let at = 2 * (column * rows + row);
                let value = u16::from_le_bytes([out[at], out[at + 1]]);
                assert_eq!(value as usize, row * columns + column);
            }
        }
    }
}
