//! Operating points: from which score on a neuron is read, for each quality that may be asked for.
//!
//! Two ways, both fitted on rows that the map was not fitted to, and judged on yet others:
//! - *layer*: one threshold for all neurons of a layer, such that the share of the active (token, neuron)
//!   pairs above it is the recall that the point is named after;
//! - *neuron*: a bias for each neuron, as SVDP has it. It keeps as much strength as the layer's threshold
//!   does with as few reads as possible; not greedily, but by a price of a read that is the same for
//!   all neurons (Lagrange), so that no other choice of biases on the same rows reads less.

use rayon::prelude::*;
use serde::Serialize;

use crate::weights::INACTIVE;

/// The recalls that operating points are named after, ascending.
pub const QUALITIES: [f64; 9] = [0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995];

/// What is had at one operating point, measured on rows that nothing was fitted to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// The recall that the point is named after: of the layer's threshold on the rows it was set by.
    pub quality: f32,
    /// A neuron is read where its score is above this; 0 where each neuron has its own bias.
    pub threshold: f32,
    /// Share of the active (token, neuron) pairs that are read.
    pub recall: f32,
    /// Bundles read for each active one.
    pub reads_per_active: f32,
    /// Share of the strength, (coefficient times |down column|)^2, that is read.
    pub share_kept: f32,
}

/// What is read of some rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) active: u64,
    pub(crate) read: u64,
    pub(crate) found: u64,
    pub(crate) strength: f64,
    pub(crate) kept: f64,
}

impl Tally {
    /// Counts what is read where a score is above the threshold.
    pub(crate) fn of(scores: &[f32], strengths: &[f32], threshold: f32) -> Self {
        let mut tally = Self::default();
        for (score, strength) in scores.iter().zip(strengths) {
            let (read, active) = (*score > threshold, *strength > INACTIVE);
            tally.read += u64::from(read);
            tally.active += u64::from(active);
            tally.found += u64::from(read && active);
            if active {
                tally.strength += f64::from(*strength);
                tally.kept += if read { f64::from(*strength) } else { 0.0 };
            }
        }
        tally
    }

    pub(crate) fn lost(&self) -> f64 {
        self.strength - self.kept
    }

    pub(crate) fn point(&self, quality: f64, threshold: f32) -> Point {
        let share = |part: f64, whole: f64| if whole > 0.0 { (part / whole) as f32 } else { 1.0 };
        Point {
            quality: quality as f32,
            threshold,
            recall: share(self.found as f64, self.active as f64),
            reads_per_active: (self.read as f64 / self.active.max(1) as f64) as f32,
            share_kept: share(self.kept, self.strength),
        }
    }
}

/// The highest thresholds of a layer that leave these recalls, one for each; where nothing is active,
/// nothing is read.
pub(crate) fn layer_thresholds(scores: &[f32], strengths: &[f32], recalls: &[f64]) -> Vec<f32> {
    let active = scores.iter().zip(strengths).filter(|(_, strength)| **strength > INACTIVE);
    let mut active: Vec<f32> = active.map(|(score, _)| *score).collect();
    active.sort_unstable_by(|a, b| b.total_cmp(a));
    let threshold = |recall: &f64| {
        let kept = (recall * active.len() as f64).ceil() as usize;
        active.get(kept.saturating_sub(1)).map_or(f32::MAX, |score| score.next_down())
    };
    recalls.iter().map(threshold).collect()
}

/// The highest threshold of a layer that loses no more strength than this.
pub(crate) fn threshold_of_loss(scores: &[f32], strengths: &[f32], lost: f64) -> f32 {
    let pairs = scores.iter().copied().zip(strengths.iter().copied());
    let mut active: Vec<(f32, f32)> = pairs.filter(|(_, strength)| *strength > INACTIVE).collect();
    active.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut sum = 0.0;
    let first_kept = active.iter().find(|(_, strength)| {
        sum += f64::from(*strength);
        sum > lost
    });
    first_kept.map_or(f32::MAX, |(score, _)| score.next_down())
}

/// For one neuron, which thresholds can be worth it: corners of the convex hull of strength lost over
/// tokens not read.
struct Corners {
    /// Thresholds, ascending; the first reads every token.
    thresholds: Vec<f32>,
    /// Strength lost at each.
    lost: Vec<f64>,
    /// Strength lost for each token not read, on the way to each corner; ascending.
    slopes: Vec<f64>,
}

impl Corners {
    /// Of the (score, strength) pairs of a neuron.
    fn of(mut pairs: Vec<(f32, f32)>) -> Self {
        pairs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let lowest = pairs.first().map_or(0.0, |(score, _)| score.next_down());
        // (tokens not read, strength lost, threshold)
        let mut hull: Vec<(f64, f64, f32)> = vec![(0.0, 0.0, lowest)];
        let (mut slopes, mut lost) = (vec![f64::NEG_INFINITY], 0.0);
        for (at, (score, strength)) in pairs.iter().enumerate() {
            lost += f64::from(strength.max(0.0));
            // equal scores cannot be told apart
            if pairs.get(at + 1).is_some_and(|next| next.0 == *score) {
                continue;
            }
            let off = (at + 1) as f64;
            let slope_from = |from: &(f64, f64, f32)| (lost - from.1) / (off - from.0);
            while hull.len() > 1 && slope_from(&hull[hull.len() - 1]) <= slopes[slopes.len() - 1] {
                hull.pop();
                slopes.pop();
            }
            slopes.push(slope_from(&hull[hull.len() - 1]));
            hull.push((off, lost, *score));
        }
        let thresholds = hull.iter().map(|corner| corner.2).collect();
        Self { thresholds, lost: hull.iter().map(|corner| corner.1).collect(), slopes }
    }

    /// The corner to take where a read costs so much.
    fn at(&self, price: f64) -> usize {
        self.slopes.partition_point(|slope| *slope <= price) - 1
    }
}

/// Thresholds of each neuron that lose no more strength than `lost`, with as few reads as can be; one
/// list for each entry of `lost`. Scores and strengths are row-major `[tokens][neurons]`.
pub(crate) fn neuron_thresholds(
    scores: &[f32],
    strengths: &[f32],
    neurons: usize,
    lost: &[f64],
) -> Vec<Vec<f32>> {
    let of_neuron = |neuron: usize| {
        let column = |values: &[f32]| -> Vec<f32> {
            values.iter().skip(neuron).step_by(neurons).copied().collect()
        };
        Corners::of(std::iter::zip(column(scores), column(strengths)).collect())
    };
    let corners: Vec<Corners> = (0..neurons).into_par_iter().map(of_neuron).collect();
    let mut prices: Vec<f64> =
        corners.iter().flat_map(|corners| &corners.slopes[1..]).copied().collect();
    prices.sort_unstable_by(f64::total_cmp);
    prices.dedup();
    let lost_at =
        |price: f64| -> f64 { corners.iter().map(|corners| corners.lost[corners.at(price)]).sum() };
    let thresholds = |lost: &f64| {
        let affordable = prices.partition_point(|price| lost_at(*price) <= *lost);
        let price = affordable.checked_sub(1).map_or(f64::NEG_INFINITY, |at| prices[at]);
        corners.iter().map(|corners| corners.thresholds[corners.at(price)]).collect()
    };
    lost.iter().map(thresholds).collect()
}

#[cfg(test)]
#[path = "points_tests.rs"]
mod tests;
