//! The greedy order: pairs by descending co-activation count, joined into chains.
//!
//! A pair is passed over when either neuron already has two neighbours or both are in one chain;
//! pairs that are never active together are not joined. For n neurons: counting the pairs
//! dominates (see [`super::coactivation`]); sorting them is O(n²) by buckets, joining is all but
//! constant a pair (union-find with path halving). Memory: the bit rows and one band of pairs.

use super::coactivation::LayerActivity;
use super::pairs::{PAIRS_PER_BAND_MAX, Weight, count_bands, pair_histogram, visit_band};

/// No neighbour.
const NONE: u32 = u32::MAX;

/// The chains of some neurons (ascending ids) by some weight, concatenated: neuron ids by slot, and
/// where each chain begins (chains + 1 entries, the last is the number of neurons).
///
/// Every chain starts with the end of lower id, and chains are sorted by that id.
pub(crate) fn chains_of(
    activity: &LayerActivity,
    members: &[u32],
    weight: Weight,
) -> (Vec<u32>, Vec<u32>) {
    let pairs_max = (activity.pair_bytes_max() / 8).clamp(1, PAIRS_PER_BAND_MAX);
    chains_in_bands(activity, members, weight, pairs_max)
}

/// [`chains_of`] with the size of a band given; the result doesn't depend on it.
pub(crate) fn chains_in_bands(
    activity: &LayerActivity,
    members: &[u32],
    weight: Weight,
    pairs_max: u64,
) -> (Vec<u32>, Vec<u32>) {
    let mut chains = Chains::new(activity.neurons());
    let histogram = pair_histogram(activity, members, weight);
    for band in count_bands(&histogram, pairs_max) {
        // Closed neurons stay closed: leaving their pairs out changes nothing but the time.
        let open = chains.open(members);
        visit_band(activity, &histogram, &band, &open, weight, |pair| chains.join(pair.i, pair.j));
    }
    chains.concatenate(members)
}

/// Paths over the neurons, built edge by edge.
struct Chains {
    neighbours: Vec<[u32; 2]>,
    /// Union-find: the chain a neuron belongs to.
    parent: Vec<u32>,
}

impl Chains {
    fn new(neurons: usize) -> Self {
        Self { neighbours: vec![[NONE; 2]; neurons], parent: (0..neurons as u32).collect() }
    }

    fn is_open(&self, neuron: u32) -> bool {
        self.neighbours[neuron as usize][1] == NONE
    }

    /// Those of `members` with fewer than two neighbours, in their order.
    fn open(&self, members: &[u32]) -> Vec<u32> {
        members.iter().copied().filter(|&neuron| self.is_open(neuron)).collect()
    }

    fn chain_of(&mut self, neuron: u32) -> u32 {
        let mut at = neuron as usize;
        while self.parent[at] as usize != at {
            self.parent[at] = self.parent[self.parent[at] as usize];
            at = self.parent[at] as usize;
        }
        at as u32
    }

    /// Links i and j, unless one is closed or both are in one chain.
    fn join(&mut self, i: u32, j: u32) {
        if !self.is_open(i) || !self.is_open(j) {
            return;
        }
        let (chain_i, chain_j) = (self.chain_of(i), self.chain_of(j));
        if chain_i == chain_j {
            return;
        }
        self.parent[chain_j as usize] = chain_i;
        for (neuron, other) in [(i, j), (j, i)] {
            let pair = &mut self.neighbours[neuron as usize];
            let free = usize::from(pair[0] != NONE);
            pair[free] = other;
        }
    }

    /// Walks the chains of `members`. By ascending id, the first end met of a chain is its lower one, and the
    /// chains come sorted by it.
    fn concatenate(&self, members: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let mut neuron_of_slot = Vec::with_capacity(members.len());
        let mut begin = vec![0];
        let mut placed = vec![false; self.neighbours.len()];
        for end in self.open(members) {
            if placed[end as usize] {
                continue;
            }
            let (mut before, mut at) = (NONE, end);
            while at != NONE {
                placed[at as usize] = true;
                neuron_of_slot.push(at);
                let [a, b] = self.neighbours[at as usize];
                (before, at) = (at, if a == before { b } else { a });
            }
            begin.push(neuron_of_slot.len() as u32);
        }
        (neuron_of_slot, begin)
    }
}

#[cfg(test)]
#[path = "greedy_tests.rs"]
mod tests;
