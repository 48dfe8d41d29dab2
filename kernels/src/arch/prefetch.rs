//! Asking for memory before it is needed.
//!
//! A kernel does so much with each byte that its loads look only a kilobyte ahead, and what a CPU
//! fetches by itself ends with a page of 4 KiB and knows nothing of the next bundle. So each loop
//! asks for what it will come to, [`AHEAD_BYTES`] on, and near the bundle's end for the beginning of
//! the bundle that the caller says comes next.

/// How far ahead a loop asks, at most. Memory under load takes some 200 to 400 ns, at 20 GB/s that is
/// 4 to 8 KB; more would push the input and the output out of a first cache of 48 KiB.
pub(crate) const AHEAD_BYTES: usize = 8192;

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// What will be read after the bytes that a loop is at.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    distance: usize,
    end: *const u8,
    next: *const u8,
}

impl Ahead {
    /// For loops through parts of `bundle`, after which `next` comes; nobody knows what, if it is
    /// empty.
    pub(crate) fn new(bundle: &[u8], next: &[u8]) -> Self {
        let end = bundle.as_ptr_range().end;
        // No further than a bundle is long, or a part of `next` would be passed over.
        let distance = bundle.len().min(AHEAD_BYTES);
        Self { distance, end, next: if next.is_empty() { end } else { next.as_ptr() } }
    }

    /// Asks for what comes a while after the `bytes` bytes at `at`. Nothing is read: any address will
    /// do.
    #[inline(always)]
    pub(super) fn ask(self, at: *const u8, bytes: usize) {
        let mut ahead = at.wrapping_add(self.distance);
        if ahead >= self.end {
            ahead = self.next.wrapping_add(ahead.addr() - self.end.addr());
        }
        for line in 0..bytes.div_ceil(LINE_BYTES) {
            fetch(ahead.wrapping_add(line * LINE_BYTES));
        }
    }
}

/// Asks for one cache line.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
fn fetch(line: *const u8) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: SSE is part of x86-64; a prefetch of any address has no effect that can be seen.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

#[inline(always)]
#[cfg(target_arch = "aarch64")]
fn fetch(line: *const u8) {
    // SAFETY: a prefetch of any address has no effect that can be seen.
    unsafe {
        core::arch::asm!(
            "prfm pldl1keep, [{line}]",
            line = in(reg) line,
            options(nostack, preserves_flags, readonly),
        );
    }
}

#[inline(always)]
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn fetch(_: *const u8) {}
