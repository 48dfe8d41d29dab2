//! Writes a made-up trace of a given shape, to time `lnp link` on models that are not at hand:
//!
//!     clustered_trace LAYERS NEURONS ACTIVE TOKENS SEED OUTPUT
//!
//! Neurons belong to scattered clusters of 64. A token activates most of each of some clusters, the
//! first ones more often, and the rest of its share ACTIVE (such as 0.03) at random. It has the
//! density of the model it stands for and clusters to be found; otherwise it is like no model.

use std::path::Path;

use anyhow::{Context, Result};
use lnp_link::trace::{TraceData, write_trace};

const CLUSTER: u64 = 64;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * u128::from(bound)) >> 64) as u64
    }
}

fn layer(neurons: u64, active: f64, tokens: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    // Fisher-Yates: which neurons make up the clusters.
    let mut scattered: Vec<u64> = (0..neurons).collect();
    for place in (1..neurons).rev() {
        scattered.swap(place as usize, random.below(place + 1) as usize);
    }
    let row_bytes = neurons.div_ceil(8) as usize;
    let mut bits = vec![0u8; row_bytes * tokens];
    let wanted = (neurons as f64 * active) as u64;
    for row in bits.chunks_mut(row_bytes) {
        let mut set = |neuron: u64| row[neuron as usize / 8] |= 1 << (neuron % 8);
        let mut done = 0;
        while done + done / 4 < wanted {
            let clusters = neurons / CLUSTER;
            let cluster = random.below(clusters).min(random.below(clusters));
            for member in 0..CLUSTER {
                if random.below(10) < 8 {
                    set(scattered[(cluster * CLUSTER + member) as usize]);
                    done += 1;
                }
            }
        }
        (0..wanted / 5).for_each(|_| set(random.below(neurons)));
    }
    bits
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [layers, neurons, active, tokens, seed, output] = arguments.as_slice() else {
        anyhow::bail!("usage: clustered_trace LAYERS NEURONS ACTIVE TOKENS SEED OUTPUT");
    };
    let (layers, neurons): (u64, u64) = (layers.parse()?, neurons.parse()?);
    let (tokens, seed): (usize, u64) = (tokens.parse()?, seed.parse()?);
    let active: f64 = active.parse().context("ACTIVE is a share, such as 0.03")?;
    anyhow::ensure!(neurons >= CLUSTER, "at least {CLUSTER} neurons");
    let data = TraceData {
        model: "made up".into(),
        corpus: "made up".into(),
        split: "profile".into(),
        active: "made up".into(),
        neurons: neurons as usize,
        tokens,
        window: 256,
        token_ids: None,
        inputs: None,
        predicted: None,
        synthetic: None,
        layers: (0..layers).map(|at| layer(neurons, active, tokens, seed + at)).collect(),
    };
    write_trace(Path::new(output), &data)
}
