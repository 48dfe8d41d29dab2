//! Memory that is shared with the kernel.

use core::ptr::NonNull;

use super::super::super::errno;
use crate::sync::AtomicU32;

/// A mapping of a ring; unmapped when dropped. The kernel reads and writes it at any time, so it is
/// reached by atomics and by copies of values that the ring's protocol says are at rest.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory is the process's, not a thread's, and is reached as described above.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps what a ring has at an offset.
    ///
    /// # Errors
    /// The error number.
    pub(crate) fn of(ring: libc::c_int, offset: i64, bytes: usize) -> Result<Self, i32> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping at a place of the kernel's choice: no memory of ours is touched.
        let base = unsafe {
            libc::mmap(core::ptr::null_mut(), bytes, protection, flags, ring, offset as libc::off_t)
        };
        if base == libc::MAP_FAILED {
            return Err(errno());
        }
        let mapping = Self { base: NonNull::new(base.cast()).ok_or(libc::ENOMEM)?, bytes };
        // SAFETY: the mapping is ours, and only what a child inherits of it changes.
        let kept = unsafe { libc::madvise(base, bytes, libc::MADV_DONTFORK) };
        if kept < 0 { Err(errno()) } else { Ok(mapping) }
    }

    /// The word at an offset, bytes.
    ///
    /// # Errors
    /// `EPROTO` where it does not lie within the mapping.
    pub(crate) fn word(&self, offset: usize) -> Result<&AtomicU32, i32> {
        let place = self.place::<u32>(offset).ok_or(libc::EPROTO)?;
        // SAFETY: it lies within the mapping, is aligned, lives as long as `self`, and any bits are a
        // u32; the kernel writes words of rings whole.
        Ok(unsafe { AtomicU32::from_ptr(place) })
    }

    /// A copy of the value at an offset, bytes; `None` where it does not lie within the mapping.
    ///
    /// # Safety
    /// The kernel does not write to it now, and its bytes are a valid `T`.
    pub(crate) unsafe fn read<T: Copy>(&self, offset: usize) -> Option<T> {
        let place = self.place::<T>(offset)?;
        // SAFETY: it lies within the mapping and is aligned; that the kernel does not write to it now and
        // that its bytes are a `T`, this function asks of its caller.
        Some(unsafe { place.read() })
    }

    /// Puts a value at an offset, bytes; whether it lies within the mapping.
    ///
    /// # Safety
    /// The kernel neither reads nor writes it now.
    pub(crate) unsafe fn write<T: Copy>(&self, offset: usize, value: T) -> bool {
        let Some(place) = self.place::<T>(offset) else { return false };
        // SAFETY: it lies within the mapping and is aligned; that the kernel does not use it now, this
        // function asks of its caller.
        unsafe { place.write(value) };
        true
    }

    fn place<T>(&self, offset: usize) -> Option<*mut T> {
        let end = offset.checked_add(size_of::<T>())?;
        let place = self.base.as_ptr().wrapping_add(offset).cast::<T>();
        (end <= self.bytes && place.is_aligned()).then_some(place)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and every reference into it borrows `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
