//! The contest: every strategy on every pack, in turns.

use std::time::Instant;

use anyhow::{Context, Result};
use lnp_engine::queue::ReadQueue;
use lnp_engine::{Collapse, DeviceLaw, Engine, FetchStats};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::calibrate::{Calibrated, calibrate};
use super::rows::{Belief, Label, Record, Row};
use super::strategy::{CacheState, Strategy};
use super::{ActiveSets, ReplayOptions, sustained};
use lnp_device::LawText;
use lnp_link::trace::active;
use lnp_pack::PackIndex;

/// Tokens of a turn.
pub(super) const BLOCK_TOKENS: usize = 8;
/// Tokens that the dense baseline replays: its reads do not depend on the token.
const DENSE_TOKENS: usize = 64;

/// One strategy on one pack, under way.
pub(super) struct Contestant<'a, Q> {
    pub(super) strategy: Strategy,
    pack: &'a PackIndex,
    pub(super) engine: Engine<'a, Q>,
    copies: usize,
    pub(super) tokens: usize,
    cold: Record,
    warm: Record,
    /// When the replay began, by the device's clock, nanoseconds.
    begin_ns: u64,
    batches: u64,
    beliefs: Vec<Belief>,
}

impl<'a, Q: ReadQueue<'a> + Send> Contestant<'a, Q> {
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
        for (layer, bits) in sets.layers.iter().enumerate() {
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
    fn count_all_tokens(&mut self, sets: &ActiveSets, all_tokens: usize) {
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
    fn rows(
        &self,
        options: &ReplayOptions,
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
                    beliefs: self.beliefs.clone(),
                };
                record.row(label, self.pack, options)
            })
            .collect()
    }
}

/// Lets all contestants take turns; returns the rows of each, and the law that they obeyed on a real
/// device. Turns are of a few tokens, or, on a real device and where the options say so, seconds long:
/// no law is fitted then, since single tokens say nothing.
pub(super) fn compete<'a, Q: ReadQueue<'a> + Send>(
    mut contestants: Vec<Contestant<'a, Q>>,
    sets: &ActiveSets,
    options: &ReplayOptions,
    simulated: bool,
    progress: &mut dyn FnMut(f64),
) -> Result<(Vec<Vec<Row>>, Option<DeviceLaw>)> {
    let turn = options.turn.filter(|_| !simulated);
    let tokens = match turn {
        Some(turn) => {
            let begin = Instant::now();
            let now = || begin.elapsed();
            sustained::compete(&mut contestants, sets, options, turn, &now, progress)?;
            sets.tokens
        }
        None => in_short_turns(&mut contestants, sets, options, simulated, progress)?,
    };
    for contestant in contestants.iter_mut().filter(|contestant| contestant.strategy.is_dense()) {
        contestant.count_all_tokens(sets, tokens);
    }
    // Cold and warm of each, one after the other. What adapts does not do the same in each repeat.
    let records: Vec<&Record> =
        contestants.iter().flat_map(|contestant| [&contestant.cold, &contestant.warm]).collect();
    let adapts = |at: usize| contestants[at / 2].strategy.adapt;
    let calibrated = if simulated || turn.is_some() { None } else { calibrate(&records, &adapts) };
    let of = |at: usize| calibrated.as_ref().and_then(|(_, rows)| rows[at]);
    let rows = contestants
        .iter()
        .enumerate()
        .map(|(at, contestant)| contestant.rows(options, simulated, [of(2 * at), of(2 * at + 1)]))
        .collect::<Result<_>>()?;
    Ok((rows, calibrated.map(|(law, _)| law)))
}

/// Turns of [`BLOCK_TOKENS`]; returns the tokens that were replayed.
fn in_short_turns<'a, Q: ReadQueue<'a> + Send>(
    contestants: &mut [Contestant<'a, Q>],
    sets: &ActiveSets,
    options: &ReplayOptions,
    simulated: bool,
    progress: &mut dyn FnMut(f64),
) -> Result<usize> {
    // Simulated time is the same every time.
    let repeats = if simulated { 1 } else { options.repeats.max(1) };
    let states = options.caches.states();
    let blocks = sets.tokens.div_ceil(BLOCK_TOKENS);
    let all_turns = repeats * states.len() * blocks;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(0);
    let mut turns: Vec<usize> = (0..contestants.len()).collect();
    let begin_time = Instant::now();
    let late = || options.time_max.is_some_and(|most| begin_time.elapsed() > most);
    let mut tokens = 0;
    for turn in 0..all_turns {
        let (pass, begin) = (turn / blocks, turn % blocks * BLOCK_TOKENS);
        let state = states[pass % states.len()];
        if begin == 0 && state == CacheState::Cold {
            contestants.iter_mut().for_each(|contestant| contestant.engine.clear_cache());
        }
        // A new order each time: a device that is slow for a while after heavy reads (dense)
        // would else always be so for the same successor.
        turns.shuffle(&mut random);
        for at in &turns {
            let contestant = &mut contestants[*at];
            if state == CacheState::Warm && contestant.strategy.cache.is_none() {
                continue;
            }
            for token in begin..(begin + BLOCK_TOKENS).min(contestant.tokens) {
                contestant.replay(sets, &options.law, token, state)?;
            }
        }
        tokens = tokens.max((begin + BLOCK_TOKENS).min(sets.tokens));
        progress((turn + 1) as f64 / all_turns as f64);
        if late() {
            break;
        }
    }
    Ok(tokens)
}
