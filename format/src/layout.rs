//! The structs as they lie on disk: little-endian, no padding, checked at compile time.
//!
//! Each struct also carries the list of its fields ([`Field`]), which a test compares with the
//! tables of `spec/lnp-v1.md`.

use zerocopy::byteorder::{F32, LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::limits::SUPERBLOCK_BYTES;

/// The first eight bytes of a pack. As in PNG: not text, and broken by line-end conversion.
pub const MAGIC: [u8; 8] = [0x89, b'L', b'N', b'P', 0x0d, 0x0a, 0x1a, 0x0a];
/// Major version of the format that this crate reads and writes.
pub const VERSION_MAJOR: u16 = 1;
/// Minor version that this crate writes; a reader accepts any.
pub const VERSION_MINOR: u16 = 0;

/// Name, offset and size (bytes) of one field of an on-disk struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name, as in the spec.
    pub name: &'static str,
    /// Offset from the start of the struct, bytes.
    pub offset: usize,
    /// Size, bytes.
    pub bytes: usize,
}

/// Offset of a field in the file, its struct lying at `offset`.
pub(crate) fn field_at(fields: &[Field], name: &str, offset: u64) -> u64 {
    let field = fields.iter().find(|field| field.name == name);
    offset + field.map_or(0, |field| field.offset as u64)
}

macro_rules! on_disk {
    ($(#[$meta:meta])* $name:ident, $size:expr, { $($(#[$fmeta:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }
        // `IntoBytes` refuses padding; the size is stated once more so that it cannot drift.
        static_assertions::const_assert_eq!(size_of::<$name>(), $size);
        impl $name {
            /// The fields in order of their offsets.
            pub const FIELDS: &'static [Field] = &[$(Field {
                name: stringify!($field),
                offset: core::mem::offset_of!($name, $field),
                bytes: size_of::<$ty>(),
            },)*];
        }
    };
}

on_disk! {
    /// The first 4,096 bytes of a pack.
    Superblock, SUPERBLOCK_BYTES, {
        /// [`MAGIC`].
        magic: [u8; 8],
        /// [`VERSION_MAJOR`].
        version_major: U16<LE>,
        /// [`VERSION_MINOR`] or any later one.
        version_minor: U16<LE>,
        /// Alignment of sections and of direct reads, bytes; a power of two.
        block_bytes: U32<LE>,
        /// Compatible feature bits: a reader ignores those it does not know.
        feature_compat: U64<LE>,
        /// Incompatible feature bits: a reader rejects a pack with one it does not know.
        feature_incompat: U64<LE>,
        /// Length of the file, bytes.
        file_bytes: U64<LE>,
        /// Bytes from the start of the file to the first bulk section.
        index_bytes: U64<LE>,
        /// Entries of the section table.
        section_count: U32<LE>,
        /// CRC-32 of the section table.
        section_table_crc: U32<LE>,
        /// Zero.
        reserved: [u8; 4036],
        /// CRC-32 of the 4,092 bytes before it.
        superblock_crc: U32<LE>,
    }
}

on_disk! {
    /// One entry of the section table.
    SectionEntry, 48, {
        /// A [`crate::SectionKind`].
        kind: U32<LE>,
        /// The layer, or [`crate::codes::WHOLE_PACK`].
        layer: U32<LE>,
        /// The placement of the layer, 0 for the first.
        placement: U32<LE>,
        /// CRC-32 of the section's bytes, padding not included.
        section_crc: U32<LE>,
        /// Where the section begins, bytes from the start of the file.
        offset: U64<LE>,
        /// Length without padding, bytes.
        bytes: U64<LE>,
        /// Zero.
        reserved: [u8; 16],
    }
}

on_disk! {
    /// The whole `model_shape` section.
    ModelShape, 64, {
        /// Layers.
        layers: U32<LE>,
        /// Neurons (bundles) per layer.
        neurons: U32<LE>,
        /// Hidden size, weights per part.
        hidden: U32<LE>,
        /// Parts per bundle: 2 (up, down) or 3 (gate, up, down).
        parts: U32<LE>,
        /// An [`crate::Activation`].
        activation: U32<LE>,
        /// Threshold of `fatrelu`, how many standard deviations of `gaussian_topk`, else 0.
        activation_threshold: F32<LE>,
        /// A [`crate::Dtype`].
        dtype: U32<LE>,
        /// Bytes of one part; part p begins p times that many bytes into the bundle.
        part_bytes: U32<LE>,
        /// Bytes from one bundle to the next.
        bundle_stride: U32<LE>,
        /// Most slots of a placement, with [`crate::codes::INCOMPAT_COPIES`]; else 0.
        slots: U32<LE>,
        /// Zero.
        reserved: [u8; 24],
    }
}

on_disk! {
    /// The head of a `link_index` section; four arrays of u32 follow, five with copies.
    LinkIndexHeader, 32, {
        /// Neurons of the layer, as in the model shape.
        neurons: U32<LE>,
        /// Links of the layer.
        links: U32<LE>,
        /// Tokens of the profile behind `active_count`.
        profile_tokens: U64<LE>,
        /// Slots of the placement, with [`crate::codes::INCOMPAT_COPIES`]; else 0.
        slots: U32<LE>,
        /// Zero.
        reserved: [u8; 12],
    }
}

on_disk! {
    /// The head of a `side_data` section; the arrays of f32 that `arrays` names follow.
    SideDataHeader, 16, {
        /// Which arrays follow, in the order of their bits: [`SIDE_NEURON_BIAS`], [`SIDE_OUTPUT_BIAS`],
        /// [`SIDE_UP_BIAS`], [`SIDE_DOWN_NORM`].
        arrays: U32<LE>,
        /// Of the norm before the down columns; 0 without one.
        norm_eps: F32<LE>,
        /// An [`crate::Activation`], where the layer has another than the model shape says; else 0.
        activation: U32<LE>,
        /// As that of the model shape, of the activation before it.
        activation_threshold: F32<LE>,
    }
}

on_disk! {
    /// The head of a `predictor` section; operating points and arrays follow.
    PredictorHeader, 64, {
        /// A [`crate::PredictorKind`].
        kind: U32<LE>,
        /// A [`crate::PredictorNumbers`].
        numbers: U32<LE>,
        /// Neurons of the layer, as in the model shape.
        neurons: U32<LE>,
        /// Hidden size, as in the model shape.
        hidden: U32<LE>,
        /// Rows of the first matrix of a low-rank predictor, else 0.
        rank: U32<LE>,
        /// [`PREDICTOR_RELU_BETWEEN`], [`PREDICTOR_REDUCE_BIAS`], [`PREDICTOR_STRENGTH_SCALES`].
        flags: U32<LE>,
        /// Operating points.
        points: U32<LE>,
        /// Lists of offsets: 1, or one for each operating point.
        offsets: U32<LE>,
        /// Zero.
        reserved: [u8; 32],
    }
}

on_disk! {
    /// One choice of what a predictor reads, and what it came to on the profile.
    OperatingPoint, 32, {
        /// What the point is chosen by, 0 to 1.
        quality: F32<LE>,
        /// What scores are compared with.
        threshold: F32<LE>,
        /// Share of the active (token, neuron) pairs that are read.
        recall: F32<LE>,
        /// Bundles read for each active one.
        reads_per_active: F32<LE>,
        /// Share of the squared strength that is read.
        share_kept: F32<LE>,
        /// Zero.
        reserved: [u8; 12],
    }
}

/// Bit of [`PredictorHeader::flags`]: what is below zero between the two matrices becomes zero.
pub const PREDICTOR_RELU_BETWEEN: u32 = 1 << 0;
/// Bit of [`PredictorHeader::flags`]: there is an array `reduce_bias`.
pub const PREDICTOR_REDUCE_BIAS: u32 = 1 << 1;
/// Bit of [`PredictorHeader::flags`]: there is an array `strength_scales`.
pub const PREDICTOR_STRENGTH_SCALES: u32 = 1 << 2;

/// Bit of [`SideDataHeader::arrays`]: the bias of each neuron, by neuron id.
pub const SIDE_NEURON_BIAS: u32 = 1 << 0;
/// Bit of [`SideDataHeader::arrays`]: the bias of the FFN's output.
pub const SIDE_OUTPUT_BIAS: u32 = 1 << 1;
/// Bit of [`SideDataHeader::arrays`]: the bias of each neuron's product with its up part, of three parts.
pub const SIDE_UP_BIAS: u32 = 1 << 2;
/// Bit of [`SideDataHeader::arrays`]: the weights of a norm over the coefficients, by neuron id.
pub const SIDE_DOWN_NORM: u32 = 1 << 3;

/// Every on-disk struct with its name in the spec, its size and its fields.
pub const STRUCTS: &[(&str, usize, &[Field])] = &[
    ("superblock", size_of::<Superblock>(), Superblock::FIELDS),
    ("section_entry", size_of::<SectionEntry>(), SectionEntry::FIELDS),
    ("model_shape", size_of::<ModelShape>(), ModelShape::FIELDS),
    ("link_index_header", size_of::<LinkIndexHeader>(), LinkIndexHeader::FIELDS),
    ("side_data_header", size_of::<SideDataHeader>(), SideDataHeader::FIELDS),
    ("predictor_header", size_of::<PredictorHeader>(), PredictorHeader::FIELDS),
    ("operating_point", size_of::<OperatingPoint>(), OperatingPoint::FIELDS),
];
