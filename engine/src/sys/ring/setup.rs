//! How a ring is set up: what the kernel has, and what the caller asked for as far as the device takes
//! it.
//!
//! Rings are not bound to one thread (`IORING_SETUP_SINGLE_ISSUER`, and `DEFER_TASKRUN`, which needs
//! it): a queue is `Send`, and an engine that was opened on one thread may be used on another. What is
//! used instead is `COOP_TASKRUN`: the kernel does not interrupt the thread that computes
//! for each completion, but leaves a flag that says that some wait to be collected.

use super::super::DirectFile;
use super::{Ring, RingRead};
use crate::arena::StagingMemory;
use crate::limits::WAIT_RETRIES_MAX;

/// Who looks for work instead of being woken for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Polling {
    /// Nobody: the device interrupts, the caller makes system calls.
    #[default]
    None,
    /// The caller asks the device for completions (`IORING_SETUP_IOPOLL`): for devices whose driver has
    /// poll queues, and direct reads.
    Completion,
    /// A thread of the kernel takes submissions (`IORING_SETUP_SQPOLL`): no system call a batch, for a
    /// core that is busy with it.
    Submission,
}

impl Polling {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Completion => "completion",
            Self::Submission => "submission",
        }
    }
}

/// A ring with the file registered, and why it does not poll as asked for (errno).
pub(crate) struct Opened<R> {
    pub(crate) ring: R,
    pub(crate) polling: Polling,
    pub(crate) refused: Option<i32>,
}

/// Sets up a ring on a file; without polling where the kernel or the device refuses it. Nothing is in
/// flight afterwards; `staging` may have been written to.
///
/// # Safety
/// Nobody else touches `staging` during the call.
///
/// # Errors
/// The error number where the system has no io_uring.
pub(crate) unsafe fn open<R: Ring>(
    file: &DirectFile,
    staging: StagingMemory<'_>,
    depth: u32,
    polling: Polling,
) -> Result<Opened<R>, i32> {
    // SAFETY: nobody else touches `staging` during this call, which outlasts that one.
    let refused = match unsafe { open_with(file, staging, depth, polling) } {
        Ok(ring) => return Ok(Opened { ring, polling, refused: None }),
        Err(errno) if polling == Polling::None => return Err(errno),
        Err(errno) => errno,
    };
    // SAFETY: nor does anybody now: the attempt that failed has nothing in flight when it returns.
    let ring = unsafe { open_with(file, staging, depth, Polling::None) }?;
    Ok(Opened { ring, polling: Polling::None, refused: Some(refused) })
}

/// # Safety
/// Nobody else touches `staging` during the call.
unsafe fn open_with<R: Ring>(
    file: &DirectFile,
    staging: StagingMemory<'_>,
    depth: u32,
    polling: Polling,
) -> Result<R, i32> {
    let mut ring = match R::new(depth, polling, true) {
        // before Linux 5.19
        Err(libc::EINVAL) if polling == Polling::None => R::new(depth, polling, false),
        made => made,
    }?;
    ring.register_file(file.fd())?;
    if polling == Polling::Completion {
        // Whether a device can be polled shows with the first read only.
        // SAFETY: nobody else touches `staging` during this call, which outlasts that one.
        unsafe { try_read(&mut ring, staging) }?;
    }
    Ok(ring)
}

/// Bytes of the trial: what every device takes.
const TRIAL_BYTES: usize = 4096;

/// Reads the start of the registered file into the staging area.
///
/// Ends the process where the kernel lets us wait no more: it still writes into memory that will be
/// given back.
///
/// # Safety
/// Nobody else touches `staging` during the call.
unsafe fn try_read<R: Ring>(ring: &mut R, staging: StagingMemory<'_>) -> Result<(), i32> {
    let read = RingRead {
        file_offset: 0,
        memory: staging.base(),
        bytes: staging.bytes().min(TRIAL_BYTES) as u32,
        registered: false,
        tag: 0,
    };
    // SAFETY: nobody else touches the memory, and this function ends only with the completion.
    if !unsafe { ring.push(&read) } {
        return Err(libc::EBUSY);
    }
    for _ in 0..WAIT_RETRIES_MAX {
        let waited = ring.submit_and_wait(1);
        if let Some(found) = ring.completion() {
            return if found.result < 0 { Err(-found.result) } else { Ok(()) };
        }
        match waited {
            Ok(()) | Err(libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
            // It was never taken: the kernel refuses the whole submission.
            Err(errno) if ring.unsubmitted() > 0 => return Err(errno),
            Err(_) => break,
        }
    }
    super::super::broken(c"the kernel gives a probing read back")
}
