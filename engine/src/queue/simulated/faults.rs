//! What goes wrong on the simulated device, and how often.

use crate::queue::ReadFailure;
use crate::sync::{AtomicU32, Ordering};

/// Error numbers of Linux. This floor knows no libc.
const EINTR: i32 = 4;
const EIO: i32 = 5;
const EAGAIN: i32 = 11;
const EBUSY: i32 = 16;
const ENODEV: i32 = 19;

/// All rates are per million of these.
const MILLION: u64 = 1_000_000;

/// How often which fault happens. The module's header says what each one does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Attempts that fail with EIO, per million.
    pub eio: u32,
    /// Attempts that bring only a part, after which the rest can be asked for, per million.
    pub short: u32,
    /// Attempts that bring nothing, as if the device ended there, per million.
    pub end: u32,
    /// Attempts that fail with EAGAIN, per million.
    pub eagain: u32,
    /// Attempts that fail with EINTR, per million.
    pub eintr: u32,
    /// Submissions that are refused with EBUSY, per million.
    pub refused: u32,
    /// Reads that take [`Faults::delay_factor`] times as long, per million.
    pub delayed: u32,
    /// See [`Faults::delayed`].
    pub delay_factor: u32,
    /// Reads that come with one wrong bit, per million.
    pub flipped: u32,
    /// The virtual time from which on the device is gone for good.
    pub gone_from_ns: Option<u64>,
}

impl Faults {
    /// No faults.
    pub const NONE: Self = Self {
        eio: 0,
        short: 0,
        end: 0,
        eagain: 0,
        eintr: 0,
        refused: 0,
        delayed: 0,
        delay_factor: 0,
        flipped: 0,
        gone_from_ns: None,
    };

    /// What happens to one attempt, `draw` being a random number.
    pub(super) fn attempt(&self, draw: u64) -> Attempt {
        let mut left = draw % MILLION;
        for (rate, attempt) in [
            (self.eio, Attempt::Errno(EIO)),
            (self.short, Attempt::Part),
            (self.end, Attempt::Nothing),
            (self.eagain, Attempt::Errno(EAGAIN)),
            (self.eintr, Attempt::Errno(EINTR)),
        ] {
            match left.checked_sub(rate.into()) {
                Some(rest) => left = rest,
                None => return attempt,
            }
        }
        Attempt::Whole
    }
}

/// Whether something with a rate per million happens.
pub(super) const fn happens(rate: u32, draw: u64) -> bool {
    draw % MILLION < rate as u64
}

/// One attempt at a read, as the kernel would answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// All that is left of it.
    Whole,
    /// A part of it.
    Part,
    /// Zero bytes: the end of the device.
    Nothing,
    /// An error number.
    Errno(i32),
}

impl Attempt {
    /// The device is not there any more.
    pub(super) const GONE: Self = Self::Errno(ENODEV);

    /// Whether the rest is asked for again after this, if something is left.
    pub(super) const fn can_go_on(self) -> bool {
        matches!(self, Self::Whole | Self::Part | Self::Errno(EAGAIN | EINTR))
    }
}

/// A submission that is refused.
pub(super) const REFUSED: ReadFailure = ReadFailure::System { errno: EBUSY };

/// How often which fault happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Attempts with EIO.
    pub eio: u64,
    /// Attempts that brought a part.
    pub short: u64,
    /// Attempts that brought nothing.
    pub end: u64,
    /// Attempts with EAGAIN.
    pub eagain: u64,
    /// Attempts with EINTR.
    pub eintr: u64,
    /// Submissions refused.
    pub refused: u64,
    /// Reads delayed.
    pub delayed: u64,
    /// Reads with a wrong bit.
    pub flipped: u64,
    /// Attempts after the device had gone.
    pub gone: u64,
    /// Reads given up because they had been tried too often.
    pub worn_out: u64,
}

impl FaultCounts {
    /// Adds those of another run.
    pub const fn add(&mut self, other: &Self) {
        self.eio += other.eio;
        self.short += other.short;
        self.end += other.end;
        self.eagain += other.eagain;
        self.eintr += other.eintr;
        self.refused += other.refused;
        self.delayed += other.delayed;
        self.flipped += other.flipped;
        self.gone += other.gone;
        self.worn_out += other.worn_out;
    }

    /// Those that a read can fail of: without any, no read fails.
    pub const fn fatal(&self) -> u64 {
        self.eio + self.end + self.refused + self.gone + self.worn_out
    }

    pub(super) const fn count(&mut self, attempt: Attempt) {
        match attempt {
            Attempt::Whole => {}
            Attempt::Part => self.short += 1,
            Attempt::Nothing => self.end += 1,
            Attempt::Errno(EAGAIN) => self.eagain += 1,
            Attempt::Errno(EINTR) => self.eintr += 1,
            Attempt::GONE => self.gone += 1,
            Attempt::Errno(_) => self.eio += 1,
        }
    }
}

/// Virtual time that passes while its owner computes: told here, and the device works on what it has.
#[derive(Debug, Default)]
pub struct Meanwhile(AtomicU32);

impl Meanwhile {
    /// So many nanoseconds more pass; at most four seconds between two calls of the queue.
    pub fn pass(&self, ns: u32) {
        let passed_ns = self.0.load(Ordering::Relaxed);
        self.0.store(passed_ns.saturating_add(ns), Ordering::Relaxed);
    }

    /// What has passed, nanoseconds, and what the device does not know of yet.
    pub(super) fn passed_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed).into()
    }

    /// The same, which the device knows from now on.
    pub(super) fn take_ns(&self) -> u64 {
        let passed_ns = self.passed_ns();
        self.0.store(0, Ordering::Relaxed);
        passed_ns
    }
}

/// Turns the faults of a device on and off while an engine owns its queue.
#[derive(Debug, Default)]
pub struct Switch(AtomicU32);

impl Switch {
    /// A switch.
    pub const fn new(on: bool) -> Self {
        Self(AtomicU32::new(on as u32))
    }

    /// Turns it.
    pub fn set(&self, on: bool) {
        self.0.store(on.into(), Ordering::Relaxed);
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }
}
