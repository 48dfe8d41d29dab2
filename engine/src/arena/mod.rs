//! The arena: one piece of the caller's memory, cut into typed slices, front to back; and the
//! staging area in it, which the device writes and workers read at the same time.

mod buffer;
#[allow(unsafe_code)] // bytes that one thread writes and others read; each block argues its case
mod staging;

use core::fmt;

use zerocopy::{FromBytes, IntoBytes};

use crate::limits::ARENA_ALIGN;
pub use buffer::BufferState;
pub use staging::{Lease, Staging, StagingMemory};

/// The caller's memory is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaError {
    /// Bytes needed.
    pub expected: usize,
    /// Bytes given.
    pub found: usize,
}

impl fmt::Display for ArenaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the arena has {} bytes, {} are needed", self.found, self.expected)
    }
}

impl core::error::Error for ArenaError {}

/// What is left of the caller's memory.
#[derive(Debug)]
pub struct Arena<'a> {
    rest: &'a mut [u8],
    taken: usize,
}

impl<'a> Arena<'a> {
    /// Takes over the caller's memory; any alignment will do.
    pub fn new(memory: &'a mut [u8]) -> Self {
        Self { rest: memory, taken: 0 }
    }

    /// Cuts off `bytes` bytes that begin on a multiple of `align` (a power of two), as they are: memory that
    /// was never touched stays so.
    ///
    /// # Errors
    /// [`ArenaError`] where too little is left.
    pub fn take_bytes(&mut self, bytes: usize, align: usize) -> Result<&'a mut [u8], ArenaError> {
        let skip = self.rest.as_ptr().addr().wrapping_neg() & (align - 1);
        let needed = skip.saturating_add(bytes);
        let rest = core::mem::take(&mut self.rest);
        if needed > rest.len() {
            let found = self.taken + rest.len();
            return Err(ArenaError { expected: self.taken.saturating_add(needed), found });
        }
        let (head, rest) = rest.split_at_mut(needed);
        self.rest = rest;
        self.taken += needed;
        Ok(&mut head[skip..])
    }

    /// Cuts off a zeroed slice of `count` values.
    ///
    /// # Errors
    /// [`ArenaError`] where too little is left.
    pub fn take<T: FromBytes + IntoBytes>(
        &mut self,
        count: usize,
    ) -> Result<&'a mut [T], ArenaError> {
        let bytes = self.take_bytes(slice_bytes::<T>(count), ARENA_ALIGN)?;
        bytes.fill(0);
        let found = bytes.len();
        // cannot fail: the length is a multiple, the alignment a cache line's
        <[T]>::mut_from_bytes(bytes).map_err(|_| ArenaError { expected: found, found: 0 })
    }
}

const fn slice_bytes<T>(count: usize) -> usize {
    count.saturating_mul(size_of::<T>())
}

/// Adds up what the cuts of an [`Arena`] need, so that the size can be told before.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArenaSize {
    bytes: usize,
}

impl ArenaSize {
    /// Counts an [`Arena::take_bytes`], whatever the alignment of the memory will be.
    pub fn add_bytes(&mut self, bytes: usize, align: usize) {
        self.bytes = self.bytes.saturating_add(bytes).saturating_add(align - 1);
    }

    /// Counts an [`Arena::take`].
    pub fn add<T>(&mut self, count: usize) {
        self.add_bytes(slice_bytes::<T>(count), ARENA_ALIGN);
    }

    /// The sum, bytes.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}
