//! One round: reads are kept in flight, bundles are computed as they arrive, those at hand first,
//! and are handed out in ascending neuron id as far as that has come.

use core::iter::repeat;

use lnp_format::checksum::crc32;
use zerocopy::byteorder::{LE, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::bank::{DEMANDED, Progress, Reads};
use super::stats::{FetchStats, Latencies};
use super::workers::{Arrive, Finish, Raise, Workers};
use crate::arena::BufferState;
use crate::error::EngineError;
use crate::limits::{
    BANKS, FINISH_BATCH, HIT_GROUP_BUNDLES, LOOKAHEAD_BYTES, QUEUE_DEPTH_MAX, TAG_EXTENT_BITS,
};
use crate::queue::{
    Completion, Feeder, Read, ReadError, ReadFailure, ReadQueue, TimedQueue, drain,
};
use crate::sync::{AtomicU32, Ordering};

/// Where a bundle of the active set is.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Place {
    /// Neuron id.
    pub(super) neuron: u32,
    /// Its slot.
    pub(super) slot: u32,
    /// [`CACHED`], or the bank.
    pub(super) source: u32,
    /// The cell, or the extent.
    pub(super) number: u32,
    /// First byte in the extent.
    pub(super) at: u32,
    /// Length of the run of adjacent slots that it is read in, bundles.
    pub(super) run_bundles: u32,
}

/// [`Place::source`] of what the cache holds.
pub(super) const CACHED: u32 = BANKS as u32;

/// Coefficients that are none: not computed yet, and failed. Both are NaNs that no arithmetic makes.
const PENDING: u32 = u32::MAX;
const FAILED: u32 = u32::MAX - 1;

/// What a round computes from: shared by all threads. The states of the buffers say who may touch
/// what; a coefficient is written once, by whoever claimed its buffer.
pub(super) struct Work<'w, 'a, A> {
    pub(super) places: &'w [Place],
    pub(super) reads: [&'w Reads<'a>; BANKS],
    /// Which of the banks hold bundles of this round; the others are read for a later one.
    pub(super) needed: [bool; BANKS],
    /// Reads of each bank that were submitted: a buffer among them that is free has failed.
    pub(super) submitted: [AtomicU32; BANKS],
    /// Not 0 where a worker unwound: what it had claimed will never be computed.
    pub(super) broken: AtomicU32,
    pub(super) cells: &'w [u8],
    /// One for every [`HIT_GROUP_BUNDLES`] places: the cached ones of a group are claimed together.
    pub(super) hit_groups: &'w [AtomicU32],
    pub(super) coefficients: &'w [AtomicU32],
    pub(super) stride: usize,
    /// Of the placement that each bank is read from, by slot; empty where reads are not verified.
    pub(super) checksums: [&'w [U32<LE>]; BANKS],
    pub(super) layer: u32,
    pub(super) arrive: A,
}

/// Where a thread goes on looking for something to claim.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    hit_group: usize,
    buffers: [usize; BANKS],
}

impl<A: Arrive> Work<'_, '_, A> {
    /// Claims one thing that is ready and computes it; false where there is nothing just now.
    pub(super) fn compute_one(&self, cursor: &mut Cursor) -> bool {
        while let Some(group) = self.hit_groups.get(cursor.hit_group) {
            cursor.hit_group += 1;
            if BufferState(group).claim() {
                self.compute_hits(cursor.hit_group - 1);
                return true;
            }
        }
        for (bank, reads) in self.reads.iter().enumerate().filter(|(bank, _)| self.needed[*bank]) {
            let mark = &mut cursor.buffers[bank];
            let submitted = self.submitted[bank].load(Ordering::Acquire) as usize;
            // Past what is claimed, and what failed without being needed.
            while *mark < submitted
                && (reads.staging.is_claimed(*mark) || reads.staging.is_free(*mark))
            {
                *mark += 1;
            }
            // No further than is worth a look each time: what is left is reached when the mark moves.
            for number in *mark..submitted.min(*mark + 2 * QUEUE_DEPTH_MAX) {
                if let Some(bytes) = reads.staging.claim(number) {
                    let later = reads.positions(number).skip(lookahead(self.stride)).map(Some);
                    for (position, later) in reads.positions(number).zip(later.chain(repeat(None)))
                    {
                        self.compute(position, later, bytes);
                    }
                    return true;
                }
            }
        }
        false
    }

    fn compute_hits(&self, group: usize) {
        let begin = group * HIT_GROUP_BUNDLES;
        for position in begin..self.places.len().min(begin + HIT_GROUP_BUNDLES) {
            if self.places[position].source == CACHED {
                let later = position + lookahead(self.stride);
                let cached = self.places.get(later).is_some_and(|place| place.source == CACHED);
                self.compute(position, cached.then_some(later), self.cells);
            }
        }
    }

    /// Computes one place; `later` is one that comes some way after it in the same bytes.
    fn compute(&self, position: usize, later: Option<usize>, bytes: &[u8]) {
        let (Some(place), Some(coefficient)) =
            (self.places.get(position), self.coefficients.get(position))
        else {
            return;
        };
        let later = later.and_then(|later| self.places.get(later));
        let bits = match self.arrive(place, later, bytes) {
            Err(_) => FAILED,
            // NaN is NaN: one that looks like a mark becomes another
            Ok(value) if matches!(value.to_bits(), PENDING | FAILED) => f32::NAN.to_bits(),
            Ok(value) => value.to_bits(),
        };
        coefficient.store(bits, Ordering::Release);
    }

    fn arrive(
        &self,
        place: &Place,
        later: Option<&Place>,
        bytes: &[u8],
    ) -> Result<f32, EngineError> {
        let bundle = bundle_of(place, bytes, self.stride)?;
        let checksums = self.checksums.get(place.source as usize);
        if let Some(expected) = checksums.and_then(|sums| sums.get(place.slot as usize)) {
            let (layer, slot) = (self.layer, place.slot);
            let (expected, found) = (expected.get(), crc32(bundle));
            if found != expected {
                return Err(EngineError::BundleDamaged { layer, slot, expected, found });
            }
        }
        let later = later.map(|later| bundle_of(later, bytes, self.stride));
        (self.arrive)(place.neuron, bundle, later.and_then(Result::ok).unwrap_or_default())
    }

    /// The bytes that a place lies in, where they have arrived: its extent's, or all cells.
    fn bytes_of(&self, place: &Place) -> Option<&[u8]> {
        if place.source == CACHED {
            return Some(self.cells);
        }
        self.reads.get(place.source as usize)?.staging.bytes_of(place.number as usize)
    }

    /// The bundle of a later place; empty where it has not arrived.
    fn later_bundle(&self, place: Option<&Place>) -> &[u8] {
        let bundle = place.and_then(|place| {
            let bytes = self.bytes_of(place)?;
            bundle_of(place, bytes, self.stride).ok()
        });
        bundle.unwrap_or_default()
    }
}

/// A bundle's bytes in those of its extent, or of all cells.
pub(super) fn bundle_of<'b>(
    place: &Place,
    bytes: &'b [u8],
    stride: usize,
) -> Result<&'b [u8], EngineError> {
    let begin =
        if place.source == CACHED { place.number as usize * stride } else { place.at as usize };
    let bundle = bytes.get(begin..).and_then(|rest| rest.get(..stride));
    bundle.ok_or(EngineError::broken("a bundle lies within its extent"))
}

/// How many bundles [`LOOKAHEAD_BYTES`] are.
const fn lookahead(stride: usize) -> usize {
    if stride == 0 { 1 } else { LOOKAHEAD_BYTES.div_ceil(stride) }
}

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

/// No coefficient is computed yet.
pub(super) fn reset(coefficients: &[AtomicU32], hit_groups: &[AtomicU32], round: usize) {
    for coefficient in coefficients.iter().take(round) {
        coefficient.store(PENDING, Ordering::Relaxed);
    }
    for group in hit_groups.iter().take(round.div_ceil(HIT_GROUP_BUNDLES)) {
        BufferState(group).make_ready();
    }
}
