//! Brings a pack's index into memory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lnp_format::checksum::crc32;
use lnp_format::layout::SectionEntry;
use lnp_format::limits::SUPERBLOCK_BYTES;
use lnp_format::peek::length_on_device;
use lnp_format::read::{check_superblock, section_table};
use lnp_format::{FormatError, Pack};

use lnp_common::files::open_file;
use lnp_link::Links;

use crate::recipe::{ModelSize, Recipe};

/// The index bytes of a pack, which its views borrow.
#[derive(Debug, Clone)]
pub struct PackIndex {
    path: PathBuf,
    bytes: Vec<u8>,
    file_bytes: u64,
}

impl PackIndex {
    /// Reads and validates the index of a pack.
    ///
    /// # Errors
    /// The file cannot be read, or is not a valid pack; one line that names it.
    pub fn open(path: &Path) -> Result<Self> {
        let read = || -> Result<Self> {
            let mut file = open_file(path)?;
            let file_bytes = pack_length(&mut file)?;
            let bytes = read_index(&mut file, file_bytes)?;
            let index = Self { path: path.to_owned(), bytes, file_bytes };
            index.pack()?;
            Ok(index)
        };
        read().with_context(|| format!("{}", path.display()))
    }

    /// An index that was made in memory, of a pack that is not on any disk; `path` is what it was
    /// made from.
    pub fn in_memory(path: PathBuf, bytes: Vec<u8>, file_bytes: u64) -> Self {
        Self { path, bytes, file_bytes }
    }

    /// The index of the pack that links would make, of bundles of so many bytes: for plans and simulations before
    /// anything is written. `path` is the links file.
    ///
    /// # Errors
    /// Such a pack cannot be.
    pub fn of_links(path: &Path, links: &Links, bundle_bytes: u32) -> Result<Self> {
        let model = ModelSize::of_links(links);
        let recipe = Recipe::for_placeholders(Some(links), model, bundle_bytes, 1)?;
        let layout = recipe.layout()?;
        Ok(Self::in_memory(path.to_owned(), layout.index, layout.bytes.file_bytes))
    }

    /// The views.
    ///
    /// # Errors
    /// Never, for an index that [`PackIndex::open`] returned.
    pub fn pack(&self) -> Result<Pack<'_>, FormatError> {
        Pack::parse(&self.bytes, self.file_bytes)
    }

    /// The bytes of a section of the index; none of one that is bulk.
    pub fn section(&self, entry: &SectionEntry) -> Option<&[u8]> {
        let begin = usize::try_from(entry.offset.get()).ok()?;
        let end = begin.checked_add(usize::try_from(entry.bytes.get()).ok()?)?;
        self.bytes.get(begin..end)
    }

    /// Where the pack is, or what it was made from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// CRC-32 of the index, and so, by its checksums, of all that is in the pack.
    pub fn checksum(&self) -> u32 {
        crc32(&self.bytes)
    }

    /// Bytes of the index in memory.
    pub fn resident_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Length of the file, bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }
}

/// Bytes of an entry of the section table.
const SECTION_ENTRY_BYTES: u64 = size_of::<SectionEntry>() as u64;

/// Length of the pack that a file is, or that a block device begins with; leaves the file at its
/// begin.
///
/// # Errors
/// It cannot be read, or does not tell its length.
pub(super) fn pack_length(file: &mut File) -> Result<u64> {
    // Files of /proc cannot even be sought to their end, or say that they are empty.
    let length = file.seek(SeekFrom::End(0));
    file.seek(SeekFrom::Start(0))?;
    let says_empty = !matches!(length, Ok(1..));
    ensure!(
        !(says_empty && file.read(&mut [0])? > 0),
        "it tells no length, as the files of /proc: give a pack on a disk"
    );
    let file_bytes = length?;
    file.seek(SeekFrom::Start(0))?;
    if !file.metadata()?.file_type().is_block_device() {
        return Ok(file_bytes);
    }
    let mut begin = Vec::with_capacity(SUPERBLOCK_BYTES);
    file.by_ref().take(SUPERBLOCK_BYTES as u64).read_to_end(&mut begin)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(length_on_device(&begin, file_bytes))
}

/// The first `index_bytes` bytes of a pack of `file_bytes` bytes. What the superblock claims is
/// checked against the file, and the section table against its checksum, before memory is asked for:
/// a sparse file is as long as one likes.
///
/// # Errors
/// Not a pack, or not readable.
pub fn read_index(input: &mut impl Read, file_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(SUPERBLOCK_BYTES);
    input.by_ref().take(SUPERBLOCK_BYTES as u64).read_to_end(&mut bytes)?;
    let superblock = *check_superblock(&bytes, file_bytes)?;
    let table_bytes = u64::from(superblock.section_count.get()) * SECTION_ENTRY_BYTES;
    let mut read_to = |end: u64, bytes: &mut Vec<u8>| -> Result<()> {
        let rest = end.saturating_sub(bytes.len() as u64);
        let fits = usize::try_from(rest).is_ok_and(|rest| bytes.try_reserve_exact(rest).is_ok());
        ensure!(fits, "the index does not fit into memory");
        input.by_ref().take(rest).read_to_end(bytes)?;
        Ok(())
    };
    let index_bytes = superblock.index_bytes.get();
    read_to(index_bytes.min(SUPERBLOCK_BYTES as u64 + table_bytes), &mut bytes)?;
    section_table(&bytes, &superblock)?;
    read_to(index_bytes, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_longer_than_its_pack() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../spec/golden/f16-gated.lnp");
        let pack = std::fs::read(path).unwrap();
        let file_bytes = pack.len() as u64;
        let mut device = pack.clone();
        device.resize(1 << 20, 0xff);
        let on_device = |device: &[u8]| {
            let length = length_on_device(&device[..SUPERBLOCK_BYTES], device.len() as u64);
            let index = read_index(&mut &device[..], length)?;
            anyhow::Ok(Pack::parse(&index, length)?.superblock().file_bytes.get())
        };
        assert_eq!(on_device(&device).unwrap(), file_bytes);
        assert_eq!(on_device(&pack).unwrap(), file_bytes);
        // A device that ends before its pack does, one with another length in the superblock, and one
        // without a pack.
        assert!(on_device(&pack[..pack.len() - 1]).is_err());
        device[32] ^= 1;
        assert!(on_device(&device).is_err());
        assert!(on_device(&[0xff; 1 << 13]).is_err());
        assert_eq!(length_on_device(&[], 512), 512);
    }
}
