//! Beginning and finishing a layer: its rounds, of which the first is submitted early.

use core::marker::PhantomData;

use zerocopy::byteorder::{LE, U32};

use super::bank::{DEMANDED, Progress};
use super::placing::Planned;
use super::round::{self, Drained, Driver, submit};
use super::work::{self, CACHED, Work};
use super::{ActiveSet, Arrive, Engine, FetchStats, Finish, Workers};
use crate::cache::Read;
use crate::error::EngineError;
use crate::limits::HIT_GROUP_BUNDLES;
use crate::queue::{Feeder, ReadError, TimedQueue};
use crate::sync::AtomicU32;

/// A layer that was begun: its first round is placed and planned, and its reads are submitted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    pub(super) layer: u32,
    /// Of the active set: how many, the first and the last.
    active: (usize, Option<u32>, Option<u32>),
    round: usize,
    planned: Planned,
    /// Whether nothing was in flight before.
    quiet: bool,
    /// Reads of the layer that were under way before, and their bytes; of its first round.
    ahead: (u64, u64),
    begin_ns: u64,
    /// The first read that failed before it is finished.
    pub(super) failed: Option<ReadError>,
}

/// What tells one active set from another, as far as a mistake is to be found out.
fn mark(active: ActiveSet<'_>) -> (usize, Option<u32>, Option<u32>) {
    let ids = active.ids();
    (ids.len(), ids.first().copied(), ids.last().copied())
}

impl<'a, Q: TimedQueue<'a>> Engine<'a, Q> {
    /// See [`super::Session::begin`].
    pub(super) fn begin(&mut self, layer: u32, active: ActiveSet<'_>) -> Result<(), EngineError> {
        self.check_layer(layer)?;
        active.within(self.pack.shape().neurons)?;
        // What was begun and is not finished is given up.
        if self.begun.take().is_some() {
            self.settle_bank(DEMANDED);
        }
        if self.queue.in_flight() == 0 {
            // Where a caller's code unwound out of a round within this session, all was drained.
            let stopped = |bank: &&mut super::Bank<'a>| bank.in_flight();
            self.banks.0.iter_mut().filter(stopped).for_each(super::Bank::drained);
        }
        // What is not under way by now would be read by a guess that has had its time.
        let bank = self.banks.prefetched(layer).and_then(|bank| self.banks.0.get_mut(bank));
        let ahead = bank.map_or((0, 0), super::Bank::keep_submitted);
        let begun = self.begin_round(layer, active.ids(), mark(active))?;
        self.begun = Some(Begun { ahead, ..begun });
        Ok(())
    }

    /// Places, plans and submits the first round of `rest`.
    fn begin_round(
        &mut self,
        layer: u32,
        rest: &[u32],
        active: (usize, Option<u32>, Option<u32>),
    ) -> Result<Begun, EngineError> {
        let (round, planned) = self.next_round(layer, rest)?;
        let quiet = self.queue.in_flight() == 0;
        let begin_ns = self.queue.now_ns();
        let (queue, bank) = (&mut self.queue, &mut self.banks.0[DEMANDED]);
        let submitted = submit(queue, Feeder::Demanded, bank.split(), DEMANDED, begin_ns);
        if let Err(error) = submitted {
            self.settle();
            return Err(error.into());
        }
        let ahead = (0, 0);
        Ok(Begun { layer, active, round, planned, quiet, ahead, begin_ns, failed: None })
    }

    /// See [`super::Session::finish`].
    pub(super) fn finish(
        &mut self,
        workers: &dyn Workers,
        layer: u32,
        active: ActiveSet<'_>,
        arrive: impl Arrive,
        finish: &mut Finish<'_>,
    ) -> Result<FetchStats, EngineError>
    where
        Q: Send,
    {
        let fits = |begun: &Begun| begun.layer == layer && begun.active == mark(active);
        let mut begun = self.begun.filter(fits).ok_or(EngineError::NotBegun { layer })?;
        // Taken before the caller's code runs, which may unwind.
        self.begun = None;
        if let Some(error) = begun.failed {
            self.settle();
            return Err(error.into());
        }
        let mut stats = FetchStats::default();
        let mut rest = active.ids();
        let result = loop {
            if rest.is_empty() {
                break Ok(stats);
            }
            rest = &rest[begun.round..];
            self.count(&begun, &mut stats);
            match self.compute(workers, &begun, &arrive, finish) {
                Ok(driven) => stats.add(&driven),
                Err(error) => break Err(error),
            }
            self.keep(layer, begun.round);
            if !rest.is_empty() {
                match self.begin_round(layer, rest, begun.active) {
                    Ok(next) => begun = next,
                    Err(error) => break Err(error),
                }
            }
        };
        if let Some(bank) = self.banks.prefetched(layer) {
            self.banks.0[bank].abandon();
        }
        result
    }

    /// Counts what a round asks for, and tells the cache which of its bundles are used.
    fn count(&mut self, begun: &Begun, stats: &mut FetchStats) {
        let Begun { layer, round, planned: Planned { missing, plan, .. }, .. } = *begun;
        let stride = u64::from(self.pack.shape().bundle_stride);
        stats.add(&FetchStats {
            active: round as u64,
            reads: plan.reads,
            runs: plan.runs,
            merges: plan.merges,
            bytes_read: plan.bytes,
            ahead_reads: begun.ahead.0,
            ahead_bytes: begun.ahead.1,
            useful_bytes: missing as u64 * stride,
            rounds: u64::from(plan.reads > 0),
            ..FetchStats::default()
        });
        let first_bundle = layer * self.pack.shape().neurons;
        for place in &self.places[..round] {
            if place.source == CACHED {
                self.cache.hit(first_bundle + place.neuron);
                stats.hits += 1;
            } else if place.source != DEMANDED as u32 {
                stats.prefetched += 1;
                // read earlier, and of use now
                stats.useful_bytes += stride;
            }
        }
    }

    /// Reads and computes what was placed. Whatever happens, nothing of what was asked for is in
    /// flight afterwards, and after an error nothing at all.
    fn compute(
        &mut self,
        workers: &dyn Workers,
        begun: &Begun,
        arrive: &impl Arrive,
        finish: &mut Finish<'_>,
    ) -> Result<FetchStats, EngineError>
    where
        Q: Send,
    {
        let Begun { layer, round, planned: Planned { plan, .. }, quiet, begin_ns, .. } = *begun;
        let stride = self.pack.shape().bundle_stride as usize;
        work::reset(self.coefficients, self.hit_groups, round);
        let order = self.banks.reading_order(layer);
        let prefetched = self.banks.prefetched(layer);
        let checksums = [0, 1, 2].map(|bank| self.checksums(layer, &self.banks.0[bank].progress));
        let [a, b, c] = &mut self.banks.0;
        let work = Work {
            places: &self.places[..round],
            reads: [&a.reads, &b.reads, &c.reads],
            needed: [true, prefetched == Some(1), prefetched == Some(2)],
            submitted: [&a.progress, &b.progress, &c.progress]
                .map(|progress| AtomicU32::new(progress.submitted as u32)),
            broken: AtomicU32::new(0),
            cells: self.cells,
            hit_groups: &self.hit_groups[..round.div_ceil(HIT_GROUP_BUNDLES)],
            coefficients: &self.coefficients[..round],
            stride,
            checksums,
            layer,
            arrive,
        };
        let mut driver = Driver {
            queue: Drained { queue: &mut self.queue, armed: true, borrow: PhantomData },
            progress: [&mut a.progress, &mut b.progress, &mut c.progress],
            order,
            latencies: self.config.telemetry.then_some(&mut self.latencies),
            stats: FetchStats::default(),
            end_ns: begin_ns,
            waited_last: false,
            waited_ns: None,
            next: 0,
        };
        let result = round::run(workers, &mut driver, &work, finish);
        let reads_on = driver.queue.queue.in_flight() > 0;
        // What is prefetched goes on being read, unless something went wrong.
        driver.queue.armed = result.is_err();
        let (mut stats, waited_last, end_ns) = (driver.stats, driver.waited_last, driver.end_ns);
        drop(driver);
        if let Err(error) = result {
            // All was drained: nothing is in flight, and the next round begins with empty banks.
            self.banks.drained();
            return Err(error);
        }
        if self.banks.0[DEMANDED].in_flight() {
            return Err(EngineError::broken("a round ends when all that it demanded is read"));
        }
        if plan.reads > 0 || prefetched.is_some() {
            stats.io_ns = end_ns.saturating_sub(begin_ns);
            if !reads_on {
                stats.io_ns += self.end_batch();
            }
        }
        let alone = quiet && prefetched.is_none() && !reads_on;
        if let (Some(adapt), true) = (&mut self.adapt, alone && waited_last) {
            adapt.observe(plan.reads, plan.bytes, stats.io_ns);
        }
        Ok(stats)
    }

    /// The end of a batch: how long it takes, which on the simulated device is not nothing.
    fn end_batch(&mut self) -> u64 {
        let begin_ns = self.queue.now_ns();
        self.queue.end_batch();
        self.queue.now_ns().saturating_sub(begin_ns)
    }

    /// What bundles read into a bank are checked against, by slot; nothing where reads are not
    /// verified, or the bank's are of another layer.
    fn checksums(&self, layer: u32, progress: &Progress<'_>) -> &'a [U32<LE>] {
        if !self.config.verify_reads || progress.layer != Some(layer) {
            return &[];
        }
        let view = self.pack.placement(layer, progress.placement);
        view.map_or(&[][..], |view| view.bundle_checksums())
    }

    /// Lets the cache take what was read. Only now: no place of this round is needed any more.
    fn keep(&mut self, layer: u32, round: usize) {
        let stride = self.pack.shape().bundle_stride as usize;
        let first_bundle = layer * self.pack.shape().neurons;
        for place in self.places[..round].iter().filter(|place| place.source != CACHED) {
            let reads = &self.banks.0[place.source as usize].reads;
            let extent = reads.extent(place.number as usize);
            let read_bundles = extent.map_or(1, |extent| extent.count);
            let read = Read { run_bundles: place.run_bundles, read_bundles };
            let Some(cell) = self.cache.admit_read(first_bundle + place.neuron, read) else {
                continue;
            };
            let Some(bytes) = reads.staging.bytes_of(place.number as usize) else { continue };
            let begin = cell as usize * stride;
            if let Ok(bundle) = work::bundle_of(place, bytes, stride)
                && let Some(cell) = self.cells.get_mut(begin..begin + stride)
            {
                cell.copy_from_slice(bundle);
            }
        }
    }
}
