//! Why bytes are not a pack.

use core::fmt;

/// Why a pack is refused. Every variant says where (byte offset in the file) and what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatError {
    /// Fewer bytes than the part needs.
    Truncated {
        /// The part that does not fit.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// The bytes that it needs.
        expected: u64,
        /// The bytes that there are.
        found: u64,
    },
    /// The first eight bytes are not those of a pack.
    NotAPack {
        /// The bytes found, as a little-endian number.
        found: u64,
    },
    /// A major version that this reader does not know.
    Version {
        /// The major version found.
        found: u16,
    },
    /// Incompatible feature bits that this reader does not know.
    Features {
        /// The unknown bits.
        found: u64,
    },
    /// A checksum does not match the bytes.
    Checksum {
        /// The part.
        what: &'static str,
        /// Where the part begins.
        offset: u64,
        /// The stored checksum.
        expected: u32,
        /// The checksum of the bytes found.
        found: u32,
    },
    /// A reserved or padding byte is not zero.
    NotZero {
        /// Which.
        what: &'static str,
        /// Offset of the first byte that is not zero.
        offset: u64,
        /// Its value.
        found: u8,
    },
    /// A field breaks its rule.
    Field {
        /// The field, by its name in the spec.
        field: &'static str,
        /// Offset of the field (or of the entry in a table).
        offset: u64,
        /// The rule, in words.
        rule: &'static str,
        /// The value found.
        found: u64,
    },
    /// A section that has to be there is not.
    Missing {
        /// Its kind.
        what: &'static str,
        /// Its layer ([`crate::codes::WHOLE_PACK`] for none).
        layer: u32,
    },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated { what, offset, expected, found } => {
                write!(f, "{what} at byte {offset} needs {expected} bytes, only {found} are there")
            }
            Self::NotAPack { found } => {
                write!(f, "not a linked neuron pack: the file begins with {found:#018x}")
            }
            Self::Version { found } => {
                write!(f, "format version {found} is not known to this reader (1 is)")
            }
            Self::Features { found } => {
                write!(f, "needs incompatible features {found:#x} that this reader does not know")
            }
            Self::Checksum { what, offset, expected, found } => write!(
                f,
                "checksum of {what} at byte {offset} is {found:08x}, {expected:08x} expected: damaged"
            ),
            Self::NotZero { what, offset, found } => {
                write!(f, "{what} at byte {offset} is {found:#04x}, must be zero")
            }
            Self::Field { field, offset, rule, found } => {
                write!(f, "{field} at byte {offset} is {found}: {rule}")
            }
            Self::Missing { what, layer } if layer == crate::codes::WHOLE_PACK => {
                write!(f, "section {what} is missing")
            }
            Self::Missing { what, layer } => {
                write!(f, "section {what} of layer {layer} is missing")
            }
        }
    }
}

impl core::error::Error for FormatError {}
