//! One safetensors file, read with positioned reads.
//!
//! Only the header is held; tensor bytes are read when asked for, so a file of any size costs no
//! more memory than the tensor at hand. Both checkpoints and traces are such files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use safetensors::tensor::{Metadata, TensorInfo};
use sha2::{Digest, Sha256};

/// Largest header accepted: the limit of the safetensors format itself.
const HEADER_BYTES_MAX: u64 = 100_000_000;
/// The header is preceded by its length, a little-endian u64.
const PREFIX_BYTES: u64 = 8;
const HASH_CHUNK_BYTES: usize = 1 << 20;

/// An open safetensors file: validated header, data on demand.
pub(crate) struct TensorFile {
    path: PathBuf,
    file: File,
    len_bytes: u64,
    data_start: u64,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl TensorFile {
    /// Opens a file and checks its header: tensors within the file, without holes or overlaps.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("{}: cannot open", path.display()))?;
        Self::parse(path, file).with_context(|| {
            format!("{}: not a usable safetensors file (truncated copy?)", path.display())
        })
    }

    fn parse(path: &Path, file: File) -> Result<Self> {
        let len_bytes = file.metadata()?.len();
        let mut prefix = [0; PREFIX_BYTES as usize];
        file.read_exact_at(&mut prefix, 0).context("header length is missing")?;
        let header_len = u64::from_le_bytes(prefix);
        if header_len > HEADER_BYTES_MAX {
            bail!("header of {header_len} bytes, expected at most {HEADER_BYTES_MAX}");
        }
        let data_start = PREFIX_BYTES + header_len;
        if data_start > len_bytes {
            bail!("header of {header_len} bytes does not fit in a file of {len_bytes} bytes");
        }
        let mut header = vec![0; header_len as usize];
        file.read_exact_at(&mut header, PREFIX_BYTES)?;
        let header: Metadata = serde_json::from_slice(&header).context("header is invalid")?;
        let expected = data_start.checked_add(header.data_len() as u64);
        if expected != Some(len_bytes) {
            bail!(
                "file has {len_bytes} bytes, its header describes {data_start} + {}",
                header.data_len()
            );
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            len_bytes,
            data_start,
            metadata: header.metadata().iter().flatten().map(owned_pair).collect(),
            tensors: header.tensors().into_iter().map(|(k, v)| (k, v.clone())).collect(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Last component of the path, for messages and for naming the source.
    pub(crate) fn file_name(&self) -> String {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        name.to_string_lossy().into_owned()
    }

    pub(crate) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The `__metadata__` entries of the header.
    pub(crate) fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// All tensors by name.
    pub(crate) fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// Type and shape of a tensor.
    pub(crate) fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.tensors
            .get(name)
            .with_context(|| format!("{}: has no tensor `{name}`", self.path.display()))
    }

    /// All bytes of a tensor.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let (start, end) = self.info(name)?.data_offsets;
        self.read_range(name, 0..end - start)
    }

    /// A byte range of a tensor, relative to the tensor's start.
    pub(crate) fn read_range(&self, name: &str, range: Range<usize>) -> Result<Vec<u8>> {
        let (start, end) = self.info(name)?.data_offsets;
        if range.start > range.end || range.end > end - start {
            bail!(
                "{}: tensor `{name}`: bytes {}..{} asked for, it has {}",
                self.path.display(),
                range.start,
                range.end,
                end - start
            );
        }
        let mut bytes = vec![0; range.len()];
        let offset = self.data_start + (start + range.start) as u64;
        self.file.read_exact_at(&mut bytes, offset).with_context(|| {
            format!(
                "{}: tensor `{name}`: cannot read {} bytes at offset {offset} (file changed?)",
                self.path.display(),
                bytes.len()
            )
        })?;
        Ok(bytes)
    }

    /// SHA-256 of the whole file in lower-case hex; reads the file once.
    pub(crate) fn sha256_hex(&self) -> Result<String> {
        let context = || format!("{}: cannot hash", self.path.display());
        // A descriptor of its own, so that the position of ours is never shared.
        let mut file = File::open(&self.path).with_context(context)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; HASH_CHUNK_BYTES];
        loop {
            let read = file.read(&mut buffer).with_context(context)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
        }
        Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn owned_pair((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}
