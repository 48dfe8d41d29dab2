//! Which streams are measured.
//!
//! Not every size with every depth, pattern, range and back end: that is thousands of points, and a
//! third of a second for each turn is needed to tell a percentile. Instead cross-sections through one
//! point (4 KiB, random, over the whole, at the queue depth, io_uring), each along what changes together:
//!
//! - **size and depth**, all of them (random, whole, io_uring): the engine's reads are of every size, and
//!   the curves T(size) of a profile are the rows of this plane;
//! - **sequential**, six sizes at depths 1, 8 and the queue depth: what links are for is that reads become
//!   such ones;
//! - **range**, from 64 MiB on in steps of four: a device that maps its pages through a small table is
//!   faster over a small range, which shows in small reads (4 KiB at depths 1 and the queue depth, 64 KiB);
//! - **pread**, three sizes, both patterns: it has one read in flight, so depth says nothing.

use crate::profile::{Pattern, StreamBackEnd, StreamKind};

/// Most reads in flight.
pub const DEPTH_MAX: u32 = 64;
/// Most bytes in flight: longer reads are measured at fewer depths.
pub const BYTES_IN_FLIGHT_MAX: u64 = 64 << 20;
/// The shortest read, bytes.
const READ_BYTES_LEAST: u32 = 512;
/// The longest read, bytes.
pub const READ_BYTES_MOST: u32 = 4 << 20;
const DEPTHS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];
const SEQUENTIAL_BYTES: [u32; 6] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];
const PREAD_BYTES: [u32; 3] = [4 << 10, 64 << 10, 1 << 20];
/// The smallest range, bytes.
const RANGE_LEAST: u64 = 64 << 20;
/// From one range to the next.
const RANGE_FACTOR: u64 = 4;

/// What the device at hand allows.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Length of the file, bytes.
    pub file_bytes: u64,
    /// What reads must be a multiple of, bytes.
    pub align: u32,
    /// The depth of the cross-sections.
    pub queue_depth: u32,
    /// What most streams are read with.
    pub back_end: StreamBackEnd,
}

/// Streams that were asked for: the full product of these.
#[derive(Debug, Clone, Default)]
pub struct Custom {
    /// Bytes of a read; none: 4 KiB.
    pub read_bytes: Vec<u32>,
    /// Reads in flight; none: the queue depth.
    pub depths: Vec<u32>,
    /// Ranges, bytes; `u64::MAX` is the whole; none: the whole.
    pub ranges: Vec<u64>,
    /// Patterns; none: random.
    pub patterns: Vec<Pattern>,
}

impl Custom {
    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.read_bytes.is_empty()
            && self.depths.is_empty()
            && self.ranges.is_empty()
            && self.patterns.is_empty()
    }

    /// Its streams.
    pub fn kinds(&self, bounds: &Bounds) -> Vec<StreamKind> {
        fn or<T: Clone>(list: &[T], usual: T) -> Vec<T> {
            if list.is_empty() { vec![usual] } else { list.to_vec() }
        }
        let base = bounds.base();
        let mut kinds = Kinds::default();
        for pattern in or(&self.patterns, base.pattern) {
            for range_bytes in or(&self.ranges, base.range_bytes) {
                let range_bytes = range_bytes.min(bounds.file_bytes);
                for depth in or(&self.depths, base.depth) {
                    for read_bytes in or(&self.read_bytes, base.read_bytes) {
                        let kind = StreamKind { pattern, range_bytes, depth, read_bytes, ..base };
                        kinds.add(bounds, kind);
                    }
                }
            }
        }
        kinds.0
    }
}

impl Bounds {
    /// The point that all cross-sections go through, and that is measured again at the end.
    pub fn base(&self) -> StreamKind {
        StreamKind {
            pattern: Pattern::Random,
            read_bytes: self.align.max(4096),
            depth: self.depth(self.queue_depth),
            range_bytes: self.file_bytes,
            back_end: self.back_end,
        }
    }

    /// pread has one read in flight, whatever is asked for.
    fn depth(&self, depth: u32) -> u32 {
        if self.back_end == StreamBackEnd::Pread { 1 } else { depth.min(DEPTH_MAX) }
    }

    /// The streams of a full probe.
    pub fn full(&self) -> Vec<StreamKind> {
        let base = self.base();
        let mut kinds = Kinds::default();
        for depth in DEPTHS.into_iter().chain([base.depth]) {
            for read_bytes in all_read_bytes() {
                kinds.add(self, StreamKind { depth, read_bytes, ..base });
            }
        }
        for depth in [1, 8, base.depth] {
            for read_bytes in SEQUENTIAL_BYTES {
                let pattern = Pattern::Sequential;
                kinds.add(self, StreamKind { pattern, depth, read_bytes, ..base });
            }
        }
        let ranges =
            std::iter::successors(Some(RANGE_LEAST), |range| range.checked_mul(RANGE_FACTOR));
        for range_bytes in ranges.take_while(|range| *range < self.file_bytes) {
            for (read_bytes, depth) in [(4096, 1), (4096, base.depth), (64 << 10, base.depth)] {
                kinds.add(self, StreamKind { range_bytes, depth, read_bytes, ..base });
            }
        }
        for pattern in [Pattern::Random, Pattern::Sequential] {
            for read_bytes in PREAD_BYTES {
                let back_end = StreamBackEnd::Pread;
                kinds.add(self, StreamKind { pattern, read_bytes, depth: 1, back_end, ..base });
            }
        }
        kinds.0
    }

    /// The streams of a quick one: the curve at the queue depth, latency at depth 1.
    pub fn quick(&self) -> Vec<StreamKind> {
        let base = self.base();
        let mut kinds = Kinds::default();
        for depth in [1, base.depth] {
            for read_bytes in SEQUENTIAL_BYTES {
                kinds.add(self, StreamKind { depth, read_bytes, ..base });
            }
        }
        for read_bytes in [4096, 1 << 20] {
            kinds.add(self, StreamKind { pattern: Pattern::Sequential, read_bytes, ..base });
        }
        kinds.0
    }
}

/// From 512 B to 4 MiB, in steps of two.
fn all_read_bytes() -> impl Iterator<Item = u32> {
    let twice = |bytes: &u32| Some(bytes * 2).filter(|bytes| *bytes <= READ_BYTES_MOST);
    std::iter::successors(Some(READ_BYTES_LEAST), twice)
}

/// Each once, and only what the device allows.
#[derive(Default)]
struct Kinds(Vec<StreamKind>);

impl Kinds {
    fn add(&mut self, bounds: &Bounds, kind: StreamKind) {
        let kind = StreamKind { depth: bounds.depth(kind.depth), ..kind };
        let possible = kind.read_bytes.is_multiple_of(bounds.align.max(1))
            && u64::from(kind.read_bytes) <= kind.range_bytes
            && kind.bytes_in_flight() <= BYTES_IN_FLIGHT_MAX;
        if possible && !self.0.contains(&kind) {
            self.0.push(kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(file_bytes: u64, align: u32, back_end: StreamBackEnd) -> Bounds {
        Bounds { file_bytes, align, queue_depth: 32, back_end }
    }

    #[test]
    fn a_full_probe_has_the_base_and_fits_into_its_time() {
        let bounds = bounds(1 << 40, 512, StreamBackEnd::Uring);
        let kinds = bounds.full();
        assert!((100..180).contains(&kinds.len()), "{}", kinds.len());
        assert!(kinds.contains(&bounds.base()));
        for (at, kind) in kinds.iter().enumerate() {
            assert!(!kinds[..at].contains(kind), "{kind:?} twice");
            assert!(kind.bytes_in_flight() <= BYTES_IN_FLIGHT_MAX && kind.depth <= DEPTH_MAX);
        }
        for depth in DEPTHS {
            let of = kinds.iter().filter(|kind| kind.depth == depth);
            assert!(of.count() >= 12, "a curve at depth {depth}");
        }
        assert!((10..20).contains(&bounds.quick().len()));
    }

    #[test]
    fn what_the_device_does_not_allow_is_left_out() {
        let small = bounds(1 << 20, 4096, StreamBackEnd::Pread).full();
        assert!(!small.is_empty());
        for kind in small {
            assert!(kind.read_bytes >= 4096 && kind.read_bytes <= 1 << 20 && kind.depth == 1);
            assert_eq!(kind.range_bytes, 1 << 20);
        }
    }

    #[test]
    fn what_is_asked_for_is_measured_in_full() {
        let bounds = bounds(1 << 30, 512, StreamBackEnd::Uring);
        assert!(Custom::default().is_empty());
        assert_eq!(Custom::default().kinds(&bounds), [bounds.base()]);
        let custom = Custom {
            read_bytes: vec![4096, 65536],
            depths: vec![1, 8],
            ranges: vec![64 << 20, u64::MAX],
            patterns: vec![Pattern::Random, Pattern::Sequential],
        };
        assert_eq!(custom.kinds(&bounds).len(), 16);
    }
}
