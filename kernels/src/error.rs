//! What can be wrong with a call.

use core::fmt;

/// Why a kernel cannot be had, or cannot compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelError {
    /// The hidden size is 0, no multiple of 32, or above [`crate::kernel::HIDDEN_MAX`].
    Hidden {
        /// The size asked for.
        found: usize,
    },
    /// A row's numbers are 0, no multiple of 32, or above [`crate::kernel::HIDDEN_MAX`].
    Columns {
        /// The numbers asked for.
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
    /// An input was prepared by a kernel of another number type or tier.
    Input,
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Hidden { found } => {
                write!(f, "hidden size {found} is not a multiple of 32 up to 2^24")
            }
            Self::Columns { found } => {
                write!(f, "rows of {found} numbers, must be a multiple of 32 up to 2^24")
            }
            Self::Parts { found } => write!(f, "a bundle of {found} parts, must be 2 or 3"),
            Self::Length { what, expected, found } => {
                write!(f, "{what} has length {found}, {expected} expected")
            }
            Self::Input => {
                f.write_str("the input was prepared by a kernel of another type or tier")
            }
        }
    }
}

impl core::error::Error for KernelError {}
