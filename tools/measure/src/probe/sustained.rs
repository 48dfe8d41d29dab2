//! What a device keeps up, as against what it does for a moment.
//!
//! A device under a limit of reads or bytes a second (a cgroup, a virtual disk) lets a burst pass at full
//! speed and then nothing until the next: under Linux's limit, what a tenth of a second may hold. With
//! kinds of batches in turns most of them are such bursts, a few pay for all, and the medians know
//! nothing of the limit. So a few kinds are also repeated without a pause, long enough for many bursts.

use std::time::{Duration, Instant};

use anyhow::Result;
use rand::seq::SliceRandom;

use super::batches::Prober;
use crate::profile::Point;
use lnp_common::report::quantile;

/// Bytes of a read and reads of a batch: few and many reads, short and long ones, so that t0, a and B, and
/// how they combine, can be told from these alone. Each is among those measured in turns.
const KINDS: [(u32, u32); 8] = [
    (4 << 10, 8),
    (4 << 10, 256),
    (16 << 10, 64),
    (32 << 10, 64),
    (64 << 10, 64),
    (256 << 10, 32),
    (1 << 20, 1),
    (1 << 20, 8),
];
/// Time of one kind in a row: ten bursts under Linux's limit.
const STRETCH: Duration = Duration::from_secs(1);
/// Its begin, which is not counted: what the kind before had left, or left to pay.
const LEAD_IN: Duration = Duration::from_millis(200);
/// Share of the time that batches get.
const SHARE: f64 = 0.5;
/// A kind is held back where it takes so many times as long sustained as in turns; a device, where two are.
const HELD_BACK: f64 = 1.25;

/// Times that each kind is sustained where batches get so much time: none where it is short.
pub(super) fn rounds(batches: Duration) -> u32 {
    let round = STRETCH.as_secs_f64() * KINDS.len() as f64;
    (batches.as_secs_f64() * SHARE / round) as u32
}

/// The time that they take.
pub(super) fn time(rounds: u32) -> Duration {
    STRETCH * KINDS.len() as u32 * rounds
}

/// Sustains all kinds, in a new random order each round; what is missing where `go_on` says false is the
/// rounds from there.
pub(super) fn measure(
    prober: &mut Prober,
    rounds: u32,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Vec<Point>> {
    let mut stretches: [Vec<Stretch>; KINDS.len()] = Default::default();
    let mut order: Vec<usize> = (0..KINDS.len()).collect();
    'rounds: for _ in 0..rounds {
        order.shuffle(&mut prober.random);
        let mut round = Vec::new();
        for at in &order {
            let (mut stretch, begin) = (Stretch::default(), Instant::now());
            while begin.elapsed() < STRETCH {
                if !go_on() {
                    break 'rounds;
                }
                let us = prober.batch_us(KINDS[*at].0, KINDS[*at].1)?;
                let end = begin.elapsed();
                if end >= LEAD_IN {
                    stretch.ends_us.push(end.as_secs_f64() * 1e6);
                    stretch.batches_us.push(us);
                }
            }
            round.push((*at, stretch));
        }
        for (at, stretch) in round {
            stretches[at].push(stretch);
        }
    }
    let points = KINDS.iter().zip(&stretches).filter_map(|(kind, list)| point(*kind, list));
    Ok(points.collect())
}

/// Batches of one kind without a pause.
#[derive(Debug, Default)]
struct Stretch {
    /// When each ended.
    ends_us: Vec<f64>,
    /// How long each took.
    batches_us: Vec<f64>,
}

/// Time of a batch over the stretches, percentiles of single ones.
fn point((read_bytes, reads): (u32, u32), stretches: &[Stretch]) -> Option<Point> {
    let mut slopes: Vec<f64> = stretches.iter().filter_map(|one| slope(&one.ends_us)).collect();
    let mut all: Vec<f64> = stretches.iter().flat_map(|one| one.batches_us.clone()).collect();
    (!slopes.is_empty()).then(|| Point {
        read_bytes,
        reads,
        batches: all.len(),
        batch_us_median: quantile(&mut slopes, 0.5),
        batch_us_p10: quantile(&mut all, 0.1),
        batch_us_p90: quantile(&mut all, 0.9),
    })
}

/// The slope of the line through the ends of batches. The ends themselves go up in steps, a burst each:
/// first to last would be wrong by as much as a step.
fn slope(ends_us: &[f64]) -> Option<f64> {
    if ends_us.len() < 2 {
        return None;
    }
    let count = ends_us.len() as f64;
    let (middle, mean) = ((count - 1.0) / 2.0, ends_us.iter().sum::<f64>() / count);
    let (mut up, mut along) = (0.0, 0.0);
    for (at, end) in ends_us.iter().enumerate() {
        let step = at as f64 - middle;
        up += step * (end - mean);
        along += step * step;
    }
    Some(up / along)
}

/// How many times as long each kind takes sustained as in turns.
pub fn over_turns<'a>(
    turns: &'a [Point],
    sustained: &'a [Point],
) -> impl Iterator<Item = f64> + 'a {
    sustained.iter().filter_map(|point| {
        let same =
            |other: &&Point| (other.read_bytes, other.reads) == (point.read_bytes, point.reads);
        Some(point.batch_us_median / turns.iter().find(same)?.batch_us_median)
    })
}

/// Whether the device does not keep up what it does in turns.
pub(super) fn is_held_back(turns: &[Point], sustained: &[Point]) -> bool {
    over_turns(turns, sustained).filter(|ratio| *ratio >= HELD_BACK).count() >= 2
}

#[cfg(test)]
mod tests {
    use lnp_engine::{Combine, DeviceLaw};
    use rand::{RngExt, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::super::fit::fit_law;
    use super::*;

    const READS_PER_S: f64 = 20_000.0;
    const BYTES_PER_S: f64 = 1e9;

    /// What the device takes without the limit, some of it by chance.
    fn free_us(kind: (u32, u32), random: &mut Xoshiro256PlusPlus) -> f64 {
        let law = DeviceLaw::new(40.0, 14.0, 2900.0, Combine::Sum).unwrap();
        let bytes = u64::from(kind.0) * u64::from(kind.1);
        law.time_us(kind.1.into(), bytes) * random.random_range(0.85..1.3)
    }

    /// A stretch under a limit as Linux keeps it: each tenth of a second has its reads and bytes, at full
    /// speed while they last; what the last one takes too much is missing from the next.
    fn limited(kind: (u32, u32), random: &mut Xoshiro256PlusPlus) -> Stretch {
        let slice_us = 1e5;
        let quota = [READS_PER_S / 10.0, BYTES_PER_S / 10.0];
        let begin_us = random.random_range(0.0..slice_us);
        let (mut now_us, mut slice, mut left) = (begin_us, 0.0, quota);
        let mut stretch = Stretch::default();
        while now_us - begin_us < STRETCH.as_secs_f64() * 1e6 {
            let before_us = now_us;
            let read_us = free_us(kind, random) / f64::from(kind.1);
            for _ in 0..kind.1 {
                if left.iter().any(|left| *left <= 0.0) {
                    now_us = now_us.max((slice + 1.0) * slice_us);
                }
                while (slice + 1.0) * slice_us <= now_us {
                    slice += 1.0;
                    left = [0, 1].map(|at| left[at].min(0.0) + quota[at]);
                }
                left = [left[0] - 1.0, left[1] - f64::from(kind.0)];
                now_us += read_us;
            }
            if now_us - begin_us >= LEAD_IN.as_secs_f64() * 1e6 {
                stretch.ends_us.push(now_us);
                stretch.batches_us.push(now_us - before_us);
            }
        }
        stretch
    }

    fn free_point(kind: (u32, u32), random: &mut Xoshiro256PlusPlus) -> Point {
        let stretch = Stretch { ends_us: vec![0.0, free_us(kind, random)], batches_us: vec![1.0] };
        point(kind, &[stretch]).unwrap()
    }

    #[test]
    fn a_limit_is_found_that_bursts_do_not_show() {
        for seed in 0..20 {
            let random = &mut Xoshiro256PlusPlus::seed_from_u64(seed);
            let turns: Vec<Point> = KINDS.iter().map(|kind| free_point(*kind, random)).collect();
            let sustained: Vec<Point> =
                KINDS.iter().map(|kind| point(*kind, &[limited(*kind, random)]).unwrap()).collect();
            assert!(is_held_back(&turns, &sustained), "seed {seed}");
            let (law, fit) = fit_law(&sustained).unwrap();
            assert_eq!(law.combine(), Combine::Max, "seed {seed}: {law:?} {fit:?}");
            assert!((law.a_us() / 50.0 - 1.0).abs() < 0.05, "seed {seed}: {law:?}");
            let bytes_per_s = law.b_mib_s() * lnp_engine::law::MIB;
            assert!((bytes_per_s / BYTES_PER_S - 1.0).abs() < 0.05, "seed {seed}: {law:?}");
        }
    }

    #[test]
    fn a_free_device_is_not_held_back() {
        let random = &mut Xoshiro256PlusPlus::seed_from_u64(1);
        let turns: Vec<Point> = KINDS.iter().map(|kind| free_point(*kind, random)).collect();
        assert!(!is_held_back(&turns, &turns));
        assert!(!is_held_back(&turns, &[]));
        // A neighbour that disturbs one kind is no limit.
        let mut one = turns.clone();
        one[3].batch_us_median *= 3.0;
        assert!(!is_held_back(&turns, &one));
    }

    #[test]
    fn steps_do_not_bend_the_slope() {
        assert_eq!(slope(&[7.0]), None);
        assert_eq!(slope(&[1.0, 3.0, 5.0]), Some(2.0));
        // Eight bursts of a hundred batches at once, from the middle of one on.
        let ends: Vec<f64> = (50..850).map(|at| f64::from(at / 100 * 100)).collect();
        assert!((slope(&ends).unwrap() - 1.0).abs() < 0.02);
    }

    #[test]
    fn a_quick_probe_sustains_once_and_a_short_one_never() {
        let of = |seconds| rounds(super::super::full::batch_time(Duration::from_secs(seconds)));
        assert_eq!((of(1), of(19), of(20), of(60), of(300)), (0, 0, 1, 1, 3));
        assert!(rounds(Duration::from_secs(4)) == 0, "what replay and demo probe themselves");
        assert!(time(3) < Duration::from_secs(60) / 2);
    }
}
