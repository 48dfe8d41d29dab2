//! The writer's half: where each section goes, and the checksums that seal a pack.
//!
//! A writer that streams does this:
//!
//! 1. lists its sections ([`entry`]) in ascending order of (kind, layer, placement), lengths known;
//! 2. [`place`] gives every section its offset, and the lengths of index and file;
//! 3. writes the sections where they belong, in any order, and keeps their checksums;
//! 4. [`seal`] makes the superblock, which goes in last, before the section table.

use zerocopy::byteorder::{F32, U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use crate::checksum::crc32;
use crate::codes::{Activation, FIRST_BULK_KIND, PredictorKind, PredictorNumbers, SectionKind};
use crate::error::FormatError;
use crate::layout::{
    LinkIndexHeader, MAGIC, PredictorHeader, SectionEntry, SideDataHeader, Superblock,
    VERSION_MAJOR, VERSION_MINOR,
};
use crate::limits;
use crate::sections::{is_block, round_up};

/// Block of the packs that the tools write, bytes: what every flash device and file system takes.
pub const BLOCK_BYTES_USUAL: u32 = 4096;

/// A section table entry, its place and checksum still open.
pub fn entry(kind: SectionKind, layer: u32, placement: u32, bytes: u64) -> SectionEntry {
    SectionEntry {
        kind: U32::new(kind.code()),
        layer: U32::new(layer),
        placement: U32::new(placement),
        bytes: U64::new(bytes),
        ..SectionEntry::new_zeroed()
    }
}

/// Where a pack's parts end, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackBytes {
    /// From the start of the file to the first bulk section.
    pub index_bytes: u64,
    /// The whole file.
    pub file_bytes: u64,
}

/// Gives each section its offset, one after the other on block boundaries.
///
/// # Errors
/// [`FormatError::Field`] where the sections do not ascend, the block is none, or a limit of the
/// format is passed.
pub fn place(sections: &mut [SectionEntry], block_bytes: u32) -> Result<PackBytes, FormatError> {
    let broken = |field, rule, found| FormatError::Field { field, offset: 0, rule, found };
    if sections.len() > limits::SECTIONS_MAX as usize {
        return Err(broken("section_count", "must be at most 1,048,576", sections.len() as u64));
    }
    if !is_block(block_bytes) {
        return Err(broken(
            "block_bytes",
            "must be a power of two, 512 to 65,536",
            block_bytes.into(),
        ));
    }
    let block = u64::from(block_bytes);
    let mut end = limits::SUPERBLOCK_BYTES as u64 + size_of_val(sections) as u64;
    let mut index_bytes = None;
    let mut previous = None;
    for entry in sections.iter_mut() {
        let key = (entry.kind.get(), entry.layer.get(), entry.placement.get());
        if previous >= Some(key) {
            return Err(broken(
                "kind",
                "sections must ascend by kind, layer, placement",
                key.0.into(),
            ));
        }
        previous = Some(key);
        let begin = round_up(end, block);
        if key.0 >= FIRST_BULK_KIND && index_bytes.is_none() {
            index_bytes = Some(begin);
        }
        entry.offset = U64::new(begin);
        end = begin.saturating_add(entry.bytes.get());
        if end > limits::FILE_BYTES_MAX {
            return Err(broken("file_bytes", "must be at most 2^62", end));
        }
    }
    let file_bytes = round_up(end, block);
    let index_bytes = index_bytes.unwrap_or(file_bytes);
    if index_bytes > limits::INDEX_BYTES_MAX {
        return Err(broken("index_bytes", "must be at most 2^32", index_bytes));
    }
    Ok(PackBytes { index_bytes, file_bytes })
}

/// The superblock of a pack whose sections are placed and whose checksums are known.
pub fn seal(
    sections: &[SectionEntry],
    bytes: PackBytes,
    block_bytes: u32,
    feature_incompat: u64,
) -> Superblock {
    let mut superblock = Superblock {
        magic: MAGIC,
        version_major: U16::new(VERSION_MAJOR),
        version_minor: U16::new(VERSION_MINOR),
        block_bytes: U32::new(block_bytes),
        feature_compat: U64::new(0),
        feature_incompat: U64::new(feature_incompat),
        file_bytes: U64::new(bytes.file_bytes),
        index_bytes: U64::new(bytes.index_bytes),
        section_count: U32::new(sections.len() as u32),
        section_table_crc: U32::new(crc32(sections.as_bytes())),
        ..Superblock::new_zeroed()
    };
    reseal(&mut superblock);
    superblock
}

/// Writes the superblock's checksum of itself anew.
pub fn reseal(superblock: &mut Superblock) {
    let bytes = superblock.as_bytes();
    let sealed = bytes.get(..limits::SUPERBLOCK_BYTES - 4).unwrap_or(bytes);
    superblock.superblock_crc = U32::new(crc32(sealed));
}

/// Length of a `link_index` section of a pack without copies, bytes.
pub const fn link_index_bytes(neurons: u32, links: u32) -> u64 {
    size_of::<LinkIndexHeader>() as u64 + 4 * (3 * neurons as u64 + links as u64 + 1)
}

/// Length of a `link_index` section of a pack with copies, bytes.
pub const fn link_index_bytes_with_copies(neurons: u32, slots: u32, links: u32) -> u64 {
    let words = neurons as u64 + 3 * slots as u64 + links as u64 + 1;
    size_of::<LinkIndexHeader>() as u64 + 4 * words
}

/// The head of a `link_index` section; `slots` of the placement in a pack with copies, else 0.
pub fn link_index_header(
    neurons: u32,
    links: u32,
    profile_tokens: u64,
    slots: u32,
) -> LinkIndexHeader {
    LinkIndexHeader {
        neurons: U32::new(neurons),
        links: U32::new(links),
        profile_tokens: U64::new(profile_tokens),
        slots: U32::new(slots),
        ..LinkIndexHeader::new_zeroed()
    }
}

/// The head of a `side_data` section; `arrays` as in [`SideDataHeader::arrays`], `norm_eps` 0 without a norm,
/// `activation` with its threshold where the layer has one of its own.
pub fn side_data_header(
    arrays: u32,
    norm_eps: f32,
    activation: Option<(Activation, f32)>,
) -> SideDataHeader {
    let (code, threshold) = activation.map_or((0, 0.0), |(own, threshold)| (own.code(), threshold));
    SideDataHeader {
        arrays: U32::new(arrays),
        norm_eps: F32::new(norm_eps),
        activation: U32::new(code),
        activation_threshold: F32::new(threshold),
    }
}

/// The head of a `predictor` section of no flags; `rank` as in [`PredictorHeader::rank`].
pub fn predictor_header(
    (kind, numbers): (PredictorKind, PredictorNumbers),
    (neurons, hidden, rank): (u32, u32, u32),
    (points, offsets): (u32, u32),
) -> PredictorHeader {
    PredictorHeader {
        kind: U32::new(kind.code()),
        numbers: U32::new(numbers.code()),
        neurons: U32::new(neurons),
        hidden: U32::new(hidden),
        rank: U32::new(rank),
        points: U32::new(points),
        offsets: U32::new(offsets),
        ..PredictorHeader::new_zeroed()
    }
}
