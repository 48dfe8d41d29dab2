//! Where the neurons of a placement stand, by neuron: one slot each, or several where it has copies.

/// The slots of each neuron.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    /// The first slot by neuron id; [`NONE`] where it has none.
    first: Vec<u32>,
    /// The next slot of the same neuron by slot, 0 for none; empty without copies.
    next: Vec<u32>,
    slots: usize,
}

/// A neuron without a slot.
const NONE: u32 = u32::MAX;

impl Slots {
    /// Of an order of some or all of `neurons` neurons, ids below that.
    pub fn of_order(neuron_of_slot: &[u32], neurons: usize) -> Self {
        let (mut first, mut next) = (vec![NONE; neurons], vec![0; neuron_of_slot.len()]);
        let mut has_copies = false;
        for (slot, neuron) in neuron_of_slot.iter().enumerate().rev() {
            let later = std::mem::replace(&mut first[*neuron as usize], slot as u32);
            if later != NONE {
                (next[slot], has_copies) = (later, true);
            }
        }
        if !has_copies {
            next.clear();
        }
        Self { first, next, slots: neuron_of_slot.len() }
    }

    /// Slots of the placement.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Whether a neuron has several.
    pub fn has_copies(&self) -> bool {
        !self.next.is_empty()
    }

    /// The first slot of each neuron, by neuron id; beyond all slots where it has none.
    pub fn first(&self) -> &[u32] {
        &self.first
    }

    /// The slots of a neuron, ascending.
    pub fn of(&self, neuron: u32) -> impl Iterator<Item = u32> + '_ {
        let mut at = Some(self.first[neuron as usize]).filter(|first| *first != NONE);
        std::iter::from_fn(move || {
            let slot = at?;
            at = self.next.get(slot as usize).copied().filter(|next| *next > 0);
            Some(slot)
        })
    }
}

impl From<Vec<u32>> for Slots {
    /// Each neuron has one slot: that at its id.
    fn from(first: Vec<u32>) -> Self {
        let slots = first.len();
        Self { first, next: Vec::new(), slots }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_that_hold_the_neuron() {
        let order = [2, 0, 3, 0, 2, 0];
        let slots = Slots::of_order(&order, 5);
        for id in 0..5 {
            let held = (0..).zip(order).filter(|(_, own)| *own == id).map(|(slot, _)| slot);
            assert!(slots.of(id).eq(held), "{id}");
        }
        assert_eq!((slots.slots(), slots.has_copies()), (6, true));
        assert!(!Slots::of_order(&[1, 0], 2).has_copies());
        assert_eq!(Slots::of_order(&[1, 2, 0], 3), Slots::from(vec![2, 0, 1]));
    }
}
