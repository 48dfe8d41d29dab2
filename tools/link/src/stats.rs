//! Counting runs the plain way, straight from a trace: the yardstick for orders, shared by tests,
//! `inspect` and the checks of `replay`. Nothing here uses the co-activation counts.

use anyhow::{Result, ensure};

use super::placement::LayerLinks;
use super::rows::active_neurons;

/// Runs in a set of slots: stretches of adjacent ones. `slots` must be ascending, without repeats.
pub fn runs(slots: &[u32]) -> usize {
    let breaks = slots.windows(2).filter(|pair| pair[0].checked_add(1) != Some(pair[1])).count();
    breaks + usize::from(!slots.is_empty())
}

/// What one layer's order makes of a trace: all tokens together, no cache, no collapse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunStatistics {
    /// Tokens counted.
    pub tokens: u64,
    /// Active neurons over all tokens, which is bundles needed.
    pub active: u64,
    /// Runs of adjacent active slots over all tokens.
    pub runs: u64,
}

impl RunStatistics {
    /// Mean bundles per run; 0 where nothing is active.
    pub fn bundles_per_run(&self) -> f64 {
        if self.runs == 0 { 0.0 } else { self.active as f64 / self.runs as f64 }
    }
}

impl std::ops::Add for RunStatistics {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            active: self.active + other.active,
            runs: self.runs + other.runs,
        }
    }
}

impl std::iter::Sum for RunStatistics {
    fn sum<I: Iterator<Item = Self>>(statistics: I) -> Self {
        statistics.fold(Self::default(), std::ops::Add::add)
    }
}

/// Counts active neurons and runs of one layer over a trace, token by token.
///
/// `bits` is row-major `[tokens][ceil(neurons / 8)]`, `slot_of_neuron` has an entry per neuron.
///
/// # Errors
/// `bits` or `slot_of_neuron` doesn't fit `tokens` and `neurons`.
pub fn run_statistics(
    bits: &[u8],
    tokens: usize,
    neurons: usize,
    slot_of_neuron: &[u32],
) -> Result<RunStatistics> {
    let bytes_per_token = neurons.div_ceil(8);
    ensure!(
        neurons > 0 && tokens.checked_mul(bytes_per_token) == Some(bits.len()),
        "{} bytes of bits for {tokens} tokens and {neurons} neurons",
        bits.len()
    );
    ensure!(
        slot_of_neuron.len() == neurons,
        "{} slots for {neurons} neurons: is this the order of another model?",
        slot_of_neuron.len()
    );
    let mut total = RunStatistics { tokens: tokens as u64, ..RunStatistics::default() };
    let mut slots = Vec::new();
    for bytes in bits.chunks_exact(bytes_per_token) {
        slots.clear();
        slots.extend(active_neurons(bytes).filter_map(|neuron| slot_of_neuron.get(neuron)));
        slots.sort_unstable();
        total.active += slots.len() as u64;
        total.runs += runs(&slots) as u64;
    }
    Ok(total)
}

/// How long the links of a layer are, in neurons.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkStatistics {
    /// Links.
    pub links: usize,
    /// Neurons in the longest link.
    pub longest: u32,
    /// Middle length, or the mean of the two middle ones.
    pub median: f64,
    /// Mean length.
    pub mean: f64,
    /// Neurons that are a link of their own.
    pub singles: usize,
}

impl LinkStatistics {
    /// The lengths of a layer's links; all zero where there are none.
    pub fn of(links: &LayerLinks) -> Self {
        let mut lengths: Vec<u32> =
            links.link_begin.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        lengths.sort_unstable();
        let total: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
        let count = lengths.len();
        let (below, above) = match lengths.as_slice() {
            [] => (0, 0),
            some => (some[(count - 1) / 2], some[count / 2]),
        };
        Self {
            links: count,
            longest: lengths.last().copied().unwrap_or(0),
            median: (f64::from(below) + f64::from(above)) / 2.0,
            mean: if count == 0 { 0.0 } else { total as f64 / count as f64 },
            singles: lengths.iter().filter(|&&length| length == 1).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_stretches_of_adjacent_slots() {
        assert_eq!(runs(&[]), 0);
        assert_eq!(runs(&[7]), 1);
        assert_eq!(runs(&[0, 1, 2]), 1);
        assert_eq!(runs(&[0, 2, 3, 9]), 3);
        assert_eq!(runs(&[u32::MAX - 1, u32::MAX]), 1);
    }

    #[test]
    fn statistics_of_a_trace_written_out() {
        // Token 0: neurons 0, 1, 9; token 1: none; token 2: neurons 2, 3.
        let bits = [0b11, 0b10, 0, 0, 0b1100, 0];
        let identity: Vec<u32> = (0..10).collect();
        let counted = run_statistics(&bits, 3, 10, &identity).unwrap();
        assert_eq!(counted, RunStatistics { tokens: 3, active: 5, runs: 3 });
        assert!((counted.bundles_per_run() - 5.0 / 3.0).abs() < 1e-12);
        // Neuron 9 moved next to neuron 1, neuron 3 away from neuron 2.
        let moved = [0, 1, 3, 9, 4, 5, 6, 7, 8, 2];
        assert_eq!(run_statistics(&bits, 3, 10, &moved).unwrap().runs, 1 + 2);
        assert!(run_statistics(&bits, 4, 10, &identity).is_err());
        assert!(run_statistics(&bits, 3, 10, &identity[1..]).is_err());
        assert!(run_statistics(&[], 3, 0, &[]).is_err());
        assert_eq!(RunStatistics::default().bundles_per_run(), 0.0);
        assert_eq!([counted, counted].into_iter().sum::<RunStatistics>().active, 10);
    }

    #[test]
    fn lengths_of_links() {
        let links = |begin: &[u32]| LayerLinks {
            neuron_of_slot: (0..begin.last().copied().unwrap_or(0)).collect(),
            link_begin: begin.to_vec(),
            active_count: Vec::new(),
            further: Vec::new(),
        };
        let statistics = LinkStatistics::of(&links(&[0, 1, 2, 5, 11]));
        let expected = LinkStatistics { links: 4, longest: 6, median: 2.0, mean: 2.75, singles: 2 };
        assert_eq!(statistics, expected);
        assert_eq!(LinkStatistics::of(&links(&[0, 3])).median, 3.0);
        assert_eq!(LinkStatistics::of(&links(&[])).links, 0);
    }
}
