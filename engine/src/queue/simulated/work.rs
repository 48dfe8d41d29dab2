//! When the simulated device is through with what.

use super::Timing;

impl Timing {
    /// Nanoseconds of a read by itself.
    pub(super) fn own_ns(&self, bytes: u64) -> u64 {
        match self {
            Self::Law(law) => (law.work_us(1, bytes) * 1e3) as u64,
            Self::Curve(_) => self.attempt_ns(bytes),
        }
    }

    /// Nanoseconds of one attempt that brings so many bytes, where each takes its own time.
    fn attempt_ns(&self, bytes: u64) -> u64 {
        match self {
            Self::Law(_) => 0,
            Self::Curve(curve) => (curve.read_us(bytes) * 1e3) as u64,
        }
    }
}

/// The batch under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    pub(super) timing: Timing,
    /// When the device last began to work after it had nothing.
    begin_ns: u64,
    /// Reads since then.
    reads: u64,
    /// Bytes since then.
    bytes: u64,
    /// Sum of the attempts' own times since then.
    curve_ns: u64,
}

impl Batch {
    pub(super) const fn new(timing: Timing, begin_ns: u64) -> Self {
        Self { timing, begin_ns, reads: 0, bytes: 0, curve_ns: 0 }
    }

    /// When all is done that was worked on.
    pub(super) fn end_ns(&self) -> u64 {
        let since_ns = match self.timing {
            Timing::Law(law) => (law.work_us(self.reads, self.bytes) * 1e3) as u64,
            Timing::Curve(_) => self.curve_ns,
        };
        self.begin_ns.saturating_add(since_ns)
    }

    /// Works on an attempt at a read that the device has since `start_ns`.
    pub(super) fn work(&mut self, start_ns: u64, bytes: u64) {
        if start_ns > self.end_ns() {
            *self = Self::new(self.timing, start_ns);
        }
        self.reads += 1;
        self.bytes += bytes;
        self.curve_ns += self.timing.attempt_ns(bytes);
    }

    /// Nanoseconds that its end takes.
    pub(super) fn drain_ns(&self) -> u64 {
        match self.timing {
            Timing::Law(law) => (law.t0_us() * 1e3) as u64,
            Timing::Curve(curve) => (curve.t0_us() * 1e3) as u64,
        }
    }
}
