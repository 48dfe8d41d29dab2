//! A law that a busy moment has no part in: where something else had the cores or the device meanwhile,
//! it is measured again until two measurements agree, or there is none.

use anyhow::{Context, Result, bail};
use lnp_common::report::quantile;
use lnp_engine::DeviceLaw;

use super::Probed;
use crate::profile::Point;

/// Most measurements.
pub const TRIES_MAX: usize = 4;
/// Two laws agree where they say the same of nine kinds of batches in ten, within this.
const AGREED: f64 = 0.15;
/// Waiting for a core disturbs from such a share of the time on.
pub(super) const WAITED_BUSY: f64 = 0.02;
/// Others disturb from such a share of the bytes that are measured on.
const OTHERS_BUSY: f64 = 0.05;

/// What went on beside a measurement, as far as the kernel tells.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Beside {
    /// Share of the time that the reading thread was ready and had no core.
    pub(super) waited: Option<f64>,
    /// Bytes that others read from the device and wrote to it, over those of the measurement.
    pub(super) others: Option<f64>,
}

impl Beside {
    /// How busy it was: 1 is as much as disturbs.
    fn degree(&self) -> f64 {
        let [waited, others] = [self.waited, self.others].map(|share| share.unwrap_or(0.0));
        (waited / WAITED_BUSY).max(others / OTHERS_BUSY)
    }

    fn told(&self) -> String {
        let percent = |share: Option<f64>| 100.0 * share.unwrap_or(0.0);
        format!(
            "{:.0} % of the time without a core, others moved {:.0} % as much on the device",
            percent(self.waited),
            percent(self.others)
        )
    }
}

/// The law that was settled on.
pub(super) struct Settled {
    pub(super) probed: Probed,
    /// What makes it doubtful.
    pub(super) warning: Option<String>,
    /// Measurements that were made.
    pub(super) tries: usize,
}

/// Measures until one is quiet or two agree, at most `tries_max` times; with one try, whatever comes of
/// it. `stopped` says that somebody ended it: then the quietest so far is taken.
///
/// # Errors
/// Those of `measure`; or all measurements were disturbed and no two agree.
pub(super) fn settle(
    tries_max: usize,
    measure: &mut dyn FnMut() -> Result<(Probed, Beside)>,
    stopped: &dyn Fn() -> bool,
) -> Result<Settled> {
    let mut found: Vec<(Probed, Beside)> = Vec::new();
    loop {
        let tries = found.len() + 1;
        let (probed, beside) = match measure() {
            Ok(one) => one,
            // Stopped before this one had anything: the ones before have.
            Err(_) if stopped() && !found.is_empty() => return quietest(found, tries - 1, None),
            Err(error) => return Err(error),
        };
        if beside.degree() < 1.0 {
            let warning = (tries > 1).then(|| {
                format!("a busy machine: the law is of measurement {tries}, the first in peace")
            });
            return Ok(Settled { probed, warning, tries });
        }
        let same = found.iter().position(|(other, _)| agree(&probed, other));
        found.push((probed, beside));
        if stopped() || tries_max == 1 {
            return quietest(found, tries, None);
        }
        if let Some(same) = same {
            let warning = format!(
                "a busy machine ({}): two of {tries} measurements of the law agree, it is the quieter one",
                beside.told()
            );
            let two =
                found.into_iter().enumerate().filter(|(at, _)| [same, tries - 1].contains(at));
            return quietest(two.map(|(_, one)| one).collect(), tries, Some(warning));
        }
        if tries == tries_max {
            bail!(
                "a busy machine ({}): no two of {tries} measurements of the law agree, so there is none: \
                 measure when others are at rest, or take the first one, right or wrong, with --once",
                beside.told()
            );
        }
    }
}

/// The one that was disturbed least.
fn quietest(
    found: Vec<(Probed, Beside)>,
    tries: usize,
    warning: Option<String>,
) -> Result<Settled> {
    let least = found.into_iter().min_by(|one, other| one.1.degree().total_cmp(&other.1.degree()));
    let (probed, _) = least.context("nothing was measured")?;
    Ok(Settled { probed, warning, tries })
}

/// Whether two measurements say the same of the kinds of batches, and of whether the device is held back.
fn agree(one: &Probed, other: &Probed) -> bool {
    one.fit.sustained == other.fit.sustained && difference(one, &other.law) <= AGREED
}

/// How far a law is off from that of a measurement for nine of ten of its kinds of batches.
fn difference(one: &Probed, law: &DeviceLaw) -> f64 {
    let off = |point: &Point| {
        let (reads, bytes) =
            (u64::from(point.reads), u64::from(point.reads) * u64::from(point.read_bytes));
        (law.time_us(reads, bytes) / one.law.time_us(reads, bytes)).ln().abs().exp_m1()
    };
    quantile(&mut one.points.iter().map(off).collect::<Vec<_>>(), 0.9)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use lnp_engine::Combine;

    use super::*;
    use crate::profile::Fit;

    fn law(a_us: f64) -> DeviceLaw {
        DeviceLaw::new(40.0, a_us, 2000.0, Combine::Sum).unwrap()
    }

    fn probed(a_us: f64, sustained: bool) -> Probed {
        let point = |(read_bytes, reads): (u32, u32)| Point {
            read_bytes,
            reads,
            batches: 1,
            batch_us_median: 1.0,
            batch_us_p10: 1.0,
            batch_us_p90: 1.0,
        };
        Probed {
            law: law(a_us),
            fit: Fit {
                error_median: 0.0,
                error_p90: 0.0,
                other_combine_error_median: 0.0,
                sustained,
            },
            points: [(4096, 8), (4096, 64), (16384, 64), (65536, 64)].map(point).into(),
            sustained: Vec::new(),
            file_bytes: 0,
            back_end: String::new(),
            direct: true,
            seconds: 0.0,
        }
    }

    fn beside(waited: f64) -> Beside {
        Beside { waited: Some(waited), others: None }
    }

    /// Settles on measurements that are these laws' `a`, each with what went on beside it.
    fn of(all: &[(f64, Beside)], tries_max: usize) -> Result<(f64, Settled)> {
        let mut next = all.iter();
        let mut measure = || {
            let (a_us, beside) = next.next().expect("measured too often");
            Ok((probed(*a_us, false), *beside))
        };
        let settled = settle(tries_max, &mut measure, &|| false)?;
        Ok((settled.probed.law.a_us(), settled))
    }

    #[test]
    fn a_quiet_measurement_is_enough() {
        let (a_us, settled) = of(&[(10.0, beside(0.01))], TRIES_MAX).unwrap();
        assert_eq!((a_us, settled.tries, settled.warning), (10.0, 1, None));
        let (a_us, settled) = of(&[(10.0, Beside::default())], TRIES_MAX).unwrap();
        assert_eq!((a_us, settled.tries), (10.0, 1), "where the kernel tells nothing");
    }

    #[test]
    fn a_busy_one_is_measured_again() {
        // The moment has passed.
        let (a_us, settled) = of(&[(14.0, beside(0.3)), (10.0, beside(0.0))], TRIES_MAX).unwrap();
        assert_eq!((a_us, settled.tries), (10.0, 2));
        assert!(settled.warning.unwrap().contains("measurement 2"));
        // It has not, but two agree: the quieter of these.
        let busy = [(14.0, beside(0.1)), (10.0, beside(0.3)), (10.5, beside(0.2))];
        let (a_us, settled) = of(&busy, TRIES_MAX).unwrap();
        assert_eq!((a_us, settled.tries), (10.5, 3));
        assert!(settled.warning.unwrap().contains("two of 3 measurements of the law agree"));
        let busy = [(14.0, beside(0.3)), (20.0, beside(0.1)), (14.5, beside(0.4))];
        assert_eq!(of(&busy, TRIES_MAX).unwrap().0, 14.0);
        // Others on the device disturb as much.
        let others = Beside { waited: Some(0.0), others: Some(0.5) };
        assert_eq!(of(&[(14.0, others), (10.0, beside(0.0))], TRIES_MAX).unwrap().0, 10.0);
    }

    #[test]
    fn measurements_that_do_not_agree_are_no_law() {
        let busy = [10.0, 14.0, 20.0, 30.0].map(|a_us| (a_us, beside(0.3)));
        let error = of(&busy, TRIES_MAX).err().unwrap().to_string();
        assert!(error.contains("no two of 4 measurements") && error.contains("30 %"), "{error}");
        assert!(error.contains("--once") && !error.contains('\n'), "{error}");
        // Once is once.
        let (a_us, settled) = of(&busy, 1).unwrap();
        assert_eq!((a_us, settled.tries, settled.warning), (10.0, 1, None));
    }

    #[test]
    fn held_back_and_free_do_not_agree() {
        assert!(agree(&probed(10.0, false), &probed(10.5, false)));
        assert!(!agree(&probed(10.0, false), &probed(10.0, true)));
        assert!(!agree(&probed(10.0, false), &probed(14.0, false)));
        assert!(!agree(&probed(14.0, false), &probed(10.0, false)));
    }

    #[test]
    fn who_stops_it_gets_the_quietest_so_far() {
        let tries = Cell::new(0);
        let mut measure = || {
            tries.set(tries.get() + 1);
            match tries.get() {
                1 => Ok((probed(14.0, false), beside(0.1))),
                2 => Ok((probed(20.0, false), beside(0.3))),
                _ => bail!("there was no time to measure anything"),
            }
        };
        let settled = settle(TRIES_MAX, &mut measure, &|| tries.get() == 3).unwrap();
        assert_eq!((settled.probed.law.a_us(), settled.tries), (14.0, 2));
        let mut nothing = || bail!("there was no time to measure anything");
        assert!(settle(TRIES_MAX, &mut nothing, &|| true).is_err());
    }
}
