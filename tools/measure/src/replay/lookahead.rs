//! What reading layers ahead is worth: `replay --ahead`.
//!
//! The same tokens through the same pack, not reading ahead, one layer ahead, two, and as the law chooses
//! ([`lnp_engine::ahead`]), in turns. Which neurons a layer needs and which it was expected to need the trace says
//! ([`lnp_link::predicted`]); between two layers a stated time is computed. On a real device that time is spent
//! computing, on the simulated one it passes on its clock.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lnp_engine::ahead::{Demand, Guess, choose, use_idle};
use lnp_engine::engine::{ActiveSet, Alone, Session};
use lnp_engine::queue::simulated::{Image, Meanwhile, SimulatedQueue};
use lnp_engine::queue::{Feeder, Logged, ReadLog, TimedQueue};
use lnp_engine::{Collapse, Config, Engine, EngineError, FetchStats, open_logged, required_bytes};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::Target;
use super::options::ReplayOptions;
use super::record::TURN_TOKENS;
use super::rows::Times;
use lnp_common::report::quantile;
use lnp_device::memory;
use lnp_device::timeline::{self, Timeline};
use lnp_link::trace::active;
use lnp_pack::PackIndex;

mod rows;
mod sets;

pub use rows::{AheadRow, render};
pub use sets::AheadSets;

/// Farthest layer ahead.
pub const HORIZON_MAX: usize = 2;

/// How layers are read ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// So many, or as many as there are predictions for; 0 for none.
    Layers(usize),
    /// As the law chooses.
    Auto,
}

impl Mode {
    fn name(self) -> String {
        match self {
            Self::Layers(layers) => layers.to_string(),
            Self::Auto => "auto".into(),
        }
    }
}

/// Replays with every pack in every mode, the first of which is not to read ahead. `compute_us` is computed between
/// two layers.
///
/// # Errors
/// A read that fails, or packs of another shape than the trace.
pub fn lookahead(
    packs: &[PackIndex],
    sets: &AheadSets,
    target: &Target<'_>,
    options: &ReplayOptions,
    (modes, compute_us): (&[Mode], f64),
    progress: &mut dyn FnMut(f64),
) -> Result<(Vec<AheadRow>, Vec<Timeline>)> {
    let (mut rows, mut timelines) = (Vec::new(), Vec::new());
    for (number, index) in packs.iter().enumerate() {
        let pack = index.pack()?;
        let named = || index.path().display().to_string();
        let config = config(&pack, options);
        let mut memory = memory::arena(required_bytes(&config, &pack)?)?;
        let mut told = |share: f64| progress((number as f64 + share) / packs.len().max(1) as f64);
        let meanwhile = Meanwhile::default();
        let mut notes = options.timeline_tokens.map(|_| timeline::notes());
        let log = notes.as_mut().map(|notes| ReadLog::new(notes));
        let run = |clock| Run { sets, options, compute_us, clock, modes };
        let found = match target {
            Target::Simulated => {
                let image = Image::Opaque(index.file_bytes());
                let device = SimulatedQueue::new(image, options.law, options.queue_depth, 0);
                let device = device.meanwhile(&meanwhile);
                let opened = |_| Ok::<_, EngineError>(Logged::new(device, log));
                let mut engine = Engine::open(pack, &config, &mut memory, opened)?;
                run(Clock::Simulated(&meanwhile)).rows(&mut engine, &mut told)
            }
            Target::Device(files, read) => {
                let file = &files[number];
                let mut engine = open_logged(file, pack, &config, &mut memory, *read, log)
                    .with_context(named)?;
                run(Clock::Real).rows(&mut engine, &mut told)
            }
        };
        let (found, recorded) = found.with_context(named)?;
        rows.extend(found);
        timelines.extend(recorded);
    }
    Ok((rows, timelines))
}

fn config(pack: &lnp_format::Pack<'_>, options: &ReplayOptions) -> Config {
    let bundles = pack.shape().bundles() as f64;
    let ratio = options.caches.ratios.first().copied().unwrap_or(0.0);
    Config {
        collapse: Collapse::Law(options.law),
        cache_bundles: (bundles * ratio).round() as u32,
        queue_depth: options.queue_depth,
        prefetch_bytes: Config::staging_bytes_full(pack).next_multiple_of(4096),
        ..Config::new(pack)
    }
}

/// How computing takes its time.
#[derive(Clone, Copy)]
enum Clock<'a> {
    Simulated(&'a Meanwhile),
    Real,
}

impl Clock<'_> {
    fn pass(self, us: f64) {
        match self {
            Self::Simulated(meanwhile) => meanwhile.pass((us * 1e3) as u32),
            Self::Real => {
                let (begin, time) = (Instant::now(), Duration::from_secs_f64(us / 1e6));
                while begin.elapsed() < time {
                    std::hint::spin_loop();
                }
            }
        }
    }
}

/// Of each layer, from how many layers before it is read ahead; 0 for not.
type Horizons = Vec<usize>;

/// A replay of one pack.
struct Run<'a> {
    sets: &'a AheadSets,
    options: &'a ReplayOptions,
    compute_us: f64,
    clock: Clock<'a>,
    modes: &'a [Mode],
}

/// Of a mode: wall times of each token in each repeat, and what was read in all.
struct Timed {
    wall_us: Vec<Vec<f64>>,
    stats: FetchStats,
}

impl Run<'_> {
    fn rows<'a, Q: TimedQueue<'a> + Send>(
        &self,
        engine: &mut Engine<'a, Q>,
        progress: &mut dyn FnMut(f64),
    ) -> Result<(Vec<AheadRow>, Vec<Timeline>)> {
        let horizons: Vec<Horizons> =
            self.modes.iter().map(|mode| self.horizons(engine, *mode)).collect::<Result<_>>()?;
        let simulated = matches!(self.clock, Clock::Simulated(_));
        // Simulated time is the same every time.
        let repeats = if simulated { 1 } else { self.options.repeats.max(1) };
        let tokens = self.sets.needed.tokens;
        let blank = || Timed { wall_us: vec![Vec::new(); tokens], stats: FetchStats::default() };
        let mut timed: Vec<Timed> = self.modes.iter().map(|_| blank()).collect();
        let mut random = Xoshiro256PlusPlus::seed_from_u64(0);
        let mut order: Vec<usize> = (0..self.modes.len()).collect();
        let blocks = tokens.div_ceil(TURN_TOKENS);
        for turn in 0..repeats * blocks {
            let first = turn % blocks * TURN_TOKENS;
            order.shuffle(&mut random);
            for mode in &order {
                let Timed { wall_us, stats } = &mut timed[*mode];
                let block = first..tokens.min(first + TURN_TOKENS);
                self.turn(engine, block, &horizons[*mode], None, |token, us, _, of| {
                    stats.add(of);
                    if let Some(us) = us {
                        wall_us[token].push(us);
                    }
                })?;
            }
            progress((turn + 1) as f64 / (repeats * blocks) as f64);
        }
        let timelines = match self.options.timeline_tokens {
            Some(most) => self.timelines(engine, &horizons, most)?,
            None => Vec::new(),
        };
        Ok((self.rows_of(engine, horizons, &timed, (simulated, repeats)), timelines))
    }

    /// The first tokens once more in every mode, recorded: so that recording is in no number.
    fn timelines<'a, Q: TimedQueue<'a> + Send>(
        &self,
        engine: &mut Engine<'a, Q>,
        horizons: &[Horizons],
        most: usize,
    ) -> Result<Vec<Timeline>> {
        let tokens = most.min(self.sets.needed.tokens);
        let mut timelines = Vec::new();
        for (mode, horizons) in self.modes.iter().zip(horizons) {
            let name =
                format!("read ahead: {}, {}", mode.name(), engine.pack().provenance().order());
            let mut timeline = Timeline::new(name, Some("computing"), tokens, engine);
            self.turn(engine, 0..tokens, horizons, Some(&mut timeline), |_, _, _, _| {})?;
            timeline.ends(engine.read_log());
            timelines.push(timeline);
        }
        Ok(timelines)
    }

    /// Replays some tokens, beginning with an empty cache; `each` is told of each layer its stats, and of the last
    /// one the token's wall time, microseconds.
    fn turn<'a, Q: TimedQueue<'a> + Send>(
        &self,
        engine: &mut Engine<'a, Q>,
        tokens: std::ops::Range<usize>,
        horizons: &Horizons,
        mut timeline: Option<&mut Timeline>,
        mut each: impl FnMut(usize, Option<f64>, usize, &FetchStats),
    ) -> Result<()> {
        engine.clear_cache();
        let copies = self.sets.needed.copies(engine.pack())?;
        let layers = horizons.len();
        engine.session(|session| {
            for token in tokens {
                let first = token % copies * layers;
                let begin_ns = session.engine().queue().now_ns();
                if let Some(timeline) = &mut timeline {
                    timeline.pass_begins(begin_ns, session.read_log());
                }
                for layer in 0..layers {
                    let stats = self.layer(
                        session,
                        (token, first),
                        layer,
                        horizons,
                        timeline.as_deref_mut(),
                    )?;
                    let end_ns = session.engine().queue().now_ns();
                    let wall_us = end_ns.saturating_sub(begin_ns) as f64 / 1e3;
                    each(token, (layer + 1 == layers).then_some(wall_us), layer, &stats);
                }
            }
            Ok(())
        })
    }

    /// One layer: computing before it, its reads begun and finished, and later ones prefetched.
    fn layer<'a, Q: TimedQueue<'a> + Send>(
        &self,
        session: &mut Session<'_, 'a, Q>,
        (token, first): (usize, usize),
        layer: usize,
        horizons: &Horizons,
        mut timeline: Option<&mut Timeline>,
    ) -> Result<FetchStats> {
        let neurons = self.sets.needed.neurons;
        let ids = |bits: &[u8]| -> Vec<u32> { active(bits, neurons, token).collect() };
        let now = ids(&self.sets.needed.layers[layer]);
        let now = ActiveSet::new(&now, neurons as u32)?;
        self.clock.pass(self.compute_us);
        let number = (first + layer) as u32;
        if let Some(timeline) = &mut timeline {
            timeline.layer_begins(number, session.engine().queue().now_ns());
        }
        session.begin(number, now)?;
        if let Some(timeline) = &mut timeline {
            timeline.asked(session.engine(), number, [now.ids()]);
        }
        let mut ignore = |_, _, _: &[u8], _: &[u8]| Ok(());
        let stats = session.finish(&Alone, number, now, |_, _, _| Ok(0.0), &mut ignore)?;
        if let Some(timeline) = timeline {
            timeline.fetched(&stats, session.read_log());
            timeline.layer_ends(session.engine().queue().now_ns());
        }
        // Not sooner: it would take the device's time from what was waited for.
        for horizon in 1..=HORIZON_MAX {
            let target = layer + horizon;
            if horizons.get(target) == Some(&horizon)
                && let Some(bits) = self.sets.of(target, horizon)
            {
                session.prefetch((first + target) as u32, &ids(bits))?;
            }
        }
        Ok(stats)
    }

    /// How the layers are read ahead in a mode.
    fn horizons<'a, Q: TimedQueue<'a> + Send>(
        &self,
        engine: &mut Engine<'a, Q>,
        mode: Mode,
    ) -> Result<Horizons> {
        let layers = self.sets.needed.layers.len();
        let farthest = |layer: usize, most: usize| {
            let possible = (1..=most.min(HORIZON_MAX).min(layer)).rev();
            possible.into_iter().find(|horizon| self.sets.of(layer, *horizon).is_some())
        };
        match mode {
            Mode::Layers(most) => {
                Ok((0..layers).map(|layer| farthest(layer, most).unwrap_or(0)).collect())
            }
            Mode::Auto => self.chosen(engine),
        }
    }

    /// As the law chooses, by what the first turns read without reading ahead.
    fn chosen<'a, Q: TimedQueue<'a> + Send>(&self, engine: &mut Engine<'a, Q>) -> Result<Horizons> {
        const TURNS_MEASURED: usize = 4;
        let layers = self.sets.needed.layers.len();
        let mut read = vec![FetchStats::default(); layers];
        let tokens = self.sets.needed.tokens.min(TURNS_MEASURED * TURN_TOKENS);
        for first in (0..tokens).step_by(TURN_TOKENS) {
            let block = first..tokens.min(first + TURN_TOKENS);
            let each = |_, _, layer: usize, stats: &FetchStats| read[layer].add(stats);
            self.turn(engine, block, &vec![0; layers], None, each)?;
        }
        let stride = engine.pack().shape().bundle_stride;
        let alone_bytes = f64::from(stride.next_multiple_of(engine.pack().block_bytes()));
        let mut idle_us = vec![self.compute_us; layers];
        let mut horizons = vec![0; layers];
        for (layer, stats) in read.iter().enumerate() {
            let per_token = |count: u64| count as f64 / tokens.max(1) as f64;
            let demand = Demand {
                bundles: per_token(stats.active - stats.hits),
                reads: per_token(stats.reads),
                bytes: per_token(stats.bytes_read),
                alone_bytes,
            };
            // Nobody fills the queue while something else is computed.
            let most = u64::from(Feeder::Prefetched.limit(self.options.queue_depth));
            let read_bytes = stats.bytes_read / stats.reads.max(1);
            idle_us[layer] = idle_us[layer].min(self.options.law.work_us(most, most * read_bytes));
            let hit_rate = stats.hits as f64 / stats.active.max(1) as f64;
            let guesses: Vec<(usize, Guess)> = (1..=HORIZON_MAX.min(layer))
                .filter_map(|horizon| Some((horizon, self.guess(layer, horizon, &idle_us)?)))
                .collect();
            let of: Vec<Guess> = guesses.iter().map(|(_, of)| of.of_missing(hit_rate)).collect();
            if let Some(chosen) = choose(&self.options.law, &demand, &of) {
                horizons[layer] = guesses[chosen.guess].0;
                use_idle(&mut idle_us[..=layer], chosen.used_us);
            }
        }
        Ok(horizons)
    }

    fn guess(&self, layer: usize, horizon: usize, idle_us: &[f64]) -> Option<Guess> {
        let (recall, reads_per_active) = self.sets.judged(layer, horizon)?;
        let limit = Feeder::Prefetched.limit(self.options.queue_depth);
        Some(Guess {
            recall,
            reads_per_active,
            idle_us: idle_us[layer + 1 - horizon..=layer].iter().sum(),
            predict_us: 0.0,
            // While the layer between is read, all of what is further ahead is submitted.
            reads_max: if horizon == 1 { f64::from(limit) } else { f64::INFINITY },
        })
    }

    fn rows_of<'a, Q: TimedQueue<'a>>(
        &self,
        engine: &Engine<'a, Q>,
        horizons: Vec<Horizons>,
        timed: &[Timed],
        (simulated, repeats): (bool, usize),
    ) -> Vec<AheadRow> {
        let tokens = self.sets.needed.tokens;
        let median = |repeats: &Vec<f64>| quantile(&mut repeats.clone(), 0.5);
        let times = |timed: &Timed| Times::of(timed.wall_us.iter().map(median).collect());
        let none_us = timed.first().map_or(0.0, |none| times(none).mean);
        let modes = self.modes.iter().zip(horizons).zip(timed);
        let row = |((mode, layers), timed): ((&Mode, Horizons), &Timed)| {
            let stats = &timed.stats;
            let per_token = |count: u64| count as f64 / (tokens * repeats).max(1) as f64;
            let wall_us_per_token = times(timed);
            AheadRow {
                order: engine.pack().provenance().order().to_owned(),
                bundle_bytes: engine.pack().shape().bundle_stride,
                ahead: mode.name(),
                layers,
                predictions: (1..=HORIZON_MAX).filter_map(|of| self.sets.judged_all(of)).collect(),
                compute_us_per_layer: self.compute_us,
                cache_ratio: self.options.caches.ratios.first().copied().unwrap_or(0.0),
                queue_depth: self.options.queue_depth,
                simulated,
                tokens,
                repeats,
                wait_us_per_token: per_token(stats.wait_ns) / 1e3,
                active_bundles_per_token: per_token(stats.active),
                reads_per_token: per_token(stats.reads + stats.ahead_reads),
                bytes_read_per_token: per_token(stats.bytes_read + stats.ahead_bytes),
                ahead_reads_per_token: per_token(stats.ahead_reads),
                ahead_bundles_used_per_token: per_token(stats.prefetched),
                of_none: wall_us_per_token.mean / none_us.max(1e-9),
                wall_us_per_token,
            }
        };
        modes.map(row).collect()
    }
}

#[cfg(test)]
#[path = "lookahead/tests.rs"]
mod tests;
