//! An open engine and what it computes with, and how the caller's memory is cut for them: handle, source, the pack's
//! index, the engine's arena, the FFN's memory, the predictors', the recorder's; in that order.

use core::mem::ManuallyDrop;

use lnp_engine::engine::{Alone, FetchStats};
use lnp_engine::ffn::Ffn;
use lnp_engine::predictors::{Predictors, rank_bound};
use lnp_engine::recorder::{Recorder, RecorderConfig};
use lnp_engine::sys::cpu;
use lnp_engine::{Config, Engine, EngineError, open_session, required_bytes};
use lnp_format::{Pack, Peek};

use crate::error::Failure;
use crate::handle::{REST_BEGIN, SOURCE_BEGIN};
use crate::settings::Settings;
use crate::source::{Queue, Source};
use crate::types::*;

/// Nothing was set aside for predictors.
const NO_PREDICTORS: Failure = Failure::Setting("the engine was opened without LNP_PREDICT");

/// Nothing was set aside to record in.
const NO_RECORDER: Failure = Failure::Setting("the engine was opened without record_tokens");

/// Where the index begins: what direct reads on every device we know are aligned to.
const INDEX_ALIGN: usize = 4096;

/// An engine, and what it computes with.
pub(crate) struct Opened {
    engine: Engine<'static, Queue>,
    ffn: Ffn<'static>,
    predictors: Option<Predictors<'static>>,
    recorder: Option<Recorder<'static>>,
    forwards: u64,
    stats: FetchStats,
}

/// How much memory a pack needs with these settings, and how it is cut.
pub(crate) struct Sizes {
    config: Config,
    index: usize,
    arena: usize,
    ffn: usize,
    /// Of the predictors that are asked for.
    rank_max: Option<u32>,
    predictors: usize,
    recorder_config: Option<RecorderConfig>,
    recorder: usize,
}

impl Sizes {
    pub(crate) fn of(peek: &Peek, settings: &Settings) -> Result<Self, Failure> {
        let config = settings.engine(peek.into())?;
        let index = usize::try_from(peek.index_bytes).map_err(|_| {
            Failure::Setting("the pack's index is more than this machine can address")
        })?;
        let arena = required_bytes(&config, peek)?;
        let ffn = Ffn::required_bytes(&peek.shape, cpu::detect(), 1)?;
        // The index is not read yet: what no predictor in one of its length is above.
        let bound = || rank_bound(&peek.shape, peek.index_bytes);
        let rank_max = settings.predicts().then(bound);
        let room = |rank| Predictors::required_bytes(&peek.shape, rank, cpu::detect(), 1);
        let predictors = rank_max.map_or(Ok(0), room)?;
        let recorder_config = settings.recorder();
        let recorder = recorder_config
            .map_or(Ok(0), |config| Recorder::required_bytes(&peek.shape, &config))?;
        Ok(Self { config, index, arena, ffn, rank_max, predictors, recorder_config, recorder })
    }

    pub(crate) const fn total(&self) -> usize {
        (REST_BEGIN + INDEX_ALIGN)
            .saturating_add(self.index)
            .saturating_add(self.arena)
            .saturating_add(self.ffn)
            .saturating_add(self.predictors)
            .saturating_add(self.recorder)
    }
}

impl Opened {
    /// # Safety
    /// The path is a string, the storage one whose functions do what `lnp_storage_t` says, where they are
    /// asked for; the memory is aligned to a handle, of so many bytes, `REST_BEGIN` at least, and the
    /// engine's alone until it is closed.
    pub(crate) unsafe fn new(
        source: &lnp_source_t,
        config: lnp_config_t,
        memory: *mut u8,
        bytes: usize,
    ) -> Result<Self, Failure> {
        let settings = Settings::new(config)?;
        // SAFETY: path and storage are what this function asks of its caller.
        let found = unsafe { Source::open(source, &settings) }?;
        let peek = found.peek()?;
        let sizes = Sizes::of(&peek, &settings)?;
        if bytes < sizes.total() {
            return Err(Failure::Memory { expected: sizes.total(), found: bytes });
        }
        let place = memory.wrapping_add(SOURCE_BEGIN).cast::<Source>();
        // SAFETY: within the memory (`bytes` is at least REST_BEGIN) and aligned (asserted above).
        unsafe { place.write(found) };
        // SAFETY: just written; nobody writes to it before it is dropped, here or in `close`.
        let source: &'static Source = unsafe { &*place };
        let rest = memory.wrapping_add(REST_BEGIN);
        // SAFETY: from behind handle and source to the end of the memory, which is this engine's alone
        // until it is closed, as this function asks of its caller; nothing else here reaches that part.
        let rest = unsafe { core::slice::from_raw_parts_mut(rest, bytes - REST_BEGIN) };
        let opened = Self::within(source, &peek, &sizes, &settings, rest);
        if opened.is_err() {
            // SAFETY: written above, and what borrowed it is gone.
            unsafe { place.drop_in_place() };
        }
        opened
    }

    fn within(
        source: &'static Source,
        peek: &Peek,
        sizes: &Sizes,
        settings: &Settings,
        memory: &'static mut [u8],
    ) -> Result<Self, Failure> {
        let small = || Failure::Memory { expected: sizes.total(), found: 0 };
        let skip = memory.as_ptr().addr().wrapping_neg() % INDEX_ALIGN;
        let (_, memory) = memory.split_at_mut_checked(skip).ok_or_else(small)?;
        let (index, memory) = memory.split_at_mut_checked(sizes.index).ok_or_else(small)?;
        let (arena, memory) = memory.split_at_mut_checked(sizes.arena).ok_or_else(small)?;
        let (ffn_memory, memory) = memory.split_at_mut_checked(sizes.ffn).ok_or_else(small)?;
        let (predictors_memory, memory) =
            memory.split_at_mut_checked(sizes.predictors).ok_or_else(small)?;
        let (recorder_memory, _) = memory.split_at_mut_checked(sizes.recorder).ok_or_else(small)?;
        source.read_index(index)?;
        let pack = Pack::parse(index, peek.file_bytes)?;
        let ffn = Ffn::new(pack.shape(), cpu::detect(), 1, ffn_memory)?;
        let predictors = match sizes.rank_max {
            None => None,
            Some(rank) => {
                for layer in 0..pack.shape().layers {
                    let missing = EngineError::NoPredictor { layer, horizon: 0 };
                    pack.predictor(layer, 0).ok_or(missing)?;
                }
                Some(Predictors::new(pack.shape(), rank, cpu::detect(), 1, predictors_memory)?)
            }
        };
        let recorder = match &sizes.recorder_config {
            None => None,
            Some(config) => Some(Recorder::new(pack.shape(), config, recorder_memory)?),
        };
        let config = &sizes.config;
        let mut engine = Engine::open(pack, config, arena, |staging| {
            source.queue(staging, config.queue_depth, settings)
        })?;
        engine.check_superblock()?;
        Ok(Self { engine, ffn, predictors, recorder, forwards: 0, stats: FetchStats::default() })
    }

    pub(crate) fn shape(&self) -> lnp_shape_t {
        let pack = self.engine.pack();
        let shape = pack.shape();
        lnp_shape_t {
            layers: shape.layers,
            neurons: shape.neurons,
            hidden: shape.hidden,
            parts: shape.parts,
            dtype: shape.dtype.code(),
            activation: shape.activation.code(),
            activation_threshold: shape.activation_threshold,
            bundle_bytes: shape.bundle_stride,
            placements: pack.placements(),
            block_bytes: pack.block_bytes(),
            file_bytes: pack.superblock().file_bytes.get(),
        }
    }

    pub(crate) fn statistics(&self) -> lnp_statistics_t {
        let Opened { engine, forwards, stats, .. } = self;
        let (back_end, back_end_errno) = engine.queue().back_end();
        lnp_statistics_t {
            forwards: *forwards,
            active: stats.active,
            hits: stats.hits,
            prefetched: stats.prefetched,
            reads: stats.reads,
            runs: stats.runs,
            merges: stats.merges,
            bytes_read: stats.bytes_read,
            useful_bytes: stats.useful_bytes,
            io_ns: stats.io_ns,
            latency_ns_p50: engine.latencies().percentile_ns(50),
            latency_ns_p99: engine.latencies().percentile_ns(99),
            cached_bundles: engine.cached_bundles(),
            back_end,
            back_end_errno,
            reserved: 0,
        }
    }

    pub(crate) fn forward(
        &mut self,
        layer: u32,
        x: &[f32],
        active: &[u32],
        y: &mut [f32],
    ) -> Result<(), Failure> {
        let stats = compute(&mut self.engine, &mut self.ffn, layer, x, active, y)?;
        self.forwarded(stats);
        self.recorder.as_mut().map_or(Ok(()), |recorder| recorder.take(layer, &[active]))?;
        Ok(())
    }

    pub(crate) fn forward_predicted(
        &mut self,
        layer: u32,
        quality: f32,
        x: &[f32],
        y: &mut [f32],
    ) -> Result<(), Failure> {
        let Opened { engine, ffn, predictors, recorder, .. } = self;
        let predictors = predictors.as_mut().ok_or(NO_PREDICTORS)?;
        let predicted = predictors.predict(engine.pack(), (layer, 0), quality, x)?;
        // One token goes in, one set comes out.
        let active = predicted.sets().first().copied().unwrap_or_default();
        let stats = compute(engine, ffn, layer, x, active, y)?;
        recorder.as_mut().map_or(Ok(()), |recorder| recorder.take(layer, &[active]))?;
        self.forwarded(stats);
        Ok(())
    }

    /// Copies a part of the trace of what was recorded; how many bytes.
    pub(crate) fn recorded(&self, offset: u64, part: &mut [u8]) -> Result<usize, Failure> {
        let Opened { engine, recorder, .. } = self;
        let recorder = recorder.as_ref().ok_or(NO_RECORDER)?;
        let provenance = engine.pack().provenance();
        let entries = [
            ("active", "as the program told or the pack's predictors did"),
            ("model", provenance.value("model").unwrap_or_default()),
            ("synthetic", provenance.value("synthetic").unwrap_or_default()),
        ];
        // Whatever is made up says so, and nothing else does.
        let count = if entries[2].1.is_empty() { 2 } else { 3 };
        Ok(recorder.read(entries.get(..count).unwrap_or_default(), offset, part))
    }

    pub(crate) fn prefetch_predicted(
        &mut self,
        layer: u32,
        horizon: u32,
        quality: f32,
        x: &[f32],
    ) -> Result<(), Failure> {
        let Opened { engine, predictors, .. } = self;
        let predictors = predictors.as_mut().ok_or(NO_PREDICTORS)?;
        let pack = *engine.pack();
        let predicted = predictors.predict(&pack, (layer, horizon), quality, x)?;
        // SAFETY: the caller gives memory back only after `close`, which drops the engine.
        let session = unsafe { open_session(engine) };
        let mut session = ManuallyDrop::new(session);
        for set in predicted.sets() {
            session.prefetch(layer, set)?;
        }
        Ok(())
    }

    pub(crate) fn prefetch(&mut self, layer: u32, predicted: &[u32]) -> Result<(), Failure> {
        let Opened { engine, .. } = self;
        // SAFETY: the caller gives memory back only after `close`, which drops the engine.
        let session = unsafe { open_session(engine) };
        let mut session = ManuallyDrop::new(session);
        session.prefetch(layer, predicted)?;
        Ok(())
    }

    /// Counts what a layer took.
    fn forwarded(&mut self, stats: FetchStats) {
        self.stats.add(&stats);
        // Whoever counts reads counts those that were prefetched too.
        self.stats.reads += stats.ahead_reads;
        self.stats.bytes_read += stats.ahead_bytes;
        self.forwards += 1;
    }
}

/// The FFN of a layer, over what is active for one token.
fn compute(
    engine: &mut Engine<'static, Queue>,
    ffn: &mut Ffn<'static>,
    layer: u32,
    x: &[f32],
    active: &[u32],
    y: &mut [f32],
) -> Result<FetchStats, EngineError> {
    // SAFETY: the caller gives memory back only after `close`, which drops the engine.
    let session = unsafe { open_session(engine) };
    // What was prefetched goes on being read between two calls.
    let mut session = ManuallyDrop::new(session);
    ffn.forward_in(&mut session, &Alone, layer, x, &[active], y)
}
