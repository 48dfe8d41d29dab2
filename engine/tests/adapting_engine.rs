//! Adaptive collapse through the engine: the simulated device changes while it reads.

#[path = "../../format/tests/common/mod.rs"]
mod common;
mod support;

use common::Recipe;
use lnp_engine::law::Curve;
use lnp_engine::queue::Clock;
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::{Collapse, Combine, Config, DeviceLaw, Engine, EngineError, required_bytes};
use lnp_format::Pack;
use support::Dice;

const LAYERS: u32 = 6;
const NEURONS: u32 = 1536;
/// A token of these active sets takes some 4 ms on this device.
const CHANGE_NS: u64 = 600_000_000;

fn law(a_us: f64, b_mib_s: f64) -> DeviceLaw {
    DeviceLaw::new(20.0, a_us, b_mib_s, Combine::Sum).unwrap()
}

/// Clustered active sets, of another density in each layer.
fn active(dice: &mut Dice, layer: u32) -> Vec<u32> {
    let mut set = std::collections::BTreeSet::new();
    while set.len() < 40 + 70 * layer as usize {
        let begin = dice.below(NEURONS);
        let length = dice.among(1, 4);
        set.extend(begin..(begin + length).min(NEURONS));
    }
    set.into_iter().collect()
}

fn gap_bytes(collapse: Collapse) -> u64 {
    match collapse {
        Collapse::Law(law) => law.gap_bytes(),
        _ => 0,
    }
}

#[test]
fn the_gap_follows_a_device_that_changes() {
    let before = law(9.64, 2034.0);
    for (what, after) in [("heat", law(9.64, 1356.0)), ("contention", law(19.28, 2034.0))] {
        let file = Recipe::placeholder(LAYERS, NEURONS, 4096).build();
        let pack = Pack::parse(&file, file.len() as u64).unwrap();
        let config = Config { collapse: Collapse::Law(before), adapt: true, ..Config::new(&pack) };
        let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
        let mut engine = Engine::open(pack, &config, &mut memory, |_| {
            let image = Image::Opaque(file.len() as u64);
            Ok::<_, EngineError>(SimulatedQueue::new(image, before, 32, 1).then(CHANGE_NS, after))
        })
        .unwrap();
        let mut dice = Dice::new(5);
        let mut since_change = 0;
        while since_change < 200 {
            since_change += u32::from(engine.queue().now_ns() >= CHANGE_NS);
            for layer in 0..LAYERS {
                engine.fetch(layer, &active(&mut dice, layer), |_, _| Ok(())).unwrap();
            }
            // Now and then a batch explores another gap: the median of a few is what is believed.
            if since_change > 64 && since_change % 4 == 0 {
                let gap = gap_bytes(engine.believed_collapse()) as f64;
                let right = after.gap_bytes() as f64;
                assert!((gap / right - 1.0).abs() < 0.15, "{what}, {since_change}: {gap} {right}");
            }
        }
    }
}

#[test]
fn a_curve_is_planned_for_and_obeyed() {
    let file = Recipe::placeholder(1, 256, 4096).build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    // Reads beyond 64 KiB cost a second operation.
    let curve = Curve::new(30.0, &[(4096, 12.0), (65_536, 40.0), (69_632, 60.0), (1 << 20, 520.0)])
        .unwrap();
    let mut dice = Dice::new(1);
    let active: Vec<u32> = (0..256).filter(|_| dice.one_in(3)).collect();
    let mut times_ns = Vec::new();
    for collapse in [Collapse::Curve(curve), Collapse::Off, Collapse::Gap { bytes: 1 << 20 }] {
        let config = Config { collapse, ..Config::new(&pack) };
        let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
        let mut engine = Engine::open(pack, &config, &mut memory, |_| {
            let image = Image::Opaque(file.len() as u64);
            Ok::<_, EngineError>(SimulatedQueue::new(image, curve, 8, 1))
        })
        .unwrap();
        times_ns.push(engine.fetch(0, &active, |_, _| Ok(())).unwrap().io_ns);
    }
    assert!(times_ns[0] < times_ns[1] && times_ns[0] < times_ns[2], "{times_ns:?}");
}
