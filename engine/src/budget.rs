//! Which of the bundles that a layer misses are not worth their device time: a decision that costs accuracy, and is never
//! taken unless asked for.
//!
//! Each bundle has a *strength* `s`: the neuron's coefficient times the norm of its down column, or a prediction of it.
//! What is lost is measured in squares, as a share of all active bundles of the layer, cached ones (`others`) included:
//!
//! ```text
//! lost = sum of s^2 over what is left out / (others + sum of s^2)
//! ```
//!
//! What is saved is device time. With `g* = a * B` bytes a read ([`DeviceLaw::gap_bytes`]) a set costs
//!
//! ```text
//! bytes(set) = least, over all partitions of it into extents, of the sum of g* + bytes of the extent    (time = t0 + that / B)
//! ```
//!
//! A bundle inside an extent that is read anyway is free; one that stands alone costs `g*` and its blocks. So what is left
//! out are whole extents, and the ends of extents. For a price of strength the best choice is exact, by a dynamic
//! programme over the slots: up to a slot, either it is left out and paid for, or an extent ends with it, from the best of
//! its beginnings (a sliding window, as the planner has it). O(n) for n bundles.
//!
//! [`at_price`] is that for one price. [`within`] looks for the price at which no more than a share is lost: the choice is
//! the cheapest of all that lose no more *than it does*, which may be less than was allowed. [`Pace`] keeps a price from
//! token to token, so that a share is lost on average: one solution a token in place of 6 to 10, and tokens whose
//! bundles lie badly may lose more than others.
//!
//! Under [`crate::Combine::Max`] time is priced as under the sum, which is at most twice of it.

use crate::law::DeviceLaw;
use crate::limits::{BUDGET_ROUNDS_MAX, PACE_OVER_MAX, PACE_STEP};
use crate::plan::Geometry;

/// What a layer has to read for a token.
#[derive(Clone, Copy, Debug)]
pub struct Misses<'a> {
    /// Slots, strictly ascending.
    pub slots: &'a [u32],
    /// The strength of each, 0 or more; what is not a number counts as 0.
    pub strengths: &'a [f32],
    /// Sum of the squares of the strengths of what is active and need not be read.
    pub others: f64,
}

impl Misses<'_> {
    /// Sum of the squares of all strengths, of `others` too.
    pub fn total(&self) -> f64 {
        self.others.max(0.0) + self.missing()
    }

    /// The same of what is to be read.
    fn missing(&self) -> f64 {
        self.strengths.iter().map(|strength| square(*strength)).sum()
    }

    fn truncated(self, most: usize) -> Self {
        let count = most.min(self.slots.len()).min(self.strengths.len());
        Self { slots: &self.slots[..count], strengths: &self.strengths[..count], ..self }
    }
}

/// What was decided.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Choice {
    /// Bundles that are still to be read.
    pub kept: usize,
    /// Sum of the squares of the strengths of those left out.
    pub lost: f64,
    /// Reads that the rest takes.
    pub reads: u64,
    /// Bytes of these, holes and rounding included.
    pub bytes: u64,
}

/// Entries of scratch for so many slots.
pub const fn scratch_len(slots: usize) -> usize {
    slots.saturating_mul(3).saturating_add(1)
}

/// Leaves out what costs more device time than it is worth: a bundle is worth `price_us` microseconds times its share of
/// the layer's squares. At 0 nothing is worth a read; at infinity only what has no strength is left out.
///
/// `keep` gets, for each slot, whether it is read. `keep` is for as many entries as there are slots, `scratch` for
/// [`scratch_len`]; slots beyond the two, or without a strength, are ignored.
pub fn at_price(
    misses: &Misses<'_>,
    geometry: &Geometry,
    law: &DeviceLaw,
    price_us: f64,
    keep: &mut [bool],
    scratch: &mut [u64],
) -> Choice {
    let bytes = price_us.max(0.0) / 1e6 * law.b_mib_s() * crate::law::MIB;
    let total = misses.total();
    let price = if total > 0.0 { bytes / total } else { f64::INFINITY };
    Problem::new(misses, geometry, law, keep, scratch.len()).solve(price, keep, scratch)
}

/// Leaves out what saves most device time, so that of the layer's squares no more than the share `share_max` is lost. At 0
/// only what has no strength is left out.
///
/// `keep` and `scratch` as [`at_price`] has them. At most [`BUDGET_ROUNDS_MAX`] prices are tried.
pub fn within(
    misses: &Misses<'_>,
    geometry: &Geometry,
    law: &DeviceLaw,
    share_max: f64,
    keep: &mut [bool],
    scratch: &mut [u64],
) -> Choice {
    find_price(misses, geometry, law, share_max, keep, scratch).0
}

/// What [`within`] chooses, and the price of the whole strength at which it does, microseconds; infinite where nothing
/// with strength is left out.
fn find_price(
    misses: &Misses<'_>,
    geometry: &Geometry,
    law: &DeviceLaw,
    share_max: f64,
    keep: &mut [bool],
    scratch: &mut [u64],
) -> (Choice, f64) {
    let problem = Problem::new(misses, geometry, law, keep, scratch.len());
    let price_us =
        |price: f64| price * problem.misses.total() / (law.b_mib_s() * crate::law::MIB) * 1e6;
    let allowed = share_max.clamp(0.0, 1.0) * problem.misses.total();
    // Corners of the lower hull of (lost, cost): one that loses too little, one that loses too much, and the price at
    // which both are as good shows the corner that lies farthest below the line between them.
    let mut best = problem.solve(f64::INFINITY, keep, scratch);
    let mut over = Choice { lost: problem.misses.missing(), ..Choice::default() };
    if over.lost <= allowed {
        return (problem.solve(0.0, keep, scratch), 0.0);
    }
    let (mut best_price, mut last_price) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..BUDGET_ROUNDS_MAX {
        let price = (problem.cost(&best) - problem.cost(&over)) / (over.lost - best.lost);
        if allowed <= 0.0 || !price.is_finite() || price <= 0.0 {
            break;
        }
        let found = problem.solve(price, keep, scratch);
        last_price = price;
        if found.lost <= best.lost || found.lost >= over.lost {
            break;
        }
        if found.lost <= allowed {
            (best, best_price) = (found, price);
        } else {
            over = found;
        }
    }
    // `keep` shows the last price that was tried.
    let found =
        if last_price == best_price { best } else { problem.solve(best_price, keep, scratch) };
    (found, price_us(best_price))
}

/// The price of a layer's strength, so adjusted that over many tokens a share is lost on average.
#[derive(Clone, Copy, Debug, Default, PartialEq, zerocopy::FromBytes, zerocopy::IntoBytes)]
pub struct Pace {
    /// Microseconds for all of it; 0 before one was found.
    price_us: f64,
}

impl Pace {
    /// Leaves out what costs more than it is worth at the present price, and adjusts that. The first price is that of
    /// [`within`]. `keep` and `scratch` as [`at_price`] has them.
    pub fn choose(
        &mut self,
        misses: &Misses<'_>,
        geometry: &Geometry,
        law: &DeviceLaw,
        share: f64,
        keep: &mut [bool],
        scratch: &mut [u64],
    ) -> Choice {
        if self.price_us <= 0.0 || share <= 0.0 {
            let (choice, price_us) = find_price(misses, geometry, law, share, keep, scratch);
            if price_us.is_finite() {
                self.price_us = price_us;
            }
            return choice;
        }
        let choice = at_price(misses, geometry, law, self.price_us, keep, scratch);
        let total = misses.total();
        if total > 0.0 {
            // Where as much is lost as may be, on average, the price stays where it is.
            let over = (choice.lost / total / share).min(PACE_OVER_MAX) - 1.0;
            self.price_us *= 1.0 + PACE_STEP * over;
        }
        choice
    }
}

/// In the tables: no extent ends with this slot, it is left out.
const LEFT_OUT: u64 = u64::MAX;

/// A layer's misses, and what reading costs, in bytes.
struct Problem<'a> {
    misses: Misses<'a>,
    geometry: &'a Geometry,
    /// What a read costs beside its bytes.
    read_bytes: f64,
    /// What the first of them costs more.
    batch_bytes: f64,
}

impl<'a> Problem<'a> {
    fn new(
        misses: &Misses<'a>,
        geometry: &'a Geometry,
        law: &DeviceLaw,
        keep: &[bool],
        scratch: usize,
    ) -> Self {
        let misses = misses.truncated(keep.len().min(scratch.saturating_sub(1) / 3));
        let batch_bytes = law.t0_us() / 1e6 * law.b_mib_s() * crate::law::MIB;
        Self { misses, geometry, read_bytes: law.gap_exact_bytes(), batch_bytes }
    }

    /// What a choice costs to read, bytes.
    fn cost(&self, choice: &Choice) -> f64 {
        let batch = if choice.reads > 0 { self.batch_bytes } else { 0.0 };
        batch + choice.reads as f64 * self.read_bytes + choice.bytes as f64
    }

    /// The choice that costs least, where each square costs `price` bytes to leave out.
    fn solve(&self, price: f64, keep: &mut [bool], scratch: &mut [u64]) -> Choice {
        let count = self.misses.slots.len();
        if count == 0 {
            return Choice::default();
        }
        let (from, rest) = scratch.split_at_mut(count);
        let least = self.fill(price, from, rest);
        let all = worth(self.misses.missing(), price);
        if all <= least + self.batch_bytes {
            from.fill(LEFT_OUT);
        }
        self.write(from, keep)
    }

    /// Fills where the extent begins that ends with each slot ([`LEFT_OUT`] where none does), in the cheapest way for the
    /// slots up to it. Returns what that costs for all of them.
    fn fill(&self, price: f64, from: &mut [u64], rest: &mut [u64]) -> f64 {
        let Misses { slots, strengths, .. } = self.misses;
        let geometry = self.geometry;
        // Bits of the least cost of the slots before each; and beginnings that no later one beats, ascending.
        let (before, open) = rest.split_at_mut(slots.len() + 1);
        // Counted from the first slot, to keep the numbers small.
        let origin = geometry.begin(slots[0]) as f64;
        let key = |before: &[u64], first: usize| {
            f64::from_bits(before[first]) - (geometry.begin(slots[first]) as f64 - origin)
        };
        before[0] = 0.0_f64.to_bits();
        let (mut head, mut tail) = (0, 0);
        for last in 0..slots.len() {
            let key_last = key(before, last);
            while head < tail && key(before, open[tail - 1] as usize) > key_last {
                tail -= 1;
            }
            open[tail] = last as u64;
            tail += 1;
            while head + 1 < tail && !geometry.fits(slots[open[head] as usize], slots[last]) {
                head += 1;
            }
            let first = open[head] as usize;
            let end = geometry.end(slots[last]) as f64 - origin;
            let read = key(before, first) + end + self.read_bytes;
            let left_out = f64::from_bits(before[last]) + worth(square(strengths[last]), price);
            // Where it makes no difference, what is read stays.
            let (least, begin) =
                if read <= left_out { (read, first as u64) } else { (left_out, LEFT_OUT) };
            (before[last + 1], from[last]) = (least.to_bits(), begin);
        }
        f64::from_bits(before[slots.len()])
    }

    /// Follows the tables back from the end.
    fn write(&self, from: &[u64], keep: &mut [bool]) -> Choice {
        let Misses { slots, strengths, .. } = self.misses;
        let mut choice = Choice::default();
        let mut end = slots.len();
        while let Some(last) = end.checked_sub(1) {
            if from[last] == LEFT_OUT {
                choice.lost += square(strengths[last]);
                keep[last] = false;
                end = last;
                continue;
            }
            let first = from[last] as usize;
            keep[first..end].fill(true);
            choice.kept += end - first;
            choice.reads += 1;
            choice.bytes += self.geometry.span(slots[first], slots[last]);
            end = first;
        }
        choice
    }
}

/// What leaving out so much costs; nothing is worth nothing, whatever the price.
fn worth(squares: f64, price: f64) -> f64 {
    if squares > 0.0 { squares * price } else { 0.0 }
}

/// The square of a strength.
pub(crate) fn square(strength: f32) -> f64 {
    let strength = f64::from(strength.max(0.0));
    strength * strength
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "budget_tests.rs"]
mod tests;
