//! What an order yields: which neuron lies in which slot of a layer.

use anyhow::{Context, Result, ensure};

use super::NEURONS_MAX;
use super::slots::Slots;

/// A placement of a layer: which neuron lies in which slot, and where the links begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Neuron id by slot: each neuron at least once. One that stands in several slots has *copies*.
    pub neuron_of_slot: Vec<u32>,
    /// As [`LayerLinks::link_begin`].
    pub link_begin: Vec<u32>,
}

/// The order of one layer: which neuron lies in which slot, and where the links begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerLinks {
    /// Neuron id by slot: each neuron at least once. One that stands in several slots has *copies*.
    pub neuron_of_slot: Vec<u32>,
    /// First slot of each link, then the number of slots: links + 1 entries, the first 0,
    /// strictly ascending.
    pub link_begin: Vec<u32>,
    /// In how many profiling tokens each neuron is active, by neuron id (not by slot).
    pub active_count: Vec<u32>,
    /// Further placements of the layer, as many as all other layers have.
    pub further: Vec<Placement>,
}

impl LayerLinks {
    /// Neurons of the layer.
    pub fn neurons(&self) -> usize {
        self.active_count.len()
    }

    /// Most slots of a placement: as many as neurons, where no neuron has copies.
    pub fn slots(&self) -> usize {
        self.placements().map(|(neurons, _)| neurons.len()).max().unwrap_or(0)
    }

    /// Links of the layer.
    pub fn links(&self) -> usize {
        self.link_begin.len().saturating_sub(1)
    }

    /// The first slot of each neuron, by neuron id.
    ///
    /// # Errors
    /// A neuron has no slot, or more than one where there are no more slots than neurons.
    pub fn slot_of_neuron(&self) -> Result<Vec<u32>> {
        slot_of_neuron(&self.neuron_of_slot, self.neurons())
    }

    /// All slots of each neuron, in each placement.
    ///
    /// # Errors
    /// The same, of one of them.
    pub fn slots_of_neurons(&self) -> Result<Vec<Slots>> {
        let neurons = self.neurons();
        let of = |(order, _): (&[u32], &[u32])| {
            slot_of_neuron(order, neurons).map(|_| Slots::of_order(order, neurons))
        };
        self.placements().map(of).collect()
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
        let over = self.active_count.iter().position(|&count| u64::from(count) > profile_tokens);
        if let Some(neuron) = over {
            let count = self.active_count[neuron];
            anyhow::bail!("neuron {neuron} is active in {count} of {profile_tokens} tokens");
        }
        Ok(())
    }
}

/// The first slot of each neuron, by neuron id.
///
/// # Errors
/// A neuron has no slot, or more than one where there are no more slots than neurons.
pub fn slot_of_neuron(neuron_of_slot: &[u32], neurons: usize) -> Result<Vec<u32>> {
    const NONE: u32 = u32::MAX;
    let has_copies = neuron_of_slot.len() > neurons;
    let mut slots = vec![NONE; neurons];
    for (slot, &neuron) in neuron_of_slot.iter().enumerate() {
        let first = slots.get_mut(neuron as usize).with_context(|| {
            format!("slot {slot} holds neuron {neuron} of a layer with {neurons} neurons")
        })?;
        ensure!(*first == NONE || has_copies, "neuron {neuron} is in slots {first} and {slot}");
        *first = (*first).min(slot as u32);
    }
    let homeless = slots.iter().position(|slot| *slot == NONE);
    ensure!(homeless.is_none(), "neuron {} is in no slot", homeless.unwrap_or_default());
    Ok(slots)
}

/// By slot, the next slot that holds the same neuron; 0 for none: what a pack with copies has beside the slots.
pub fn next_slots(neuron_of_slot: &[u32], neurons: usize) -> Vec<u32> {
    let (mut next, mut later) = (vec![0; neuron_of_slot.len()], vec![0; neurons]);
    for (slot, &neuron) in neuron_of_slot.iter().enumerate().rev() {
        if let Some(later) = later.get_mut(neuron as usize) {
            next[slot] = std::mem::replace(later, slot as u32);
        }
    }
    next
}

fn check_placement(neurons: usize, neuron_of_slot: &[u32], link_begin: &[u32]) -> Result<()> {
    let slots = neuron_of_slot.len();
    ensure!(slots >= neurons, "{slots} slots for {neurons} neurons");
    ensure!(slots <= NEURONS_MAX, "{slots} slots: {NEURONS_MAX} are possible");
    slot_of_neuron(neuron_of_slot, neurons)?;
    ensure!(
        link_begin.first() == Some(&0)
            && link_begin.last().is_some_and(|&last| last as usize == slots),
        "links must begin at slot 0 and end at {slots}, got {:?} and {:?}",
        link_begin.first(),
        link_begin.last()
    );
    if let Some(pair) = link_begin.windows(2).find(|pair| pair[0] >= pair[1]) {
        anyhow::bail!("link at slot {} is followed by one at {}", pair[0], pair[1]);
    }
    Ok(())
}
