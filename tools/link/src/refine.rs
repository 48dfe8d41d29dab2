//! Improving an order in the device's own cost, hole by hole.
//!
//! Under the law a token's time is that of its bytes, one `a` for its first read, and for every hole
//! between two neighbouring active bundles `min(hole / B, a)`: the hole is read through, or costs
//! another read. Holes beyond `g* = a * B` all cost the same, so what a place in the order is worth
//! depends on few slots to either side, and the change that a move makes follows from their bit
//! rows alone (see `holes`). It is exact for the sum, bundles of whole blocks and reads that need no
//! cut, else close. The caller prices the result with the planner.
//!
//! Two kinds of moves, until a pass gains next to nothing: a neuron goes where it costs least
//! (Or-opt), and a stretch is turned round (2-opt). Places are tried beside the neurons that a neuron
//! is most often active with. A neuron is passed over where nothing has changed near it and them
//! since it was last looked at: it would stay.
//!
//! A layer gets `WORK_MAX` words of bit rows at most: a fixed amount, not a time, so that the
//! result is the same everywhere. What is improved by then stays improved.

use std::cmp::Reverse;

use pulp::Arch;

use super::coactivation::LayerActivity;
pub(crate) use super::holes::HoleCost;
use super::holes::{Side, insertion, junction};
use super::price::Objective;

/// Neurons beside which places are tried.
const PARTNERS: usize = 12;
/// Slots to either side of such a neuron that are tried.
const PLACES: usize = 2;
/// Passes over all neurons.
const PASSES_MAX: usize = 8;
/// A pass that gains less than this share of the cost is the last.
const GAIN_MIN: f64 = 5e-4;
/// What a move must save, microseconds on the whole profile.
const SAVING_MIN: f64 = 1e-6;
/// Words of bit rows that the moves of a layer may be weighed with: five times what all passes over
/// 16,384 neurons and 20,000 tokens could take.
const WORK_MAX: u64 = 1 << 35;

/// An order being improved.
pub(crate) struct Refiner<'a> {
    activity: &'a LayerActivity,
    arch: Arch,
    cost: HoleCost,
    /// The bit row of what is never active.
    zeros: Vec<u64>,
    order: Vec<u32>,
    /// Place by neuron; only those in `order` are meant.
    place: Vec<u32>,
    /// For each neuron those it is most often active with, best first.
    partners: Vec<Vec<u32>>,
    /// Moves made.
    clock: u32,
    /// By neuron the last move near enough to change what its places cost.
    changed: Vec<u32>,
    /// The same, or one that turned it round.
    turned: Vec<u32>,
    /// Words of bit rows that moves were weighed with.
    work: u64,
}

/// Improves `order`, some neurons of the layer, and returns it with the microseconds saved on the
/// whole profile, by the costs of holes. `progress` is called with the share done, from 0 to 1.
pub(crate) fn refine(
    activity: &LayerActivity,
    objective: &Objective,
    order: Vec<u32>,
    progress: impl FnMut(f64),
) -> (Vec<u32>, f64) {
    refine_on(Arch::new(), activity, objective, order, progress)
}

/// [`refine`] with these instructions; the result doesn't depend on them.
fn refine_on(
    arch: Arch,
    activity: &LayerActivity,
    objective: &Objective,
    order: Vec<u32>,
    mut progress: impl FnMut(f64),
) -> (Vec<u32>, f64) {
    if order.len() < 3 || activity.tokens() == 0 {
        return (order, 0.0);
    }
    let mut refiner = Refiner::new(arch, activity, HoleCost::new(objective), order);
    let mut total = 0.0;
    let cost = refiner.total();
    // No one knows how many passes it will be; each finds less to do than the one before.
    let mut left = 1.0;
    let mut looked = [vec![None; activity.neurons()], vec![None; activity.neurons()]];
    for _ in 0..PASSES_MAX {
        let mut gain = 0.0;
        for (kind, looked) in looked.iter_mut().enumerate() {
            let neurons = refiner.order.clone();
            for (index, &neuron) in neurons.iter().enumerate() {
                let of_pass = (kind as f64 + index as f64 / neurons.len() as f64) / 2.0;
                progress(1.0 - left * (1.0 - of_pass / 2.0));
                if refiner.work > WORK_MAX {
                    return (refiner.order, total + gain);
                }
                let changed = if kind == 0 { &refiner.changed } else { &refiner.turned };
                if looked[neuron as usize]
                    .is_some_and(|looked| refiner.latest(changed, neuron) <= looked)
                {
                    continue;
                }
                looked[neuron as usize] = Some(refiner.clock);
                gain += if kind == 0 { refiner.move_one(neuron) } else { refiner.turn_at(neuron) };
            }
        }
        total += gain;
        left /= 2.0;
        if gain < GAIN_MIN * cost {
            break;
        }
    }
    (refiner.order, total)
}

impl<'a> Refiner<'a> {
    fn new(arch: Arch, activity: &'a LayerActivity, cost: HoleCost, order: Vec<u32>) -> Self {
        let partners = partners(activity, &order);
        let none = || vec![0; activity.neurons()];
        let (place, changed, turned) = (none(), none(), none());
        let zeros = vec![0; activity.words_per_row()];
        let mut refiner = Self {
            activity,
            arch,
            cost,
            zeros,
            order,
            place,
            partners,
            clock: 0,
            changed,
            turned,
            work: 0,
        };
        refiner.number_places(0, refiner.order.len());
        refiner
    }

    fn number_places(&mut self, from: usize, to: usize) {
        for (place, &neuron) in self.order.iter().enumerate().take(to).skip(from) {
            self.place[neuron as usize] = place as u32;
        }
    }

    /// The last move near a neuron or its partners.
    fn latest(&self, changed: &[u32], neuron: u32) -> u32 {
        let near = self.partners[neuron as usize].iter().map(|id| changed[*id as usize]).max();
        changed[neuron as usize].max(near.unwrap_or(0))
    }

    /// Notes that the order has changed at a gap.
    fn change_at(&mut self, gap: usize) {
        let far = self.cost.reach() + PLACES;
        for &id in &self.order[gap.saturating_sub(far)..(gap + far).min(self.order.len())] {
            self.changed[id as usize] = self.clock;
            self.turned[id as usize] = self.clock;
        }
    }

    /// Rows to the left of a gap, nearest first; the gap is before `gap`, in the order without what
    /// stands at `without`.
    fn left(&self, gap: usize, without: Option<usize>) -> Side<'_> {
        let end = gap + usize::from(without.is_some_and(|at| at < gap));
        let from = end.saturating_sub(self.cost.reach() + 1);
        let places = (from..end).rev().filter(|at| Some(*at) != without).take(self.cost.reach());
        Side::new(places.map(|at| self.activity.row(self.order[at] as usize)), &self.zeros)
    }

    /// Rows to the right of a gap, nearest first.
    fn right(&self, gap: usize, without: Option<usize>) -> Side<'_> {
        let from = gap + usize::from(without.is_some_and(|at| at <= gap));
        let to = (from + self.cost.reach() + 1).min(self.order.len());
        let places = (from..to).filter(|at| Some(*at) != without).take(self.cost.reach());
        Side::new(places.map(|at| self.activity.row(self.order[at] as usize)), &self.zeros)
    }

    /// Cost of the holes over all tokens, up to a constant: what each neuron's next hole costs.
    fn total(&self) -> f64 {
        let mut sum = 0.0;
        let mut mask = Vec::new();
        for (at, &id) in self.order.iter().enumerate() {
            mask.clear();
            mask.extend_from_slice(self.activity.row(id as usize));
            for k in 1..=self.cost.reach() {
                if let Some(&ahead) = self.order.get(at + k) {
                    for (mask, word) in mask.iter_mut().zip(self.activity.row(ahead as usize)) {
                        *mask &= !word;
                    }
                }
                let step = self.cost.of(k) - self.cost.of(k - 1);
                sum += step * mask.iter().map(|word| f64::from(word.count_ones())).sum::<f64>();
            }
        }
        sum
    }

    /// Or-opt: a neuron is taken out and put where it costs least. What that saves.
    fn move_one(&mut self, neuron: u32) -> f64 {
        let from = self.place[neuron as usize] as usize;
        let row = self.activity.row(neuron as usize);
        let mut work = 0;
        let mut weigh = |gap, limit| {
            work += row.len() as u64;
            let (left, right) = (self.left(gap, Some(from)), self.right(gap, Some(from)));
            insertion(self.arch, &self.cost, &left, &right, row, limit)
        };
        let stay = weigh(from, f64::INFINITY);
        let mut best = (stay, from);
        // The best partner's places first: what costs more is then soon seen to.
        let mut tried = vec![from];
        for &partner in &self.partners[neuron as usize] {
            let place = self.place[partner as usize] as usize;
            let place = place - usize::from(place > from);
            let first = place.saturating_sub(PLACES - 1);
            for gap in first..=(place + PLACES).min(self.order.len() - 1) {
                if tried.contains(&gap) {
                    continue;
                }
                tried.push(gap);
                let limit = best.0 - SAVING_MIN;
                let cost = weigh(gap, limit);
                if cost < limit {
                    best = (cost, gap);
                }
            }
        }
        self.work += work;
        let (cost, to) = best;
        if to == from {
            return 0.0;
        }
        self.clock += 1;
        if to < from {
            self.order[to..=from].rotate_right(1);
        } else {
            self.order[from..=to].rotate_left(1);
        }
        self.number_places(from.min(to), from.max(to) + 1);
        self.change_at(from);
        self.change_at(to);
        stay - cost
    }

    /// 2-opt: a stretch is turned where that makes a neuron and a partner neighbours. What that saves.
    fn turn_at(&mut self, neuron: u32) -> f64 {
        let mut gain = 0.0;
        let apart = 2 * self.cost.reach();
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
                if saved > SAVING_MIN {
                    gain += saved;
                    self.clock += 1;
                    self.order[first..end].reverse();
                    self.number_places(first, end);
                    for &id in &self.order[first..end] {
                        self.turned[id as usize] = self.clock;
                    }
                    self.change_at(first);
                    self.change_at(end);
                    break;
                }
            }
        }
        gain
    }

    /// What turning `first..end` saves; the stretch is longer than twice the reach.
    fn turning(&mut self, first: usize, end: usize) -> f64 {
        self.work += 4 * self.activity.words_per_row() as u64;
        let (before, after) = (self.left(first, None), self.right(end, None));
        let (head, tail) = (self.right(first, None), self.left(end, None));
        let saved = |left, right| junction(self.arch, &self.cost, left, right);
        saved(&before, &tail) + saved(&head, &after) - saved(&before, &head) - saved(&tail, &after)
    }
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
