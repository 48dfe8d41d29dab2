//! The state of one buffer, a stretch of the staging area that one read fills.
//!
//! ```text
//!            begin            finish(true)        claim
//!   free ------------> in flight ------> ready ----------> ready, claimed
//!    ^                  |      |          |  ^                |    |
//!    |   finish(false)  |      | cancel   |  +---- renew -----+    |
//!    +------------------+      v          |                        |
//!    |<--- finish ---- cancelled          |                        |
//!    +<------------- release -------------+------------------------+
//! ```
//!
//! Whoever moved a buffer from *free* to *in flight* may write its bytes, alone, until it calls `finish`.
//! Whoever sees it ready may read them, until it is released: that takes the staging area exclusively, so
//! nobody can be reading then, and readers need not be counted. Loom tries all interleavings of these calls
//! (`tests/buffers.rs`).

use crate::sync::{AtomicU32, Ordering};

const FREE: u32 = 0;
const IN_FLIGHT: u32 = 1;
const CANCELLED: u32 = 2;
const READY: u32 = 3;
/// The two lowest bits are one of the above.
const KIND: u32 = 3;
/// Somebody has taken the buffer's bundles to compute from; nobody else will.
const CLAIMED: u32 = 4;

/// The state of a buffer, shared between the thread that reads and those that compute. The number itself
/// lies in the arena; zero is *free*.
#[derive(Clone, Copy, Debug)]
pub struct BufferState<'s>(pub &'s AtomicU32);

impl BufferState<'_> {
    /// free -> in flight. From here to [`BufferState::finish`] the caller alone may write the bytes.
    pub fn begin(self) -> bool {
        self.0.compare_exchange(FREE, IN_FLIGHT, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// The read has ended: in flight -> ready where `filled`, else free; cancelled -> free. Only for
    /// the one whose [`BufferState::begin`] succeeded.
    pub fn finish(self, filled: bool) {
        let next = if filled { READY } else { FREE };
        // Release: the bytes are there before anyone sees the buffer ready.
        let changed =
            self.0.compare_exchange(IN_FLIGHT, next, Ordering::Release, Ordering::Relaxed);
        if changed.is_err() {
            self.0.store(FREE, Ordering::Release);
        }
    }

    /// in flight -> cancelled: once read, the bytes are for nobody. False where it is not in flight.
    pub fn cancel(self) -> bool {
        self.0.compare_exchange(IN_FLIGHT, CANCELLED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Marks as ready, and claimed by nobody, what needs no read; only while nobody else has it.
    pub fn make_ready(self) {
        self.0.store(READY, Ordering::Release);
    }

    /// Whether the bytes are there. They stay until [`BufferState::release`].
    pub fn is_ready(self) -> bool {
        // Acquire: whoever sees it ready sees the bytes.
        self.0.load(Ordering::Acquire) & KIND == READY
    }

    /// ready -> claimed, for the one who computes from the bytes: true for one caller.
    pub fn claim(self) -> bool {
        // Acquire: whoever claims it sees the bytes.
        self.0
            .compare_exchange(READY, READY | CLAIMED, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Claimed -> claimed by nobody: the bytes stay, and somebody may compute from them once more. Only
    /// while nobody computes.
    pub fn renew(self) {
        self.0.fetch_and(!CLAIMED, Ordering::Relaxed);
    }

    /// ready -> free; false where it is in flight. A free buffer stays so. Only while nobody reads the bytes.
    pub fn release(self) -> bool {
        let released = self.is_ready();
        if released {
            self.0.store(FREE, Ordering::Relaxed);
        }
        released || self.is_free()
    }

    /// Whether nothing is in it and nobody writes it.
    pub fn is_free(self) -> bool {
        self.0.load(Ordering::Acquire) == FREE
    }

    /// Whether nobody writes it: free or ready.
    pub fn is_idle(self) -> bool {
        self.is_free() || self.is_ready()
    }

    /// Whether somebody computes from it, or has.
    pub fn is_claimed(self) -> bool {
        self.0.load(Ordering::Relaxed) & CLAIMED != 0
    }
}
