//! When reading a layer ahead pays, and by which prediction.
//!
//! Without it a layer takes, from the moment that it is known which bundles it needs, by the device law
//! `w(reads, bytes) = combine(a * reads, bytes / B)`:
//!
//! ```text
//! t = t0 + w(R, V)                                    R reads of V bytes for D bundles
//! ```
//!
//! A prediction names `p` bundles for each that is needed, among them the share `c` (recall) of these. Of its reads as
//! many are under way when the layer is begun as the queue takes, the share `f = min(1, most / R(p))`. The device
//! works on them while it has nothing else to do, `idle` long; the rest is waited for, and what is missing is read by
//! itself:
//!
//! ```text
//! ahead  = w(f R(p), f V(p))
//! missed = w(f R(1 - c) + (1 - f) R, f V(1 - c) + (1 - f) V)
//! t'     = predict + max(0, ahead - idle) + t0 + missed
//! ```
//!
//! `R(s)` and `V(s)` are the reads and the bytes of the share `s` of the set. In the whole of it a bundle continues the
//! read of the one before with probability `1 - R / D`; where only the share `s` is read, the one before is there with
//! probability `s`: `R(s) = s D - s^2 (D - R)`, the more and shorter reads of a set that is read in two parts. A read
//! of a single bundle brings its blocks: `V(s) = s (V + (1 - s) max(0, D alone - V))`. Above the whole set both grow
//! in proportion.

use crate::law::DeviceLaw;
use crate::limits::AHEAD_GAIN_MIN;

/// What a layer reads for a token without reading ahead, means.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Bundles that are read: those that are needed and not cached.
    pub bundles: f64,
    /// Reads that they take.
    pub reads: f64,
    /// Bytes of these, holes and rounding included.
    pub bytes: f64,
    /// Bytes of the read of a single bundle.
    pub alone_bytes: f64,
}

impl Demand {
    /// Reads and bytes of so much of the set.
    fn share(&self, share: f64) -> (f64, f64) {
        if share >= 1.0 {
            return (share * self.reads, share * self.bytes);
        }
        let joined = (self.bundles - self.reads).max(0.0);
        let alone = (self.bundles * self.alone_bytes - self.bytes).max(0.0);
        let reads = share * (self.reads + (1.0 - share) * joined);
        (reads, share * (self.bytes + (1.0 - share) * alone))
    }

    /// Microseconds that the layer takes without reading ahead; 0 where it reads nothing.
    pub fn time_us(&self, law: &DeviceLaw) -> f64 {
        if self.reads <= 0.0 {
            return 0.0;
        }
        law.t0_us() + law.work_mean_us(self.reads, self.bytes)
    }
}

/// A prediction of a layer, at an operating point.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Guess {
    /// Share of the bundles needed that it names.
    pub recall: f64,
    /// Bundles that it names for each that is needed.
    pub reads_per_active: f64,
    /// Microseconds in which the device has nothing else to do, from when the prediction is there to when the layer is
    /// begun.
    pub idle_us: f64,
    /// Microseconds that making it holds up the thread that reads.
    pub predict_us: f64,
    /// Most reads of it that can be under way when the layer is begun
    /// ([`crate::queue::Feeder::Prefetched`]).
    pub reads_max: f64,
}

impl Guess {
    /// The same of what is missing alone, where the share `hit_rate` of what is needed is cached: what is cached counts as
    /// predicted, which leaves the misses of the prediction to the rest.
    pub fn of_missing(self, hit_rate: f64) -> Self {
        let missing = (1.0 - hit_rate).max(1e-6);
        let of_missing = |share: f64| ((share - hit_rate) / missing).max(0.0);
        let in_vain = (self.reads_per_active - self.recall).max(0.0);
        let recall = of_missing(self.recall);
        Self { recall, reads_per_active: recall + in_vain, ..self }
    }
}

/// What reading ahead by a [`Guess`] comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Forecast {
    /// Which of the guesses.
    pub guess: usize,
    /// Microseconds that the layer holds up the token, in place of [`Demand::time_us`].
    pub time_us: f64,
    /// Microseconds of the device's idle time that are put to use.
    pub used_us: f64,
}

/// What reading ahead by a guess comes to.
pub fn forecast(law: &DeviceLaw, demand: &Demand, guess: &Guess) -> Forecast {
    let (reads, bytes) = demand.share(guess.reads_per_active.max(0.0));
    let under_way = if reads > guess.reads_max { guess.reads_max.max(0.0) / reads } else { 1.0 };
    let ahead_us = law.work_mean_us(under_way * reads, under_way * bytes);
    let used_us = ahead_us.min(guess.idle_us.max(0.0));
    let missing = demand.share(1.0 - guess.recall.clamp(0.0, 1.0));
    let rest = |missing: f64, whole: f64| under_way * missing + (1.0 - under_way) * whole;
    let rest = Demand {
        reads: rest(missing.0, demand.reads),
        bytes: rest(missing.1, demand.bytes),
        ..*demand
    };
    let time_us = guess.predict_us.max(0.0) + (ahead_us - used_us) + rest.time_us(law);
    Forecast { guess: 0, time_us, used_us }
}

/// The guess by which a layer is best read ahead: none, unless one saves at least the share [`AHEAD_GAIN_MIN`] of the
/// time that the layer takes without.
pub fn choose(law: &DeviceLaw, demand: &Demand, guesses: &[Guess]) -> Option<Forecast> {
    let mut best = None;
    let mut least_us = demand.time_us(law) * (1.0 - AHEAD_GAIN_MIN);
    for (number, guess) in guesses.iter().enumerate() {
        let found = forecast(law, demand, guess);
        // Of equal ones the first; what is not a number is not less.
        if found.time_us < least_us * (1.0 - 1e-9) {
            least_us = found.time_us;
            best = Some(Forecast { guess: number, ..found });
        }
    }
    best
}

/// Takes idle time that is put to use from that before each layer, the latest first: it serves once.
pub fn use_idle(idle_us: &mut [f64], used_us: f64) {
    let mut used_us = used_us;
    for left_us in idle_us.iter_mut().rev() {
        let taken_us = used_us.min(*left_us).max(0.0);
        (*left_us, used_us) = (*left_us - taken_us, used_us - taken_us);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "ahead_tests.rs"]
mod tests;
