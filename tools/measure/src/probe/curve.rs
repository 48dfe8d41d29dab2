//! The measured curve T(size): what one read costs, by its size, at one queue depth.

use crate::profile::{DepthCurve, Pattern, Point, Stream};
use lnp_common::report::quantile;

/// The curves of all depths that have three sizes or more, from random streams over the longest range.
///
/// `batches` (made at `queue_depth`) say what t0 is there: the value with the least sum of relative
/// errors. At other depths it is what one read of the shortest size waits for beyond its share.
pub fn curves(streams: &[Stream], batches: &[Point], queue_depth: u32) -> Vec<DepthCurve> {
    let of_curve = |stream: &&Stream| stream.kind.pattern == Pattern::Random;
    let Some(first) = streams.iter().filter(of_curve).max_by_key(|one| one.kind.range_bytes) else {
        return Vec::new();
    };
    let whole: Vec<&Stream> = streams
        .iter()
        .filter(of_curve)
        .filter(|stream| stream.kind.range_bytes == first.kind.range_bytes)
        .filter(|stream| stream.kind.back_end == first.kind.back_end)
        .collect();
    let mut depths: Vec<u32> = whole.iter().map(|stream| stream.kind.depth).collect();
    depths.sort_unstable();
    depths.dedup();
    let mut found = Vec::new();
    for depth in depths {
        let mut of_depth: Vec<&&Stream> =
            whole.iter().filter(|stream| stream.kind.depth == depth).collect();
        of_depth.sort_by_key(|stream| stream.kind.read_bytes);
        if of_depth.len() < 3 {
            continue;
        }
        let read_bytes: Vec<u32> = of_depth.iter().map(|one| one.kind.read_bytes).collect();
        let read_us = level(&of_depth.iter().map(|one| 1e6 / one.reads_per_s).collect::<Vec<_>>());
        let mut curve = DepthCurve {
            depth,
            t0_us: 0.0,
            error_median: None,
            error_p90: None,
            read_bytes,
            read_us,
        };
        if depth == queue_depth {
            fit_t0(&mut curve, batches);
        } else {
            let alone = whole
                .iter()
                .find(|one| one.kind.depth == 1 && one.kind.read_bytes == curve.read_bytes[0]);
            let alone_us = alone.map_or(0.0, |one| one.latency_us_p50);
            curve.t0_us = (alone_us - curve.read_us[0]).max(0.0);
        }
        found.push(curve);
    }
    found
}

/// The closest times that do not fall: neighbours that do share their mean (isotonic regression). A longer
/// read that seems the cheaper one is noise.
fn level(times: &[f64]) -> Vec<f64> {
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for time in times {
        pools.push((*time, 1));
        while let [.., before, last] = &pools[..]
            && before.0 / before.1 as f64 > last.0 / last.1 as f64
        {
            let (sum, count) = (before.0 + last.0, before.1 + last.1);
            pools.truncate(pools.len() - 2);
            pools.push((sum, count));
        }
    }
    pools.iter().flat_map(|(sum, count)| vec![sum / *count as f64; *count]).collect()
}

/// t0 from batches: the weighted median of what they take beyond their reads.
fn fit_t0(curve: &mut DepthCurve, batches: &[Point]) {
    let Ok(plain) = curve.curve() else { return };
    let reads_us =
        |point: &Point| f64::from(point.reads) * plain.read_us(u64::from(point.read_bytes));
    let mut rest: Vec<(f64, f64)> = batches
        .iter()
        .map(|point| (point.batch_us_median - reads_us(point), 1.0 / point.batch_us_median))
        .collect();
    rest.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = rest.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    let middle = rest.iter().find(|(_, weight)| {
        sum += weight;
        sum >= half
    });
    let Some((t0_us, _)) = middle else { return };
    let t0_us = t0_us.max(0.0);
    let error = |point: &Point| ((t0_us + reads_us(point)) / point.batch_us_median - 1.0).abs();
    let mut errors: Vec<f64> = batches.iter().map(error).collect();
    curve.t0_us = t0_us;
    curve.error_median = Some(quantile(&mut errors, 0.5));
    curve.error_p90 = Some(quantile(&mut errors, 0.9));
}

#[cfg(test)]
mod tests {
    use lnp_engine::{Combine, DeviceLaw};
    use proptest::prelude::*;

    use super::*;
    use crate::profile::{StreamBackEnd, StreamKind};

    fn stream(law: &DeviceLaw, read_bytes: u32, depth: u32) -> Stream {
        let us = law.work_us(1, read_bytes.into());
        Stream {
            kind: StreamKind {
                pattern: Pattern::Random,
                read_bytes,
                depth,
                range_bytes: 1 << 30,
                back_end: StreamBackEnd::Uring,
            },
            turns: 1,
            reads: 1,
            reads_per_s: 1e6 / us,
            reads_per_s_least: 0.0,
            reads_per_s_most: 0.0,
            mib_s: 0.0,
            latency_us_p50: us + law.t0_us(),
            latency_us_p99: None,
            latency_us_p999: None,
            cpu_us_per_read: 0.0,
            device_share: None,
        }
    }

    fn batch(law: &DeviceLaw, read_bytes: u32, reads: u32) -> Point {
        let us = law.time_us(reads.into(), u64::from(reads) * u64::from(read_bytes));
        Point {
            read_bytes,
            reads,
            batches: 1,
            batch_us_median: us,
            batch_us_p10: us,
            batch_us_p90: us,
        }
    }

    #[test]
    fn the_curve_of_a_planted_law_is_that_law() {
        let law = DeviceLaw::new(40.0, 10.0, 2000.0, Combine::Sum).unwrap();
        let sizes = [4096, 16384, 65536, 1 << 20];
        let mut streams: Vec<Stream> = [1, 8, 32]
            .into_iter()
            .flat_map(|depth| sizes.map(|bytes| stream(&law, bytes, depth)))
            .collect();
        let batches: Vec<Point> = sizes
            .into_iter()
            .flat_map(|bytes| [1, 8, 64].map(|reads| batch(&law, bytes, reads)))
            .collect();
        // A small range and two sizes at another depth are no curves.
        let mut near = stream(&law, 4096, 32);
        near.kind.range_bytes = 64 << 20;
        near.reads_per_s *= 10.0;
        streams.extend([near, stream(&law, 4096, 2), stream(&law, 8192, 2)]);
        let found = curves(&streams, &batches, 32);
        assert_eq!(found.iter().map(|curve| curve.depth).collect::<Vec<_>>(), [1, 8, 32]);
        for curve in &found {
            assert!((curve.t0_us - 40.0).abs() < 1e-6, "{curve:?}");
            let engine = curve.curve().unwrap();
            for bytes in [4096, 12288, 1 << 20, 1 << 21] {
                let expected = law.work_us(1, bytes);
                assert!((engine.read_us(bytes) / expected - 1.0).abs() < 1e-6, "{curve:?}");
            }
        }
        assert!(found[2].error_p90.unwrap() < 1e-6 && found[0].error_p90.is_none());
    }

    proptest! {
        #[test]
        fn levelled_times_do_not_fall_and_keep_their_sum(
            times in prop::collection::vec(0.1_f64..1000.0, 1..16),
        ) {
            let found = level(&times);
            prop_assert_eq!(found.len(), times.len());
            prop_assert!(found.windows(2).all(|pair| pair[0] <= pair[1] * (1.0 + 1e-12)));
            let (before, after) = (times.iter().sum::<f64>(), found.iter().sum::<f64>());
            prop_assert!((before / after - 1.0).abs() < 1e-9);
            let mut sorted = times.clone();
            sorted.sort_by(f64::total_cmp);
            prop_assert_eq!(level(&sorted), sorted);
        }
    }
}
