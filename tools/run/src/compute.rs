//! A pack opened to compute a model's FFN with: its file, memory, engine and kernels. The one place
//! where they come together; every command that computes from a pack goes through it.

use anyhow::{Context, Result};
use lnp_engine::ffn::Ffn;
pub use lnp_engine::limits::GAP_BYTES_USUAL;
use lnp_engine::limits::{BATCH_TOKENS_MAX, QUEUE_DEPTH_DEFAULT};
use lnp_engine::queue::{Logged, ReadLog, ReadNote, TimedQueue};
use lnp_engine::sys::{DeviceQueue, DirectFile, ReadOptions, cpu};
use lnp_engine::{Collapse, Config, Engine, open_logged, required_bytes};
use lnp_format::Pack;
use lnp_kernels::CpuFeatures;

use crate::check::check_weights;
use crate::fit::{ffn_memory, fit_memory, prefetch_bytes};
use lnp_device::memory::{ArenaMemory, arena};
use lnp_device::{open_direct, timeline};
use lnp_model::{Model, ModelConfig};
use lnp_pack::{PackIndex, Recipe};

/// Share of the bundles that the cache holds where nothing else is said.
pub const CACHE_RATIO_USUAL: f64 = 0.05;

/// How a pack is read and computed with.
#[derive(Debug, Clone, Copy)]
pub struct ComputeOptions {
    /// When neighbouring bundles become one read.
    pub collapse: Collapse,
    /// Reads in flight.
    pub queue_depth: u32,
    /// Whether each bundle read is checked against its checksum.
    pub verify_reads: bool,
    /// Bytes of all that is opened here, if they are limited: the engine's arena and what the FFN is computed in. Then
    /// `cache_ratio` does not count.
    pub memory: Option<usize>,
    /// Share of the bundles that the cache holds.
    pub cache_ratio: f64,
    /// What the kernels may use.
    pub features: CpuFeatures,
    /// Most tokens that share their reads.
    pub batch: usize,
    /// Whether there is room to read layers ahead ([`crate::ReadAhead`]).
    pub ahead: bool,
    /// How reads reach the device.
    pub read: ReadOptions,
    /// Whether to go on through the page cache where direct reads are refused.
    pub buffered: bool,
    /// Whether each read is noted ([`Engine::read_log`]).
    pub logged: bool,
}

/// The queue of a pack that is computed with.
pub type PackQueue<'a> = Logged<'a, DeviceQueue<'a>>;

impl Default for ComputeOptions {
    fn default() -> Self {
        Self {
            collapse: Collapse::Gap { bytes: GAP_BYTES_USUAL },
            queue_depth: QUEUE_DEPTH_DEFAULT,
            verify_reads: false,
            memory: None,
            cache_ratio: CACHE_RATIO_USUAL,
            features: cpu::detect(),
            batch: BATCH_TOKENS_MAX,
            ahead: false,
            read: ReadOptions::default(),
            buffered: false,
            logged: false,
        }
    }
}

/// What an engine borrows: the file and the memory.
pub struct ComputePack<'p> {
    index: &'p PackIndex,
    pack: Pack<'p>,
    options: ComputeOptions,
    config: Config,
    file: DirectFile,
    memory: ArenaMemory,
    ffn_memory: Vec<u8>,
    notes: Option<Vec<ReadNote>>,
}

impl<'p> ComputePack<'p> {
    /// Opens the file and allocates the memory for computing a model's FFN from a pack.
    ///
    /// # Errors
    /// A pack of another shape, a memory limit that is too small, or a file that cannot be read so.
    pub fn open(
        index: &'p PackIndex,
        model: &ModelConfig,
        options: ComputeOptions,
    ) -> Result<Self> {
        let pack = index.pack()?;
        Recipe::check_pack(&pack, model).with_context(|| index.path().display().to_string())?;
        let ffn_memory = ffn_memory(&pack, options.features, options.batch)
            .with_context(|| index.path().display().to_string())?;
        let base = base(&pack, &options);
        let left = options.memory.map(|memory| memory.saturating_sub(ffn_memory.len()));
        let prefetch_bytes = if options.ahead { prefetch_bytes(&pack, &base, left)? } else { 0 };
        let base = Config { prefetch_bytes, ..base };
        let config = fit_memory(&pack, base, left, options.cache_ratio)?;
        let file = open_direct(index.path(), options.buffered)?;
        let memory = arena(required_bytes(&config, &pack)?)?;
        let notes = options.logged.then(timeline::notes);
        Ok(Self { index, pack, options, config, file, memory, ffn_memory, notes })
    }

    /// The engine's settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The least that [`ComputeOptions::memory`] can be.
    ///
    /// # Errors
    /// A number type without kernels, or settings that break a rule.
    pub fn bytes_min(index: &PackIndex, options: &ComputeOptions) -> Result<usize> {
        let pack = index.pack()?;
        let least = Config {
            staging_bytes: Config::staging_bytes_min(&pack),
            cache_bundles: 0,
            ..base(&pack, options)
        };
        let of_ffn = Ffn::required_bytes(pack.shape(), options.features, options.batch)
            .with_context(|| index.path().display().to_string())?;
        Ok(required_bytes(&least, &pack)? + of_ffn)
    }

    /// Bytes of all that was opened.
    pub fn bytes(&self) -> usize {
        self.memory.len() + self.ffn_memory.len()
    }

    /// Bytes of the engine's arena: staging area, cache, and what keeps account of them.
    pub fn arena_bytes(&self) -> usize {
        self.memory.len()
    }

    /// The engine and the kernels, once the pack is seen to be of the model's weights.
    ///
    /// # Errors
    /// A number type without kernels, a failed read, or a pack of other weights.
    pub fn engine(&mut self, model: &Model) -> Result<(Engine<'_, PackQueue<'_>>, Ffn<'_>)> {
        let Self { index, pack, options, config, file, memory, ffn_memory, notes } = self;
        let named = || index.path().display().to_string();
        let ffn = Ffn::new(pack.shape(), options.features, options.batch, ffn_memory)
            .with_context(named)?;
        let log = notes.as_mut().map(|notes| ReadLog::new(notes));
        let mut engine = open_logged(file, *pack, config, memory, options.read, log)?;
        // What is of the pack itself has nothing to be compared with.
        if model.checkpoint().has_ffn() {
            check_weights(&mut engine, model.checkpoint(), model.config()).with_context(named)?;
        }
        warm(&mut engine).with_context(named)?;
        Ok((engine, ffn))
    }
}

/// The engine's settings, but for how its memory is divided.
fn base(pack: &Pack<'_>, options: &ComputeOptions) -> Config {
    Config {
        collapse: options.collapse,
        queue_depth: options.queue_depth,
        verify_reads: options.verify_reads,
        ..Config::new(pack)
    }
}

/// Reads what the cache pins, of the layers where it stands together in the pack, as `lnp link --pin` places it: a
/// read or two each, of which at least a half is wanted. Elsewhere it comes as it is asked for.
fn warm<'a, Q: TimedQueue<'a> + Send>(engine: &mut Engine<'a, Q>) -> Result<()> {
    let pack = *engine.pack();
    for (number, layer) in (0..).zip(pack.layers()) {
        let hot: Vec<u32> = engine.hot(number).collect();
        let slots = hot.iter().filter_map(|neuron| layer.slot_of_neuron().get(*neuron as usize));
        let (least, most) = slots.fold((u32::MAX, 0), |(least, most), slot| {
            (least.min(slot.get()), most.max(slot.get()))
        });
        if !hot.is_empty() && ((most - least) as usize) < 2 * hot.len() {
            engine.fetch(number, &hot, |_, _| Ok(()))?;
        }
    }
    Ok(())
}
