//! Reading layers ahead: while a layer is read it is predicted what the next will probably need, and from its end until
//! the next is begun that is prefetched. Not sooner, where much of the layer itself is still to be read: it would take the
//! device's time from what is waited for, and leave it nothing to do while it is idle. By which predictions, the law says
//! ([`lnp_engine::ahead`]), from what was measured of the model's own layers; or the caller.
//!
//! A layer that has no predictor for the input of the layer before may be predicted by its own: the two inputs differ by
//! what one layer adds. How much that finds is measured, beside the time that it takes.

use std::time::Instant;

use anyhow::Result;
use lnp_engine::ahead::{Demand, Guess, choose, use_idle};
use lnp_engine::engine::Session;
use lnp_engine::queue::{Feeder, TimedQueue};
use lnp_engine::{Collapse, Combine, DeviceLaw, FetchStats};

use crate::predict::Predict;

/// Farthest layer ahead: the engine keeps two prefetched layers.
pub const HORIZON_MAX: usize = 2;
/// Tokens that are measured without reading ahead before anything is decided...
const TOKENS_MEASURED: usize = 4;
/// ...and again after so many.
const TOKENS_DECIDED: usize = 64;

/// How far ahead layers are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AheadChoice {
    /// As the law says, layer by layer.
    Auto,
    /// So many layers, or what there are predictors for; 0 for none.
    Layers(usize),
}

/// What was measured of a layer, sums.
#[derive(Debug, Clone, Default)]
struct Measured {
    tokens: f64,
    stats: FetchStats,
    /// From the end of the layer before to when this one is begun.
    idle_us: f64,
    /// How often, in that time, it was gone on with reading.
    turns: f64,
    lent: Lent,
}

/// What a layer's own predictor said of it before its time, sums: bundles named, needed, and both.
#[derive(Debug, Clone, Copy, Default)]
struct Lent {
    named: f64,
    needed: f64,
    found: f64,
}

/// By which prediction a layer is read ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// One made for it: from how many layers before, at which operating point.
    Made(usize, usize),
    /// Its own, from one layer before.
    Lent,
}

impl By {
    const fn horizon(self) -> usize {
        match self {
            Self::Made(horizon, _) => horizon,
            Self::Lent => 1,
        }
    }
}

impl Lent {
    /// Of lists that ascend.
    fn note(&mut self, named: &[u32], needed: &[u32]) {
        let found = needed.iter().filter(|id| named.binary_search(id).is_ok()).count();
        self.named += named.len() as f64;
        self.needed += needed.len() as f64;
        self.found += found as f64;
    }
}

/// A layer.
#[derive(Debug, Clone, Default)]
struct LayerAhead {
    by: Option<By>,
    measured: Measured,
    /// Of each horizon, how often this layer was predicted, and how long that took in all.
    predicted: [(f64, f64); HORIZON_MAX],
}

impl LayerAhead {
    /// Microseconds that predicting takes.
    fn predict_us(&self, horizon: usize) -> f64 {
        let (times, us) = self.predicted[horizon - 1];
        us / times.max(1.0)
    }
}

/// Reads layers ahead within a session, for one token at a time.
pub struct ReadAhead {
    choice: AheadChoice,
    quality: f64,
    layers: Vec<LayerAhead>,
    /// Tokens begun.
    tokens: usize,
    ended: Option<(usize, Instant)>,
    /// How often it was gone on with reading since then.
    turns: usize,
    /// By horizon - 1: a layer to prefetch once the one that was begun is finished, and what is predicted of it.
    later: [Option<usize>; HORIZON_MAX],
    ids: [Vec<u32>; HORIZON_MAX],
}

impl ReadAhead {
    /// Reads ahead in a model of so many layers; where the choice is a number of layers, at the operating points of
    /// this quality.
    pub fn new(choice: AheadChoice, layers: usize, quality: f64) -> Self {
        let layers = vec![LayerAhead::default(); layers];
        let (later, ids) = ([None; HORIZON_MAX], [Vec::new(), Vec::new()]);
        Self { choice, quality, layers, tokens: 0, ended: None, turns: 0, later, ids }
    }

    /// Of each layer, from how many layers before it is read ahead at present; 0 where it is not.
    pub fn horizons(&self) -> Vec<usize> {
        self.layers.iter().map(|layer| layer.by.map_or(0, By::horizon)).collect()
    }

    /// Whether tokens are measured at present, without reading ahead.
    fn is_measuring(&self) -> bool {
        self.choice == AheadChoice::Auto && self.tokens % TOKENS_DECIDED < TOKENS_MEASURED
    }

    /// Told when it is gone on with reading while something else is computed.
    pub(crate) fn goes_on(&mut self) {
        self.turns += 1;
    }

    /// Told when it is known what a token needs of a layer and the reads are about to be submitted.
    pub(crate) fn begins<'a, Q: TimedQueue<'a>>(
        &mut self,
        session: &Session<'_, 'a, Q>,
        predictor: &dyn Predict,
        layer: usize,
        needed: Option<&Vec<u32>>,
    ) {
        if layer == 0 {
            match self.choice {
                AheadChoice::Layers(most) if self.tokens == 0 => self.fix(predictor, most),
                AheadChoice::Auto => self.turn(session, predictor),
                AheadChoice::Layers(_) => {}
            }
        }
        let measuring = self.is_measuring();
        if let (Some((before, ended)), Some(found)) = (self.ended, self.layers.get_mut(layer))
            && before + 1 == layer
            && measuring
        {
            let measured = &mut found.measured;
            measured.idle_us += ended.elapsed().as_secs_f64() * 1e6;
            measured.turns += self.turns as f64;
            if let (true, Some(needed)) = (predictor.lends(layer), needed) {
                measured.lent.note(&self.ids[0], needed);
            }
        }
    }

    /// Told when the layer's reads are submitted: predicts the next ones.
    ///
    /// # Errors
    /// As [`Predict::ahead`], [`Session::prefetch`].
    pub(crate) fn begun<'a, Q: TimedQueue<'a>>(
        &mut self,
        session: &mut Session<'_, 'a, Q>,
        predictor: &dyn Predict,
        layer: usize,
        x: &[f32],
    ) -> Result<()> {
        let measuring = self.is_measuring();
        for horizon in 1..=HORIZON_MAX {
            let later = layer + horizon;
            let Some(found) = self.layers.get_mut(later) else { break };
            let by = match found.by {
                // What it would take is measured too.
                _ if measuring && !predictor.points_ahead(later, horizon).is_empty() => {
                    By::Made(horizon, 0)
                }
                _ if measuring && horizon == 1 && predictor.lends(later) => By::Lent,
                Some(by) if by.horizon() == horizon && !measuring => by,
                _ => continue,
            };
            let begin = Instant::now();
            let ids = &mut self.ids[horizon - 1];
            match by {
                By::Made(horizon, point) => predictor.ahead(later, horizon, point, x, ids)?,
                By::Lent => predictor.lent(later, x, ids)?,
            }
            self.later[horizon - 1] = (!measuring).then_some(later);
            let (times, us) = &mut found.predicted[horizon - 1];
            (*times, *us) = (*times + 1.0, *us + begin.elapsed().as_secs_f64() * 1e6);
        }
        // Most of a layer that was itself read ahead is under way: the device would have nothing to do.
        if self.layers.get(layer).is_some_and(|layer| layer.by.is_some()) {
            self.prefetch(session)?;
        }
        Ok(())
    }

    /// Prefetches what was predicted.
    fn prefetch<'a, Q: TimedQueue<'a>>(&mut self, session: &mut Session<'_, 'a, Q>) -> Result<()> {
        for (later, ids) in self.later.iter_mut().zip(&self.ids) {
            if let Some(later) = later.take() {
                session.prefetch(later as u32, ids)?;
            }
        }
        Ok(())
    }

    /// Told when a layer is computed: prefetches the next ones.
    ///
    /// # Errors
    /// As [`Session::prefetch`].
    pub(crate) fn finished<'a, Q: TimedQueue<'a>>(
        &mut self,
        session: &mut Session<'_, 'a, Q>,
        layer: usize,
        stats: &FetchStats,
    ) -> Result<()> {
        let measuring = self.is_measuring();
        if let (true, Some(found)) = (measuring, self.layers.get_mut(layer)) {
            found.measured.tokens += 1.0;
            found.measured.stats.add(stats);
        }
        self.ended = Some((layer, Instant::now()));
        self.turns = 0;
        self.tokens += usize::from(layer + 1 == self.layers.len());
        self.prefetch(session)
    }

    /// The same layers for every token: from as far as there are predictors.
    fn fix(&mut self, predictor: &dyn Predict, most: usize) {
        let quality = self.quality;
        for (number, layer) in self.layers.iter_mut().enumerate() {
            let farthest = most.min(HORIZON_MAX).min(number);
            let made = (1..=farthest).rev().find_map(|horizon| {
                let points = predictor.points_ahead(number, horizon);
                let enough = points.iter().position(|p| f64::from(p.quality) >= quality - 1e-6);
                Some(By::Made(horizon, enough.or(points.len().checked_sub(1))?))
            });
            let lent = (farthest > 0 && predictor.lends(number)).then_some(By::Lent);
            layer.by = made.or(lent);
        }
    }

    /// At the begin of a token: measures anew, or decides by what was measured.
    fn turn<'a, Q: TimedQueue<'a>>(
        &mut self,
        session: &Session<'_, 'a, Q>,
        predictor: &dyn Predict,
    ) {
        match self.tokens % TOKENS_DECIDED {
            0 => self.layers.iter_mut().for_each(|layer| layer.measured = Measured::default()),
            TOKENS_MEASURED => self.decide(session, predictor),
            _ => {}
        }
    }

    /// Chooses for each layer by which prediction it is read ahead, the first layers first: time in which the device
    /// is idle serves once.
    fn decide<'a, Q: TimedQueue<'a>>(
        &mut self,
        session: &Session<'_, 'a, Q>,
        predictor: &dyn Predict,
    ) {
        let engine = session.engine();
        let reads_max = f64::from(Feeder::Prefetched.limit(engine.config().queue_depth));
        let stride = engine.pack().shape().bundle_stride;
        let alone_bytes = f64::from(stride.next_multiple_of(engine.pack().block_bytes()));
        let Some(law) = self.law(engine.collapse()) else { return };
        let mut idle_us: Vec<f64> = self.layers.iter().map(Self::idle_us).collect();
        for number in 0..self.layers.len() {
            let mut guesses = Vec::new();
            let mut of = Vec::new();
            let Measured { tokens, stats, turns, lent, .. } = &self.layers[number].measured;
            // While something else is computed the queue is filled as often as it is gone on with reading.
            let reads_max = reads_max * (1.0 + turns / tokens.max(1.0));
            let (most, reads) = (reads_max as u64, stats.reads.max(1));
            let usable_us = law.work_us(most, most * stats.bytes_read / reads);
            idle_us[number] = idle_us[number].min(usable_us);
            let hit_rate = stats.hits as f64 / stats.active.max(1) as f64;
            for horizon in 1..=HORIZON_MAX.min(number) {
                // Waiting for the layer in which it is made hides what making it takes.
                let meanwhile = &self.layers[number - horizon].measured;
                let wait_us = meanwhile.stats.wait_ns as f64 / 1e3 / meanwhile.tokens.max(1.0);
                let guess = Guess {
                    idle_us: idle_us[number + 1 - horizon..=number].iter().sum(),
                    predict_us: self.layers[number].predict_us(horizon) - wait_us,
                    // While the layer between is read, all of what is further ahead is submitted.
                    reads_max: if horizon == 1 { reads_max } else { f64::INFINITY },
                    ..Guess::default()
                };
                let points = predictor.points_ahead(number, horizon);
                let mut add = |recall: f64, reads_per_active: f64, by: By| {
                    guesses.push(Guess { recall, reads_per_active, ..guess }.of_missing(hit_rate));
                    of.push(by);
                };
                for (point, known) in points.iter().enumerate() {
                    let by = By::Made(horizon, point);
                    add(known.recall.into(), known.reads_per_active.into(), by);
                }
                if horizon == 1 && points.is_empty() && lent.needed > 0.0 {
                    add(lent.found / lent.needed, lent.named / lent.needed, By::Lent);
                }
            }
            let per_token = |count: u64| count as f64 / tokens.max(1.0);
            let demand = Demand {
                bundles: per_token(stats.active - stats.hits),
                reads: per_token(stats.reads),
                bytes: per_token(stats.bytes_read),
                alone_bytes,
            };
            let chosen = choose(&law, &demand, &guesses);
            self.layers[number].by = chosen.map(|chosen| of[chosen.guess]);
            use_idle(&mut idle_us[..=number], chosen.map_or(0.0, |chosen| chosen.used_us));
        }
    }

    fn idle_us(layer: &LayerAhead) -> f64 {
        layer.measured.idle_us / layer.measured.tokens.max(1.0)
    }

    /// The law that reads are merged by; where that is none, each read takes what they took on average.
    fn law(&self, collapse: Collapse) -> Option<DeviceLaw> {
        if let Collapse::Law(law) = collapse {
            return Some(law);
        }
        let all = |of: fn(&FetchStats) -> u64| {
            self.layers.iter().map(|layer| of(&layer.measured.stats)).sum::<u64>() as f64
        };
        let read_us = all(|stats| stats.io_ns) / 1e3 / all(|stats| stats.reads).max(1.0);
        DeviceLaw::new(0.0, read_us, (1u64 << 30) as f64, Combine::Sum).ok()
    }
}
