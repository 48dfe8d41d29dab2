//! Reads in flight: the seam between deciding and doing.
//!
//! A [`ReadQueue`] owns the staging area and fills it. Reads are submitted, completions are taken
//! when the caller asks for them: nothing calls back. Everything above this trait runs unchanged on
//! the [`simulated`] device.

use core::fmt;

pub mod simulated;

/// Where time comes from.
pub trait Clock {
    /// Nanoseconds since some fixed moment; never falls.
    fn now_ns(&self) -> u64;
}

/// One read, into the staging area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// First byte, from the start of the file; a multiple of the block.
    pub file_offset: u64,
    /// Length, bytes; a multiple of the block.
    pub bytes: u32,
    /// Where it goes, from the start of the staging area; a multiple of the block.
    pub staging_offset: usize,
    /// Comes back with the completion.
    pub tag: u32,
}

/// A read that is done: all of its bytes are in the staging area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The tag of the read.
    pub tag: u32,
}

/// What went wrong with a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadFailure {
    /// As many reads are in flight as the queue takes.
    QueueFull,
    /// No read is in flight.
    QueueEmpty,
    /// The read does not fit into the staging area.
    OutsideStaging,
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
    pub const fn of(read: &Read, failure: ReadFailure) -> Self {
        Self { failure, file_offset: read.file_offset, bytes: read.bytes }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read of {} bytes at byte {}: ", self.bytes, self.file_offset)?;
        match self.failure {
            ReadFailure::QueueFull => f.write_str("the queue is full"),
            ReadFailure::QueueEmpty => f.write_str("no read is in flight"),
            ReadFailure::OutsideStaging => f.write_str("does not fit into the staging area"),
            ReadFailure::Short { found } => write!(f, "only {found} bytes came"),
            ReadFailure::System { errno } => write!(f, "the system refused it (errno {errno})"),
        }
    }
}

impl core::error::Error for ReadError {}

/// A device with several reads in flight.
pub trait ReadQueue: Clock {
    /// Most reads in flight.
    fn depth(&self) -> u32;

    /// Reads submitted and not yet completed.
    fn in_flight(&self) -> u32;

    /// Puts a read into the queue. It may wait there until [`ReadQueue::complete`] is called.
    ///
    /// # Errors
    /// [`ReadFailure::QueueFull`], [`ReadFailure::OutsideStaging`], or what the system says.
    fn submit(&mut self, read: &Read) -> Result<(), ReadError>;

    /// Hands over what waits, and gives the next completion, in any order; waits for it.
    ///
    /// # Errors
    /// [`ReadFailure::QueueEmpty`] where nothing is in flight; else the read that failed, which is
    /// then no longer in flight.
    fn complete(&mut self) -> Result<Completion, ReadError>;

    /// The staging area; `None` while a read is in flight, because the device then writes there.
    fn staging(&self) -> Option<&[u8]>;

    /// Takes completions until nothing is in flight.
    ///
    /// # Errors
    /// The first read that failed; the rest is drained all the same.
    fn drain(&mut self) -> Result<(), ReadError> {
        let mut result = Ok(());
        while self.in_flight() > 0 {
            let completion = self.complete();
            result = result.and(completion.map(|_| ()));
        }
        result
    }
}

impl<Q: ReadQueue + ?Sized> Clock for &mut Q {
    fn now_ns(&self) -> u64 {
        (**self).now_ns()
    }
}

impl<Q: ReadQueue + ?Sized> ReadQueue for &mut Q {
    fn depth(&self) -> u32 {
        (**self).depth()
    }
    fn in_flight(&self) -> u32 {
        (**self).in_flight()
    }
    fn submit(&mut self, read: &Read) -> Result<(), ReadError> {
        (**self).submit(read)
    }
    fn complete(&mut self) -> Result<Completion, ReadError> {
        (**self).complete()
    }
    fn staging(&self) -> Option<&[u8]> {
        (**self).staging()
    }
}

/// The bytes of the staging area that a read fills.
///
/// # Errors
/// [`ReadFailure::OutsideStaging`].
pub(crate) fn staging_range(
    read: &Read,
    staging_bytes: usize,
) -> Result<core::ops::Range<usize>, ReadError> {
    let end = read.staging_offset.checked_add(read.bytes as usize);
    match end {
        Some(end) if end <= staging_bytes => Ok(read.staging_offset..end),
        _ => Err(ReadError::of(read, ReadFailure::OutsideStaging)),
    }
}
