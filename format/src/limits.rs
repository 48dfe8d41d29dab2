//! Every limit of the format, named, in one place. A pack beyond one of them is refused.
//!
//! They keep each product of two header fields within 64 bits and every count that a reader keeps
//! in memory within reason; `spec/lnp-v1.md` lists the same numbers.

/// Bytes of the superblock, whatever the block size.
pub const SUPERBLOCK_BYTES: usize = 4096;
/// Smallest block (alignment of sections and of direct reads), bytes.
pub const BLOCK_BYTES_MIN: u32 = 512;
/// Largest block, bytes.
pub const BLOCK_BYTES_MAX: u32 = 65_536;
/// Most sections of a pack.
pub const SECTIONS_MAX: u32 = 1 << 20;
/// Most layers of a model.
pub const LAYERS_MAX: u32 = 1 << 16;
/// Most neurons (bundles) of a layer.
pub const NEURONS_MAX: u32 = 1 << 24;
/// Most bundles of a pack over all layers, so that one `u32` names a bundle. (The index takes 16
/// bytes a bundle, so [`INDEX_BYTES_MAX`] ends it at 2^28.)
pub const BUNDLES_MAX: u64 = 1 << 31;
/// Largest hidden size; it is also a multiple of [`HIDDEN_MULTIPLE`].
pub const HIDDEN_MAX: u32 = 1 << 20;
/// The hidden size is a multiple of this (the block of the quantised types).
pub const HIDDEN_MULTIPLE: u32 = 32;
/// Largest bundle, bytes.
pub const BUNDLE_STRIDE_MAX: u32 = 1 << 26;
/// Most bytes of the index (superblock, section table and index sections).
pub const INDEX_BYTES_MAX: u64 = 1 << 32;
/// Largest file, bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 62;
/// Most bytes of the provenance text.
pub const PROVENANCE_BYTES_MAX: u64 = 1 << 20;
/// Most operating points of a predictor.
pub const POINTS_MAX: u32 = 64;
