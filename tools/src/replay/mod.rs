//! Replays recorded active sets against packs, through the real engine.
//!
//! A contestant is one strategy on one pack: an order, a collapse, a cache. All contestants take
//! turns, a block of tokens each, in a new random order every time, so that whatever the device does
//! to one it does to all; each repeat begins with an empty cache. The device is real, or simulated ([`Target`]).

pub mod strategy;
pub mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lnp_engine::queue::ReadQueue;
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::sys::{DeviceQueue, DirectFile, ReadOptions, open_engine};
use lnp_engine::{DeviceLaw, Engine, EngineError, FetchStats, required_bytes};
use lnp_format::Pack;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::Serialize;

use crate::memory;
use crate::pack::PackIndex;
use crate::report::quantile;
use crate::trace::{TraceReader, active};
pub use strategy::{Strategy, strategies};

/// Tokens of a turn.
const BLOCK_TOKENS: usize = 8;
/// Tokens that the dense baseline replays: its reads do not depend on the token.
const DENSE_TOKENS: usize = 64;

/// The active sets to replay.
pub struct ActiveSets {
    /// Bits of each layer.
    layers: Vec<Vec<u8>>,
    neurons: usize,
    tokens: usize,
}

impl ActiveSets {
    /// The first `tokens` tokens of a trace.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn of_trace(trace: &TraceReader, tokens: usize) -> Result<Self> {
        let layers =
            (0..trace.layers()).map(|layer| trace.layer_bits(layer)).collect::<Result<_>>()?;
        Ok(Self { layers, neurons: trace.neurons(), tokens: trace.tokens().min(tokens) })
    }

    /// The active sets in memory: per layer one row of ceil(neurons / 8) bytes a token.
    pub fn new(layers: Vec<Vec<u8>>, neurons: usize, tokens: usize) -> Self {
        Self { layers, neurons, tokens }
    }

    /// Tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Active neurons of a layer, over the first `tokens` tokens.
    fn active_of(&self, layer: usize, tokens: usize) -> u64 {
        let bits = &self.layers[layer][..tokens * self.neurons.div_ceil(8)];
        bits.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    /// How many copies of the model's layers a pack holds; successive tokens use successive copies.
    fn copies(&self, pack: &Pack<'_>) -> Result<usize> {
        let shape = pack.shape();
        let layers = self.layers.len();
        ensure!(
            shape.neurons as usize == self.neurons
                && (shape.layers as usize).is_multiple_of(layers),
            "the trace is of {layers} layers of {} neurons, the pack has {} of {}: they do not belong \
             together",
            self.neurons,
            shape.layers,
            shape.neurons
        );
        Ok(shape.layers as usize / layers)
    }
}

/// What the packs lie on.
pub enum Target<'a> {
    /// Files, in the order of the packs.
    Device(&'a [DirectFile], ReadOptions),
    /// The simulated device: virtual time, nothing is read.
    Simulated,
}

/// Settings of a replay.
#[derive(Debug, Clone, Copy)]
pub struct ReplayOptions {
    /// The law that plans are made and times predicted with.
    pub law: DeviceLaw,
    /// Share of the bundles that the cache holds.
    pub cache_ratio: f64,
    /// Reads in flight.
    pub queue_depth: u32,
    /// Times that everything is replayed; a token's time is the median.
    pub repeats: usize,
    /// Ends the replay early, after whole turns of all strategies.
    pub time_max: Option<Duration>,
}

/// Microseconds per token.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Times {
    /// Mean over the tokens.
    pub mean: f64,
    /// Median over the tokens.
    pub p50: f64,
    /// 99th percentile over the tokens.
    pub p99: f64,
}

/// One layer's part of a row.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LayerRow {
    /// Active bundles per token.
    pub active_bundles_per_token: f64,
    /// Reads per token.
    pub reads_per_token: f64,
    /// Bundles read per run of adjacent slots.
    pub bundles_per_run: f64,
}

/// One line of the comparison; the names are a contract.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was done, in short.
    pub strategy: String,
    /// Order of the pack.
    pub order: String,
    /// The pack file, or the links file where there is no pack.
    pub pack: PathBuf,
    /// Type of the bundles' weights, `placeholder` for none.
    pub dtype: String,
    /// Bytes of a bundle.
    pub bundle_bytes: u32,
    /// Rule of access collapse.
    pub collapse: String,
    /// Rule of the cache, cold at the beginning.
    pub cache_policy: String,
    /// Share of the bundles that it holds.
    pub cache_ratio: f64,
    /// Reads in flight.
    pub queue_depth: u32,
    /// Tokens replayed.
    pub tokens: usize,
    /// Times that they were replayed.
    pub repeats: usize,
    /// Whether the time is that of the simulated device.
    pub simulated: bool,
    /// Active bundles, cached or not.
    pub active_bundles_per_token: f64,
    /// Reads.
    pub reads_per_token: f64,
    /// Runs of adjacent slots among the bundles read.
    pub runs_per_token: f64,
    /// Bundles read per run.
    pub bundles_per_run: f64,
    /// Bytes read, block rounding and holes included.
    pub bytes_read_per_token: f64,
    /// Bytes of the active bundles that were read.
    pub useful_bytes_per_token: f64,
    /// Share of the active bundles found in the cache.
    pub hit_rate: f64,
    /// From submission to the last completion, summed over the layers.
    pub io_us_per_token: Times,
    /// The same by the law.
    pub predicted_io_us_per_token: f64,
    /// Useful bytes over I/O time.
    pub effective_mib_s: f64,
    /// All bytes read over I/O time.
    pub device_mib_s: f64,
    /// All active bytes at the law's bandwidth.
    pub bound_io_us_per_token: f64,
    /// By layer of the model.
    pub layers: Vec<LayerRow>,
}

/// One strategy on one pack, under way.
struct Contestant<'a, Q> {
    strategy: Strategy,
    pack: &'a PackIndex,
    engine: Engine<'a, Q>,
    copies: usize,
    tokens: usize,
    /// Sums by layer of the model, first repeat only (the others do the same).
    layers: Vec<FetchStats>,
    predicted_us: f64,
    /// Of each token, the time of each repeat, microseconds.
    times_us: Vec<Vec<f64>>,
}

impl<'a, Q: ReadQueue<'a> + Send> Contestant<'a, Q> {
    fn replay(
        &mut self,
        sets: &ActiveSets,
        law: &DeviceLaw,
        token: usize,
        first: bool,
    ) -> Result<()> {
        let copy = token % self.copies;
        let mut io_ns = 0;
        let mut ids = Vec::new();
        for (layer, bits) in sets.layers.iter().enumerate() {
            ids.clear();
            ids.extend(active(bits, sets.neurons, token));
            let placed = copy * sets.layers.len() + layer;
            let stats = self.engine.fetch(placed as u32, &ids, |_, _| Ok(()))?;
            io_ns += stats.io_ns;
            if first {
                self.layers[layer].add(&stats);
                self.predicted_us += law.time_us(stats.reads, stats.bytes_read);
            }
        }
        self.times_us[token].push(io_ns as f64 / 1e3);
        Ok(())
    }

    /// Sums by layer. The dense baseline is timed on a part of the tokens, because it reads the same
    /// for each; what was active is taken from all of them, so that its row compares with the others.
    fn layer_stats(&self, sets: &ActiveSets, all_tokens: usize) -> Vec<FetchStats> {
        let mut layers = self.layers.clone();
        if self.strategy.is_dense() {
            let stride = u64::from(self.engine.pack().shape().bundle_stride);
            for (number, stats) in layers.iter_mut().enumerate() {
                let share = self.tokens as f64 / all_tokens as f64;
                let active = sets.active_of(number, all_tokens) as f64 * share;
                // Runs grow with what is active: bundles per run stay those of the part.
                let grown = active / stats.active.max(1) as f64;
                stats.runs = (stats.runs as f64 * grown).round() as u64;
                stats.active = active.round() as u64;
                stats.useful_bytes = stats.active * stride;
            }
        }
        layers
    }

    fn row(
        &self,
        sets: &ActiveSets,
        all_tokens: usize,
        options: &ReplayOptions,
        simulated: bool,
    ) -> Result<Row> {
        let pack = self.pack.pack()?;
        let tokens = self.tokens.max(1) as f64;
        let layers = self.layer_stats(sets, all_tokens);
        let mut total = FetchStats::default();
        layers.iter().for_each(|stats| total.add(stats));
        let mut times: Vec<f64> =
            self.times_us.iter().map(|repeats| quantile(&mut repeats.clone(), 0.5)).collect();
        let mean = times.iter().sum::<f64>() / tokens;
        let mib_s = |bytes: u64| {
            if mean > 0.0 { bytes as f64 / tokens / mean * 1e6 / lnp_engine::law::MIB } else { 0.0 }
        };
        let stride = pack.shape().bundle_stride;
        let ratio = |over: u64, under: u64| over as f64 / under.max(1) as f64;
        Ok(Row {
            strategy: self.strategy.name.clone(),
            order: pack.provenance().order().to_owned(),
            pack: self.pack.path().to_owned(),
            dtype: pack.shape().dtype.name().to_owned(),
            bundle_bytes: stride,
            collapse: self.strategy.collapse.name().to_owned(),
            cache_policy: if self.strategy.cached { "s3-fifo" } else { "none" }.to_owned(),
            cache_ratio: if self.strategy.cached { options.cache_ratio } else { 0.0 },
            queue_depth: options.queue_depth,
            tokens: self.tokens,
            repeats: self.times_us.first().map_or(0, Vec::len),
            simulated,
            active_bundles_per_token: total.active as f64 / tokens,
            reads_per_token: total.reads as f64 / tokens,
            runs_per_token: total.runs as f64 / tokens,
            bundles_per_run: ratio(total.active - total.hits, total.runs),
            bytes_read_per_token: total.bytes_read as f64 / tokens,
            useful_bytes_per_token: total.useful_bytes as f64 / tokens,
            hit_rate: ratio(total.hits, total.active),
            predicted_io_us_per_token: self.predicted_us / tokens,
            effective_mib_s: mib_s(total.useful_bytes),
            device_mib_s: mib_s(total.bytes_read),
            bound_io_us_per_token: options.law.transfer_us(total.active * u64::from(stride))
                / tokens,
            layers: layers
                .iter()
                .map(|stats| LayerRow {
                    active_bundles_per_token: stats.active as f64 / tokens,
                    reads_per_token: stats.reads as f64 / tokens,
                    bundles_per_run: ratio(stats.active - stats.hits, stats.runs),
                })
                .collect(),
            io_us_per_token: Times {
                mean,
                p50: quantile(&mut times, 0.5),
                p99: quantile(&mut times, 0.99),
            },
        })
    }
}

/// Replays `sets` with every strategy on every pack; `progress` is told the share done.
///
/// # Errors
/// Packs and trace that do not belong together, or a read that fails.
pub fn replay(
    packs: &[PackIndex],
    sets: &ActiveSets,
    target: &Target<'_>,
    options: &ReplayOptions,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Row>> {
    ensure!(!packs.is_empty() && sets.tokens > 0, "nothing to replay");
    ensure!(
        (0.0..=1.0).contains(&options.cache_ratio),
        "a cache ratio of {}: 0 to 1 is possible",
        options.cache_ratio
    );
    let mut plans = Vec::new();
    for (at, index) in packs.iter().enumerate() {
        let pack = index.pack()?;
        sets.copies(&pack).with_context(|| index.path().display().to_string())?;
        // The dense baseline is the same for every order: one of each bundle size will do.
        let same_size = |other: &PackIndex| {
            other
                .pack()
                .is_ok_and(|other| other.shape().bundle_stride == pack.shape().bundle_stride)
        };
        let dense = !packs[..at].iter().any(same_size);
        for strategy in
            strategies(pack.provenance().order(), &options.law, options.cache_ratio, dense)
        {
            let config = strategy.config(&pack, options);
            let memory = memory::arena(required_bytes(&config, &pack)?)?;
            plans.push((at, strategy, config, memory));
        }
    }
    match target {
        Target::Simulated => {
            let mut contestants = Vec::new();
            for (at, strategy, config, memory) in &mut plans {
                let image = Image::Opaque(packs[*at].file_bytes());
                let engine = Engine::open(packs[*at].pack()?, config, memory, |_| {
                    let depth = options.queue_depth;
                    Ok::<_, EngineError>(SimulatedQueue::new(image, options.law, depth, 0))
                })?;
                contestants.push(contestant(strategy, &packs[*at], engine, sets)?);
            }
            compete(contestants, sets, options, true, progress)
        }
        Target::Device(files, read) => {
            let mut contestants: Vec<Contestant<'_, DeviceQueue<'_>>> = Vec::new();
            for (at, strategy, config, memory) in &mut plans {
                let pack = packs[*at].pack()?;
                let engine = open_engine(&files[*at], pack, config, memory, *read)
                    .with_context(|| packs[*at].path().display().to_string())?;
                contestants.push(contestant(strategy, &packs[*at], engine, sets)?);
            }
            compete(contestants, sets, options, false, progress)
        }
    }
}

fn contestant<'a, Q: ReadQueue<'a> + Send>(
    strategy: &Strategy,
    pack: &'a PackIndex,
    engine: Engine<'a, Q>,
    sets: &ActiveSets,
) -> Result<Contestant<'a, Q>> {
    let tokens = if strategy.is_dense() { sets.tokens.min(DENSE_TOKENS) } else { sets.tokens };
    Ok(Contestant {
        strategy: strategy.clone(),
        copies: sets.copies(engine.pack())?,
        pack,
        engine,
        tokens,
        layers: vec![FetchStats::default(); sets.layers.len()],
        predicted_us: 0.0,
        times_us: vec![Vec::new(); tokens],
    })
}

/// Lets all contestants take turns.
fn compete<'a, Q: ReadQueue<'a> + Send>(
    mut contestants: Vec<Contestant<'a, Q>>,
    sets: &ActiveSets,
    options: &ReplayOptions,
    simulated: bool,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Row>> {
    // Simulated time is the same every time.
    let repeats = if simulated { 1 } else { options.repeats.max(1) };
    let blocks = sets.tokens.div_ceil(BLOCK_TOKENS);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(0);
    let mut turns: Vec<usize> = (0..contestants.len()).collect();
    let begin_time = Instant::now();
    let late = || options.time_max.is_some_and(|most| begin_time.elapsed() > most);
    let mut tokens = sets.tokens;
    'replay: for repeat in 0..repeats {
        contestants.iter_mut().for_each(|contestant| contestant.engine.clear_cache());
        for block in 0..blocks {
            let begin = block * BLOCK_TOKENS;
            // A new order each time: a device that is slow for a while after heavy reads (dense)
            // would else always be so for the same successor.
            turns.shuffle(&mut random);
            for turn in &turns {
                let contestant = &mut contestants[*turn];
                for token in begin..(begin + BLOCK_TOKENS).min(contestant.tokens) {
                    contestant.replay(sets, &options.law, token, repeat == 0)?;
                }
            }
            progress((repeat * blocks + block + 1) as f64 / (repeats * blocks) as f64);
            if late() {
                if repeat == 0 {
                    tokens = (begin + BLOCK_TOKENS).min(tokens);
                }
                break 'replay;
            }
        }
    }
    for contestant in &mut contestants {
        contestant.tokens = contestant.tokens.min(tokens);
        contestant.times_us.truncate(contestant.tokens);
    }
    contestants.iter().map(|contestant| contestant.row(sets, tokens, options, simulated)).collect()
}
