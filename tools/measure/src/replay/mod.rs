//! Replays recorded active sets against packs, through the real engine.
//!
//! A contestant is one strategy on one pack: an order, a collapse, a cache. All contestants take
//! turns, a block of tokens each, in a new random order every time, so that whatever the device does
//! to one it does to all; each repeat begins with an empty cache. The device is real, or simulated
//! ([`Target`]). What no cache can beat on the same active sets is computed beside it ([`belady`]).

pub mod belady;
pub mod calibrate;
mod contest;
mod contestant;
pub mod lookahead;
pub mod options;
pub mod overlap;
mod record;
pub mod rows;
mod sets;
pub mod strategy;
pub mod sustained;
pub mod table;

use anyhow::{Context, Result, ensure};
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::queue::{Logged, ReadLog, ReadNote};
use lnp_engine::sys::{DirectFile, ReadOptions};
use lnp_engine::{Config, DeviceLaw, Engine, EngineError, open_logged, required_bytes};
use lnp_format::Shape;

use contest::compete;
use contestant::Contestant;
use lnp_common::report::{plain, shown};
use lnp_device::memory::{self, ArenaMemory};
use lnp_device::timeline::{self, Timeline};
use lnp_link::trace::TraceReader;
use lnp_pack::PackIndex;
pub use options::{CacheState, Caches, ReplayOptions, Rules};
pub use record::TURN_TOKENS;
pub use rows::{Belief, LayerRow, Row, Times};
pub use sets::ActiveSets;
pub use strategy::{Strategy, strategies};

/// What the packs lie on.
pub enum Target<'a> {
    /// Files, in the order of the packs.
    Device(&'a [DirectFile], ReadOptions),
    /// The simulated device: virtual time, nothing is read.
    Simulated,
}

/// What came of [`replay`].
#[derive(Debug)]
pub struct Replayed {
    /// One row a strategy and pack.
    pub rows: Vec<Row>,
    /// The law that the device obeyed meanwhile; `None` for the simulated one.
    pub calibrated_law: Option<DeviceLaw>,
    /// Of each strategy its first tokens, where that was asked for.
    pub timelines: Vec<Timeline>,
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
    let (mut rows, calibrated_law, timelines) =
        contest(packs, sets, target, options, plans, progress)?;
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
    Ok(Replayed { rows, calibrated_law, timelines })
}

/// What makes a comparison on this trace doubtful, a line each: a pack of another model, an order that was made from the
/// trace itself.
///
/// # Errors
/// The trace cannot be read.
pub fn doubts(packs: &[PackIndex], trace: &TraceReader) -> Result<Vec<String>> {
    let hash = trace.sha256_hex()?;
    let mut doubts = Vec::new();
    for index in packs {
        let pack = index.pack()?;
        let order = pack.provenance().order();
        let model = pack.provenance().value("model").unwrap_or_default();
        if let Some(traced) = trace.model().filter(|traced| *traced != model) {
            let path = shown(index.path());
            let (model, traced) = (plain(model), plain(traced));
            doubts.push(format!("{path} is of model {model}, the trace of {traced}"));
        }
        let same = |(key, value): (&str, &str)| key.starts_with("profile.trace.") && value == hash;
        if !matches!(order, "identity" | "random") && pack.provenance().entries().any(same) {
            doubts.push(format!("the {order} order was made from this very trace: use another"));
        }
    }
    Ok(doubts)
}

/// What a contestant is made from: its pack's place in the list, and its engine's settings and memory.
struct EnginePlan {
    at: usize,
    strategy: Strategy,
    config: Config,
    memory: ArenaMemory,
    /// For what the engine notes of its reads, where that is asked for.
    notes: Option<Vec<ReadNote>>,
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
        // The dense baseline is the same for every order: one of each bundle size will do. Not a pack with copies: a
        // stream of it would read these too.
        let stride = pack.shape().bundle_stride;
        let streams = |shape: &Shape| shape.bundle_stride == stride && !shape.has_copies();
        let before = |other: &PackIndex| other.pack().is_ok_and(|other| streams(other.shape()));
        let dense = streams(pack.shape()) && !packs[..at].iter().any(before);
        let mut all = strategies(pack.provenance().order(), options, dense);
        if sets.predicted.is_some() {
            all.extend(strategy::predicted(&all));
        }
        for strategy in all {
            let config = strategy.config(&pack, options.queue_depth);
            let memory = memory::arena(required_bytes(&config, &pack)?)?;
            let notes = options.timeline_tokens.map(|_| timeline::notes());
            plans.push(EnginePlan { at, strategy, config, memory, notes });
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
) -> Result<(Vec<PlacedRow>, Option<DeviceLaw>, Vec<Timeline>)> {
    let places: Vec<usize> = plans.iter().map(|plan| plan.at).collect();
    let (rows, law, timelines) = match target {
        Target::Simulated => {
            let mut contestants = Vec::new();
            for EnginePlan { at, strategy, config, memory, notes } in &mut plans {
                let image = Image::Opaque(packs[*at].file_bytes());
                let engine = Engine::open(packs[*at].pack()?, config, memory, |_| {
                    let device = SimulatedQueue::new(image, options.law, options.queue_depth, 0);
                    let log = notes.as_mut().map(|notes| ReadLog::new(notes));
                    Ok::<_, EngineError>(Logged::new(device, log))
                })?;
                contestants.push(Contestant::new(strategy, &packs[*at], engine, sets)?);
            }
            compete(contestants, sets, options, true, progress)?
        }
        Target::Device(files, read) => {
            let mut contestants = Vec::new();
            for EnginePlan { at, strategy, config, memory, notes } in &mut plans {
                let pack = packs[*at].pack()?;
                let log = notes.as_mut().map(|notes| ReadLog::new(notes));
                let engine = open_logged(&files[*at], pack, config, memory, *read, log)
                    .with_context(|| packs[*at].path().display().to_string())?;
                contestants.push(Contestant::new(strategy, &packs[*at], engine, sets)?);
            }
            compete(contestants, sets, options, false, progress)?
        }
    };
    let placed = places.into_iter().zip(rows);
    let rows = placed.flat_map(|(at, rows)| rows.into_iter().map(move |row| (at, row))).collect();
    Ok((rows, law, timelines))
}
