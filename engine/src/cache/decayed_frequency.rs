//! Frequency that decays, weighed by what a miss costs: a bundle is worth keeping as often as it is used, lately and in
//! the long run, and as much as reading it takes. Where it was read alone, it cost an operation of the device;
//! where `n` bundles came in one read, it cost an n-th part of one.
//!
//! It begins with what the pack's profile counted, as if that had been seen here, and forgets it as it sees more itself.
//! All bundles of a pack are known and few, so each has its own counters: there is no sketch of them, as caches with
//! open populations have, and what was thrown out is not forgotten.
//!
//! Counters do not shrink, what a use adds grows: only ratios of scores matter. When that has grown far, all is scaled down.
//! So time is constant for a use, and a sweep over all bundles comes once in some hundreds of tokens.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::table::{State, Table};
use super::{Read, Replacement};
use crate::arena::{Arena, ArenaError, ArenaSize};
#[cfg(test)]
use crate::limits::CACHE_RECENT_HALF_LIFE_TICKS;
use crate::limits::{
    CACHE_COST_FIRST, CACHE_COST_LEAST, CACHE_COST_STEP, CACHE_RECENT_WEIGHT, CACHE_SAMPLE_CELLS,
    CACHE_STEADY_HALF_LIFE_TICKS, CACHE_TICKS_PER_ROUND,
};

/// A use adds this many times as much a tick later: 2 to the power of 1 / `CACHE_STEADY_HALF_LIFE_TICKS`, and of 1 /
/// `CACHE_RECENT_HALF_LIFE_TICKS`. (`core` has no powers; a test compares.)
const STEADY_GROWTH: f32 = 1.001_083_6;
const RECENT_GROWTH: f32 = 1.044_273_8;
/// Growth after which counters are scaled down by it: a power of two, so that nothing is rounded.
const GROWTH_MAX: f32 = (1_u64 << 40) as f32;
/// What uses that come at a steady rate add up to, in those of one half-life: 1 / ln 2.
const STEADY_SUM: f32 = core::f32::consts::LOG2_E;

/// What is known of a bundle.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Seen {
    /// Its uses, decaying slowly and fast.
    steady: f32,
    recent: f32,
    /// Mean share of an operation that it cost to read.
    cost: f32,
    /// How often the profile saw it.
    profiled: u32,
}

/// The counters, and a hand that goes round the cells.
#[derive(Debug)]
pub(super) struct DecayedFrequency<'a> {
    seen: &'a mut [Seen],
    /// What a use adds now.
    steady_gain: f32,
    recent_gain: f32,
    /// Uses since the last tick, and to the next.
    uses: usize,
    tick_uses: usize,
    hand: u32,
    /// Whether a cell of the first hot set was given to another bundle.
    moved: bool,
}

impl<'a> DecayedFrequency<'a> {
    pub(super) fn new(arena: &mut Arena<'a>, bundles: usize) -> Result<Self, ArenaError> {
        let mut rule = Self {
            seen: arena.take(bundles)?,
            steady_gain: 1.0,
            recent_gain: 1.0,
            uses: 0,
            tick_uses: (bundles / CACHE_TICKS_PER_ROUND).max(1),
            hand: 0,
            moved: false,
        };
        rule.clear();
        Ok(rule)
    }

    pub(super) fn size(size: &mut ArenaSize, bundles: usize) {
        size.add::<Seen>(bundles);
    }

    /// Takes over the counts of a profile, and forgets everything else.
    pub(super) fn learn(&mut self, counts: impl Iterator<Item = (u32, u32)>) {
        self.seen.iter_mut().for_each(|seen| seen.profiled = 0);
        for (bundle, count) in counts {
            if let Some(seen) = self.seen.get_mut(bundle as usize) {
                seen.profiled = count;
            }
        }
        self.clear();
    }

    /// The counts of the profile.
    pub(super) fn profiled(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (0..).zip(self.seen.iter().map(|seen| seen.profiled))
    }

    /// Whether the first hot set is no longer what the cells are for.
    pub(super) const fn has_moved(&self) -> bool {
        self.moved
    }

    /// What a bundle is worth.
    fn score(&self, bundle: u32) -> f32 {
        let Some(seen) = self.seen.get(bundle as usize) else { return 0.0 };
        let recent = seen.recent * (self.steady_gain / self.recent_gain);
        let rate = seen.steady + CACHE_RECENT_WEIGHT * recent;
        rate * (CACHE_COST_LEAST + (1.0 - CACHE_COST_LEAST) * seen.cost)
    }

    /// A bundle was asked for.
    pub(super) fn count(&mut self, bundle: u32) {
        if let Some(seen) = self.seen.get_mut(bundle as usize) {
            seen.steady += self.steady_gain;
            seen.recent += self.recent_gain;
        }
        self.uses += 1;
        if self.uses >= self.tick_uses {
            self.uses = 0;
            self.tick();
        }
    }

    /// A bundle was asked for and read, with others.
    pub(super) fn count_read(&mut self, bundle: u32, read: Read) {
        self.count(bundle);
        if let Some(seen) = self.seen.get_mut(bundle as usize) {
            let cost = 1.0 / read.read_bundles.max(1) as f32;
            seen.cost += CACHE_COST_STEP * (cost - seen.cost);
        }
    }

    fn tick(&mut self) {
        self.steady_gain *= STEADY_GROWTH;
        self.recent_gain *= RECENT_GROWTH;
        if self.steady_gain >= GROWTH_MAX {
            self.steady_gain /= GROWTH_MAX;
            self.seen.iter_mut().for_each(|seen| seen.steady /= GROWTH_MAX);
        }
        if self.recent_gain >= GROWTH_MAX {
            self.recent_gain /= GROWTH_MAX;
            self.seen.iter_mut().for_each(|seen| seen.recent /= GROWTH_MAX);
        }
    }

    /// The cell worth least of the next few; none of no cells.
    fn victim(&mut self, table: &Table<'_>) -> Option<(u32, f32)> {
        let cells = table.cells() as u32;
        let mut least = None;
        for _ in 0..CACHE_SAMPLE_CELLS.min(cells) {
            self.hand = if self.hand + 1 < cells { self.hand + 1 } else { 0 };
            let score = self.score(table.bundle_of(self.hand));
            if least.is_none_or(|(_, least)| score < least) {
                least = Some((self.hand, score));
            }
        }
        least
    }
}

impl Replacement for DecayedFrequency<'_> {
    /// The bundles of cells are told by [`Self::count`].
    fn hit(&mut self, _cell: u32) {}

    fn admit(&mut self, table: &mut Table<'_>, bundle: u32, read: Read) -> Option<u32> {
        self.count_read(bundle, read);
        if let Some(State::Hot(cell)) = table.state(bundle) {
            table.fill_hot(cell, bundle);
            return Some(cell);
        }
        if let Some(cell) = table.unused() {
            table.fill(cell, bundle);
            return Some(cell);
        }
        let (cell, score) = self.victim(table)?;
        if self.score(bundle) <= score {
            return None;
        }
        self.moved = true;
        table.replace(cell, bundle);
        Some(cell)
    }

    fn clear(&mut self) {
        let total: u64 = self.seen.iter().map(|seen| u64::from(seen.profiled)).sum();
        let half_life_uses = (self.tick_uses * CACHE_STEADY_HALF_LIFE_TICKS) as f32;
        let uses = STEADY_SUM * half_life_uses / total.max(1) as f32;
        for seen in self.seen.iter_mut() {
            seen.steady = seen.profiled as f32 * uses;
            seen.recent = 0.0;
            seen.cost = CACHE_COST_FIRST;
        }
        (self.steady_gain, self.recent_gain) = (1.0, 1.0);
        (self.uses, self.hand, self.moved) = (0, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;

    #[test]
    fn what_a_use_adds_doubles_in_a_half_life() {
        for (growth, ticks) in [
            (STEADY_GROWTH, CACHE_STEADY_HALF_LIFE_TICKS),
            (RECENT_GROWTH, CACHE_RECENT_HALF_LIFE_TICKS),
        ] {
            let grown = (0..ticks).fold(1.0, |gain: f32, _| gain * growth);
            assert!((grown - 2.0).abs() < 1e-3, "{growth} in {ticks} ticks: {grown}");
        }
    }

    /// Scaling down keeps what is worth more worth more.
    #[test]
    fn scores_outlive_being_scaled_down() -> Result<(), ArenaError> {
        let mut size = ArenaSize::default();
        DecayedFrequency::size(&mut size, 32);
        let mut memory = vec![0xee; size.bytes()];
        let mut rule = DecayedFrequency::new(&mut Arena::new(&mut memory), 32)?;
        let half_life_uses = 2 * CACHE_STEADY_HALF_LIFE_TICKS;
        for round in 0..50 * half_life_uses {
            rule.count(if round % 4 == 0 { 1 } else { 0 });
            assert!(rule.steady_gain < GROWTH_MAX && rule.recent_gain < GROWTH_MAX);
        }
        // three times as often, and read at the same cost
        let ratio = rule.score(0) / rule.score(1);
        assert!((ratio - 3.0).abs() < 0.1, "{ratio}");
        Ok(())
    }
}
