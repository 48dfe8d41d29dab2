//! The settings of an engine, and the memory that they ask for.

use lnp_format::{Pack, Peek, Shape};

use super::bank::Bank;
use super::work::Place;
use crate::arena::ArenaSize;
use crate::cache::{Cache, CachePolicy};
use crate::choose;
use crate::error::EngineError;
use crate::limits::{
    ARENA_ALIGN, BANKS, CACHE_BUNDLES_MAX, HIT_GROUP_BUNDLES, QUEUE_DEPTH_DEFAULT, QUEUE_DEPTH_MAX,
    READ_BYTES_DEFAULT, READ_BYTES_MAX, STAGING_ALIGN, STAGING_BYTES_MAX,
};
use crate::plan::{Collapse, Geometry, scratch_len};
use crate::sync::AtomicU32;

/// What of a pack the memory depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dimensions {
    /// The model shape.
    pub shape: Shape,
    /// Bytes of a block.
    pub block_bytes: u32,
}

impl From<&Pack<'_>> for Dimensions {
    fn from(pack: &Pack<'_>) -> Self {
        Self { shape: *pack.shape(), block_bytes: pack.block_bytes() }
    }
}

impl From<&Peek> for Dimensions {
    fn from(peek: &Peek) -> Self {
        Self { shape: peek.shape, block_bytes: peek.block_bytes }
    }
}

/// The settings of an engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// When neighbouring extents become one read.
    pub collapse: Collapse,
    /// Whether the law of [`Collapse::Law`] is only where to begin: the engine then learns the
    /// device's own from its completions (*adaptive collapse*).
    pub adapt: bool,
    /// Bundles that the cache holds; 0 for none.
    pub cache_bundles: u32,
    /// Which bundles stay in the cache.
    pub cache_policy: CachePolicy,
    /// Bytes of the staging area, where reads land. The less, the more often a layer is read in
    /// several rounds; the results are the same bits. [`Config::staging_bytes_min`] and
    /// [`Config::staging_bytes_full`] say what makes sense.
    pub staging_bytes: usize,
    /// Bytes of each of the two staging areas for [`super::Session::prefetch`]; 0 for none.
    pub prefetch_bytes: usize,
    /// Reads in flight.
    pub queue_depth: u32,
    /// The device's best size of a read, bytes, a multiple of the block: longer extents are cut, and
    /// neighbours merged up to it.
    pub read_bytes_max: u32,
    /// Checks every bundle read against its checksum.
    pub verify_reads: bool,
    /// Notes how long each read takes ([`super::Engine::latencies`]).
    pub telemetry: bool,
}

impl Config {
    /// Settings for a pack: no cache, no collapse, a whole layer in one round where it fits.
    pub fn new(pack: impl Into<Dimensions>) -> Self {
        Self {
            collapse: Collapse::Off,
            adapt: false,
            cache_bundles: 0,
            cache_policy: CachePolicy::default(),
            staging_bytes: Self::staging_bytes_full(pack).min(STAGING_BYTES_MAX),
            prefetch_bytes: 0,
            queue_depth: QUEUE_DEPTH_DEFAULT,
            read_bytes_max: READ_BYTES_DEFAULT,
            verify_reads: false,
            telemetry: true,
        }
    }

    /// The least staging area: one bundle, rounded out to blocks.
    pub fn staging_bytes_min(pack: impl Into<Dimensions>) -> usize {
        let Dimensions { shape, block_bytes } = pack.into();
        let block = block_bytes as usize;
        (shape.bundle_stride as usize).next_multiple_of(block) + block
    }

    /// The staging area that holds a whole layer, as [`Collapse::Whole`] reads it in reads of
    /// [`READ_BYTES_DEFAULT`].
    pub fn staging_bytes_full(pack: impl Into<Dimensions>) -> usize {
        Self::staging_bytes_full_with(pack, READ_BYTES_DEFAULT)
    }

    /// The same in reads of at most `read_bytes_max`.
    pub fn staging_bytes_full_with(pack: impl Into<Dimensions>, read_bytes_max: u32) -> usize {
        geometry(pack.into(), read_bytes_max).whole_bytes().try_into().unwrap_or(usize::MAX)
    }

    /// How a pack's bundles lie, and how long a read may be: what the planner works from, of the placement with the most
    /// slots.
    pub fn geometry(&self, pack: impl Into<Dimensions>) -> Geometry {
        geometry(pack.into(), self.read_bytes_max)
    }

    pub(super) fn check(&self, pack: Dimensions) -> Result<(), EngineError> {
        let rule = |ok: bool, field, rule, found: u64| {
            if ok { Ok(()) } else { Err(EngineError::Config { field, rule, found }) }
        };
        let staging = self.staging_bytes;
        let depth = u64::from(self.queue_depth);
        let depth_fits = (1..=QUEUE_DEPTH_MAX as u64).contains(&depth);
        rule(depth_fits, "queue_depth", "must be 1 to 256", depth)?;
        let cells = u64::from(self.cache_bundles);
        rule(cells <= CACHE_BUNDLES_MAX.into(), "cache_bundles", "must be at most 2^29", cells)?;
        let read = self.read_bytes_max;
        let read_fits =
            read.is_multiple_of(pack.block_bytes) && (1..=READ_BYTES_MAX).contains(&read);
        let read_rule = "must be a multiple of the block, at most 2^24";
        rule(read_fits, "read_bytes_max", read_rule, read.into())?;
        let learns = !self.adapt || matches!(self.collapse, Collapse::Law(_));
        rule(learns, "adapt", "needs collapse by a law to begin with", self.adapt.into())?;
        let most = STAGING_BYTES_MAX as u64;
        let all = self.staging_bytes_all();
        rule(all <= most, "staging_bytes", "must be at most 2^30, prefetch included", all)?;
        let blocks = self.prefetch_bytes.is_multiple_of(STAGING_ALIGN);
        let blocks_rule = "must be a multiple of 4096";
        rule(blocks, "prefetch_bytes", blocks_rule, self.prefetch_bytes as u64)?;
        let full = Self::staging_bytes_full_with(pack, read);
        let least = match self.collapse {
            Collapse::Whole => full,
            _ => Self::staging_bytes_min(pack).min(full),
        };
        rule(staging >= least, "staging_bytes", "is too small for the pack", staging as u64)
    }

    /// Cells of the cache.
    pub(super) const fn cells(&self) -> usize {
        match self.cache_policy {
            CachePolicy::None => 0,
            _ => self.cache_bundles as usize,
        }
    }

    /// Bytes of all staging areas together.
    const fn staging_bytes_all(&self) -> u64 {
        (self.prefetch_bytes as u64).saturating_mul(2).saturating_add(self.staging_bytes as u64)
    }

    /// Bytes of each bank's staging area. The first is rounded up so that the next begins aligned.
    pub(super) fn bank_bytes(&self) -> [usize; BANKS] {
        let asked = self.staging_bytes.next_multiple_of(STAGING_ALIGN);
        [asked, self.prefetch_bytes, self.prefetch_bytes]
    }
}

/// Bytes of the arena that an engine with these settings needs.
///
/// # Errors
/// [`EngineError::Config`] for a setting that breaks its rule.
pub fn required_bytes(config: &Config, pack: impl Into<Dimensions>) -> Result<usize, EngineError> {
    let dimensions = pack.into();
    config.check(dimensions)?;
    let shape = dimensions.shape;
    let neurons = shape.neurons as usize;
    let cells = config.cells();
    let mut size = ArenaSize::default();
    size.add_bytes(config.bank_bytes().iter().sum(), STAGING_ALIGN);
    size.add_bytes(cells.saturating_mul(shape.bundle_stride as usize), ARENA_ALIGN);
    Cache::size(&mut size, shape.bundles() as usize, cells, config.cache_policy);
    size.add::<Place>(neurons);
    size.add::<AtomicU32>(neurons);
    size.add::<AtomicU32>(neurons.div_ceil(HIT_GROUP_BUNDLES));
    size.add::<u64>(scratch_entries(&shape));
    size.add::<u32>(shape.layers as usize);
    for bytes in config.bank_bytes() {
        Bank::size(&mut size, if bytes > 0 { shape.slots as usize } else { 0 });
    }
    Ok(size.bytes())
}

/// Entries of the scratch: what is to be read of a layer, and either the planner's or what choosing among copies takes.
pub(super) fn scratch_entries(shape: &Shape) -> usize {
    let neurons = shape.neurons as usize;
    let choosing = if shape.has_copies() { choose::scratch_len(shape.slots) } else { 0 };
    neurons + scratch_len(neurons).max(choosing)
}

fn geometry(pack: Dimensions, read_bytes_max: u32) -> Geometry {
    Geometry {
        bundle_stride: pack.shape.bundle_stride,
        block_bytes: pack.block_bytes,
        slots: pack.shape.slots,
        read_bytes_max,
    }
}
