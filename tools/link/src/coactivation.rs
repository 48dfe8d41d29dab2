//! Who is active with whom: the activity of one layer over profiling traces, a bit row per neuron,
//! and exact counts of every pair (`counts`).

use std::sync::OnceLock;

use anyhow::Result;

use super::counts::{Strip, strip_end};
use super::rows::BitRows;

/// Bytes that a layer's counts of pairs may take where nothing else is said.
pub(crate) const PAIR_BYTES_DEFAULT: u64 = 1 << 30;

/// The activity of one layer over all profiling tokens, a bit row per neuron.
#[derive(Debug, Clone)]
pub struct LayerActivity {
    rows: BitRows,
    active_count: Vec<u32>,
    pair_bytes_max: u64,
    /// The counts of the pairs of some neurons, once they were asked for and if they fit.
    kept: OnceLock<Kept>,
}

/// Counts of the pairs of some neurons, ascending; `None` where they would take too much memory.
#[derive(Debug, Clone)]
struct Kept {
    members: Vec<u32>,
    counts: Option<Strip>,
}

impl LayerActivity {
    /// Transposes the bits of one layer from one or more traces, which are appended.
    ///
    /// Each trace is `(bits, tokens)` with `bits` row-major `[tokens][ceil(neurons / 8)]`; bit k of
    /// byte j, counted from the least significant, is neuron `8j + k`.
    ///
    /// # Errors
    /// `neurons` zero or over [`NEURONS_MAX`](super::NEURONS_MAX), a length that does not fit `tokens`, a bit set past
    /// the last neuron, or more than `u32::MAX` tokens in all.
    pub fn from_bits(neurons: usize, traces: &[(&[u8], usize)]) -> Result<Self> {
        let rows = BitRows::from_bits(neurons, traces)?;
        let ones = |neuron| rows.row(neuron).iter().map(|word| word.count_ones()).sum();
        let active_count = (0..neurons).map(ones).collect();
        let (pair_bytes_max, kept) = (PAIR_BYTES_DEFAULT, OnceLock::new());
        Ok(Self { rows, active_count, pair_bytes_max, kept })
    }

    /// The same, with so many bytes allowed for counts of pairs instead of 1 GiB.
    /// Results don't depend on it, but the time does where not all fit.
    pub fn with_pair_bytes(self, pair_bytes_max: u64) -> Self {
        Self { pair_bytes_max, kept: OnceLock::new(), ..self }
    }

    /// Bytes that the counts of pairs may take; as many again are for sorted pairs.
    pub(crate) fn pair_bytes_max(&self) -> u64 {
        self.pair_bytes_max
    }

    /// Neurons of the layer.
    pub fn neurons(&self) -> usize {
        self.rows.neurons()
    }

    /// Tokens of all traces together.
    pub fn tokens(&self) -> usize {
        self.rows.tokens()
    }

    /// In how many tokens each neuron is active, by neuron id.
    pub fn active_count(&self) -> &[u32] {
        &self.active_count
    }

    /// In how many tokens neuron `i` is active; 0 for an id outside the layer.
    pub fn count(&self, i: usize) -> u32 {
        self.active_count.get(i).copied().unwrap_or(0)
    }

    /// In how many tokens neurons `i` and `j` are both active; 0 for an id outside the layer.
    pub fn coactive(&self, i: usize, j: usize) -> u32 {
        let neurons = self.neurons();
        if i < neurons && j < neurons { common_bits(self.row(i), self.row(j)) } else { 0 }
    }

    /// Calls `visit(i, j, count)` for every pair `i < j` of `neurons` that is ever active together
    /// (count > 0), by ascending i, then j. `neurons` must be ascending; ids outside the layer are
    /// passed over.
    pub fn visit_pairs(&self, neurons: &[u32], mut visit: impl FnMut(u32, u32, u32)) {
        let inside = neurons.partition_point(|&id| (id as usize) < self.neurons());
        let neurons = &neurons[..inside];
        let kept = self.kept.get_or_init(|| {
            let all = strip_end(0, neurons.len(), self.pair_bytes_max) >= neurons.len();
            let counts = all.then(|| Strip::count(&self.rows, neurons, 0, neurons.len()));
            Kept { members: neurons.to_vec(), counts }
        });
        // Places of the neurons among those whose counts are kept.
        let place = |id: &u32| kept.members.binary_search(id).ok();
        let places: Option<Vec<usize>> = neurons.iter().map(place).collect();
        if let (Some(counts), Some(places)) = (&kept.counts, places) {
            for (index, &place) in places.iter().enumerate() {
                let row = counts.row(place);
                for (&id, &other) in neurons[index + 1..].iter().zip(&places[index + 1..]) {
                    let count = row[other - place - 1];
                    if count > 0 {
                        visit(neurons[index], id, count);
                    }
                }
            }
            return;
        }
        let mut first = 0;
        while first < neurons.len() {
            let end = strip_end(first, neurons.len(), self.pair_bytes_max);
            let counts = Strip::count(&self.rows, neurons, first, end);
            for row in first..end {
                for (&id, &count) in neurons[row + 1..].iter().zip(counts.row(row)) {
                    if count > 0 {
                        visit(neurons[row], id, count);
                    }
                }
            }
            first = end;
        }
    }

    /// The same bits by token, ceil(neurons / 8) bytes each, as in a trace.
    pub(crate) fn token_bits(&self) -> Vec<u8> {
        self.rows.token_bits()
    }

    /// Words of a bit row.
    pub(crate) fn words_per_row(&self) -> usize {
        self.rows.words_per_row()
    }

    /// The bits of a neuron by token; those past the last token are zero.
    pub(crate) fn row(&self, neuron: usize) -> &[u64] {
        self.rows.row(neuron)
    }
}

fn common_bits(a: &[u64], b: &[u64]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a & b).count_ones()).sum()
}

#[cfg(test)]
#[path = "coactivation_tests.rs"]
mod tests;
