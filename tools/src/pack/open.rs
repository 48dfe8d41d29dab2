//! Brings a pack's index into memory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lnp_format::limits::SUPERBLOCK_BYTES;
use lnp_format::read::check_superblock;
use lnp_format::{FormatError, Pack};

/// The index bytes of a pack, which its views borrow.
#[derive(Debug)]
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
            let mut file = File::open(path)?;
            let file_bytes = file.seek(SeekFrom::End(0))?;
            file.seek(SeekFrom::Start(0))?;
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

    /// The views.
    ///
    /// # Errors
    /// Never, for an index that [`PackIndex::open`] returned.
    pub fn pack(&self) -> Result<Pack<'_>, FormatError> {
        Pack::parse(&self.bytes, self.file_bytes)
    }

    /// Where the pack is, or what it was made from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file, bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }
}

/// The first `index_bytes` bytes of a pack of `file_bytes` bytes. What the superblock claims is
/// checked against the file before memory is asked for.
///
/// # Errors
/// Not a pack, or not readable.
pub fn read_index(input: &mut impl Read, file_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(SUPERBLOCK_BYTES);
    input.by_ref().take(SUPERBLOCK_BYTES as u64).read_to_end(&mut bytes)?;
    let index_bytes = check_superblock(&bytes, file_bytes)?.index_bytes.get();
    let rest = index_bytes.saturating_sub(SUPERBLOCK_BYTES as u64);
    bytes.reserve_exact(usize::try_from(rest).context("the index does not fit into memory")?);
    input.by_ref().take(rest).read_to_end(&mut bytes)?;
    Ok(bytes)
}
