//! Leaving out what a layer misses and is not worth its device time: lossy, and only where it is asked for.

use lnp_format::Shape;
use zerocopy::TryFromBytes;

use super::{ActiveSet, Session};
use crate::arena::{Arena, ArenaSize};
use crate::budget::{Misses, Pace, scratch_len, square};
use crate::choose::{self, choose};
use crate::error::EngineError;
use crate::law::DeviceLaw;
use crate::limits::ARENA_ALIGN;
use crate::plan::Collapse;
use crate::queue::TimedQueue;

/// What bundles are worth at present, layer by layer, and the memory to decide in.
#[derive(Debug)]
pub struct LeaveOut<'m> {
    law: DeviceLaw,
    share: f64,
    paces: &'m mut [Pace],
    /// Slot and position of what is missing, slot above position.
    entries: &'m mut [u64],
    slots: &'m mut [u32],
    strengths: &'m mut [f32],
    keep: &'m mut [bool],
    scratch: &'m mut [u64],
    sums: LeftOut,
}

/// What was left out so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LeftOut {
    /// Sets that were asked about: one a token and layer.
    pub sets: u64,
    /// Bundles.
    pub bundles: u64,
    /// Sum, over the sets, of the share of the squared strength that was lost, as estimated.
    pub lost: f64,
}

impl LeftOut {
    /// The share of the squared strength that was lost, mean of the sets.
    pub fn lost_share(&self) -> f64 {
        self.lost / self.sets.max(1) as f64
    }
}

impl<'m> LeaveOut<'m> {
    /// For packs of this shape: of the squared strength of a layer's neurons the `share` (0 to 1) may be lost, on average
    /// over tokens. `memory` is the caller's, of [`LeaveOut::required_bytes`], at any alignment.
    ///
    /// # Errors
    /// [`EngineError::ArenaTooSmall`].
    pub fn new(
        shape: &Shape,
        law: DeviceLaw,
        share: f64,
        memory: &'m mut [u8],
    ) -> Result<Self, EngineError> {
        let (expected, found) = (Self::required_bytes(shape), memory.len());
        if found < expected {
            return Err(EngineError::ArenaTooSmall { expected, found });
        }
        let neurons = shape.neurons as usize;
        let mut arena = Arena::new(memory);
        let keep = arena.take::<u8>(neurons)?;
        Ok(Self {
            law,
            share,
            // zeros: each is false
            keep: <[bool]>::try_mut_from_bytes(keep)
                .map_err(|_| EngineError::broken("zeros are booleans"))?,
            paces: arena.take(shape.layers as usize)?,
            entries: arena.take(neurons)?,
            slots: arena.take(neurons)?,
            strengths: arena.take(neurons)?,
            scratch: arena.take(scratch_entries(shape))?,
            sums: LeftOut::default(),
        })
    }

    /// Bytes of memory.
    pub fn required_bytes(shape: &Shape) -> usize {
        let neurons = shape.neurons as usize;
        let mut size = ArenaSize::default();
        size.add_bytes(neurons, ARENA_ALIGN);
        size.add::<Pace>(shape.layers as usize);
        size.add::<u64>(neurons);
        size.add::<u32>(neurons);
        size.add::<f32>(neurons);
        size.add::<u64>(scratch_entries(shape));
        size.bytes()
    }

    /// What was left out so far.
    pub const fn left_out(&self) -> LeftOut {
        self.sums
    }
}

impl<'a, Q: TimedQueue<'a>> Session<'_, 'a, Q> {
    /// Of a token's active neurons (ids strictly ascending), leaves out those whose bundles are not worth the device
    /// time: what is cached, or prefetched, is kept. Returns how many are left, at the front of `active`, ascending.
    /// `strengths` is what each is estimated to matter ([`crate::predictors::Predicted::strengths`]); without
    /// any nothing is left out.
    ///
    /// # Errors
    /// A layer or an active set that does not fit the pack; [`EngineError::OtherShape`] where `by` is for another pack, or
    /// there is not a strength for each.
    pub fn leave_out(
        &self,
        layer: u32,
        active: &mut [u32],
        strengths: &[f32],
        by: &mut LeaveOut<'_>,
    ) -> Result<usize, EngineError> {
        let engine = self.engine();
        engine.check_layer(layer)?;
        let neurons = engine.pack.shape().neurons;
        ActiveSet::new(active, neurons)?;
        let pace = by.paces.get_mut(layer as usize).ok_or(EngineError::OtherShape)?;
        if strengths.len() != active.len() || by.entries.len() != neurons as usize {
            let none = strengths.is_empty();
            return if none { Ok(active.len()) } else { Err(EngineError::OtherShape) };
        }
        let (mut missing, mut others) = (0, 0.0);
        for (position, (neuron, strength)) in active.iter().zip(strengths).enumerate() {
            match engine.missing_slot(layer, *neuron) {
                Some(slot) => {
                    by.entries[missing] = (u64::from(slot) << 32) | position as u64;
                    missing += 1;
                }
                None => others += square(*strength),
            }
        }
        let entries = &mut by.entries[..missing];
        let mut geometry = engine.config.geometry(&engine.pack);
        if let Some(view) = engine.pack.layer(layer)
            && view.slots() > neurons
        {
            geometry.slots = view.slots();
            // No neuron has the highest id, and so no slots.
            let id = |position: usize| active.get(position).copied().unwrap_or(u32::MAX);
            let slots_of = |position: usize| view.slots_of(id(position));
            choose(entries, &geometry, &Collapse::Law(by.law), slots_of, by.scratch);
        }
        entries.sort_unstable();
        for (at, entry) in entries.iter().enumerate() {
            by.slots[at] = (entry >> 32) as u32;
            by.strengths[at] = strengths[*entry as u32 as usize];
        }
        let misses =
            Misses { slots: &by.slots[..missing], strengths: &by.strengths[..missing], others };
        let choice = pace.choose(&misses, &geometry, &by.law, by.share, by.keep, by.scratch);
        by.sums.sets += 1;
        by.sums.bundles += (missing - choice.kept) as u64;
        let total = misses.total();
        by.sums.lost += if total > 0.0 { choice.lost / total } else { 0.0 };
        for (entry, keep) in entries.iter().zip(&*by.keep) {
            if !keep {
                active[*entry as u32 as usize] = u32::MAX;
            }
        }
        let mut kept = 0;
        for at in 0..active.len() {
            // No neuron has this id.
            if active[at] != u32::MAX {
                active[kept] = active[at];
                kept += 1;
            }
        }
        Ok(kept)
    }
}

/// Entries of the scratch: what choosing among copies takes, and then what is worth its time.
fn scratch_entries(shape: &Shape) -> usize {
    let choosing = if shape.has_copies() { choose::scratch_len(shape.slots) } else { 0 };
    scratch_len(shape.neurons as usize).max(choosing)
}
