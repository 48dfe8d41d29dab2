//! Operating points of a body, set and judged on text that it was not fitted to; and which of two is better.

use anyhow::Result;

use crate::points::{
    Point, QUALITIES, Tally, layer_thresholds, neuron_thresholds, threshold_of_loss,
};
use crate::predictor::{Body, Predictor};
use crate::sample::{Sample, Use};
use crate::weights::LayerWeights;

/// The largest f16.
const F16_MAX: f32 = 65504.0;

/// A predictor, and what there is to tell of how it was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// The predictor.
    pub predictor: Predictor,
    /// Of training: bundles read over those that the start reads at the same loss of strength, of the rows
    /// to judge by. Kept where it is below 1.
    pub trained: Option<f64>,
    /// Of others': what their own threshold comes to; the quality is 0.
    pub at_theirs: Option<Point>,
}

impl Made {
    pub(crate) fn of(predictor: Predictor) -> Self {
        Self { predictor, trained: None, at_theirs: None }
    }
}

/// Scores and strengths of some rows.
type Scored<'a> = (&'a [f32], &'a [f32]);

/// The rows of a layer that nothing is fitted to: inputs, and strengths of the neurons.
pub(crate) struct Held {
    place: (usize, usize),
    set: (Vec<f32>, Vec<f32>),
    judge: (Vec<f32>, Vec<f32>),
    /// |down column|^2 of each neuron.
    down_squared: Vec<f32>,
}

impl Held {
    /// For predictors of `layer`, so many layers ahead.
    pub(crate) fn of(
        sample: &Sample,
        weights: &LayerWeights,
        (layer, horizon): (usize, usize),
    ) -> Self {
        let rows = |wanted| {
            let strengths = weights.strengths(&sample.inputs(layer, wanted));
            (sample.inputs(layer - horizon, wanted), strengths)
        };
        Self {
            place: (layer, horizon),
            set: rows(Use::Set),
            judge: rows(Use::Judge),
            down_squared: weights.down_squared().to_vec(),
        }
    }

    /// A predictor with operating points: thresholds for the layer or by neuron, whichever reads less at
    /// this recall; `strengths` says whether it tells these.
    ///
    /// # Errors
    /// Numbers that are none, or that f16 does not hold.
    pub(crate) fn calibrated(
        &self,
        body: Body,
        offset: Vec<f32>,
        recall: f64,
        strengths: bool,
    ) -> Result<Predictor> {
        let plain = Predictor::new(self.place, body, vec![offset], Vec::new())?;
        let (set, judge) = (plain.scores(&self.set.0, 0)?, plain.scores(&self.judge.0, 0)?);
        let set: Scored<'_> = (&set, &self.set.1);
        let judge: Scored<'_> = (&judge, &self.judge.1);
        let thresholds = layer_thresholds(set.0, set.1, &QUALITIES);
        let point = |(quality, threshold): (f64, f32)| {
            Tally::of(judge.0, judge.1, threshold).point(quality, threshold)
        };
        let points: Vec<Point> =
            QUALITIES.into_iter().zip(thresholds.iter().copied()).map(point).collect();
        let by_layer = (plain.offsets().to_vec(), points);
        let by_neuron = by_neuron(&plain, set, judge, &thresholds);
        let at = by_layer.1.iter().position(|p| f64::from(p.quality) >= recall - 1e-6);
        let at = at.unwrap_or(QUALITIES.len() - 1);
        let (offsets, points) = if by_neuron.reads_less_at(at) {
            (by_neuron.offsets, by_neuron.points)
        } else {
            by_layer
        };
        let made = Predictor::new(self.place, plain.body().clone(), offsets, points)?;
        if !strengths {
            return Ok(made);
        }
        let (point, plain) = (made.point_of(recall), &plain.offsets()[0]);
        let offset = made.offsets().get(point).unwrap_or(plain);
        let change: Vec<f32> = offset.iter().zip(plain).map(|(new, old)| new - old).collect();
        let scales = strength_scales(set, &change, &self.down_squared);
        made.telling_strengths(scales)
    }

    /// A predictor with one operating point, of quality 0: a threshold that others set.
    ///
    /// # Errors
    /// Numbers that are none, or that f16 does not hold.
    pub(crate) fn at(&self, body: Body, offset: Vec<f32>, threshold: f32) -> Result<Predictor> {
        let plain = Predictor::new(self.place, body, vec![offset], Vec::new())?;
        let (set, judge) = (plain.scores(&self.set.0, 0)?, plain.scores(&self.judge.0, 0)?);
        let point = Tally::of(&judge, &self.judge.1, threshold).point(0.0, threshold);
        let unchanged = vec![0.0; self.down_squared.len()];
        let scales = strength_scales((&set, &self.set.1), &unchanged, &self.down_squared);
        Predictor::new(self.place, plain.body().clone(), plain.offsets().to_vec(), vec![point])?
            .telling_strengths(scales)
    }

    /// Bundles that a predictor reads at the quality asked for, over those that another reads at the same
    /// loss of strength.
    pub(crate) fn reads_over(
        &self,
        one: &Predictor,
        other: &Predictor,
        recall: f64,
    ) -> Result<f64> {
        let (inputs, strengths) = &self.judge;
        let point = one.point_of(recall);
        let tally = Tally::of(&one.scores(inputs, point)?, strengths, one.threshold(point)?);
        let scores = other.scores(inputs, other.point_of(recall))?;
        let same_loss = threshold_of_loss(&scores, strengths, tally.lost());
        let read = Tally::of(&scores, strengths, same_loss).read;
        Ok(tally.read as f64 / read.max(1) as f64)
    }
}

/// What a score above 0 is to be multiplied by to estimate a neuron's strength: for each neuron the least-squares one of
/// the tokens for which it is read. Where these are few, a token of the layer's mean counts too: how much more than
/// |down column| its neurons weigh.
fn strength_scales(set: Scored<'_>, change: &[f32], down_squared: &[f32]) -> Vec<f32> {
    let neurons = down_squared.len().max(1);
    // by neuron: squares of strength, squares of score; and of all, squares of score as the down columns make them
    let mut sums = vec![(0.0_f64, 0.0_f64); neurons];
    let (mut by_down, mut tokens) = (0.0, 0_u64);
    for (scores, strengths) in set.0.chunks(neurons).zip(set.1.chunks(neurons)) {
        for (neuron, (score, strength)) in scores.iter().zip(strengths).enumerate() {
            let score = f64::from(score + change[neuron]);
            if score > 0.0 {
                let squared = f64::from(strength.max(0.0));
                let sum = &mut sums[neuron];
                *sum = (sum.0 + squared, sum.1 + score * score);
                by_down += score * score * f64::from(down_squared[neuron]);
                tokens += 1;
            }
        }
    }
    let all = sums.iter().fold((0.0, 0.0), |all, sum| (all.0 + sum.0, all.1 + sum.1));
    let over_down = if by_down > 0.0 { all.0 / by_down } else { 1.0 };
    let one = (all.1 / tokens.max(1) as f64).max(f64::MIN_POSITIVE);
    let scale = |(sum, down): (&(f64, f64), &f32)| {
        let usual = over_down * f64::from(*down);
        ((sum.0 + one * usual) / (sum.1 + one)).sqrt() as f32
    };
    // f16 ends there
    sums.iter().zip(down_squared).map(scale).map(|scale| scale.min(F16_MAX)).collect()
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

fn by_neuron(
    plain: &Predictor,
    set: Scored<'_>,
    judge: Scored<'_>,
    thresholds: &[f32],
) -> ByNeuron {
    let offset = &plain.offsets()[0];
    let neurons = offset.len();
    let lost: Vec<f64> = thresholds.iter().map(|at| Tally::of(set.0, set.1, *at).lost()).collect();
    let mut out = ByNeuron { offsets: Vec::new(), points: Vec::new(), reads: Vec::new() };
    let all = neuron_thresholds(set.0, set.1, neurons, &lost);
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
        let tally = Tally::of(&scores, judge.1, 0.0);
        let same_loss = threshold_of_loss(judge.0, judge.1, tally.lost());
        out.reads.push((tally.read, Tally::of(judge.0, judge.1, same_loss).read));
        out.points.push(tally.point(quality, 0.0));
        out.offsets.push(biased);
    }
    out
}
