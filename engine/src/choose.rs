//! Which copy of a bundle is read: where neurons of a placement stand in several slots, one slot of each is chosen before
//! the reads are planned.
//!
//! A set of slots costs the blocks of each bundle, less those that neighbours share, and for each hole between two of them
//! either its bytes or another read, whichever is less by the rule in force. To choose the cheapest set is a problem that
//! has no fast exact answer, and a token's time is counted in microseconds. So each bundle begins in the slot near which
//! most of what is wanted stands, and then single bundles, and whole reads of bundles that all have copies, move to where
//! they are cheaper, until nothing moves. The result is never dearer, by these costs, than the first slot of each; how
//! far it is from the best is measured in `engine/tests/choosing.rs` and `docs/study.md`.

use crate::plan::{Collapse, Geometry};

/// Rounds of the search at most; most end after two.
const ROUNDS: usize = 4;
/// Bundles of a read that moves as a whole, at most.
const READ_BUNDLES: usize = 12;
/// Slots to either side that are looked at: a word has them all.
const REACH_MAX: u32 = 63;

/// Entries of scratch that [`choose`] needs for a placement of so many slots: a bit each, and a word to either side.
pub const fn scratch_len(slots: u32) -> usize {
    (slots / 64) as usize + 4
}

/// Chooses a slot for each wanted bundle.
///
/// `entries` are slot << 32 | position of each wanted bundle, in any order, no slot twice, each with any of the bundle's
/// slots; afterwards each with the chosen one, in any order. `slots_of` gives the slots of the bundle at a position,
/// ascending. `scratch` is for [`scratch_len`]; with less, or under [`Collapse::Whole`], everything stays as it is.
pub fn choose<I: Iterator<Item = u32>>(
    entries: &mut [u64],
    geometry: &Geometry,
    collapse: &Collapse,
    slots_of: impl Fn(usize) -> I,
    scratch: &mut [u64],
) {
    let (Some(costs), Some(bits)) =
        (Costs::of(geometry, collapse), scratch.get_mut(..scratch_len(geometry.slots)))
    else {
        return;
    };
    let slots_of = |entry: u64| slots_of(entry as u32 as usize);
    if entries.iter().all(|entry| slots_of(*entry).nth(1).is_none()) {
        return;
    }
    let mut search = Search { bits, costs };
    let first = |entry: u64| slots_of(entry).next().unwrap_or_else(|| slot(entry));
    search.mark(entries.iter().map(|entry| first(*entry)));
    let firsts_cost = search.total(entries.iter().map(|entry| first(*entry)));

    search.mark(entries.iter().flat_map(|entry| slots_of(*entry)));
    for entry in &mut *entries {
        let densest = slots_of(*entry).max_by_key(|slot| (search.near(*slot), u32::MAX - *slot));
        *entry = with_slot(*entry, densest.unwrap_or_else(|| slot(*entry)));
    }
    search.mark(entries.iter().map(|entry| slot(*entry)));
    for _ in 0..ROUNDS {
        let moved = search.move_singles(entries, &slots_of);
        if !search.move_reads(entries, &slots_of) && !moved {
            break;
        }
    }
    if search.total(entries.iter().map(|entry| slot(*entry))) > firsts_cost {
        entries.iter_mut().for_each(|entry| *entry = with_slot(*entry, first(*entry)));
    }
}

const fn slot(entry: u64) -> u32 {
    (entry >> 32) as u32
}

const fn with_slot(entry: u64, slot: u32) -> u64 {
    (slot as u64) << 32 | entry & u32::MAX as u64
}

/// What slots and the holes between them cost, in bytes.
#[derive(Clone, Copy, Debug)]
struct Costs<'g> {
    geometry: &'g Geometry,
    /// Another read.
    read: i64,
    /// Whether a hole may be read through.
    merges: bool,
    /// Slots that may be worth one read, this far apart.
    reach: u32,
}

impl<'g> Costs<'g> {
    /// Those of the rule by which reads are merged; `None` where all of the layer is read anyway.
    fn of(geometry: &'g Geometry, collapse: &Collapse) -> Option<Self> {
        /// More than any layer.
        const MOST: u64 = 1 << 50;
        let stride = u64::from(geometry.bundle_stride.max(1));
        let (read, merges) = match collapse {
            Collapse::Whole => return None,
            Collapse::Off => (MOST, false),
            Collapse::Gap { bytes } => (*bytes, true),
            Collapse::Law(law) => (law.gap_bytes(), true),
            Collapse::Curve(curve) => {
                // What the first of two bundles read apart costs beyond its bytes.
                let (one, two) = (curve.read_us(stride), curve.read_us(2 * stride));
                let bytes = stride as f64 * (2.0 * one - two) / (two - one).max(1e-9);
                (bytes.clamp(1.0, 1e9) as u64, true)
            }
        };
        let near = if merges { read } else { geometry.block_bytes.into() };
        let reach = near.div_ceil(stride).clamp(1, REACH_MAX.into()) as u32;
        Some(Self { geometry, read: read.min(MOST) as i64, merges, reach })
    }

    /// A bundle's blocks.
    const fn blocks(&self, slot: u32) -> i64 {
        self.geometry.span(slot, slot) as i64
    }

    /// What lies between two neighbours: a read or the hole's bytes, or less than nothing where they share a block.
    fn between(&self, left: Option<u32>, right: Option<u32>) -> i64 {
        let (Some(left), Some(right)) = (left, right) else { return self.read };
        let hole = self.geometry.begin(right) as i64 - self.geometry.end(left) as i64;
        if hole <= 0 || (self.merges && hole < self.read) { hole } else { self.read }
    }
}

/// The slots that are chosen at present, a bit each, the first in the second word: a word may be looked at to either
/// side.
struct Search<'s, 'g> {
    bits: &'s mut [u64],
    costs: Costs<'g>,
}

impl Search<'_, '_> {
    /// Marks these slots and no others.
    fn mark(&mut self, slots: impl Iterator<Item = u32>) {
        self.bits.fill(0);
        slots.for_each(|slot| self.set(slot));
    }

    fn set(&mut self, slot: u32) {
        if let Some(word) = self.bits.get_mut(slot as usize / 64 + 1) {
            *word |= 1 << (slot % 64);
        }
    }

    fn clear(&mut self, slot: u32) {
        if let Some(word) = self.bits.get_mut(slot as usize / 64 + 1) {
            *word &= !(1 << (slot % 64));
        }
    }

    /// The 64 bits from a place on; slot s is at place s + 64.
    fn word(&self, place: usize) -> u64 {
        let word = |at: usize| self.bits.get(at).copied().unwrap_or(0);
        let (at, bit) = (place / 64, place % 64);
        if bit == 0 { word(at) } else { word(at) >> bit | word(at + 1) << (64 - bit) }
    }

    /// The next marked slots to the left and to the right of one, as far as a word goes.
    fn neighbours(&self, slot: u32) -> (Option<u32>, Option<u32>) {
        let left = self.word(slot as usize).leading_zeros();
        let right = self.word(slot as usize + 65).trailing_zeros();
        ((left < 64).then(|| slot - 1 - left), (right < 64).then(|| slot + 1 + right))
    }

    /// How many slots are marked within reach of one, or within half a word.
    fn near(&self, slot: u32) -> u32 {
        let reach = self.costs.reach.min(31);
        let mask = (1_u64 << (2 * reach + 1)) - 1;
        (self.word(slot as usize + 64 - reach as usize) & mask).count_ones()
    }

    /// What a slot costs beside the others that are marked.
    fn cost(&self, slot: u32) -> i64 {
        let ((left, right), costs) = (self.neighbours(slot), &self.costs);
        costs.blocks(slot) + costs.between(left, Some(slot)) + costs.between(Some(slot), right)
            - costs.between(left, right)
    }

    /// What all that is marked costs, which are these slots.
    fn total(&self, slots: impl Iterator<Item = u32>) -> i64 {
        let cost = |slot: u32| {
            self.costs.blocks(slot) + self.costs.between(Some(slot), self.neighbours(slot).1)
        };
        slots.map(cost).sum()
    }

    /// The cheapest of some slots but one, and what it costs.
    fn cheapest(&self, slots: impl Iterator<Item = u32>, but: u32) -> Option<(i64, u32)> {
        slots.filter(|slot| *slot != but).map(|slot| (self.cost(slot), slot)).min()
    }

    /// Moves single bundles to where they are cheaper; whether any moved.
    fn move_singles<I: Iterator<Item = u32>>(
        &mut self,
        entries: &mut [u64],
        slots_of: &impl Fn(u64) -> I,
    ) -> bool {
        let mut moved = false;
        for entry in entries {
            let from = slot(*entry);
            if slots_of(*entry).nth(1).is_none() {
                continue;
            }
            self.clear(from);
            let to = match self.cheapest(slots_of(*entry), from) {
                Some((cost, to)) if cost < self.cost(from) => to,
                _ => from,
            };
            moved |= to != from;
            *entry = with_slot(*entry, to);
            self.set(to);
        }
        moved
    }

    /// Gives up whole reads all of whose bundles are cheaper elsewhere; whether any.
    fn move_reads<I: Iterator<Item = u32>>(
        &mut self,
        entries: &mut [u64],
        slots_of: &impl Fn(u64) -> I,
    ) -> bool {
        entries.sort_unstable();
        let (reach, mut moved) = (self.costs.reach, false);
        for read in entries.chunk_by_mut(|one, next| slot(*next) - slot(*one) <= reach) {
            let has_copies = |entry: &u64| slots_of(*entry).nth(1).is_some();
            if !(2..=READ_BUNDLES).contains(&read.len()) || !read.iter().all(has_copies) {
                continue;
            }
            let (mut here, mut elsewhere) = (0_i64, 0_i64);
            for entry in &*read {
                here += self.cost(slot(*entry));
                self.clear(slot(*entry));
            }
            let mut to = [0; READ_BUNDLES];
            for (entry, to) in read.iter().zip(&mut to) {
                let cheapest = self.cheapest(slots_of(*entry), slot(*entry));
                let (cost, other) = cheapest.unwrap_or((i64::MAX, slot(*entry)));
                elsewhere = elsewhere.saturating_add(cost);
                *to = other;
                self.set(other);
            }
            let better = elsewhere < here;
            for (entry, to) in read.iter_mut().zip(to) {
                if better {
                    *entry = with_slot(*entry, to);
                } else {
                    self.clear(to);
                }
            }
            if !better {
                read.iter().for_each(|entry| self.set(slot(*entry)));
            }
            moved |= better;
        }
        moved
    }
}
