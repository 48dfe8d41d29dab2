//! The kernel of one model: its shape checked once, its tier chosen once.

use core::fmt;

use crate::activation::Activation;
use crate::arch::{CpuFeatures, Ops, Tier};

/// Largest hidden size: keeps the bytes of a bundle within 32 bits.
pub const HIDDEN_MAX: usize = 1 << 24;

/// Number type of the weights in a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dtype {
    /// IEEE 754 binary32, little-endian.
    F32,
    /// IEEE 754 binary16, little-endian.
    F16,
}

impl Dtype {
    /// Bytes of one weight.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// What the bundles of a model look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelShape {
    /// Weights of one part; a multiple of 32.
    pub hidden: usize,
    /// 2 (up, down) or 3 (gate, up, down).
    pub parts: usize,
    /// Number type of the weights.
    pub dtype: Dtype,
    /// The function between up (or gate) and down.
    pub activation: Activation,
}

/// Why a kernel cannot be had, or cannot compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelError {
    /// The hidden size is 0, no multiple of 32, or above [`HIDDEN_MAX`].
    Hidden {
        /// The size asked for.
        found: usize,
    },
    /// A bundle has neither 2 nor 3 parts.
    Parts {
        /// The parts asked for.
        found: usize,
    },
    /// A slice has another length than the shape asks for.
    Length {
        /// Which slice.
        what: &'static str,
        /// Its length by the shape (bytes for a bundle, values otherwise).
        expected: usize,
        /// Its length.
        found: usize,
    },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Hidden { found } => {
                write!(f, "hidden size {found} is not a multiple of 32 up to 2^24")
            }
            Self::Parts { found } => write!(f, "a bundle of {found} parts, must be 2 or 3"),
            Self::Length { what, expected, found } => {
                write!(f, "{what} has length {found}, {expected} expected")
            }
        }
    }
}

impl core::error::Error for KernelError {}

/// The FFN of one neuron at a time, over bundle bytes.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    shape: KernelShape,
    ops: Ops,
}

impl Kernel {
    /// Checks the shape and chooses the best tier of `features`.
    ///
    /// # Errors
    /// [`KernelError::Hidden`], [`KernelError::Parts`].
    pub fn new(shape: KernelShape, features: CpuFeatures) -> Result<Self, KernelError> {
        if shape.hidden == 0 || shape.hidden > HIDDEN_MAX || !shape.hidden.is_multiple_of(32) {
            return Err(KernelError::Hidden { found: shape.hidden });
        }
        if !matches!(shape.parts, 2 | 3) {
            return Err(KernelError::Parts { found: shape.parts });
        }
        Ok(Self { shape, ops: Ops::select(shape.dtype, features) })
    }

    /// The tier in use.
    pub const fn tier(&self) -> Tier {
        self.ops.tier()
    }

    /// The shape of the bundles.
    pub const fn shape(&self) -> &KernelShape {
        &self.shape
    }

    /// Bytes of one bundle.
    pub const fn bundle_bytes(&self) -> usize {
        self.shape.parts * self.part_bytes()
    }

    const fn part_bytes(&self) -> usize {
        self.shape.hidden * self.shape.dtype.bytes()
    }

    /// How much of its down column a neuron adds for the hidden state `x` (`hidden` values).
    ///
    /// `bias` is added before the activation; 0 where the model has none.
    ///
    /// # Errors
    /// [`KernelError::Length`].
    pub fn coefficient(&self, x: &[f32], bundle: &[u8], bias: f32) -> Result<f32, KernelError> {
        self.check(x.len(), bundle)?;
        let (first, rest) = bundle.split_at(self.part_bytes());
        let activated = self.shape.activation.apply(self.ops.dot(x, first) + bias);
        if self.shape.parts == 2 {
            return Ok(activated);
        }
        let (up, _) = rest.split_at(self.part_bytes());
        Ok(activated * self.ops.dot(x, up))
    }

    /// Adds `coefficient` times the bundle's down column to `y` (`hidden` values).
    ///
    /// # Errors
    /// [`KernelError::Length`].
    pub fn accumulate(
        &self,
        coefficient: f32,
        bundle: &[u8],
        y: &mut [f32],
    ) -> Result<(), KernelError> {
        self.check(y.len(), bundle)?;
        let (_, down) = bundle.split_at(self.bundle_bytes() - self.part_bytes());
        self.ops.add_scaled(coefficient, down, y);
        Ok(())
    }

    fn check(&self, hidden: usize, bundle: &[u8]) -> Result<(), KernelError> {
        let length = |what, expected, found| {
            if expected == found {
                Ok(())
            } else {
                Err(KernelError::Length { what, expected, found })
            }
        };
        length("hidden state", self.shape.hidden, hidden)?;
        length("bundle", self.bundle_bytes(), bundle.len())
    }
}
