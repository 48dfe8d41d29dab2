//! From an order's name to the placement of every layer: what is pinned apart from the rest, the
//! rest in the order asked for.

use std::cell::Cell;
use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use super::LAYERS_MAX;
use super::baselines::bisect;
use super::coactivation::LayerActivity;
use super::copies::with_copies;
use super::file::Links;
use super::greedy::chains_of;
use super::hot::{hot_bundles, hot_sets};
use super::orders::{Order, by_frequency, shuffled};
use super::pairs::Weight;
use super::placement::{LayerLinks, Placement};
use super::price::{Objective, price_layer};
use super::profile::{Part, Profile};
use super::refine::refine;
use super::replicas::{Arrange, replicas};
use super::slots::Slots;
use lnp_common::tensor_file::SYNTHETIC;
use lnp_device::LawText;

/// Steps that the progress of a layer is told in.
pub const LAYER_STEPS: u64 = 1000;
/// Share of `refined` that its start takes, and its start with the moves, all but the prices: guesses,
/// for the progress only.
const REFINED_SHARES: [f64; 2] = [0.1, 0.9];

/// An order and what it is made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Linking {
    /// The order of what is not pinned.
    pub order: Order,
    /// What the orders that weigh device time go by.
    pub objective: Objective,
    /// Share of the model's bundles, the most frequent, that a cache keeps and that are therefore
    /// placed apart; 0 for none.
    pub pin: f64,
}

impl Linking {
    /// How the order was made, as notes of a links file.
    pub fn notes(&self) -> BTreeMap<String, String> {
        let mut notes = BTreeMap::new();
        if self.pin > 0.0 {
            notes.insert("order.pinned".into(), self.pin.to_string());
        }
        if self.order.weighs_time() {
            let law = LawText::from(&self.objective.law);
            notes.insert("order.law".into(), law.to_string());
            notes.insert("order.bundle_bytes".into(), self.objective.bundle_bytes.to_string());
        }
        notes
    }

    /// Links `layers` layers in parallel, on rayon's current pool.
    ///
    /// `activity_of(layer)` is called on the worker, so that only the layers being linked are in
    /// memory, and twice where something is pinned; `progress` is called with the steps done since it
    /// was last called, [`LAYER_STEPS`] for each layer in all. The result doesn't depend on the number
    /// of threads.
    ///
    /// # Errors
    /// More than [`LAYERS_MAX`] layers, or the error of the lowest layer that failed.
    pub fn link(
        &self,
        layers: usize,
        activity_of: impl Fn(usize) -> Result<LayerActivity> + Sync,
        progress: impl Fn(u64) + Sync,
    ) -> Result<Vec<LayerLinks>> {
        ensure!(layers <= LAYERS_MAX, "{layers} layers: at most {LAYERS_MAX} are possible");
        let activity_of = |layer| activity_of(layer).with_context(|| format!("layer {layer}"));
        let hot = self.hot_sets(layers, &activity_of)?;
        let linked: Vec<Result<LayerLinks>> = (0..layers)
            .into_par_iter()
            .map(|layer| {
                let hot = hot.get(layer).map_or(&[][..], Vec::as_slice);
                let told = Cell::new(0);
                let tell = |share: f64| {
                    let done = (share * LAYER_STEPS as f64) as u64;
                    if done > told.get() {
                        progress(done - told.replace(done));
                    }
                };
                let links = self.link_one(layer, &activity_of(layer)?, hot, &tell)?;
                tell(1.0);
                Ok(links)
            })
            .collect();
        linked.into_iter().collect()
    }

    /// The links file of a profile: all its layers linked, and where they come from. `progress` as in
    /// [`Linking::link`].
    ///
    /// # Errors
    /// As [`Linking::link`].
    pub fn links(&self, profile: &Profile, progress: impl Fn(u64) + Sync) -> Result<Links> {
        let activity_of = |layer| profile.activity(layer, Part::All);
        let layers = self.link(profile.layers(), activity_of, progress)?;
        let mut notes = self.notes();
        if profile.is_synthetic() {
            notes.insert(SYNTHETIC.into(), "made from synthetic traces: no model's own".into());
        }
        Ok(Links {
            order: self.order,
            neurons: profile.neurons(),
            profile_tokens: profile.tokens(),
            corpora: profile.corpora(),
            model: profile.model().to_owned(),
            traces: profile.sources.clone(),
            tool: Links::this_tool(),
            notes,
            layers,
        })
    }

    /// For each layer which neurons are pinned; empty where none are.
    ///
    /// # Errors
    /// Those of `activity_of`.
    pub fn hot_sets(
        &self,
        layers: usize,
        activity_of: &(impl Fn(usize) -> Result<LayerActivity> + Sync),
    ) -> Result<Vec<Vec<bool>>> {
        if self.pin <= 0.0 {
            return Ok(Vec::new());
        }
        let counts: Vec<Result<Vec<u32>>> = (0..layers)
            .into_par_iter()
            .map(|layer| Ok(activity_of(layer)?.active_count().to_vec()))
            .collect();
        let counts: Vec<Vec<u32>> = counts.into_iter().collect::<Result<_>>()?;
        let neurons = counts.first().map_or(0, Vec::len);
        Ok(hot_sets(&counts, hot_bundles(layers, neurons, self.pin)))
    }

    /// Links one layer. `hot` says which neurons are pinned, empty for none; `layer` only chooses
    /// the stream of [`Order::Random`].
    ///
    /// What is pinned stands at the end by descending frequency, each neuron a link of its own: it
    /// is not read, or all of it once.
    ///
    /// # Errors
    /// The result broke a rule of [`LayerLinks`]: a defect of this program.
    pub fn link_layer(
        &self,
        layer: usize,
        activity: &LayerActivity,
        hot: &[bool],
    ) -> Result<LayerLinks> {
        self.link_one(layer, activity, hot, &|_| ())
    }

    /// [`Linking::link_layer`]; `tell` is called with the share done.
    fn link_one(
        &self,
        layer: usize,
        activity: &LayerActivity,
        hot: &[bool],
        tell: &dyn Fn(f64),
    ) -> Result<LayerLinks> {
        let is_hot = |id: u32| hot.get(id as usize).is_some_and(|hot| *hot);
        let (pinned, members): (Vec<u32>, Vec<u32>) =
            (0..activity.neurons() as u32).partition(|id| is_hot(*id));
        let pinned = by_frequency(activity.active_count(), pinned);
        let with_pinned = |(mut neuron_of_slot, mut link_begin): (Vec<u32>, Vec<u32>)| {
            for id in &pinned {
                neuron_of_slot.push(*id);
                link_begin.push(neuron_of_slot.len() as u32);
            }
            Placement { neuron_of_slot, link_begin }
        };
        let mut placements = match self.order {
            Order::Replicas { placements } => {
                let by = |order| {
                    let (one, members) = (self.with(order), &members);
                    move |activity: &LayerActivity, tell: &dyn Fn(f64)| {
                        one.arrange(layer, activity, members, tell)
                    }
                };
                let (quick, thorough) = (by(Order::Jaccard), by(Order::Refined));
                let arrange = Arrange { quick: &quick, thorough: &thorough };
                replicas(&self.objective, activity, &members, placements, &arrange, tell)?
            }
            _ => vec![self.arrange(layer, activity, &members, tell)?],
        }
        .into_iter()
        .map(with_pinned);
        let first = placements.next().context("an order without a placement")?;
        let Placement { neuron_of_slot, link_begin } = first;
        let (active_count, further) = (activity.active_count().to_vec(), placements.collect());
        let links = LayerLinks { neuron_of_slot, link_begin, active_count, further };
        links
            .check(activity.tokens() as u64)
            .with_context(|| format!("layer {layer}: order {} came out wrong", self.order))?;
        Ok(links)
    }

    /// Another order made for the same.
    fn with(&self, order: Order) -> Self {
        Self { order, ..*self }
    }

    /// The order of `members`, ascending ids, and where its links begin; of several placements one.
    fn arrange(
        &self,
        layer: usize,
        activity: &LayerActivity,
        members: &[u32],
        tell: &dyn Fn(f64),
    ) -> Result<(Vec<u32>, Vec<u32>)> {
        let each_alone = |order: Vec<u32>| {
            let begin = (0..=order.len() as u32).collect();
            (order, begin)
        };
        Ok(match self.order {
            Order::Identity => each_alone(members.to_vec()),
            Order::Random { seed } => {
                let mut order = shuffled(activity.neurons() as u32, seed, layer);
                order.retain(|id| members.binary_search(id).is_ok());
                each_alone(order)
            }
            Order::Frequency => each_alone(by_frequency(activity.active_count(), members.to_vec())),
            Order::Greedy | Order::Miss => chains_of(activity, members, Weight::Count),
            Order::Jaccard => chains_of(activity, members, Weight::Jaccard),
            Order::Bisect => whole(bisect(activity, members)),
            Order::Refined | Order::Replicas { .. } => {
                whole(self.refined(activity, members, tell)?)
            }
            Order::Copies { percent } => {
                // As long as all of the flash takes: most of it goes into growing.
                let order = self.refined(activity, members, &|share| tell(0.2 * share))?;
                let copies = activity.neurons() as u64 * u64::from(percent - 100) / 100;
                let most = members.len() + copies as usize;
                let tell = |share: f64| tell(0.2 + 0.8 * share);
                whole(with_copies(&self.objective, activity, members, order, most, &tell)?)
            }
        })
    }

    /// The Jaccard chains or the order by frequency, whichever is cheaper, improved; or that itself,
    /// should the planner find it cheaper still.
    fn refined(
        &self,
        activity: &LayerActivity,
        members: &[u32],
        tell: &dyn Fn(f64),
    ) -> Result<Vec<u32>> {
        let [from, to] = REFINED_SHARES;
        let bits = activity.token_bits();
        let price = |order: &[u32]| self.price_of(activity, &bits, order);
        // Where reads are dear and bundles small, a dense front may beat any chains.
        let by_count = by_frequency(activity.active_count(), members.to_vec());
        let chains = chains_of(activity, members, Weight::Jaccard).0;
        let (by_count_us, chains_us) = (price(&by_count)?, price(&chains)?);
        let (start, start_us) = match chains_us <= by_count_us {
            true => (chains, chains_us),
            false => (by_count, by_count_us),
        };
        let (refined, _) = refine(activity, &self.objective, start.clone(), |share| {
            tell(from + share * (to - from));
        });
        tell(to);
        Ok(if price(&refined)? <= start_us { refined } else { start })
    }

    /// Microseconds of the whole profile, whose `bits` these are, where only `order` is read.
    fn price_of(&self, activity: &LayerActivity, bits: &[u8], order: &[u32]) -> Result<f64> {
        // What is not a member is not read; its place does not matter.
        let mut resident = vec![true; activity.neurons()];
        order.iter().for_each(|id| resident[*id as usize] = false);
        let slots = Slots::of_order(order, activity.neurons());
        let rows = bits.chunks_exact(activity.neurons().div_ceil(8));
        Ok(price_layer(&self.objective, rows, &[slots], &resident)?.time_us)
    }
}

/// An order of some neurons of a layer, improved in device time as [`Order::Refined`] is from its start, by the costs of
/// holes.
pub fn refined_order(activity: &LayerActivity, objective: &Objective, order: Vec<u32>) -> Vec<u32> {
    refine(activity, objective, order, |_| ()).0
}

/// Orders one layer, nothing pinned, for the default law and bundles of 4 KiB where that
/// matters: [`Linking`] has the choice. `layer` only chooses the stream of [`Order::Random`].
///
/// # Errors
/// The result broke a rule of [`LayerLinks`]: a defect of this program.
pub fn link_layer(order: Order, layer: usize, activity: &LayerActivity) -> Result<LayerLinks> {
    Linking { order, objective: Objective::phone()?, pin: 0.0 }.link_layer(layer, activity, &[])
}

/// [`Linking::link`] with nothing pinned, as [`link_layer`].
///
/// # Errors
/// As [`Linking::link`].
pub fn link_layers(
    order: Order,
    layers: usize,
    activity_of: impl Fn(usize) -> Result<LayerActivity> + Sync,
    progress: impl Fn(u64) + Sync,
) -> Result<Vec<LayerLinks>> {
    Linking { order, objective: Objective::phone()?, pin: 0.0 }.link(layers, activity_of, progress)
}

/// An order that is one link: nothing in it is cut off from its neighbours.
fn whole(order: Vec<u32>) -> (Vec<u32>, Vec<u32>) {
    let begin = if order.is_empty() { vec![0] } else { vec![0, order.len() as u32] };
    (order, begin)
}

#[cfg(test)]
#[path = "linking_tests.rs"]
mod tests;
