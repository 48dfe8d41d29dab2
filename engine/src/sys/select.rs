//! Which back end: io_uring where the kernel has it, else pread, and why.

use core::fmt;

use super::refusal::{Errno, UringRefusal, remedy};
#[cfg(feature = "io-uring")]
use super::ring::CrateRing;
use super::ring::{OwnRing, Ring};
use super::uring::UringQueue;
use super::{DirectFile, Polling, PreadQueue, RingKind};
use crate::arena::StagingMemory;
use crate::error::EngineError;
use crate::queue::TimedQueue;

/// The back end asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackEndChoice {
    /// io_uring, or pread where it cannot be had.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// io_uring over this ring, or an error.
    UringOver(RingKind),
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
        /// The ring that it goes over.
        ring: RingKind,
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
    /// Its name in reports, whatever ring it goes over.
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
            Self::Uring { ring, polling_refused, unregistered, .. } => {
                write!(f, "{} ({})", self.name(), ring.name())?;
                match *unregistered {
                    None => f.write_str(" with registered file and buffer")?,
                    Some(errno) => {
                        write!(f, ", its buffer not registered ({})", Errno(errno))?;
                        if let (libc::ENOMEM, Some(remedy)) = (errno, remedy(errno)) {
                            write!(f, ": {remedy} for faster reads")?;
                        }
                    }
                }
                match *polling_refused {
                    None => Ok(()),
                    Some(errno @ libc::EOPNOTSUPP) => {
                        write!(f, ", not polled: the device has no poll queues (errno {errno})")
                    }
                    Some(errno) => {
                        write!(f, ", not polled: the system refuses it ({})", Errno(errno))
                    }
                }
            }
            Self::PreadByChoice => f.write_str("pread, as asked for"),
            Self::PreadWithoutUring(errno) => {
                write!(f, "pread, because {}", UringRefusal(*errno))
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
    #[cfg(feature = "io-uring")]
    Crate(UringQueue<'a, CrateRing>),
    Own(UringQueue<'a, OwnRing>),
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
    /// A queue over memory that is given back at the end of `'a`.
    ///
    /// # Safety
    /// All leases of the reads submitted are of buffers within `staging`, which nobody touches during the
    /// call. The queue is not leaked while a read is in flight.
    pub(crate) unsafe fn open_borrowed(
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
        let kind = match choice {
            BackEndChoice::Pread => return pread(BackEnd::PreadByChoice),
            BackEndChoice::UringOver(kind) => kind,
            BackEndChoice::Auto | BackEndChoice::Uring => RingKind::default(),
        };
        let opened = match kind {
            // SAFETY: leases, the call and the queue's end are as this function asks of its caller.
            #[cfg(feature = "io-uring")]
            RingKind::Crate => unsafe { UringQueue::open(file, staging, depth, polling) }
                .map(|queue| Self::over(kind, queue, Inner::Crate)),
            // SAFETY: leases, the call and the queue's end are as this function asks of its caller.
            RingKind::Own => unsafe { UringQueue::open(file, staging, depth, polling) }
                .map(|queue| Self::over(kind, queue, Inner::Own)),
        };
        opened.or_else(|errno| match choice {
            BackEndChoice::Auto => pread(BackEnd::PreadWithoutUring(errno)),
            _ => Err(OpenError::Uring { errno }),
        })
    }

    fn over<R: Ring>(
        ring: RingKind,
        queue: UringQueue<'a, R>,
        inner: impl FnOnce(UringQueue<'a, R>) -> Inner<'a>,
    ) -> Self {
        let back_end = BackEnd::Uring {
            ring,
            polling: queue.polling(),
            polling_refused: queue.polling_refused(),
            unregistered: queue.unregistered(),
        };
        Self { inner: inner(queue), back_end }
    }

    /// The back end in use.
    pub const fn back_end(&self) -> &BackEnd {
        &self.back_end
    }

    fn queue(&self) -> &dyn TimedQueue<'a> {
        match &self.inner {
            #[cfg(feature = "io-uring")]
            Inner::Crate(queue) => queue,
            Inner::Own(queue) => queue,
            Inner::Pread(queue) => queue,
        }
    }

    fn queue_mut(&mut self) -> &mut dyn TimedQueue<'a> {
        match &mut self.inner {
            #[cfg(feature = "io-uring")]
            Inner::Crate(queue) => queue,
            Inner::Own(queue) => queue,
            Inner::Pread(queue) => queue,
        }
    }
}

crate::forward_read_queue!(impl ['a] ReadQueue<'a> for DeviceQueue<'a>, queue, queue_mut);

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
            Self::Uring { errno } => UringRefusal(*errno).fmt(f),
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
