//! Reads in flight: the seam between deciding and doing.
//!
//! A [`ReadQueue`] fills buffers of the staging area, each under a [`Lease`] that it holds while the
//! read is in flight. Reads are submitted, completions are taken when the caller asks for them:
//! nothing calls back. Everything above this trait runs unchanged on the [`simulated`] device.

use core::fmt;

use crate::arena::Lease;
use crate::limits::{SUBMIT_EARLY_PARTS, SUBMIT_EARLY_READS_MIN};

mod feeder;
mod logged;
pub mod simulated;

pub use feeder::{Feeder, drain, turn};
pub use logged::{Logged, ReadLog, ReadNote};

/// Where time comes from.
pub trait Clock {
    /// Nanoseconds since some fixed moment; never falls.
    fn now_ns(&self) -> u64;
}

/// One read, into a buffer of the staging area.
#[derive(Debug)]
pub struct Read<'a> {
    /// First byte, from the start of the file; a multiple of the block.
    pub file_offset: u64,
    /// Where it goes, and how long it is: a multiple of the block.
    pub lease: Lease<'a>,
    /// Comes back with the completion.
    pub tag: u32,
}

/// A read that is over. Its buffer is ready where it succeeded, else free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The tag of the read.
    pub tag: u32,
    /// How it ended.
    pub result: Result<(), ReadError>,
}

impl Completion {
    /// Ends a read: marks its buffer ready where it succeeded, else free.
    pub fn of(read: Read<'_>, result: Result<(), ReadFailure>) -> Self {
        let result = result.map_err(|failure| ReadError::of(&read, failure));
        let Read { lease, tag, .. } = read;
        if result.is_ok() {
            lease.filled();
        }
        Self { tag, result }
    }
}

/// What went wrong with a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadFailure {
    /// As many reads are in flight as the queue takes.
    QueueFull,
    /// No buffer of the staging area is free for it.
    NoBuffer,
    /// The device ended before the read did.
    Short {
        /// Bytes that came.
        found: u32,
    },
    /// The system refused it.
    System {
        /// The error number (errno).
        errno: i32,
    },
}

/// A read that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// What happened.
    pub failure: ReadFailure,
    /// Where the read begins in the file.
    pub file_offset: u64,
    /// Its length, bytes.
    pub bytes: u32,
}

impl ReadError {
    /// An error of a read.
    pub fn of(read: &Read<'_>, failure: ReadFailure) -> Self {
        Self { failure, file_offset: read.file_offset, bytes: read.lease.bytes() }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read of {} bytes at byte {}: ", self.bytes, self.file_offset)?;
        match self.failure {
            ReadFailure::QueueFull => f.write_str("the queue is full"),
            ReadFailure::NoBuffer => f.write_str("no buffer of the staging area is free for it"),
            ReadFailure::Short { found } => write!(f, "only {found} bytes came"),
            ReadFailure::System { errno } => write!(f, "the system refused it (errno {errno})"),
        }
    }
}

impl core::error::Error for ReadError {}

/// A device with several reads in flight, into memory that lives for `'a`.
///
/// **When a read starts.** [`ReadQueue::submit`] puts it into the queue; the device begins with it when
/// it is *handed over*, together with all that wait with it. That happens, whichever comes first,
///
/// - in `submit` itself, once [`early_reads`] of them wait: the device works while the rest of a batch is
///   still being prepared;
/// - in [`ReadQueue::poll`], where nothing that is in flight has been handed over: the device would idle;
/// - in [`ReadQueue::flush`], and in [`ReadQueue::wait`].
///
/// A queue that reads only while it is waited for ([`ReadQueue::reads_in_background`]) begins with a read
/// then.
pub trait ReadQueue<'a> {
    /// Most reads in flight.
    fn depth(&self) -> u32;

    /// Reads submitted whose completion was not taken yet.
    fn in_flight(&self) -> u32;

    /// Whether reads go on while nobody waits for them. Where they do not, prefetching gains nothing,
    /// and is not done.
    fn reads_in_background(&self) -> bool;

    /// Puts a read into the queue.
    ///
    /// # Errors
    /// [`ReadFailure::QueueFull`], or what the system says; the read's buffer is then free again.
    fn submit(&mut self, read: Read<'a>) -> Result<(), ReadError>;

    /// Hands over what waits in the queue, without waiting for anything.
    fn flush(&mut self);

    /// A completion that is there already, in any order; `None` where there is none yet.
    fn poll(&mut self) -> Option<Completion>;

    /// Hands over what waits in the queue, and waits for the next completion, in any order; `None`
    /// where nothing is in flight.
    fn wait(&mut self) -> Option<Completion>;

    /// Told at the end of a batch, when nothing is in flight: what the device law has its `t0` for
    /// passes here on a device whose time is simulated. Real ones have taken it by then.
    fn end_batch(&mut self);

    /// The log of its reads, where it keeps one: [`Logged`] does.
    fn log(&mut self) -> Option<&mut ReadLog<'a>> {
        None
    }
}

/// A queue that knows the time.
pub trait TimedQueue<'a>: ReadQueue<'a> + Clock {}
impl<'a, Q: ReadQueue<'a> + Clock + ?Sized> TimedQueue<'a> for Q {}

/// Reads that are handed over without waiting for more of their batch, for a queue of this depth: a part of
/// it, but enough that a system call for them costs less than it gains.
pub const fn early_reads(depth: u32) -> u32 {
    let part = depth / SUBMIT_EARLY_PARTS;
    if part > SUBMIT_EARLY_READS_MIN { part } else { SUBMIT_EARLY_READS_MIN }
}

/// Implements [`Clock`] and [`ReadQueue`] for a queue that is one of several: every call goes on to what the
/// method `$one` gives, or `$one_mut`. The one place where the methods are listed once more.
///
/// `forward_read_queue!(impl ['a] ReadQueue<'a> for Either<'a>, one, one_mut);`
#[macro_export]
macro_rules! forward_read_queue {
    (impl [$($generic:tt)*] ReadQueue<$life:lifetime> for $queue:ty, $one:ident, $one_mut:ident) => {
        impl<$($generic)*> $crate::queue::Clock for $queue {
            fn now_ns(&self) -> u64 {
                $crate::queue::Clock::now_ns(self.$one())
            }
        }

        impl<$($generic)*> $crate::queue::ReadQueue<$life> for $queue {
            fn depth(&self) -> u32 {
                self.$one().depth()
            }
            fn in_flight(&self) -> u32 {
                self.$one().in_flight()
            }
            fn reads_in_background(&self) -> bool {
                self.$one().reads_in_background()
            }
            fn submit(
                &mut self,
                read: $crate::queue::Read<$life>,
            ) -> Result<(), $crate::queue::ReadError> {
                self.$one_mut().submit(read)
            }
            fn flush(&mut self) {
                self.$one_mut().flush();
            }
            fn poll(&mut self) -> Option<$crate::queue::Completion> {
                self.$one_mut().poll()
            }
            fn wait(&mut self) -> Option<$crate::queue::Completion> {
                self.$one_mut().wait()
            }
            fn end_batch(&mut self) {
                self.$one_mut().end_batch();
            }
            fn log(&mut self) -> Option<&mut $crate::queue::ReadLog<$life>> {
                self.$one_mut().log()
            }
        }
    };
}
