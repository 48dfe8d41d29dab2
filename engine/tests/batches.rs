//! Batches of tokens: each bundle of the union is fetched once, and each token gets what it would get
//! alone, also with activations that are nowhere zero.

#[path = "../../format/tests/common/mod.rs"]
mod common;
mod support;

use common::Recipe;
use lnp_engine::engine::Alone;
use lnp_engine::ffn::Ffn;
use lnp_engine::limits::BATCH_TOKENS_MAX;
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::{Combine, Config, DeviceLaw, Engine, EngineError, required_bytes};
use lnp_format::{Activation, Dtype, Pack};
use support::{Dice, Threads};

const NEURONS: u32 = 90;

/// A pack with two or three parts; its bundles are whatever the recipe makes, as a type's bytes.
fn recipe(parts: u32, dtype: Dtype, activation: Activation) -> Recipe {
    let mut recipe = Recipe::small(2, NEURONS);
    recipe.shape.parts = parts;
    recipe.shape.dtype = dtype;
    recipe.shape.activation = activation;
    recipe.shape.bundle_stride = parts * dtype.part_bytes(32);
    recipe
}

#[test]
fn a_batch_is_its_tokens_one_by_one() {
    let features = lnp_engine::sys::cpu::detect();
    let law = DeviceLaw::new(10.0, 9.64, 2034.0, Combine::Sum).unwrap();
    let mut dice = Dice::new(4);
    for activation in [Activation::Relu, Activation::Silu, Activation::Gelu] {
        for (parts, dtype) in [(2, Dtype::F32), (3, Dtype::F32), (3, Dtype::Q8_0), (2, Dtype::Q4_0)]
        {
            let file = recipe(parts, dtype, activation).build();
            let pack = Pack::parse(&file, file.len() as u64).unwrap();
            let config = Config { cache_bundles: 20, ..Config::new(&pack) };
            let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
            let device = SimulatedQueue::new(Image::Bytes(&file), law, 8, 1);
            let opened = |_| Ok::<_, EngineError>(device);
            let mut engine = Engine::open(pack, &config, &mut memory, opened).unwrap();
            let needed = Ffn::required_bytes(pack.shape(), features, BATCH_TOKENS_MAX).unwrap();
            let mut ffn_memory = vec![0x5a; needed];
            let mut ffn =
                Ffn::new(pack.shape(), features, BATCH_TOKENS_MAX, &mut ffn_memory).unwrap();
            for tokens in [1, 2, 3, 7, 8, 9, 16, 17, 41, BATCH_TOKENS_MAX] {
                let x: Vec<f32> =
                    (0..32 * tokens).map(|_| dice.below(2000) as f32 / 1000.0 - 1.0).collect();
                let sets: Vec<Vec<u32>> = (0..tokens)
                    .map(|_| (0..NEURONS).filter(|_| dice.one_in(4)).collect())
                    .collect();
                let active: Vec<&[u32]> = sets.iter().map(Vec::as_slice).collect();
                let mut y = vec![f32::NAN; x.len()];
                let layer = tokens as u32 % 2;
                let workers = Threads(tokens as u32 % 3);
                let stats = engine
                    .session(|session| {
                        ffn.forward_in(session, &workers, layer, &x, &active, &mut y)
                    })
                    .unwrap();
                let union = (0..NEURONS).filter(|id| sets.iter().any(|set| set.contains(id)));
                assert_eq!(stats.active, union.count() as u64);
                for (token, set) in sets.iter().enumerate() {
                    let own = 32 * token..32 * (token + 1);
                    let mut expected = [0.0; 32];
                    ffn.forward(&mut engine, layer, &x[own.clone()], set, &mut expected).unwrap();
                    let bits = |values: &[f32]| -> Vec<u32> {
                        values.iter().map(|value| value.to_bits()).collect()
                    };
                    assert_eq!(bits(&y[own]), bits(&expected), "{dtype} {activation:?} {token}");
                }
            }
        }
    }
}

#[test]
fn wrong_batches_are_errors() {
    let file = recipe(2, Dtype::F32, Activation::Relu).build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let features = lnp_kernels::CpuFeatures::NONE;
    for tokens in [0, BATCH_TOKENS_MAX + 1] {
        let found = Ffn::required_bytes(pack.shape(), features, tokens);
        assert!(matches!(found, Err(EngineError::Config { field: "tokens_max", .. })));
    }
    let needed = Ffn::required_bytes(pack.shape(), features, 2).unwrap();
    let mut memory = vec![0; needed];
    let too_little = Ffn::new(pack.shape(), features, 2, &mut memory[1..]);
    assert!(matches!(too_little, Err(EngineError::ArenaTooSmall { .. })));
    let mut ffn = Ffn::new(pack.shape(), features, 2, &mut memory).unwrap();

    let config = Config::new(&pack);
    let law = DeviceLaw::new(10.0, 9.64, 2034.0, Combine::Sum).unwrap();
    let mut arena = vec![0; required_bytes(&config, &pack).unwrap()];
    let device = SimulatedQueue::new(Image::Bytes(&file), law, 8, 1);
    let mut engine =
        Engine::open(pack, &config, &mut arena, |_| Ok::<_, EngineError>(device)).unwrap();
    let mut call = |tokens: usize, sets: &[&[u32]]| {
        let (x, mut y) = (vec![0.0; 32 * tokens], vec![0.0; 32 * tokens]);
        engine.session(|session| ffn.forward_in(session, &Alone, 0, &x, sets, &mut y))
    };
    assert!(matches!(call(0, &[]), Err(EngineError::Kernel(_))));
    assert!(matches!(call(3, &[&[], &[], &[]]), Err(EngineError::Kernel(_))));
    assert!(matches!(call(1, &[&[], &[]]), Err(EngineError::Kernel(_))));
    for set in [&[2, 1][..], &[1, 1], &[NEURONS]] {
        assert!(matches!(call(2, &[&[], set]), Err(EngineError::Active { .. })));
    }
    assert_eq!(call(2, &[&[], &[]]).unwrap().reads, 0);
}
