//! The staging area: where reads land and computing reads from, at the same time, in disjoint buffers.

use core::fmt;
use core::marker::PhantomData;

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use super::{Arena, ArenaError, ArenaSize, BufferState};
use crate::sync::{AtomicU32, Ordering};

/// One buffer: its state, and its stretch of the staging area, which only changes while all are free.
#[derive(Debug, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct Buffer {
    state: AtomicU32,
    begin: AtomicU32,
    bytes: AtomicU32,
}

impl Buffer {
    const fn state(&self) -> BufferState<'_> {
        BufferState(&self.state)
    }
}

/// Where all reads of a queue go, for a back end that registers it with the kernel. It gives no right
/// to touch a byte: a [`Lease`] does.
#[derive(Clone, Copy, Debug)]
pub struct StagingMemory<'a> {
    base: *mut u8,
    bytes: usize,
    borrow: PhantomData<&'a [u8]>,
}

// SAFETY: an address and a length; nothing is reached through them.
unsafe impl Send for StagingMemory<'_> {}
// SAFETY: shared, too, it lets nobody reach a byte: it only tells the address and the length.
unsafe impl Sync for StagingMemory<'_> {}

impl<'a> StagingMemory<'a> {
    /// Notes where memory is that will be given to [`Staging::new`], in one piece or several.
    pub const fn of(memory: &mut &'a mut [u8]) -> Self {
        Self { base: memory.as_mut_ptr(), bytes: memory.len(), borrow: PhantomData }
    }

    /// First byte.
    pub const fn base(&self) -> *mut u8 {
        self.base
    }

    /// Length, bytes.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A stretch of the caller's memory, cut anew into buffers for every round of reads.
pub struct Staging<'a> {
    base: *mut u8,
    bytes: usize,
    buffers: &'a [Buffer],
    count: usize,
    /// It stands for the exclusive borrow that it was made from.
    borrow: PhantomData<&'a mut [u8]>,
}

// SAFETY: it stands for an exclusive borrow of bytes, which may move to another thread.
unsafe impl Send for Staging<'_> {}
// SAFETY: through a shared reference bytes are reached only under a buffer's state: written by the one
// lease of a buffer that is in flight, read by the readers of one that is ready.
unsafe impl Sync for Staging<'_> {}

impl fmt::Debug for Staging<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staging").field("bytes", &self.bytes).field("buffers", &self.count).finish()
    }
}

impl<'a> Staging<'a> {
    /// A staging area over `memory`, with its buffers in the arena.
    ///
    /// # Errors
    /// [`ArenaError`].
    pub fn new(
        arena: &mut Arena<'a>,
        memory: &'a mut [u8],
        buffers: usize,
    ) -> Result<Self, ArenaError> {
        let buffers: &'a mut [Buffer] = arena.take(buffers)?;
        // what offsets of 32 bits reach
        let bytes = memory.len().min(u32::MAX as usize);
        Ok(Self { base: memory.as_mut_ptr(), bytes, buffers, count: 0, borrow: PhantomData })
    }

    /// Counts what [`Staging::new`] takes from the arena.
    pub fn size(size: &mut ArenaSize, buffers: usize) {
        size.add::<Buffer>(buffers);
    }

    /// Length, bytes.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Cuts the area into one buffer for each of `sizes` (bytes), one after the other from the front.
    /// False, and no buffer, where they do not fit, or while an old buffer is in flight.
    pub fn lay_out(&mut self, sizes: impl Iterator<Item = u64>) -> bool {
        let old = core::mem::take(&mut self.count);
        if !self.buffers.iter().take(old).all(|buffer| buffer.state().release()) {
            self.count = old;
            return false;
        }
        let (mut begin, mut count) = (0_u64, 0);
        for size in sizes {
            let end = begin.saturating_add(size);
            let Some(buffer) = self.buffers.get(count) else { return false };
            if end > self.bytes as u64 {
                return false;
            }
            // Both fit: `bytes` is at most what 32 bits hold.
            buffer.begin.store(begin as u32, Ordering::Relaxed);
            buffer.bytes.store(size as u32, Ordering::Relaxed);
            (begin, count) = (end, count + 1);
        }
        self.count = count;
        true
    }

    fn buffer(&self, number: usize) -> Option<&'a Buffer> {
        self.buffers.get(..self.count)?.get(number)
    }

    /// The right to fill a buffer that is free.
    pub fn lease(&self, number: usize) -> Option<Lease<'a>> {
        let buffer = self.buffer(number)?;
        buffer.state().begin().then(|| Lease {
            at: self.base.wrapping_add(buffer.begin.load(Ordering::Relaxed) as usize),
            buffer,
        })
    }

    /// Whoever wanted a buffer's bytes wants them no more.
    pub fn cancel(&self, number: usize) {
        if let Some(buffer) = self.buffer(number) {
            buffer.state().cancel();
        }
    }

    /// The bytes of a buffer that is ready.
    pub fn bytes_of(&self, number: usize) -> Option<&[u8]> {
        let buffer = self.buffer(number)?;
        buffer.state().is_ready().then(|| self.ready(buffer))
    }

    /// The same for the one who computes from them: `None` for everybody after the first.
    pub fn claim(&self, number: usize) -> Option<&[u8]> {
        let buffer = self.buffer(number)?;
        buffer.state().claim().then(|| self.ready(buffer))
    }

    /// Whether a buffer is empty: not read yet, or its read failed.
    pub fn is_free(&self, number: usize) -> bool {
        self.buffer(number).is_none_or(|buffer| buffer.state().is_free())
    }

    /// Whether nobody writes any buffer.
    pub fn is_idle(&self) -> bool {
        self.buffers.iter().take(self.count).all(|buffer| buffer.state().is_idle())
    }

    /// Nothing is claimed any more, so that it can be computed from once more; only while nobody
    /// computes.
    pub fn renew(&self) {
        self.buffers.iter().take(self.count).for_each(|buffer| buffer.state().renew());
    }

    /// Whether a buffer was claimed.
    pub fn is_claimed(&self, number: usize) -> bool {
        self.buffer(number).is_some_and(|buffer| buffer.state().is_claimed())
    }

    /// The bytes of a buffer that was just seen ready.
    fn ready(&self, buffer: &'a Buffer) -> &[u8] {
        let at = self.base.wrapping_add(buffer.begin.load(Ordering::Relaxed) as usize);
        let bytes = buffer.bytes.load(Ordering::Relaxed) as usize;
        // SAFETY: `lay_out` saw to it that the stretch lies within the memory borrowed for 'a, and that no
        // other buffer's overlaps it. The buffer was seen ready, so its lease is gone and none can be made:
        // only `lay_out` takes a buffer from ready to free, and changes stretches, and it borrows `self`
        // exclusively, which it cannot while this slice lives. So nobody writes these bytes meanwhile.
        unsafe { core::slice::from_raw_parts(at, bytes) }
    }
}

/// The right to fill one buffer: whoever holds it writes there, alone. Dropped without
/// [`Lease::filled`], it gives the buffer back empty.
#[derive(Debug)]
pub struct Lease<'a> {
    at: *mut u8,
    buffer: &'a Buffer,
}

// SAFETY: it stands for an exclusive borrow of bytes, which may move to another thread.
unsafe impl Send for Lease<'_> {}

impl<'a> Lease<'a> {
    /// Length, bytes.
    pub fn bytes(&self) -> u32 {
        self.buffer.bytes.load(Ordering::Relaxed)
    }

    /// First byte; valid for writes of [`Lease::bytes`] bytes for as long as the lease exists.
    pub const fn as_mut_ptr(&self) -> *mut u8 {
        self.at
    }

    /// The bytes to be filled.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let bytes = self.bytes() as usize;
        // SAFETY: the stretch lies within memory borrowed for 'a; the buffer is in flight and this is
        // its only lease, so nobody else reads or writes it while `self` is borrowed.
        unsafe { core::slice::from_raw_parts_mut(self.at, bytes) }
    }

    /// All bytes are there.
    pub fn filled(self) {
        self.buffer.state().finish(true);
        core::mem::forget(self);
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.buffer.state().finish(false);
    }
}
