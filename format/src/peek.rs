//! The shape of a pack from its first blocks, before there is memory for the whole index: so that a
//! caller can be told how much memory to give.

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::checksum::check;
use crate::codes::{SectionKind, WHOLE_PACK};
use crate::error::FormatError;
use crate::layout::{ModelShape, SectionEntry, Superblock};
use crate::limits::SUPERBLOCK_BYTES;
use crate::read::check_superblock;
use crate::sections::{missing, wrong_length};
use crate::shape::Shape;

/// Each bundle has four numbers in the index: its slot, its neuron, its count and its checksum.
const INDEX_BYTES_PER_BUNDLE: u64 = 16;

/// What memory is sized by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peek {
    /// Length of the file, bytes.
    pub file_bytes: u64,
    /// Bytes that [`crate::Pack::parse`] needs.
    pub index_bytes: u64,
    /// Bytes of a block.
    pub block_bytes: u32,
    /// The model shape.
    pub shape: Shape,
}

impl Peek {
    /// Reads superblock, section entries up to the model shape's and the model shape by
    /// `read(offset, bytes)`. `file_bytes` is the length of the file; `longer` says that it is a device,
    /// which may be longer than the pack.
    ///
    /// What it says is what [`crate::Pack::parse`] will find, where that finds a valid pack; and as
    /// many bundles as it tells of have room in an index and a file of these lengths.
    ///
    /// # Errors
    /// What `read` says, or [`FormatError`].
    pub fn read<E: From<FormatError>>(
        file_bytes: u64,
        longer: bool,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut superblock = [0; SUPERBLOCK_BYTES];
        read(0, &mut superblock)?;
        let file_bytes =
            if longer { length_on_device(&superblock, file_bytes) } else { file_bytes };
        let superblock = check_superblock(&superblock, file_bytes)?;
        let (index_bytes, block_bytes) =
            (superblock.index_bytes.get(), superblock.block_bytes.get());
        let entry = first_of_a_kind(superblock.section_count.get(), &mut read)?;
        let entry = entry.filter(|entry| entry.kind.get() == SectionKind::ModelShape.code());
        let Some(entry) = entry else {
            return Err(missing(SectionKind::ModelShape, WHOLE_PACK).into());
        };
        let offset = entry.offset.get();
        if entry.bytes.get() != size_of::<ModelShape>() as u64 {
            return Err(wrong_length(SectionKind::ModelShape, &entry, "must be 64").into());
        }
        let expected = size_of::<ModelShape>() as u64;
        if offset.checked_add(expected).is_none_or(|end| end > index_bytes) {
            let what = "model shape";
            return Err(FormatError::Truncated { what, offset, expected, found: 0 }.into());
        }
        let mut shape = ModelShape::new_zeroed();
        read(offset, shape.as_mut_bytes())?;
        check("model shape", offset, shape.as_bytes(), entry.section_crc.get())?;
        let shape = Shape::from_disk(&shape, offset)?;
        for (what, needed, found) in [
            ("index", shape.bundles().saturating_mul(INDEX_BYTES_PER_BUNDLE), index_bytes),
            (
                "file",
                shape.region_bytes(shape.neurons).saturating_mul(shape.layers.into()),
                file_bytes.saturating_sub(index_bytes),
            ),
        ] {
            if needed > found {
                let (offset, expected) = (0, needed);
                return Err(FormatError::Truncated { what, offset, expected, found }.into());
            }
        }
        Ok(Self { file_bytes, index_bytes, block_bytes, shape })
    }
}

/// The first section entry whose kind is not 0. Entries are sorted by kind, so it is the model shape's,
/// where there is one; kind 0 may be anything.
fn first_of_a_kind<E>(
    entries: u32,
    read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Option<SectionEntry>, E> {
    const BATCH: usize = 64;
    let mut begin = 0;
    while begin < entries {
        let mut batch = [SectionEntry::new_zeroed(); BATCH];
        let count = BATCH.min((entries - begin) as usize);
        let batch = batch.get_mut(..count).unwrap_or_default();
        let offset = u64::from(begin) * size_of::<SectionEntry>() as u64;
        read(SUPERBLOCK_BYTES as u64 + offset, batch.as_mut_bytes())?;
        if let Some(found) = batch.iter().find(|entry| entry.kind.get() > 0) {
            return Ok(Some(*found));
        }
        begin += count as u32;
    }
    Ok(None)
}

/// Length of the pack that a device begins with: devices and partitions are longer than their pack,
/// whose superblock says where it ends. Whether that is true is for those to find out who check the
/// superblock.
pub fn length_on_device(begin: &[u8], device_bytes: u64) -> u64 {
    let stated = Superblock::ref_from_prefix(begin);
    stated.map_or(device_bytes, |(superblock, _)| superblock.file_bytes.get().min(device_bytes))
}
