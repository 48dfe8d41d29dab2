//! The engine: one layer's active set in, its bundles out, in ascending neuron id.
//!
//! [`Engine::fetch`] works in rounds, one as a rule: it finds out where each bundle is (`place`),
//! plans the reads of those that are nowhere (`placing`, `bank`), reads and computes at the same time (`round`),
//! and lets the cache keep what is worth it. [`Session`] adds what reads ahead and what computes on
//! several threads.

mod bank;
mod config;
mod placing;
mod round;
mod session;
mod stats;
mod workers;

use core::marker::PhantomData;

use lnp_format::Pack;
use zerocopy::IntoBytes;
use zerocopy::byteorder::{LE, U32};

use crate::adapt::Adapt;
use crate::arena::{Arena, StagingMemory};
use crate::cache::Cache;
use crate::error::EngineError;
use crate::limits::{BANKS, HIT_GROUP_BUNDLES, STAGING_ALIGN};
use crate::plan::{Collapse, Plan};
use crate::queue::ReadQueue;
use crate::sync::AtomicU32;
use bank::{Bank, Progress};
pub use config::{Config, Dimensions, required_bytes};
use round::{CACHED, Drained, Driver, Place, Work};
pub use session::Session;
pub use stats::{FetchStats, Latencies};
pub use workers::{Alone, Arrive, Finish, Workers};

/// An open pack on a device.
#[derive(Debug)]
pub struct Engine<'a, Q> {
    pack: Pack<'a>,
    config: Config,
    queue: Q,
    cache: Cache<'a>,
    cells: &'a mut [u8],
    places: &'a mut [Place],
    coefficients: &'a [AtomicU32],
    hit_groups: &'a [AtomicU32],
    scratch: &'a mut [u64],
    /// The first for what is asked for, the others for what is foreseen.
    banks: [Bank<'a>; BANKS],
    prefetches: u32,
    adapt: Option<Adapt>,
    latencies: Latencies,
    arena_bytes: usize,
}

impl<'a, Q: ReadQueue<'a>> Engine<'a, Q> {
    /// Opens a pack: cuts `memory` up, and has `queue` made over the staging memory.
    ///
    /// # Errors
    /// [`EngineError::Config`], [`EngineError::ArenaTooSmall`], or what `queue` says.
    pub fn open<E: From<EngineError>>(
        pack: Pack<'a>,
        config: &Config,
        memory: &'a mut [u8],
        queue: impl FnOnce(StagingMemory<'a>) -> Result<Q, E>,
    ) -> Result<Self, E> {
        let (staging, engine) = Self::cut(pack, config, memory)?;
        Ok(engine(queue(staging)?))
    }

    /// Cuts `memory` up: the staging memory, and what lacks nothing but a queue.
    fn cut(
        pack: Pack<'a>,
        config: &Config,
        memory: &'a mut [u8],
    ) -> Result<(StagingMemory<'a>, impl FnOnce(Q) -> Self), EngineError> {
        let arena_bytes = required_bytes(config, &pack)?;
        if memory.len() < arena_bytes {
            let (expected, found) = (arena_bytes, memory.len());
            return Err(EngineError::ArenaTooSmall { expected, found });
        }
        let mut arena = Arena::new(memory);
        let neurons = pack.shape().neurons as usize;
        let cells = config.cells();
        let bundles = pack.shape().bundles() as usize;
        let bank_bytes = config.bank_bytes();
        let mut staging = arena.take_bytes(bank_bytes.iter().sum(), STAGING_ALIGN)?;
        let staging_memory = StagingMemory::of(&mut staging);
        let mut bank = |bytes| {
            let (memory, rest) = core::mem::take(&mut staging).split_at_mut(bytes);
            staging = rest;
            Bank::new(&mut arena, memory, if bytes > 0 { neurons } else { 0 })
        };
        let banks = [bank(bank_bytes[0])?, bank(bank_bytes[1])?, bank(bank_bytes[2])?];
        let mut cache = Cache::new(&mut arena, bundles, cells, config.cache_policy)?;
        cache.pin(active_counts(&pack));
        let coefficients: &'a mut [AtomicU32] = arena.take(neurons)?;
        let hit_groups: &'a mut [AtomicU32] = arena.take(neurons.div_ceil(HIT_GROUP_BUNDLES))?;
        let cells = arena.take(cells.saturating_mul(pack.shape().bundle_stride as usize))?;
        let places = arena.take(neurons)?;
        let scratch = arena.take(config::scratch_entries(neurons))?;
        let config = *config;
        let engine = move |queue| Self {
            cells,
            cache,
            places,
            coefficients,
            hit_groups,
            scratch,
            banks,
            prefetches: 0,
            queue,
            adapt: match config.collapse {
                Collapse::Law(law) if config.adapt => Some(Adapt::new(law)),
                _ => None,
            },
            latencies: Latencies::default(),
            pack,
            config,
            arena_bytes,
        };
        Ok((staging_memory, engine))
    }

    /// The pack.
    pub const fn pack(&self) -> &Pack<'a> {
        &self.pack
    }

    /// The settings.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The read queue. Nothing is in flight between two calls of the engine outside a session.
    pub const fn queue(&self) -> &Q {
        &self.queue
    }

    /// Whether nothing is in flight, and nobody writes or reads the staging areas: always so between
    /// two calls of the engine outside a session.
    pub fn is_idle(&self) -> bool {
        self.queue.in_flight() == 0 && self.banks.iter().all(|bank| bank.table.staging.is_idle())
    }

    /// Bytes of the arena in use.
    pub const fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// Bundles in the cache.
    pub const fn cached_bundles(&self) -> u32 {
        self.cache.len()
    }

    /// Empties the cache.
    pub fn clear_cache(&mut self) {
        self.cache.clear();
    }

    /// The rule by which holes are read through now: that of the settings, or what adaptive collapse
    /// has come to.
    pub fn collapse(&self) -> Collapse {
        self.adapt.as_ref().map_or(self.config.collapse, |adapt| Collapse::Law(adapt.law()))
    }

    /// The same, but for the batches that explore another gap now and then.
    pub fn believed_collapse(&self) -> Collapse {
        self.adapt.as_ref().map_or(self.config.collapse, |adapt| Collapse::Law(adapt.believed()))
    }

    /// How long reads took since the engine was opened, or since [`Engine::clear_latencies`].
    pub const fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Counts reads anew.
    pub fn clear_latencies(&mut self) {
        self.latencies = Latencies::default();
    }

    /// Fetches the bundles of a layer's active neurons (ids strictly ascending) and hands each to
    /// `visit` with its neuron id, in ascending id, whatever the order of the pack, the cache, the
    /// collapse and the size of the staging area.
    ///
    /// # Errors
    /// A layer or an active set that does not fit the pack, a read that failed, a damaged bundle
    /// (with [`Config::verify_reads`]), or the first error of `visit`. The engine stays usable.
    pub fn fetch(
        &mut self,
        layer: u32,
        active: &[u32],
        mut visit: impl FnMut(u32, &[u8]) -> Result<(), EngineError> + Send,
    ) -> Result<FetchStats, EngineError>
    where
        Q: Send,
    {
        let mut finish = |neuron, _, bundle: &[u8], _: &[u8]| visit(neuron, bundle);
        self.fetch_in_phases(&Alone, layer, active, |_, _, _| Ok(0.0), &mut finish)
    }

    /// See [`Session::fetch`].
    fn fetch_in_phases(
        &mut self,
        workers: &dyn Workers,
        layer: u32,
        active: &[u32],
        arrive: impl Arrive,
        finish: &mut Finish<'_>,
    ) -> Result<FetchStats, EngineError>
    where
        Q: Send,
    {
        self.check_layer(layer)?;
        check_active(active, self.pack.shape().neurons)?;
        if self.queue.in_flight() == 0 {
            // Where a caller's code unwound out of a round within this session, all was drained.
            self.banks.iter_mut().filter(|bank| bank.in_flight()).for_each(Bank::drained);
        }
        let mut stats = FetchStats::default();
        let mut rest = active;
        let mut round = active.len();
        let mut result = Ok(());
        while !rest.is_empty() && result.is_ok() {
            // A round at most twice as long as the one before: less is planned in vain.
            let (missing, plan);
            (round, missing, plan) = self.next_round(layer, rest, round.saturating_mul(2))?;
            rest = &rest[round..];
            self.count_hits(layer, round, &mut stats);
            stats.add(&FetchStats {
                active: round as u64,
                reads: plan.reads,
                runs: plan.runs,
                merges: plan.merges,
                bytes_read: plan.bytes,
                useful_bytes: missing as u64 * u64::from(self.pack.shape().bundle_stride),
                rounds: u64::from(plan.reads > 0),
                ..FetchStats::default()
            });
            let computed = self.compute(workers, layer, round, &plan, &arrive, finish);
            result = computed.map(|driven| {
                self.keep(layer, round);
                stats.add(&driven);
            });
        }
        if let Some(bank) = self.foreseen(layer) {
            self.banks[bank].abandon();
        }
        result.map(|()| stats)
    }

    fn check_layer(&self, layer: u32) -> Result<(), EngineError> {
        let layers = self.pack.shape().layers;
        if layer < layers { Ok(()) } else { Err(EngineError::Layer { found: layer, layers }) }
    }

    /// Tells the cache which of its bundles are used.
    fn count_hits(&mut self, layer: u32, round: usize, stats: &mut FetchStats) {
        let (first_bundle, stride) =
            (layer * self.pack.shape().neurons, u64::from(self.pack.shape().bundle_stride));
        for place in &self.places[..round] {
            if place.source == CACHED {
                self.cache.hit(first_bundle + place.neuron);
                stats.hits += 1;
            }
            if (1..CACHED).contains(&place.source) {
                stats.prefetched += 1;
                // read earlier, and of use now
                stats.useful_bytes += stride;
            }
        }
    }

    /// Reads and computes what was placed. Whatever happens, nothing of what was asked for is in
    /// flight afterwards, and after an error nothing at all.
    #[allow(clippy::too_many_arguments)]
    fn compute(
        &mut self,
        workers: &dyn Workers,
        layer: u32,
        round: usize,
        plan: &Plan,
        arrive: &impl Arrive,
        finish: &mut Finish<'_>,
    ) -> Result<FetchStats, EngineError>
    where
        Q: Send,
    {
        let stride = self.pack.shape().bundle_stride as usize;
        round::reset(self.coefficients, self.hit_groups, round);
        let order = self.reading_order(layer);
        let foreseen = self.foreseen(layer);
        let checksums = [0, 1, 2].map(|bank| self.checksums(layer, &self.banks[bank].progress));
        let [a, b, c] = &mut self.banks;
        let work = Work {
            places: &self.places[..round],
            tables: [&a.table, &b.table, &c.table],
            needed: [true, foreseen == Some(1), foreseen == Some(2)],
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
        let quiet = self.queue.in_flight() == 0;
        let begin_ns = self.queue.now_ns();
        let mut driver = Driver {
            queue: Drained { queue: &mut self.queue, armed: true, borrow: PhantomData },
            progress: [&mut a.progress, &mut b.progress, &mut c.progress],
            order,
            latencies: self.config.telemetry.then_some(&mut self.latencies),
            stats: FetchStats::default(),
            end_ns: begin_ns,
            waited_last: false,
            next: 0,
        };
        let result = round::run(workers, &mut driver, &work, finish);
        let reads_ahead = driver.queue.queue.in_flight() > 0;
        // What is foreseen goes on being read, unless something went wrong.
        driver.queue.armed = result.is_err();
        let (mut stats, waited_last, end_ns) = (driver.stats, driver.waited_last, driver.end_ns);
        drop(driver);
        if let Err(error) = result {
            // All was drained: nothing is in flight, and the next round begins with empty banks.
            self.banks.iter_mut().for_each(Bank::drained);
            return Err(error);
        }
        if plan.reads > 0 || foreseen.is_some() {
            stats.io_ns = end_ns.saturating_sub(begin_ns);
            if !reads_ahead {
                stats.io_ns += self.end_batch()?;
            }
        }
        let alone = quiet && foreseen.is_none() && !reads_ahead;
        if let (Some(adapt), true) = (&mut self.adapt, alone && waited_last) {
            adapt.observe(plan.reads, plan.bytes, stats.io_ns);
        }
        Ok(stats)
    }

    /// The end of a batch: how long it takes, which on the simulated device is not nothing.
    fn end_batch(&mut self) -> Result<u64, EngineError> {
        let begin_ns = self.queue.now_ns();
        self.queue.drain()?;
        Ok(self.queue.now_ns().saturating_sub(begin_ns))
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

    /// First what is asked for, then what was foreseen of this layer, then the older, then the newer.
    fn reading_order(&self, layer: u32) -> [usize; BANKS] {
        let mut order = [0, 1, 2];
        let [_, b, c] = &self.banks;
        let swapped = match (b.progress.layer, c.progress.layer) {
            (_, Some(found)) if found == layer => true,
            (Some(found), _) if found == layer => false,
            _ => c.progress.age < b.progress.age,
        };
        if swapped {
            order.swap(1, 2);
        }
        order
    }

    /// Lets the cache take what was read. Only now: no place of this round is needed any more.
    fn keep(&mut self, layer: u32, round: usize) {
        let stride = self.pack.shape().bundle_stride as usize;
        let first_bundle = layer * self.pack.shape().neurons;
        for place in self.places[..round].iter().filter(|place| place.source != CACHED) {
            let admitted = self.cache.admit(first_bundle + place.neuron, place.run_bundles);
            let Some(cell) = admitted else { continue };
            let table = &self.banks[place.source as usize].table;
            let Some(reader) = table.staging.enter(place.number as usize) else { continue };
            let begin = cell as usize * stride;
            if let Ok(bundle) = round::bundle_of(place, &reader, stride)
                && let Some(cell) = self.cells.get_mut(begin..begin + stride)
            {
                cell.copy_from_slice(bundle);
            }
        }
    }

    /// Checks that what the queue reads begins like the pack that the views are of; whatever the
    /// pack holds is vouched for by checksums that hang on this block.
    ///
    /// # Errors
    /// [`EngineError::OtherPack`], or a read that failed.
    pub fn check_superblock(&mut self) -> Result<(), EngineError> {
        let block = self.pack.block_bytes();
        let bank = &mut self.banks[0];
        if !bank.table.staging.lay_out(core::iter::once(block.into())) {
            return Err(EngineError::OUT_OF_STEP);
        }
        let lease = bank.table.staging.lease(0).ok_or(EngineError::OUT_OF_STEP)?;
        let submitted = self.queue.submit(crate::queue::Read { file_offset: 0, lease, tag: 0 });
        let drained = self.queue.drain();
        submitted.and(drained)?;
        let bytes = bank.table.staging.enter(0).ok_or(EngineError::OUT_OF_STEP)?;
        let stored = self.pack.superblock().as_bytes();
        let length = stored.len().min(block as usize);
        if bytes.get(..length) == stored.get(..length) {
            Ok(())
        } else {
            Err(EngineError::OtherPack)
        }
    }
}

/// How often each bundle was active on the profiling trace: what the cache pins is named by this.
fn active_counts<'a>(pack: &Pack<'a>) -> impl Iterator<Item = (u32, u32)> + use<'a> {
    let shape = *pack.shape();
    let pack = *pack;
    let layers = (0..shape.layers).filter_map(move |layer| Some((layer, pack.layer(layer)?)));
    layers.flat_map(move |(layer, view)| {
        let bundles = view.neuron_of_slot().iter().map(move |id| layer * shape.neurons + id.get());
        bundles.zip(view.active_count().iter().map(|count| count.get()))
    })
}

/// Ids strictly ascending, each below `neurons`.
pub(crate) fn check_active(active: &[u32], neurons: u32) -> Result<(), EngineError> {
    let mut least = 0;
    for (position, neuron) in active.iter().enumerate() {
        if *neuron < least || *neuron >= neurons {
            return Err(EngineError::Active { position, found: *neuron, neurons });
        }
        least = neuron + 1;
    }
    Ok(())
}
