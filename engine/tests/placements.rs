//! Several placements of one layer, and several slots of one neuron: each batch is read from the cheapest placement, each bundle
//! from one of its slots, and what comes out is the same as from any.

#[path = "../../format/tests/common/mod.rs"]
mod common;
mod support;

use common::Recipe;
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::{
    Collapse, Combine, Config, DeviceLaw, Engine, EngineError, FetchStats, required_bytes,
};
use lnp_format::Pack;
use proptest::prelude::*;
use support::Dice;

const NEURONS: u32 = 97;

fn law(combine: Combine) -> DeviceLaw {
    DeviceLaw::new(20.0, 9.64, 2034.0, combine).unwrap()
}

/// An engine over a pack's bytes, for `body`.
fn with_engine<R>(
    file: &[u8],
    change: impl FnOnce(&mut Config),
    body: impl for<'a> FnOnce(&mut Engine<'a, SimulatedQueue<'a>>) -> R,
) -> R {
    let pack = Pack::parse(file, file.len() as u64).unwrap();
    let prefetch_bytes = Config::staging_bytes_full(&pack).next_multiple_of(4096);
    let mut config = Config { prefetch_bytes, verify_reads: true, ..Config::new(&pack) };
    change(&mut config);
    let mut memory = vec![0xcc; required_bytes(&config, &pack).unwrap()];
    let device = SimulatedQueue::new(Image::Bytes(file), law(Combine::Sum), config.queue_depth, 5);
    let opened = |_| Ok::<_, EngineError>(device);
    let mut engine = Engine::open(pack, &config, &mut memory, opened).unwrap();
    body(&mut engine)
}

/// Fetches and compares each bundle with the recipe.
fn fetch<'a>(
    engine: &mut Engine<'a, SimulatedQueue<'a>>,
    recipe: &Recipe,
    layer: u32,
    active: &[u32],
) -> FetchStats {
    let mut seen = Vec::new();
    let stats = engine.fetch(layer, active, |neuron, bundle| {
        assert_eq!(bundle, recipe.bundle(layer, neuron), "layer {layer}, neuron {neuron}");
        seen.push(neuron);
        Ok(())
    });
    assert_eq!(seen, active);
    stats.unwrap()
}

/// The pack of a recipe with one of its placements only.
fn alone(recipe: &Recipe, placement: usize) -> Vec<u8> {
    let mut alone = Recipe::placeholder(2, NEURONS, recipe.shape.bundle_stride);
    alone.orders = match placement.checked_sub(1) {
        None => recipe.orders.clone(),
        Some(replica) => recipe.replicas[replica].clone(),
    };
    alone.build()
}

fn subset(dice: &mut Dice, one_in: u32) -> Vec<u32> {
    (0..NEURONS).filter(|_| dice.one_in(one_in)).collect()
}

#[test]
fn stretches_of_each_placement_are_one_read() {
    let recipe = Recipe::placeholder(2, NEURONS, 4096).with_replicas(3);
    let file = recipe.build();
    with_engine(
        &file,
        |config| config.collapse = Collapse::Off,
        |engine| {
            for layer in 0..2 {
                let orders = std::iter::once(&recipe.orders).chain(&recipe.replicas);
                for orders in orders {
                    let mut active = orders[layer as usize][30..50].to_vec();
                    active.sort_unstable();
                    assert_eq!(fetch(engine, &recipe, layer, &active).reads, 1);
                }
            }
        },
    );
}

#[test]
fn what_is_prefetched_from_one_placement_serves_what_is_read_from_another() {
    let recipe = Recipe::placeholder(2, NEURONS, 5000).with_replicas(2);
    let file = recipe.build();
    let sorted = |slots: &[u32]| {
        let mut neurons = slots.to_vec();
        neurons.sort_unstable();
        neurons
    };
    with_engine(
        &file,
        |config| config.collapse = Collapse::Off,
        |engine| {
            let prefetched = sorted(&recipe.replicas[0][1][10..40]);
            let active = sorted(&recipe.replicas[1][1][20..60]);
            let both = active.iter().filter(|neuron| prefetched.contains(neuron)).count();
            assert!(both > 0 && both < active.len());
            engine.session(|session| {
                assert_eq!(session.prefetch(1, &prefetched).unwrap().reads, 1);
                let mut seen = Vec::new();
                let mut finish = |neuron, _: f32, bundle: &[u8], _: &[u8]| {
                    assert_eq!(bundle, recipe.bundle(1, neuron));
                    seen.push(neuron);
                    Ok(())
                };
                let workers = support::Threads(0);
                let arrive = |_: u32, _: &[u8], _: &[u8]| Ok(0.0);
                let stats = session.fetch(&workers, 1, &active, arrive, &mut finish).unwrap();
                assert_eq!(stats.prefetched, both as u64);
                assert_eq!(seen, active);
            });
        },
    );
}

/// Two groups that share neuron 0: it stands with both.
#[test]
fn each_group_is_one_read() {
    let mut recipe = Recipe::placeholder(1, 40, 4096);
    let order: Vec<u32> = (0..20).chain([0]).chain(20..40).collect();
    (recipe.orders, recipe.shape.slots) = (vec![order], 41);
    let file = recipe.build();
    for collapse in [Collapse::Off, Collapse::Law(law(Combine::Sum))] {
        with_engine(
            &file,
            |config| config.collapse = collapse,
            |engine| {
                let one: Vec<u32> = (0..4).collect();
                assert_eq!(fetch(engine, &recipe, 0, &one).reads, 1);
                let other: Vec<u32> = [0].into_iter().chain(20..24).collect();
                assert_eq!(fetch(engine, &recipe, 0, &other).reads, 1);
            },
        );
    }
}

/// A bundle that was read ahead from one of its slots is not read again from another.
#[test]
fn what_is_prefetched_from_one_slot_is_not_read_from_another() {
    let recipe = Recipe::placeholder(2, NEURONS, 5000).with_replicas(1).with_copies();
    let file = recipe.build();
    with_engine(
        &file,
        |config| config.collapse = Collapse::Off,
        |engine| {
            let mut dice = Dice::new(7);
            for _ in 0..20 {
                let predicted = subset(&mut dice, 4);
                let active = subset(&mut dice, 3);
                let both = active.iter().filter(|id| predicted.contains(id)).count() as u64;
                engine.session(|session| {
                    session.prefetch(1, &predicted).unwrap();
                    let mut seen = Vec::new();
                    let mut finish = |neuron, _: f32, bundle: &[u8], _: &[u8]| {
                        assert_eq!(bundle, recipe.bundle(1, neuron));
                        seen.push(neuron);
                        Ok(())
                    };
                    let workers = support::Threads(0);
                    let arrive = |_: u32, _: &[u8], _: &[u8]| Ok(0.0);
                    let stats = session.fetch(&workers, 1, &active, arrive, &mut finish).unwrap();
                    assert!(stats.prefetched >= both, "{} of {both}", stats.prefetched);
                    assert_eq!(seen, active);
                });
            }
        },
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 3 } else { 64 }, ..ProptestConfig::default() })]

    /// By the rule in force no placement alone would be cheaper; and nothing is read wrongly.
    #[test]
    fn no_placement_alone_is_cheaper(
        seed: u64,
        stride in prop::sample::select(vec![512_u32, 3000, 4096, 12_288]),
        rule in 0..5_usize,
        share in 2_u32..12,
    ) {
        let collapse = [
            Collapse::Off,
            Collapse::Gap { bytes: 10_000 },
            Collapse::Law(law(Combine::Sum)),
            Collapse::Law(law(Combine::Max)),
            Collapse::Whole,
        ][rule];
        let cost = |stats: &FetchStats| match collapse {
            Collapse::Law(law) => law.time_us(stats.reads, stats.bytes_read),
            Collapse::Gap { bytes } => (stats.reads * bytes + stats.bytes_read) as f64,
            Collapse::Off => stats.reads as f64,
            _ => stats.bytes_read as f64,
        };
        let recipe = Recipe::placeholder(2, NEURONS, stride).with_replicas(2);
        let run = |file: &[u8]| {
            let mut dice = Dice::new(seed);
            with_engine(file, |config| config.collapse = collapse, |engine| {
                let sets = (0..6).map(|round| (round % 2, subset(&mut dice, share)));
                let sets: Vec<(u32, Vec<u32>)> = sets.collect();
                let of = |(layer, set): &(u32, Vec<u32>)| cost(&fetch(engine, &recipe, *layer, set));
                sets.iter().map(of).collect::<Vec<f64>>()
            })
        };
        let together = run(&recipe.build());
        let single: Vec<Vec<f64>> = (0..3).map(|placement| run(&alone(&recipe, placement))).collect();
        for (fetch, cost) in together.iter().enumerate() {
            let least = single.iter().map(|costs| costs[fetch]).fold(f64::INFINITY, f64::min);
            prop_assert!((cost - least).abs() < 1e-6, "fetch {fetch}: {cost}, alone {least}");
        }
    }

    /// Whatever the rule, cache and memory: the right bundles, each once.
    #[test]
    fn the_right_bundles_come_out(
        seed: u64,
        stride in prop::sample::select(vec![100_u32, 512, 3000, 4096, 12_288]),
        rule in 0..5_usize,
        share in 2_u32..12,
        cells in prop::sample::select(vec![0_u32, 10, 150]),
        whole in any::<bool>(),
    ) {
        let collapse = [
            Collapse::Off,
            Collapse::Gap { bytes: 10_000 },
            Collapse::Law(law(Combine::Sum)),
            Collapse::Law(law(Combine::Max)),
            Collapse::Whole,
        ][rule];
        let recipe = Recipe::placeholder(2, NEURONS, stride).with_copies();
        let file = recipe.build();
        let pack = Pack::parse(&file, file.len() as u64).unwrap();
        let least = Config::staging_bytes_min(&pack).min(Config::staging_bytes_full(&pack));
        let change = |config: &mut Config| {
            (config.collapse, config.cache_bundles) = (collapse, cells);
            if !whole && rule < 4 {
                config.staging_bytes = (config.staging_bytes / 3).max(least);
            }
        };
        with_engine(&file, change, |engine| {
            let mut dice = Dice::new(seed);
            for round in 0..8 {
                fetch(engine, &recipe, round % 2, &subset(&mut dice, share));
            }
        });
    }
}
