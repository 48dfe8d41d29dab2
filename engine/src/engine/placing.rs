//! Where the bundles of an active set are, and what has to be read: from the cache, from what was
//! prefetched, or from the placement of the layer that makes the reads cheapest.

use lnp_format::Layer;

use super::Engine;
use super::bank::DEMANDED;
use super::cut::{Cut, fewer, fitting};
use super::work::{CACHED, Place};
use crate::choose::choose;
use crate::error::EngineError;
use crate::limits::BANKS;
use crate::plan::{Geometry, Plan};
use crate::queue::TimedQueue;

/// What is planned for a bank.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    /// Bundles that are to be read.
    pub(super) missing: usize,
    pub(super) plan: Plan,
    /// Whether the bank's staging area takes it.
    pub(super) fits: bool,
}

/// Where a bundle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In the cache.
    Cached,
    /// Prefetched, or on its way.
    Prefetched,
    /// On the device alone.
    Device,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose<'s> {
    /// A round that will be computed: each bundle gets its place.
    Round,
    /// A prefetch, of which this much is kept.
    Prefetch(Cut<'s>),
}

impl<'a, Q: TimedQueue<'a>> Engine<'a, Q> {
    /// Places and plans as much of `active` as the staging area takes. Taking it from the front keeps the
    /// ids ascending over all rounds. Returns how many, and their plan.
    pub(super) fn next_round(
        &mut self,
        layer: u32,
        active: &[u32],
    ) -> Result<(usize, Planned), EngineError> {
        let staging = self.banks.0[DEMANDED].reads.staging.bytes();
        // Bytes that a bundle of this layer took where the staging area was too small for all, so that the
        // next token need not plan in vain; 0 where it never was.
        let known = self.round_bytes.get(layer as usize).copied().unwrap_or(0);
        let likely = match known {
            0 => usize::MAX,
            bytes => fitting(active.len(), active.len() as u64 * u64::from(bytes), staging),
        };
        let mut round = active.len().min(likely);
        loop {
            let planned = self.plan_cheapest(DEMANDED, layer, &active[..round], Purpose::Round)?;
            let bytes = planned.plan.bytes;
            if known > 0 || !planned.fits {
                let each = bytes.div_ceil(round.max(1) as u64);
                self.round_bytes[layer as usize] = u32::try_from(each).unwrap_or(u32::MAX);
            }
            if planned.fits {
                self.assign(layer, round)?;
                return Ok((round, planned));
            }
            // One bundle always fits: `Config::check` saw to it.
            if round <= 1 {
                return Err(EngineError::broken("one bundle fits into the staging area"));
            }
            round = fewer(round, bytes, staging);
        }
    }

    /// Places `active` and plans its reads into a bank, from the placement of the layer that makes
    /// them cheapest by the collapse rule.
    pub(super) fn plan_cheapest(
        &mut self,
        bank: usize,
        layer: u32,
        active: &[u32],
        purpose: Purpose<'_>,
    ) -> Result<Planned, EngineError> {
        let mut planned = self.plan_placement(bank, layer, 0, active, purpose)?;
        let (mut last, mut best) = (0, 0);
        // With one placement there is nothing to compare.
        if self.pack.placements() > 1 {
            let mut least = self.cost_in(bank, &planned);
            for placement in 1..self.pack.placements() {
                planned = self.plan_placement(bank, layer, placement, active, purpose)?;
                last = placement;
                let cost = self.cost_in(bank, &planned);
                if cost < least {
                    (best, least) = (placement, cost);
                }
            }
        }
        if best != last {
            planned = self.plan_placement(bank, layer, best, active, purpose)?;
        }
        if planned.fits {
            let view = self.pack.placement(layer, best).ok_or(NO_PLACEMENT)?;
            self.banks.0[bank].open(layer, best, &view);
        }
        Ok(planned)
    }

    /// What has just been planned into a bank costs; more than anything where it does not fit.
    fn cost_in(&self, bank: usize, planned: &Planned) -> f64 {
        if !planned.fits {
            return f64::INFINITY;
        }
        self.collapse().cost(&planned.plan, self.banks.0[bank].reads.extents())
    }

    /// The same from one placement.
    fn plan_placement(
        &mut self,
        bank: usize,
        layer: u32,
        placement: u32,
        active: &[u32],
        purpose: Purpose<'_>,
    ) -> Result<Planned, EngineError> {
        let view = self.pack.placement(layer, placement).ok_or(NO_PLACEMENT)?;
        let geometry = Geometry { slots: view.slots(), ..self.config.geometry(&self.pack) };
        let collapse = self.collapse();
        let missing = match purpose {
            Purpose::Round => self.place(layer, &view, active),
            Purpose::Prefetch(_) => self.find_missing(layer, &view, active),
        };
        if view.slots() > self.pack.shape().neurons {
            let (entries, scratch) = self.scratch.split_at_mut(missing);
            // No neuron has the highest id, and so no slots.
            let id = |position: usize| active.get(position).copied().unwrap_or(u32::MAX);
            let slots_of = |position: usize| view.slots_of(id(position));
            choose(entries, &geometry, &collapse, slots_of, scratch);
            if matches!(purpose, Purpose::Round) {
                for entry in &*entries {
                    self.places[*entry as u32 as usize].slot = (entry >> 32) as u32;
                }
            }
        }
        self.scratch[..missing].sort_unstable();
        let missing = match purpose {
            Purpose::Round => missing,
            Purpose::Prefetch(cut) => cut.keep(&mut self.scratch[..missing], &geometry, &collapse),
        };
        let (entries, scratch) = self.scratch.split_at_mut(missing);
        let bank = &mut self.banks.0[bank];
        let (plan, fits) = bank.plan(entries.iter().copied(), &geometry, &collapse, scratch);
        Ok(Planned { missing, plan, fits })
    }

    /// Fills `places` in neuron order, and the front of `scratch` with what is to be read, each by its first slot;
    /// returns how many that are.
    fn place(&mut self, layer: u32, view: &Layer<'_>, active: &[u32]) -> usize {
        let first_bundle = layer * self.pack.shape().neurons;
        let stride = u64::from(self.pack.shape().bundle_stride);
        // What was prefetched may be read from another placement than the rest.
        let prefetched = self.banks.prefetched(layer).and_then(|bank| {
            let held = &self.banks.0[bank];
            let view = self.pack.placement(layer, held.progress.placement)?;
            Some((bank as u32, held, view))
        });
        let mut missing = 0;
        for ((position, neuron), place) in active.iter().enumerate().zip(&mut *self.places) {
            let mut slot = view.slot_of_neuron()[*neuron as usize].get();
            let (source, number) = match self.cache.peek(first_bundle + neuron) {
                Some(cell) => (CACHED, cell),
                None => {
                    let held = prefetched.and_then(|(bank, held, view)| {
                        let mut slots = view.slots_of(*neuron);
                        Some((bank, slots.find(|slot| held.holds(*slot, stride))?))
                    });
                    match held {
                        Some((bank, held_slot)) => {
                            slot = held_slot;
                            (bank, 0)
                        }
                        None => (DEMANDED as u32, 0),
                    }
                }
            };
            *place = Place { neuron: *neuron, slot, source, number, at: 0, run_bundles: 0 };
            if source == DEMANDED as u32 {
                self.scratch[missing] = (u64::from(slot) << 32) | position as u64;
                missing += 1;
            }
        }
        missing
    }

    /// Where a bundle is at present. Of a layer that was begun and not finished, this tells where each of its active
    /// bundles comes from.
    pub fn whereabouts(&self, layer: u32, neuron: u32) -> Whereabouts {
        let shape = self.pack.shape();
        if self.cache.peek(layer * shape.neurons + neuron).is_some() {
            return Whereabouts::Cached;
        }
        let held = self.banks.prefetched(layer).map(|bank| &self.banks.0[bank]);
        let is_held = held.is_some_and(|held| {
            let view = self.pack.placement(layer, held.progress.placement);
            let mut slots = view.iter().flat_map(|view| view.slots_of(neuron));
            slots.any(|slot| held.holds(slot, u64::from(shape.bundle_stride)))
        });
        if is_held { Whereabouts::Prefetched } else { Whereabouts::Device }
    }

    /// The first slot of a bundle of a layer in its first placement; `None` where it is in the cache or prefetched.
    pub(super) fn missing_slot(&self, layer: u32, neuron: u32) -> Option<u32> {
        match self.whereabouts(layer, neuron) {
            Whereabouts::Device => self.pack.layer(layer)?.slots_of(neuron).next(),
            Whereabouts::Cached | Whereabouts::Prefetched => None,
        }
    }

    /// Fills the front of `scratch` with what the cache lacks, each by its first slot; returns how many that are.
    /// Places nothing: a round that was begun has its places.
    fn find_missing(&mut self, layer: u32, view: &Layer<'_>, active: &[u32]) -> usize {
        let first_bundle = layer * self.pack.shape().neurons;
        let mut missing = 0;
        for (position, neuron) in active.iter().enumerate() {
            if self.cache.peek(first_bundle + neuron).is_none() {
                let slot = view.slot_of_neuron()[*neuron as usize].get();
                self.scratch[missing] = (u64::from(slot) << 32) | position as u64;
                missing += 1;
            }
        }
        missing
    }

    /// Notes in which extent each bundle that is not cached lies.
    fn assign(&mut self, layer: u32, round: usize) -> Result<(), EngineError> {
        let stride = u64::from(self.pack.shape().bundle_stride);
        for bank in 1..BANKS {
            let mut wanted = 0;
            if self.banks.0[bank].progress.layer == Some(layer) {
                let places = self.places[..round].iter().enumerate();
                for (position, place) in places.filter(|(_, place)| place.source == bank as u32) {
                    self.scratch[wanted] = (u64::from(place.slot) << 32) | position as u64;
                    wanted += 1;
                }
                self.scratch[..wanted].sort_unstable();
            }
            // An earlier round, or that of another layer, may have been through what was prefetched.
            self.banks.0[bank].reads.staging.renew();
            self.banks.0[bank].reads.want(self.scratch[..wanted].iter().copied());
        }
        let places = &mut *self.places;
        for bank in &mut self.banks.0 {
            let whole = bank.reads.assign(stride, |position, number, at| {
                if let Some(place) = places.get_mut(position) {
                    (place.number, place.at) = (number, at);
                }
            });
            if !whole {
                return Err(EngineError::broken("a plan reads every bundle that it was made for"));
            }
            bank.reads.runs(|position, run_bundles| {
                if let Some(place) = places.get_mut(position) {
                    place.run_bundles = run_bundles;
                }
            });
        }
        Ok(())
    }
}

const NO_PLACEMENT: EngineError =
    EngineError::broken("a layer has the placements that the pack says");
