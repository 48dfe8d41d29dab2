//! The outer parts of a pack: superblock, section table, and where the sections lie.

use zerocopy::FromBytes;

use crate::checksum::{check, check_zero};
use crate::codes::{FIRST_BULK_KIND, INCOMPAT_KNOWN, SectionKind};
use crate::error::FormatError;
use crate::layout::{MAGIC, SectionEntry, Superblock, VERSION_MAJOR, field_at};
use crate::limits;

/// Validates the superblock, the first 4,096 bytes of a file of `file_bytes` bytes.
///
/// Afterwards [`Superblock::index_bytes`] says how many bytes [`crate::Pack::parse`] needs.
///
/// # Errors
/// [`FormatError`]: not a pack, another version, damaged, or a field that breaks its rule.
pub fn check_superblock(bytes: &[u8], file_bytes: u64) -> Result<&Superblock, FormatError> {
    let truncated = FormatError::Truncated {
        what: "superblock",
        offset: 0,
        expected: limits::SUPERBLOCK_BYTES as u64,
        found: (bytes.len() as u64).min(file_bytes),
    };
    let (superblock, _) = Superblock::ref_from_prefix(bytes).map_err(|_| truncated)?;
    if superblock.magic != MAGIC {
        return Err(FormatError::NotAPack { found: u64::from_le_bytes(superblock.magic) });
    }
    if superblock.version_major.get() != VERSION_MAJOR {
        return Err(FormatError::Version { found: superblock.version_major.get() });
    }
    let sealed = bytes.get(..limits::SUPERBLOCK_BYTES - 4).ok_or(truncated)?;
    check("superblock", 0, sealed, superblock.superblock_crc.get())?;
    let unknown = superblock.feature_incompat.get() & !INCOMPAT_KNOWN;
    if unknown != 0 {
        return Err(FormatError::Features { found: unknown });
    }
    let at = |name: &str| field_at(Superblock::FIELDS, name, 0);
    let rule = |ok: bool, field: &'static str, rule: &'static str, found: u64| {
        if ok { Ok(()) } else { Err(FormatError::Field { field, offset: at(field), rule, found }) }
    };
    let block = superblock.block_bytes.get();
    rule(is_block(block), "block_bytes", "must be a power of two, 512 to 65,536", block.into())?;
    let stated = superblock.file_bytes.get();
    if stated > file_bytes {
        return Err(FormatError::Truncated {
            what: "file",
            offset: 0,
            expected: stated,
            found: file_bytes,
        });
    }
    rule(stated <= limits::FILE_BYTES_MAX, "file_bytes", "must be at most 2^62", stated)?;
    rule(stated == file_bytes, "file_bytes", "must be the length of the file", stated)?;
    let index = superblock.index_bytes.get();
    rule(index <= stated, "index_bytes", "must be within the file", index)?;
    rule(index <= limits::INDEX_BYTES_MAX, "index_bytes", "must be at most 2^32", index)?;
    rule(
        index.is_multiple_of(block.into()),
        "index_bytes",
        "must be a multiple of block_bytes",
        index,
    )?;
    let count = superblock.section_count.get();
    rule(
        count <= limits::SECTIONS_MAX,
        "section_count",
        "must be at most 1,048,576",
        count.into(),
    )?;
    check_zero("superblock.reserved", at("reserved"), &superblock.reserved)?;
    Ok(superblock)
}

/// Whether a block may have so many bytes.
pub(crate) const fn is_block(bytes: u32) -> bool {
    bytes.is_power_of_two() && limits::BLOCK_BYTES_MIN <= bytes && bytes <= limits::BLOCK_BYTES_MAX
}

/// Rounds up to a multiple of `block` (a power of two).
pub(crate) const fn round_up(bytes: u64, block: u64) -> u64 {
    bytes.saturating_add(block - 1) & !(block - 1)
}

/// The section table, its checksum verified; it lies behind the superblock. Of the index no more than
/// that is needed: whoever has to find memory for the rest can look at this first.
///
/// # Errors
/// [`FormatError`]: too few bytes, or damaged.
pub fn section_table<'a>(
    index: &'a [u8],
    superblock: &Superblock,
) -> Result<&'a [SectionEntry], FormatError> {
    let offset = limits::SUPERBLOCK_BYTES;
    let bytes = superblock.section_count.get() as usize * size_of::<SectionEntry>();
    let table = index.get(offset..offset + bytes).ok_or(FormatError::Truncated {
        what: "section table",
        offset: offset as u64,
        expected: bytes as u64,
        found: index.len().saturating_sub(offset) as u64,
    })?;
    check("section table", offset as u64, table, superblock.section_table_crc.get())?;
    <[SectionEntry]>::ref_from_bytes(table).map_err(|_| FormatError::Truncated {
        what: "section table",
        offset: offset as u64,
        expected: bytes as u64,
        found: table.len() as u64,
    })
}

/// Order and place of every section, padding and checksums of the index sections.
pub(crate) fn check_places(
    index: &[u8],
    superblock: &Superblock,
    sections: &[SectionEntry],
) -> Result<(), FormatError> {
    let block = u64::from(superblock.block_bytes.get());
    let mut end = limits::SUPERBLOCK_BYTES as u64 + size_of_val(sections) as u64;
    let mut index_end = None;
    let mut previous: Option<&SectionEntry> = None;
    for (number, entry) in sections.iter().enumerate() {
        let broken = |field, rule, found| FormatError::Field {
            field,
            offset: entry_offset(number),
            rule,
            found,
        };
        if previous.is_some_and(|previous| key(previous) >= key(entry)) {
            let rule = "sections must ascend by kind, layer, placement";
            return Err(broken("kind", rule, entry.kind.get().into()));
        }
        let reserved_at = field_at(SectionEntry::FIELDS, "reserved", entry_offset(number));
        check_zero("section_entry.reserved", reserved_at, &entry.reserved)?;
        let begin = round_up(end, block);
        let (offset, bytes) = (entry.offset.get(), entry.bytes.get());
        if offset != begin {
            let rule = "must be the first block after the section before";
            return Err(broken("offset", rule, offset));
        }
        if bytes > superblock.file_bytes.get() - offset.min(superblock.file_bytes.get()) {
            return Err(broken("bytes", "must end within the file", bytes));
        }
        let bulk = entry.kind.get() >= FIRST_BULK_KIND;
        if bulk && index_end.is_none() {
            index_end = Some(begin);
        }
        if !bulk || index_end == Some(begin) {
            // Within the index: the padding before this section, and the section if it is there.
            check_index_bytes(index, end, begin, if bulk { 0 } else { bytes }, entry)?;
        }
        end = offset + bytes;
        previous = Some(entry);
    }
    let file_end = round_up(end, block);
    if index_end.is_none() {
        check_zero("padding", end, slice(index, end, file_end)?)?;
    }
    check_ends(superblock, index_end.unwrap_or(file_end), file_end)
}

/// Index and file end where the sections do.
fn check_ends(superblock: &Superblock, index: u64, file: u64) -> Result<(), FormatError> {
    let index_rule = "must end where the first bulk section begins";
    let file_rule = "must end with the last section's block";
    for (field, found, expected, rule) in [
        ("index_bytes", superblock.index_bytes.get(), index, index_rule),
        ("file_bytes", superblock.file_bytes.get(), file, file_rule),
    ] {
        if found != expected {
            let offset = field_at(Superblock::FIELDS, field, 0);
            return Err(FormatError::Field { field, offset, rule, found });
        }
    }
    Ok(())
}

/// Checks padding `[end, begin)` and the checksum of `[begin, begin + bytes)`.
fn check_index_bytes(
    index: &[u8],
    end: u64,
    begin: u64,
    bytes: u64,
    entry: &SectionEntry,
) -> Result<(), FormatError> {
    check_zero("padding", end, slice(index, end, begin)?)?;
    if bytes == 0 && entry.kind.get() >= FIRST_BULK_KIND {
        return Ok(());
    }
    let what =
        SectionKind::from_code(entry.kind.get()).map_or("unknown section", SectionKind::name);
    check(what, begin, slice(index, begin, begin + bytes)?, entry.section_crc.get())
}

/// `index[begin..end]`, or an error where the index is shorter.
fn slice(index: &[u8], begin: u64, end: u64) -> Result<&[u8], FormatError> {
    usize::try_from(begin)
        .ok()
        .zip(usize::try_from(end).ok())
        .and_then(|(begin, end)| index.get(begin..end))
        .ok_or(FormatError::Truncated {
            what: "index",
            offset: begin,
            expected: end - begin.min(end),
            found: (index.len() as u64).saturating_sub(begin),
        })
}

/// What sections are sorted by.
fn key(entry: &SectionEntry) -> (u32, u32, u32) {
    (entry.kind.get(), entry.layer.get(), entry.placement.get())
}

/// File offset of an entry of the section table.
pub(crate) fn entry_offset(number: usize) -> u64 {
    (limits::SUPERBLOCK_BYTES + number * size_of::<SectionEntry>()) as u64
}

pub(crate) fn find_entry(
    sections: &[SectionEntry],
    kind: SectionKind,
    layer: u32,
    placement: u32,
) -> Option<&SectionEntry> {
    let wanted = (kind.code(), layer, placement);
    sections.binary_search_by(|entry| key(entry).cmp(&wanted)).ok().and_then(|at| sections.get(at))
}

/// An index section's bytes and entry.
pub(crate) fn find<'a>(
    index: &'a [u8],
    sections: &'a [SectionEntry],
    kind: SectionKind,
    layer: u32,
    placement: u32,
) -> Option<(&'a [u8], &'a SectionEntry)> {
    let entry = find_entry(sections, kind, layer, placement)?;
    let begin = entry.offset.get();
    let bytes = slice(index, begin, begin.checked_add(entry.bytes.get())?).ok()?;
    Some((bytes, entry))
}

pub(crate) fn missing(kind: SectionKind, layer: u32) -> FormatError {
    FormatError::Missing { what: kind.name(), layer }
}

pub(crate) fn wrong_length(
    kind: SectionKind,
    entry: &SectionEntry,
    rule: &'static str,
) -> FormatError {
    FormatError::Field {
        field: kind.name(),
        offset: entry.offset.get(),
        rule,
        found: entry.bytes.get(),
    }
}
