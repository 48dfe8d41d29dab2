//! What can go wrong between a set of active neurons and their bundles.

use core::fmt;

use lnp_format::FormatError;
use lnp_kernels::KernelError;

use crate::arena::ArenaError;
use crate::queue::ReadError;

/// Why the engine cannot be opened, or cannot fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineError {
    /// The arena is smaller than [`crate::required_bytes`] says.
    ArenaTooSmall {
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A setting breaks its rule.
    Config {
        /// The setting.
        field: &'static str,
        /// Its rule.
        rule: &'static str,
        /// Its value.
        found: u64,
    },
    /// The pack is not valid.
    Pack(FormatError),
    /// A read failed.
    Read(ReadError),
    /// A layer that the pack does not have.
    Layer {
        /// The layer asked for.
        found: u32,
        /// Layers of the pack.
        layers: u32,
    },
    /// An active set that is not strictly ascending, or names a neuron that is not there.
    Active {
        /// Position in the active set.
        position: usize,
        /// The neuron there.
        found: u32,
        /// Neurons of the layer.
        neurons: u32,
    },
    /// A bundle read from the device does not match its checksum.
    BundleDamaged {
        /// Its layer.
        layer: u32,
        /// Its slot.
        slot: u32,
        /// The stored checksum.
        expected: u32,
        /// The checksum of the bytes read.
        found: u32,
    },
    /// What is read is not the pack that the views are of: another file, or one that was replaced.
    OtherPack,
    /// The pack holds placeholders or a type without kernels: nothing can be computed from it.
    NotComputable {
        /// The pack's dtype.
        dtype: &'static str,
    },
    /// The pack has no predictor of this layer and horizon.
    NoPredictor {
        /// The layer asked for.
        layer: u32,
        /// How many layers ahead.
        horizon: u32,
    },
    /// The FFN was made for a pack of another shape.
    OtherShape,
    /// A kernel was given slices of the wrong length.
    Kernel(KernelError),
    /// The layer's activation goes by cutoffs, and none were told ([`crate::ffn::Ffn::cut`]).
    NoCutoffs {
        /// The layer.
        layer: u32,
    },
    /// What was to be finished is not what was begun.
    NotBegun {
        /// The layer to be finished.
        layer: u32,
    },
    /// Something that always holds does not: a mistake of this library.
    Broken {
        /// What should hold.
        invariant: &'static str,
    },
}

impl EngineError {
    /// What cannot be, by what holds everywhere else.
    pub(crate) const fn broken(invariant: &'static str) -> Self {
        Self::Broken { invariant }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ArenaTooSmall { expected, found } => {
                write!(f, "the arena has {found} bytes, {expected} are needed")
            }
            Self::Config { field, rule, found } => write!(f, "{field} is {found}, {rule}"),
            Self::Pack(error) => error.fmt(f),
            Self::Read(error) => error.fmt(f),
            Self::Layer { found, layers } => {
                write!(f, "layer {found} asked for, the pack has {layers}")
            }
            Self::Active { position, found, neurons } => write!(
                f,
                "active set: neuron {found} at position {position}, must ascend and be below {neurons}"
            ),
            Self::BundleDamaged { layer, slot, expected, found } => write!(
                f,
                "bundle in slot {slot} of layer {layer} has checksum {found:08x}, {expected:08x} expected: damaged"
            ),
            Self::OtherPack => {
                f.write_str("the file is not the pack that was opened: was it replaced?")
            }
            Self::NotComputable { dtype } => {
                write!(f, "bundles of type {dtype} can be read but not computed from")
            }
            Self::NoPredictor { layer, horizon } => {
                write!(f, "the pack has no predictor of layer {layer}, {horizon} layers ahead")
            }
            Self::OtherShape => f.write_str("the FFN was made for a pack of another shape"),
            Self::Kernel(error) => error.fmt(f),
            Self::NoCutoffs { layer } => {
                write!(f, "layer {layer} needs a cutoff for each token, and none were told")
            }
            Self::NotBegun { layer } => {
                write!(
                    f,
                    "layer {layer} is to be finished with another active set than it was begun with"
                )
            }
            Self::Broken { invariant } => {
                write!(
                    f,
                    "does not hold, though it must: {invariant}. This is a mistake in lnp: please report it"
                )
            }
        }
    }
}

impl core::error::Error for EngineError {}

impl From<ArenaError> for EngineError {
    fn from(error: ArenaError) -> Self {
        let ArenaError { expected, found } = error;
        Self::ArenaTooSmall { expected, found }
    }
}

impl From<FormatError> for EngineError {
    fn from(error: FormatError) -> Self {
        Self::Pack(error)
    }
}

impl From<ReadError> for EngineError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<KernelError> for EngineError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}
