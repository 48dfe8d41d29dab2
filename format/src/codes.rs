//! The numbers that stand for names in a pack: section kinds, types, activations, feature bits.

/// Defines an enum of on-disk codes with one name each, the same in spec, code, CLI and JSON.
macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $code:literal $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $name { $($(#[$vmeta])* $variant = $code,)* }
        impl $name {
            /// All codes with their names, as the spec lists them.
            pub const TABLE: &'static [(u32, &'static str)] = &[$(($code, $text),)*];
            /// The code's meaning, `None` for one that this version does not know.
            pub const fn from_code(code: u32) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
            /// The number on disk.
            pub const fn code(self) -> u32 { self as u32 }
            /// The name in spec, CLI and JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
            /// The inverse of [`Self::name`].
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)* _ => None }
            }
        }
        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

codes! {
    /// What a section holds. Kinds below [`FIRST_BULK_KIND`] are index sections.
    SectionKind {
        /// One [`crate::layout::ModelShape`]; exactly one in a pack.
        ModelShape = 1 "model_shape",
        /// Text: where the pack comes from; exactly one in a pack.
        Provenance = 2 "provenance",
        /// The link index of one placement of one layer.
        LinkIndex = 3 "link_index",
        /// Biases, a norm, and an activation of one layer's own; optional.
        SideData = 4 "side_data",
        /// One checksum per bundle of one placement of one layer, in slot order.
        BundleChecksums = 5 "bundle_checksums",
        /// What says which neurons of one layer will be active; optional. `placement` is its horizon.
        Predictor = 6 "predictor",
        /// The bundles of one placement of one layer, in slot order.
        BundleRegion = 256 "bundle_region",
        /// The model's other weights, a safetensors file; optional.
        Resident = 257 "resident",
    }
}

/// Kinds from here on are *bulk*: they stand after all index sections and are read on demand.
pub const FIRST_BULK_KIND: u32 = 256;
/// `layer` of a section that belongs to the whole pack.
pub const WHOLE_PACK: u32 = u32::MAX;

codes! {
    /// Number type of the weights in a bundle.
    Dtype {
        /// IEEE 754 binary32.
        F32 = 1 "f32",
        /// IEEE 754 binary16.
        F16 = 2 "f16",
        /// The upper half of binary32.
        Bf16 = 3 "bf16",
        /// Blocks of 32: an f16 scale, then 32 signed bytes (as GGUF defines it).
        Q8_0 = 4 "q8_0",
        /// Blocks of 32: an f16 scale, then 16 bytes of nibbles (as GGUF defines it).
        Q4_0 = 5 "q4_0",
        /// No weights: bytes that only load the device. Goes with [`INCOMPAT_PLACEHOLDER`].
        Placeholder = 255 "placeholder",
    }
}

impl Dtype {
    /// Bytes of one part (a row or column of `hidden` weights) of a bundle; 0 for a placeholder.
    ///
    /// `hidden` is a multiple of 32 ([`crate::limits::HIDDEN_MULTIPLE`]).
    pub const fn part_bytes(self, hidden: u32) -> u32 {
        match self {
            Self::F32 => hidden.saturating_mul(4),
            Self::F16 | Self::Bf16 => hidden.saturating_mul(2),
            Self::Q8_0 => (hidden / 32).saturating_mul(34),
            Self::Q4_0 => (hidden / 32).saturating_mul(18),
            Self::Placeholder => 0,
        }
    }
}

codes! {
    /// The function between up (or gate) and down.
    Activation {
        /// `max(0, v)`.
        Relu = 1 "relu",
        /// `v` where `v > threshold`, else 0.
        Fatrelu = 2 "fatrelu",
        /// `max(0, v)^2`.
        Relu2 = 3 "relu2",
        /// `v / (1 + exp(-v))`.
        Silu = 4 "silu",
        /// `v / 2 * (1 + erf(v / sqrt 2))`, the exact form.
        Gelu = 5 "gelu",
        /// `max(0, v)`, of the up rows as well where there is a gate.
        Drelu = 6 "drelu",
        /// `v / 2 * (1 + tanh(sqrt(2 / pi) * (v + 0.044715 v^3)))`.
        GeluTanh = 7 "gelu_tanh",
        /// `gelu_tanh(max(0, v - cutoff))`; a token's cutoff is the mean of `v` over all neurons of the layer plus
        /// `activation_threshold` times their standard deviation.
        GaussianTopk = 8 "gaussian_topk",
    }
}

codes! {
    /// What a predictor is made of.
    PredictorKind {
        /// Two matrices, one applied after the other.
        LowRank = 1 "low_rank",
        /// One matrix.
        Rows = 2 "rows",
    }
}

codes! {
    /// How the matrices of a predictor are stored.
    PredictorNumbers {
        /// IEEE 754 binary32.
        F32 = 1 "f32",
        /// IEEE 754 binary16.
        F16 = 2 "f16",
        /// Blocks of 32: an f16 scale, then 32 signed bytes.
        Q8_0 = 4 "q8_0",
        /// Blocks of 32: an f16 scale, then 32 codes of one bit.
        Bits1 = 17 "bits:1",
        /// The same, of two bits.
        Bits2 = 18 "bits:2",
        /// The same, of four bits.
        Bits4 = 20 "bits:4",
        /// The same, of eight bits.
        Bits8 = 24 "bits:8",
    }
}

impl PredictorNumbers {
    /// Bytes of a row of so many numbers, a multiple of 32.
    pub const fn row_bytes(self, columns: u64) -> u64 {
        let of_block: u64 = match self {
            Self::F32 => 128,
            Self::F16 => 64,
            Self::Q8_0 | Self::Bits8 => 34,
            Self::Bits4 => 18,
            Self::Bits2 => 10,
            Self::Bits1 => 6,
        };
        (columns / 32).saturating_mul(of_block)
    }
}

/// Incompatible feature bit 0: the bundles are placeholders, there is nothing to compute from.
pub const INCOMPAT_PLACEHOLDER: u64 = 1 << 0;
/// Incompatible feature bit 1: side data may name another activation than the model shape.
pub const INCOMPAT_LAYER_ACTIVATIONS: u64 = 1 << 1;
/// Incompatible feature bit 2: a neuron may have more than one slot in a placement.
pub const INCOMPAT_COPIES: u64 = 1 << 2;
/// All incompatible feature bits that this implementation knows.
pub const INCOMPAT_KNOWN: u64 = INCOMPAT_PLACEHOLDER | INCOMPAT_LAYER_ACTIVATIONS | INCOMPAT_COPIES;
