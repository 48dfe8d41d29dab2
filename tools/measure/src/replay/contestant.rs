//! One strategy on one pack, under way.

use anyhow::{Context, Result};
use lnp_engine::queue::TimedQueue;
use lnp_engine::{Collapse, DeviceLaw, Engine, FetchStats};

use super::calibrate::Calibrated;
use super::options::{CacheState, ReplayOptions};
use super::record::Record;
use super::rows::{Belief, Label, Row, row};
use super::sets::ActiveSets;
use super::strategy::Strategy;
use lnp_common::report::shown;
use lnp_device::LawText;
use lnp_device::timeline::Timeline;
use lnp_link::trace::active;
use lnp_pack::PackIndex;

/// Tokens that the dense baseline replays: its reads do not depend on the token.
const DENSE_TOKENS: usize = 64;

/// One strategy on one pack, under way.
pub(super) struct Contestant<'a, Q> {
    pub(super) strategy: Strategy,
    pack: &'a PackIndex,
    pub(super) engine: Engine<'a, Q>,
    copies: usize,
    pub(super) tokens: usize,
    pub(super) cold: Record,
    pub(super) warm: Record,
    /// When the replay began, by the device's clock, nanoseconds.
    begin_ns: u64,
    batches: u64,
    beliefs: Vec<Belief>,
}

impl<'a, Q: TimedQueue<'a> + Send> Contestant<'a, Q> {
    pub(super) fn new(
        strategy: &Strategy,
        pack: &'a PackIndex,
        engine: Engine<'a, Q>,
        sets: &ActiveSets,
    ) -> Result<Self> {
        let tokens = if strategy.is_dense() { sets.tokens.min(DENSE_TOKENS) } else { sets.tokens };
        Ok(Self {
            strategy: strategy.clone(),
            copies: sets.copies(engine.pack())?,
            pack,
            begin_ns: engine.queue().now_ns(),
            engine,
            tokens,
            cold: Record::new(sets.layers.len()),
            warm: Record::new(sets.layers.len()),
            batches: 0,
            beliefs: Vec::new(),
        })
    }

    /// What is counted in a state of the cache.
    pub(super) fn record(&mut self, state: CacheState) -> &mut Record {
        match state {
            CacheState::Cold => &mut self.cold,
            CacheState::Warm => &mut self.warm,
        }
    }

    /// Reads the active set of a token, layer by layer; `each` is told what came of every layer.
    pub(super) fn read(
        &mut self,
        sets: &ActiveSets,
        token: usize,
        mut each: impl FnMut(usize, &FetchStats),
    ) -> Result<()> {
        let copy = token % self.copies;
        let mut ids = Vec::new();
        for (layer, bits) in sets.asked(self.strategy.predicted).iter().enumerate() {
            ids.clear();
            ids.extend(active(bits, sets.neurons, token));
            let placed = copy * sets.layers.len() + layer;
            self.note_belief();
            let stats = self.engine.fetch(placed as u32, &ids, |_, _| Ok(()));
            // several packs may lie on several devices: the error names the one
            let pack = self.pack;
            each(layer, &stats.with_context(|| pack.path().display().to_string())?);
            self.batches += 1;
        }
        self.note_belief();
        Ok(())
    }

    /// Replays the first tokens once more, from an empty cache, and records every read.
    pub(super) fn record_timeline(&mut self, sets: &ActiveSets, tokens: usize) -> Result<Timeline> {
        let engine = &mut self.engine;
        engine.clear_cache();
        let name = format!("{}, {}", self.strategy.name, shown(self.pack.path()));
        let mut timeline = Timeline::new(name, None, tokens, engine);
        let layers = sets.layers.len();
        for token in 0..tokens.min(self.tokens) {
            timeline.pass_begins(engine.queue().now_ns(), engine.read_log());
            for (layer, bits) in sets.asked(self.strategy.predicted).iter().enumerate() {
                let ids: Vec<u32> = active(bits, sets.neurons, token).collect();
                let placed = (token % self.copies * layers + layer) as u32;
                timeline.layer_begins(placed, engine.queue().now_ns());
                timeline.asked(engine, placed, [&ids[..]]);
                let stats = engine.fetch(placed, &ids, |_, _| Ok(()));
                let stats = stats.with_context(|| self.pack.path().display().to_string())?;
                timeline.fetched(&stats, engine.read_log());
                timeline.layer_ends(engine.queue().now_ns());
            }
        }
        timeline.ends(engine.read_log());
        Ok(timeline)
    }

    /// Notes the law that is believed now, if it adapts and that is another than before.
    fn note_belief(&mut self) {
        let (true, Collapse::Law(law)) = (self.strategy.adapt, self.engine.believed_collapse())
        else {
            return;
        };
        let (gap_bytes, law) = (law.gap_bytes(), LawText::from(&law));
        if self.beliefs.last().is_some_and(|last| last.law == law) {
            return;
        }
        let now_ns = self.engine.queue().now_ns();
        self.beliefs.push(Belief {
            seconds: now_ns.saturating_sub(self.begin_ns) as f64 / 1e9,
            batches: self.batches,
            law,
            gap_bytes,
        });
    }

    /// Reads a token and records it.
    pub(super) fn replay(
        &mut self,
        sets: &ActiveSets,
        law: &DeviceLaw,
        token: usize,
        state: CacheState,
    ) -> Result<()> {
        let mut stats_of = Vec::with_capacity(sets.layers.len());
        self.read(sets, token, |_, stats| stats_of.push(*stats))?;
        let record = self.record(state);
        if record.times_us.len() == token {
            record.times_us.push(Vec::new());
            record.batches.push(Vec::new());
        }
        if record.times_us[token].is_empty() {
            for (layer, stats) in stats_of.iter().enumerate() {
                record.layers[layer].add(stats);
                record.batches[token].push((stats.reads as u32, stats.bytes_read as u32));
                record.predicted_us += law.time_us(stats.reads, stats.bytes_read);
            }
        }
        let io_ns: u64 = stats_of.iter().map(|stats| stats.io_ns).sum();
        record.times_us[token].push(io_ns as f64 / 1e3);
        Ok(())
    }

    /// The dense baseline is timed on a part of the tokens, because it reads the same for each; what
    /// was active is taken from all of them, so that its row compares with the others.
    pub(super) fn count_all_tokens(&mut self, sets: &ActiveSets, all_tokens: usize) {
        let stride = u64::from(self.engine.pack().shape().bundle_stride);
        let share = self.cold.tokens() as f64 / all_tokens as f64;
        for (number, stats) in self.cold.layers.iter_mut().enumerate() {
            let active = sets.active_of(number, all_tokens) as f64 * share;
            // Runs grow with what is active: bundles per run stay those of the part.
            let grown = active / stats.active.max(1) as f64;
            stats.runs = (stats.runs as f64 * grown).round() as u64;
            stats.active = active.round() as u64;
            stats.useful_bytes = stats.active * stride;
        }
    }

    /// The rows of the states that were replayed.
    pub(super) fn rows(
        &self,
        options: &ReplayOptions,
        sets: &ActiveSets,
        simulated: bool,
        calibrated: [Option<Calibrated>; 2],
    ) -> Result<Vec<Row>> {
        let states = [(CacheState::Cold, &self.cold), (CacheState::Warm, &self.warm)];
        let replayed = states.into_iter().filter(|(_, record)| record.tokens() > 0);
        replayed
            .map(|(cache_state, record)| {
                let cache = self.strategy.cache;
                let label = Label {
                    strategy: options.caches.in_state(
                        &self.strategy.name,
                        cache.is_some(),
                        cache_state,
                    ),
                    collapse: self.strategy.collapse,
                    cache_policy: cache.map_or("none", |cache| cache.policy.name()),
                    cache_ratio: cache.map_or(0.0, |cache| cache.ratio),
                    cache_state,
                    simulated,
                    calibrated: calibrated[usize::from(cache_state == CacheState::Warm)],
                    adapt: self.strategy.adapt,
                    judged: sets.judged(record.tokens()).filter(|_| self.strategy.predicted),
                    beliefs: self.beliefs.clone(),
                };
                row(record, label, self.pack, options)
            })
            .collect()
    }
}
