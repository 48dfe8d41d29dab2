//! Making predictors: a map for every layer, ranks shared out over the layers, then operating points.

use anyhow::Result;
use lnp_model::{Checkpoint, ModelConfig};

use crate::calibrate::{Held, Made};
use crate::linear::{Whitening, centred, doubles, product, view};
use crate::numbers::{Matrix, Numbers};
use crate::points::{Tally, layer_thresholds};
use crate::predictor::{Between, Body, Predictor};
use crate::sample::{Sample, Use};
use crate::settings::{Kind, Ranks, Settings};
use crate::train::{Factors, Lesson, refine};
use crate::weights::LayerWeights;

/// Makes the predictors of a model; `step` is called [`steps`] times.
///
/// # Errors
/// A size that is not possible, weights that cannot be read, or numbers that are none.
pub fn fit(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    sample: &Sample,
    settings: &Settings,
    step: &dyn Fn(),
) -> Result<Vec<Made>> {
    let fitting = Fitting { checkpoint, config, sample, settings };
    let mut made = Vec::new();
    for &horizon in &settings.horizons {
        made.extend(fitting.horizon(horizon, step)?);
    }
    Ok(made)
}

/// How many steps [`fit`] takes.
pub fn steps(config: &ModelConfig, settings: &Settings) -> usize {
    let layers = settings.horizons.iter().map(|horizon| config.layers.saturating_sub(*horizon));
    (2 + settings.train) * layers.sum::<usize>()
}

struct Fitting<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a ModelConfig,
    sample: &'a Sample,
    settings: &'a Settings,
}

/// A map that is fitted but has no operating points yet.
struct Map {
    body: Body,
    /// Means of the pre-activations, less what makes a neuron active.
    level: Vec<f64>,
    /// Mean of the inputs.
    mean: Vec<f64>,
}

impl Map {
    /// What is added to the scores of the factors as they are rounded: the level is then that at the mean.
    fn offset(&self) -> Vec<f32> {
        let of_mean = self.body.decode().scores(&floats(&self.mean));
        let less = |(level, of): (&f64, &f32)| (level - f64::from(*of)) as f32;
        self.level.iter().zip(&of_mean).map(less).collect()
    }
}

impl Fitting<'_> {
    fn horizon(&self, horizon: usize, step: &dyn Fn()) -> Result<Vec<Made>> {
        let config = self.config;
        let ranks = Ranks::of(config, self.settings, horizon)?;
        let (mut maps, mut costs) = (Vec::new(), Vec::new());
        for layer in horizon..config.layers {
            let map = match self.settings.kind {
                Kind::Rows(_) | Kind::Exact if horizon == 0 => self.rows(layer)?,
                _ => self.low_rank(layer, horizon, ranks.most)?,
            };
            if ranks.share.is_some() && map.body.rank().is_some() {
                costs.push(self.costs(layer, horizon, &map, ranks.step)?);
            }
            maps.push(map);
            step();
        }
        let chosen = ranks.choose(&costs)?;
        let mut made = Vec::new();
        for (at, (layer, mut map)) in (horizon..).zip(maps).enumerate() {
            if let (Some(rank), Body::LowRank { reduce, expand, between }) =
                (chosen.get(at), &map.body)
            {
                let (reduce, expand) = (reduce.first_rows(*rank)?, expand.first_columns(*rank)?);
                map.body = Body::LowRank { reduce, expand, between: between.clone() };
            }
            let weights = self.weights(layer)?;
            let held = Held::of(self.sample, &weights, (layer, horizon));
            let start = held.calibrated(
                map.body.clone(),
                map.offset(),
                self.settings.recall,
                ranks.strengths,
            )?;
            made.push(match self.settings.train {
                0 => Made::of(start),
                _ => self.trained(start, map, &weights, &held, step)?,
            });
            step();
        }
        Ok(made)
    }

    /// A predictor, or what training makes of its map where that reads less.
    fn trained(
        &self,
        start: Predictor,
        map: Map,
        weights: &LayerWeights,
        held: &Held,
        step: &dyn Fn(),
    ) -> Result<Made> {
        let Body::LowRank { reduce, expand, between } = &map.body else {
            return Ok(Made::of(start));
        };
        let (numbers, recall) = (self.settings.numbers, self.settings.recall);
        let inputs = self.sample.inputs(start.layer - start.horizon, Use::Fit);
        let lesson = Lesson {
            inputs: off(&inputs, &map.mean),
            hidden: weights.hidden,
            active: weights.active(&self.sample.inputs(start.layer, Use::Fit)),
        };
        drop(inputs);
        let level = floats(&map.level);
        let factors = Factors { reduce: reduce.decode(), expand: expand.decode(), level };
        let refined = refine(&factors, &lesson, self.settings.train, step)?;
        let reduce = Matrix::encode(numbers, weights.hidden, &refined.reduce)?;
        let expand = Matrix::encode(numbers, expand.columns(), &refined.expand)?;
        let body = Body::LowRank { reduce, expand, between: between.clone() };
        let map = Map { body, level: doubles(&refined.level), mean: map.mean };
        let strengths = start.strength_scales().is_some();
        let refined = held.calibrated(map.body.clone(), map.offset(), recall, strengths)?;
        let over = held.reads_over(&refined, &start, recall)?;
        let better = if over < 1.0 { refined } else { start };
        Ok(Made { trained: Some(over), ..Made::of(better) })
    }

    fn weights(&self, layer: usize) -> Result<LayerWeights> {
        LayerWeights::load(self.checkpoint, self.config, layer)
    }

    /// The whitened map of some rank from the input of layer `layer - horizon`.
    fn low_rank(&self, layer: usize, horizon: usize, rank: usize) -> Result<Map> {
        let (weights, numbers) = (self.weights(layer)?, self.settings.numbers);
        let hidden = weights.hidden;
        let (inputs, mean) = centred(&self.sample.inputs(layer - horizon, Use::Fit), hidden);
        let targets = (horizon > 0).then(|| centred(&self.sample.inputs(layer, Use::Fit), hidden));
        let level = weights.level(targets.as_ref().map_or(&mean, |(_, mean)| mean));
        let whitening = Whitening::of(inputs, hidden)?;
        let targets = targets.as_ref().map(|(targets, _)| targets.as_slice());
        let found = whitening.low_rank(view(&weights.rows, hidden), targets, rank)?;
        let single = |values: &[f64]| -> Vec<f32> { values.iter().map(|v| *v as f32).collect() };
        let reduce = Matrix::encode(numbers, hidden, &single(&found.reduce))?;
        let expand = Matrix::encode(numbers, rank, &single(&found.expand))?;
        let body = Body::LowRank { reduce, expand, between: Between::Nothing };
        Ok(Map { body, level, mean })
    }

    /// The deciding rows, rounded or not.
    fn rows(&self, layer: usize) -> Result<Map> {
        let weights = self.weights(layer)?;
        let (_, mean) = centred(&self.sample.inputs(layer, Use::Fit), weights.hidden);
        let encode = |numbers| Matrix::encode(numbers, weights.hidden, &weights.rows);
        let rows = match self.settings.kind {
            Kind::Rows(bits) => encode(Numbers::Bits(bits))?,
            _ => match encode(Numbers::F16) {
                Ok(rows) if rows.decode() == weights.rows => rows,
                _ => encode(Numbers::F32)?,
            },
        };
        Ok(Map { body: Body::Rows(rows), level: weights.level(&mean), mean })
    }

    /// Bundles read for a token at the recall asked for, by rank: `step`, twice that, and so on.
    fn costs(&self, layer: usize, horizon: usize, map: &Map, step: usize) -> Result<Vec<f64>> {
        let Body::LowRank { reduce, expand, .. } = &map.body else { return Ok(Vec::new()) };
        let (reduce, hidden, rank) = (reduce.decode(), reduce.columns(), reduce.rows());
        let expand = expand.decode();
        let (weights, level) = (self.weights(layer)?, floats(&map.level));
        let judged = |wanted| {
            let x = self.sample.inputs(layer - horizon, wanted);
            let centred: Vec<f32> = off(&x, &map.mean);
            let strengths = weights.strengths(&self.sample.inputs(layer, wanted));
            let scores: Vec<f32> = level.repeat(x.len() / hidden);
            (centred, strengths, scores)
        };
        let mut set = judged(Use::Set);
        let mut judge = judged(Use::Judge);
        let mut costs = Vec::new();
        for begin in (0..rank).step_by(step) {
            let reduce = view(&reduce[begin * hidden..(begin + step) * hidden], hidden);
            let expand = view(&expand, rank).subcols(begin, step);
            for (x, _, scores) in [&mut set, &mut judge] {
                let reduced = product(view(x, hidden), reduce.transpose());
                let more = product(view(&reduced, step), expand.transpose());
                scores.iter_mut().zip(more).for_each(|(score, more)| *score += more);
            }
            let threshold = layer_thresholds(&set.2, &set.1, &[self.settings.recall])[0];
            let read = Tally::of(&judge.2, &judge.1, threshold).read;
            costs.push(read as f64 / (judge.0.len() / hidden) as f64);
        }
        Ok(costs)
    }
}

fn floats(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

/// Rows less their mean.
fn off(rows: &[f32], mean: &[f64]) -> Vec<f32> {
    let less = |row: &[f32]| -> Vec<f32> {
        row.iter().zip(mean).map(|(value, mean)| (f64::from(*value) - mean) as f32).collect()
    };
    rows.chunks(mean.len()).flat_map(less).collect()
}
