//! Safetensors files: checkpoints, traces and links are such files.
//!
//! Reading holds the header only; tensor bytes are read when asked for, so a file of any size
//! costs no more memory than the tensor at hand. Anyone may have written the file: no memory is
//! set aside for a size it claims before that size was compared with the file's length.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Serialize;

use crate::data_file::DataFile;

/// Largest header read or written: several hundred thousand tensors. The safetensors format allows
/// 100 MB, which take more than 1 GiB of memory once they are read.
pub const HEADER_BYTES_MAX: u64 = 32 << 20;
/// The header is preceded by its length, a little-endian u64.
const PREFIX_BYTES: u64 = 8;
/// The header is padded so that the data begin at a multiple of this.
const HEADER_ALIGN_BYTES: usize = 8;

/// Metadata entry of what `lnp synth` made up, traces and weights: how it was made.
pub const SYNTHETIC: &str = "synthetic";

/// A validated header: tensors lie back to back and end where the file ends.
pub struct Header {
    /// The `__metadata__` entries.
    pub metadata: BTreeMap<String, String>,
    /// All tensors by name; their offsets count from `data_start`.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Where in the file the data begin.
    pub data_start: u64,
}

impl Header {
    /// Reads and checks the header at the start of a file of `len_bytes`.
    pub fn read(input: &mut impl Read, len_bytes: u64) -> Result<Self> {
        let mut prefix = [0; PREFIX_BYTES as usize];
        input
            .read_exact(&mut prefix)
            .context("shorter than the 8 bytes that tell its header's length")?;
        let header_len = u64::from_le_bytes(prefix);
        ensure!(
            header_len <= HEADER_BYTES_MAX && header_len <= len_bytes.saturating_sub(PREFIX_BYTES),
            "header of {header_len} bytes in a file of {len_bytes}: cut off, or not a safetensors \
             file"
        );
        let mut json = vec![0; usize::try_from(header_len)?];
        input.read_exact(&mut json)?;
        // Not by `SafeTensors`: its own check of the file's length overflows on offsets near 2^64.
        let header: Metadata =
            serde_json::from_slice(&json).context("its safetensors header is damaged")?;
        drop(json);
        let data_start = PREFIX_BYTES + header_len;
        let (described, found) = (header.data_len() as u64, len_bytes - data_start);
        ensure!(
            described == found,
            "its tensors take {described} bytes, the file has {found}: cut off or damaged"
        );
        Ok(Self {
            metadata: header.metadata().clone().into_iter().flatten().collect(),
            tensors: header.tensors().into_iter().map(|(k, v)| (k, v.clone())).collect(),
            data_start,
        })
    }
}

/// An open safetensors file: validated header, data on demand.
pub struct TensorFile {
    data: DataFile,
    header: Header,
}

impl TensorFile {
    /// Opens a file and checks its header.
    pub fn open(path: &Path) -> Result<Self> {
        let data = DataFile::open(path)?;
        let header = Header::read(&mut data.file(), data.len_bytes()).with_context(|| {
            format!("{}: not a usable safetensors file (truncated copy?)", path.display())
        })?;
        Ok(Self { data, header })
    }

    /// The file and its header.
    pub fn into_parts(self) -> (DataFile, Header) {
        (self.data, self.header)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.data.path()
    }

    /// Last component of the path, for messages and for naming the source.
    pub fn file_name(&self) -> String {
        self.data.file_name()
    }

    /// Length of the file, bytes.
    pub fn len_bytes(&self) -> u64 {
        self.data.len_bytes()
    }

    /// The `__metadata__` entries of the header.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// All tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.header.tensors
    }

    /// Type and shape of a tensor.
    pub fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.tensors()
            .get(name)
            .with_context(|| format!("{}: has no tensor `{name}`", self.path().display()))
    }

    /// All bytes of a tensor.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let (start, end) = self.info(name)?.data_offsets;
        self.read_range(name, 0..end - start)
    }

    /// A byte range of a tensor, relative to the tensor's start.
    pub fn read_range(&self, name: &str, range: Range<usize>) -> Result<Vec<u8>> {
        let (start, end) = self.info(name)?.data_offsets;
        if range.start > range.end || range.end > end - start {
            bail!(
                "{}: tensor `{name}`: bytes {}..{} asked for, it has {}",
                self.path().display(),
                range.start,
                range.end,
                end - start
            );
        }
        self.data.read(name, self.header.data_start + (start + range.start) as u64, range.len())
    }
}

/// A tensor to be written.
pub struct TensorData<'a> {
    /// Its name, unique in the file.
    pub name: String,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Dimensions, the slowest first.
    pub shape: Vec<usize>,
    /// The elements, row-major.
    pub data: Elements<'a>,
}

/// The elements of a tensor, row-major.
#[derive(Clone, Copy)]
pub enum Elements<'a> {
    /// As they stand in the file.
    Bytes(&'a [u8]),
    /// Of 32 bits, written little-endian.
    Words(&'a [u32]),
}

/// The JSON header. The safetensors crate writes metadata in the order of a hash map; here the
/// same data have to give the same bytes.
#[derive(Serialize)]
struct HeaderJson<'a> {
    #[serde(rename = "__metadata__")]
    metadata: &'a BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<&'a str, TensorInfo>,
}

/// Writes a safetensors file, tensors in the order given. Same arguments, same bytes: the header's
/// keys are sorted, and it is padded with spaces to 8 bytes.
pub fn write_tensors(
    out: &mut impl Write,
    metadata: &BTreeMap<String, String>,
    tensors: &[TensorData<'_>],
) -> Result<()> {
    let mut shapes = Vec::new();
    for TensorData { name, dtype, shape, data } in tensors {
        let bytes = match data {
            Elements::Bytes(bytes) => bytes.len(),
            Elements::Words(words) => size_of_val(*words),
        };
        let of_shape = shape_bytes(*dtype, shape);
        ensure!(
            of_shape == Some(bytes),
            "tensor {name} is {dtype:?} {shape:?}, but has {bytes} bytes"
        );
        shapes.push(TensorShape { name, dtype: *dtype, shape });
    }
    write_header(out, metadata, &shapes)?;
    for tensor in tensors {
        match tensor.data {
            Elements::Bytes(bytes) => out.write_all(bytes)?,
            Elements::Words(words) => {
                for word in words {
                    out.write_all(&word.to_le_bytes())?;
                }
            }
        }
    }
    Ok(())
}

/// What the header says of a tensor.
pub struct TensorShape<'a> {
    /// Its name, unique in the file.
    pub name: &'a str,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Dimensions, the slowest first.
    pub shape: &'a [usize],
}

/// Writes the header alone; the caller then writes the tensors' bytes, in the order given.
pub fn write_header(
    out: &mut impl Write,
    metadata: &BTreeMap<String, String>,
    tensors: &[TensorShape<'_>],
) -> Result<()> {
    let mut infos = BTreeMap::new();
    let mut start = 0;
    for &TensorShape { name, dtype, shape } in tensors {
        let end = shape_bytes(dtype, shape).and_then(|bytes| bytes.checked_add(start));
        let end =
            end.with_context(|| format!("tensor {name} is {dtype:?} {shape:?}: too large"))?;
        let info = TensorInfo { dtype, shape: shape.to_vec(), data_offsets: (start, end) };
        ensure!(infos.insert(name, info).is_none(), "there are two tensors {name}");
        start = end;
    }
    let mut json = serde_json::to_vec(&HeaderJson { metadata, tensors: infos })?;
    json.resize(json.len().next_multiple_of(HEADER_ALIGN_BYTES), b' ');
    ensure!(
        json.len() as u64 <= HEADER_BYTES_MAX,
        "header of {} bytes: at most {HEADER_BYTES_MAX} are possible",
        json.len()
    );
    out.write_all(&(json.len() as u64).to_le_bytes())?;
    Ok(out.write_all(&json)?)
}

/// Bytes of a tensor; `None` where they are no whole number, or too many.
fn shape_bytes(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let bits = shape.iter().try_fold(dtype.bitsize(), |bits, &length| bits.checked_mul(length))?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor<'a>(name: &str, shape: &[usize], data: Elements<'a>) -> TensorData<'a> {
        let dtype = match data {
            Elements::Bytes(_) => Dtype::U8,
            Elements::Words(_) => Dtype::U32,
        };
        TensorData { name: name.to_owned(), dtype, shape: shape.to_vec(), data }
    }

    /// The bytes are promised, not just that they can be read back.
    #[test]
    fn written_byte_by_byte() -> Result<()> {
        let metadata = BTreeMap::from([("k".to_owned(), "\"v\"".to_owned())]);
        let tensors = [
            tensor("b", &[2, 1], Elements::Bytes(&[7, 8])),
            tensor("a", &[1], Elements::Words(&[0x0102_0304])),
            tensor("c", &[0], Elements::Words(&[])),
        ];
        let mut file = Vec::new();
        write_tensors(&mut file, &metadata, &tensors)?;
        let header = r#"{"__metadata__":{"k":"\"v\""},"a":{"dtype":"U32","shape":[1],"data_offsets":[2,6]},"b":{"dtype":"U8","shape":[2,1],"data_offsets":[0,2]},"c":{"dtype":"U32","shape":[0],"data_offsets":[6,6]}}"#;
        let padded = header.len().next_multiple_of(8);
        let mut expected = (padded as u64).to_le_bytes().to_vec();
        expected.extend(format!("{header:padded$}").bytes());
        expected.extend([7, 8, 4, 3, 2, 1]);
        assert_eq!(file, expected);

        let read = Header::read(&mut file.as_slice(), file.len() as u64)?;
        assert_eq!((read.metadata, read.data_start), (metadata, 8 + padded as u64));
        assert_eq!(read.tensors["a"].data_offsets, (2, 6));
        Ok(())
    }

    #[test]
    fn contradictions_are_not_written() {
        let (two, five) = (Elements::Words(&[1, 2]), Elements::Bytes(&[0; 5]));
        for (tensors, expected) in [
            (vec![tensor("a", &[3], two)], "a is U32 [3], but has 8 bytes"),
            (vec![tensor("a", &[usize::MAX, 2], two)], "but has 8 bytes"),
            (vec![tensor("a", &[2], two), tensor("a", &[5], five)], "two tensors a"),
        ] {
            let mut out = Vec::new();
            let error = write_tensors(&mut out, &BTreeMap::new(), &tensors).unwrap_err();
            assert!(error.to_string().contains(expected) && out.is_empty(), "{error}");
        }
    }
}
