//! What the engine's decisions cost, as a table kept in the repository: a change of the planner, the
//! cache or an order shows in review. Made-up but clustered active sets from one seed, on the
//! simulated device; `LNP_BLESS=1` writes the table anew.

#[path = "../../engine/tests/support/mod.rs"]
mod support;

use std::fmt::Write;
use std::path::Path;

use lnp_device::LawText;
use lnp_engine::{CachePolicy, Combine, DeviceLaw};
use lnp_link::hot::{hot_bundles, hot_sets};
use lnp_link::price::{Objective, Price, price_layer};
use lnp_link::{LayerActivity, Links, Order, TraceSource, link_layers};
use lnp_measure::replay::{ActiveSets, Caches, ReplayOptions, Rules, Target, replay};
use lnp_pack::recipe::ModelSize;
use lnp_pack::{PackIndex, Recipe};
use support::Dice;

const LAYERS: usize = 2;
const NEURONS: usize = 512;
const TOKENS: usize = 400;

/// Each token activates three of 24 scattered groups of 12 neurons, most of each, the first groups
/// more often, and a few neurons besides.
fn bits(seed: u64) -> Vec<Vec<u8>> {
    let mut dice = Dice::new(seed);
    let mut layer = |number: usize| {
        let mut bits = vec![0_u8; TOKENS * NEURONS / 8];
        for row in bits.chunks_exact_mut(NEURONS / 8) {
            let mut activate = |neuron: usize| row[neuron / 8] |= 1 << (neuron % 8);
            for _ in 0..3 {
                let group = dice.below(24).min(dice.below(24)) as usize;
                for member in (0..12).filter(|_| dice.below(10) < 8) {
                    activate((group * 12 + member) * (101 + 2 * number) % NEURONS);
                }
            }
            (0..6).for_each(|_| activate(dice.below(NEURONS as u32) as usize));
        }
        bits
    };
    (0..LAYERS).map(&mut layer).collect()
}

fn pack(order: Order, profile: &[Vec<u8>], bundle_bytes: u32) -> PackIndex {
    let activity = |layer: usize| LayerActivity::from_bits(NEURONS, &[(&profile[layer], TOKENS)]);
    let links = Links {
        order,
        neurons: NEURONS,
        profile_tokens: TOKENS as u64,
        corpora: vec!["made up".into()],
        model: "made up".into(),
        traces: vec![TraceSource { file: "none".into(), sha256: "0".repeat(64) }],
        tool: Links::this_tool(),
        notes: Default::default(),
        layers: link_layers(order, LAYERS, activity, |_| ()).unwrap(),
    };
    let model = ModelSize::of_links(&links);
    let layout =
        Recipe::for_placeholders(Some(&links), model, bundle_bytes, 1).unwrap().layout().unwrap();
    PackIndex::in_memory(order.name().into(), layout.index, layout.bytes.file_bytes)
}

#[test]
fn decisions_cost_what_they_did() {
    let (profile, test) = (bits(1), bits(2));
    let sets = ActiveSets::new(test, NEURONS, TOKENS);
    let laws = [
        ("sum", LawText::ONEPLUS_12.law().unwrap()),
        ("max", DeviceLaw::new(30.0, 50.0, 900.0, Combine::Max).unwrap()),
    ];
    let mut told = String::new();
    for (name, law) in laws {
        for bundle_bytes in [1536, 4096, 16384] {
            let packs: Vec<PackIndex> =
                Order::ALL[..4].iter().map(|order| pack(*order, &profile, bundle_bytes)).collect();
            for cache_ratio in [0.05, 0.2] {
                let caches = Caches::default_of(cache_ratio);
                let options = ReplayOptions {
                    law,
                    caches,
                    rules: Rules::default(),
                    queue_depth: 32,
                    repeats: 1,
                    turn: None,
                    time_max: None,
                    timeline_tokens: None,
                };
                let rows =
                    replay(&packs, &sets, &Target::Simulated, &options, &mut |_| ()).unwrap();
                writeln!(told, "law {name}, bundles of {bundle_bytes}, cache {cache_ratio}")
                    .unwrap();
                for row in rows.rows {
                    writeln!(
                        told,
                        "  {:25} {:7.2} reads {:6.2} bundles/run {:9.0} bytes {:5.1} % hits {:8.1} us",
                        row.strategy,
                        row.reads_per_token,
                        row.bundles_per_run,
                        row.bytes_read_per_token,
                        100.0 * row.hit_rate,
                        row.io_us_per_token.mean,
                    )
                    .unwrap();
                }
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/policy.txt");
    if std::env::var_os("LNP_BLESS").is_some() {
        std::fs::write(&path, &told).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    let changed = stored.lines().zip(told.lines()).find(|(stored, told)| stored != told);
    assert!(stored == told, "decisions changed: {changed:?}; LNP_BLESS=1 keeps the new table");
}

/// The price of an order is what the whole engine pays once its cache holds the hot set.
#[test]
fn the_price_of_an_order_is_that_of_its_replay() {
    let (profile, test) = (bits(1), bits(2));
    let sets = ActiveSets::new(test.clone(), NEURONS, TOKENS);
    let activity = |layer: usize| LayerActivity::from_bits(NEURONS, &[(&profile[layer], TOKENS)]);
    for (law, bundle_bytes) in [
        (LawText::ONEPLUS_12.law().unwrap(), 4096),
        (LawText::ONEPLUS_12.law().unwrap(), 1536),
        (DeviceLaw::new(30.0, 50.0, 900.0, Combine::Max).unwrap(), 4096),
    ] {
        let options = ReplayOptions {
            law,
            caches: Caches {
                policies: vec![CachePolicy::Pinned],
                warm: true,
                ..Caches::default_of(0.1)
            },
            rules: Rules::default(),
            queue_depth: 32,
            repeats: 1,
            turn: None,
            time_max: None,
            timeline_tokens: None,
        };
        let links = link_layers(Order::Greedy, LAYERS, activity, |_| ()).unwrap();
        let counts: Vec<Vec<u32>> = links.iter().map(|of| of.active_count.clone()).collect();
        let resident = hot_sets(&counts, hot_bundles(LAYERS, NEURONS, 0.1));
        let objective = Objective { law, bundle_bytes };
        let mut price = Price::default();
        for (layer, links) in links.iter().enumerate() {
            let rows = test[layer].chunks_exact(NEURONS / 8);
            let slots = links.slot_of_neuron().unwrap();
            let of_layer =
                price_layer(&objective, rows, &[slots.into()], &resident[layer]).unwrap();
            price = price.and_layer(of_layer);
        }
        let packs = [pack(Order::Greedy, &profile, bundle_bytes)];
        let rows = replay(&packs, &sets, &Target::Simulated, &options, &mut |_| ()).unwrap().rows;
        let row = rows.iter().find(|row| row.strategy.ends_with("cache warm")).unwrap();
        let tokens = TOKENS as f64;
        assert!((row.reads_per_token - price.reads as f64 / tokens).abs() < 1e-9);
        assert!((row.bytes_read_per_token - price.bytes as f64 / tokens).abs() < 1e-6);
        assert!((row.predicted_io_us_per_token / price.us_per_token() - 1.0).abs() < 1e-6);
    }
}
