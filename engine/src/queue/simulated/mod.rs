//! The simulated device: virtual time, one seed, the same bytes and times on every run.
//!
//! **Time.** A batch is what is submitted between two calls of [`ReadQueue::drain`]. The k-th attempt
//! of a batch is done when its [`Timing`] (a law, or a measured curve) says that k reads and the bytes
//! they brought are; draining
//! costs the law's `t0`, once. A batch goes by the timing that holds when its first read is submitted
//! ([`SimulatedQueue::then`]: a device that throttles). Completions come in an order drawn from the
//! seed. Nothing else takes time: a completion that [`ReadQueue::poll`] finds comes no sooner than the
//! one that [`ReadQueue::wait`] would have waited for ([`SimulatedQueue::polled`] says how often poll
//! finds one; never, unless told).
//!
//! **Faults** ([`Faults`], none unless told) happen to attempts. A read is one attempt as a rule; what
//! could not be had in full is tried again, or continued, at most [`READ_RETRIES_MAX`] times, as the
//! real back ends do it, while other reads go on:
//!
//! - an attempt fails with EAGAIN or EINTR, or brings a part of the bytes: the rest is asked for again;
//! - an attempt fails with EIO, or brings nothing, as at the end of a device: the read fails;
//! - a submission is refused with EBUSY: the read was never in flight;
//! - a read is delayed: it ends no sooner than so many times its own time after its submission, and
//!   others overtake it;
//! - a read succeeds with one bit wrong among its bytes, as checksums alone can tell;
//! - from a moment of virtual time on the device is gone: each attempt fails with ENODEV, also at reads
//!   that were in flight, for good.
//!
//! Reads beyond the image bring what is there and then nothing. Not in the model: bytes that arrive
//! after their completion, completions that never come, reads from a wrong place, and writes.

mod faults;

use heapless::Vec;

use super::{Clock, Completion, Read, ReadError, ReadFailure, ReadQueue};
use crate::law::{Curve, DeviceLaw};
use crate::limits::{QUEUE_DEPTH_MAX, READ_RETRIES_MAX, TIMING_CHANGES_MAX};
use faults::{Attempt, REFUSED, happens};
pub use faults::{FaultCounts, Faults, Switch};

/// What the device holds.
#[derive(Clone, Copy, Debug)]
pub enum Image<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// So many bytes that nobody looks at: reads take their time and leave the staging area alone.
    Opaque(u64),
}

impl Image<'_> {
    const fn bytes(&self) -> u64 {
        match self {
            Image::Bytes(image) => image.len() as u64,
            Image::Opaque(bytes) => *bytes,
        }
    }
}

/// How long reads take.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant)] // a few stand in a device; without an allocator there is no box
pub enum Timing {
    /// To the letter of a law.
    Law(DeviceLaw),
    /// One read after the other, each as long as a measured curve says.
    Curve(Curve),
}

impl From<DeviceLaw> for Timing {
    fn from(law: DeviceLaw) -> Self {
        Self::Law(law)
    }
}

impl From<Curve> for Timing {
    fn from(curve: Curve) -> Self {
        Self::Curve(curve)
    }
}

impl Timing {
    /// Nanoseconds from the begin of a batch until so much of it is done.
    fn work_ns(&self, batch: &Batch) -> u64 {
        match self {
            Self::Law(law) => (law.work_us(batch.reads, batch.bytes) * 1e3) as u64,
            Self::Curve(_) => batch.curve_ns,
        }
    }

    /// Nanoseconds of a read by itself.
    fn own_ns(&self, bytes: u64) -> u64 {
        match self {
            Self::Law(law) => (law.work_us(1, bytes) * 1e3) as u64,
            Self::Curve(_) => self.attempt_ns(bytes),
        }
    }

    /// Nanoseconds of one attempt that brings so many bytes, where each takes its own time.
    fn attempt_ns(&self, bytes: u64) -> u64 {
        match self {
            Self::Law(_) => 0,
            Self::Curve(curve) => (curve.read_us(bytes) * 1e3) as u64,
        }
    }

    /// Nanoseconds that the end of a batch takes.
    fn drain_ns(&self) -> u64 {
        match self {
            Self::Law(law) => (law.t0_us() * 1e3) as u64,
            Self::Curve(curve) => (curve.t0_us() * 1e3) as u64,
        }
    }
}

/// SplitMix64.
#[derive(Clone, Copy, Debug)]
struct Random(u64);

impl Random {
    /// The next number of the seed's sequence.
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A read in flight.
#[derive(Debug)]
struct Pending<'a> {
    read: Read<'a>,
    /// Bytes of it that have come.
    done: u32,
    tries: u32,
    /// Not done before this moment; 0 where it is not delayed.
    due_ns: u64,
}

/// The batch under way.
#[derive(Clone, Copy, Debug)]
struct Batch {
    timing: Timing,
    begin_ns: u64,
    reads: u64,
    bytes: u64,
    /// Sum of the attempts' own times.
    curve_ns: u64,
}

/// A device that obeys its [`Timing`] to the letter, but for the faults that it is given.
#[derive(Debug)]
pub struct SimulatedQueue<'a> {
    image: Image<'a>,
    timing: Timing,
    /// Timings to come, each from a moment on.
    changes: Vec<(u64, Timing), TIMING_CHANGES_MAX>,
    depth: u32,
    /// The order of completions.
    order: Random,
    /// Everything else: a device without faults gives the same order whatever faults there could be.
    chance: Random,
    faults: Faults,
    switch: Option<&'a Switch>,
    gone: bool,
    polled: u32,
    counts: FaultCounts,
    now_ns: u64,
    batch: Option<Batch>,
    pending: Vec<Pending<'a>, QUEUE_DEPTH_MAX>,
    /// Of them, delayed.
    delayed: usize,
}

impl<'a> SimulatedQueue<'a> {
    /// A device with `depth` places (at most [`QUEUE_DEPTH_MAX`]) and without faults.
    pub fn new(image: Image<'a>, timing: impl Into<Timing>, depth: u32, seed: u64) -> Self {
        Self {
            image,
            timing: timing.into(),
            changes: Vec::new(),
            depth: depth.clamp(1, QUEUE_DEPTH_MAX as u32),
            order: Random(seed),
            chance: Random(!seed),
            faults: Faults::NONE,
            switch: None,
            gone: false,
            polled: 0,
            counts: FaultCounts::default(),
            now_ns: 0,
            batch: None,
            pending: Vec::new(),
            delayed: 0,
        }
    }

    /// The same device with faults.
    pub const fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// The same device, whose faults happen only while `switch` is on. A device that is gone stays so.
    pub const fn switched_by(mut self, switch: &'a Switch) -> Self {
        self.switch = Some(switch);
        self
    }

    /// The same device, where `per_million` of the calls of [`ReadQueue::poll`] find a completion as
    /// long as something is in flight.
    pub const fn polled(mut self, per_million: u32) -> Self {
        self.polled = per_million;
        self
    }

    /// The same device, which goes by another timing from a moment of virtual time on. Changes are
    /// told in the order of time; more than [`TIMING_CHANGES_MAX`] are not kept.
    pub fn then(mut self, from_ns: u64, timing: impl Into<Timing>) -> Self {
        let _ = self.changes.push((from_ns, timing.into()));
        self
    }

    /// The faults that may happen.
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The faults that happened.
    pub const fn counts(&self) -> &FaultCounts {
        &self.counts
    }

    fn is_faulty(&self) -> bool {
        self.faults != Faults::NONE && self.switch.is_none_or(Switch::is_on)
    }

    /// Whether a fault with this rate happens.
    fn strikes(&mut self, rate: u32) -> bool {
        rate > 0 && happens(rate, self.chance.next())
    }

    /// The timing of a batch that begins now.
    fn timing_now(&mut self) -> Timing {
        while let Some((_, timing)) = self.changes.first().filter(|(from, _)| *from <= self.now_ns)
        {
            self.timing = *timing;
            self.changes.remove(0);
        }
        self.timing
    }

    /// Which of the reads in flight is worked on next: any; but a delayed one whose time has not come
    /// only where there is no other, the earliest first.
    fn choose(&mut self) -> Option<usize> {
        let now_ns = self.now_ns;
        let due = |pending: &Pending<'_>| pending.due_ns <= now_ns;
        let count = match self.delayed {
            0 => self.pending.len(),
            _ => self.pending.iter().filter(|pending| due(pending)).count(),
        };
        if count == 0 {
            let all = self.pending.iter().enumerate();
            return all.min_by_key(|(_, pending)| pending.due_ns).map(|(at, _)| at);
        }
        let at = (self.order.next() % count as u64) as usize;
        if self.delayed == 0 {
            return Some(at);
        }
        let mut all = self.pending.iter().enumerate().filter(|(_, pending)| due(pending));
        all.nth(at).map(|(at, _)| at)
    }

    /// How the next attempt at a read goes.
    fn attempt(&mut self) -> Attempt {
        let faulty = self.is_faulty();
        self.gone |= faulty && self.faults.gone_from_ns.is_some_and(|from| from <= self.now_ns);
        let attempt = match () {
            () if self.gone => Attempt::GONE,
            () if faulty => self.faults.attempt(self.chance.next()),
            () => Attempt::Whole,
        };
        self.counts.count(attempt);
        attempt
    }

    /// Works on one read; its completion, if that ended it.
    fn work(&mut self) -> Option<Completion> {
        let at = self.choose()?;
        let attempt = self.attempt();
        let pending = self.pending.get_mut(at)?;
        pending.tries += 1;
        let missing = pending.read.lease.bytes() - pending.done;
        let here = pending.read.file_offset + u64::from(pending.done);
        let there = self.image.bytes().saturating_sub(here).min(missing.into()) as u32;
        let count = match attempt {
            Attempt::Whole => there,
            // At least one byte, and not all of them.
            Attempt::Part if there > 1 => 1 + (self.chance.next() % u64::from(there - 1)) as u32,
            Attempt::Part => there,
            Attempt::Nothing | Attempt::Errno(_) => 0,
        };
        transfer(&self.image, pending, count);
        let (due_ns, tries) = (pending.due_ns, pending.tries);
        let whole = pending.done == pending.read.lease.bytes();
        if let Some(batch) = &mut self.batch {
            batch.reads += 1;
            batch.bytes += u64::from(count);
            batch.curve_ns += batch.timing.attempt_ns(count.into());
            let since_ns = batch.timing.work_ns(batch);
            self.now_ns = self.now_ns.max(batch.begin_ns.saturating_add(since_ns)).max(due_ns);
        }
        let at_end = there == 0 && matches!(attempt, Attempt::Whole | Attempt::Part);
        if !whole && !at_end && attempt.can_go_on() {
            if tries <= READ_RETRIES_MAX {
                return None;
            }
            self.counts.worn_out += 1;
        }
        Some(self.end(at, attempt, whole))
    }

    /// Ends a read after its last attempt.
    fn end(&mut self, at: usize, last: Attempt, whole: bool) -> Completion {
        let flips = whole && self.is_faulty() && self.strikes(self.faults.flipped);
        let Pending { mut read, done, due_ns, .. } = self.pending.swap_remove(at);
        self.delayed -= usize::from(due_ns > 0);
        if flips {
            let bit = self.chance.next() % (u64::from(done) * 8).max(1);
            if let Some(byte) = read.lease.as_mut_slice().get_mut((bit / 8) as usize) {
                *byte ^= 1 << (bit % 8);
                self.counts.flipped += 1;
            }
        }
        let result = match last {
            _ if whole => Ok(()),
            Attempt::Errno(errno) => Err(ReadFailure::System { errno }),
            _ => Err(ReadFailure::Short { found: done }),
        };
        Completion::of(read, result)
    }
}

/// Brings the next `count` bytes of a read into its slot.
fn transfer(image: &Image<'_>, pending: &mut Pending<'_>, count: u32) {
    let done = pending.done as usize;
    pending.done += count;
    let Image::Bytes(image) = image else { return };
    let begin = usize::try_from(pending.read.file_offset).unwrap_or(usize::MAX);
    let source =
        image.get(begin.saturating_add(done)..).and_then(|rest| rest.get(..count as usize));
    let target = pending.read.lease.as_mut_slice().get_mut(done..done + count as usize);
    if let (Some(source), Some(target)) = (source, target) {
        target.copy_from_slice(source);
    }
}

impl Clock for SimulatedQueue<'_> {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }
}

impl<'a> ReadQueue<'a> for SimulatedQueue<'a> {
    fn depth(&self) -> u32 {
        self.depth
    }

    fn in_flight(&self) -> u32 {
        self.pending.len() as u32
    }

    fn submit(&mut self, read: Read<'a>) -> Result<(), ReadError> {
        if self.in_flight() == self.depth {
            return Err(ReadError::of(&read, ReadFailure::QueueFull));
        }
        let faulty = self.is_faulty();
        if faulty && self.strikes(self.faults.refused) {
            self.counts.refused += 1;
            return Err(ReadError::of(&read, REFUSED));
        }
        let timing = match &self.batch {
            Some(batch) => batch.timing,
            None => self.timing_now(),
        };
        let begin_ns = self.now_ns;
        self.batch.get_or_insert(Batch { timing, begin_ns, reads: 0, bytes: 0, curve_ns: 0 });
        let mut due_ns = 0;
        if faulty && self.strikes(self.faults.delayed) {
            let own_ns = timing.own_ns(read.lease.bytes().into());
            let late_ns = own_ns.saturating_mul(self.faults.delay_factor.into());
            due_ns = self.now_ns.saturating_add(late_ns).max(1);
            self.counts.delayed += 1;
            self.delayed += 1;
        }
        let pending = Pending { read, done: 0, tries: 0, due_ns };
        self.pending.push(pending).map_err(|full| ReadError::of(&full.read, ReadFailure::QueueFull))
    }

    fn flush(&mut self) {}

    fn poll(&mut self) -> Option<Completion> {
        if self.polled > 0 && !self.pending.is_empty() && self.strikes(self.polled) {
            return self.work();
        }
        None
    }

    fn wait(&mut self) -> Option<Completion> {
        while !self.pending.is_empty() {
            let completion = self.work();
            if completion.is_some() {
                return completion;
            }
        }
        None
    }

    fn drain(&mut self) -> Result<(), ReadError> {
        let mut result = Ok(());
        while let Some(completion) = self.wait() {
            result = result.and(completion.result);
        }
        if let Some(batch) = self.batch.take() {
            self.now_ns = self.now_ns.saturating_add(batch.timing.drain_ns());
        }
        result
    }
}
