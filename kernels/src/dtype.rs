//! Number types of the weights in a bundle.

/// Weights of a block: hidden sizes are multiples of it, and quantised types have a scale for each.
pub const BLOCK: usize = 32;

/// Number type of the weights in a bundle. All numbers are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
    /// Blocks of 32 as GGUF's Q8_0: an f16 scale `d`, then 32 signed bytes `q`; a weight is `d * q`.
    Q8_0,
    /// Blocks of 32 as GGUF's Q4_0: an f16 scale `d`, then 16 bytes of two 4-bit numbers `q`, the
    /// first 16 weights in the low halves; a weight is `d * (q - 8)`.
    Q4_0,
}

impl Dtype {
    /// All types.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0];

    /// Its name in reports, as in the pack format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }

    /// Bytes of a block of 32 weights.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4 * BLOCK,
            Self::F16 | Self::Bf16 => 2 * BLOCK,
            Self::Q8_0 => 2 + BLOCK,
            Self::Q4_0 => 2 + BLOCK / 2,
        }
    }

    /// Bytes of one part: `hidden` weights, a multiple of 32.
    pub const fn part_bytes(self, hidden: usize) -> usize {
        hidden / BLOCK * self.block_bytes()
    }
}
