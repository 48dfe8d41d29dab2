//! Adaptive collapse: the device law, kept up to date by what the batches of reads really took.
//!
//! Heat, contention and battery states change a device by the minute; a law that was measured once
//! then merges too much or too little. [`Adapt`] watches each drained batch, fits both forms of the
//! law to the last [`ADAPT_BATCHES`], and says which law to plan with next.
//!
//! Three things make this more than a fit:
//!
//! - Plans hide the law from the fit. Under the maximum the planner balances `a * reads` and
//!   `bytes / B` by the law that it believes, and if the law is wrong on one side only, each batch
//!   still takes exactly as long as predicted. So now and then one batch is planned with another gap,
//!   larger and smaller in turn; a budget bounds what that may cost.
//! - The law handed out changes only where the decisions would: where the gap moves by more than
//!   [`ADAPT_HYSTERESIS`] and by more than chance, or the other form is clearly better.
//! - A device may change at once. Where the last batches do not fit the law that explained those
//!   before, the latter are forgotten.
//!
//! Off by default: on a device that stays as it was probed it is no better than the probed law, and on a
//! noisy disk was worse (`docs/engine.md`, "Adaptive collapse"). It is for devices that change while they
//! are read, as phones do; `.ci/ufs` changes one's limit under it and sees it follow.
//!
//! What cannot be learned: where every batch has the same bytes a read, and no hole is of a size that
//! the gaps tried would decide differently, nothing tells `a` from `B`. Nothing depends on it either,
//! until the active sets change.

mod fit;

use fit::{Batch, Model, fit, median_of};

use crate::law::{Combine, DeviceLaw};
use crate::limits::{
    ADAPT_BATCHES, ADAPT_BATCHES_MIN, ADAPT_BUDGET_MAX, ADAPT_CHANGE, ADAPT_CHANGE_AFTER,
    ADAPT_EXPLORE_EVERY, ADAPT_HYSTERESIS,
};

/// Batches between two fits, while the law still moves and once it does not.
const FIT_EVERY: [u32; 2] = [16, 32];
/// The same once the window is full: each batch adds little.
const FIT_EVERY_FULL: u32 = 64;
/// Batches between two looks at whether the device has changed.
const LOOK_EVERY: u32 = 16;
/// Gap of an exploring batch over the believed one, under the sum and under the maximum. While the law
/// still moves: far enough to leave a wrong belief within a few steps.
const EXPLORE_BY_MOVING: [f64; 2] = [3.0, 3.0];
/// At rest: under the sum the time is flat around the best gap, so a good look around is cheap; under
/// the maximum just beyond the noise.
const EXPLORE_BY_AT_REST: [f64; 2] = [2.0, 1.25];
/// What an exploring batch takes from the budget; each batch adds one.
const PRICE: [u32; 2] = [96, 24];
/// Batches between two exploring ones.
const EXPLORE_AFTER: [u32; 2] = [8, ADAPT_EXPLORE_EVERY];
/// The other form of the law must have an error this much smaller.
const BETTER: f64 = 0.8;
/// Below this mean squared error (1 %) both forms are as good as exact.
const EXACT: f64 = 1e-4;
/// Squared errors, in units of their mean, that another gap must save in all before plans follow: the
/// square of so many standard deviations.
const SURE: f64 = 3.0;
/// Errors of so many times the median one are not the usual noise.
const FAR: f64 = 4.0;
/// A fit that moves the gap by more than this factor says that the law still moves.
const MOVED: f64 = 1.15;
/// Batches in the window from which on `t0` is told apart from the rest.
const BATCHES_FOR_T0: usize = 64;
/// Batches in the window from which on the law can be at rest.
const BATCHES_AT_REST: usize = 128;

/// Keeps a device law up to date. Deterministic: the same batches, the same laws.
#[derive(Clone, Debug)]
pub struct Adapt {
    /// A ring of the last batches.
    batches: [Batch; ADAPT_BATCHES],
    count: usize,
    next: usize,
    /// The best sum and the best maximum.
    models: [Model; 2],
    /// Which of them is believed.
    believed: usize,
    /// The law handed out while nothing is explored.
    held: DeviceLaw,
    /// What the next batch is planned with.
    planned: DeviceLaw,
    since_look: u32,
    since_fit: u32,
    since_explored: u32,
    since_change: u32,
    budget: u32,
    explored: u32,
    /// 1 once the law is at rest: the index into the pairs above.
    pace: usize,
}

impl Adapt {
    /// Begins with a law: the one of the device's profile, or a guess.
    pub fn new(initial: DeviceLaw) -> Self {
        Self {
            batches: [Batch::default(); ADAPT_BATCHES],
            count: 0,
            next: 0,
            models: [Combine::Sum, Combine::Max].map(|combine| Model::of_law(&initial, combine)),
            believed: usize::from(initial.combine() == Combine::Max),
            held: initial,
            planned: initial,
            since_look: 0,
            since_fit: 0,
            since_explored: 0,
            since_change: 0,
            budget: ADAPT_BUDGET_MAX,
            explored: 0,
            pace: 0,
        }
    }

    /// The law to plan the next batch with. Mostly [`Adapt::believed`], now and then one with a
    /// larger or smaller gap. The same until the next [`Adapt::observe`].
    pub const fn law(&self) -> DeviceLaw {
        self.planned
    }

    /// The law that is believed, as of the last time that decisions changed: its gap and its form are
    /// up to date within [`ADAPT_HYSTERESIS`], its single numbers may lag behind.
    pub const fn believed(&self) -> DeviceLaw {
        self.held
    }

    /// How many batches were planned with another gap than the believed one.
    pub const fn explored(&self) -> u32 {
        self.explored
    }

    /// Takes note of a drained batch: so many reads and bytes took so many nanoseconds, `t0` included.
    /// One without reads says nothing.
    pub fn observe(&mut self, reads: u64, bytes: u64, io_ns: u64) {
        if reads == 0 || bytes == 0 {
            return;
        }
        let (reads, bytes) = (reads as f64, bytes as f64);
        self.batches[self.next] = Batch { reads, bytes, us: io_ns as f64 / 1e3 };
        self.next = (self.next + 1) % ADAPT_BATCHES;
        self.count = (self.count + 1).min(ADAPT_BATCHES);
        self.since_look += 1;
        self.since_fit += 1;
        self.since_explored += 1;
        self.since_change = self.since_change.saturating_add(1);
        self.budget = (self.budget + 1).min(ADAPT_BUDGET_MAX);
        if self.count >= ADAPT_BATCHES_MIN && self.since_look >= LOOK_EVERY {
            self.since_look = 0;
            let full = self.count == ADAPT_BATCHES && self.pace == 1;
            let wait = if full { FIT_EVERY_FULL } else { FIT_EVERY[self.pace] };
            let changed = self.forget_what_changed();
            if changed || self.since_fit >= wait {
                self.since_fit = 0;
                self.fit();
            }
        }
        self.planned = self.held;
        if self.since_explored >= EXPLORE_AFTER[self.pace] && self.budget >= PRICE[self.pace] {
            self.explore();
        }
    }

    /// Plans the next batch with another gap: larger, smaller, smaller, larger and so on, so that
    /// both sides meet each layer sooner or later, however many layers there are.
    fn explore(&mut self) {
        let by = [EXPLORE_BY_MOVING, EXPLORE_BY_AT_REST][self.pace][self.believed];
        let by = if self.explored.div_ceil(2).is_multiple_of(2) { by } else { 1.0 / by };
        let law = &self.held;
        let a_us = law.a_us() * by;
        if let Ok(law) = DeviceLaw::new(law.t0_us(), a_us, law.b_mib_s(), law.combine()) {
            self.planned = law;
        }
        self.budget -= PRICE[self.pace];
        self.since_explored = 0;
        self.explored = self.explored.wrapping_add(1);
    }

    /// Forgets all but the last batches, where too many of these do not fit what is believed: more
    /// than the few that are slow by chance. Not again for a while: on a device that no law fits,
    /// that would be always. Returns whether it did.
    fn forget_what_changed(&mut self) -> bool {
        if self.since_change < ADAPT_CHANGE_AFTER || self.count <= ADAPT_BATCHES_MIN {
            return false;
        }
        let model = &self.models[self.believed];
        let usual = median_of(&self.batches[..self.count], |batch| model.error(batch).abs());
        let limit = (usual * FAR).max(ADAPT_CHANGE);
        let mut last = [Batch::default(); ADAPT_BATCHES_MIN];
        for (age, batch) in last.iter_mut().enumerate() {
            *batch = self.batches[(self.next + ADAPT_BATCHES - 1 - age) % ADAPT_BATCHES];
        }
        let far = last.iter().filter(|batch| model.error(batch).abs() > limit).count();
        if far < ADAPT_BATCHES_MIN / 4 {
            return false;
        }
        self.batches[..ADAPT_BATCHES_MIN].copy_from_slice(&last);
        (self.count, self.next, self.since_change) = (ADAPT_BATCHES_MIN, ADAPT_BATCHES_MIN, 0);
        true
    }

    /// Fits both forms, believes the better one, and hands it out if decisions change.
    fn fit(&mut self) {
        let batches = &self.batches[..self.count];
        let before = self.models[self.believed].gap_bytes;
        let mut scores = [0.0; 2];
        for (model, score) in self.models.iter_mut().zip(&mut scores) {
            (*model, *score) = fit(batches, *model, self.count >= BATCHES_FOR_T0);
        }
        let other = 1 - self.believed;
        let switches = scores[other] + EXACT < (scores[self.believed] + EXACT) * BETTER;
        if switches {
            self.believed = other;
        }
        let (model, score) = (self.models[self.believed], scores[self.believed]);
        let moved = switches || !near(model.gap_bytes, before, MOVED);
        self.pace = usize::from(!moved && self.count >= BATCHES_AT_REST);
        let held_bytes = Model::of_law(&self.held, model.combine).gap_bytes;
        let decides = !near(model.gap_bytes, held_bytes, 1.0 + ADAPT_HYSTERESIS[self.believed])
            && surely(score, model.held_to(held_bytes, batches), self.count);
        if (decides || self.held.combine() != model.combine)
            && let Some(law) = model.law()
        {
            self.held = law;
        }
    }
}

/// Whether a fit with this mean squared error is better than another one by more than chance.
fn surely(score: f64, than: f64, batches: usize) -> bool {
    (than - score) * batches as f64 > (score + 1e-9) * SURE
}

/// Whether two positive numbers differ by no more than a factor.
fn near(a: f64, b: f64, factor: f64) -> bool {
    a <= b * factor && b <= a * factor
}
