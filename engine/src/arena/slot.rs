//! The state of one buffer slot, a stretch of the staging area that one read fills.
//!
//! ```text
//!            begin            finish(true)         enter / claim
//!   free ------------> in flight ------> ready ---------------> in use by k readers
//!    ^                  |      |          |  ^                        |
//!    |   finish(false)  |      | cancel   |  |  leave (the last one)  |
//!    +------------------+      v          |  +------------------------+
//!    |<--- finish ---- cancelled          |
//!    +<---------------- release ----------+
//! ```
//!
//! Whoever moved a slot from *free* to *in flight* may write its bytes, alone, until it calls
//! `finish`. Whoever entered it may read them until it leaves. Loom tries all interleavings of these
//! calls (`tests/slots.rs`).

use crate::sync::{AtomicU32, Ordering};

const FREE: u32 = 0;
const IN_FLIGHT: u32 = 1;
const CANCELLED: u32 = 2;
const READY: u32 = 3;
/// The two lowest bits are one of the above.
const KIND: u32 = 3;
/// Somebody has taken the slot's bundles to compute from; nobody else will.
const CLAIMED: u32 = 4;
/// The rest counts readers.
const READER: u32 = 8;
/// Most readers; far more than there are threads.
const READERS_MAX: u32 = 1 << 24;

/// The state of a buffer slot, shared between the thread that reads and those that compute. The
/// number itself lies in the arena; zero is *free*.
#[derive(Clone, Copy, Debug)]
pub struct SlotState<'s>(pub &'s AtomicU32);

impl SlotState<'_> {
    /// free -> in flight. From here to [`SlotState::finish`] the caller alone may write the bytes.
    pub fn begin(self) -> bool {
        // Acquire: what the last readers did is over before the first new byte.
        self.0.compare_exchange(FREE, IN_FLIGHT, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// The read has ended: in flight -> ready where `filled`, else free; cancelled -> free. Only for
    /// the one whose [`SlotState::begin`] succeeded.
    pub fn finish(self, filled: bool) {
        let next = if filled { READY } else { FREE };
        // Release: the bytes are there before anyone sees the slot ready.
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

    /// Starts to read the bytes; false where they are not ready.
    pub fn enter(self) -> bool {
        self.change(|state| {
            let readable = state & KIND == READY && state / READER < READERS_MAX;
            readable.then(|| state + READER)
        })
    }

    /// Starts to read the bytes as the one who computes from them: true for one caller.
    pub fn claim(self) -> bool {
        self.change(|state| {
            let takeable = state & (KIND | CLAIMED) == READY && state / READER < READERS_MAX;
            takeable.then(|| (state | CLAIMED) + READER)
        })
    }

    /// Claimed -> claimed by nobody: the bytes stay, and somebody may compute from them once more. Only
    /// while nobody computes.
    pub fn renew(self) {
        self.0.fetch_and(!CLAIMED, Ordering::Relaxed);
    }

    /// Ends reading; once for each `enter` or `claim` that succeeded.
    pub fn leave(self) {
        // Release: reading is over before the slot is seen without readers.
        self.0.fetch_sub(READER, Ordering::Release);
    }

    /// ready, without readers -> free; false where it is in flight or in use. A free slot stays so.
    pub fn release(self) -> bool {
        let freed = self.change(|state| (state & !CLAIMED == READY).then_some(FREE));
        freed || self.is_free()
    }

    /// Whether nothing is in it and nobody writes or reads it.
    pub fn is_free(self) -> bool {
        self.0.load(Ordering::Acquire) == FREE
    }

    /// Whether nobody writes or reads it: free, or ready without readers.
    pub fn is_idle(self) -> bool {
        matches!(self.0.load(Ordering::Acquire) & !CLAIMED, FREE | READY)
    }

    /// Whether somebody computes from it, or has.
    pub fn is_claimed(self) -> bool {
        self.0.load(Ordering::Relaxed) & CLAIMED != 0
    }

    fn change(self, next: impl Fn(u32) -> Option<u32>) -> bool {
        // Acquire on success: whoever enters sees the bytes, whoever frees sees the readers gone.
        self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next).is_ok()
    }
}
