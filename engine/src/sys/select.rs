//! Which back end: io_uring where the kernel has it, else pread, and why.

use core::fmt;

use super::{DirectFile, Polling, PreadQueue, UringQueue};
use crate::arena::StagingMemory;
use crate::engine::{Config, Engine, Session};
use crate::error::EngineError;
use crate::queue::{Clock, Completion, Read, ReadError, ReadQueue};
use lnp_format::Pack;

/// The back end asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackEndChoice {
    /// io_uring, or pread where it cannot be had.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// pread.
    Pread,
}

/// How reads are to reach the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The back end.
    pub back_end: BackEndChoice,
    /// Who polls, where it is io_uring and the device can be polled.
    pub polling: Polling,
}

impl From<BackEndChoice> for ReadOptions {
    fn from(back_end: BackEndChoice) -> Self {
        Self { back_end, ..Self::default() }
    }
}

/// The back end in use, and why not the better one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackEnd {
    /// io_uring with registered file.
    Uring {
        /// Who polls.
        polling: Polling,
        /// Why nobody polls though that was asked for (errno).
        polling_refused: Option<i32>,
        /// Why the buffer is not registered (errno).
        unregistered: Option<i32>,
    },
    /// pread, because it was asked for.
    PreadByChoice,
    /// pread, because io_uring could not be opened (errno).
    PreadWithoutUring(i32),
}

impl BackEnd {
    /// Its name in reports.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Uring { polling: Polling::None, .. } => "io_uring",
            Self::Uring { polling: Polling::Completion, .. } => "io_uring, completions polled",
            Self::Uring { polling: Polling::Submission, .. } => "io_uring, submissions polled",
            Self::PreadByChoice | Self::PreadWithoutUring(_) => "pread",
        }
    }

    /// Whether it is io_uring with all that was asked for.
    pub const fn is_whole(&self) -> bool {
        matches!(self, Self::Uring { polling_refused: None, unregistered: None, .. })
    }
}

impl fmt::Display for BackEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uring { polling_refused, unregistered, .. } => {
                f.write_str(self.name())?;
                match unregistered {
                    None => f.write_str(" with registered file and buffer")?,
                    Some(errno) => write!(
                        f,
                        ", its buffer not registered (errno {errno}): raise the limit of locked memory (ulimit -l) for faster reads"
                    )?,
                }
                match polling_refused {
                    None => Ok(()),
                    Some(errno @ libc::EOPNOTSUPP) => {
                        write!(f, ", not polled: the device has no poll queues (errno {errno})")
                    }
                    Some(errno) => write!(f, ", not polled: the system refuses it (errno {errno})"),
                }
            }
            Self::PreadByChoice => f.write_str("pread, as asked for"),
            Self::PreadWithoutUring(errno) => {
                write!(f, "pread, because io_uring cannot be opened (errno {errno})")
            }
        }
    }
}

/// A queue on a real device.
#[derive(Debug)]
pub struct DeviceQueue<'a> {
    inner: Inner<'a>,
    back_end: BackEnd,
}

// The queue stands once in an engine: an extra pointer to the large one would only cost a jump.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
enum Inner<'a> {
    Uring(UringQueue<'a>),
    Pread(PreadQueue<'a>),
}

impl DeviceQueue<'static> {
    /// A queue over memory that is never given back; for those who measure without an engine.
    /// Reads must be leased from staging areas within `staging`.
    ///
    /// # Errors
    /// [`OpenError::Uring`] where io_uring was asked for and cannot be had.
    pub fn open(
        file: &'static DirectFile,
        staging: StagingMemory<'static>,
        depth: u32,
        options: impl Into<ReadOptions>,
    ) -> Result<Self, OpenError> {
        // SAFETY: the memory of every lease outlives everything; a lease from elsewhere makes the
        // kernel refuse a registered read, and otherwise names memory of its own.
        unsafe { Self::open_borrowed(file, staging, depth, options.into()) }
    }
}

impl<'a> DeviceQueue<'a> {
    /// # Safety
    /// As [`UringQueue::open`]: not leaked while a read is in flight.
    unsafe fn open_borrowed(
        file: &'a DirectFile,
        staging: StagingMemory<'a>,
        depth: u32,
        options: ReadOptions,
    ) -> Result<Self, OpenError> {
        let ReadOptions { back_end: choice, polling } = options;
        let pread = |back_end| {
            let inner = Inner::Pread(PreadQueue::new(file, depth));
            Ok(Self { inner, back_end })
        };
        if choice == BackEndChoice::Pread {
            return pread(BackEnd::PreadByChoice);
        }
        // SAFETY: the caller's contract is the same.
        match unsafe { UringQueue::open(file, staging, depth, polling) } {
            Ok(queue) => {
                let back_end = BackEnd::Uring {
                    polling: queue.polling(),
                    polling_refused: queue.polling_refused(),
                    unregistered: queue.unregistered(),
                };
                Ok(Self { inner: Inner::Uring(queue), back_end })
            }
            Err(errno) if choice == BackEndChoice::Uring => Err(OpenError::Uring { errno }),
            Err(errno) => pread(BackEnd::PreadWithoutUring(errno)),
        }
    }

    /// The back end in use.
    pub const fn back_end(&self) -> &BackEnd {
        &self.back_end
    }

    fn queue(&self) -> &dyn ReadQueue<'a> {
        match &self.inner {
            Inner::Uring(queue) => queue,
            Inner::Pread(queue) => queue,
        }
    }

    fn queue_mut(&mut self) -> &mut dyn ReadQueue<'a> {
        match &mut self.inner {
            Inner::Uring(queue) => queue,
            Inner::Pread(queue) => queue,
        }
    }
}

impl Clock for DeviceQueue<'_> {
    fn now_ns(&self) -> u64 {
        super::clock::now_ns()
    }
}

impl<'a> ReadQueue<'a> for DeviceQueue<'a> {
    fn depth(&self) -> u32 {
        self.queue().depth()
    }
    fn reads_in_background(&self) -> bool {
        self.queue().reads_in_background()
    }
    fn in_flight(&self) -> u32 {
        self.queue().in_flight()
    }
    fn submit(&mut self, read: Read<'a>) -> Result<(), ReadError> {
        self.queue_mut().submit(read)
    }
    fn flush(&mut self) {
        self.queue_mut().flush();
    }
    fn poll(&mut self) -> Option<Completion> {
        self.queue_mut().poll()
    }
    fn wait(&mut self) -> Option<Completion> {
        self.queue_mut().wait()
    }
}

/// Why an engine on a device cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The engine's own reasons.
    Engine(EngineError),
    /// io_uring was asked for and cannot be had.
    Uring {
        /// The error number (errno).
        errno: i32,
    },
    /// Direct reads must be aligned to more than the pack's blocks, or than the staging area is.
    Alignment {
        /// Alignment that the device asks for, bytes.
        expected: u32,
        /// Block of the pack, bytes.
        found: u32,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Uring { errno } => write!(f, "io_uring cannot be opened (errno {errno})"),
            Self::Alignment { expected, found } => {
                write!(f, "the pack's blocks are {found} bytes, direct reads here need {expected}")
            }
        }
    }
}

impl core::error::Error for OpenError {}

impl From<EngineError> for OpenError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// A session that is not lent but given: for callers that keep it over calls of their own, as the C ABI
/// does.
///
/// # Safety
/// The memory that the engine was opened with is not given back before the session or the engine was
/// dropped: until then the kernel may be writing to it.
pub unsafe fn open_session<'s, 'a, Q: ReadQueue<'a>>(
    engine: &'s mut Engine<'a, Q>,
) -> Session<'s, 'a, Q> {
    Session::new(engine)
}

/// Opens an engine on a file, and checks that the file is the pack.
///
/// # Errors
/// [`OpenError`].
pub fn open_engine<'a>(
    file: &'a DirectFile,
    pack: Pack<'a>,
    config: &Config,
    memory: &'a mut [u8],
    options: impl Into<ReadOptions>,
) -> Result<Engine<'a, DeviceQueue<'a>>, OpenError> {
    if !file.takes_blocks_of(pack.block_bytes()) {
        let (expected, found) = (file.align(), pack.block_bytes());
        return Err(OpenError::Alignment { expected, found });
    }
    let options = options.into();
    let mut engine = Engine::open(pack, config, memory, |staging| {
        // SAFETY: the queue goes into the engine, which leases only slots of this memory, never
        // hands out the queue but by shared reference, and has nothing in flight when one of its
        // own methods returns or unwinds (`Drained` in `engine/round.rs`, `Session`'s drop): it can be
        // leaked, but never with a read in flight.
        unsafe { DeviceQueue::open_borrowed(file, staging, config.queue_depth, options) }
    })?;
    engine.check_superblock()?;
    Ok(engine)
}
