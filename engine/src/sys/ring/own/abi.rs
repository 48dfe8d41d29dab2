//! The kernel's interface of io_uring: what `linux/io_uring.h` says, as far as it is used.
//!
//! A test compiles that header and compares sizes, offsets and numbers (`abi_tests.rs`).

use zerocopy::{FromZeros, Immutable, IntoBytes};

/// A read into memory of a registered buffer (Linux 5.1).
pub(crate) const OP_READ_FIXED: u8 = 4;
/// A read into any memory (Linux 5.6).
pub(crate) const OP_READ: u8 = 22;
/// [`Submission::flags`]: `fd` is the number of a registered file.
pub(crate) const FIXED_FILE: u8 = 1 << 0;

/// [`Params::flags`]: completions are polled for.
pub(crate) const SETUP_IOPOLL: u32 = 1 << 0;
/// [`Params::flags`]: a thread of the kernel takes submissions.
pub(crate) const SETUP_SQPOLL: u32 = 1 << 1;
/// [`Params::flags`]: the kernel does not interrupt the submitting thread (Linux 5.19).
pub(crate) const SETUP_COOP_TASKRUN: u32 = 1 << 8;
/// [`Params::flags`]: [`SQ_TASKRUN`] tells what the kernel holds back (Linux 5.19).
pub(crate) const SETUP_TASKRUN_FLAG: u32 = 1 << 9;
/// [`Params::features`]: both rings lie in one mapping (Linux 5.4).
pub(crate) const FEATURE_SINGLE_MMAP: u32 = 1 << 0;

/// [`Params::features`]: reads at the current position; what counts is that [`OP_READ`] came with it
/// (Linux 5.6).
pub(crate) const FEATURE_RW_CUR_POS: u32 = 1 << 3;

/// Flag of the submission ring: the kernel's thread sleeps.
pub(crate) const SQ_NEED_WAKEUP: u32 = 1 << 0;
/// Flag of the submission ring: completions did not fit their ring.
pub(crate) const SQ_CQ_OVERFLOW: u32 = 1 << 1;
/// Flag of the submission ring: completions are held back until a system call.
pub(crate) const SQ_TASKRUN: u32 = 1 << 2;

/// `io_uring_enter`: waits for, or collects, completions.
pub(crate) const ENTER_GETEVENTS: u32 = 1 << 0;
/// `io_uring_enter`: wakes the kernel's thread.
pub(crate) const ENTER_SQ_WAKEUP: u32 = 1 << 1;
/// `io_uring_enter`: waits until the submission ring has a free place (Linux 5.10).
pub(crate) const ENTER_SQ_WAIT: u32 = 1 << 2;

/// `io_uring_register`: buffers.
pub(crate) const REGISTER_BUFFERS: u32 = 0;
/// `io_uring_register`: no buffers any more.
pub(crate) const UNREGISTER_BUFFERS: u32 = 1;
/// `io_uring_register`: no files any more.
pub(crate) const UNREGISTER_FILES: u32 = 3;
/// `io_uring_register`: files.
pub(crate) const REGISTER_FILES: u32 = 2;

/// Where the mapping of the rings begins, as an offset for `mmap`.
pub(crate) const OFFSET_RINGS: i64 = 0;
/// Where the mapping of the submissions begins.
pub(crate) const OFFSET_SUBMISSIONS: i64 = 0x1000_0000;

/// `struct io_sqring_offsets`: where in the mapping the parts of the submission ring are, bytes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct SubmissionOffsets {
    /// Of the next submission that the kernel will take: the kernel's.
    pub(crate) head: u32,
    /// Of the next free place: ours.
    pub(crate) tail: u32,
    /// Places less one.
    pub(crate) ring_mask: u32,
    /// Places.
    pub(crate) ring_entries: u32,
    /// `SQ_...`: the kernel's.
    pub(crate) flags: u32,
    /// Submissions that made no sense.
    pub(crate) dropped: u32,
    /// Numbers of the submissions, by place.
    pub(crate) array: u32,
    /// Spare.
    pub(crate) reserved: u32,
    /// Where the caller's memory is, if it is the caller's.
    pub(crate) user_address: u64,
}

/// `struct io_cqring_offsets`: the same for the completion ring.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct CompletionOffsets {
    /// Of the next completion that we will take: ours.
    pub(crate) head: u32,
    /// Of the next that the kernel will post: the kernel's.
    pub(crate) tail: u32,
    /// Places less one.
    pub(crate) ring_mask: u32,
    /// Places.
    pub(crate) ring_entries: u32,
    /// Completions that did not fit.
    pub(crate) overflow: u32,
    /// The completions.
    pub(crate) completions: u32,
    /// `CQ_...`: ours.
    pub(crate) flags: u32,
    /// Spare.
    pub(crate) reserved: u32,
    /// Where the caller's memory is, if it is the caller's.
    pub(crate) user_address: u64,
}

/// `struct io_uring_params`: what a ring is asked to be, and what it is.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Params {
    /// Places for submissions.
    pub(crate) submissions: u32,
    /// Places for completions.
    pub(crate) completions: u32,
    /// `SETUP_...`
    pub(crate) flags: u32,
    /// CPU of the kernel's thread.
    pub(crate) thread_cpu: u32,
    /// How long the kernel's thread looks for submissions, milliseconds.
    pub(crate) thread_idle_ms: u32,
    /// `FEATURE_...`
    pub(crate) features: u32,
    /// A ring to share the kernel's threads with.
    pub(crate) shared_ring: u32,
    /// Spare.
    pub(crate) reserved: [u32; 3],
    /// Where things are.
    pub(crate) submission_offsets: SubmissionOffsets,
    /// Where things are.
    pub(crate) completion_offsets: CompletionOffsets,
}

/// `struct io_uring_sqe`: a read to be done.
#[derive(Clone, Copy, Debug, FromZeros, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Submission {
    /// `OP_...`
    pub(crate) opcode: u8,
    /// [`FIXED_FILE`]
    pub(crate) flags: u8,
    /// Priority.
    pub(crate) priority: u16,
    /// The file, or its number among the registered.
    pub(crate) fd: i32,
    /// Where to read from, bytes.
    pub(crate) file_offset: u64,
    /// Where to read to.
    pub(crate) address: u64,
    /// How many bytes.
    pub(crate) bytes: u32,
    /// As for `preadv2`.
    pub(crate) read_flags: u32,
    /// Comes back with the completion.
    pub(crate) tag: u64,
    /// Number of the registered buffer.
    pub(crate) buffer: u16,
    /// Credentials.
    pub(crate) personality: u16,
    /// Not for reads.
    pub(crate) splice_fd: i32,
    /// Not for reads.
    pub(crate) more: [u64; 2],
}

/// `struct io_uring_cqe`: a read that is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Completion {
    /// What the submission said.
    pub(crate) tag: u64,
    /// Bytes read, or the error's number, negative.
    pub(crate) result: i32,
    /// Not for reads.
    pub(crate) flags: u32,
}

const _: () = assert!(size_of::<Params>() == 120);
const _: () = assert!(size_of::<Submission>() == 64);
const _: () = assert!(size_of::<Completion>() == 16);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "abi_tests.rs"]
mod tests;
