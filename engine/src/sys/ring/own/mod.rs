//! A ring over plain system calls: nothing but libc, for programs without std.

mod abi;
mod mapping;

use core::sync::atomic::fence;

use zerocopy::FromZeros;

use super::super::{broken, errno};
use super::{Polling, Ring, RingCompletion, RingRead};
use crate::limits::SUBMISSION_POLL_IDLE_MS;
use crate::sync::{AtomicU32, Ordering};
use abi::{Completion, Params, Submission};
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

#[derive(Debug)]
pub(crate) struct OwnRing {
    descriptor: Descriptor,
    rings: Mapping,
    submissions: Mapping,
    params: Params,
    /// Next free place for a submission.
    tail: u32,
    /// Next completion to take.
    head: u32,
}

impl OwnRing {
    fn set_up(depth: u32, flags: u32, thread_idle_ms: u32) -> Result<Self, i32> {
        let mut params = Params { flags, thread_idle_ms, ..Params::default() };
        // SAFETY: the kernel reads and writes a `Params`, whose layout is the kernel's (a test compares
        // them), during the call only; nobody else has this one.
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

    /// A word that [`OwnRing::check`] has seen.
    fn word(&self, offset: u32) -> &AtomicU32 {
        match self.rings.word(offset as usize) {
            Ok(word) => word,
            Err(_) => broken(c"a ring's words stay within its mapping"),
        }
    }

    fn polls_submissions(&self) -> bool {
        self.params.flags & abi::SETUP_SQPOLL != 0
    }

    fn submission_flags(&self) -> u32 {
        self.word(self.params.submission_offsets.flags).load(Ordering::Acquire)
    }

    fn left(&self) -> u32 {
        let head = self.word(self.params.submission_offsets.head).load(Ordering::Acquire);
        self.tail.wrapping_sub(head)
    }

    fn enter(&self, submissions: u32, wanted: u32, flags: u32) -> Result<(), i32> {
        let signals = core::ptr::null::<libc::sigset_t>();
        // SAFETY: numbers, and no signals to be read. What the kernel then writes to are the mappings,
        // which are reached as it expects, and the memory of submissions, which callers of `push` have
        // left to it until the completion.
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

    /// Registers one of something, or nothing any more; `what` is read during the call only.
    ///
    /// # Safety
    /// `what` is of `count` values of the kind: descriptors for files, `iovec`s of mapped memory for
    /// buffers.
    unsafe fn register<T>(&self, kind: u32, what: *const T, count: usize) -> Result<(), i32> {
        let (ring, kind) = (libc::c_long::from(self.descriptor.0), libc::c_long::from(kind));
        let count = count as libc::c_long;
        // SAFETY: the kernel reads `count` values of the kind, which the caller says are there, during
        // the call only.
        let done = unsafe { libc::syscall(libc::SYS_io_uring_register, ring, kind, what, count) };
        if done < 0 { Err(errno()) } else { Ok(()) }
    }
}

impl Ring for OwnRing {
    fn new(depth: u32, polling: Polling, cooperative: bool) -> Result<Self, i32> {
        let (flags, thread_idle_ms) = match polling {
            Polling::None if cooperative => (abi::SETUP_COOP_TASKRUN | abi::SETUP_TASKRUN_FLAG, 0),
            Polling::None => (0, 0),
            Polling::Completion => (abi::SETUP_IOPOLL, 0),
            Polling::Submission => (abi::SETUP_SQPOLL, SUBMISSION_POLL_IDLE_MS),
        };
        Self::set_up(depth, flags, thread_idle_ms)
    }

    fn register_file(&mut self, fd: libc::c_int) -> Result<(), i32> {
        // SAFETY: one descriptor, for files; whether it is open is for the kernel to say.
        unsafe { self.register(abi::REGISTER_FILES, &raw const fd, 1) }
    }

    unsafe fn register_buffer(&mut self, base: *mut u8, bytes: usize) -> Result<(), i32> {
        let buffer = libc::iovec { iov_base: base.cast(), iov_len: bytes };
        // SAFETY: one iovec, for buffers, of memory that this function's caller says is mapped.
        unsafe { self.register(abi::REGISTER_BUFFERS, &raw const buffer, 1) }
    }

    fn unregister(&mut self) {
        for kind in [abi::UNREGISTER_BUFFERS, abi::UNREGISTER_FILES] {
            // An error says that nothing was registered.
            // SAFETY: no values, so nothing is read.
            let _ = unsafe { self.register::<u8>(kind, core::ptr::null(), 0) };
        }
    }

    fn unsubmitted(&mut self) -> u32 {
        self.left()
    }

    fn holds_back(&mut self) -> bool {
        self.submission_flags() & abi::SQ_TASKRUN != 0
    }

    unsafe fn push(&mut self, read: &RingRead) -> bool {
        if self.left() >= self.params.submissions {
            return false;
        }
        let submission = Submission {
            opcode: if read.registered { abi::OP_READ_FIXED } else { abi::OP_READ },
            flags: abi::FIXED_FILE,
            file_offset: read.file_offset,
            address: read.memory.expose_provenance() as u64,
            bytes: read.bytes,
            tag: read.tag.into(),
            ..Submission::new_zeroed()
        };
        let number = self.tail & (self.params.submissions - 1);
        let place = number as usize * size_of::<Submission>();
        // SAFETY: the place is free: the kernel is past it, and not told of it before the store below.
        let written = unsafe { self.submissions.write(place, submission) };
        if !written {
            broken(c"a ring has a place for each submission");
        }
        self.tail = self.tail.wrapping_add(1);
        self.word(self.params.submission_offsets.tail).store(self.tail, Ordering::Release);
        true
    }

    fn submit_and_wait(&mut self, wanted: u32) -> Result<(), i32> {
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
        self.enter(self.left(), wanted, flags)
    }

    fn wait_for_place(&mut self) -> Result<(), i32> {
        self.enter(0, 0, abi::ENTER_SQ_WAIT)
    }

    fn completion(&mut self) -> Option<RingCompletion> {
        let offsets = self.params.completion_offsets;
        let tail = self.word(offsets.tail).load(Ordering::Acquire);
        if self.head == tail {
            return None;
        }
        let number = (self.head & (self.params.completions - 1)) as usize;
        let offset = offsets.completions as usize + number * size_of::<Completion>();
        // SAFETY: the kernel has told of it by the tail, and does not write there again before it is
        // told by the head; any bits are a completion.
        let found = unsafe { self.rings.read::<Completion>(offset) };
        let Some(found) = found else { broken(c"a ring has a place for each completion") };
        self.head = self.head.wrapping_add(1);
        self.word(offsets.head).store(self.head, Ordering::Release);
        Some(RingCompletion { tag: found.tag as u16, result: found.result })
    }
}
