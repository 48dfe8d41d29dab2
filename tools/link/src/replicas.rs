//! Several placements of one layer, each for a cluster of tokens.
//!
//! As k-means does: tokens are dealt out, a placement is made from each cluster, and each token goes
//! over to the placement that reads it cheapest, until the clusters hardly change. What a token
//! costs is the planner's price, so the clusters are made by what they are for. The engine does the
//! same at run time: it reads each batch from the placement that is cheapest for it.

use anyhow::Result;

use super::coactivation::LayerActivity;
use super::price::{Objective, Pricer};
use super::rows::active_neurons;
use super::slots::Slots;

/// Rounds of dealing out and linking; the prices of the last few differ by less than 0.1 %.
const ROUNDS: usize = 8;
/// Neighbouring tokens that begin in one cluster.
const STRETCH: usize = 64;

/// An order of some neurons, and where its links begin.
pub(crate) type Arranged = (Vec<u32>, Vec<u32>);

/// Makes an order for some activity; the second argument is called with the share done.
type ArrangeOne<'a> = &'a dyn Fn(&LayerActivity, &dyn Fn(f64)) -> Result<Arranged>;

/// How the neurons of one cluster are ordered.
pub(crate) struct Arrange<'a> {
    /// Fast: clusters are found with it.
    pub(crate) quick: ArrangeOne<'a>,
    /// As good as can be: the placements are made with it.
    pub(crate) thorough: ArrangeOne<'a>,
}

/// The orders of `members`, ascending ids, in so many placements, each with where its links begin.
/// The first is the one that is cheapest alone: a reader that knows one placement only takes it.
///
/// `tell` is called with the share done, by a guess.
///
/// # Errors
/// Those of `arrange`.
pub(crate) fn replicas(
    objective: &Objective,
    activity: &LayerActivity,
    members: &[u32],
    placements: usize,
    arrange: &Arrange<'_>,
    tell: &dyn Fn(f64),
) -> Result<Vec<Arranged>> {
    let mut clusters = Clusters::new(objective, activity, members);
    // Knuth's multiplicative hash: stretches of a text end up in different clusters.
    let hash = |token: usize| ((token / STRETCH) as u32).wrapping_mul(2_654_435_761) >> 16;
    clusters.cluster_of =
        (0..activity.tokens()).map(|token| hash(token) as usize % placements).collect();
    let mut orders = vec![(arrange.quick)(activity, &|_| ())?; placements];
    for round in 0..ROUNDS {
        tell(0.5 * round as f64 / ROUNDS as f64);
        clusters.link(arrange.quick, &mut orders, &|_| ())?;
        if !clusters.deal_out(&orders) {
            break;
        }
    }
    clusters.link(arrange.thorough, &mut orders, &|share| tell(0.5 + 0.5 * share))?;
    let mut order_of: Vec<usize> = (0..placements).collect();
    let alone: Vec<f64> = orders.iter().map(|order| clusters.price_alone(order)).collect();
    order_of.sort_by(|a, b| alone[*a].total_cmp(&alone[*b]));
    Ok(order_of.into_iter().map(|placement| orders[placement].clone()).collect())
}

/// Tokens, and which placement each is linked in.
struct Clusters<'a> {
    activity: &'a LayerActivity,
    /// All tokens' bits, as in a trace.
    bits: Vec<u8>,
    cluster_of: Vec<usize>,
    pricer: Pricer,
    is_member: Vec<bool>,
}

impl<'a> Clusters<'a> {
    fn new(objective: &Objective, activity: &'a LayerActivity, members: &[u32]) -> Self {
        let mut is_member = vec![false; activity.neurons()];
        for &id in members {
            is_member[id as usize] = true;
        }
        Self {
            activity,
            bits: activity.token_bits(),
            cluster_of: Vec::new(),
            pricer: Pricer::new(objective, activity.neurons()),
            is_member,
        }
    }

    /// Makes each placement from its cluster; that of an empty one stays as it is.
    fn link(
        &self,
        arrange: ArrangeOne<'_>,
        orders: &mut [Arranged],
        tell: &dyn Fn(f64),
    ) -> Result<()> {
        let clusters = orders.len() as f64;
        let row_bytes = self.activity.neurons().div_ceil(8);
        for (cluster, order) in orders.iter_mut().enumerate() {
            let rows = self.bits.chunks_exact(row_bytes).zip(&self.cluster_of);
            let mine: Vec<u8> =
                rows.filter(|(_, of)| **of == cluster).flat_map(|(row, _)| row).copied().collect();
            if mine.is_empty() {
                continue;
            }
            let tokens = mine.len() / row_bytes;
            let activity = LayerActivity::from_bits(self.activity.neurons(), &[(&mine, tokens)])?
                .with_pair_bytes(self.activity.pair_bytes_max());
            *order = arrange(&activity, &|share| {
                tell((cluster as f64 + share) / clusters);
            })?;
        }
        Ok(())
    }

    /// Moves each token to the placement that reads it cheapest; false where none moved.
    fn deal_out(&mut self, orders: &[Arranged]) -> bool {
        let slots: Vec<Slots> = orders.iter().map(|(order, _)| self.slots(order)).collect();
        let row_bytes = self.activity.neurons().div_ceil(8);
        let mut moved = false;
        for (row, cluster) in self.bits.chunks_exact(row_bytes).zip(&mut self.cluster_of) {
            let neurons = members_of(row, &self.is_member);
            let (cheapest, _) = self.pricer.cheapest(&neurons, &slots);
            moved |= cheapest != *cluster;
            *cluster = cheapest;
        }
        moved
    }

    /// Microseconds of all tokens from one placement.
    fn price_alone(&mut self, order: &Arranged) -> f64 {
        let slots = self.slots(&order.0);
        let row_bytes = self.activity.neurons().div_ceil(8);
        let rows = self.bits.chunks_exact(row_bytes);
        rows.map(|row| self.pricer.batch(&members_of(row, &self.is_member), &slots).time_us).sum()
    }

    fn slots(&self, order: &[u32]) -> Slots {
        Slots::of_order(order, self.activity.neurons())
    }
}

/// The members that are active in a token.
fn members_of(row: &[u8], is_member: &[bool]) -> Vec<u32> {
    active_neurons(row).filter(|id| is_member[*id]).map(|id| id as u32).collect()
}

#[cfg(test)]
#[path = "replicas_tests.rs"]
mod tests;
