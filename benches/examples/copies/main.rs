//! What copies of bundles would save: a bundle in more than one slot, within a budget of flash, and of each token
//! the cheapest copies read. Simulated, by the law; no pack can hold it. Beside it what no choice of these copies could
//! go below.
//!
//!     cargo run --release -p lnp-benches --example copies -- MODEL-FOLDER 1.15,1.3,1.6,2
//!
//! Profiles and tests are `traces/*.profile.safetensors` and `*.test.safetensors` in the folder, all profiles taken
//! together, the first 1,024 tokens of each test; bundles of 4 KiB, the hottest 10 % pinned and not read.

mod choose;
mod grow;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use choose::Copies;
use grow::Needs;
use lnp_link::hot::{hot_bundles, hot_sets};
use lnp_link::price::{Price, Pricer};
use lnp_link::trace::{TraceReader, active};
use lnp_link::{Linking, Objective, Order, Part, Profile};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PINNED: f64 = 0.1;
const TEST_TOKENS: usize = 1024;
/// Of the test's tokens one in so many is bounded too.
const BOUNDED_ONE_IN: usize = 13;
const BOUND_ROUNDS: usize = 100;
/// Copies are added in so many steps for each whole layer of them.
const STEPS: usize = 12;

/// Flash, and microseconds of a token in a layer: by the planner, and the bound.
type Point = (f64, f64, f64);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, budgets] = &arguments[..] else {
        return Err("usage: copies MODEL-FOLDER BUDGETS".into());
    };
    let budgets: Vec<f64> =
        budgets.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?;
    let traces = |ending: &str| -> Result<Vec<PathBuf>> {
        let folder = std::fs::read_dir(Path::new(folder).join("traces"))?;
        let paths = folder.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        let mut paths: Vec<PathBuf> =
            paths.into_iter().filter(|path| path.to_string_lossy().ends_with(ending)).collect();
        paths.sort();
        Ok(paths)
    };
    let profile = Profile::open(&traces(".profile.safetensors")?)?;
    let tests: Vec<TraceReader> = traces(".test.safetensors")?
        .iter()
        .map(|path| Ok(TraceReader::open(path)?))
        .collect::<Result<_>>()?;
    let (layers, neurons) = (profile.layers(), profile.neurons());
    let counts = (0..layers)
        .map(|layer| Ok(profile.activity(layer, Part::All)?.active_count().to_vec()))
        .collect::<Result<Vec<_>>>()?;
    let hot = hot_sets(&counts, hot_bundles(layers, neurons, PINNED));
    let (next, points) = (AtomicUsize::new(0), Mutex::new(vec![Vec::new(); layers]));
    let work = || {
        loop {
            let layer = next.fetch_add(1, Ordering::Relaxed);
            let Some(hot) = hot.get(layer) else { return };
            match frontier(&profile, &tests, layer, hot, &budgets) {
                Ok(of_layer) => points.lock().expect("no thread panics")[layer] = of_layer,
                Err(error) => eprintln!("layer {layer}: {error}"),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let points = points.into_inner()?;
    println!("flash,us_per_token,bound_us_per_token");
    for at in 0..=budgets.len() {
        let of = |layer: &Vec<Point>| layer.get(at).copied().unwrap_or_default();
        let sum =
            |value: fn(Point) -> f64| points.iter().map(|layer| value(of(layer))).sum::<f64>();
        let flash = sum(|(flash, _, _)| flash) / layers as f64;
        println!("{flash:.2},{:.0},{:.0}", sum(|(_, us, _)| us), sum(|(_, _, bound)| bound));
    }
    Ok(())
}

/// The points of a layer: without copies, and with each budget.
fn frontier(
    profile: &Profile,
    tests: &[TraceReader],
    layer: usize,
    hot: &[bool],
    budgets: &[f64],
) -> Result<Vec<Point>> {
    let (objective, neurons) = (Objective::phone()?, hot.len());
    let needed = |bits: &[u8], tokens: usize| -> Vec<Vec<u32>> {
        let of = |token| active(bits, neurons, token).filter(|id| !hot[*id as usize]).collect();
        (0..tokens).map(of).collect()
    };
    let row_bytes = neurons.div_ceil(8);
    let learned = profile.bits(layer, Part::All)?;
    let learned = learned.iter().flat_map(|bits| needed(bits, bits.len() / row_bytes)).collect();
    let mut tried = Vec::new();
    for test in tests {
        tried.extend(needed(&test.layer_bits(layer)?, TEST_TOKENS.min(test.tokens())));
    }
    let activity = profile.activity(layer, Part::All)?;
    let members: Vec<u32> = (0..neurons as u32).filter(|id| !hot[*id as usize]).collect();
    let linking = Linking { order: Order::Refined, objective, pin: PINNED };
    let mut order = linking.link_layer(layer, &activity, hot)?.neuron_of_slot;
    order.retain(|id| !hot[*id as usize]);
    let needs = Needs::new(objective, &activity, &members, learned);
    let mut points = vec![priced(&needs, &order, &tried)];
    for budget in budgets {
        let most = ((budget - 1.0) * neurons as f64) as usize + members.len();
        while order.len() < most {
            let step = (most - order.len()).min(members.len() / STEPS + 1);
            if needs.add(&mut order, step) == 0 {
                break;
            }
            needs.refine(&mut order)?;
        }
        needs.refine(&mut order)?;
        points.push(priced(&needs, &order, &tried));
    }
    Ok(points)
}

fn priced(needs: &Needs, order: &[u32], tokens: &[Vec<u32>]) -> Point {
    let mut copies = Copies::new(&needs.objective, order, needs.neurons);
    let mut pricer = Pricer::new(&needs.objective, order.len());
    let (mut price, mut chosen) = (Price::default(), Vec::new());
    let (mut bound_us, mut bounded_us) = (0.0, 0.0);
    for (number, wanted) in tokens.iter().enumerate() {
        let us = copies.choose(wanted, &mut chosen);
        chosen.sort_unstable();
        price.add(&pricer.slots_price(&chosen));
        if number % BOUNDED_ONE_IN == 0 && !wanted.is_empty() {
            bound_us += copies.bound(wanted, us, BOUND_ROUNDS);
            bounded_us += us;
        }
    }
    let distinct: std::collections::BTreeSet<&u32> = order.iter().collect();
    let flash = 1.0 + (order.len() - distinct.len()) as f64 / needs.neurons as f64;
    (flash, price.us_per_token(), price.us_per_token() * bound_us / f64::max(bounded_us, 1e-9))
}
