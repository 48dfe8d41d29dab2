//! Sessions: what was prefetched, rightly or wrongly, and what workers compute, changes no bit.

#[path = "../../format/tests/common/mod.rs"]
mod common;
mod support;

use common::Recipe;
use lnp_engine::engine::{Alone, Workers};
use lnp_engine::ffn::Ffn;
use lnp_engine::queue::ReadQueue;
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::{Combine, Config, DeviceLaw, Engine, EngineError, required_bytes};
use lnp_format::Pack;
use lnp_kernels::CpuFeatures;
use proptest::prelude::*;
use support::Threads;

fn with_engine<R>(
    recipe: &Recipe,
    change: impl FnOnce(&mut Config),
    body: impl for<'a> FnOnce(&mut Engine<'a, SimulatedQueue<'a>>) -> R,
) -> R {
    let file = recipe.build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let mut config = Config { verify_reads: true, ..Config::new(&pack) };
    change(&mut config);
    let mut memory = vec![0x55; required_bytes(&config, &pack).unwrap()];
    let law = DeviceLaw::new(10.0, 9.64, 2034.0, Combine::Sum).unwrap();
    let mut engine = Engine::open(pack, &config, &mut memory, |_| {
        let image = Image::Bytes(&file);
        Ok::<_, EngineError>(SimulatedQueue::new(image, law, config.queue_depth, 3))
    })
    .unwrap();
    body(&mut engine)
}

fn active_sets() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::btree_set(0u32..90, 0..90).prop_map(|set| set.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 100 }))]
    #[test]
    fn whatever_is_prefetched_the_bundles_are_right(
        calls in prop::collection::vec((0u32..4, active_sets(), 0u32..3), 1..20),
        prefetch_blocks in 1usize..12,
        cache_bundles in 0u32..60,
        queue_depth in 1u32..20,
        workers in 0u32..3,
    ) {
        let mut recipe = Recipe::placeholder(4, 90, 300);
        recipe.block_bytes = 512;
        let change = |config: &mut Config| {
            config.prefetch_bytes = prefetch_blocks * 4096;
            config.cache_bundles = cache_bundles;
            config.queue_depth = queue_depth;
        };
        with_engine(&recipe, change, |engine| {
            engine.session(|session| {
                let threads = Threads(workers);
                let workers: &dyn Workers = if workers == 0 { &Alone } else { &threads };
                for (layer, active, what) in &calls {
                    if *what > 0 {
                        session.prefetch(*layer, active).unwrap();
                    }
                    if *what == 1 {
                        continue; // prefetched, and fetched later, or never
                    }
                    let arrive = |neuron, bundle: &[u8], _: &[u8]| {
                        assert_eq!(bundle, recipe.bundle(*layer, neuron));
                        Ok(neuron as f32)
                    };
                    let mut seen = Vec::new();
                    let mut finish = |neuron, coefficient, bundle: &[u8], _: &[u8]| {
                        assert_eq!(bundle, recipe.bundle(*layer, neuron));
                        assert_eq!(coefficient, neuron as f32);
                        seen.push(neuron);
                        Ok(())
                    };
                    let stats =
                        session.fetch(workers, *layer, active, arrive, &mut finish).unwrap();
                    assert_eq!(&seen, active);
                    assert!(stats.hits + stats.prefetched <= stats.active);
                }
            });
            assert_eq!(engine.queue().in_flight(), 0);
        });
    }
}

#[test]
fn what_was_prefetched_is_not_read_again() {
    let mut recipe = Recipe::placeholder(3, 200, 4096);
    recipe.block_bytes = 4096;
    with_engine(
        &recipe,
        // a queue that takes all that is prefetched at once
        |config| (config.prefetch_bytes, config.queue_depth) = (200 * 4096, 256),
        |engine| {
            let active: Vec<u32> = (0..200).step_by(3).collect();
            let active_bytes = active.len() as u64 * 4096;
            engine.session(|session| {
                for layer in 0..3 {
                    let ahead = session.prefetch(layer, &active).unwrap();
                    assert!(ahead.reads > 0);
                }
                // the first of the three was replaced by the third
                for (layer, prefetched) in [(1, active.len()), (2, active.len()), (0, 0)] {
                    let found = session
                        .fetch(&Alone, layer, &active, |_, _, _| Ok(0.0), &mut |_, _, _, _| Ok(()))
                        .unwrap();
                    assert_eq!(found.prefetched, prefetched as u64);
                    // read now or earlier, all of it is of use
                    assert_eq!(found.useful_bytes, active_bytes);
                    assert_eq!(found.reads == 0, prefetched > 0);
                }
                session.prefetch(0, &active).unwrap();
                session.cancel_prefetch();
                assert_eq!(session.engine().queue().in_flight(), 0);
                session.prefetch(0, &active).unwrap();
            });
            assert_eq!(engine.queue().in_flight(), 0);
        },
    );
    with_engine(
        &recipe,
        |_| (),
        |engine| {
            let refused = engine.session(|session| session.prefetch(0, &[1]));
            assert!(matches!(refused, Err(EngineError::Config { field: "prefetch_bytes", .. })));
        },
    );
}

#[test]
fn workers_change_no_bit() {
    let mut recipe = Recipe::small(3, 300);
    recipe.block_bytes = 4096;
    let x: Vec<f32> = (0..32).map(|at| at as f32 / 16.0 - 1.0).collect();
    let outputs: Vec<Vec<u32>> = (0..4)
        .map(|workers| {
            with_engine(
                &recipe,
                |config| config.cache_bundles = 100,
                |engine| {
                    let mut ffn_memory = [0; 4096];
                    let mut ffn =
                        Ffn::new(engine.pack().shape(), CpuFeatures::NONE, 1, &mut ffn_memory)
                            .unwrap();
                    let mut bits = Vec::new();
                    for token in 0..5u32 {
                        for layer in 0..3 {
                            let active: Vec<u32> =
                                (0..300).filter(|n| (n * 7 + token * 3 + layer) % 5 < 2).collect();
                            let mut y = [0.0; 32];
                            let threads = Threads(workers);
                            engine
                                .session(|session| {
                                    ffn.forward_in(session, &threads, layer, &x, &[&active], &mut y)
                                })
                                .unwrap();
                            bits.extend(y.map(f32::to_bits));
                        }
                    }
                    bits
                },
            )
        })
        .collect();
    assert!(outputs.iter().all(|bits| *bits == outputs[0]));
}

#[test]
fn an_error_or_a_panic_in_a_round_leaves_nothing_in_flight() {
    let recipe = Recipe::placeholder(2, 300, 5000);
    let active: Vec<u32> = (0..300).step_by(4).collect();
    let change = |config: &mut Config| {
        config.queue_depth = 8;
        config.prefetch_bytes = 1 << 20;
    };
    with_engine(&recipe, change, |engine| {
        let refuse = EngineError::NotComputable { dtype: "none" };
        let found = engine.session(|session| {
            session.prefetch(1, &active)?;
            let arrive =
                |neuron, _: &[u8], _: &[u8]| if neuron % 8 == 4 { Err(refuse) } else { Ok(0.0) };
            session.fetch(&Alone, 0, &active, arrive, &mut |_, _, _, _| Ok(()))
        });
        assert_eq!(found, Err(refuse));
        assert_eq!(engine.queue().in_flight(), 0);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            engine.session(|session| {
                session.prefetch(1, &active).unwrap();
                let mut finish =
                    |_: u32, _: f32, _: &[u8], _: &[u8]| panic!("in the caller's code");
                session.fetch(&Alone, 0, &active, |_, _, _| Ok(0.0), &mut finish)
            })
        }));
        assert!(caught.is_err());
        assert_eq!(engine.queue().in_flight(), 0);
        let mut seen = 0;
        engine
            .fetch(1, &active, |neuron, bundle| {
                assert_eq!(bundle, recipe.bundle(1, neuron));
                seen += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, active.len());
    });
}
