use proptest::prelude::*;

use super::Together;
use crate::Slots;
use crate::price::{Objective, Pricer};
use lnp_engine::DeviceLaw;
use lnp_engine::law::Combine;

fn objective(t0_us: f64, a_us: f64, bundle_bytes: u32) -> Objective {
    let law = DeviceLaw::new(t0_us, a_us, 2034.0, Combine::Sum).unwrap();
    Objective { law, bundle_bytes }
}

/// Batches of ids, ascending, below a number of neurons.
fn batches(neurons: usize, most: usize) -> impl Strategy<Value = Vec<Vec<u32>>> {
    let batch = prop::collection::vec(prop::bool::weighted(0.4), neurons);
    let ids = |batch: Vec<bool>| (0..).zip(batch).filter_map(|(id, is)| is.then_some(id)).collect();
    prop::collection::vec(batch.prop_map(ids), 0..most)
}

fn objectives() -> impl Strategy<Value = Objective> {
    let bytes = prop::sample::select(vec![2304_u32, 4096, 12288, 24576]);
    (prop::sample::select(vec![0.0, 3.0]), 0.0..40.0, bytes)
        .prop_map(|(t0_us, a_us, bytes)| objective(t0_us, a_us, bytes))
}

fn floors(neurons: usize, batches: &[Vec<u32>], objective: &Objective, flash: &[f64]) -> Vec<f64> {
    let together = Together::of(neurons, batches.iter().map(Vec::as_slice));
    together.floor_us(objective, flash).unwrap()
}

/// The least time of a batch from slots that hold `neuron_of_slot`, over all choices of a slot for each of its neurons.
fn cheapest(
    pricer: &mut Pricer,
    neuron_of_slot: &[u32],
    batch: &[u32],
    slots: &mut Vec<u32>,
) -> f64 {
    let Some((first, rest)) = batch.split_first() else {
        let mut sorted = slots.clone();
        sorted.sort_unstable();
        return pricer.slots_price(&sorted).time_us;
    };
    let mut least = f64::INFINITY;
    for slot in (0_u32..).zip(neuron_of_slot).filter(|(_, id)| *id == first).map(|(slot, _)| slot) {
        slots.push(slot);
        least = least.min(cheapest(pricer, neuron_of_slot, rest, slots));
        slots.pop();
    }
    least
}

/// Calls `see` with every way to fill `slots` slots so that each neuron has one at least.
fn all_layouts(neurons: u32, slots: usize, layout: &mut Vec<u32>, see: &mut impl FnMut(&[u32])) {
    let missing = (0..neurons).filter(|id| !layout.contains(id)).count();
    if missing > slots - layout.len() {
        return;
    }
    if layout.len() == slots {
        return see(layout);
    }
    for id in 0..neurons {
        layout.push(id);
        all_layouts(neurons, slots, layout, see);
        layout.pop();
    }
}

/// The least time of all batches over every layout.
fn brute_force(neurons: usize, slots: usize, batches: &[Vec<u32>], objective: &Objective) -> f64 {
    let mut pricer = Pricer::new(objective, slots);
    let mut least = f64::INFINITY;
    all_layouts(neurons as u32, slots, &mut Vec::new(), &mut |layout| {
        let of = |batch: &Vec<u32>| cheapest(&mut pricer, layout, batch, &mut Vec::new());
        least = least.min(batches.iter().map(of).sum());
    });
    least
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// All orders of up to six neurons.
    #[test]
    fn no_order_goes_below(
        (neurons, batches) in (1_usize..7).prop_flat_map(|n| (Just(n), batches(n, 7))),
        objective in objectives(),
    ) {
        let least = brute_force(neurons, neurons, &batches, &objective);
        let floor = floors(neurons, &batches, &objective, &[1.0])[0];
        prop_assert!(floor <= least + 1e-6, "{floor} above {least}");
    }

    /// All layouts of up to four neurons in up to six slots, and all choices of copies.
    #[test]
    fn no_copies_go_below(
        (neurons, batches) in (1_usize..5).prop_flat_map(|n| (Just(n), batches(n, 6))),
        more in 0_usize..3,
        objective in objectives(),
    ) {
        let least = brute_force(neurons, neurons + more, &batches, &objective);
        let flash = (neurons + more) as f64 / neurons as f64;
        let floor = floors(neurons, &batches, &objective, &[flash])[0];
        prop_assert!(floor <= least + 1e-6, "{floor} above {least}");
    }

    /// Larger layers in a random order; and more flash never raises the floor, which stays above the bytes.
    #[test]
    fn no_random_order_goes_below(
        (order, batches) in (2_usize..60).prop_flat_map(|n| {
            (Just((0..n as u32).collect::<Vec<_>>()).prop_shuffle(), batches(n, 12))
        }),
        objective in objectives(),
    ) {
        let mut pricer = Pricer::new(&objective, order.len());
        let placed = Slots::from(order.clone());
        let us: f64 = batches.iter().map(|batch| pricer.batch(batch, &placed).time_us).sum();
        let floors = floors(order.len(), &batches, &objective, &[1.0, 1.3, 2.0, 4.0]);
        prop_assert!(floors[0] <= us + 1e-6, "{} above {us}", floors[0]);
        prop_assert!(floors.is_sorted_by(|less, more| less >= more), "{floors:?}");
        let wanted: usize = batches.iter().map(Vec::len).sum();
        let bytes_us = wanted as f64 * objective.law.transfer_us(objective.bundle_bytes.into());
        prop_assert!(floors[3] >= bytes_us);
    }
}

#[test]
fn groups_that_lie_together_reach_it() {
    // Three groups of neurons, each wanted as a whole: one read for each batch, which no order betters.
    let groups: Vec<Vec<u32>> = (0..3).map(|group| (4 * group..4 * group + 4).collect()).collect();
    let objective = objective(0.0, 9.64, 4096);
    let mut pricer = Pricer::new(&objective, 12);
    let placed = Slots::from((0..12).collect::<Vec<u32>>());
    let us: f64 = groups.iter().map(|batch| pricer.batch(batch, &placed).time_us).sum();
    assert!((floors(12, &groups, &objective, &[1.0])[0] - us).abs() < 1e-9);
}

#[test]
fn a_neuron_with_too_many_partners_has_a_floor_above_its_bytes() {
    // Neuron 0 is wanted with one of six others at a time: next to it are two of them, and bundles are too large to read
    // through one. Worked out by hand: two batches of one read, four of two.
    let pairs: Vec<Vec<u32>> = (1..7).map(|other| vec![0, other]).collect();
    let objective = objective(0.0, 10.0, 24576);
    let bundle_us = objective.law.transfer_us(24576);
    let least = 12.0 * bundle_us + 10.0 * 10.0;
    assert!((brute_force(7, 7, &pairs, &objective) - least).abs() < 1e-9);
    let floors = floors(7, &pairs, &objective, &[1.0, 2.0]);
    // Each of the others could have it beside itself, for all that is counted of them: half of 6 pairs and half of 2.
    assert!((floors[0] - (12.0 * (bundle_us + 10.0) - 40.0)).abs() < 1e-9);
    // With three copies of it each of the others lies beside one.
    assert!((floors[1] - (12.0 * bundle_us + 6.0 * 10.0)).abs() < 1e-9);
}

#[test]
fn a_law_that_does_not_add_up_has_none() {
    let law = DeviceLaw::new(0.0, 9.64, 2034.0, Combine::Max).unwrap();
    let objective = Objective { law, bundle_bytes: 4096 };
    assert_eq!(Together::of(3, [&[0, 2][..]].into_iter()).floor_us(&objective, &[1.0]), None);
}
