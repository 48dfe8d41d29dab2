//! The orders a layer's neurons can be laid out in, and what an order yields.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::NEURONS_MAX;
use super::coactivation::LayerActivity;
use super::linking::Linking;
use super::price::Objective;

/// How the neurons of each layer are ordered. The names are part of the links file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As in the model: slot = neuron id.
    Identity,
    /// Shuffled, by a seed that gives the same order for ever.
    Random {
        /// Every layer gets its own stream of this seed.
        seed: u64,
    },
    /// By descending active count, ties by lower id.
    Frequency,
    /// Chains of neurons that are active together ([`super::greedy`]).
    Greedy,
    /// The same by a weight that is corrected for how often each neuron is active at all.
    Jaccard,
    /// The Jaccard chains or the order by frequency, whichever is cheaper, improved in device time
    /// ([`super::refine`]).
    Refined,
    /// Recursive bisection ([`super::bisect`]).
    Bisect,
    /// Greedy, for what a pinned hot set leaves to be read.
    Miss,
    /// Several placements, each refined for a cluster of tokens ([`super::replicas`]).
    Replicas {
        /// How many, 2 to [`PLACEMENTS_MAX`].
        placements: usize,
    },
}

/// Most placements of a layer: beyond, flash is spent for next to nothing.
pub const PLACEMENTS_MAX: usize = 16;

impl Order {
    /// The seed of `random` where none is given.
    pub const SEED_DEFAULT: u64 = 0;

    /// All orders, `random` with the default seed, `replicas` with two placements.
    pub const ALL: [Self; 9] = [
        Self::Identity,
        Self::Random { seed: Self::SEED_DEFAULT },
        Self::Frequency,
        Self::Greedy,
        Self::Jaccard,
        Self::Refined,
        Self::Bisect,
        Self::Miss,
        Self::Replicas { placements: 2 },
    ];

    /// The stable name: that of the variant, in lower case. [`fmt::Display`] adds the number of
    /// placements, as `replicas:4`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Random { .. } => "random",
            Self::Frequency => "frequency",
            Self::Greedy => "greedy",
            Self::Jaccard => "jaccard",
            Self::Refined => "refined",
            Self::Bisect => "bisect",
            Self::Miss => "miss",
            Self::Replicas { .. } => "replicas",
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replicas { placements } => f.pad(&format!("replicas:{placements}")),
            _ => f.pad(self.name()),
        }
    }
}

/// A name that is none of [`Order::ALL`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown order '{0}': use identity, random, frequency, greedy, jaccard, refined, bisect, miss \
         or replicas:K with 2 to {PLACEMENTS_MAX} placements"
)]
pub struct UnknownOrder(String);

impl FromStr for Order {
    type Err = UnknownOrder;

    /// Parses what [`fmt::Display`] writes; `random` gets [`Order::SEED_DEFAULT`].
    fn from_str(name: &str) -> Result<Self, UnknownOrder> {
        let unknown = || UnknownOrder(name.to_owned());
        if let Some(count) = name.strip_prefix("replicas:") {
            return match count.parse() {
                Ok(placements @ 2..=PLACEMENTS_MAX) => Ok(Self::Replicas { placements }),
                _ => Err(unknown()),
            };
        }
        let single = |order: &Self| !matches!(order, Self::Replicas { .. });
        let named = |order: &Self| single(order) && order.name() == name;
        Self::ALL.into_iter().find(named).ok_or_else(unknown)
    }
}

/// A placement of a layer: which neuron lies in which slot, and where the links begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Neuron id by slot, a permutation.
    pub neuron_of_slot: Vec<u32>,
    /// As [`LayerLinks::link_begin`].
    pub link_begin: Vec<u32>,
}

/// The order of one layer: which neuron lies in which slot, and where the links begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerLinks {
    /// Neuron id by slot, a permutation.
    pub neuron_of_slot: Vec<u32>,
    /// First slot of each link, then the number of neurons: links + 1 entries, the first 0,
    /// strictly ascending.
    pub link_begin: Vec<u32>,
    /// In how many profiling tokens each neuron is active, by neuron id (not by slot).
    pub active_count: Vec<u32>,
    /// Further placements of the layer, as many as all other layers have.
    pub further: Vec<Placement>,
}

impl LayerLinks {
    /// Neurons (and slots) of the layer.
    pub fn neurons(&self) -> usize {
        self.neuron_of_slot.len()
    }

    /// Links of the layer.
    pub fn links(&self) -> usize {
        self.link_begin.len().saturating_sub(1)
    }

    /// Slot by neuron id: the inverse of `neuron_of_slot`.
    ///
    /// # Errors
    /// `neuron_of_slot` is no permutation.
    pub fn slot_of_neuron(&self) -> Result<Vec<u32>> {
        slot_of_neuron(&self.neuron_of_slot)
    }

    /// The same for each placement.
    ///
    /// # Errors
    /// One of them is no permutation.
    pub fn slots_of_neurons(&self) -> Result<Vec<Vec<u32>>> {
        self.placements().map(|(neurons, _)| slot_of_neuron(neurons)).collect()
    }

    /// Each placement: neuron ids by slot, and where links begin.
    pub fn placements(&self) -> impl Iterator<Item = (&[u32], &[u32])> {
        let further = self.further.iter().map(|p| (&p.neuron_of_slot[..], &p.link_begin[..]));
        std::iter::once((&self.neuron_of_slot[..], &self.link_begin[..])).chain(further)
    }

    /// Checks every rule stated at the fields, and each active count against `profile_tokens`.
    ///
    /// # Errors
    /// The first rule broken, in words; the caller adds the layer.
    pub fn check(&self, profile_tokens: u64) -> Result<()> {
        let neurons = self.neurons();
        ensure!(
            (1..=NEURONS_MAX).contains(&neurons),
            "{neurons} neurons: 1 to {NEURONS_MAX} are possible"
        );
        for (placement, (neuron_of_slot, link_begin)) in self.placements().enumerate() {
            check_placement(neurons, neuron_of_slot, link_begin).map_err(
                |error| match placement {
                    0 => error,
                    _ => error.context(format!("placement {placement}")),
                },
            )?;
        }
        ensure!(
            self.active_count.len() == neurons,
            "{} active counts for {neurons} neurons",
            self.active_count.len()
        );
        let over = self.active_count.iter().position(|&count| u64::from(count) > profile_tokens);
        if let Some(neuron) = over {
            let count = self.active_count[neuron];
            anyhow::bail!("neuron {neuron} is active in {count} of {profile_tokens} tokens");
        }
        Ok(())
    }
}

/// The inverse of a permutation.
///
/// # Errors
/// It is none.
pub fn slot_of_neuron(neuron_of_slot: &[u32]) -> Result<Vec<u32>> {
    const FREE: u32 = u32::MAX;
    let neurons = neuron_of_slot.len();
    let mut slots = vec![FREE; neurons];
    for (slot, &neuron) in neuron_of_slot.iter().enumerate() {
        let place = slots.get_mut(neuron as usize).with_context(|| {
            format!("slot {slot} holds neuron {neuron} of a layer with {neurons} neurons")
        })?;
        ensure!(*place == FREE, "neuron {neuron} is in slots {place} and {slot}");
        *place = slot as u32;
    }
    Ok(slots)
}

fn check_placement(neurons: usize, neuron_of_slot: &[u32], link_begin: &[u32]) -> Result<()> {
    ensure!(neuron_of_slot.len() == neurons, "{} slots of {neurons}", neuron_of_slot.len());
    slot_of_neuron(neuron_of_slot)?;
    ensure!(
        link_begin.first() == Some(&0)
            && link_begin.last().is_some_and(|&last| last as usize == neurons),
        "links must begin at slot 0 and end at {neurons}, got {:?} and {:?}",
        link_begin.first(),
        link_begin.last()
    );
    if let Some(pair) = link_begin.windows(2).find(|pair| pair[0] >= pair[1]) {
        anyhow::bail!("link at slot {} is followed by one at {}", pair[0], pair[1]);
    }
    Ok(())
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

/// `neurons`, ascending ids, by descending count, ties by lower id. O(n log n).
pub(crate) fn by_frequency(active_count: &[u32], mut neurons: Vec<u32>) -> Vec<u32> {
    // A stable sort of ascending ids: ties stay with the lower id first.
    neurons.sort_by_key(|&neuron| std::cmp::Reverse(active_count[neuron as usize]));
    neurons
}

/// Fisher-Yates from the last place down. The numbers are drawn here, not by a distribution of
/// `rand`, whose algorithms may change between versions: this order must not.
pub(crate) fn shuffled(neurons: u32, seed: u64, layer: usize) -> Vec<u32> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    for _ in 0..layer {
        // 2^128 draws further: the streams of the layers never overlap.
        rng.jump();
    }
    let mut order: Vec<u32> = (0..neurons).collect();
    for place in (1..order.len()).rev() {
        // The high half of draw * (place + 1) is in 0..=place; its bias is under 2^-43 for a
        // layer of NEURONS_MAX.
        let chosen = (u128::from(rng.next_u64()) * (place as u128 + 1)) >> 64;
        order.swap(place, chosen as usize);
    }
    order
}

#[cfg(test)]
#[path = "orders_tests.rs"]
mod tests;
