//! Asking for memory before it is needed.
//!
//! A kernel does so much with each byte that its loads look only a kilobyte ahead, and what a CPU
//! fetches by itself ends with a page of 4 KiB and knows nothing of the next bundle. So each loop
//! asks for what it will come to, [`AHEAD_BYTES`] on, and near its end for the beginning of the same
//! parts of a bundle that the caller says comes later. Into the second cache: a bundle is used once a
//! token, but what goes straight into the first one is held up by its few buffers of misses (on a
//! Sapphire Rapids rows of q8_0 and f16 came at 7 and 6 GB/s a thread that way, at 13 this way).

/// How far ahead a loop asks, at most. Memory under load takes some 200 to 300 ns, at 20 GB/s that is
/// 4 to 6 KB; more would push input and output out of a first cache of 48 KiB. (4,096, 6,144, 8,192
/// and whole bundles were measured.)
pub(crate) const AHEAD_BYTES: usize = 6144;

/// Bytes of a cache line.
pub(super) const LINE_BYTES: usize = 64;

/// What will be read while and after a loop goes through some bytes.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    distance: usize,
    end: *const u8,
    /// Null where nobody knows.
    later: *const u8,
}

impl Ahead {
    /// For loops through `bytes`, after which `later` will be read; empty where nobody knows.
    pub(crate) fn new(bytes: &[u8], later: &[u8]) -> Self {
        let end = bytes.as_ptr_range().end;
        // No further than the loop is long, or a part of `later` would be passed over.
        let distance = bytes.len().min(AHEAD_BYTES);
        let later = if later.is_empty() { core::ptr::null() } else { later.as_ptr() };
        Self { distance, end, later }
    }

    /// Asks for what comes a while after the `bytes` bytes at `at`. Nothing is read: any address will
    /// do.
    #[inline(always)]
    pub(super) fn ask(self, at: *const u8, bytes: usize) {
        let mut ahead = at.wrapping_add(self.distance);
        if ahead >= self.end {
            if self.later.is_null() {
                return;
            }
            ahead = self.later.wrapping_add(ahead.addr() - self.end.addr());
        }
        for line in 0..bytes.div_ceil(LINE_BYTES) {
            fetch(ahead.wrapping_add(line * LINE_BYTES));
        }
    }

    /// Asks for the line at `line`, if it lies before the end.
    #[inline(always)]
    pub(super) fn ask_line(self, line: *const u8) {
        if line < self.end {
            fetch(line);
        }
    }
}

/// Asks for one cache line.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
fn fetch(line: *const u8) {
    use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: SSE is part of x86-64; a prefetch of any address has no effect that can be seen.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
}

#[inline(always)]
#[cfg(target_arch = "aarch64")]
fn fetch(line: *const u8) {
    // SAFETY: a prefetch of any address has no effect that can be seen.
    unsafe {
        core::arch::asm!(
            "prfm pldl1strm, [{line}]",
            line = in(reg) line.addr(),
            options(nostack, preserves_flags, nomem),
        );
    }
}

#[inline(always)]
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn fetch(_: *const u8) {}
