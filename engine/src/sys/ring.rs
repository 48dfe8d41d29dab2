//! How a ring is set up: what the kernel has, and what the caller asked for as far as the device takes
//! it.
//!
//! Rings are not bound to one thread (`IORING_SETUP_SINGLE_ISSUER`, and `DEFER_TASKRUN`, which needs
//! it): a queue is `Send`, and an engine that was opened on one thread may be used on another. What is
//! used instead is `COOP_TASKRUN`: the kernel does not interrupt the thread that computes
//! for each completion, but leaves a flag that says that some wait to be collected.

use io_uring::{IoUring, opcode, types};

use super::DirectFile;
use crate::limits::{SUBMISSION_POLL_IDLE_MS, WAIT_RETRIES_MAX};

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
pub(super) struct Ring {
    pub(super) ring: IoUring,
    pub(super) polling: Polling,
    pub(super) refused: Option<i32>,
}

/// Sets up a ring on a file; without polling where the kernel or the device refuses it.
///
/// # Errors
/// The error number where the system has no io_uring.
pub(super) fn open(file: &DirectFile, depth: u32, polling: Polling) -> Result<Ring, i32> {
    let refused = match open_with(file, depth, polling) {
        Ok(ring) => return Ok(Ring { ring, polling, refused: None }),
        Err(errno) if polling == Polling::None => return Err(errno),
        Err(errno) => errno,
    };
    let ring = open_with(file, depth, Polling::None)?;
    Ok(Ring { ring, polling: Polling::None, refused: Some(refused) })
}

fn open_with(file: &DirectFile, depth: u32, polling: Polling) -> Result<IoUring, i32> {
    let mut builder = IoUring::builder();
    let built = match polling {
        Polling::None => match builder.setup_coop_taskrun().setup_taskrun_flag().build(depth) {
            // before Linux 5.19
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                IoUring::builder().build(depth)
            }
            built => built,
        },
        Polling::Completion => builder.setup_iopoll().build(depth),
        Polling::Submission => builder.setup_sqpoll(SUBMISSION_POLL_IDLE_MS).build(depth),
    };
    let mut ring = built.map_err(errno)?;
    ring.submitter().register_files(&[file.fd()]).map_err(errno)?;
    if polling == Polling::Completion {
        // Whether a device can be polled shows with the first read only.
        try_read(&mut ring)?;
    }
    Ok(ring)
}

/// The number of a system's error.
pub(super) fn errno(error: std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

const TRIAL_BYTES: u32 = 4096;

/// Memory for one read, aligned for every device we know.
#[repr(align(4096))]
struct TrialBlock([u8; TRIAL_BYTES as usize]);

/// Reads the start of the registered file into memory of its own.
fn try_read(ring: &mut IoUring) -> Result<(), i32> {
    let mut block = Box::new(TrialBlock([0; TRIAL_BYTES as usize]));
    let entry = opcode::Read::new(types::Fixed(0), block.0.as_mut_ptr(), TRIAL_BYTES).build();
    // SAFETY: the memory is given back only after the completion has come, and leaked if that never
    // happens.
    let pushed = unsafe { ring.submission().push(&entry) };
    pushed.map_err(|_| libc::EBUSY)?;
    for _ in 0..WAIT_RETRIES_MAX {
        let waited = ring.submit_and_wait(1).map_err(errno);
        if let Some(found) = ring.completion().next() {
            return if found.result() < 0 { Err(-found.result()) } else { Ok(()) };
        }
        if let Err(error) = waited
            && !matches!(error, libc::EINTR | libc::EAGAIN | libc::EBUSY)
        {
            Box::leak(block);
            return Err(error);
        }
    }
    Box::leak(block);
    Err(libc::EAGAIN)
}
