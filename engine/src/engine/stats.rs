//! What the engine tells about its work.

/// What fetching did. Sums up over layers and tokens with [`FetchStats::add`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchStats {
    /// Active bundles asked for.
    pub active: u64,
    /// Of them, those whose coefficient turned out to be 0 (for every token of a batch): fetched in vain. Counted by
    /// [`crate::ffn::Ffn`] alone, which knows coefficients.
    pub in_vain: u64,
    /// Of them, found in the cache.
    pub hits: u64,
    /// Of them, prefetched.
    pub prefetched: u64,
    /// Reads.
    pub reads: u64,
    /// Runs of adjacent slots among the bundles that were read, counted in each round by itself.
    pub runs: u64,
    /// Holes that were read through, each of them a read saved.
    pub merges: u64,
    /// Bytes read, block rounding and holes included.
    pub bytes_read: u64,
    /// Reads of the layer that were under way before it was begun, rightly prefetched or in vain; not among `reads`.
    pub ahead_reads: u64,
    /// Bytes of those, not among `bytes_read`.
    pub ahead_bytes: u64,
    /// Bytes of the active bundles that were read.
    pub useful_bytes: u64,
    /// Rounds of reads; more than one a layer where the staging area is small.
    pub rounds: u64,
    /// Times that there was nothing to do but wait for the device.
    pub waits: u64,
    /// Time of these waits, nanoseconds.
    pub wait_ns: u64,
    /// From the first submission to the last completion, nanoseconds.
    pub io_ns: u64,
}

impl FetchStats {
    /// Adds another fetch.
    pub const fn add(&mut self, other: &Self) {
        self.active += other.active;
        self.in_vain += other.in_vain;
        self.hits += other.hits;
        self.prefetched += other.prefetched;
        self.reads += other.reads;
        self.runs += other.runs;
        self.merges += other.merges;
        self.bytes_read += other.bytes_read;
        self.ahead_reads += other.ahead_reads;
        self.ahead_bytes += other.ahead_bytes;
        self.useful_bytes += other.useful_bytes;
        self.rounds += other.rounds;
        self.waits += other.waits;
        self.wait_ns += other.wait_ns;
        self.io_ns += other.io_ns;
    }
}

/// Parts that each doubling of the time is cut into: a quantile is right within a quarter.
const PARTS: usize = 4;
const BUCKETS: usize = PARTS * 40;

/// How long reads took, from submission to completion, in buckets of a quarter of a doubling each.
#[derive(Clone, Copy, Debug)]
pub struct Latencies {
    counts: [u32; BUCKETS],
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: [0; BUCKETS] }
    }
}

impl Latencies {
    /// Counts one read.
    pub fn record(&mut self, ns: u64) {
        if let Some(count) = self.counts.get_mut(bucket(ns)) {
            *count = count.saturating_add(1);
        }
    }

    /// Reads counted.
    pub fn reads(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// The time that `percent` of the reads did not exceed, nanoseconds: the upper end of its
    /// bucket; 0 without reads.
    pub fn percentile_ns(&self, percent: u8) -> u64 {
        let wanted = (self.reads() * u64::from(percent.min(100))).div_ceil(100);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if *count > 0 && seen >= wanted {
                return bucket_end_ns(bucket);
            }
        }
        0
    }
}

/// Bucket 4k + p holds the times from 2^k * (1 + p/4) on.
fn bucket(ns: u64) -> usize {
    let octave = ns.max(1).ilog2() as usize;
    let part = ((ns.max(1) << 2 >> octave) as usize) & (PARTS - 1);
    (octave * PARTS + part).min(BUCKETS - 1)
}

const fn bucket_end_ns(bucket: usize) -> u64 {
    let (octave, part) = (bucket / PARTS, bucket % PARTS);
    ((PARTS + part + 1) as u64) << octave >> 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_within_a_quarter() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile_ns(50), 0);
        (1..=1000).for_each(|us| latencies.record(us * 1000));
        assert_eq!(latencies.reads(), 1000);
        for percent in [1, 50, 99, 100] {
            let (found, right) = (latencies.percentile_ns(percent), u64::from(percent) * 10_000);
            assert!(found >= right && found <= right + right / 4 + 1, "{percent}: {found}");
        }
        latencies.record(u64::MAX);
        latencies.record(0);
    }
}
