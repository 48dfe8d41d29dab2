//! Copies: an order in which some bundles stand in several slots, for more flash.
//!
//! They are added one at a time where each saves the profile most: a neuron in a gap beside those that it is active
//! with. The tokens are dealt out to the copies as the engine will do it ([`lnp_engine::choose`]), the order is refined
//! with each copy as a neuron of its own, active where it is the one that is read, and so on until the flash is spent.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use anyhow::Result;

use super::coactivation::LayerActivity;
use super::price::{Objective, Pricer};
use super::refine::refine;
use super::rows::active_neurons;
use super::slots::Slots;

/// Neurons beside which a copy is tried.
const PARTNERS: usize = 32;
/// Each step adds this fraction of the members, from twice their slots on of half the slots that are there. Larger steps from the
/// beginning save 1 % less at twice the flash; twice as many steps, or twice the partners, the same within half a per cent.
const STEPS: usize = 12;
/// Most places (a gap and a token) that are looked at in a step: of more tokens every second, third and so on is. Eight times as
/// many save 0.3 % more on one model and 0.1 % less on another, and take three times as long.
const PLACES_MAX: usize = 1 << 24;
/// Tokens that are written side by side: a cache line's.
const BLOCK_TOKENS: usize = 64;
/// Holes are looked at up to so many bundles.
const REACH_MAX: usize = 200;

/// What a layer needs in each token of a profile.
struct Needs<'a> {
    objective: &'a Objective,
    neurons: usize,
    /// The members that are active.
    tokens: Vec<Vec<u32>>,
    /// For each neuron those it is most often active with.
    partners: Vec<Vec<u32>>,
    /// Microseconds of a hole of so many bundles, up to twice the reach.
    hole_us: Vec<f64>,
    /// Holes of this many bundles cost a read.
    reach: usize,
}

/// `order`, of `members`, grown to at most `most` slots, or as far as copies are worth it. `tell` is called with the share
/// done.
///
/// # Errors
/// More slots than a layer may have.
pub(crate) fn with_copies(
    objective: &Objective,
    activity: &LayerActivity,
    members: &[u32],
    order: Vec<u32>,
    most: usize,
    tell: &dyn Fn(f64),
) -> Result<Vec<u32>> {
    let needs = Needs::new(objective, activity, members, most);
    let (mut grown, start) = (order.clone(), order.len());
    while grown.len() < most {
        let step = members.len().max(grown.len() / 2) / STEPS + 1;
        let step = step.min(most - grown.len());
        if needs.add(&mut grown, step) == 0 {
            break;
        }
        needs.refine(&mut grown)?;
        tell((grown.len() - start) as f64 / (most - start) as f64);
    }
    Ok(if needs.us(&grown) < needs.us(&order) { grown } else { order })
}

impl<'a> Needs<'a> {
    fn new(
        objective: &'a Objective,
        activity: &LayerActivity,
        members: &[u32],
        most: usize,
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
        let mut is_member = vec![false; neurons];
        members.iter().for_each(|id| is_member[*id as usize] = true);
        let bits = activity.token_bits();
        let one_in = (activity.tokens() * (most + 1)).div_ceil(PLACES_MAX).max(1);
        let rows = bits.chunks_exact(neurons.div_ceil(8)).step_by(one_in);
        let wanted = |row| -> Vec<u32> {
            active_neurons(row).filter(|id| is_member[*id]).map(|id| id as u32).collect()
        };
        let tokens = rows.map(wanted).collect();
        let read_us = objective.law.a_us();
        let bundle_us = objective.law.transfer_us(objective.bundle_bytes.into());
        let reach = ((read_us / bundle_us).ceil() as usize).clamp(1, REACH_MAX);
        let hole_us = (0..2 * reach + 2).map(|k| (k as f64 * bundle_us).min(read_us)).collect();
        Self { objective, neurons, tokens, partners, hole_us, reach }
    }

    fn hole_us(&self, bundles: usize) -> f64 {
        self.hole_us[bundles.min(2 * self.reach)]
    }

    /// Calls `see` with the slots that each token is read from, ascending.
    fn deal(&self, order: &[u32], mut see: impl FnMut(usize, &[(u32, usize)])) {
        let slots = Slots::of_order(order, self.neurons);
        let mut pricer = Pricer::new(self.objective, order.len());
        let mut chosen = Vec::new();
        for (token, wanted) in self.tokens.iter().enumerate() {
            pricer.choose(wanted, &slots, &mut chosen);
            see(token, &chosen);
        }
    }

    /// Microseconds of all tokens.
    fn us(&self, order: &[u32]) -> f64 {
        let slots = Slots::of_order(order, self.neurons);
        let mut pricer = Pricer::new(self.objective, order.len());
        self.tokens.iter().map(|wanted| pricer.batch(wanted, &slots).time_us).sum()
    }

    /// Deals the tokens out to the copies and refines the order for it.
    fn refine(&self, order: &mut Vec<u32>) -> Result<()> {
        let row_bytes = order.len().div_ceil(8);
        let mut bits = vec![0_u8; row_bytes * self.tokens.len()];
        self.deal(order, |token, chosen| {
            let row = &mut bits[token * row_bytes..(token + 1) * row_bytes];
            chosen.iter().for_each(|(slot, _)| row[*slot as usize / 8] |= 1 << (slot % 8));
        });
        let activity = LayerActivity::from_bits(order.len(), &[(&bits, self.tokens.len())])?;
        let slots = (0..order.len() as u32).collect();
        let (refined, _) = refine(&activity, self.objective, slots, |_| ());
        *order = refined.iter().map(|slot| order[*slot as usize]).collect();
        Ok(())
    }

    /// Adds at most `count` copies, each of another neuron; how many were worth it.
    fn add(&self, order: &mut Vec<u32>, count: usize) -> usize {
        let (tokens, gaps, reach) = (self.tokens.len(), order.len() + 1, self.reach);
        // Of each gap and token what is not chosen to either side: the gap is before a slot.
        let (mut left, mut right) = (vec![0_u8; gaps * tokens], vec![0_u8; gaps * tokens]);
        // Written by token and looked at by gap: some tokens are written side by side, before they are spread over the gaps.
        let mut block = [vec![0_u8; gaps * BLOCK_TOKENS], vec![0_u8; gaps * BLOCK_TOKENS]];
        let mut chosen_at = vec![false; order.len()];
        self.deal(order, |token, chosen| {
            chosen_at.fill(false);
            chosen.iter().for_each(|(slot, _)| chosen_at[*slot as usize] = true);
            let (mut before, mut after) = (reach, reach);
            let column = token % BLOCK_TOKENS;
            for gap in 0..gaps {
                block[0][gap * BLOCK_TOKENS + column] = before as u8;
                let is = chosen_at.get(gap).is_some_and(|chosen| *chosen);
                before = if is { 0 } else { (before + 1).min(reach) };
            }
            for gap in (0..gaps).rev() {
                block[1][gap * BLOCK_TOKENS + column] = after as u8;
                let is = gap > 0 && chosen_at[gap - 1];
                after = if is { 0 } else { (after + 1).min(reach) };
            }
            if column + 1 == BLOCK_TOKENS || token + 1 == tokens {
                for (side, block) in [&mut left, &mut right].into_iter().zip(&block) {
                    let rows = side.chunks_exact_mut(tokens).zip(block.chunks_exact(BLOCK_TOKENS));
                    rows.for_each(|(row, block)| {
                        row[token - column..=token].copy_from_slice(&block[..=column]);
                    });
                }
            }
        });
        let at = |gap: usize, token: usize| {
            let place = gap * tokens + token;
            (usize::from(left[place]), usize::from(right[place]))
        };
        // What it costs that a hole read through is longer by one.
        let longer =
            |left: usize, right: usize| self.hole_us(left + right + 1) - self.hole_us(left + right);
        let burden = |gap: usize| -> f64 {
            (0..tokens).map(|token| at(gap, token)).map(|(left, right)| longer(left, right)).sum()
        };
        let burdens: Vec<f64> = (0..gaps).map(burden).collect();
        let slots = Slots::of_order(order, self.neurons);
        let mut found: Vec<(f64, usize, u32)> = Vec::new();
        for (slot, id) in order.iter().enumerate() {
            // The tokens that this slot is read in, and what it costs there.
            let read = (0..tokens).filter(|token| right[slot * tokens + token] == 0);
            let saves: Vec<(usize, f64)> = read
                .map(|token| {
                    let (before, after) = (at(slot, token).0, at(slot + 1, token).1);
                    let hole_us = self.hole_us(before) + self.hole_us(after);
                    (token, hole_us - self.hole_us(before + 1 + after))
                })
                .collect();
            let beside = self.partners[*id as usize].iter().flat_map(|id| slots.of(*id));
            let tried: BTreeSet<usize> =
                beside.flat_map(|slot| [slot as usize, slot as usize + 1]).collect();
            // No more is saved than all that this slot costs, and where a hole is read through anyhow, the copy in it.
            let most = saves.iter().map(|(_, saves)| saves + self.hole_us(1)).sum::<f64>();
            let worth = |gap: &usize| slot.abs_diff(*gap) > reach && most > burdens[*gap];
            for gap in tried.into_iter().filter(worth) {
                let gain = |(token, saves): &(usize, f64)| {
                    let (before, after) = at(gap, *token);
                    let hole_us = self.hole_us(before) + self.hole_us(after);
                    (saves - hole_us + self.hole_us(before + after + 1)).max(0.0)
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

#[cfg(test)]
#[path = "copies_tests.rs"]
mod tests;
