//! A measured curve: what one read costs, by its size.
//!
//! Kept for comparison (`replay --curve`) and for who finds that a device's times are not a line: planning
//! by it is not the default and was not measured to win. A law is two numbers, has the *max* form, and can
//! be fitted to a device that is held back; a curve is of bursts (`docs/measuring.md`, "The curve").

use core::fmt;

use super::{Combine, DeviceLaw, MIB};
use crate::limits::CURVE_POINTS_MAX;

/// What one read of a size costs at the queue depth, where the two parameters of a law do not say it
/// well enough. A batch costs `t = t0 + sum of T(size)`.
///
/// Between the points `T` is linear, beyond the last it goes on with the last slope, and below the
/// first it is the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Curve {
    t0_us: f64,
    /// The first `count` are the points, the rest zeros.
    points: [(u32, f64); CURVE_POINTS_MAX],
    count: usize,
}

/// Points that are no curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurveError {
    /// The first point that breaks the rule, from 0; 0 where all of it does.
    pub point: usize,
    /// The rule.
    pub rule: &'static str,
}

impl fmt::Display for CurveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device curve: point {} breaks the rule: {}", self.point, self.rule)
    }
}

impl core::error::Error for CurveError {}

impl Curve {
    /// A curve: `t0_us` microseconds a batch, and points (bytes, microseconds a read).
    ///
    /// # Errors
    /// [`CurveError`] unless there are 2 to [`CURVE_POINTS_MAX`] points, their sizes ascend, their
    /// times do not fall (a longer read is never the cheaper one; a measured table that says so is
    /// noise, to be levelled by who measured), and all times are 0 to 60,000,000.
    pub fn new(t0_us: f64, points: &[(u32, f64)]) -> Result<Self, CurveError> {
        let refuse = |point, rule| Err(CurveError { point, rule });
        let sane = |us: f64| (0.0..=60e6).contains(&us);
        if !sane(t0_us) {
            return refuse(0, "t0_us must be 0 to 60,000,000");
        }
        if !(2..=CURVE_POINTS_MAX).contains(&points.len()) {
            return refuse(0, "there must be 2 to 16 points");
        }
        let mut curve = Self { t0_us, points: [(0, 0.0); CURVE_POINTS_MAX], count: points.len() };
        for (at, point) in points.iter().enumerate() {
            if !sane(point.1) {
                return refuse(at, "a time must be 0 to 60,000,000 us");
            }
            let before = at.checked_sub(1).map(|before| points[before]);
            if before.is_some_and(|before| before.0 >= point.0) {
                return refuse(at, "sizes must ascend");
            }
            if before.is_some_and(|before| before.1 > point.1) {
                return refuse(at, "times must not fall");
            }
            curve.points[at] = *point;
        }
        Ok(curve)
    }

    /// The curve of a law: `T(size) = a + size / B`. None under [`Combine::Max`], where the cost of a
    /// batch is no sum over its reads, and where a MiB takes more than a curve may say.
    pub fn of_law(law: &DeviceLaw) -> Option<Self> {
        if law.combine() == Combine::Max {
            return None;
        }
        let points = [(0, law.a_us()), (MIB as u32, law.a_us() + law.transfer_us(MIB as u64))];
        Self::new(law.t0_us(), &points).ok()
    }

    /// Microseconds that draining the queue at the end of a batch costs.
    pub const fn t0_us(&self) -> f64 {
        self.t0_us
    }

    /// The points: bytes, microseconds.
    pub fn points(&self) -> &[(u32, f64)] {
        &self.points[..self.count]
    }

    /// Microseconds that one read of so many bytes takes.
    pub fn read_us(&self, bytes: u64) -> f64 {
        let points = self.points();
        let right = points.partition_point(|point| u64::from(point.0) <= bytes);
        let Some(left) = right.checked_sub(1) else { return points[0].1 };
        let left = left.min(points.len() - 2);
        points[left].1 + self.slope(left) * (bytes - u64::from(points[left].0)) as f64
    }

    /// Microseconds for a batch of reads of these sizes; 0 for an empty one.
    pub fn time_us(&self, sizes: impl Iterator<Item = u64>) -> f64 {
        let (reads, us) =
            sizes.fold((0, 0.0), |sum, bytes| (sum.0 + 1, sum.1 + self.read_us(bytes)));
        if reads == 0 { 0.0 } else { self.t0_us + us }
    }

    /// Microseconds a byte between a point and the next.
    fn slope(&self, left: usize) -> f64 {
        let (left, right) = (self.points[left], self.points[left + 1]);
        (right.1 - left.1) / f64::from(right.0 - left.0)
    }

    /// Holes of so many bytes and more are never worth reading through, among reads of `shortest` to
    /// `longest` bytes.
    ///
    /// With s the least slope there and D the largest `T(x) - s * x`, reads of L1 and L2 bytes and a
    /// hole h: `T(L1 + h + L2) >= T(L1) + s * (h + L2)` and `T(L2) <= s * L2 + D`, so that one read
    /// costs at least the two where `h >= D / s`. For the curve of a law this is `a * B`.
    pub(crate) fn useless_hole_bytes(&self, shortest: u32, longest: u32) -> u64 {
        let points = self.points();
        let mut slope = if shortest < points[0].0 { 0.0 } else { f64::INFINITY };
        for left in 0..points.len() - 1 {
            let last = left + 2 == points.len();
            if points[left].0 <= longest && (last || points[left + 1].0 > shortest) {
                slope = slope.min(self.slope(left));
            }
        }
        let inside = points.iter().map(|point| point.0);
        let inside = inside.filter(|bytes| (shortest..=longest).contains(bytes));
        let corners = inside.chain([shortest, longest]);
        let above = |bytes: u32| self.read_us(bytes.into()) - slope * f64::from(bytes);
        let most = corners.map(above).fold(0.0, f64::max);
        // Not a number, where nothing is known, and infinity both say: any hole may be worth it.
        let bytes = most / slope;
        if slope > 0.0 && bytes < 1e18 { bytes as u64 + 1 } else { u64::MAX }
    }
}
