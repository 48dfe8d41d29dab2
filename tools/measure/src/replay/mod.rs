//! Replays recorded active sets against packs, through the real engine.
//!
//! A contestant is one strategy on one pack: an order, a collapse, a cache. All contestants take
//! turns, a block of tokens each, in a new random order every time, so that whatever the device does
//! to one it does to all; each repeat begins with an empty cache. The device is real, or simulated
//! ([`Target`]). What no cache can beat on the same active sets is computed beside it ([`belady`]).

pub mod belady;
pub mod calibrate;
mod contest;
pub mod overlap;
pub mod rows;
pub mod strategy;
pub mod sustained;
pub mod table;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::sys::{DeviceQueue, DirectFile, ReadOptions};
use lnp_engine::{Config, DeviceLaw, Engine, EngineError, open_engine, required_bytes};
use lnp_format::Pack;

use contest::{Contestant, compete};
use lnp_device::memory::{self, ArenaMemory};
use lnp_link::trace::TraceReader;
use lnp_pack::PackIndex;
pub use rows::{Belief, LayerRow, Row, Times};
pub use strategy::{Caches, Rules, Strategy, strategies};

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
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// The law that plans are made and times predicted with.
    pub law: DeviceLaw,
    /// The caches to compare.
    pub caches: Caches,
    /// Rules of collapse beside the law's.
    pub rules: Rules,
    /// Reads in flight.
    pub queue_depth: u32,
    /// Times that everything is replayed; a token's time is the median.
    pub repeats: usize,
    /// Turns at least so long, for a real device that does not keep up its bursts ([`sustained`]);
    /// `None`: of a few tokens.
    pub turn: Option<Duration>,
    /// Ends the replay early, after whole turns of all strategies; not one with `turn`.
    pub time_max: Option<Duration>,
}

/// What came of [`replay`].
#[derive(Debug)]
pub struct Replayed {
    /// One row a strategy and pack.
    pub rows: Vec<Row>,
    /// The law that the device obeyed meanwhile; `None` for the simulated one.
    pub calibrated_law: Option<DeviceLaw>,
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
) -> Result<Replayed> {
    ensure!(
        !packs.is_empty() && sets.tokens > 0,
        "nothing to replay: at least one pack and one token are needed"
    );
    options.caches.check()?;
    let plans = plan_all(packs, sets, options)?;
    let (mut rows, calibrated_law) = contest(packs, sets, target, options, plans, progress)?;
    if options.caches.belady {
        let tokens = rows.iter().map(|(_, row)| row.tokens).max().unwrap_or(0);
        for (at, index) in packs.iter().enumerate() {
            let best = belady::rows(index, sets, tokens, options)?;
            rows.extend(best.into_iter().map(|row| (at, row)));
        }
        // Each pack's bound after its measured rows.
        rows.sort_by_key(|(at, _)| *at);
    }
    let rows = rows.into_iter().map(|(_, row)| row).collect();
    Ok(Replayed { rows, calibrated_law })
}

/// What a contestant is made from: its pack's place in the list, and its engine's settings and memory.
struct EnginePlan {
    at: usize,
    strategy: Strategy,
    config: Config,
    memory: ArenaMemory,
}

fn plan_all(
    packs: &[PackIndex],
    sets: &ActiveSets,
    options: &ReplayOptions,
) -> Result<Vec<EnginePlan>> {
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
        for strategy in strategies(pack.provenance().order(), options, dense) {
            let config = strategy.config(&pack, options.queue_depth);
            let memory = memory::arena(required_bytes(&config, &pack)?)?;
            plans.push(EnginePlan { at, strategy, config, memory });
        }
    }
    Ok(plans)
}

/// A row, and its pack's place in the list.
type PlacedRow = (usize, Row);

/// Opens all engines and lets them compete; each row with its pack's place in the list.
fn contest(
    packs: &[PackIndex],
    sets: &ActiveSets,
    target: &Target<'_>,
    options: &ReplayOptions,
    mut plans: Vec<EnginePlan>,
    progress: &mut dyn FnMut(f64),
) -> Result<(Vec<PlacedRow>, Option<DeviceLaw>)> {
    let places: Vec<usize> = plans.iter().map(|plan| plan.at).collect();
    let (rows, law) = match target {
        Target::Simulated => {
            let mut contestants = Vec::new();
            for EnginePlan { at, strategy, config, memory } in &mut plans {
                let image = Image::Opaque(packs[*at].file_bytes());
                let engine = Engine::open(packs[*at].pack()?, config, memory, |_| {
                    let depth = options.queue_depth;
                    Ok::<_, EngineError>(SimulatedQueue::new(image, options.law, depth, 0))
                })?;
                contestants.push(Contestant::new(strategy, &packs[*at], engine, sets)?);
            }
            compete(contestants, sets, options, true, progress)?
        }
        Target::Device(files, read) => {
            let mut contestants: Vec<Contestant<'_, DeviceQueue<'_>>> = Vec::new();
            for EnginePlan { at, strategy, config, memory } in &mut plans {
                let pack = packs[*at].pack()?;
                let engine = open_engine(&files[*at], pack, config, memory, *read)
                    .with_context(|| packs[*at].path().display().to_string())?;
                contestants.push(Contestant::new(strategy, &packs[*at], engine, sets)?);
            }
            compete(contestants, sets, options, false, progress)?
        }
    };
    let placed = places.into_iter().zip(rows);
    let rows = placed.flat_map(|(at, rows)| rows.into_iter().map(move |row| (at, row))).collect();
    Ok((rows, law))
}
