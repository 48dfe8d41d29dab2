//! The pairs of neurons by descending co-activation count, in bounded memory.
//!
//! A layer of 16,384 neurons has 134 million pairs, too many to hold and sort at once for every
//! layer in the works. So the counts are counted first (a histogram), cut into *bands* of counts
//! that hold a bounded number of pairs, and each band is counted again and bucket-sorted by count.
//! The cost is one counting pass a band; the greedy order keeps that small by asking, after the
//! first band, only for neurons that can still be joined.

use std::ops::RangeInclusive;

use super::coactivation::LayerActivity;

/// Pairs held at once for one layer: 8 bytes each, so 128 MiB.
pub(crate) const PAIRS_PER_BAND_MAX: u64 = 1 << 24;

/// What makes a pair come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// In how many tokens both are active, as published.
    Count,
    /// Corrected for how often each is active at all: of the tokens in which either is active, the
    /// share in which both are (Jaccard's index), in steps of 1 / [`JACCARD_STEPS`].
    Jaccard,
}

/// Steps of the weight [`Weight::Jaccard`].
pub(crate) const JACCARD_STEPS: u32 = 1 << 16;

impl Weight {
    /// The weight of a pair that is active together in `both` > 0 tokens, and alone in `one` and
    /// `other`: at least 1.
    fn of(self, both: u32, one: u32, other: u32) -> u32 {
        match self {
            Self::Count => both,
            Self::Jaccard => {
                let either = u64::from(one) + u64::from(other) - u64::from(both);
                let steps = u64::from(both) * u64::from(JACCARD_STEPS) / either.max(1);
                steps.max(1) as u32
            }
        }
    }
}

/// Two neurons and the weight of their being active together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CoactivePair {
    /// In how many tokens both are active, at least 1, or another weight.
    pub count: u32,
    /// The lower neuron id.
    pub i: u32,
    /// The higher neuron id.
    pub j: u32,
}
/// How many pairs of `neurons` (ascending) have each weight, by weight; entry 0 is always 0.
pub(crate) fn pair_histogram(
    activity: &LayerActivity,
    neurons: &[u32],
    weight: Weight,
) -> Vec<u64> {
    let most = match weight {
        Weight::Count => activity.active_count().iter().max().copied().unwrap_or(0),
        Weight::Jaccard => JACCARD_STEPS,
    };
    let mut histogram = vec![0u64; most as usize + 1];
    visit_weights(activity, neurons, weight, |_, _, weight| histogram[weight as usize] += 1);
    histogram
}

/// [`LayerActivity::visit_pairs`], with weights for counts.
fn visit_weights(
    activity: &LayerActivity,
    neurons: &[u32],
    weight: Weight,
    mut visit: impl FnMut(u32, u32, u32),
) {
    let active = activity.active_count();
    activity.visit_pairs(neurons, |i, j, both| {
        visit(i, j, weight.of(both, active[i as usize], active[j as usize]));
    });
}

/// Cuts the counts 1 and up into bands, highest first, each with at most `pairs_max` pairs or a
/// single count. Counts that no pair has may fall into any band or none.
pub(crate) fn count_bands(histogram: &[u64], pairs_max: u64) -> Vec<RangeInclusive<u32>> {
    let mut bands = Vec::new();
    let mut band: Option<(RangeInclusive<u32>, u64)> = None;
    for (count, &pairs) in histogram.iter().enumerate().skip(1).rev() {
        if pairs == 0 {
            continue;
        }
        let count = count as u32;
        band = match band {
            Some((range, held)) if held + pairs <= pairs_max => {
                Some((count..=*range.end(), held + pairs))
            }
            full_or_none => {
                bands.extend(full_or_none.map(|(range, _)| range));
                Some((count..=count, pairs))
            }
        };
    }
    bands.extend(band.map(|(range, _)| range));
    bands
}

/// Calls `visit` for the pairs of `neurons` (ascending) whose weight lies in `band`, by descending
/// weight, then ascending i, then j. `histogram` is that of the same neurons, or of more.
pub(crate) fn visit_band(
    activity: &LayerActivity,
    histogram: &[u64],
    band: &RangeInclusive<u32>,
    neurons: &[u32],
    weight: Weight,
    mut visit: impl FnMut(CoactivePair),
) {
    let (low, high) = (*band.start(), *band.end());
    if low == high {
        // One count only: the counting order is the order wanted, nothing need be held.
        visit_weights(activity, neurons, weight, |i, j, count| {
            if count == low {
                visit(CoactivePair { count, i, j });
            }
        });
        return;
    }
    // Pairs come by ascending (i, j), so each count's bucket is filled in order. O(pairs). The
    // buckets lie behind one another, as large as the histogram says; what stays empty is never touched.
    let mut begin: Vec<usize> = Vec::with_capacity((high - low + 1) as usize);
    let mut pairs = 0;
    for held in histogram[low as usize..=high as usize].iter().rev() {
        begin.push(pairs);
        pairs += *held as usize;
    }
    let mut end = begin.clone();
    let mut keys = vec![0u64; pairs];
    visit_weights(activity, neurons, weight, |i, j, count| {
        // One comparison for both bounds: most pairs of most passes lie outside.
        if let Some(end) = end.get_mut(high.wrapping_sub(count) as usize) {
            keys[*end] = u64::from(i) << 32 | u64::from(j);
            *end += 1;
        }
    });
    for ((count, begin), end) in (low..=high).rev().zip(begin).zip(end) {
        for key in &keys[begin..end] {
            visit(CoactivePair { count, i: (key >> 32) as u32, j: *key as u32 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_are_bounded_and_cover_every_count_once() {
        let histogram = [0, 9, 2, 0, 3, 1, 0];
        assert_eq!(count_bands(&histogram, 4), [4..=5, 2..=2, 1..=1]);
        assert_eq!(count_bands(&histogram, 100), [1..=5]);
        assert_eq!(count_bands(&histogram, 1), [5..=5, 4..=4, 2..=2, 1..=1]);
        assert!(count_bands(&[0, 0], 4).is_empty());
        assert!(count_bands(&[], 4).is_empty());
    }
}
