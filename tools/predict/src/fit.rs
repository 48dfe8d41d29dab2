//! Making predictors: a map for every layer, ranks shared out over the layers, then operating points.

use anyhow::Result;
use lnp_model::{Checkpoint, ModelConfig};

use crate::linear::{Whitening, centred, doubles, product, view};
use crate::numbers::{Matrix, Numbers};
use crate::points::{
    Point, QUALITIES, Tally, layer_thresholds, neuron_thresholds, threshold_of_loss,
};
use crate::predictor::{Body, Predictor};
use crate::sample::{Sample, Use};
use crate::settings::{Kind, Ranks, Settings};
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
) -> Result<Vec<Predictor>> {
    let fitting = Fitting { checkpoint, config, sample, settings };
    let mut predictors = Vec::new();
    for &horizon in &settings.horizons {
        predictors.extend(fitting.horizon(horizon, step)?);
    }
    Ok(predictors)
}

/// How many steps [`fit`] takes.
pub fn steps(config: &ModelConfig, settings: &Settings) -> usize {
    settings.horizons.iter().map(|horizon| 2 * config.layers.saturating_sub(*horizon)).sum()
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

impl Fitting<'_> {
    fn horizon(&self, horizon: usize, step: &dyn Fn()) -> Result<Vec<Predictor>> {
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
        let mut predictors = Vec::new();
        for (at, (layer, mut map)) in (horizon..).zip(maps).enumerate() {
            if let (Some(rank), Body::LowRank { reduce, expand }) = (chosen.get(at), &map.body) {
                let (reduce, expand) = (reduce.first_rows(*rank)?, expand.first_columns(*rank)?);
                map.body = Body::LowRank { reduce, expand };
            }
            predictors.push(self.finish(layer, horizon, map)?);
            step();
        }
        Ok(predictors)
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
        let rows = doubles(&weights.rows);
        let targets = targets.as_ref().map(|(targets, _)| targets.as_slice());
        let found = whitening.low_rank(view(&rows, hidden), targets, rank)?;
        let single = |values: &[f64]| -> Vec<f32> { values.iter().map(|v| *v as f32).collect() };
        let reduce = Matrix::encode(numbers, hidden, &single(&found.reduce))?;
        let expand = Matrix::encode(numbers, rank, &single(&found.expand))?;
        Ok(Map { body: Body::LowRank { reduce, expand }, level, mean })
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
        let Body::LowRank { reduce, expand } = &map.body else { return Ok(Vec::new()) };
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

    /// Sets and judges the operating points.
    fn finish(&self, layer: usize, horizon: usize, map: Map) -> Result<Predictor> {
        let Map { body, level, mean } = map;
        let of_mean = body.decode().scores(&floats(&mean));
        let offset: Vec<f32> =
            level.iter().zip(&of_mean).map(|(level, of)| (level - f64::from(*of)) as f32).collect();
        let plain = Predictor::new((layer, horizon), body, vec![offset], Vec::new())?;
        let weights = self.weights(layer)?;
        let scored = |wanted| -> Result<(Vec<f32>, Vec<f32>)> {
            let scores = plain.scores(&self.sample.inputs(layer - horizon, wanted), 0)?;
            Ok((scores, weights.strengths(&self.sample.inputs(layer, wanted))))
        };
        let (set, judge) = (scored(Use::Set)?, scored(Use::Judge)?);
        let thresholds = layer_thresholds(&set.0, &set.1, &QUALITIES);
        let point = |(quality, threshold): (f64, f32)| {
            Tally::of(&judge.0, &judge.1, threshold).point(quality, threshold)
        };
        let points: Vec<Point> =
            QUALITIES.into_iter().zip(thresholds.iter().copied()).map(point).collect();
        let by_layer = (plain.offsets().to_vec(), points);
        let by_neuron = by_neuron(&plain, &set, &judge, &thresholds);
        let at =
            by_layer.1.iter().position(|p| f64::from(p.quality) >= self.settings.recall - 1e-6);
        let at = at.unwrap_or(QUALITIES.len() - 1);
        let (offsets, points) = if by_neuron.reads_less_at(at) {
            (by_neuron.offsets, by_neuron.points)
        } else {
            by_layer
        };
        Predictor::new((layer, horizon), plain.body().clone(), offsets, points)
    }
}

/// A bias for each neuron at every operating point, and how that compares.
struct ByNeuron {
    offsets: Vec<Vec<f32>>,
    points: Vec<Point>,
    /// At each point, the bundles read of the rows to judge by, and how many a layer's threshold reads that
    /// loses as little strength of them.
    reads: Vec<(u64, u64)>,
}

impl ByNeuron {
    fn reads_less_at(&self, point: usize) -> bool {
        self.reads.get(point).is_some_and(|(by_neuron, by_layer)| by_neuron < by_layer)
    }
}

/// Scores and strengths of some rows.
type Scored = (Vec<f32>, Vec<f32>);

fn by_neuron(plain: &Predictor, set: &Scored, judge: &Scored, thresholds: &[f32]) -> ByNeuron {
    let offset = &plain.offsets()[0];
    let neurons = offset.len();
    let lost: Vec<f64> =
        thresholds.iter().map(|at| Tally::of(&set.0, &set.1, *at).lost()).collect();
    let mut out = ByNeuron { offsets: Vec::new(), points: Vec::new(), reads: Vec::new() };
    let all = neuron_thresholds(&set.0, &set.1, neurons, &lost);
    for (quality, thresholds) in QUALITIES.into_iter().zip(all) {
        // rounded as a file has them: what is told is then what is had
        let biased = offset.iter().zip(&thresholds).map(|(offset, at)| offset - at);
        let biased: Vec<f32> = biased.map(|value| half::f16::from_f32(value).to_f32()).collect();
        let change: Vec<f32> = biased.iter().zip(offset).map(|(new, old)| new - old).collect();
        let scores: Vec<f32> = judge
            .0
            .chunks(neurons)
            .flat_map(|token| token.iter().zip(&change).map(|(score, change)| score + change))
            .collect();
        let tally = Tally::of(&scores, &judge.1, 0.0);
        let same_loss = threshold_of_loss(&judge.0, &judge.1, tally.lost());
        out.reads.push((tally.read, Tally::of(&judge.0, &judge.1, same_loss).read));
        out.points.push(tally.point(quality, 0.0));
        out.offsets.push(biased);
    }
    out
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
