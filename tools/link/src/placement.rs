//! What an order yields: which neuron lies in which slot of a layer.

use anyhow::{Context, Result, ensure};

use super::NEURONS_MAX;

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
