//! The device law: what a batch of reads costs.
//!
//! For the reads of one layer, drained at the end:
//!
//! ```text
//! t = t0 + combine(a * reads, bytes / B)
//! ```
//!
//! Where two parameters do not say it well enough there is a measured [`Curve`].
//!
//! Planner, linker, simulator, replay and reports all take it from here. `combine` is the sum on
//! UFS as published, the maximum on devices that are throttled or deeply pipelined.

mod curve;

use core::fmt;

pub use curve::{Curve, CurveError};

/// Bytes of a MiB.
pub const MIB: f64 = 1_048_576.0;

/// How the cost of operations and the cost of bytes come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// They add up.
    Sum,
    /// The larger one rules.
    Max,
}

impl Combine {
    /// Its name in profiles, options and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Max => "max",
        }
    }

    /// The inverse of [`Self::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "sum" => Some(Self::Sum),
            "max" => Some(Self::Max),
            _ => None,
        }
    }
}

/// The law of one device at one queue depth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceLaw {
    t0_us: f64,
    a_us: f64,
    b_mib_s: f64,
    combine: Combine,
}

/// A number that no device has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LawError {
    /// The parameter: `t0_us`, `a_us` or `b_mib_s`.
    pub parameter: &'static str,
    /// Its rule.
    pub rule: &'static str,
    /// Its value.
    pub found: f64,
}

impl fmt::Display for LawError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device law: {} is {}, {}", self.parameter, self.found, self.rule)
    }
}

impl core::error::Error for LawError {}

impl DeviceLaw {
    /// A law: `t0_us` microseconds a batch, `a_us` microseconds a read, `b_mib_s` MiB/s.
    ///
    /// # Errors
    /// [`LawError`] where a time is negative or above a minute, or the bandwidth below 0.001 or above
    /// 2^30 MiB/s, or one is not a number.
    pub fn new(t0_us: f64, a_us: f64, b_mib_s: f64, combine: Combine) -> Result<Self, LawError> {
        for (parameter, found) in [("t0_us", t0_us), ("a_us", a_us)] {
            if !(0.0..=60e6).contains(&found) {
                return Err(LawError { parameter, rule: "must be 0 to 60,000,000", found });
            }
        }
        if !(0.001..=1_073_741_824.0).contains(&b_mib_s) {
            let rule = "must be 0.001 to 2^30";
            return Err(LawError { parameter: "b_mib_s", rule, found: b_mib_s });
        }
        Ok(Self { t0_us, a_us, b_mib_s, combine })
    }

    /// Microseconds that draining the queue at the end of a batch costs.
    pub const fn t0_us(&self) -> f64 {
        self.t0_us
    }
    /// Microseconds per read.
    pub const fn a_us(&self) -> f64 {
        self.a_us
    }
    /// Bandwidth of long reads, MiB/s.
    pub const fn b_mib_s(&self) -> f64 {
        self.b_mib_s
    }
    /// How the two come together.
    pub const fn combine(&self) -> Combine {
        self.combine
    }

    /// Microseconds for a batch; 0 for an empty one.
    pub fn time_us(&self, reads: u64, bytes: u64) -> f64 {
        if reads == 0 {
            return 0.0;
        }
        self.t0_us + self.work_us(reads, bytes)
    }

    /// The same without `t0`.
    pub fn work_us(&self, reads: u64, bytes: u64) -> f64 {
        self.work_mean_us(reads as f64, bytes as f64)
    }

    /// The same where reads and bytes are means, or expected.
    pub(crate) fn work_mean_us(&self, reads: f64, bytes: f64) -> f64 {
        let operations = self.a_us * reads;
        let transfer = bytes / (self.b_mib_s * MIB) * 1e6;
        match self.combine {
            Combine::Sum => operations + transfer,
            Combine::Max => operations.max(transfer),
        }
    }

    /// Microseconds that so many bytes take at full bandwidth: the bound for any plan.
    pub fn transfer_us(&self, bytes: u64) -> f64 {
        bytes as f64 / (self.b_mib_s * MIB) * 1e6
    }

    /// The break-even gap `g* = a * B`, bytes: under [`Combine::Sum`], a hole is worth reading
    /// through exactly when it is smaller. Rounded up, which changes no comparison with whole bytes.
    pub fn gap_bytes(&self) -> u64 {
        let gap = self.gap_exact_bytes();
        let whole = gap as u64;
        whole + u64::from((whole as f64) < gap)
    }

    /// The same before rounding.
    pub(crate) fn gap_exact_bytes(&self) -> f64 {
        self.a_us / 1e6 * self.b_mib_s * MIB
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_published_phone_breaks_even_at_16_to_20_kib() {
        let law = DeviceLaw::new(0.0, 9.64, 2034.0, Combine::Sum).unwrap();
        assert!((16 * 1024..=20 * 1024 + 512).contains(&law.gap_bytes()), "{}", law.gap_bytes());
        // one read of 4 KiB: 9.64 us and 4096 / (2034 MiB/s) = 1.92 us
        assert!((law.time_us(1, 4096) - 11.56).abs() < 0.01);
        assert!((law.time_us(100, 0) - 964.0).abs() < 1e-9);
        assert_eq!(law.time_us(0, 0), 0.0);
    }

    #[test]
    fn the_larger_one_rules_under_max() {
        let law = DeviceLaw::new(5.0, 50.0, 1000.0, Combine::Max).unwrap();
        assert!((law.time_us(10, 4096) - 505.0).abs() < 1e-9);
        assert!((law.time_us(1, 1_048_576) - 1005.0).abs() < 1e-9);
    }

    #[test]
    fn impossible_laws_are_refused() {
        for (t0, a, b) in [
            (-1.0, 1.0, 1.0),
            (f64::NAN, 1.0, 1.0),
            (0.0, f64::INFINITY, 1.0),
            (0.0, 1.0, 0.0),
            (0.0, 1.0, f64::NAN),
        ] {
            assert!(DeviceLaw::new(t0, a, b, Combine::Sum).is_err());
        }
    }
}
