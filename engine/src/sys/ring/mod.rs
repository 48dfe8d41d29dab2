//! A ring of io_uring over plain system calls: nothing but libc, and no allocation.
//!
//! Not of the crate `io-uring`, which needs std: the engine goes into programs without.

mod abi;
mod mapping;
mod setup;

use core::sync::atomic::fence;

pub(crate) use abi::{Completion, FIXED_FILE, OP_READ, OP_READ_FIXED, Submission};
pub use setup::Polling;
pub(crate) use setup::{Opened, open};

use super::errno;
use crate::sync::{AtomicU32, Ordering};
use abi::Params;
use mapping::Mapping;

/// A file descriptor of ours; closed when dropped.
#[derive(Debug)]
struct Descriptor(libc::c_int);

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: it is open and ours; nobody uses it after this.
        unsafe { libc::close(self.0) };
    }
}

/// A submission ring and a completion ring.
///
/// The kernel waits for nothing when it is dropped: what is in flight goes on.
#[derive(Debug)]
pub(crate) struct Ring {
    descriptor: Descriptor,
    rings: Mapping,
    submissions: Mapping,
    params: Params,
    /// Next free place for a submission.
    tail: u32,
    /// Next completion to take.
    head: u32,
}

impl Ring {
    /// Makes a ring with places for `depth` submissions and twice as many completions.
    ///
    /// # Errors
    /// The error number; `ENOSYS` also for kernels before 5.6.
    fn new(depth: u32, flags: u32, thread_idle_ms: u32) -> Result<Self, i32> {
        let mut params = Params { flags, thread_idle_ms, ..Params::default() };
        // SAFETY: `params` is what the kernel reads and writes; nobody else has it.
        let fd = unsafe {
            libc::syscall(libc::SYS_io_uring_setup, libc::c_long::from(depth), &raw mut params)
        };
        let fd = libc::c_int::try_from(fd).unwrap_or(-1);
        if fd < 0 {
            return Err(errno());
        }
        let descriptor = Descriptor(fd);
        let needed = abi::FEATURE_SINGLE_MMAP | abi::FEATURE_RW_CUR_POS;
        if params.features & needed != needed {
            return Err(libc::ENOSYS);
        }
        let places = params.submissions as usize;
        let array_end = params.submission_offsets.array as usize + places * size_of::<u32>();
        let completions_end = params.completion_offsets.completions as usize
            + params.completions as usize * size_of::<Completion>();
        let rings = Mapping::of(fd, abi::OFFSET_RINGS, array_end.max(completions_end))?;
        let submissions =
            Mapping::of(fd, abi::OFFSET_SUBMISSIONS, places * size_of::<Submission>())?;
        let ring = Self { descriptor, rings, submissions, params, tail: 0, head: 0 };
        ring.check()?;
        Ok(ring)
    }

    /// Looks at every word that is used, once, so that later none can be missing; and puts the
    /// submission of each number at the place of that number, for good.
    fn check(&self) -> Result<(), i32> {
        let (sq, cq) = (&self.params.submission_offsets, &self.params.completion_offsets);
        for offset in [sq.head, sq.tail, sq.flags, cq.head, cq.tail] {
            self.rings.word(offset as usize)?;
        }
        let powers = [self.params.submissions, self.params.completions];
        if !powers.into_iter().all(u32::is_power_of_two) {
            return Err(libc::EPROTO);
        }
        for number in 0..self.params.submissions {
            let offset = sq.array as usize + number as usize * size_of::<u32>();
            self.rings.word(offset)?.store(number, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A word that [`Ring::check`] has seen.
    fn word(&self, offset: u32) -> &AtomicU32 {
        static NONE: AtomicU32 = AtomicU32::new(0);
        self.rings.word(offset as usize).unwrap_or(&NONE)
    }

    fn polls_submissions(&self) -> bool {
        self.params.flags & abi::SETUP_SQPOLL != 0
    }

    fn submission_flags(&self) -> u32 {
        self.word(self.params.submission_offsets.flags).load(Ordering::Acquire)
    }

    /// Submissions that the kernel has not taken yet.
    pub(crate) fn unsubmitted(&self) -> u32 {
        let head = self.word(self.params.submission_offsets.head).load(Ordering::Acquire);
        self.tail.wrapping_sub(head)
    }

    /// Whether the kernel holds completions back until the next system call.
    pub(crate) fn holds_back(&self) -> bool {
        self.submission_flags() & abi::SQ_TASKRUN != 0
    }

    /// Puts a submission into its ring; `false` where it is full.
    ///
    /// # Safety
    /// The memory that it names may be written to until its completion has come.
    pub(crate) unsafe fn push(&mut self, submission: &Submission) -> bool {
        if self.unsubmitted() >= self.params.submissions {
            return false;
        }
        let number = self.tail & (self.params.submissions - 1);
        // SAFETY: the place is free: the kernel is past it, and not told of it before the store below.
        unsafe { self.submissions.write(number as usize * size_of::<Submission>(), *submission) };
        self.tail = self.tail.wrapping_add(1);
        self.word(self.params.submission_offsets.tail).store(self.tail, Ordering::Release);
        true
    }

    /// Hands over what is in the submission ring, and waits for so many completions.
    ///
    /// # Errors
    /// The error number.
    pub(crate) fn submit_and_wait(&self, wanted: u32) -> Result<(), i32> {
        let mut flags = 0;
        if self.polls_submissions() {
            // The thread's going to sleep and our new tail: one of us two must see the other's.
            fence(Ordering::SeqCst);
        }
        let kernel = self.submission_flags();
        if wanted > 0
            || self.params.flags & abi::SETUP_IOPOLL != 0
            || kernel & (abi::SQ_TASKRUN | abi::SQ_CQ_OVERFLOW) != 0
        {
            flags |= abi::ENTER_GETEVENTS;
        }
        if self.polls_submissions() {
            if kernel & abi::SQ_NEED_WAKEUP != 0 {
                flags |= abi::ENTER_SQ_WAKEUP;
            } else if flags == 0 {
                return Ok(()); // the kernel's thread sees them by itself
            }
        }
        self.enter(self.unsubmitted(), wanted, flags)
    }

    /// Waits until the submission ring has a free place, where a thread of the kernel empties it.
    ///
    /// # Errors
    /// The error number.
    fn wait_for_place(&self) -> Result<(), i32> {
        self.enter(0, 0, abi::ENTER_SQ_WAIT)
    }

    fn enter(&self, submissions: u32, wanted: u32, flags: u32) -> Result<(), i32> {
        let signals = core::ptr::null::<libc::sigset_t>();
        // SAFETY: the descriptor is the ring's; what was submitted is in order by `push`'s contract.
        let entered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                libc::c_long::from(self.descriptor.0),
                libc::c_long::from(submissions),
                libc::c_long::from(wanted),
                libc::c_long::from(flags),
                signals,
                0_usize,
            )
        };
        if entered < 0 { Err(errno()) } else { Ok(()) }
    }

    /// Makes room in the submission ring, which is full only with what was never handed over.
    ///
    /// # Errors
    /// The error number.
    pub(crate) fn make_room(&self) -> Result<(), i32> {
        self.submit_and_wait(0)?;
        if self.polls_submissions() { self.wait_for_place() } else { Ok(()) }
    }

    /// Takes a completion that is posted already.
    pub(crate) fn completion(&mut self) -> Option<Completion> {
        let offsets = self.params.completion_offsets;
        let tail = self.word(offsets.tail).load(Ordering::Acquire);
        if self.head == tail {
            return None;
        }
        let number = (self.head & (self.params.completions - 1)) as usize;
        let offset = offsets.completions as usize + number * size_of::<Completion>();
        // SAFETY: the kernel has told of it by the tail, and does not write there again before it is
        // told by the head; any bits are a completion.
        let completion = unsafe { self.rings.read::<Completion>(offset) };
        self.head = self.head.wrapping_add(1);
        self.word(offsets.head).store(self.head, Ordering::Release);
        completion
    }

    /// Registers a file: it gets the number 0.
    fn register_file(&self, fd: libc::c_int) -> Result<(), i32> {
        self.register(abi::REGISTER_FILES, (&raw const fd).cast(), 1)
    }

    /// Registers memory: it gets the number 0.
    ///
    /// # Errors
    /// The error number; `ENOMEM` where it is more than may be locked.
    pub(crate) fn register_buffer(&self, base: *mut u8, bytes: usize) -> Result<(), i32> {
        let buffer = libc::iovec { iov_base: base.cast(), iov_len: bytes };
        self.register(abi::REGISTER_BUFFERS, (&raw const buffer).cast(), 1)
    }

    /// Gives up what is registered, now: closing the ring does it some time later, and until then the
    /// file is open and the memory locked. Nothing is in flight.
    pub(crate) fn unregister(&self) {
        for kind in [abi::UNREGISTER_BUFFERS, abi::UNREGISTER_FILES] {
            // An error says that nothing was registered.
            let _ = self.register(kind, core::ptr::null(), 0);
        }
    }

    /// Registers one of something, or nothing any more; `what` is read during the call only.
    fn register(
        &self,
        kind: u32,
        what: *const libc::c_void,
        count: libc::c_long,
    ) -> Result<(), i32> {
        let (ring, kind) = (libc::c_long::from(self.descriptor.0), libc::c_long::from(kind));
        // SAFETY: callers give one descriptor or one iovec, of their own, as `kind` says, or none. To
        // register memory only pins its pages: it is written by reads alone, whose contract `push` has.
        let done = unsafe { libc::syscall(libc::SYS_io_uring_register, ring, kind, what, count) };
        if done < 0 { Err(errno()) } else { Ok(()) }
    }
}
