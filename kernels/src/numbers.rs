//! Number types of matrices of rows.

use crate::dtype::{BLOCK, Dtype};

/// How the numbers of [`crate::Rows`] are stored. All numbers are little-endian.
///
/// Five are those of [`Dtype`]. The others are blocks of 32 numbers of few bits: an f16 scale `s`, then
/// 32 codes of K bits, the first in the lowest bits of the first byte. A code `c` stands for
/// `(2 c + 1 - 2^K) s`: as many steps below zero as above, and none at zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Numbers {
    /// As [`Dtype::F32`].
    F32,
    /// As [`Dtype::F16`].
    F16,
    /// As [`Dtype::Bf16`].
    Bf16,
    /// As [`Dtype::Q8_0`].
    Q8_0,
    /// As [`Dtype::Q4_0`].
    Q4_0,
    /// Codes of one bit: -1 and 1.
    Bits1,
    /// Codes of two bits: -3, -1, 1, 3.
    Bits2,
    /// Codes of four bits: -15 to 15.
    Bits4,
    /// Codes of eight bits: -255 to 255.
    Bits8,
}

impl Numbers {
    /// All types.
    pub const ALL: [Self; 9] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Bits1,
        Self::Bits2,
        Self::Bits4,
        Self::Bits8,
    ];

    /// Its name in reports, as in files of predictors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => Dtype::F32.name(),
            Self::F16 => Dtype::F16.name(),
            Self::Bf16 => Dtype::Bf16.name(),
            Self::Q8_0 => Dtype::Q8_0.name(),
            Self::Q4_0 => Dtype::Q4_0.name(),
            Self::Bits1 => "bits:1",
            Self::Bits2 => "bits:2",
            Self::Bits4 => "bits:4",
            Self::Bits8 => "bits:8",
        }
    }

    /// Bytes of a block of 32 numbers.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => Dtype::F32.block_bytes(),
            Self::F16 => Dtype::F16.block_bytes(),
            Self::Bf16 => Dtype::Bf16.block_bytes(),
            Self::Q8_0 => Dtype::Q8_0.block_bytes(),
            Self::Q4_0 => Dtype::Q4_0.block_bytes(),
            Self::Bits1 => bits_block_bytes(1),
            Self::Bits2 => bits_block_bytes(2),
            Self::Bits4 => bits_block_bytes(4),
            Self::Bits8 => bits_block_bytes(8),
        }
    }

    /// Bytes of a row of `columns` numbers, a multiple of 32.
    pub const fn row_bytes(self, columns: usize) -> usize {
        columns / BLOCK * self.block_bytes()
    }
}

/// Bytes of a block of 32 codes of so many bits, with its scale.
pub(crate) const fn bits_block_bytes(bits: usize) -> usize {
    2 + bits * BLOCK / 8
}
