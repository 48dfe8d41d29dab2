//! Where the bundles of an active set are, and what has to be read: from the cache, from what was
//! read ahead, or from the placement of the layer that makes the reads cheapest.

use lnp_format::Layer;
use zerocopy::byteorder::{LE, U32};

use super::Engine;
use super::round::{CACHED, Place};
use crate::error::EngineError;
use crate::limits::BANKS;
use crate::plan::Plan;
use crate::queue::ReadQueue;

impl<'a, Q: ReadQueue<'a>> Engine<'a, Q> {
    /// Places and plans as much of `active` as the staging area takes: at most `most`, or else a
    /// half, a quarter and so on. Taking it from the front keeps the ids ascending over all rounds.
    /// Returns how many, and how many of them are to be read.
    pub(super) fn next_round(
        &mut self,
        layer: u32,
        active: &[u32],
        most: usize,
    ) -> Result<(usize, usize, Plan), EngineError> {
        let mut round = active.len().min(most);
        loop {
            let (missing, plan, fits) = self.plan_cheapest(0, layer, &active[..round])?;
            if fits {
                self.assign(layer, round);
                return Ok((round, missing, plan));
            }
            // One bundle always fits: `Config::check` saw to it.
            if round <= 1 {
                return Err(EngineError::OUT_OF_STEP);
            }
            round = round.div_ceil(2);
        }
    }

    /// Places `active` and plans its reads into a bank, from the placement of the layer that makes
    /// them cheapest by the collapse rule. Returns how many are to be read, and whether they fit.
    pub(super) fn plan_cheapest(
        &mut self,
        bank: usize,
        layer: u32,
        active: &[u32],
    ) -> Result<(usize, Plan, bool), EngineError> {
        let mut planned = self.plan_placement(bank, layer, 0, active)?;
        let (mut last, mut best) = (0, 0);
        // With one placement there is nothing to compare.
        if self.pack.placements() > 1 {
            let mut least = self.cost_in(bank, &planned);
            for placement in 1..self.pack.placements() {
                planned = self.plan_placement(bank, layer, placement, active)?;
                last = placement;
                let cost = self.cost_in(bank, &planned);
                if cost < least {
                    (best, least) = (placement, cost);
                }
            }
        }
        if best != last {
            planned = self.plan_placement(bank, layer, best, active)?;
        }
        if planned.2 {
            let view = self.pack.placement(layer, best).ok_or(EngineError::OUT_OF_STEP)?;
            self.banks[bank].open(layer, best, &view);
        }
        Ok(planned)
    }

    /// What has just been planned into a bank costs; more than anything where it does not fit.
    fn cost_in(&self, bank: usize, (_, plan, fits): &(usize, Plan, bool)) -> f64 {
        if !fits {
            return f64::INFINITY;
        }
        self.collapse().cost(plan, self.banks[bank].table.extents())
    }

    /// The same from one placement.
    fn plan_placement(
        &mut self,
        bank: usize,
        layer: u32,
        placement: u32,
        active: &[u32],
    ) -> Result<(usize, Plan, bool), EngineError> {
        let view = self.pack.placement(layer, placement).ok_or(EngineError::OUT_OF_STEP)?;
        let (geometry, collapse) = (self.config.geometry(&self.pack), self.collapse());
        let missing = self.place(layer, &view, active);
        let (entries, scratch) = self.scratch.split_at_mut(missing);
        let bank = &mut self.banks[bank];
        let (plan, fits) = bank.plan(entries.iter().copied(), &geometry, &collapse, scratch);
        Ok((missing, plan, fits))
    }

    /// The bank that a layer was foreseen in.
    pub(super) fn foreseen(&self, layer: u32) -> Option<usize> {
        (1..BANKS).find(|bank| self.banks[*bank].progress.layer == Some(layer))
    }

    /// Fills `places` in neuron order, and the front of `scratch` with what is to be read, in slot
    /// order; returns how many that are.
    fn place(&mut self, layer: u32, view: &Layer<'_>, active: &[u32]) -> usize {
        let first_bundle = layer * self.pack.shape().neurons;
        let stride = u64::from(self.pack.shape().bundle_stride);
        // What is foreseen may be read from another placement than the rest.
        let foreseen = self.foreseen(layer).and_then(|bank| {
            let view = self.pack.placement(layer, self.banks[bank].progress.placement)?;
            Some((bank as u32, &self.banks[bank], view.slot_of_neuron()))
        });
        let mut missing = 0;
        for ((position, neuron), place) in active.iter().enumerate().zip(&mut *self.places) {
            let slot_in = |slots: &[U32<LE>]| slots[*neuron as usize].get();
            let mut slot = slot_in(view.slot_of_neuron());
            let (source, number) = match self.cache.peek(first_bundle + neuron) {
                Some(cell) => (CACHED, cell),
                None => match foreseen {
                    Some((bank, foreseen, slots)) if foreseen.holds(slot_in(slots), stride) => {
                        slot = slot_in(slots);
                        (bank, 0)
                    }
                    _ => (0, 0),
                },
            };
            *place = Place { neuron: *neuron, slot, source, number, at: 0, run_bundles: 0 };
            if source == 0 {
                self.scratch[missing] = (u64::from(slot) << 32) | position as u64;
                missing += 1;
            }
        }
        self.scratch[..missing].sort_unstable();
        missing
    }

    /// Notes in which extent each bundle that is not cached lies.
    pub(super) fn assign(&mut self, layer: u32, round: usize) {
        let stride = u64::from(self.pack.shape().bundle_stride);
        for bank in 1..BANKS {
            let mut wanted = 0;
            if self.banks[bank].progress.layer == Some(layer) {
                let places = self.places[..round].iter().enumerate();
                for (position, place) in places.filter(|(_, place)| place.source == bank as u32) {
                    self.scratch[wanted] = (u64::from(place.slot) << 32) | position as u64;
                    wanted += 1;
                }
                self.scratch[..wanted].sort_unstable();
            }
            // An earlier round, or that of another layer, may have been through what is foreseen.
            self.banks[bank].table.staging.renew();
            self.banks[bank].table.want(self.scratch[..wanted].iter().copied());
        }
        let places = &mut *self.places;
        for bank in &mut self.banks {
            bank.table.assign(stride, |position, number, at| {
                if let Some(place) = places.get_mut(position) {
                    (place.number, place.at) = (number, at);
                }
            });
            bank.table.runs(|position, run_bundles| {
                if let Some(place) = places.get_mut(position) {
                    place.run_bundles = run_bundles;
                }
            });
        }
    }
}
