//! Which law explains a window of batches best.
//!
//! Both forms of the law are `t = t0 + c * size`, where `c` is microseconds a byte (1 / B), and the
//! size of a batch, in bytes, counts a read as `g = a * B` bytes: `g * reads + bytes` under the sum,
//! `max(g * reads, bytes)` under the maximum. For given `t0` and `g` the best `c` is found directly,
//! so a search over these two is enough. It goes by the error of the prediction itself, cut off for
//! outliers, not by least squares on a linearised law: under the maximum only one side of a batch is
//! seen, and which one changes with the law that is tried.

use crate::law::{Combine, DeviceLaw, MIB};
use crate::limits::ADAPT_BATCHES;

/// A relative error is counted no higher: one batch that took 20 times as long as it should counts
/// like one that took a quarter longer.
const ERROR_MAX: f64 = 0.25;
/// A step has to lower the mean squared error by this share and by this much, or else what nobody
/// has measured would drift with the noise.
const GAIN_SHARE: f64 = 0.002;
const GAIN: f64 = 1e-7;
/// Steps of the search, coarse to fine: factors of `g`, and shares of the median time for `t0`.
const STEPS: [(f64, f64); 6] =
    [(4.0, 0.2), (2.0, 0.1), (1.4, 0.05), (1.18, 0.025), (1.08, 0.0125), (1.03, 0.006)];
/// What [`DeviceLaw::new`] takes for a bandwidth, the other way round.
const US_PER_BYTE: (f64, f64) = (1e-9, 900.0);
/// Rounds a step.
const ROUNDS_MAX: usize = 3;

/// One drained batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Batch {
    /// Reads.
    pub(super) reads: f64,
    /// Bytes.
    pub(super) bytes: f64,
    /// Microseconds.
    pub(super) us: f64,
}

/// A law in the form that is fitted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Model {
    pub(super) combine: Combine,
    /// Microseconds a batch.
    t0_us: f64,
    /// Break-even gap or balance, bytes a read.
    pub(super) gap_bytes: f64,
    /// Microseconds a byte.
    us_per_byte: f64,
}

impl Model {
    /// The model of a law, for either form.
    pub(super) fn of_law(law: &DeviceLaw, combine: Combine) -> Self {
        let us_per_byte = 1e6 / (law.b_mib_s() * MIB);
        Self {
            combine,
            t0_us: law.t0_us(),
            gap_bytes: (law.a_us() / us_per_byte).clamp(1.0, 1e12),
            us_per_byte,
        }
    }

    /// The law, where its numbers are those of a device.
    pub(super) fn law(&self) -> Option<DeviceLaw> {
        let (a_us, b_mib_s) = (self.gap_bytes * self.us_per_byte, 1e6 / (self.us_per_byte * MIB));
        DeviceLaw::new(self.t0_us, a_us, b_mib_s, self.combine).ok()
    }

    fn size(&self, batch: &Batch) -> f64 {
        let operations = self.gap_bytes * batch.reads;
        match self.combine {
            Combine::Sum => operations + batch.bytes,
            Combine::Max => operations.max(batch.bytes),
        }
    }

    /// How much longer a batch took than it should have, as a share.
    pub(super) fn error(&self, batch: &Batch) -> f64 {
        batch.us / (self.t0_us + self.us_per_byte * self.size(batch)).max(1e-6) - 1.0
    }

    /// The score of the best model with another gap.
    pub(super) fn held_to(&self, gap_bytes: f64, batches: &[Batch]) -> f64 {
        let usual_us = median_of(batches, |batch| batch.us).min(60e6);
        let shares = STEPS.iter().map(|step| step.1);
        let t0s =
            shares.flat_map(|share| [self.t0_us + usual_us * share, self.t0_us - usual_us * share]);
        t0s.chain([self.t0_us])
            .map(|t0_us| {
                let t0_us = t0_us.clamp(0.0, usual_us * 0.9);
                Self { t0_us, gap_bytes, ..*self }.with_best_rate(batches).score(batches)
            })
            .fold(f64::INFINITY, f64::min)
    }

    /// Mean squared error, each cut off.
    fn score(&self, batches: &[Batch]) -> f64 {
        let squares = batches.iter().map(|batch| {
            let error = self.error(batch).clamp(-ERROR_MAX, ERROR_MAX);
            error * error
        });
        squares.sum::<f64>() / batches.len().max(1) as f64
    }

    /// The same law with the best microseconds a byte: the mean of what the single batches say, each
    /// drawn close to their median.
    fn with_best_rate(mut self, batches: &[Batch]) -> Self {
        let rate = |batch: &Batch| (batch.us - self.t0_us) / self.size(batch).max(1.0);
        let middle = median_of(batches, rate);
        let (low, high) = (middle * (1.0 - ERROR_MAX), middle * (1.0 + ERROR_MAX));
        let near = batches.iter().map(|batch| rate(batch).max(low).min(high));
        let mean = near.sum::<f64>() / batches.len().max(1) as f64;
        self.us_per_byte = mean.clamp(US_PER_BYTE.0, US_PER_BYTE.1);
        self
    }
}

/// The upper median of what `of` says of each batch; 0 of none.
pub(super) fn median_of(batches: &[Batch], of: impl Fn(&Batch) -> f64) -> f64 {
    let mut values = [0.0; ADAPT_BATCHES];
    let values = &mut values[..batches.len().min(ADAPT_BATCHES)];
    for (value, batch) in values.iter_mut().zip(batches) {
        *value = of(batch);
    }
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// Whether a score is so much lower that a step is worth it.
fn gains(score: f64, than: f64) -> bool {
    score < than * (1.0 - GAIN_SHARE) - GAIN
}

/// The model that explains the batches best, from another one in steps; and its score.
pub(super) fn fit(batches: &[Batch], start: Model, with_t0: bool) -> (Model, f64) {
    let usual_us = median_of(batches, |batch| batch.us).min(60e6);
    let usual_bytes = median_of(batches, |batch| batch.bytes / batch.reads.max(1.0));
    let at = |t0_us: f64, gap_bytes: f64| {
        let t0_us = t0_us.clamp(0.0, usual_us * 0.9);
        let gap_bytes = gap_bytes.clamp(1.0, 1e12);
        let model = Model { t0_us, gap_bytes, ..start }.with_best_rate(batches);
        (model, model.score(batches))
    };
    let mut best = at(start.t0_us, start.gap_bytes);
    // From far below or above the bytes of all reads no step makes a difference under the maximum.
    let middle = at(start.t0_us, usual_bytes);
    if gains(middle.1, best.1) {
        best = middle;
    }
    for (factor, share) in STEPS {
        for _ in 0..ROUNDS_MAX {
            let (t0_us, gap_bytes) = (best.0.t0_us, best.0.gap_bytes);
            let mut next = best;
            let step_us = if with_t0 { usual_us * share } else { 0.0 };
            for (t0_us, gap_bytes) in [
                (t0_us, gap_bytes * factor),
                (t0_us, gap_bytes / factor),
                (t0_us + step_us, gap_bytes),
                (t0_us - step_us, gap_bytes),
            ] {
                let found = at(t0_us, gap_bytes);
                if found.1 < next.1 {
                    next = found;
                }
            }
            if !gains(next.1, best.1) {
                break;
            }
            best = next;
        }
    }
    best
}
