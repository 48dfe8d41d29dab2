//! The engine: one layer's active set in, its bundles out, in ascending neuron id.

use lnp_format::{Layer, Pack, checksum::crc32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::arena::{Arena, ArenaSize};
use crate::cache::{Cache, CachePolicy};
use crate::error::EngineError;
use crate::limits::{
    CACHE_BUNDLES_MAX, QUEUE_DEPTH_DEFAULT, QUEUE_DEPTH_MAX, READ_BYTES_MAX, STAGING_ALIGN,
    STAGING_BYTES_MAX,
};
use crate::plan::{Collapse, Extent, Geometry, Plan, plan};
use crate::queue::{Read, ReadError, ReadFailure, ReadQueue};

/// The settings of an engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// When neighbouring extents become one read.
    pub collapse: Collapse,
    /// Bundles that the cache holds; 0 for none.
    pub cache_bundles: u32,
    /// Which bundles those are.
    pub cache_policy: CachePolicy,
    /// Bytes of the staging area, where reads land. The less, the more often a layer is read in
    /// several rounds; the results are the same bits. [`Config::staging_bytes_min`] and
    /// [`Config::staging_bytes_full`] say what makes sense.
    pub staging_bytes: usize,
    /// Reads in flight.
    pub queue_depth: u32,
    /// Checks every bundle read against its checksum.
    pub verify_reads: bool,
}

impl Config {
    /// Settings for a pack: no cache, no collapse, a whole layer in one round where it fits.
    pub fn new(pack: &Pack<'_>) -> Self {
        Self {
            collapse: Collapse::Off,
            cache_bundles: 0,
            cache_policy: CachePolicy::default(),
            staging_bytes: Self::staging_bytes_full(pack).min(STAGING_BYTES_MAX),
            queue_depth: QUEUE_DEPTH_DEFAULT,
            verify_reads: false,
        }
    }

    /// The least staging area: one bundle, rounded out to blocks.
    pub fn staging_bytes_min(pack: &Pack<'_>) -> usize {
        let block = pack.block_bytes() as usize;
        (pack.shape().bundle_stride as usize).next_multiple_of(block) + block
    }

    /// The staging area that holds a whole layer.
    pub fn staging_bytes_full(pack: &Pack<'_>) -> usize {
        let block = u64::from(pack.block_bytes());
        pack.shape().region_bytes().next_multiple_of(block).try_into().unwrap_or(usize::MAX)
    }

    /// Cells of the cache: none where the policy keeps nothing.
    const fn cells(&self) -> usize {
        match self.cache_policy {
            CachePolicy::None => 0,
            _ => self.cache_bundles as usize,
        }
    }

    fn check(&self, pack: &Pack<'_>) -> Result<(), EngineError> {
        let rule = |ok: bool, field, rule, found: u64| {
            if ok { Ok(()) } else { Err(EngineError::Config { field, rule, found }) }
        };
        let staging = self.staging_bytes;
        let depth = u64::from(self.queue_depth);
        rule(
            (1..=QUEUE_DEPTH_MAX as u64).contains(&depth),
            "queue_depth",
            "must be 1 to 256",
            depth,
        )?;
        let cells = u64::from(self.cache_bundles);
        rule(cells <= CACHE_BUNDLES_MAX.into(), "cache_bundles", "must be at most 2^29", cells)?;
        rule(
            staging <= STAGING_BYTES_MAX,
            "staging_bytes",
            "must be at most 2^30",
            staging as u64,
        )?;
        let least = match self.collapse {
            Collapse::Whole => Self::staging_bytes_full(pack),
            _ => Self::staging_bytes_min(pack).min(Self::staging_bytes_full(pack)),
        };
        rule(staging >= least, "staging_bytes", "is too small for the pack", staging as u64)
    }
}

/// Where a bundle of the active set is.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Place {
    /// Neuron id.
    neuron: u32,
    /// Its slot.
    slot: u32,
    /// First byte in the staging area, or the cell of the cache.
    at: u32,
    /// 1 where `at` is a cell.
    cached: u32,
    /// Where it is not: bundles of the run of adjacent slots that it was read in.
    run_bundles: u32,
}

/// Bytes of the arena that an engine with these settings needs.
///
/// # Errors
/// [`EngineError::Config`] for a setting that breaks its rule.
pub fn required_bytes(config: &Config, pack: &Pack<'_>) -> Result<usize, EngineError> {
    config.check(pack)?;
    let neurons = pack.shape().neurons as usize;
    let cells = config.cells();
    let mut size = ArenaSize::default();
    size.add_bytes(config.staging_bytes, STAGING_ALIGN);
    size.add::<u8>(cells.saturating_mul(pack.shape().bundle_stride as usize));
    Cache::size(&mut size, pack.shape().bundles() as usize, cells, config.cache_policy);
    size.add::<Place>(neurons);
    size.add::<u64>(neurons);
    size.add::<u32>(neurons);
    size.add::<Extent>(neurons);
    size.add::<u64>(neurons);
    Ok(size.bytes())
}

/// What fetching did. Sums up over layers and tokens with [`FetchStats::add`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchStats {
    /// Active bundles asked for.
    pub active: u64,
    /// Of them, found in the cache.
    pub hits: u64,
    /// Reads.
    pub reads: u64,
    /// Runs of adjacent slots among the bundles that were read, counted in each round by itself.
    pub runs: u64,
    /// Bytes read, block rounding and holes included.
    pub bytes_read: u64,
    /// Bytes of the active bundles that were read.
    pub useful_bytes: u64,
    /// Rounds of reads; more than one a layer where the staging area is small.
    pub rounds: u64,
    /// From the first submission to the last completion, nanoseconds.
    pub io_ns: u64,
}

impl FetchStats {
    /// Adds another fetch.
    pub const fn add(&mut self, other: &Self) {
        self.active += other.active;
        self.hits += other.hits;
        self.reads += other.reads;
        self.runs += other.runs;
        self.bytes_read += other.bytes_read;
        self.useful_bytes += other.useful_bytes;
        self.rounds += other.rounds;
        self.io_ns += other.io_ns;
    }
}

/// An open pack on a device.
#[derive(Debug)]
pub struct Engine<'a, Q> {
    pack: Pack<'a>,
    config: Config,
    queue: Q,
    cache: Cache<'a>,
    cells: &'a mut [u8],
    places: &'a mut [Place],
    /// Slot and position in `places` of each bundle to be read: sorts by slot.
    missing: &'a mut [u64],
    slots: &'a mut [u32],
    extents: &'a mut [Extent],
    holes: &'a mut [u64],
    arena_bytes: usize,
}

impl<'a, Q: ReadQueue> Engine<'a, Q> {
    /// Opens a pack: cuts `memory` up, and has `queue` made over the staging area.
    ///
    /// # Errors
    /// [`EngineError::Config`], [`EngineError::ArenaTooSmall`], or what `queue` says.
    pub fn open<E: From<EngineError>>(
        pack: Pack<'a>,
        config: &Config,
        memory: &'a mut [u8],
        queue: impl FnOnce(&'a mut [u8]) -> Result<Q, E>,
    ) -> Result<Self, E> {
        let arena_bytes = required_bytes(config, &pack)?;
        if memory.len() < arena_bytes {
            let (expected, found) = (arena_bytes, memory.len());
            return Err(EngineError::ArenaTooSmall { expected, found }.into());
        }
        let mut arena = Arena::new(memory);
        let neurons = pack.shape().neurons as usize;
        let cells = config.cells();
        let staging = arena.take_bytes(config.staging_bytes, STAGING_ALIGN)?;
        let bundle_cells = arena.take(cells.saturating_mul(pack.shape().bundle_stride as usize))?;
        let bundles = pack.shape().bundles() as usize;
        let mut cache = Cache::new(&mut arena, bundles, cells, config.cache_policy)?;
        cache.pin(active_counts(&pack));
        Ok(Self {
            cells: bundle_cells,
            cache,
            places: arena.take(neurons)?,
            missing: arena.take(neurons)?,
            slots: arena.take(neurons)?,
            extents: arena.take(neurons)?,
            holes: arena.take(neurons)?,
            queue: queue(staging)?,
            pack,
            config: *config,
            arena_bytes,
        })
    }

    /// The pack.
    pub const fn pack(&self) -> &Pack<'a> {
        &self.pack
    }

    /// The settings.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The read queue. Nothing is in flight between two calls of the engine.
    pub const fn queue(&self) -> &Q {
        &self.queue
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
        mut visit: impl FnMut(u32, &[u8]) -> Result<(), EngineError>,
    ) -> Result<FetchStats, EngineError> {
        let shape = self.pack.shape();
        let view = self
            .pack
            .layer(layer)
            .ok_or(EngineError::Layer { found: layer, layers: shape.layers })?;
        check_active(active, shape.neurons)?;
        let mut stats = FetchStats::default();
        let mut rest = active;
        let mut round = active.len();
        while !rest.is_empty() {
            // A round at most twice as long as the one before: less is planned in vain.
            let (missing, plan);
            (round, missing, plan) = self.next_round(layer, &view, rest, round.saturating_mul(2));
            rest = &rest[round..];
            self.count_hits(layer, round);
            let begin_ns = self.queue.now_ns();
            self.read(view.region_offset(), plan.extents)?;
            let io_ns = self.queue.now_ns() - begin_ns;
            self.locate(missing);
            if self.config.verify_reads {
                self.verify(layer, &view, missing)?;
            }
            self.hand_out(round, &mut visit)?;
            self.note_runs(missing);
            self.keep(layer, round);
            stats.add(&FetchStats {
                active: round as u64,
                hits: (round - missing) as u64,
                reads: plan.reads,
                runs: plan.runs,
                bytes_read: plan.bytes,
                useful_bytes: missing as u64 * u64::from(self.pack.shape().bundle_stride),
                rounds: u64::from(plan.reads > 0),
                io_ns,
            });
        }
        Ok(stats)
    }

    /// Places and plans as much of `active` as the staging area takes: at most `most`, or else a
    /// half, a quarter and so on. Taking it from the front keeps the ids ascending over all rounds.
    /// Returns how many, and how many of them are not in the cache.
    fn next_round(
        &mut self,
        layer: u32,
        view: &Layer<'_>,
        active: &[u32],
        most: usize,
    ) -> (usize, usize, Plan) {
        let mut round = active.len().min(most);
        loop {
            let missing = self.place(layer, view, &active[..round]);
            let slots = &self.slots[..missing];
            let geometry = self.geometry();
            let plan = plan(slots, &geometry, &self.config.collapse, self.extents, self.holes);
            // One bundle always fits: `Config::check` saw to it.
            if plan.bytes <= self.config.staging_bytes as u64 || round == 1 {
                return (round, missing, plan);
            }
            round = round.div_ceil(2);
        }
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            bundle_stride: self.pack.shape().bundle_stride,
            block_bytes: self.pack.block_bytes(),
            neurons: self.pack.shape().neurons,
            read_bytes_max: READ_BYTES_MAX,
        }
    }

    /// Fills `places` in neuron order, `missing` and `slots` in slot order; returns how many are
    /// not in the cache.
    fn place(&mut self, layer: u32, view: &Layer<'_>, active: &[u32]) -> usize {
        let first_bundle = layer * self.pack.shape().neurons;
        let mut missing = 0;
        for (position, neuron) in active.iter().enumerate() {
            let slot = view.slot_of_neuron()[*neuron as usize].get();
            let cell = self.cache.peek(first_bundle + neuron);
            let (at, cached) = (cell.unwrap_or(0), u32::from(cell.is_some()));
            self.places[position] = Place { neuron: *neuron, slot, at, cached, run_bundles: 0 };
            if cell.is_none() {
                self.missing[missing] = (u64::from(slot) << 32) | position as u64;
                missing += 1;
            }
        }
        self.missing[..missing].sort_unstable();
        for (slot, missing) in self.slots.iter_mut().zip(&self.missing[..missing]) {
            *slot = (missing >> 32) as u32;
        }
        missing
    }

    /// Tells the cache which of its bundles are used.
    fn count_hits(&mut self, layer: u32, round: usize) {
        let first_bundle = layer * self.pack.shape().neurons;
        for place in self.places[..round].iter().filter(|place| place.cached == 1) {
            self.cache.hit(first_bundle + place.neuron);
        }
    }

    /// Checks that what the queue reads begins like the pack that the views are of; whatever the
    /// pack holds is vouched for by checksums that hang on this block.
    ///
    /// # Errors
    /// [`EngineError::OtherPack`], or a read that failed.
    pub fn check_superblock(&mut self) -> Result<(), EngineError> {
        let block = self.pack.block_bytes();
        self.extents[0] = Extent { begin: 0, end: block.into(), staging_offset: 0 };
        self.read(0, 1)?;
        let stored = self.pack.superblock().as_bytes();
        let length = stored.len().min(block as usize);
        let found = self.queue.staging().and_then(|staging| staging.get(..length));
        if found == stored.get(..length) { Ok(()) } else { Err(EngineError::OtherPack) }
    }

    /// Reads the planned extents. Whatever happens, nothing is in flight afterwards.
    fn read(&mut self, region_offset: u64, extents: usize) -> Result<(), EngineError> {
        let result = self.submit_all(region_offset, extents);
        let drained = self.queue.drain();
        result.and(drained.map_err(EngineError::from))
    }

    fn submit_all(&mut self, region_offset: u64, extents: usize) -> Result<(), EngineError> {
        let read_bytes_max = self.geometry().read_bytes_max;
        let mut tag = 0;
        for extent in &self.extents[..extents] {
            let mut done = 0;
            while done < extent.bytes() {
                if self.queue.in_flight() == self.queue.depth() {
                    self.queue.complete()?;
                }
                let bytes = (extent.bytes() - done).min(read_bytes_max.into());
                self.queue.submit(&Read {
                    file_offset: region_offset + extent.begin + done,
                    bytes: bytes as u32,
                    staging_offset: (extent.staging_offset + done) as usize,
                    tag,
                })?;
                done += bytes;
                tag += 1;
            }
        }
        Ok(())
    }

    /// Notes where in the staging area each missing bundle is: one walk over slots and extents.
    fn locate(&mut self, missing: usize) {
        let stride = u64::from(self.pack.shape().bundle_stride);
        let mut extents = self.extents.iter();
        let mut extent = Extent::default();
        for (slot, missing) in self.slots.iter().zip(&self.missing[..missing]) {
            let first = u64::from(*slot) * stride;
            while extent.end <= first {
                let Some(next) = extents.next() else { return };
                extent = *next;
            }
            let position = (missing & u64::from(u32::MAX)) as usize;
            self.places[position].at = (extent.staging_offset + first - extent.begin) as u32;
        }
    }

    /// Checks the bundles that were read.
    fn verify(&self, layer: u32, view: &Layer<'_>, missing: usize) -> Result<(), EngineError> {
        for missing in &self.missing[..missing] {
            let place = &self.places[(missing & u64::from(u32::MAX)) as usize];
            let expected = view.bundle_checksums()[place.slot as usize].get();
            let found = crc32(self.bundle(place)?);
            if found != expected {
                let slot = place.slot;
                return Err(EngineError::BundleDamaged { layer, slot, expected, found });
            }
        }
        Ok(())
    }

    /// The bytes of a placed bundle. The error stands for what cannot be: reads in flight.
    fn bundle(&self, place: &Place) -> Result<&[u8], EngineError> {
        let stride = self.pack.shape().bundle_stride as usize;
        let (source, begin) = if place.cached == 1 {
            (Some(&*self.cells), place.at as usize * stride)
        } else {
            (self.queue.staging(), place.at as usize)
        };
        let failure = ReadFailure::OutsideStaging;
        source
            .and_then(|source| source.get(begin..begin + stride))
            .ok_or(EngineError::Read(ReadError::of(&Read::default(), failure)))
    }

    fn hand_out(
        &self,
        round: usize,
        visit: &mut impl FnMut(u32, &[u8]) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        self.places[..round].iter().try_for_each(|place| visit(place.neuron, self.bundle(place)?))
    }

    /// Notes of each missing bundle how long the run is that it was read in: the cache asks.
    fn note_runs(&mut self, missing: usize) {
        let mut rest = &self.missing[..missing];
        for run in self.slots[..missing].chunk_by(|slot, next| slot + 1 == *next) {
            let (of_run, after) = rest.split_at(run.len());
            for missing in of_run {
                let position = (missing & u64::from(u32::MAX)) as usize;
                self.places[position].run_bundles = run.len() as u32;
            }
            rest = after;
        }
    }

    /// Lets the cache take what was read. Only now: no place of this round is needed any more.
    fn keep(&mut self, layer: u32, round: usize) {
        let stride = self.pack.shape().bundle_stride as usize;
        let first_bundle = layer * self.pack.shape().neurons;
        let Some(staging) = self.queue.staging() else { return };
        for place in self.places[..round].iter().filter(|place| place.cached == 0) {
            let bundle = first_bundle + place.neuron;
            let Some(cell) = self.cache.admit(bundle, place.run_bundles) else { continue };
            let source = &staging[place.at as usize..place.at as usize + stride];
            self.cells[cell as usize * stride..(cell as usize + 1) * stride]
                .copy_from_slice(source);
        }
    }
}

/// Of every bundle, in how many tokens of the pack's profile it was active.
fn active_counts<'a>(pack: &Pack<'a>) -> impl Iterator<Item = (u32, u32)> {
    let shape = pack.shape();
    let layers = (0..shape.layers).filter_map(|layer| Some((layer, pack.layer(layer)?)));
    layers.flat_map(move |(layer, view)| {
        let bundles = view.neuron_of_slot().iter().map(move |id| layer * shape.neurons + id.get());
        bundles.zip(view.active_count().iter().map(|count| count.get()))
    })
}

/// Ids strictly ascending, each below `neurons`.
fn check_active(active: &[u32], neurons: u32) -> Result<(), EngineError> {
    let mut least = 0;
    for (position, neuron) in active.iter().enumerate() {
        if *neuron < least || *neuron >= neurons {
            return Err(EngineError::Active { position, found: *neuron, neurons });
        }
        least = neuron + 1;
    }
    Ok(())
}
