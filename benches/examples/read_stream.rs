//! Linking for what is really read: link, take the profile through the engine's cache, link what was missed, and again.
//! Simulated, by the law; us a token on the tests, warm.
//!
//!     cargo run --release -p lnp-benches --example read_stream -- MODEL-FOLDER

use std::error::Error;
use std::path::{Path, PathBuf};

use lnp_engine::CachePolicy;
use lnp_engine::cache::Read;
use lnp_link::hot::hot_bundles;
use lnp_link::price::Pricer;
use lnp_link::{LayerActivity, LayerLinks, Linking, Objective, Order, Part, Profile};
use lnp_measure::study::missed::through_cache;
use lnp_measure::study::{Corpus, Test};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ROUNDS: usize = 3;
const TEST_TOKENS: usize = 1024;

fn test_of(profile: &Profile, most: usize) -> Result<Test> {
    let row = profile.neurons().div_ceil(8);
    let mut layers = Vec::new();
    for layer in 0..profile.layers() {
        let mut bits = profile.bits(layer, Part::All)?.concat();
        bits.truncate(most.saturating_mul(row));
        layers.push(bits);
    }
    Ok(Test {
        text: Corpus { name: "text".into(), known: true },
        file: String::new(),
        neurons: profile.neurons(),
        tokens: layers[0].len() / row,
        block_tokens: 1,
        layers,
        synthetic: false,
    })
}

/// Time of a token in the warm pass, share missed, and what was missed as bits by layer.
fn read_through(
    test: &Test,
    links: &[LayerLinks],
    objective: &Objective,
    (policy, cells): (CachePolicy, usize),
    counts: &[Vec<u32>],
) -> Result<(f64, f64, Vec<Vec<u8>>)> {
    let slots: Vec<Vec<u32>> = links
        .iter()
        .map(|links| Ok(links.slots_of_neurons()?.swap_remove(0)))
        .collect::<Result<_>>()?;
    let row = test.neurons.div_ceil(8);
    let mut bits = vec![vec![0_u8; row * test.tokens]; test.layers.len()];
    let mut pricer = Pricer::new(objective, test.neurons);
    let (mut us, mut count, mut keys, mut sorted) = (0.0, 0, Vec::new(), Vec::new());
    through_cache(test, policy, cells, counts, |batch, reads: &mut [Read]| {
        keys.clear();
        let of = batch.missed.iter().enumerate();
        keys.extend(of.map(|(at, id)| (slots[batch.layer][*id as usize], at)));
        keys.sort_unstable();
        for run in keys.chunk_by(|one, next| one.0 + 1 == next.0) {
            run.iter().for_each(|(_, at)| reads[*at].run_bundles = run.len() as u32);
        }
        sorted.clear();
        sorted.extend(keys.iter().map(|(slot, _)| *slot));
        let price = pricer.slots_price(&sorted);
        for extent in pricer.reads() {
            let wanted = keys.iter().skip(extent.first as usize).take(extent.count as usize);
            wanted.for_each(|(_, at)| reads[*at].read_bundles = extent.count);
        }
        if batch.warm {
            us += price.time_us;
            count += batch.missed.len();
            for id in batch.missed {
                bits[batch.layer][batch.token * row + *id as usize / 8] |= 1 << (id % 8);
            }
        }
    })?;
    Ok((us / test.tokens as f64, count as f64 / test.tokens as f64, bits))
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, policy] = &arguments[..] else {
        return Err("usage: read_stream MODEL-FOLDER POLICY".into());
    };
    let policy = CachePolicy::from_name(policy).ok_or("no such policy")?;
    let traces = |ending: &str| -> Result<Vec<PathBuf>> {
        let folder = std::fs::read_dir(Path::new(folder).join("traces"))?;
        let paths = folder.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        let mut paths: Vec<PathBuf> =
            paths.into_iter().filter(|path| path.to_string_lossy().ends_with(ending)).collect();
        paths.sort();
        Ok(paths)
    };
    let profile = Profile::open(&traces(".profile.safetensors")?)?;
    let (layers, neurons) = (profile.layers(), profile.neurons());
    let learned = test_of(&profile, usize::MAX)?;
    let tests: Vec<Test> = traces(".test.safetensors")?
        .into_iter()
        .map(|path| test_of(&Profile::open(&[path])?, TEST_TOKENS))
        .collect::<Result<_>>()?;
    let phone = Objective::phone()?;
    println!("model,policy,bundle_bytes,cache_ratio,made,round,us,missed,profile_us");
    for bundle_bytes in [4096, 16384] {
        let objective = Objective { bundle_bytes, ..phone };
        let start = |pin| -> Result<Vec<LayerLinks>> {
            let linking = Linking { order: Order::Refined, objective, pin };
            Ok(linking.links(&profile, |_| ())?.layers)
        };
        let default = start(0.1)?;
        let counts: Vec<Vec<u32>> =
            default.iter().map(|links| links.active_count.clone()).collect();
        for ratio in [0.05, 0.1, 0.2] {
            let cells = hot_bundles(layers, neurons, ratio);
            let tell = |made: &str, round: usize, links: &[LayerLinks]| -> Result<Vec<Vec<u8>>> {
                let (mut us, mut missed) = (0.0, 0.0);
                for test in &tests {
                    let of = read_through(test, links, &objective, (policy, cells), &counts)?;
                    us += of.0 / tests.len() as f64;
                    missed += of.1 / tests.len() as f64;
                }
                let own = read_through(&learned, links, &objective, (policy, cells), &counts)?;
                let (model, policy) = (profile.model(), policy.name());
                println!(
                    "{model},{policy},{bundle_bytes},{ratio},{made},{round},{us:.1},{missed:.1},{:.1}",
                    own.0
                );
                Ok(own.2)
            };
            let first = tell("default", 0, &default)?;
            if ratio != 0.1 {
                tell("pin of the ratio", 0, &start(ratio)?)?;
            }
            for pin in [0.0, ratio] {
                let mut missed = first.clone();
                for round in 1..=ROUNDS {
                    let linking = Linking { order: Order::Refined, objective, pin };
                    let activity = |layer: usize| {
                        LayerActivity::from_bits(neurons, &[(&missed[layer], learned.tokens)])
                    };
                    let links = linking.link(layers, activity, |_| ())?;
                    missed =
                        tell(if pin > 0.0 { "missed, apart" } else { "missed" }, round, &links)?;
                }
            }
        }
    }
    Ok(())
}
