//! The arrays of a link index: the order of one placement of a layer.

use core::cmp::Ordering;

use zerocopy::FromBytes;
use zerocopy::byteorder::{LE, U32};

use crate::checksum::check_zero;
use crate::error::FormatError;
use crate::layout::{LinkIndexHeader, field_at};
use crate::shape::Shape;

/// The arrays of a `link_index` section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkIndex<'a> {
    pub(crate) header: &'a LinkIndexHeader,
    pub(crate) slot_of_neuron: &'a [U32<LE>],
    pub(crate) neuron_of_slot: &'a [U32<LE>],
    pub(crate) link_begin: &'a [U32<LE>],
    pub(crate) active_count: &'a [U32<LE>],
    /// Empty without copies.
    pub(crate) next_slot: &'a [U32<LE>],
}

impl<'a> LinkIndex<'a> {
    /// Cuts the section into its arrays; `None` where its length is not that of the arrays.
    pub(crate) fn split(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = LinkIndexHeader::ref_from_prefix(bytes).ok()?;
        let words = <[U32<LE>]>::ref_from_bytes(rest).ok()?;
        let neurons = usize::try_from(header.neurons.get()).ok()?;
        let links = usize::try_from(header.links.get()).ok()?;
        let (slots, nexts) = match usize::try_from(header.slots.get()).ok()? {
            0 => (neurons, 0),
            slots => (slots, slots),
        };
        let (slot_of_neuron, words) = words.split_at_checked(neurons)?;
        let (neuron_of_slot, words) = words.split_at_checked(slots)?;
        let (link_begin, words) = words.split_at_checked(links.checked_add(1)?)?;
        let (active_count, next_slot) = words.split_at_checked(slots)?;
        (next_slot.len() == nexts).then_some(Self {
            header,
            slot_of_neuron,
            neuron_of_slot,
            link_begin,
            active_count,
            next_slot,
        })
    }

    /// Slots of the placement.
    pub(crate) const fn slots(&self) -> u32 {
        self.neuron_of_slot.len() as u32
    }

    /// The slots of a neuron, ascending; none where the layer has no such neuron.
    pub(crate) fn slots_of(&self, neuron: u32) -> Slots<'a> {
        let first = self.slot_of_neuron.get(neuron as usize).map(|slot| slot.get());
        Slots { next_slot: self.next_slot, next: first }
    }

    /// Checks every rule of the section, which begins at `offset`; `copies`: whether the feature bit says that neurons may
    /// have several slots.
    pub(crate) fn check(
        &self,
        shape: &Shape,
        copies: bool,
        offset: u64,
    ) -> Result<(), FormatError> {
        let of_header = |field, rule, found: u32| FormatError::Field {
            field,
            offset: field_at(LinkIndexHeader::FIELDS, field, offset),
            rule,
            found: found.into(),
        };
        if self.header.neurons.get() != shape.neurons {
            let rule = "must be that of the model shape";
            return Err(of_header("neurons", rule, self.header.neurons.get()));
        }
        let slots = self.header.slots.get();
        let slots_ok =
            if copies { (shape.neurons..=shape.slots).contains(&slots) } else { slots == 0 };
        if !slots_ok {
            let rule =
                "must be neurons to slots of the model shape where the feature bit says so, else 0";
            return Err(of_header("slots", rule, slots));
        }
        let reserved_at = field_at(LinkIndexHeader::FIELDS, "reserved", offset);
        check_zero("link_index_header.reserved", reserved_at, &self.header.reserved)?;
        let header_bytes = size_of::<LinkIndexHeader>() as u64;
        let broken = |Word { field, at, found }, rule| FormatError::Field {
            field,
            offset: offset + header_bytes + 4 * at as u64,
            rule,
            found: found.into(),
        };
        if copies {
            self.check_walks().map_err(|word| {
                broken(word, "must lead through all slots of each neuron, ascending")
            })?;
        } else {
            self.check_inverse().map_err(|word| {
                broken(word, "must name each neuron once and be the inverse of slot_of_neuron")
            })?;
        }
        let [_, links_at, counts_at, _] = self.begins();
        let mut expected = Ordering::Equal; // the first link begins at slot 0, later ones after it
        let mut previous = 0;
        for (link, begin) in self.link_begin.iter().enumerate() {
            let word = Word { field: "link_begin", at: links_at + link, found: begin.get() };
            if begin.get().cmp(&previous) != expected {
                return Err(broken(word, "must begin with 0 and ascend"));
            }
            previous = begin.get();
            expected = Ordering::Greater;
        }
        if previous != self.slots() {
            let word = Word { field: "link_begin", at: counts_at - 1, found: previous };
            return Err(broken(word, "must end with the number of slots"));
        }
        let tokens = self.header.profile_tokens.get();
        for (slot, count) in self.active_count.iter().enumerate() {
            if u64::from(count.get()) > tokens {
                let (at, found) = (counts_at + slot, count.get());
                let word = Word { field: "active_count", at, found };
                return Err(broken(word, "must be at most profile_tokens"));
            }
        }
        Ok(())
    }

    /// Without copies each of the two arrays is the other's inverse: that makes both permutations.
    fn check_inverse(&self) -> Result<(), Word> {
        let [ids_at, ..] = self.begins();
        for (slot, neuron) in self.neuron_of_slot.iter().enumerate() {
            let back =
                usize::try_from(neuron.get()).ok().and_then(|id| self.slot_of_neuron.get(id));
            if back.map(|back| back.get() as usize) != Some(slot) {
                let (at, found) = (ids_at + slot, neuron.get());
                return Err(Word { field: "neuron_of_slot", at, found });
            }
        }
        Ok(())
    }

    /// Walks through the slots of each neuron.
    fn check_walks(&self) -> Result<(), Word> {
        let [ids_at, .., nexts_at] = self.begins();
        let mut visited = 0;
        for (neuron, first) in self.slot_of_neuron.iter().enumerate() {
            let mut word = Word { field: "slot_of_neuron", at: neuron, found: first.get() };
            // It ascends, so it ends; and a slot has one neuron, so all walks together are as long as the slots are many.
            loop {
                let slot = word.found as usize;
                let holds = |id: &&U32<LE>| id.get() as usize == neuron;
                self.neuron_of_slot.get(slot).filter(holds).ok_or(word)?;
                visited += 1;
                let next = self.next_slot.get(slot).map_or(0, |next| next.get());
                if next == 0 {
                    break;
                }
                word = Word { field: "next_slot", at: nexts_at + slot, found: next };
                if next as usize <= slot {
                    return Err(word);
                }
            }
        }
        // A slot that no walk comes by: to tell which would take memory.
        let whole = visited == self.neuron_of_slot.len();
        let word = Word { field: "neuron_of_slot", at: ids_at, found: visited as u32 };
        if whole { Ok(()) } else { Err(word) }
    }

    /// Words from the end of the header to neuron_of_slot, link_begin, active_count and next_slot.
    const fn begins(&self) -> [usize; 4] {
        let (neurons, slots) = (self.slot_of_neuron.len(), self.neuron_of_slot.len());
        let counts = neurons + slots + self.link_begin.len();
        [neurons, neurons + slots, counts, counts + slots]
    }
}

/// A word of the arrays that breaks a rule.
#[derive(Clone, Copy, Debug)]
struct Word {
    field: &'static str,
    /// Words from the end of the header.
    at: usize,
    found: u32,
}

/// The slots of a neuron, ascending: one, or more where it has copies.
#[derive(Clone, Copy, Debug)]
pub struct Slots<'a> {
    next_slot: &'a [U32<LE>],
    next: Option<u32>,
}

impl Iterator for Slots<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let slot = self.next?;
        let next = self.next_slot.get(slot as usize).map(|next| next.get());
        self.next = next.filter(|next| *next > slot);
        Some(slot)
    }
}
