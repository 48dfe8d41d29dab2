//! The header of a GGUF file: metadata, and where its tensors are.
//!
//! Anyone may have written the file. No memory is set aside for a size that it claims before that size was
//! compared with what is left of the file and with the limits here, and what is returned was checked: tensors
//! lie within the file, apart from each other, in whole blocks.
//!
//! candle has a reader too (`candle_core::quantized::gguf_file`, 0.11.1), which is not used here: it makes an
//! enum of 32 bytes of each element of an array, so that 100 MB of metadata take 3 GB; an alignment of zero
//! makes it panic; a single tensor of a type it does not know, IQ4_NL among them, makes it refuse the file;
//! and zero bytes at the end of a token are cut off.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use lnp_common::data_file::DataFile;

use super::metadata::{Kind, Metadata, Value};
use crate::stored::StoredType;

/// How a GGUF file begins.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";
/// How one of PowerInfer's begins, which is the same after that.
pub(super) const MAGIC_POWERINFER: &[u8; 4] = b"PWRI";
/// Most bytes of a header: the largest vocabularies take a tenth of it.
const HEADER_BYTES_MAX: u64 = 64 << 20;
/// Most entries of metadata: usual are some dozens.
const ENTRIES_MAX: u64 = 1 << 16;
/// Most tensors.
const TENSORS_MAX: u64 = 1 << 16;
/// Longest name of a tensor or of an entry, bytes.
const NAME_BYTES_MAX: u64 = 1 << 16;
/// Most dimensions of a tensor, as in ggml.
const DIMENSIONS_MAX: u32 = 4;
/// What tensors are aligned to where the file says nothing, bytes.
const ALIGNMENT_USUAL: u64 = 32;
/// Largest alignment, bytes.
const ALIGNMENT_MAX: u64 = 1 << 20;

/// ggml's types: number, what it is here, elements and bytes of a block.
const TYPES: [(u32, StoredType, u64, u64); 32] = [
    (0, StoredType::F32, 1, 4),
    (1, StoredType::F16, 1, 2),
    (2, StoredType::Q4_0, 32, 18),
    (3, StoredType::Q4_1, 32, 20),
    (6, StoredType::Q5_0, 32, 22),
    (7, StoredType::Q5_1, 32, 24),
    (8, StoredType::Q8_0, 32, 34),
    (9, StoredType::Other("Q8_1"), 32, 36),
    (10, StoredType::Q2K, 256, 84),
    (11, StoredType::Q3K, 256, 110),
    (12, StoredType::Q4K, 256, 144),
    (13, StoredType::Q5K, 256, 176),
    (14, StoredType::Q6K, 256, 210),
    (15, StoredType::Other("Q8_K"), 256, 292),
    (16, StoredType::Other("IQ2_XXS"), 256, 66),
    (17, StoredType::Other("IQ2_XS"), 256, 74),
    (18, StoredType::Other("IQ3_XXS"), 256, 98),
    (19, StoredType::Other("IQ1_S"), 256, 50),
    (20, StoredType::Iq4Nl, 32, 18),
    (21, StoredType::Other("IQ3_S"), 256, 110),
    (22, StoredType::Other("IQ2_S"), 256, 82),
    (23, StoredType::Other("IQ4_XS"), 256, 136),
    (24, StoredType::Other("I8"), 1, 1),
    (25, StoredType::Other("I16"), 1, 2),
    (26, StoredType::Other("I32"), 1, 4),
    (27, StoredType::Other("I64"), 1, 8),
    (28, StoredType::F64, 1, 8),
    (29, StoredType::Other("IQ1_M"), 256, 56),
    (30, StoredType::Bf16, 1, 2),
    (34, StoredType::Other("TQ1_0"), 256, 54),
    (35, StoredType::Other("TQ2_0"), 256, 66),
    (39, StoredType::Other("MXFP4"), 32, 17),
];

/// What a file's header says.
#[derive(Debug)]
pub(super) struct Header {
    /// Whether it begins as PowerInfer's do.
    pub(super) is_powerinfer: bool,
    pub(super) version: u32,
    pub(super) metadata: Metadata,
    /// In the order of the file's table.
    pub(super) tensors: Vec<TensorInfo>,
}

/// A tensor of the file.
#[derive(Debug, Clone)]
pub(super) struct TensorInfo {
    pub(super) name: String,
    pub(super) dtype: StoredType,
    /// Dimensions, the slowest first.
    pub(super) shape: Vec<usize>,
    /// First byte in the file.
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

impl Header {
    /// Reads and checks the header of a file.
    ///
    /// # Errors
    /// What is wrong, and at which byte; the message does not name the file.
    pub(super) fn read(file: &DataFile) -> Result<Self> {
        let mut input = Input {
            file: BufReader::with_capacity(1 << 16, file.file()),
            len_bytes: file.len_bytes(),
            bytes: Vec::new(),
        };
        let magic = input.array()?;
        let is_powerinfer = &magic == MAGIC_POWERINFER;
        ensure!(is_powerinfer || &magic == MAGIC, "not a GGUF file: it begins with {magic:02x?}");
        let version = input.u32()?;
        ensure!(
            version.trailing_zeros() < 16,
            "a big-endian GGUF file: convert it with `gguf_convert_endian.py` of llama.cpp"
        );
        ensure!(
            (2..=3).contains(&version),
            "GGUF version {version}: 2 and 3 can be read; convert the model again"
        );
        let (tensor_count, entry_count) = (input.u64()?, input.u64()?);
        for (what, count, most) in
            [("tensors", tensor_count, TENSORS_MAX), ("metadata entries", entry_count, ENTRIES_MAX)]
        {
            ensure!(count <= most, "{count} {what}, at most {most} are read: damaged?");
        }
        let mut entries = BTreeMap::new();
        for number in 0..entry_count {
            let (key, value) = input.entry().with_context(|| format!("metadata entry {number}"))?;
            ensure!(!entries.contains_key(&key), "metadata `{key}` is there twice: damaged");
            entries.insert(key, value);
        }
        let mut tensors = Vec::new();
        for number in 0..tensor_count {
            tensors.push(input.tensor().with_context(|| format!("tensor {number}"))?);
        }
        let header_bytes = input.bytes.len() as u64;
        let metadata = Metadata::new(input.bytes, entries);
        let alignment = metadata.whole("general.alignment")?.unwrap_or(ALIGNMENT_USUAL);
        ensure!(
            alignment.is_power_of_two() && alignment <= ALIGNMENT_MAX,
            "an alignment of {alignment} bytes: a power of two up to {ALIGNMENT_MAX} is possible"
        );
        let data_start = header_bytes.next_multiple_of(alignment);
        place(&mut tensors, data_start, alignment, file.len_bytes())?;
        Ok(Self { is_powerinfer, version, metadata, tensors })
    }
}

/// Counts the tensors' offsets from the begin of the file, and checks that they lie in it, apart.
fn place(
    tensors: &mut [TensorInfo],
    data_start: u64,
    alignment: u64,
    len_bytes: u64,
) -> Result<()> {
    for TensorInfo { name, offset, bytes, .. } in tensors.iter_mut() {
        ensure!(
            offset.is_multiple_of(alignment),
            "tensor `{name}` begins at byte {offset} of the data, no multiple of {alignment}: damaged"
        );
        let begin = data_start.checked_add(*offset);
        let end = begin.and_then(|begin| begin.checked_add(*bytes));
        ensure!(
            end.is_some_and(|end| end <= len_bytes),
            "tensor `{name}` has {bytes} bytes at byte {offset} of the data, which begin at byte \
             {data_start} of {len_bytes}: cut off or damaged; copy the file again"
        );
        *offset += data_start;
    }
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.offset);
    for pair in order.windows(2) {
        ensure!(
            pair[0].offset + pair[0].bytes <= pair[1].offset,
            "tensors `{}` and `{}` overlap: damaged",
            pair[0].name,
            pair[1].name
        );
    }
    order.sort_by(|a, b| a.name.cmp(&b.name));
    for pair in order.windows(2) {
        ensure!(pair[0].name != pair[1].name, "tensor `{}` is there twice: damaged", pair[0].name);
    }
    Ok(())
}

/// A file being read from its begin on, and what was read of it: values stay there.
struct Input<'f> {
    file: BufReader<&'f std::fs::File>,
    len_bytes: u64,
    bytes: Vec<u8>,
}

impl Input<'_> {
    /// The next bytes, by where they are in what was read.
    fn take(&mut self, count: u64) -> Result<Range<usize>> {
        let at = self.bytes.len() as u64;
        ensure!(
            count <= self.len_bytes.saturating_sub(at),
            "{count} bytes are needed at byte {at}, the file has {}: cut off or damaged; copy it again",
            self.len_bytes
        );
        ensure!(
            count <= HEADER_BYTES_MAX - at.min(HEADER_BYTES_MAX),
            "{count} bytes at byte {at} make a header of more than {HEADER_BYTES_MAX} bytes: damaged?"
        );
        let (begin, end) = (self.bytes.len(), self.bytes.len() + count as usize);
        self.bytes.resize(end, 0);
        self.file.read_exact(&mut self.bytes[begin..end]).context("cannot read the header")?;
        Ok(begin..end)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let range = self.take(N as u64)?;
        Ok(self.bytes[range].try_into().unwrap_or([0; N]))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A text: its length, then its bytes.
    fn text(&mut self) -> Result<Range<usize>> {
        let count = self.u64()?;
        self.take(count)
    }

    fn name(&mut self) -> Result<String> {
        let count = self.u64()?;
        ensure!(count <= NAME_BYTES_MAX, "a name of {count} bytes: damaged");
        let range = self.take(count)?;
        let name = std::str::from_utf8(&self.bytes[range]).context("its name is not UTF-8")?;
        Ok(name.to_owned())
    }

    fn entry(&mut self) -> Result<(String, Value)> {
        let key = self.name()?;
        let value = self.value().with_context(|| format!("`{key}`"))?;
        Ok((key, value))
    }

    fn value(&mut self) -> Result<Value> {
        let kind = self.kind()?;
        if kind != Kind::Array {
            let range = match kind.bytes() {
                Some(bytes) => self.take(bytes)?,
                None => self.text()?,
            };
            return Ok(Value { kind, count: None, range });
        }
        let (kind, count) = (self.kind()?, self.u64()?);
        ensure!(kind != Kind::Array, "an array of arrays, which lnp does not read");
        let begin = self.bytes.len();
        match kind.bytes() {
            // more than 2^64 are more than the file has
            Some(bytes) => {
                self.take(bytes.saturating_mul(count))?;
            }
            None => {
                for _ in 0..count {
                    self.text()?;
                }
            }
        }
        Ok(Value { kind, count: Some(count as usize), range: begin..self.bytes.len() })
    }

    fn kind(&mut self) -> Result<Kind> {
        let code = self.u32()?;
        Kind::from_code(code).with_context(|| format!("values of type {code}, which is none"))
    }

    /// A line of the table; its offset counts from the begin of the data.
    fn tensor(&mut self) -> Result<TensorInfo> {
        let name = self.name()?;
        let rest = |input: &mut Self| -> Result<_> {
            let dimensions = input.u32()?;
            ensure!(
                (1..=DIMENSIONS_MAX).contains(&dimensions),
                "{dimensions} dimensions, 1 to {DIMENSIONS_MAX} are possible: damaged"
            );
            let mut shape = Vec::new();
            for _ in 0..dimensions {
                shape.push(input.u64()?);
            }
            let code = input.u32()?;
            let known = TYPES.iter().find(|known| known.0 == code);
            let (_, dtype, block, block_bytes) = known.with_context(|| {
                format!("is of type {code}, which lnp does not know: a newer GGUF?")
            })?;
            let elements = shape.iter().try_fold(1, |all: u64, length| all.checked_mul(*length));
            let elements = elements.filter(|all| (1..=1 << 56).contains(all));
            let bytes = elements
                .filter(|_| shape[0].is_multiple_of(*block))
                .map(|all| all / block * block_bytes)
                .with_context(|| {
                    format!("has dimensions {shape:?}, impossible for type {dtype}: damaged")
                })?;
            // ggml names the fastest first
            let shape = shape.iter().rev().map(|length| *length as usize).collect();
            Ok((*dtype, shape, input.u64()?, bytes))
        };
        let (dtype, shape, offset, bytes) = rest(self).with_context(|| format!("`{name}`"))?;
        Ok(TensorInfo { name, dtype, shape, offset, bytes })
    }
}
