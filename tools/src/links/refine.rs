//! Improving an order in the device's own cost, hole by hole.
//!
//! Under the law a token's time is that of its bytes, one `a` for its first read, and for every hole
//! between two neighbouring active bundles `min(hole / B, a)`: the hole is read through, or costs
//! another read. Holes beyond `g* = a * B` all cost the same, so what a place in the order is worth
//! depends on few slots to either side, and the change that a move makes is exact from their bit
//! rows alone. (Exact for the sum, bundles of whole blocks and reads that need no cut; else close. The
//! caller prices the result with the planner.)
//!
//! Two kinds of moves, until a pass gains next to nothing: a neuron goes where it costs least
//! (Or-opt), and a stretch is turned round (2-opt). Places are tried beside the neurons that a neuron
//! is most often active with.

use std::cmp::Reverse;

use super::coactivation::LayerActivity;
use super::price::Objective;

/// Holes of more bundles than this are taken to cost a read whatever the law says: it bounds the
/// slots that a move looks at.
const HOLE_BUNDLES_MAX: usize = 16;
/// Neurons beside which places are tried.
const PARTNERS: usize = 12;
/// Slots to either side of such a neuron that are tried.
const PLACES: usize = 2;
/// Passes over all neurons.
const PASSES_MAX: usize = 8;
/// A pass that gains less than this share of the cost is the last.
const GAIN_MIN: f64 = 5e-4;
/// Words of a row handled together, so that the masks of a place stay in registers or nearly.
const LANES: usize = 8;

/// What a hole costs by its length in bundles.
#[derive(Debug, Clone)]
pub struct HoleCost {
    /// Microseconds that the k-th bundle of a hole adds, from the first; none beyond the last.
    steps: Vec<f64>,
}

impl HoleCost {
    /// By the law and the size of a bundle.
    pub fn new(objective: &Objective) -> Self {
        let law = &objective.law;
        let bundle_us = law.transfer_us(objective.bundle_bytes.into());
        let cost = |bundles: usize| (bundles as f64 * bundle_us).min(law.a_us());
        let steps = (1..=HOLE_BUNDLES_MAX).map(|hole| match hole {
            HOLE_BUNDLES_MAX => law.a_us() - cost(hole - 1),
            _ => cost(hole) - cost(hole - 1),
        });
        let mut steps: Vec<f64> = steps.take_while(|step| *step > 0.0).collect();
        if steps.is_empty() {
            // A device that reads cost nothing on: any order is as good, runs are what is left.
            steps.push(1.0);
        }
        Self { steps }
    }

    /// Slots to either side that matter.
    fn reach(&self) -> usize {
        self.steps.len()
    }

    /// Microseconds of a hole of so many bundles.
    pub fn of(&self, bundles: usize) -> f64 {
        self.steps.iter().take(bundles).sum()
    }
}

type Chunk = [u64; LANES];

/// An order being improved.
pub(crate) struct Refiner<'a> {
    activity: &'a LayerActivity,
    cost: HoleCost,
    order: Vec<u32>,
    /// Place by neuron; only those in `order` are meant.
    place: Vec<u32>,
    /// For each neuron those it is most often active with, best first.
    partners: Vec<Vec<u32>>,
}

/// Improves `order`, some neurons of the layer, and returns it with the microseconds saved on the
/// whole profile, by the costs of holes.
pub fn refine(activity: &LayerActivity, objective: &Objective, order: Vec<u32>) -> (Vec<u32>, f64) {
    if order.len() < 3 || activity.tokens() == 0 {
        return (order, 0.0);
    }
    let mut refiner = Refiner::new(activity, HoleCost::new(objective), order);
    let mut total = 0.0;
    let cost = refiner.total();
    for _ in 0..PASSES_MAX {
        let gain = refiner.move_neurons() + refiner.turn_stretches();
        total += gain;
        if gain < GAIN_MIN * cost {
            break;
        }
    }
    (refiner.order, total)
}

impl<'a> Refiner<'a> {
    fn new(activity: &'a LayerActivity, cost: HoleCost, order: Vec<u32>) -> Self {
        let partners = partners(activity, &order);
        let mut refiner =
            Self { activity, cost, order, place: vec![0; activity.neurons()], partners };
        refiner.number_places(0, refiner.order.len());
        refiner
    }

    fn number_places(&mut self, from: usize, to: usize) {
        for (place, &neuron) in self.order.iter().enumerate().take(to).skip(from) {
            self.place[neuron as usize] = place as u32;
        }
    }

    /// Rows to the left of a gap, nearest first; the gap is before `gap`.
    fn left(&self, gap: usize) -> Vec<&'a [u64]> {
        let from = gap.saturating_sub(self.cost.reach());
        self.order[from..gap].iter().rev().map(|&id| self.activity.row(id as usize)).collect()
    }

    /// Rows to the right of a gap, nearest first.
    fn right(&self, gap: usize) -> Vec<&'a [u64]> {
        let to = (gap + self.cost.reach()).min(self.order.len());
        self.order[gap..to].iter().map(|&id| self.activity.row(id as usize)).collect()
    }

    /// Cost of the holes over all tokens, up to a constant: what each neuron's next hole costs.
    fn total(&self) -> f64 {
        let mut sum = 0.0;
        let mut mask = Vec::new();
        for (at, &id) in self.order.iter().enumerate() {
            mask.clear();
            mask.extend_from_slice(self.activity.row(id as usize));
            let ahead = self.right(at + 1);
            for (k, step) in self.cost.steps.iter().enumerate() {
                if let Some(row) = ahead.get(k) {
                    for (mask, word) in mask.iter_mut().zip(*row) {
                        *mask &= !word;
                    }
                }
                sum += step * mask.iter().map(|word| f64::from(word.count_ones())).sum::<f64>();
            }
        }
        sum
    }

    /// Or-opt: each neuron is taken out and put where it costs least.
    fn move_neurons(&mut self) -> f64 {
        let mut gain = 0.0;
        let neurons = self.order.clone();
        let mut gaps: Vec<usize> = Vec::new();
        for &neuron in &neurons {
            let from = self.place[neuron as usize] as usize;
            self.order.remove(from);
            gaps.clear();
            for &partner in &self.partners[neuron as usize] {
                let place = self.place[partner as usize] as usize;
                let place = place - usize::from(place > from);
                let first = place.saturating_sub(PLACES - 1);
                gaps.extend(first..=(place + PLACES).min(self.order.len()));
            }
            gaps.sort_unstable();
            gaps.dedup();
            let row = self.activity.row(neuron as usize);
            let stay = self.insertion(from, row);
            let mut best = (stay, from);
            for &gap in gaps.iter().filter(|gap| **gap != from) {
                let cost = self.insertion(gap, row);
                if cost < best.0 - 1e-6 {
                    best = (cost, gap);
                }
            }
            self.order.insert(best.1, neuron);
            if best.1 != from {
                gain += stay - best.0;
                self.number_places(from.min(best.1), from.max(best.1) + 1);
            }
        }
        gain
    }

    /// 2-opt: where a neuron and a partner would be neighbours if the stretch between were turned.
    fn turn_stretches(&mut self) -> f64 {
        let mut gain = 0.0;
        let apart = 2 * self.cost.reach();
        for neuron in self.order.clone() {
            for partner in 0..self.partners[neuron as usize].len() {
                let partner = self.partners[neuron as usize][partner];
                let (p, q) = (self.place[neuron as usize], self.place[partner as usize]);
                let (p, q) = (p.min(q) as usize, p.max(q) as usize);
                if q - p <= apart {
                    continue;
                }
                // Turning what follows the first brings the second beside it; or what precedes.
                for (first, end) in [(p + 1, q + 1), (p, q)] {
                    let saved = self.turning(first, end);
                    if saved > 1e-6 {
                        gain += saved;
                        self.order[first..end].reverse();
                        self.number_places(first, end);
                        break;
                    }
                }
            }
        }
        gain
    }

    /// What turning `first..end` saves; the stretch is longer than twice the reach.
    fn turning(&self, first: usize, end: usize) -> f64 {
        let (before, after) = (self.left(first), self.right(end));
        let (head, tail) = (self.right(first), self.left(end));
        let words = self.activity.words_per_row();
        let now = self.junction(&before, &head, words) + self.junction(&tail, &after, words);
        let turned = self.junction(&before, &tail, words) + self.junction(&head, &after, words);
        now - turned
    }

    /// Cost of the holes across a junction, over all tokens.
    fn junction(&self, left: &[&[u64]], right: &[&[u64]], words: usize) -> f64 {
        let reach = self.cost.reach();
        let mut counts = [0u32; HOLE_BUNDLES_MAX + 1];
        for word in (0..words).step_by(LANES) {
            let (left, right) = (emptiness(left, reach, word), emptiness(right, reach, word));
            for (k, count) in counts.iter_mut().enumerate().take(reach + 1).skip(1) {
                *count += ones(&hole_of(&left, &right, k));
            }
        }
        self.cost.steps.iter().zip(&counts[1..]).map(|(step, count)| step * f64::from(*count)).sum()
    }

    /// What putting a neuron with these bits into a gap adds.
    ///
    /// With L and R the inactive slots to the next active one on either side: where it is active
    /// there are holes of L and R for one of L + R, and where it is not the hole is longer by one.
    fn insertion(&self, gap: usize, row: &[u64]) -> f64 {
        let (left, right) = (self.left(gap), self.right(gap));
        let reach = self.cost.reach();
        // By k: tokens with L >= k or R >= k (both count) where it is active; holes of k and more
        // where it is active, where it is not, and where it is not and the hole is longer by one.
        let mut sides = [0u32; HOLE_BUNDLES_MAX + 1];
        let mut filled = [0u32; HOLE_BUNDLES_MAX + 1];
        let mut widened = [0u32; HOLE_BUNDLES_MAX + 1];
        for word in (0..row.len()).step_by(LANES) {
            let (left, right) = (emptiness(&left, reach, word), emptiness(&right, reach, word));
            let active = chunk(row, word);
            let mut before = hole_of(&left, &right, 0);
            for k in 1..=reach {
                let hole = hole_of(&left, &right, k);
                let (mut both, mut wider) = ([0; LANES], [0; LANES]);
                for lane in 0..LANES {
                    both[lane] = active[lane] & hole[lane];
                    // h + 1 >= k and not h >= k
                    wider[lane] = !active[lane] & before[lane] & !hole[lane];
                }
                filled[k] += ones(&both);
                widened[k] += ones(&wider);
                sides[k] += ones(&and(&active, &left[k])) + ones(&and(&active, &right[k]));
                before = hole;
            }
        }
        let change = |k: usize| f64::from(sides[k]) - f64::from(filled[k]) + f64::from(widened[k]);
        self.cost.steps.iter().enumerate().map(|(k, step)| step * change(k + 1)).sum()
    }
}

/// By k the tokens in which none of the k nearest rows is active; bits past the last token are set
/// too, which no difference of costs sees.
fn emptiness(rows: &[&[u64]], reach: usize, word: usize) -> [Chunk; HOLE_BUNDLES_MAX + 1] {
    let mut empty = [[u64::MAX; LANES]; HOLE_BUNDLES_MAX + 1];
    for k in 1..=reach {
        empty[k] = empty[k - 1];
        if let Some(row) = rows.get(k - 1) {
            let row = chunk(row, word);
            for lane in 0..LANES {
                empty[k][lane] &= !row[lane];
            }
        }
    }
    empty
}

/// The tokens with L + R >= k.
fn hole_of(left: &[Chunk], right: &[Chunk], k: usize) -> Chunk {
    let mut hole = [0; LANES];
    for i in 0..=k {
        for lane in 0..LANES {
            hole[lane] |= left[i][lane] & right[k - i][lane];
        }
    }
    hole
}

fn and(a: &Chunk, b: &Chunk) -> Chunk {
    let mut both = [0; LANES];
    for lane in 0..LANES {
        both[lane] = a[lane] & b[lane];
    }
    both
}

fn ones(chunk: &Chunk) -> u32 {
    chunk.iter().map(|word| word.count_ones()).sum()
}

/// The words from one on, zeros beyond the end.
fn chunk(row: &[u64], word: usize) -> Chunk {
    let rest = &row[word..];
    if let Some(chunk) = rest.first_chunk() {
        return *chunk;
    }
    let mut last = [0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    last
}

/// For each neuron of `order` those it is most often active with, corrected for how often each is
/// active at all: best first, ties by lower id.
fn partners(activity: &LayerActivity, order: &[u32]) -> Vec<Vec<u32>> {
    let mut members = order.to_vec();
    members.sort_unstable();
    let active = activity.active_count();
    // Share times 2^32: integers compare the same everywhere.
    let mut best: Vec<Vec<(Reverse<u64>, u32)>> = vec![Vec::new(); activity.neurons()];
    activity.visit_pairs(&members, |i, j, both| {
        let either =
            u64::from(active[i as usize]) + u64::from(active[j as usize]) - u64::from(both);
        let share = (u64::from(both) << 32) / either.max(1);
        for (one, other) in [(i, j), (j, i)] {
            let list = &mut best[one as usize];
            let entry = (Reverse(share), other);
            if list.len() < PARTNERS || list.last().is_some_and(|last| entry < *last) {
                let at = list.partition_point(|held| *held < entry);
                list.insert(at, entry);
                list.truncate(PARTNERS);
            }
        }
    });
    best.into_iter().map(|list| list.into_iter().map(|(_, id)| id).collect()).collect()
}

#[cfg(test)]
#[path = "refine_tests.rs"]
mod tests;
