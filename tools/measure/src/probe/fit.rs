//! The law that describes what was measured best, and where it does not.

use anyhow::{Context, Result};
use lnp_engine::{Combine, DeviceLaw};

use crate::profile::{Fit, Misfit, Point};
use lnp_common::report::quantile;

/// A point counts as a misfit where the law is off by more.
const MISFIT: f64 = 0.2;

/// The law, sum or max, with the smaller median error.
///
/// # Errors
/// Measurements that no law describes.
pub fn fit_law(points: &[Point]) -> Result<(DeviceLaw, Fit)> {
    let mut found = Vec::new();
    for combine in [Combine::Sum, Combine::Max] {
        let law = fit_combine(points, combine)?;
        let mut errors: Vec<f64> = points.iter().map(|point| error_of(&law, point).abs()).collect();
        found.push((law, quantile(&mut errors, 0.5), quantile(&mut errors, 0.9)));
    }
    found.sort_by(|a, b| (a.1 + a.2).total_cmp(&(b.1 + b.2)));
    let (law, error_median, error_p90) = found[0];
    Ok((
        law,
        Fit { error_median, error_p90, other_combine_error_median: found[1].1, sustained: false },
    ))
}

/// Predicted over measured, minus 1.
fn error_of(law: &DeviceLaw, point: &Point) -> f64 {
    let bytes = u64::from(point.reads) * u64::from(point.read_bytes);
    law.time_us(point.reads.into(), bytes) / point.batch_us_median - 1.0
}

/// Least squares of the relative error. Under *max*, each point is bound by operations or by bytes;
/// which one, and the law, are found in turns.
fn fit_combine(points: &[Point], combine: Combine) -> Result<DeviceLaw> {
    let mut law: Option<DeviceLaw> = None;
    for _ in 0..40 {
        let mut rows = Vec::with_capacity(points.len());
        for point in points {
            let bytes = u64::from(point.reads) * u64::from(point.read_bytes);
            let (reads, mib) = (f64::from(point.reads), bytes as f64 / lnp_engine::law::MIB);
            let terms = match (combine, &law) {
                (Combine::Sum, _) => [1.0, reads, mib],
                (Combine::Max, None) if point.read_bytes <= 16 << 10 => [1.0, reads, 0.0],
                (Combine::Max, None) => [1.0, 0.0, mib],
                (Combine::Max, Some(law)) if law.a_us() * reads >= law.transfer_us(bytes) => {
                    [1.0, reads, 0.0]
                }
                (Combine::Max, Some(_)) => [1.0, 0.0, mib],
            };
            rows.push(terms.map(|term| term / point.batch_us_median));
        }
        let [t0_us, a_us, us_per_mib] = least_squares(&rows, &vec![1.0; rows.len()]);
        let b_mib_s = 1e6 / us_per_mib.max(1e-3);
        let next = DeviceLaw::new(t0_us.clamp(0.0, 1e6), a_us.clamp(0.0, 1e6), b_mib_s, combine)?;
        if law == Some(next) {
            break;
        }
        law = Some(next);
    }
    law.context("nothing was measured")
}

/// Solves `rows * x = 1` in the weighted least squares with `x >= 0`, by coordinate descent: three unknowns,
/// a convex problem, a few thousand cheap steps.
pub(crate) fn least_squares(rows: &[[f64; 3]], weights: &[f64]) -> [f64; 3] {
    let weighted = || rows.iter().zip(weights);
    let dot = |i: usize, j: usize| weighted().map(|(row, w)| w * row[i] * row[j]).sum::<f64>();
    let gram = [0, 1, 2].map(|i| [0, 1, 2].map(|j| dot(i, j)));
    let target = [0, 1, 2].map(|i| weighted().map(|(row, w)| w * row[i]).sum::<f64>());
    let mut x = [0.0; 3];
    for _ in 0..20_000 {
        let mut change: f64 = 0.0;
        for i in 0..3 {
            if gram[i][i] == 0.0 {
                continue;
            }
            let rest: f64 = (0..3).filter(|j| *j != i).map(|j| gram[i][j] * x[j]).sum();
            let next = ((target[i] - rest) / gram[i][i]).max(0.0);
            change = change.max((next - x[i]).abs() / next.max(1e-9));
            x[i] = next;
        }
        if change < 1e-9 {
            break;
        }
    }
    x
}

/// The points that the law is off by more than a fifth at, the worst first.
pub fn misfits(law: &DeviceLaw, points: &[Point]) -> Vec<Misfit> {
    let mut found: Vec<Misfit> = points
        .iter()
        .map(|point| Misfit {
            read_bytes: point.read_bytes,
            reads: point.reads,
            error: error_of(law, point),
        })
        .filter(|misfit| misfit.error.abs() > MISFIT)
        .collect();
    found.sort_by(|a, b| b.error.abs().total_cmp(&a.error.abs()));
    found
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::super::batches::{BATCH_READS, READ_BYTES};
    use super::*;

    fn points_of(law: &DeviceLaw, noise: f64) -> Vec<Point> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(5);
        let mut points = Vec::new();
        for read_bytes in READ_BYTES {
            for reads in BATCH_READS {
                let bytes = u64::from(read_bytes) * u64::from(reads);
                let us = law.time_us(reads.into(), bytes)
                    * (1.0 + noise * random.random_range(-1.0..1.0));
                points.push(Point {
                    read_bytes,
                    reads,
                    batches: 1,
                    batch_us_median: us,
                    batch_us_p10: us,
                    batch_us_p90: us,
                });
            }
        }
        points
    }

    #[test]
    fn finds_the_law_that_made_the_points() {
        for combine in [Combine::Sum, Combine::Max] {
            for (t0, a, b) in [(80.0, 9.64, 2034.0), (10.0, 50.0, 950.0), (100.0, 11.0, 1500.0)] {
                let law = DeviceLaw::new(t0, a, b, combine).unwrap();
                let (found, fit) = fit_law(&points_of(&law, 0.03)).unwrap();
                assert_eq!(found.combine(), combine, "{law:?}: {found:?} {fit:?}");
                assert!((found.a_us() / a - 1.0).abs() < 0.05, "{law:?}: {found:?}");
                assert!((found.b_mib_s() / b - 1.0).abs() < 0.05, "{law:?}: {found:?}");
                assert!(fit.error_median < 0.03);
            }
        }
    }
}
