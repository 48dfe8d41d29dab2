//! Streams: reads of one size, always so many in flight.

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use lnp_engine::arena::Staging;
use lnp_engine::queue::{Completion, Read, ReadError, ReadFailure, TimedQueue, drain, turn};
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::kernel::Counters;
use crate::profile::{Pattern, StreamKind};

/// Random reads begin at multiples of so many bytes, shorter ones at multiples of their own length.
const BLOCK_BYTES: u64 = 4096;
/// Longest latency that is told from longer ones, nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Latencies of reads, nanoseconds, to three digits.
pub type LatencyHistogram = Histogram<u32>;

/// None yet.
///
/// # Errors
/// None in practice: the bounds are constants.
pub fn latencies() -> Result<LatencyHistogram> {
    Ok(Histogram::new_with_max(LATENCY_NS_MAX, 3)?)
}

/// One stretch of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Visit {
    /// Reads that ended in the time that counts.
    pub reads: u64,
    /// That time, seconds.
    pub seconds: f64,
    /// CPU time of this thread in it, seconds; 0 where it could not be told.
    pub cpu_seconds: f64,
    /// Bytes asked for, lead-in and end included.
    pub asked_bytes: u64,
    /// Bytes that the device read meanwhile, as far as the kernel counts them.
    pub device_bytes: Option<u64>,
}

/// How long a stretch is.
#[derive(Debug, Clone, Copy)]
pub struct Length {
    /// The begin that does not count, nanoseconds.
    pub lead_in_ns: u64,
    /// What counts, nanoseconds.
    pub time_ns: u64,
}

/// What a stretch looks at beside the queue: the CPU time of this thread, nanoseconds, and what the
/// kernel has counted.
pub struct Meters<'m> {
    /// CPU time of this thread, nanoseconds.
    pub cpu_ns: &'m dyn Fn() -> u64,
    /// What the kernel has counted so far.
    pub counters: &'m dyn Fn() -> Counters,
}

/// The places of a stream's reads.
struct Places<'r> {
    kind: StreamKind,
    random: &'r mut Xoshiro256PlusPlus,
    unit: u64,
    count: u64,
    next: u64,
}

impl<'r> Places<'r> {
    fn new(kind: StreamKind, random: &'r mut Xoshiro256PlusPlus) -> Result<Self> {
        let bytes = u64::from(kind.read_bytes);
        ensure!(
            bytes > 0 && bytes <= kind.range_bytes,
            "reads of {bytes} bytes in a range of {}: there is no place for one",
            kind.range_bytes
        );
        let unit = match kind.pattern {
            Pattern::Random => bytes.min(BLOCK_BYTES),
            Pattern::Sequential => bytes,
        };
        let count = (kind.range_bytes - bytes) / unit + 1;
        let next = random.random_range(0..count);
        Ok(Self { kind, random, unit, count, next })
    }

    fn next(&mut self) -> u64 {
        let place = self.next;
        self.next = match self.kind.pattern {
            Pattern::Random => self.random.random_range(0..self.count),
            Pattern::Sequential => (place + 1) % self.count,
        };
        place * self.unit
    }
}

/// Keeps `kind.depth` reads in flight for so long, and drains the queue. Latencies (from the moment
/// that a read is handed over to the moment that its completion is seen) are added to `latencies`.
///
/// The time that counts begins and ends with completions: it holds whole reads only. It goes on
/// until at least as many reads are counted as are in flight.
///
/// # Errors
/// A read that fails, a staging area that is too small, or a range without a place for a read.
pub fn visit<'a, Q: TimedQueue<'a>>(
    queue: &mut Q,
    staging: &mut Staging<'a>,
    kind: StreamKind,
    length: Length,
    (random, meters): (&mut Xoshiro256PlusPlus, &Meters<'_>),
    latencies: &mut LatencyHistogram,
) -> Result<Visit> {
    let mut places = Places::new(kind, random)?;
    let depth = kind.depth.min(queue.depth());
    ensure!(
        staging.lay_out((0..depth).map(|_| kind.read_bytes.into())),
        "{depth} reads of {} bytes are more than there is memory for",
        kind.read_bytes
    );
    let before = (meters.counters)();
    let mut visit = Visit::default();
    let begin_ns = queue.now_ns();
    let mut hands = Hands {
        free: (0..depth).rev().collect(),
        begun_ns: vec![0_u64; depth as usize],
        now_ns: begin_ns,
        result: Ok(()),
    };
    // When counting began, and the CPU time then.
    let mut counted: Option<(u64, u64)> = None;
    loop {
        let next = |hands: &mut Hands| {
            let tag = hands.free.pop()?;
            hands.begun_ns[tag as usize] = hands.now_ns;
            visit.asked_bytes += u64::from(kind.read_bytes);
            Some(read(staging, places.next(), tag))
        };
        let done = |hands: &mut Hands, completion: Completion| {
            hands.result = hands.result.and(completion.result);
            hands.free.push(completion.tag);
        };
        ensure!(turn(queue, &mut hands, next, done)?, "the queue lost its reads");
        hands.result?;
        let now_ns = queue.now_ns();
        hands.now_ns = now_ns;
        let Some((from_ns, from_cpu_ns)) = counted else {
            if now_ns - begin_ns >= length.lead_in_ns {
                counted = Some((now_ns, (meters.cpu_ns)()));
            }
            continue;
        };
        // All that are free have just come back.
        for tag in &hands.free {
            latencies.saturating_record(now_ns.saturating_sub(hands.begun_ns[*tag as usize]));
        }
        visit.reads += hands.free.len() as u64;
        if now_ns - from_ns >= length.time_ns && visit.reads >= u64::from(depth) {
            visit.seconds = (now_ns - from_ns) as f64 / 1e9;
            visit.cpu_seconds = (meters.cpu_ns)().saturating_sub(from_cpu_ns) as f64 / 1e9;
            break;
        }
    }
    drain(queue)?;
    visit.device_bytes = (meters.counters)().since(&before);
    Ok(visit)
}

/// The places of a stream's reads in memory: which are free, and when the others were filled.
struct Hands {
    free: Vec<u32>,
    begun_ns: Vec<u64>,
    now_ns: u64,
    result: Result<(), ReadError>,
}

/// A read into a place that is free.
fn read<'a>(staging: &Staging<'a>, file_offset: u64, tag: u32) -> Result<Read<'a>, ReadError> {
    let lease = staging.lease(tag as usize).ok_or(ReadError {
        failure: ReadFailure::NoBuffer,
        file_offset,
        bytes: 0,
    })?;
    // Nobody wants the bytes: the place is free as soon as the read is over.
    staging.cancel(tag as usize);
    Ok(Read { file_offset, lease, tag })
}

#[cfg(test)]
mod tests {
    use lnp_engine::arena::{Arena, Staging};
    use lnp_engine::queue::simulated::{Image, SimulatedQueue};
    use lnp_engine::{Combine, DeviceLaw};
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;
    use crate::profile::StreamBackEnd;

    const LENGTH: Length = Length { lead_in_ns: 2_000_000, time_ns: 50_000_000 };

    fn kind(pattern: Pattern, read_bytes: u32, depth: u32) -> StreamKind {
        let range_bytes = 64 << 20;
        StreamKind { pattern, read_bytes, depth, range_bytes, back_end: StreamBackEnd::Uring }
    }

    /// A stretch on a simulated device of this law.
    fn simulate(law: DeviceLaw, kind: StreamKind) -> (Visit, LatencyHistogram) {
        let mut memory = vec![0; (kind.bytes_in_flight() as usize) + (1 << 17)];
        let mut arena = Arena::new(&mut memory);
        let area = arena.take_bytes(kind.bytes_in_flight() as usize, 4096).unwrap();
        let mut staging = Staging::new(&mut arena, area, 64).unwrap();
        let mut queue = SimulatedQueue::new(Image::Opaque(64 << 20), law, 64, 7);
        let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
        let meters = Meters { cpu_ns: &|| 0, counters: &Counters::default };
        let mut found = latencies().unwrap();
        let with = (&mut random, &meters);
        let visit = visit(&mut queue, &mut staging, kind, LENGTH, with, &mut found).unwrap();
        (visit, found)
    }

    #[test]
    fn the_rate_of_a_stream_is_that_of_the_planted_law() {
        for (a, b) in [(9.64, 2034.0), (50.0, 950.0)] {
            let law = DeviceLaw::new(40.0, a, b, Combine::Sum).unwrap();
            for read_bytes in [4096, 65536, 1 << 20] {
                for depth in [1, 8, 32] {
                    for pattern in [Pattern::Random, Pattern::Sequential] {
                        let (visit, found) = simulate(law, kind(pattern, read_bytes, depth));
                        let us = visit.seconds * 1e6 / visit.reads as f64;
                        let expected = law.work_us(1, read_bytes.into());
                        assert!((us / expected - 1.0).abs() < 0.01, "{us} {expected}");
                        assert_eq!(found.len(), visit.reads);
                        assert_eq!(visit.asked_bytes % u64::from(read_bytes), 0);
                    }
                }
            }
        }
    }

    #[test]
    fn one_read_in_flight_waits_for_itself_alone() {
        let law = DeviceLaw::new(0.0, 100.0, 1000.0, Combine::Sum).unwrap();
        let (_, found) = simulate(law, kind(Pattern::Random, 4096, 1));
        let us = found.value_at_quantile(0.5) as f64 / 1e3;
        assert!((us / law.work_us(1, 4096) - 1.0).abs() < 0.01, "{us}");
    }

    proptest! {
        #[test]
        fn places_lie_in_the_range(
            bytes in 1_u32..5000, more in 0_u64..1 << 20, seed: u64, sequential: bool,
        ) {
            let pattern = if sequential { Pattern::Sequential } else { Pattern::Random };
            let read_bytes = bytes * 512;
            let range_bytes = u64::from(read_bytes) + more;
            let back_end = StreamBackEnd::Pread;
            let kind = StreamKind { pattern, read_bytes, depth: 1, range_bytes, back_end };
            let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
            let mut places = Places::new(kind, &mut random).unwrap();
            let mut last = None;
            for _ in 0..50 {
                let place = places.next();
                prop_assert!(place + u64::from(read_bytes) <= range_bytes && place.is_multiple_of(512));
                if sequential && let Some(last) = last {
                    prop_assert!(place == last + u64::from(read_bytes) || place == 0);
                }
                last = Some(place);
            }
        }

        #[test]
        fn percentiles_are_those_of_the_sorted_samples(
            mut samples in prop::collection::vec(1_u64..10_000_000_000, 1..500),
            quantile in 0.0_f64..=1.0,
        ) {
            let mut found = latencies().unwrap();
            samples.iter().for_each(|sample| found.saturating_record(*sample));
            samples.sort_unstable();
            let rank = (quantile * samples.len() as f64).ceil().max(1.0) as usize;
            let (found, exact) = (found.value_at_quantile(quantile), samples[rank - 1]);
            prop_assert!((found as f64 / exact as f64 - 1.0).abs() <= 1e-3, "{} {}", found, exact);
        }
    }
}
