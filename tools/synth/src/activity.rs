//! How often neurons are active, and how strongly: thresholds of unit-normal pre-activations.
//!
//! Everything here is exact for a pre-activation that is normal with mean 0 and variance 1, which the weights are
//! drawn for. By `libm`, so that the same seed gives the same bytes on every machine.

use std::f64::consts::{PI, SQRT_2};

use crate::random::{Purpose, below, normal, stream};
use crate::shapes::{Family, Shape};

/// What neurons and hidden states are like. The numbers were found by drawing pre-activations with them, and comparing
/// the statistics of [`crate`] with those of the real traces: `docs/synth.md`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Likeness {
    /// Share of a neuron's direction, among the latents, that is its cluster's.
    pub(crate) of_cluster: f64,
    /// Latent k has the deviation (k + 2)^-decay.
    pub(crate) decay: f64,
    /// Share of the variance of a pre-activation that is in no latent: what predictors cannot see.
    pub(crate) unseen: f64,
    /// Share of the variance of latents that changes slowly.
    pub(crate) topic: f64,
    /// Correlation of the other part with that of the token before.
    pub(crate) neighbour: f64,
    /// Deviation of the log odds of frequencies above the middle, and below it.
    pub(crate) spread: [f64; 2],
}

impl Likeness {
    pub(crate) fn of(family: Family) -> Self {
        if family.gated() {
            return Self {
                of_cluster: 0.2,
                decay: 0.9,
                unseen: 0.01,
                topic: 0.22,
                neighbour: 0.35,
                spread: [1.1, 1.2],
            };
        }
        Self {
            of_cluster: 0.85,
            decay: 1.1,
            unseen: 0.01,
            topic: 0.2,
            neighbour: 0.2,
            spread: [1.1, 1.9],
        }
    }
}

/// Neurons for each cluster, on average.
const OF_A_CLUSTER: usize = 5;
/// Share of the variance of log odds that a cluster has in common.
const ODDS_OF_CLUSTER: f64 = 0.3;

/// What is decided of a layer before its weights are drawn.
pub(crate) struct Neurons {
    pub(crate) clusters: Vec<u32>,
    /// What a unit-normal pre-activation has to be above.
    pub(crate) thresholds: Vec<f32>,
    /// Sum over neurons of the mean square of what goes into the down columns.
    pub(crate) squares: f64,
}

/// Mean active share of a layer. In real models later layers have more active neurons: OPT-2.7B 0.3 to 1.5 % in layers 0
/// to 12, 5 to 8 % in the last (Deja Vu, 2023), the small Llama model 4 % in layer 1 and 21 % in the last. Here a straight line.
pub(crate) fn share_of_layer(shape: &Shape, active: f64, layer: usize) -> f64 {
    let depth = layer as f64 / shape.layers.saturating_sub(1).max(1) as f64;
    active * (0.4 + 1.2 * depth)
}

impl Neurons {
    pub(crate) fn draw(shape: &Shape, active: f64, seed: u64, layer: usize) -> Self {
        let likeness = Likeness::of(shape.family);
        let mut random = stream(seed, Purpose::Neurons, [layer as u64, 0]);
        let count = shape.neurons.div_ceil(OF_A_CLUSTER);
        let of_cluster: Vec<f64> = (0..count).map(|_| normal(&mut random)).collect();
        // neighbours are of any clusters: the order says nothing, as in a real model
        let clusters: Vec<u32> =
            (0..shape.neurons).map(|_| below(&mut random, count) as u32).collect();
        let odds: Vec<f64> = clusters
            .iter()
            .map(|cluster| {
                let common = libm::sqrt(ODDS_OF_CLUSTER) * of_cluster[*cluster as usize];
                let log = common + libm::sqrt(1.0 - ODDS_OF_CLUSTER) * normal(&mut random);
                log * likeness.spread[usize::from(log < 0.0)]
            })
            .collect();
        let share = share_of_layer(shape, active, layer);
        let frequency = |odds: f64, middle: f64| 1.0 / (1.0 + libm::exp(-odds - middle));
        let mean_at = |middle: f64| {
            odds.iter().map(|odds| frequency(*odds, middle)).sum::<f64>() / odds.len() as f64
        };
        let (mut low, mut high) = (-40.0, 40.0);
        for _ in 0..40 {
            let middle = f64::midpoint(low, high);
            if mean_at(middle) < share { low = middle } else { high = middle }
        }
        let thresholds: Vec<f64> = odds
            .iter()
            // rarer than once in ten million tokens is never
            .map(|odds| -normal_quantile(frequency(*odds, low).max(1e-7)))
            .collect();
        let square = |threshold: &f64| match shape.family {
            Family::Arcee => fourth_above(*threshold),
            _ => square_above(*threshold),
        };
        Self {
            clusters,
            squares: thresholds.iter().map(square).sum(),
            thresholds: thresholds.into_iter().map(|threshold| threshold as f32).collect(),
        }
    }
}

fn density(x: f64) -> f64 {
    libm::exp(-0.5 * x * x) / libm::sqrt(2.0 * PI)
}

/// Probability that a normal number is above this.
fn above(x: f64) -> f64 {
    0.5 * libm::erfc(x / SQRT_2)
}

/// The number that a normal one is below with this probability, which is inside 0 and 1: by Newton's method from
/// Tukey's approximation of the logistic kind.
pub(crate) fn normal_quantile(probability: f64) -> f64 {
    if probability > 0.5 {
        return -normal_quantile(1.0 - probability);
    }
    // below the middle the distribution is convex: Newton's steps of the logarithm meet it from one side
    let mut x = -libm::sqrt(-2.0 * libm::log(2.0 * probability));
    for _ in 0..20 {
        let below = above(-x);
        x -= (libm::log(below) - libm::log(probability)) * below / density(x);
    }
    x
}

/// Mean of the square of what a normal number is above a threshold: E max(x - t, 0)^2.
fn square_above(t: f64) -> f64 {
    (1.0 + t * t) * above(t) - t * density(t)
}

/// The same of the fourth power.
fn fourth_above(t: f64) -> f64 {
    let square = t * t;
    (square * square + 6.0 * square + 3.0) * above(t) - (t * square + 5.0 * t) * density(t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::shape_named;

    #[test]
    fn quantiles_of_the_normal_distribution() {
        // from a table
        for (probability, expected) in
            [(0.5, 0.0), (0.975, 1.959_964), (0.01, -2.326_348), (1e-7, -5.199_338)]
        {
            let found = normal_quantile(probability);
            assert!((found - expected).abs() < 1e-5, "{probability}: {found}");
        }
    }

    #[test]
    fn moments_above_a_threshold() {
        // by the sum over a fine grid
        for t in [-1.0, 0.0, 1.7] {
            let sum = |power: i32| {
                (0..20_000)
                    .map(|at| f64::from(at) * 5e-4)
                    .map(|x| x.powi(power) * density(x + t) * 5e-4)
                    .sum::<f64>()
            };
            assert!((square_above(t) - sum(2)).abs() < 1e-5, "{t}");
            assert!((fourth_above(t) - sum(4)).abs() < 1e-5, "{t}");
        }
    }

    #[test]
    fn frequencies_have_the_mean_asked_for() {
        let shape = shape_named("llama-100m").unwrap();
        for layer in [0, 11] {
            let neurons = Neurons::draw(shape, 0.24, 1, layer);
            let mean =
                neurons.thresholds.iter().map(|t| above(f64::from(*t))).sum::<f64>() / 2560.0;
            assert!((mean - share_of_layer(shape, 0.24, layer)).abs() < 1e-4, "{mean}");
        }
    }
}
