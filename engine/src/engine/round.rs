//! One round: reads are kept in flight, bundles are computed as they arrive, those at hand first,
//! and are handed out in ascending neuron id as far as that has come.

use super::bank::{DEMANDED, Progress, Reads};
use super::stats::{FetchStats, Latencies};
use super::work::{Cursor, FAILED, PENDING, Work, bundle_of, lookahead};
use super::workers::{Arrive, Finish, Raise, Workers};
use crate::error::EngineError;
use crate::limits::{BANKS, FINISH_BATCH, TAG_EXTENT_BITS};
use crate::queue::{
    Completion, Feeder, Read, ReadError, ReadFailure, ReadQueue, TimedQueue, drain,
};
use crate::sync::{AtomicU32, Ordering};

/// The thread that reads: keeps the queue full, takes completions, hands out, and computes too.
pub(super) struct Driver<'w, 'q, 'a, Q: ReadQueue<'a>> {
    pub(super) queue: Drained<'q, 'a, Q>,
    pub(super) progress: [&'w mut Progress<'a>; BANKS],
    /// The banks in the order that they are read.
    pub(super) order: [usize; BANKS],
    pub(super) latencies: Option<&'w mut Latencies>,
    pub(super) stats: FetchStats,
    /// When the last completion came that the round needs, and whether the driver was waiting for it.
    pub(super) end_ns: u64,
    pub(super) waited_last: bool,
    /// The time, where it was looked at after the last wait and nothing was done since.
    pub(super) waited_ns: Option<u64>,
    pub(super) next: usize,
}

/// A queue that is drained when this is dropped, if it is still armed: a caller's code may unwind
/// in the middle of a round.
pub(super) struct Drained<'q, 'a, Q: ReadQueue<'a>> {
    pub(super) queue: &'q mut Q,
    pub(super) armed: bool,
    pub(super) borrow: core::marker::PhantomData<&'a ()>,
}

impl<'a, Q: ReadQueue<'a>> Drop for Drained<'_, 'a, Q> {
    fn drop(&mut self) {
        if self.armed {
            let _ = drain(self.queue);
        }
    }
}

impl<'a, Q: TimedQueue<'a>> Driver<'_, '_, 'a, Q> {
    /// Runs the round to its end.
    pub(super) fn run<A: Arrive>(
        &mut self,
        workers: &dyn Workers,
        work: &Work<'_, 'a, A>,
        finish: &mut Finish<'_>,
    ) -> Result<(), EngineError> {
        let mut cursor = Cursor::default();
        loop {
            self.refill(work)?;
            let mut now_ns = None;
            while let Some(completion) = self.queue.queue.poll() {
                let now_ns = *now_ns.get_or_insert_with(|| self.queue.queue.now_ns());
                self.note(&completion, work, now_ns, false)?;
            }
            if self.finish_some(work, finish)? || work.compute_one(&mut cursor) {
                self.waited_ns = None;
                continue;
            }
            // A read of what is demanded may hold nothing that is wanted: the rest of a layer that is
            // read whole.
            let is_read = self.progress[DEMANDED].completed >= work.reads[DEMANDED].count;
            if self.next == work.places.len() && is_read {
                return Ok(());
            }
            if self.is_pending(work) {
                if self.queue.queue.in_flight() == 0 {
                    // Polling has taken all that was in flight, and more is to be read.
                    self.refill(work)?;
                }
                self.wait(work)?;
            } else if work.broken.load(Ordering::Acquire) != 0 {
                // The worker's panic is for the one who joins it.
                return Err(EngineError::broken("what a worker has claimed it computes"));
            } else if work.places.get(self.next).is_some_and(|place| work.is_lost(place)) {
                return Err(EngineError::broken("what a round computes was read"));
            } else {
                // Other threads compute the rest.
                self.waited_ns = None;
                workers.idle();
            }
        }
    }

    /// Submits what the queue has room for: what is needed first, then what is prefetched.
    fn refill<A>(&mut self, work: &Work<'_, 'a, A>) -> Result<(), EngineError> {
        let queue = &mut *self.queue.queue;
        for bank in self.order {
            let (reads, progress) = (work.reads[bank], &mut *self.progress[bank]);
            let feeder = if work.needed[bank] { Feeder::Demanded } else { Feeder::Prefetched };
            let room = queue.in_flight() < feeder.limit(queue.depth());
            if progress.submitted >= reads.count || !room {
                continue;
            }
            let now_ns = queue.now_ns();
            let result = submit(queue, feeder, (reads, &mut *progress), bank, now_ns);
            // Release: none of them is free by now, but for those that failed.
            work.submitted[bank].store(progress.submitted as u32, Ordering::Release);
            // What is refused of another layer is for the fetch that needs it, which asks again.
            if work.needed[bank] {
                result?;
            }
        }
        Ok(())
    }

    /// Takes note of a completion that was taken now.
    fn note<A>(
        &mut self,
        completion: &Completion,
        work: &Work<'_, 'a, A>,
        now_ns: u64,
        waited: bool,
    ) -> Result<(), EngineError> {
        let (bank, number) = bank_of(completion.tag);
        let progress = self.progress.get_mut(bank);
        let progress = progress.filter(|progress| progress.completed < progress.submitted);
        let progress =
            progress.ok_or(EngineError::broken("a completion is of a read in flight"))?;
        progress.completed += 1;
        if let Some(latencies) = &mut self.latencies {
            let begin_ns = progress.begin_ns.get(number).copied().unwrap_or(0);
            latencies.record(now_ns.saturating_sub(begin_ns));
        }
        // What is read for a later layer is not of this round's time.
        if work.needed[bank] {
            (self.end_ns, self.waited_last) = (now_ns, waited);
        }
        let wanted = bank == DEMANDED || work.reads[bank].positions(number).next().is_some();
        if wanted { Ok(completion.result?) } else { Ok(()) }
    }

    /// Whether a read that the round needs has not completed.
    fn is_pending<A>(&self, work: &Work<'_, 'a, A>) -> bool {
        (0..BANKS)
            .any(|bank| work.needed[bank] && self.progress[bank].completed < work.reads[bank].count)
    }

    fn wait<A>(&mut self, work: &Work<'_, 'a, A>) -> Result<(), EngineError> {
        let queue = &mut *self.queue.queue;
        let begin_ns = self.waited_ns.unwrap_or_else(|| queue.now_ns());
        let completion = queue.wait();
        let completion = completion.ok_or(EngineError::broken("what is pending is in flight"))?;
        let now_ns = queue.now_ns();
        self.waited_ns = Some(now_ns);
        self.stats.waits += 1;
        self.stats.wait_ns += now_ns.saturating_sub(begin_ns);
        self.note(&completion, work, now_ns, true)
    }

    /// Hands out what is computed, in ascending id, a few at a time; false where nothing is.
    fn finish_some<A: Arrive>(
        &mut self,
        work: &Work<'_, 'a, A>,
        finish: &mut Finish<'_>,
    ) -> Result<bool, EngineError> {
        let begin = self.next;
        let most = work.places.len().min(begin + FINISH_BATCH);
        for (place, coefficient) in
            work.places[begin..most].iter().zip(&work.coefficients[begin..most])
        {
            let bits = coefficient.load(Ordering::Acquire);
            if bits == PENDING {
                break;
            }
            let bytes = work.bytes_of(place);
            let bytes = bytes.ok_or(EngineError::broken("what was computed has arrived"))?;
            let coefficient = match bits {
                // Computed once more, for its error, which may have gone by now.
                FAILED => work.arrive(place, None, bytes)?,
                _ => f32::from_bits(bits),
            };
            let bundle = bundle_of(place, bytes, work.stride)?;
            let later = work.later_bundle(work.places.get(self.next + lookahead(work.stride)));
            finish(place.neuron, coefficient, bundle, later)?;
            self.next += 1;
        }
        Ok(self.next > begin)
    }
}

/// Runs a round on this thread, and on the workers as far as there is something to compute.
pub(super) fn run<'a, Q: TimedQueue<'a> + Send, A: Arrive>(
    workers: &dyn Workers,
    driver: &mut Driver<'_, '_, 'a, Q>,
    work: &Work<'_, 'a, A>,
    finish: &mut Finish<'_>,
) -> Result<(), EngineError> {
    let over = AtomicU32::new(0);
    let mut result = Ok(());
    workers.join(
        &mut || {
            // Also where the caller's code unwinds: the workers must not wait for ever.
            let _over = Raise(&over);
            result = driver.run(workers, work, finish);
        },
        &|| {
            let broken = Raise(&work.broken);
            let mut cursor = Cursor::default();
            while over.load(Ordering::Acquire) == 0 {
                if !work.compute_one(&mut cursor) {
                    workers.idle();
                }
            }
            core::mem::forget(broken);
        },
    );
    result
}

/// Submits a bank's reads as far as the queue has room.
pub(super) fn submit<'a, Q: ReadQueue<'a> + ?Sized>(
    queue: &mut Q,
    feeder: Feeder,
    (reads, progress): (&Reads<'a>, &mut Progress<'a>),
    bank: usize,
    now_ns: u64,
) -> Result<(), ReadError> {
    let first = progress.submitted;
    // One that is offered counts once the next is asked for: it was not refused.
    let mut offered = 0;
    let result = feeder.feed(queue, || {
        progress.submitted += core::mem::take(&mut offered);
        let number = progress.submitted;
        let extent = reads.extent(number)?;
        let file_offset = progress.region_offset + extent.begin;
        let Some(lease) = reads.staging.lease(number) else {
            let failure = ReadFailure::NoBuffer;
            return Some(Err(ReadError { failure, file_offset, bytes: extent.bytes() as u32 }));
        };
        offered = 1;
        let tag = number as u32 | (bank as u32) << TAG_EXTENT_BITS;
        Some(Ok(Read { file_offset, lease, tag }))
    });
    if result.is_ok() {
        progress.submitted += offered;
    }
    if let Some(begun) = progress.begin_ns.get_mut(first..progress.submitted) {
        begun.fill(now_ns);
    }
    result
}

/// The bank and the extent of a read.
pub(super) const fn bank_of(tag: u32) -> (usize, usize) {
    let extent = tag & ((1 << TAG_EXTENT_BITS) - 1);
    ((tag >> TAG_EXTENT_BITS) as usize, extent as usize)
}
