//! How long reads are: which share of the wanted bundles comes in reads of how many wanted ones.

use lnp_link::Slots;
use lnp_link::price::Pricer;

/// Counts, by powers of two.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadLengths {
    of_length: [u64; 16],
}

impl ReadLengths {
    /// Counts the reads of a batch of neurons, from the cheapest of its placements.
    pub(crate) fn add(&mut self, pricer: &mut Pricer, batch: &[u32], placements: &[Slots]) {
        // The one that the price is of must be the last.
        let (cheapest, _) = pricer.cheapest(batch, placements);
        pricer.batch(batch, &placements[cheapest]);
        for read in pricer.reads().iter().filter(|read| read.count > 0) {
            self.of_length[read.count.ilog2().min(15) as usize] += u64::from(read.count);
        }
    }

    /// The least of each length, and the share of the bundles, per cent; up to the longest read.
    pub(crate) fn percents(&self) -> Vec<(f64, f64)> {
        let total: u64 = self.of_length.iter().sum();
        let percent = |count: u64| 100.0 * count as f64 / total.max(1) as f64;
        let longest = self.of_length.iter().rposition(|count| *count > 0).unwrap_or(0);
        let all = self.of_length.iter().enumerate().take(longest + 1);
        all.map(|(at, count)| ((1_u64 << at) as f64, percent(*count))).collect()
    }
}
