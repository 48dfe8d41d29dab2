//! Reading layers ahead: while a layer is read it is predicted what the next will probably need, and from its end until
//! the next is begun that is prefetched. Not sooner: it would take the device's time from what is waited for, and
//! leave it nothing to do while it is idle. By which predictions, the law says ([`lnp_engine::ahead`]), from what was measured of
//! the model's own layers; or the caller.

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
}

/// A layer.
#[derive(Debug, Clone, Default)]
struct LayerAhead {
    /// By which prediction it is read ahead: from how many layers before, at which operating point.
    by: Option<(usize, usize)>,
    measured: Measured,
    /// Of each horizon, how often this layer was predicted, and how long that took in all.
    predicted: [(f64, f64); HORIZON_MAX],
}

impl LayerAhead {
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
        Self { choice, quality, layers, tokens: 0, ended: None, later, ids }
    }

    /// Of each layer, from how many layers before it is read ahead at present; 0 where it is not.
    pub fn horizons(&self) -> Vec<usize> {
        self.layers.iter().map(|layer| layer.by.map_or(0, |(horizon, _)| horizon)).collect()
    }

    /// Whether tokens are measured at present, without reading ahead.
    fn is_measuring(&self) -> bool {
        self.choice == AheadChoice::Auto && self.tokens % TOKENS_DECIDED < TOKENS_MEASURED
    }

    /// Told when a token's input of a layer is known and its reads are about to be submitted.
    pub(crate) fn begins<'a, Q: TimedQueue<'a>>(
        &mut self,
        session: &Session<'_, 'a, Q>,
        predictor: &dyn Predict,
        layer: usize,
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
            found.measured.idle_us += ended.elapsed().as_secs_f64() * 1e6;
        }
    }

    /// Told when the layer's reads are submitted: predicts the next ones.
    ///
    /// # Errors
    /// As [`Predict::ahead`].
    pub(crate) fn begun(&mut self, predictor: &dyn Predict, layer: usize, x: &[f32]) -> Result<()> {
        let measuring = self.is_measuring();
        for horizon in 1..=HORIZON_MAX {
            let Some(found) = self.layers.get_mut(layer + horizon) else { break };
            let point = match found.by {
                // What it would take is measured too.
                _ if measuring && !predictor.points_ahead(layer + horizon, horizon).is_empty() => 0,
                Some((by, point)) if by == horizon && !measuring => point,
                _ => continue,
            };
            let begin = Instant::now();
            let ids = &mut self.ids[horizon - 1];
            predictor.ahead(layer + horizon, horizon, point, x, ids)?;
            self.later[horizon - 1] = (!measuring).then_some(layer + horizon);
            let (times, us) = &mut found.predicted[horizon - 1];
            (*times, *us) = (*times + 1.0, *us + begin.elapsed().as_secs_f64() * 1e6);
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
        self.tokens += usize::from(layer + 1 == self.layers.len());
        for (later, ids) in self.later.iter_mut().zip(&self.ids) {
            if let Some(later) = later.take() {
                session.prefetch(later as u32, ids)?;
            }
        }
        Ok(())
    }

    /// The same layers for every token: from as far as there are predictors.
    fn fix(&mut self, predictor: &dyn Predict, most: usize) {
        let quality = self.quality;
        for (number, layer) in self.layers.iter_mut().enumerate() {
            let farthest = most.min(HORIZON_MAX).min(number);
            layer.by = (1..=farthest).rev().find_map(|horizon| {
                let points = predictor.points_ahead(number, horizon);
                let enough = points.iter().position(|p| f64::from(p.quality) >= quality - 1e-6);
                Some((horizon, enough.or(points.len().checked_sub(1))?))
            });
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
            let Measured { tokens, stats, .. } = &self.layers[number].measured;
            // Nobody fills the queue while something else is computed.
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
                for (point, known) in predictor.points_ahead(number, horizon).iter().enumerate() {
                    let (recall, read) = (known.recall.into(), known.reads_per_active.into());
                    let guess = Guess { recall, reads_per_active: read, ..guess };
                    guesses.push(guess.of_missing(hit_rate));
                    of.push((horizon, point));
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
