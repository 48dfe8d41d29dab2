//! A file of tensors, whose bytes are read where they lie when they are asked for.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::files::open_file;

/// An open file, and its length when it was opened.
#[derive(Debug)]
pub struct DataFile {
    path: PathBuf,
    file: File,
    len_bytes: u64,
}

impl DataFile {
    /// Opens a file, or a block device: a pack with the rest of its model may lie on one.
    ///
    /// # Errors
    /// It cannot be opened, or is none.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || -> Result<_> {
            let mut file = open_file(path)?;
            // A block device's metadata say no length.
            let len_bytes = file.seek(SeekFrom::End(0))?;
            file.rewind()?;
            Ok((file, len_bytes))
        };
        let (file, len_bytes) =
            open().with_context(|| format!("{}: cannot open", path.display()))?;
        Ok(Self { path: path.to_owned(), file, len_bytes })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Last component of the path, for messages and for naming the source.
    pub fn file_name(&self) -> String {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// Length of the file, bytes.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The file, to be read from its begin on.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of a tensor, from this byte of the file on.
    ///
    /// # Errors
    /// No memory for so many, or a failed read.
    pub fn read(&self, tensor: &str, offset: u64, count: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // A sparse file is as long as one likes.
        bytes.try_reserve_exact(count).with_context(|| {
            format!("{}: tensor `{tensor}`: no memory for {count} bytes", self.path.display())
        })?;
        bytes.resize(count, 0);
        self.file.read_exact_at(&mut bytes, offset).with_context(|| {
            format!(
                "{}: tensor `{tensor}`: cannot read {count} bytes at offset {offset} (file changed?)",
                self.path.display()
            )
        })?;
        Ok(bytes)
    }
}
