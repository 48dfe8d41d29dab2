//! Matrices in few bits: how the numbers of a predictor are stored, and what they take.
//!
//! - `f32`, `f16`: one number after the other, little-endian.
//! - `q8_0`: blocks of 32 numbers of a row, an f16 scale and 32 signed bytes, as in GGUF.
//! - `bits:K`: blocks of 32 numbers of a row, an f16 scale s and 32 codes of K bits, the first in the
//!   lowest bits of the first byte. A code c stands for (2c + 1 - 2^K) s: as many steps below zero as
//!   above, and none at zero.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use half::f16;

/// Numbers of a row that share a scale.
pub const BLOCK: usize = 32;
/// Bytes of a block's scale.
const SCALE_BYTES: usize = 2;
/// Scales tried for a block of few bits, as shares of the largest that makes sense.
const SCALES_TRIED: usize = 24;

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// 32 bits, exact.
    F32,
    /// 16 bits.
    F16,
    /// 8.5 bits in blocks, as in GGUF.
    Q8_0,
    /// Of 1, 2, 4 or 8 bits in blocks, with a scale: half a bit more.
    Bits(u8),
}

impl Numbers {
    /// Columns of a matrix are a multiple of this.
    pub fn columns_step(self) -> usize {
        match self {
            Self::F32 | Self::F16 => 1,
            Self::Q8_0 | Self::Bits(_) => BLOCK,
        }
    }

    /// Bytes of a row of so many numbers, a multiple of [`Numbers::columns_step`].
    pub fn row_bytes(self, columns: usize) -> usize {
        let of_blocks = |bits: usize| columns / BLOCK * (SCALE_BYTES + bits * BLOCK / 8);
        match self {
            Self::F32 => 4 * columns,
            Self::F16 => 2 * columns,
            Self::Q8_0 => of_blocks(8),
            Self::Bits(bits) => of_blocks(bits.into()),
        }
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32 => f.write_str("f32"),
            Self::F16 => f.write_str("f16"),
            Self::Q8_0 => f.write_str("q8_0"),
            Self::Bits(bits) => write!(f, "bits:{bits}"),
        }
    }
}

impl FromStr for Numbers {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "f32" => Self::F32,
            "f16" => Self::F16,
            "q8_0" => Self::Q8_0,
            "bits:1" => Self::Bits(1),
            "bits:2" => Self::Bits(2),
            "bits:4" => Self::Bits(4),
            "bits:8" => Self::Bits(8),
            _ => bail!("must be f32, f16, q8_0 or bits:1, bits:2, bits:4, bits:8"),
        })
    }
}

/// A matrix as it is stored, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    numbers: Numbers,
    rows: usize,
    columns: usize,
    bytes: Vec<u8>,
}

impl Matrix {
    /// Rounds a row-major matrix.
    ///
    /// # Errors
    /// A length that is no whole rows, columns that are no whole blocks, or numbers that the type cannot
    /// hold.
    pub fn encode(numbers: Numbers, columns: usize, values: &[f32]) -> Result<Self> {
        check_columns(numbers, columns)?;
        ensure!(
            columns > 0 && values.len().is_multiple_of(columns),
            "{} numbers are not whole rows of {columns}",
            values.len()
        );
        let rows = values.len() / columns;
        let mut bytes = Vec::with_capacity(rows * numbers.row_bytes(columns));
        match numbers {
            Numbers::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Numbers::F16 => {
                bytes.extend(values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()))
            }
            Numbers::Q8_0 => values.chunks(BLOCK).for_each(|block| encode_q8_0(block, &mut bytes)),
            Numbers::Bits(bits) => {
                values.chunks(BLOCK).for_each(|block| encode_bits(bits, block, &mut bytes))
            }
        }
        let matrix = Self { numbers, rows, columns, bytes };
        let sound = values.iter().all(|value| value.is_finite())
            && matrix.decode().iter().all(|value| value.is_finite());
        ensure!(sound, "a weight of the predictor does not fit into {numbers}");
        Ok(matrix)
    }

    /// A matrix from the bytes of a file.
    ///
    /// # Errors
    /// Another length than rows and columns make, or columns that are no whole blocks.
    pub fn from_bytes(
        numbers: Numbers,
        rows: usize,
        columns: usize,
        bytes: Vec<u8>,
    ) -> Result<Self> {
        check_columns(numbers, columns)?;
        let expected = rows.checked_mul(numbers.row_bytes(columns));
        ensure!(
            expected == Some(bytes.len()),
            "a matrix of {rows} x {columns} in {numbers} has {} bytes",
            bytes.len()
        );
        Ok(Self { numbers, rows, columns, bytes })
    }

    /// How the numbers are stored.
    pub fn numbers(&self) -> Numbers {
        self.numbers
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The bytes as they stand in the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Row-major, as f32.
    pub fn decode(&self) -> Vec<f32> {
        match self.numbers {
            Numbers::F32 => {
                self.bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
            }
            Numbers::F16 => self
                .bytes
                .as_chunks()
                .0
                .iter()
                .map(|two| f16::from_le_bytes(*two).to_f32())
                .collect(),
            Numbers::Q8_0 => self.decode_blocks(8, |byte, _| f32::from(byte as i8)),
            Numbers::Bits(bits) => self.decode_blocks(bits, step_of_code),
        }
    }

    /// The first so many columns, which are whole blocks: the same numbers, in fewer bytes.
    ///
    /// # Errors
    /// More columns than there are, or no whole blocks.
    pub fn first_columns(&self, columns: usize) -> Result<Self> {
        check_columns(self.numbers, columns)?;
        ensure!(columns <= self.columns, "{columns} columns of {}", self.columns);
        let (from, to) = (self.numbers.row_bytes(self.columns), self.numbers.row_bytes(columns));
        let bytes = self.bytes.chunks(from.max(1)).flat_map(|row| &row[..to]).copied().collect();
        Ok(Self { columns, bytes, ..*self })
    }

    /// The first so many rows.
    ///
    /// # Errors
    /// More rows than there are.
    pub fn first_rows(&self, rows: usize) -> Result<Self> {
        ensure!(rows <= self.rows, "{rows} rows of {}", self.rows);
        let bytes = self.bytes[..rows * self.numbers.row_bytes(self.columns)].to_vec();
        Ok(Self { rows, bytes, ..*self })
    }

    /// Blocks of a scale and codes of so many bits.
    fn decode_blocks(&self, bits: u8, step: fn(u8, u8) -> f32) -> Vec<f32> {
        let code_bytes = usize::from(bits) * BLOCK / 8;
        let per_byte = 8 / bits;
        let mask = u8::MAX >> (8 - bits);
        let mut out = Vec::with_capacity(self.rows * self.columns);
        for block in self.bytes.chunks(SCALE_BYTES + code_bytes) {
            let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
            for &byte in &block[SCALE_BYTES..] {
                let code = |at: u8| (byte >> (at * bits)) & mask;
                out.extend((0..per_byte).map(|at| scale * step(code(at), bits)));
            }
        }
        out
    }
}

fn check_columns(numbers: Numbers, columns: usize) -> Result<()> {
    let step = numbers.columns_step();
    ensure!(
        columns.is_multiple_of(step),
        "{columns} columns in {numbers}: a multiple of {step} is possible"
    );
    Ok(())
}

fn encode_q8_0(block: &[f32], out: &mut Vec<u8>) {
    let largest = block.iter().fold(0f32, |most, value| most.max(value.abs()));
    let scale = f16::from_f32(largest / 127.0);
    let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
    out.extend(scale.to_le_bytes());
    // the scale is rounded: a code may come out one too large
    out.extend(
        block.iter().map(|value| (value * inverse).round().clamp(-127.0, 127.0) as i8 as u8),
    );
}

/// What a code of so many bits stands for, in scales.
fn step_of_code(code: u8, bits: u8) -> f32 {
    f32::from(2 * i16::from(code) + 1 - (1 << bits))
}

/// The code whose step is nearest.
fn code_of(value: f32, inverse: f32, bits: u8) -> u8 {
    let top = f32::from(u8::MAX >> (8 - bits));
    ((value * inverse + top) / 2.0).round().clamp(0.0, top) as u8
}

/// The scale of least squared error, of those tried; for each try the codes are the nearest, then the
/// scale is the best for these codes.
fn encode_bits(bits: u8, block: &[f32], out: &mut Vec<u8>) {
    let largest = block.iter().fold(0f32, |most, value| most.max(value.abs()));
    let steps = f32::from(u8::MAX >> (8 - bits));
    let (mut best, mut best_error) = (f16::ZERO, f32::INFINITY);
    for tried in 1..=SCALES_TRIED {
        let scale = largest / steps * tried as f32 / SCALES_TRIED as f32;
        if scale <= 0.0 {
            break;
        }
        let codes = |value: &f32| step_of_code(code_of(*value, 1.0 / scale, bits), bits);
        let (along, of_codes) = block.iter().fold((0.0, 0.0), |(along, of_codes), value| {
            let step = codes(value);
            (along + value * step, of_codes + step * step)
        });
        let fitted = f16::from_f32(along / of_codes);
        let error: f32 =
            block.iter().map(|value| (value - fitted.to_f32() * codes(value)).powi(2)).sum();
        if error < best_error {
            (best, best_error) = (fitted, error);
        }
    }
    let inverse = if best == f16::ZERO { 0.0 } else { 1.0 / best.to_f32() };
    out.extend(best.to_le_bytes());
    for values in block.chunks(usize::from(8 / bits)) {
        let mut byte = 0;
        for (at, value) in (0u8..).zip(values) {
            byte |= code_of(*value, inverse, bits) << (at * bits);
        }
        out.push(byte);
    }
}

/// Numbers as f16 bytes, for a vector of its own.
pub(crate) fn f16_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
}

/// The same back.
pub(crate) fn from_f16_bytes(bytes: &[u8]) -> Result<Vec<f32>> {
    let numbers: Vec<f32> =
        bytes.as_chunks().0.iter().map(|two| f16::from_le_bytes(*two).to_f32()).collect();
    ensure!(numbers.iter().all(|number| number.is_finite()), "a number that is none: damaged");
    Ok(numbers)
}

#[cfg(test)]
#[path = "numbers_tests.rs"]
mod tests;
