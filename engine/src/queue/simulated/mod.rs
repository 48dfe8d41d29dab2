//! The simulated device: virtual time, one seed, the same bytes and times on every run.
//!
//! **Time.** Reads are handed over as [`ReadQueue`] says, some at a time. Handing over takes the time that
//! [`Submission`] says (none, unless told), during which the device works on what it has; what is handed over
//! together starts together, when that is done. The device works without a pause while it has something: the k-th
//! attempt since it last had nothing is done when its [`Timing`] (a law, or a measured curve) says that k
//! reads and the bytes they brought are. The end of a batch ([`ReadQueue::end_batch`]) takes the law's `t0`. A batch goes
//! by the timing that holds when its first read is submitted ([`SimulatedQueue::then`]: a device that
//! throttles). Completions come in an order drawn from the seed, one by one, or, where told
//! ([`Submission::together`]), all that were handed over together at once. Nothing else takes time: a completion that
//! [`ReadQueue::poll`] finds comes no sooner than the one that [`ReadQueue::wait`] would have waited for
//! ([`SimulatedQueue::polled`] says how often poll finds one; never, unless told, but for those that have come with
//! another). Where the owner computes, it may tell how long ([`SimulatedQueue::meanwhile`]): what has been handed over is
//! read meanwhile, as far as the time is enough.
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
mod time;

use heapless::{Deque, Vec};

use super::{Clock, Completion, Read, ReadError, ReadFailure, ReadQueue, early_reads};
use crate::limits::{QUEUE_DEPTH_MAX, READ_RETRIES_MAX, TIMING_CHANGES_MAX};
use faults::{Attempt, REFUSED, happens};
pub use faults::{FaultCounts, Faults, Meanwhile, Switch};
use time::Batch;
pub use time::{Submission, Timing};

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
    /// When it was handed over; `None` while it waits.
    start_ns: Option<u64>,
    /// Which it was handed over with.
    piece: u32,
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
    meanwhile: Option<&'a Meanwhile>,
    submission: Submission,
    batch: Option<Batch>,
    pending: Vec<Pending<'a>, QUEUE_DEPTH_MAX>,
    /// Of them, delayed.
    delayed: usize,
    /// Of them, not handed over.
    waiting: usize,
    pieces: u32,
    /// Completions that came with another.
    posted: Deque<Completion, QUEUE_DEPTH_MAX>,
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
            meanwhile: None,
            submission: Submission::FREE,
            batch: None,
            pending: Vec::new(),
            delayed: 0,
            waiting: 0,
            pieces: 0,
            posted: Deque::new(),
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

    /// The same device, to which reads are handed over like this.
    pub const fn submitting(mut self, submission: Submission) -> Self {
        self.submission = submission;
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

    /// The same device, beside which time passes as it is told there.
    pub const fn meanwhile(mut self, meanwhile: &'a Meanwhile) -> Self {
        self.meanwhile = Some(meanwhile);
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

    /// Which of the reads that were handed over is worked on next: any that the device has by the time that it
    /// is through with the last, or else the first that comes; but a delayed one whose time has not come only
    /// where there is no other, the earliest first.
    fn choose(&mut self) -> Option<usize> {
        if self.delayed == 0 && self.waiting == 0 && self.submission.read_ns == 0 {
            // All of them. (They are many: simulated replays come by here.)
            let count = self.pending.len() as u64;
            return (count > 0).then(|| (self.order.next() % count) as usize);
        }
        let end_ns = self.batch.as_ref().map_or(0, Batch::end_ns);
        let first_ns = self.pending.iter().filter_map(|pending| pending.start_ns).min()?;
        let (now_ns, started_ns) = (self.now_ns, end_ns.max(first_ns));
        let here = |pending: &Pending<'_>| pending.start_ns.is_some_and(|at| at <= started_ns);
        let due = |pending: &Pending<'_>| here(pending) && pending.due_ns <= now_ns;
        let count = self.pending.iter().filter(|pending| due(pending)).count();
        let all = self.pending.iter().enumerate();
        if count == 0 {
            let here = all.filter(|(_, pending)| here(pending));
            return here.min_by_key(|(_, pending)| pending.due_ns).map(|(at, _)| at);
        }
        let at = (self.order.next() % count as u64) as usize;
        all.filter(|(_, pending)| due(pending)).nth(at).map(|(at, _)| at)
    }

    /// Hands over what waits.
    fn hand_over(&mut self) {
        let cost_ns = self.submission.read_ns.saturating_mul(self.waiting as u64);
        self.now_ns = self.now_ns.saturating_add(cost_ns);
        self.pieces = self.pieces.wrapping_add(u32::from(self.waiting > 0));
        for pending in self.pending.iter_mut().filter(|pending| pending.start_ns.is_none()) {
            (pending.start_ns, pending.piece) = (Some(self.now_ns), self.pieces);
        }
        self.waiting = 0;
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
        let own_ns = pending.start_ns.unwrap_or(0);
        let whole = pending.done == pending.read.lease.bytes();
        let start_ns = self.busy_from_ns(own_ns);
        if let Some(batch) = &mut self.batch {
            batch.work(start_ns, count.into());
            self.now_ns = self.now_ns.max(batch.end_ns()).max(due_ns);
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

    /// Works on one read, and on all that come with it; the first completion of them, if any.
    fn come(&mut self) -> Option<Completion> {
        if !self.submission.together {
            return self.work();
        }
        let piece = self.pending.iter().find(|pending| pending.start_ns.is_some())?.piece;
        while self.pending.iter().any(|pending| pending.piece == piece) {
            if let Some(completion) = self.work() {
                // cannot fail: no more are pending than fit
                let _ = self.posted.push_back(completion);
            }
        }
        self.posted.pop_front()
    }

    /// Lets the time pass that its owner has computed.
    fn catch_up(&mut self) {
        let passed_ns = self.meanwhile.map_or(0, Meanwhile::take_ns);
        if passed_ns == 0 {
            return;
        }
        let until_ns = self.now_ns.saturating_add(passed_ns);
        while let Some(completion) = self.work_until(until_ns) {
            // cannot fail: no more are pending than fit
            let _ = self.posted.push_back(completion);
        }
        self.now_ns = self.now_ns.max(until_ns);
    }

    /// From when on the device has had something, where it works on a read that was handed over at `own_ns`: one that
    /// came while its owner computed does not make it idle before.
    fn busy_from_ns(&self, own_ns: u64) -> u64 {
        if self.meanwhile.is_none() {
            return own_ns;
        }
        self.pending.iter().filter_map(|pending| pending.start_ns).fold(own_ns, u64::min)
    }

    /// Works on the next read if it will be done by then.
    fn work_until(&mut self, until_ns: u64) -> Option<Completion> {
        let order = self.order;
        let at = self.choose()?;
        self.order = order;
        let (pending, mut batch) = (self.pending.get(at)?, self.batch?);
        batch.work(
            self.busy_from_ns(pending.start_ns?),
            (pending.read.lease.bytes() - pending.done).into(),
        );
        if batch.end_ns().max(pending.due_ns) > until_ns { None } else { self.work() }
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

/// Brings the next `count` bytes of a read into its buffer.
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
        self.now_ns + self.meanwhile.map_or(0, Meanwhile::passed_ns)
    }
}

impl<'a> ReadQueue<'a> for SimulatedQueue<'a> {
    fn depth(&self) -> u32 {
        self.depth
    }

    fn in_flight(&self) -> u32 {
        (self.pending.len() + self.posted.len()) as u32
    }

    fn reads_in_background(&self) -> bool {
        true
    }

    fn submit(&mut self, read: Read<'a>) -> Result<(), ReadError> {
        self.catch_up();
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
        self.batch.get_or_insert(Batch::new(timing, begin_ns));
        let mut due_ns = 0;
        if faulty && self.strikes(self.faults.delayed) {
            let own_ns = timing.own_ns(read.lease.bytes().into());
            let late_ns = own_ns.saturating_mul(self.faults.delay_factor.into());
            due_ns = self.now_ns.saturating_add(late_ns).max(1);
            self.counts.delayed += 1;
            self.delayed += 1;
        }
        let pending = Pending { read, done: 0, tries: 0, due_ns, start_ns: None, piece: 0 };
        self.pending
            .push(pending)
            .map_err(|full| ReadError::of(&full.read, ReadFailure::QueueFull))?;
        self.waiting += 1;
        let early = self.submission.early_reads.unwrap_or(early_reads(self.depth));
        if self.waiting >= early as usize {
            self.hand_over();
        }
        Ok(())
    }

    fn flush(&mut self) {
        self.catch_up();
        self.hand_over();
    }

    fn poll(&mut self) -> Option<Completion> {
        self.catch_up();
        if let Some(posted) = self.posted.pop_front() {
            return Some(posted);
        }
        if self.waiting == self.pending.len() {
            self.hand_over();
        }
        if self.polled > 0 && !self.pending.is_empty() && self.strikes(self.polled) {
            return self.come();
        }
        None
    }

    fn wait(&mut self) -> Option<Completion> {
        self.catch_up();
        self.hand_over();
        if let Some(posted) = self.posted.pop_front() {
            return Some(posted);
        }
        while !self.pending.is_empty() {
            let completion = self.come();
            if completion.is_some() {
                return completion;
            }
        }
        None
    }

    fn end_batch(&mut self) {
        self.catch_up();
        if let Some(batch) = self.batch.take() {
            self.now_ns = self.now_ns.saturating_add(batch.drain_ns());
        }
    }
}
