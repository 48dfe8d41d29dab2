//! Where copies go: one at a time where it saves the profile most, then the order is refined with each copy as a neuron of
//! its own, active where it is the one that is read.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::error::Error;

use lnp_link::{LayerActivity, Objective, refined_order};

use crate::choose::Copies;

/// Neurons beside which a copy is tried.
const PARTNERS: usize = 32;

/// What a layer needs in each token of a profile, less what is pinned.
pub(crate) struct Needs {
    pub(crate) objective: Objective,
    pub(crate) neurons: usize,
    pub(crate) tokens: Vec<Vec<u32>>,
    /// For each neuron those it is most often active with.
    partners: Vec<Vec<u32>>,
}

impl Needs {
    pub(crate) fn new(
        objective: Objective,
        activity: &LayerActivity,
        members: &[u32],
        tokens: Vec<Vec<u32>>,
    ) -> Self {
        let neurons = activity.neurons();
        let mut best: Vec<Vec<(Reverse<u64>, u32)>> = vec![Vec::new(); neurons];
        let active = activity.active_count();
        activity.visit_pairs(members, |i, j, both| {
            let either = active[i as usize] + active[j as usize] - both;
            let share = (u64::from(both) << 32) / u64::from(either.max(1));
            for (one, other) in [(i, j), (j, i)] {
                let list = &mut best[one as usize];
                let at = list.partition_point(|held| *held < (Reverse(share), other));
                if at < PARTNERS {
                    list.insert(at, (Reverse(share), other));
                    list.truncate(PARTNERS);
                }
            }
        });
        let ids = |list: Vec<(Reverse<u64>, u32)>| list.into_iter().map(|(_, id)| id).collect();
        let partners = best.into_iter().map(ids).collect();
        Self { objective, neurons, tokens, partners }
    }

    /// Deals the tokens out to the copies and refines the order for it.
    pub(crate) fn refine(&self, order: &mut Vec<u32>) -> Result<(), Box<dyn Error>> {
        let mut copies = Copies::new(&self.objective, order, self.neurons);
        let row_bytes = order.len().div_ceil(8);
        let mut bits = vec![0_u8; row_bytes * self.tokens.len()];
        let mut chosen = Vec::new();
        for (wanted, row) in self.tokens.iter().zip(bits.chunks_exact_mut(row_bytes)) {
            copies.choose(wanted, &mut chosen);
            chosen.iter().for_each(|slot| row[*slot as usize / 8] |= 1 << (slot % 8));
        }
        let activity = LayerActivity::from_bits(order.len(), &[(&bits, self.tokens.len())])?;
        let slots = refined_order(&activity, &self.objective, (0..order.len() as u32).collect());
        *order = slots.iter().map(|slot| order[*slot as usize]).collect();
        Ok(())
    }

    /// Adds at most `count` copies, each of another neuron; how many were worth it.
    pub(crate) fn add(&self, order: &mut Vec<u32>, count: usize) -> usize {
        let mut copies = Copies::new(&self.objective, order, self.neurons);
        let (tokens, gaps, reach) = (self.tokens.len(), order.len() + 1, copies.reach);
        // Of each gap and token what is not chosen to either side: the gap is before a slot.
        let (mut left, mut right) = (vec![0_u8; gaps * tokens], vec![0_u8; gaps * tokens]);
        let (mut chosen, mut chosen_at) = (Vec::new(), vec![false; order.len()]);
        for (token, wanted) in self.tokens.iter().enumerate() {
            copies.choose(wanted, &mut chosen);
            chosen_at.fill(false);
            chosen.iter().for_each(|slot| chosen_at[*slot as usize] = true);
            let (mut before, mut after) = (reach, reach);
            for gap in 0..gaps {
                left[gap * tokens + token] = before as u8;
                let is = chosen_at.get(gap).is_some_and(|chosen| *chosen);
                before = if is { 0 } else { (before + 1).min(reach) };
            }
            for gap in (0..gaps).rev() {
                right[gap * tokens + token] = after as u8;
                let is = gap > 0 && chosen_at[gap - 1];
                after = if is { 0 } else { (after + 1).min(reach) };
            }
        }
        let at = |gap: usize, token: usize| {
            let place = gap * tokens + token;
            (usize::from(left[place]), usize::from(right[place]))
        };
        // What it costs that a hole read through is longer by one.
        let longer = |left: usize, right: usize| {
            copies.hole_us(left + right + 1) - copies.hole_us(left + right)
        };
        let burden = |gap: usize| -> f64 {
            (0..tokens).map(|token| at(gap, token)).map(|(left, right)| longer(left, right)).sum()
        };
        let burdens: Vec<f64> = (0..gaps).map(burden).collect();
        let mut found: Vec<(f64, usize, u32)> = Vec::new();
        for (slot, id) in order.iter().enumerate() {
            // The tokens that this slot is read in, and what it costs there.
            let read = (0..tokens).filter(|token| right[slot * tokens + token] == 0);
            let saves: Vec<(usize, f64)> = read
                .map(|token| {
                    let (before, after) = (at(slot, token).0, at(slot + 1, token).1);
                    let hole_us = copies.hole_us(before) + copies.hole_us(after);
                    (token, hole_us - copies.hole_us(before + 1 + after))
                })
                .collect();
            let beside = self.partners[*id as usize].iter().flat_map(|id| copies.of(*id));
            let tried: BTreeSet<usize> =
                beside.flat_map(|slot| [*slot as usize, *slot as usize + 1]).collect();
            for gap in tried.into_iter().filter(|gap| slot.abs_diff(*gap) > reach) {
                let gain = |(token, saves): &(usize, f64)| {
                    let (before, after) = at(gap, *token);
                    let hole_us = copies.hole_us(before) + copies.hole_us(after);
                    (saves - hole_us + copies.hole_us(before + after + 1)).max(0.0)
                };
                let gain = saves.iter().map(gain).sum::<f64>() - burdens[gap];
                if gain > 0.0 {
                    found.push((gain, gap, *id));
                }
            }
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut taken, mut copied) = (vec![false; gaps], vec![false; self.neurons]);
        let mut put: Vec<(usize, u32)> = Vec::new();
        for (_, gap, id) in found {
            if put.len() < count && !taken[gap] && !copied[id as usize] {
                taken[gap.saturating_sub(2)..(gap + 3).min(gaps)].fill(true);
                copied[id as usize] = true;
                put.push((gap, id));
            }
        }
        put.sort_unstable();
        for (gap, id) in put.iter().rev() {
            order.insert(*gap, *id);
        }
        put.len()
    }
}
