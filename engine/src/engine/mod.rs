//! The engine: one layer's active set in, its bundles out, in ascending neuron id.
//!
//! [`Engine::fetch`] begins and finishes a layer. To begin is to find out where each bundle is and to plan the reads of
//! those that are nowhere (`placing`, `bank`), and to submit them (`begin`); to finish, to read and compute at the
//! same time (`round`), and to let the cache keep what is worth it. Where the staging area is too small for the
//! set, that happens in several rounds. [`Session`] lets a caller do something between the two, prefetch other layers
//! (`prefetch`), leave out what is not worth its device time
//! (`leave_out`), and compute on several threads.

mod active;
mod bank;
mod begin;
mod config;
mod cut;
mod leave_out;
mod placing;
mod prefetch;
mod round;
mod session;
mod stats;
mod work;
mod workers;

use lnp_format::Pack;
use zerocopy::IntoBytes;

use crate::adapt::Adapt;
use crate::arena::{Arena, StagingMemory};
use crate::cache::Cache;
use crate::error::EngineError;
use crate::limits::{ARENA_ALIGN, HIT_GROUP_BUNDLES, STAGING_ALIGN};
use crate::plan::Collapse;
use crate::queue::{Read, ReadLog, TimedQueue, drain};
use crate::sync::AtomicU32;
pub use active::ActiveSet;
use bank::{Bank, Banks, DEMANDED};
use begin::Begun;
pub use config::{Config, Dimensions, required_bytes};
pub use leave_out::{LeaveOut, LeftOut};
pub use placing::Whereabouts;
pub use session::Session;
pub use stats::{FetchStats, Latencies};
use work::Place;
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
    banks: Banks<'a>,
    /// The layer that was begun and is not finished.
    begun: Option<Begun>,
    /// Of each layer, the bytes that a bundle took where the staging area was too small; 0 where it was not.
    round_bytes: &'a mut [u32],
    adapt: Option<Adapt>,
    latencies: Latencies,
    arena_bytes: usize,
}

impl<'a, Q: TimedQueue<'a>> Engine<'a, Q> {
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
        let slots = pack.shape().slots as usize;
        let cells = config.cells();
        let bundles = pack.shape().bundles() as usize;
        let bank_bytes = config.bank_bytes();
        let mut staging = arena.take_bytes(bank_bytes.iter().sum(), STAGING_ALIGN)?;
        let staging_memory = StagingMemory::of(&mut staging);
        let mut bank = |bytes| {
            let (memory, rest) = core::mem::take(&mut staging).split_at_mut(bytes);
            staging = rest;
            Bank::new(&mut arena, memory, if bytes > 0 { slots } else { 0 })
        };
        let banks = Banks([bank(bank_bytes[0])?, bank(bank_bytes[1])?, bank(bank_bytes[2])?]);
        let mut cache = Cache::new(&mut arena, bundles, cells, config.cache_policy)?;
        cache.pin(active_counts(&pack));
        let coefficients: &'a mut [AtomicU32] = arena.take(neurons)?;
        let hit_groups: &'a mut [AtomicU32] = arena.take(neurons.div_ceil(HIT_GROUP_BUNDLES))?;
        let cell_bytes = cells.saturating_mul(pack.shape().bundle_stride as usize);
        let cells = arena.take_bytes(cell_bytes, ARENA_ALIGN)?;
        let places = arena.take(neurons)?;
        let scratch = arena.take(config::scratch_entries(pack.shape()))?;
        let round_bytes = arena.take(pack.shape().layers as usize)?;
        let config = *config;
        let engine = move |queue| Self {
            cells,
            cache,
            places,
            coefficients,
            hit_groups,
            scratch,
            banks,
            begun: None,
            round_bytes,
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

    /// The log of the queue's reads, where it keeps one: [`crate::queue::Logged`] does.
    pub fn read_log(&mut self) -> Option<&mut ReadLog<'a>> {
        self.queue.log()
    }

    /// Whether nothing is in flight, and nobody writes or reads the staging areas: always so between
    /// two calls of the engine outside a session.
    pub fn is_idle(&self) -> bool {
        self.queue.in_flight() == 0 && self.banks.0.iter().all(|bank| bank.reads.staging.is_idle())
    }

    /// Bytes of the arena in use.
    pub const fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// Bundles in the cache.
    pub const fn cached_bundles(&self) -> u32 {
        self.cache.len()
    }

    /// The neurons of a layer, ascending, that the cache keeps once they were read; none where its policy pins
    /// nothing. To fetch them is to warm the cache.
    pub fn hot(&self, layer: u32) -> impl Iterator<Item = u32> + '_ {
        let neurons = self.pack.shape().neurons;
        let layer_of = move |bundle: u32| bundle / neurons.max(1);
        let hot = self.cache.hot();
        let begin = hot.partition_point(|bundle| layer_of(*bundle) < layer);
        let rest = hot.get(begin..).unwrap_or_default();
        let of_layer = rest.iter().take_while(move |bundle| layer_of(**bundle) == layer);
        of_layer.map(move |bundle| bundle % neurons.max(1))
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
        let active = ActiveSet::new(active, self.pack.shape().neurons)?;
        self.begin(layer, active)?;
        let mut finish = |neuron, _, bundle: &[u8], _: &[u8]| visit(neuron, bundle);
        self.finish(&Alone, layer, active, |_, _, _| Ok(0.0), &mut finish)
    }

    fn check_layer(&self, layer: u32) -> Result<(), EngineError> {
        let layers = self.pack.shape().layers;
        if layer < layers { Ok(()) } else { Err(EngineError::Layer { found: layer, layers }) }
    }

    /// Checks that what the queue reads begins like the pack that the views are of; whatever the
    /// pack holds is vouched for by checksums that hang on this block.
    ///
    /// # Errors
    /// [`EngineError::OtherPack`], or a read that failed.
    pub fn check_superblock(&mut self) -> Result<(), EngineError> {
        let block = self.pack.block_bytes();
        let staging = &mut self.banks.0[DEMANDED].reads.staging;
        let laid_out = staging.lay_out(core::iter::once(block.into()));
        let lease = staging.lease(0).filter(|_| laid_out);
        let lease = lease.ok_or(EngineError::broken("a block fits into an idle staging area"))?;
        let submitted = self.queue.submit(Read { file_offset: 0, lease, tag: 0 });
        let drained = drain(&mut self.queue);
        submitted.and(drained)?;
        let bytes = staging.bytes_of(0);
        let bytes = bytes.ok_or(EngineError::broken("what was read is there"))?;
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
        let slots = (0..).zip(view.neuron_of_slot().iter().zip(view.active_count()));
        // Each neuron once, by its first slot.
        let is_first = move |slot: u32, id: u32| {
            view.slot_of_neuron().get(id as usize).is_some_and(|first| first.get() == slot)
        };
        slots
            .filter(move |(slot, (id, _))| is_first(*slot, id.get()))
            .map(move |(_, (id, count))| (layer * shape.neurons + id.get(), count.get()))
    })
}
