//! The engine on the simulated device with faults, small enough for an interpreter that sees every
//! wrong access to memory (Miri, in `.ci/full`): all policies, rounds, prefetching, workers, batches.

#[path = "../../format/tests/common/mod.rs"]
mod common;
mod support;

use common::Recipe;
use lnp_engine::ffn::Ffn;
use lnp_engine::queue::simulated::{Faults, Image, SimulatedQueue};
use lnp_engine::{
    CachePolicy, Collapse, Combine, Config, DeviceLaw, Engine, EngineError, required_bytes,
};
use lnp_format::Pack;
use lnp_kernels::CpuFeatures;
use support::{Dice, Threads};

const LAYERS: u32 = 2;
const NEURONS: u32 = 24;
const TOKENS: usize = 3;

fn pack_of(recipe: &Recipe, image: &[u8], seed: u64) {
    let dice = &mut Dice::new(seed);
    let pack = Pack::parse(image, image.len() as u64).unwrap();
    let law = DeviceLaw::new(5.0, 9.64, 200.0, dice.pick(&[Combine::Sum, Combine::Max])).unwrap();
    let full = Config::staging_bytes_full(&pack);
    let config = Config {
        collapse: dice.pick(&[Collapse::Off, Collapse::Law(law), Collapse::Gap { bytes: 700 }]),
        cache_bundles: dice.among(1, 12),
        cache_policy: dice.pick(&CachePolicy::ALL),
        staging_bytes: if dice.one_in(2) { full } else { Config::staging_bytes_min(&pack) * 3 },
        prefetch_bytes: 4096,
        queue_depth: dice.among(1, 5),
        verify_reads: true,
        ..Config::new(&pack)
    };
    let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
    let mut ffn_memory =
        vec![0; Ffn::required_bytes(pack.shape(), CpuFeatures::NONE, TOKENS).unwrap()];
    let mut ffn = Ffn::new(pack.shape(), CpuFeatures::NONE, TOKENS, &mut ffn_memory).unwrap();
    let faults = Faults { eio: 20_000, short: 50_000, flipped: 20_000, ..Faults::NONE };
    let device = SimulatedQueue::new(Image::Bytes(image), law, config.queue_depth, seed);
    let opened = |_| Ok::<_, EngineError>(device.with_faults(faults));
    let mut engine = Engine::open(pack, &config, &mut memory, opened).unwrap();
    let hidden = pack.shape().hidden as usize;
    let mut y = vec![0.0; TOKENS * hidden];
    engine.session(|session| {
        for round in 0..6 {
            let layer = round % LAYERS;
            let active: Vec<u32> = (0..NEURONS).filter(|_| !dice.one_in(3)).collect();
            let _ = session.prefetch((layer + 1) % LAYERS, &active[..active.len() / 2]);
            let workers = Threads(dice.below(3));
            let mut wrong = 0;
            let mut finish = |neuron, _, bundle: &[u8], _: &[u8]| {
                wrong += u32::from(bundle != recipe.bundle(layer, neuron));
                Ok(())
            };
            let _ = session.fetch(&workers, layer, &active, |_, _, _| Ok(1.0), &mut finish);
            assert_eq!(wrong, 0, "seed {seed}");
            let sets = [&active[..], &active[1..], &active[..2]];
            let x = vec![0.5; TOKENS * hidden];
            let _ = ffn.forward_in(session, &workers, layer, &x, &sets, &mut y);
        }
    });
    assert!(engine.is_idle());
    let _ = engine.check_superblock();
}

#[test]
fn a_small_engine_with_faults() {
    let recipe = Recipe::small(LAYERS, NEURONS);
    let images = [recipe.build(), Recipe::small(LAYERS, NEURONS).with_replicas(1).build()];
    for seed in 0..if cfg!(miri) { 4 } else { 400 } {
        pack_of(&recipe, &images[seed as usize % 2], seed);
    }
}
