//! Where a pack is read from.

use core::ffi::CStr;

use lnp_engine::arena::StagingMemory;
use lnp_engine::queue::{ReadFailure, TimedQueue};
use lnp_engine::sys::{BackEnd, DeviceQueue, DirectFile, OpenError};
use lnp_format::{FormatError, Peek};

use crate::error::Failure;
use crate::settings::Settings;
use crate::storage::{Storage, StorageQueue};
use crate::types::*;

/// What the caller told, its pointers checked.
pub(crate) enum Source {
    File(DirectFile),
    Storage(Storage),
}

/// Bytes of what is read at once to find out about a pack: enough for the alignment of any device.
const PEEK_BYTES: usize = 4096;

#[repr(align(4096))]
struct PeekBlock([u8; PEEK_BYTES]);

/// Longest read of the index, bytes.
const INDEX_READ_BYTES: usize = 1 << 20;

impl Source {
    /// # Safety
    /// The path is a string that ends with a zero byte, the storage is one, where they are asked for.
    pub(crate) unsafe fn open(source: &lnp_source_t, settings: &Settings) -> Result<Self, Failure> {
        match source.kind {
            LNP_SOURCE_PATH if source.path.is_null() => Err(Failure::Argument("the path is null")),
            LNP_SOURCE_PATH => {
                // SAFETY: not null, and then a string that ends with a zero byte, as this function asks of
                // its caller.
                let path = unsafe { CStr::from_ptr(source.path) };
                Ok(Self::File(DirectFile::open(path, settings.allow_buffered())?))
            }
            LNP_SOURCE_FD => {
                Ok(Self::File(DirectFile::duplicate(source.fd, settings.allow_buffered())?))
            }
            LNP_SOURCE_STORAGE if source.storage.is_null() || !source.storage.is_aligned() => {
                Err(Failure::Argument("the storage is null or misaligned"))
            }
            LNP_SOURCE_STORAGE => {
                // SAFETY: not null and aligned, and then a storage, as this function asks of its caller.
                let told = unsafe { source.storage.read() };
                Ok(Self::Storage(Storage::new(told)?))
            }
            _ => Err(Failure::Argument("kind must be one of LNP_SOURCE_...")),
        }
    }

    /// Finds out how large what is.
    pub(crate) fn peek(&self) -> Result<Peek, Failure> {
        let (file_bytes, longer) = match self {
            Self::File(file) => (file.bytes(), file.is_device()),
            Self::Storage(storage) => {
                (storage.bytes().unwrap_or(u64::MAX), storage.bytes().is_none())
            }
        };
        let peek = Peek::read(file_bytes, longer, |offset, bytes| {
            self.read_anywhere(offset, bytes, file_bytes)
        })?;
        let fits = match self {
            Self::File(file) => file.takes_blocks_of(peek.block_bytes),
            Self::Storage(storage) => storage.takes_blocks_of(peek.block_bytes),
        };
        if !fits {
            let (expected, found) = (self.align(), peek.block_bytes);
            return Err(OpenError::Alignment { expected, found }.into());
        }
        Ok(peek)
    }

    /// What offset, length and memory of a read must be a multiple of, bytes.
    const fn align(&self) -> u32 {
        match self {
            Self::File(file) => file.align(),
            Self::Storage(storage) => storage.align(),
        }
    }

    /// Reads any few bytes through an aligned block or two.
    fn read_anywhere(
        &self,
        mut offset: u64,
        mut bytes: &mut [u8],
        end: u64,
    ) -> Result<(), Failure> {
        let mut block = PeekBlock([0; PEEK_BYTES]);
        while !bytes.is_empty() {
            let begin = offset - offset % PEEK_BYTES as u64;
            let there = end.saturating_sub(begin).min(PEEK_BYTES as u64);
            if there == 0 || !there.is_multiple_of(self.align().into()) {
                let (what, expected) = ("pack", PEEK_BYTES as u64);
                return Err(
                    FormatError::Truncated { what, offset: begin, expected, found: there }.into()
                );
            }
            let there = there as usize;
            let found = block.0.get_mut(..there).unwrap_or_default();
            self.read_exact_at(begin, found)?;
            let found = found.get((offset - begin) as usize..).unwrap_or_default();
            let count = found.len().min(bytes.len());
            if count == 0 {
                return Err(Failure::Index(ReadFailure::Short { found: 0 }));
            }
            let (now, rest) = bytes.split_at_mut(count);
            now.copy_from_slice(found.get(..count).unwrap_or_default());
            (offset, bytes) = (offset + count as u64, rest);
        }
        Ok(())
    }

    /// Reads the index into aligned memory of its length.
    pub(crate) fn read_index(&self, index: &mut [u8]) -> Result<(), Failure> {
        let mut offset = 0;
        for piece in index.chunks_mut(INDEX_READ_BYTES) {
            let bytes = piece.len() as u64;
            self.read_exact_at(offset, piece)?;
            offset += bytes;
        }
        Ok(())
    }

    fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Failure> {
        match self {
            Self::File(file) => file.read_exact_at(offset, bytes),
            Self::Storage(storage) => storage.read_exact_at(offset, bytes),
        }
        .map_err(Failure::Index)
    }

    /// The queue; `self` lies in the caller's memory and stays.
    pub(crate) fn queue(
        &'static self,
        staging: StagingMemory<'static>,
        depth: u32,
        settings: &Settings,
    ) -> Result<Queue, Failure> {
        Ok(match self {
            Self::File(file) => {
                Queue::Device(DeviceQueue::open(file, staging, depth, settings.read_options())?)
            }
            Self::Storage(storage) => Queue::Storage(StorageQueue::new(*storage, depth)),
        })
    }
}

/// A read queue of either kind.
// It stands once in an engine: an extra pointer to the large ones would only cost a jump.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Queue {
    Device(DeviceQueue<'static>),
    Storage(StorageQueue),
}

impl Queue {
    /// The back end's number, and what is missing of it (errno).
    pub(crate) fn back_end(&self) -> (u32, i32) {
        match self {
            Self::Storage(_) => (LNP_BACK_END_STORAGE, 0),
            Self::Device(queue) => match queue.back_end() {
                BackEnd::Uring { unregistered, .. } => {
                    (LNP_BACK_END_URING, unregistered.unwrap_or(0))
                }
                BackEnd::PreadByChoice => (LNP_BACK_END_PREAD, 0),
                BackEnd::PreadWithoutUring(errno) => (LNP_BACK_END_PREAD, *errno),
            },
        }
    }

    fn inner(&self) -> &dyn TimedQueue<'static> {
        match self {
            Self::Device(queue) => queue,
            Self::Storage(queue) => queue,
        }
    }

    fn inner_mut(&mut self) -> &mut dyn TimedQueue<'static> {
        match self {
            Self::Device(queue) => queue,
            Self::Storage(queue) => queue,
        }
    }
}

lnp_engine::forward_read_queue!(impl [] ReadQueue<'static> for Queue, inner, inner_mut);
