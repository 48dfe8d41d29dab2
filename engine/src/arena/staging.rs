//! The staging area: where reads land and computing reads from, at the same time, in disjoint slots.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use super::{Arena, ArenaError, ArenaSize, SlotState};
use crate::sync::{AtomicU32, Ordering};

/// One slot: its state, and its stretch of the staging area, which only changes while all are free.
#[derive(Debug, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct Slot {
    state: AtomicU32,
    begin: AtomicU32,
    bytes: AtomicU32,
}

impl Slot {
    const fn state(&self) -> SlotState<'_> {
        SlotState(&self.state)
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

/// A stretch of the caller's memory, cut anew into slots for every round of reads.
pub struct Staging<'a> {
    base: *mut u8,
    bytes: usize,
    slots: &'a [Slot],
    count: usize,
    /// It stands for the exclusive borrow that it was made from.
    borrow: PhantomData<&'a mut [u8]>,
}

// SAFETY: it stands for an exclusive borrow of bytes, which may move to another thread.
unsafe impl Send for Staging<'_> {}
// SAFETY: through a shared reference bytes are reached only under a slot's state: written by the one
// lease of a slot that is in flight, read by the readers of one that is ready.
unsafe impl Sync for Staging<'_> {}

impl fmt::Debug for Staging<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staging").field("bytes", &self.bytes).field("slots", &self.count).finish()
    }
}

impl<'a> Staging<'a> {
    /// A staging area over `memory`, with its slots in the arena.
    ///
    /// # Errors
    /// [`ArenaError`].
    pub fn new(
        arena: &mut Arena<'a>,
        memory: &'a mut [u8],
        slots: usize,
    ) -> Result<Self, ArenaError> {
        let slots: &'a mut [Slot] = arena.take(slots)?;
        // what offsets of 32 bits reach
        let bytes = memory.len().min(u32::MAX as usize);
        Ok(Self { base: memory.as_mut_ptr(), bytes, slots, count: 0, borrow: PhantomData })
    }

    /// Counts what [`Staging::new`] takes from the arena.
    pub fn size(size: &mut ArenaSize, slots: usize) {
        size.add::<Slot>(slots);
    }

    /// Length, bytes.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Cuts the area into one slot for each of `sizes` (bytes), one after the other from the front.
    /// False, and no slot, where they do not fit, or while an old slot is in flight.
    pub fn lay_out(&mut self, sizes: impl Iterator<Item = u64>) -> bool {
        let old = core::mem::take(&mut self.count);
        if !self.slots.iter().take(old).all(|slot| slot.state().release()) {
            self.count = old;
            return false;
        }
        let (mut begin, mut count) = (0_u64, 0);
        for size in sizes {
            let end = begin.saturating_add(size);
            let Some(slot) = self.slots.get(count) else { return false };
            if end > self.bytes as u64 {
                return false;
            }
            // Both fit: `bytes` is at most what 32 bits hold.
            slot.begin.store(begin as u32, Ordering::Relaxed);
            slot.bytes.store(size as u32, Ordering::Relaxed);
            (begin, count) = (end, count + 1);
        }
        self.count = count;
        true
    }

    fn slot(&self, number: usize) -> Option<&'a Slot> {
        self.slots.get(..self.count)?.get(number)
    }

    /// The right to fill a slot that is free.
    pub fn lease(&self, number: usize) -> Option<Lease<'a>> {
        let slot = self.slot(number)?;
        slot.state().begin().then(|| Lease {
            at: self.base.wrapping_add(slot.begin.load(Ordering::Relaxed) as usize),
            slot,
        })
    }

    /// Whoever wanted a slot's bytes wants them no more.
    pub fn cancel(&self, number: usize) {
        if let Some(slot) = self.slot(number) {
            slot.state().cancel();
        }
    }

    /// The bytes of a slot that is ready.
    pub fn enter(&self, number: usize) -> Option<Reader<'_>> {
        let slot = self.slot(number)?;
        slot.state().enter().then(|| self.reader(slot))
    }

    /// The same for the one who computes from them: `None` for everybody after the first.
    pub fn claim(&self, number: usize) -> Option<Reader<'_>> {
        let slot = self.slot(number)?;
        slot.state().claim().then(|| self.reader(slot))
    }

    /// Whether a slot is empty: not read yet, or its read failed.
    pub fn is_free(&self, number: usize) -> bool {
        self.slot(number).is_none_or(|slot| slot.state().is_free())
    }

    /// Whether nobody writes or reads any slot.
    pub fn is_idle(&self) -> bool {
        self.slots.iter().take(self.count).all(|slot| slot.state().is_idle())
    }

    /// Nothing is claimed any more, so that it can be computed from once more; only while nobody
    /// computes.
    pub fn renew(&self) {
        self.slots.iter().take(self.count).for_each(|slot| slot.state().renew());
    }

    /// Whether a slot was claimed.
    pub fn is_claimed(&self, number: usize) -> bool {
        self.slot(number).is_some_and(|slot| slot.state().is_claimed())
    }

    fn reader(&self, slot: &'a Slot) -> Reader<'_> {
        let at = self.base.wrapping_add(slot.begin.load(Ordering::Relaxed) as usize);
        let bytes = slot.bytes.load(Ordering::Relaxed) as usize;
        // SAFETY: `lay_out` saw to it that the stretch lies within the memory borrowed for 'a. The
        // slot was just entered, so no lease of it exists: nobody writes it before the reader
        // leaves, and stretches only change while all slots are free. No other slot's stretch
        // overlaps it.
        let bytes = unsafe { core::slice::from_raw_parts(at, bytes) };
        Reader { bytes, state: slot.state() }
    }
}

/// The right to fill one slot: whoever holds it writes there, alone. Dropped without
/// [`Lease::filled`], it gives the slot back empty.
#[derive(Debug)]
pub struct Lease<'a> {
    at: *mut u8,
    slot: &'a Slot,
}

// SAFETY: it stands for an exclusive borrow of bytes, which may move to another thread.
unsafe impl Send for Lease<'_> {}

impl<'a> Lease<'a> {
    /// Length, bytes.
    pub fn bytes(&self) -> u32 {
        self.slot.bytes.load(Ordering::Relaxed)
    }

    /// First byte; valid for writes of [`Lease::bytes`] bytes for as long as the lease exists.
    pub const fn as_mut_ptr(&self) -> *mut u8 {
        self.at
    }

    /// The bytes to be filled.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let bytes = self.bytes() as usize;
        // SAFETY: the stretch lies within memory borrowed for 'a; the slot is in flight and this is
        // its only lease, so nobody else reads or writes it while `self` is borrowed.
        unsafe { core::slice::from_raw_parts_mut(self.at, bytes) }
    }

    /// All bytes are there.
    pub fn filled(self) {
        self.slot.state().finish(true);
        core::mem::forget(self);
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.slot.state().finish(false);
    }
}

/// The bytes of a slot, for as long as this lives.
#[derive(Debug)]
pub struct Reader<'s> {
    bytes: &'s [u8],
    state: SlotState<'s>,
}

impl Deref for Reader<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.state.leave();
    }
}
