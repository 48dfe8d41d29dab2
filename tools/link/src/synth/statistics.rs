//! What a layer's bits are like, in numbers that can be put beside those of another.

use anyhow::Result;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::below;
use super::kin::jaccard;
use crate::profile::FOLDS;
use crate::stats::run_statistics;
use crate::{LayerActivity, Order, link_layer};
use lnp_common::report::quantile;

/// What is measured, in the order of [`Statistics`].
pub const NAMES: [&str; 22] = [
    "active_share_mean",
    "active_share_of_token_p10",
    "active_share_of_token_p90",
    "frequency_p10",
    "frequency_p25",
    "frequency_p50",
    "frequency_p75",
    "frequency_p90",
    "frequency_p99",
    "lift_p10",
    "lift_p50",
    "lift_p90",
    "lift_p99",
    "best_partner_mean",
    "best_partner_p10",
    "best_partner_p50",
    "best_partner_p90",
    "overlap_1",
    "overlap_16",
    "bundles_per_run_model_order",
    "bundles_per_run_greedy",
    "greedy_gain",
];

/// One number for each of [`NAMES`]; `None` where it was not measured.
pub type Statistics = [Option<f64>; NAMES.len()];

/// Pairs sampled for their lift.
const PAIRS_SAMPLED: usize = 100_000;
/// A pair has a lift worth telling if chance alone would see it in so many tokens.
const TOGETHER_MIN: f64 = 5.0;
/// Largest layer whose neurons are all asked for their best partner; of larger ones a sample is.
const NEURONS_ALL_MAX: usize = 4096;
/// That sample, spread evenly.
const NEURONS_SAMPLED: usize = 64;

/// The bits of a layer, a row a token.
#[derive(Debug, Clone, Copy)]
pub struct TracedLayer<'a> {
    /// ceil(neurons / 8) bytes a token.
    pub bits: &'a [u8],
    /// Neurons.
    pub neurons: usize,
    /// Tokens of a window.
    pub window: usize,
}

impl TracedLayer<'_> {
    fn row_bytes(&self) -> usize {
        self.neurons.div_ceil(8)
    }

    fn tokens(&self) -> usize {
        self.bits.len() / self.row_bytes()
    }

    fn activity(&self) -> Result<LayerActivity> {
        LayerActivity::from_bits(self.neurons, &[(self.bits, self.tokens())])
    }

    /// Everything but what linking gains.
    ///
    /// # Errors
    /// Bits that do not fit the number of neurons.
    pub fn statistics(&self, random: Xoshiro256PlusPlus) -> Result<Statistics> {
        let activity = self.activity()?;
        let mut values = self.shares();
        let tokens = self.tokens() as f64;
        let mut frequencies: Vec<f64> =
            activity.active_count().iter().map(|count| f64::from(*count) / tokens).collect();
        let ranks = [0.1, 0.25, 0.5, 0.75, 0.9, 0.99];
        values.extend(ranks.map(|p| quantile(&mut frequencies, p)));
        let mut lifts = lifts(&activity, random);
        values.extend([0.1, 0.5, 0.9, 0.99].map(|p| quantile(&mut lifts, p)));
        values.extend(best_partners(&activity));
        values.extend([self.overlap(1), self.overlap(16)]);
        let mut statistics = [None; NAMES.len()];
        statistics.iter_mut().zip(values).for_each(|(place, value)| *place = Some(value));
        Ok(statistics)
    }

    /// Everything; orders are made from one half of the windows and tried on the other.
    ///
    /// # Errors
    /// As [`TracedLayer::statistics`].
    pub fn statistics_with_runs(&self, random: Xoshiro256PlusPlus) -> Result<Statistics> {
        let mut statistics = self.statistics(random)?;
        let part = |fold: usize| -> Vec<u8> {
            let windows = self.bits.chunks(self.row_bytes() * self.window).enumerate();
            windows
                .filter(|(at, _)| at % FOLDS == fold)
                .flat_map(|(_, rows)| rows)
                .copied()
                .collect()
        };
        let (profile, test) = (part(0), part(1));
        let tokens = |bits: &[u8]| bits.len() / self.row_bytes();
        let activity = LayerActivity::from_bits(self.neurons, &[(&profile, tokens(&profile))])?;
        let bundles_per_run = |order: Order| -> Result<f64> {
            let slots = link_layer(order, 0, &activity)?.slot_of_neuron()?;
            Ok(run_statistics(&test, tokens(&test), self.neurons, &slots)?.bundles_per_run())
        };
        let (model, greedy) = (bundles_per_run(Order::Identity)?, bundles_per_run(Order::Greedy)?);
        let gain = if model > 0.0 { greedy / model } else { 0.0 };
        let last = NAMES.len() - 3;
        statistics[last..].copy_from_slice(&[Some(model), Some(greedy), Some(gain)]);
        Ok(statistics)
    }

    /// Share of the neurons that a token has active: mean, 10th and 90th percentile.
    fn shares(&self) -> Vec<f64> {
        let of_row = |row: &[u8]| count(row) as f64 / self.neurons as f64;
        let mut shares: Vec<f64> = self.bits.chunks_exact(self.row_bytes()).map(of_row).collect();
        let mean = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
        vec![mean, quantile(&mut shares, 0.1), quantile(&mut shares, 0.9)]
    }

    /// Share of a token's active neurons that were active `lag` tokens before, in the same window.
    fn overlap(&self, lag: usize) -> f64 {
        let (mut both, mut all) = (0, 0);
        for window in self.bits.chunks(self.row_bytes() * self.window) {
            let rows: Vec<&[u8]> = window.chunks_exact(self.row_bytes()).collect();
            for (now, before) in rows.iter().skip(lag).zip(&rows) {
                all += count(now);
                both += now
                    .iter()
                    .zip(*before)
                    .map(|(a, b)| u64::from((a & b).count_ones()))
                    .sum::<u64>();
            }
        }
        if all == 0 { 0.0 } else { both as f64 / all as f64 }
    }
}

fn count(row: &[u8]) -> u64 {
    row.iter().map(|byte| u64::from(byte.count_ones())).sum()
}

/// How many times as often as by chance sampled pairs are active together, where chance says often
/// enough to tell.
fn lifts(activity: &LayerActivity, mut random: Xoshiro256PlusPlus) -> Vec<f64> {
    let (neurons, tokens) = (activity.neurons(), activity.tokens() as f64);
    let mut lifts = Vec::new();
    for _ in 0..PAIRS_SAMPLED {
        let (i, j) = (below(&mut random, neurons), below(&mut random, neurons));
        let by_chance = f64::from(activity.count(i)) * f64::from(activity.count(j)) / tokens;
        if i != j && by_chance >= TOGETHER_MIN {
            lifts.push(f64::from(activity.coactive(i, j)) / by_chance);
        }
    }
    lifts
}

/// Jaccard's index of neurons with their best partner: mean by firings, and three quantiles over
/// neurons.
fn best_partners(activity: &LayerActivity) -> [f64; 4] {
    let neurons = activity.neurons();
    let step = if neurons > NEURONS_ALL_MAX { neurons / NEURONS_SAMPLED } else { 1 };
    let count = |neuron: usize| f64::from(activity.count(neuron));
    let mut best = vec![0.0f64; neurons];
    let asked: Vec<usize> = (0..neurons).step_by(step).collect();
    if step == 1 {
        let everyone: Vec<u32> = (0..neurons as u32).collect();
        activity.visit_pairs(&everyone, |i, j, both| {
            let (i, j) = (i as usize, j as usize);
            let index = jaccard(both.into(), count(i), count(j));
            best[i] = best[i].max(index);
            best[j] = best[j].max(index);
        });
    } else {
        for &i in &asked {
            let others = (0..neurons).filter(|j| *j != i);
            let index = |j| jaccard(activity.coactive(i, j).into(), count(i), count(j));
            best[i] = others.map(index).fold(0.0, f64::max);
        }
    }
    let total: f64 = asked.iter().map(|&i| count(i)).sum();
    let mean = asked.iter().map(|&i| count(i) * best[i]).sum::<f64>() / total.max(1.0);
    let mut of_asked: Vec<f64> = asked.iter().map(|&i| best[i]).collect();
    let [low, middle, high] = [0.1, 0.5, 0.9].map(|p| quantile(&mut of_asked, p));
    [mean, low, middle, high]
}

/// The mean over layers, of what all of them measured.
pub fn mean(layers: &[Statistics]) -> Statistics {
    std::array::from_fn(|place| {
        let values: Option<Vec<f64>> = layers.iter().map(|layer| layer[place]).collect();
        values
            .filter(|values| !values.is_empty())
            .map(|values| values.iter().sum::<f64>() / values.len() as f64)
    })
}
