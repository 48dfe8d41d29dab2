//! Layers that are begun and finished later, and what may come in between.

#[path = "../../format/tests/common/mod.rs"]
mod common;
mod support;

use common::Recipe;
use lnp_engine::engine::{ActiveSet, Session};
use lnp_engine::queue::ReadQueue;
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::{
    Collapse, Combine, Config, DeviceLaw, Engine, EngineError, FetchStats, required_bytes,
};
use lnp_format::Pack;
use support::Threads;

const NEURONS: u32 = 300;

fn set(step: usize) -> Vec<u32> {
    (0..NEURONS).step_by(step).collect()
}

fn active(ids: &[u32]) -> ActiveSet<'_> {
    ActiveSet::new(ids, NEURONS).unwrap()
}

/// An engine over a pack of three layers, for `body`.
fn with_engine<R>(
    change: impl FnOnce(&mut Config),
    body: impl for<'a> FnOnce(&Recipe, &mut Engine<'a, SimulatedQueue<'a>>) -> R,
) -> R {
    let recipe = Recipe::placeholder(3, NEURONS, 4096);
    let file = recipe.build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let prefetch_bytes = Config::staging_bytes_full(&pack).next_multiple_of(4096);
    let mut config = Config { prefetch_bytes, queue_depth: 8, ..Config::new(&pack) };
    change(&mut config);
    let mut memory = vec![0xcc; required_bytes(&config, &pack).unwrap()];
    let law = DeviceLaw::new(20.0, 9.64, 2034.0, Combine::Sum).unwrap();
    let device = SimulatedQueue::new(Image::Bytes(&file), law, config.queue_depth, 5);
    let mut engine =
        Engine::open(pack, &config, &mut memory, |_| Ok::<_, EngineError>(device)).unwrap();
    let result = body(&recipe, &mut engine);
    assert!(engine.is_idle());
    result
}

/// Finishes a layer, and compares each bundle with the recipe.
fn finish<'a>(
    session: &mut Session<'_, 'a, SimulatedQueue<'a>>,
    recipe: &Recipe,
    layer: u32,
    ids: &[u32],
) -> FetchStats {
    let mut seen = Vec::new();
    let mut each = |neuron, _: f32, bundle: &[u8], _: &[u8]| {
        assert_eq!(bundle, recipe.bundle(layer, neuron), "layer {layer}, neuron {neuron}");
        seen.push(neuron);
        Ok(())
    };
    let stats =
        session.finish(&Threads(1), layer, active(ids), |_, _, _| Ok(0.0), &mut each).unwrap();
    assert_eq!(seen, ids);
    stats
}

/// The way of a token with predictions: a layer is begun, later ones are prefetched, then it is finished. The stats
/// are those of fetching at once.
#[test]
fn later_layers_are_prefetched_between_begin_and_finish() {
    for (cache_bundles, staging_share) in [(0, 1), (200, 1), (0, 5)] {
        let change = |config: &mut Config| {
            config.cache_bundles = cache_bundles;
            config.staging_bytes /= staging_share;
        };
        with_engine(change, |recipe, engine| {
            let (now, next) = (set(3), set(4));
            engine.session(|session| {
                for token in 0..5 {
                    for layer in 0..3 {
                        session.begin(layer, active(&now)).unwrap();
                        let read = session.prefetch((layer + 1) % 3, &next).unwrap();
                        assert!(read.reads > 0 || cache_bundles > 0);
                        let stats = finish(session, recipe, layer, &now);
                        assert_eq!(stats.active, now.len() as u64);
                        let first = token == 0 && layer == 0;
                        assert!(first == (stats.prefetched == 0) || cache_bundles > 0);
                        assert!(staging_share == 1 || stats.rounds > 1);
                    }
                }
            });
        });
    }
}

#[test]
fn reads_are_under_way_once_a_layer_is_begun() {
    with_engine(
        |_| {},
        |recipe, engine| {
            let ids = set(3);
            engine.session(|session| {
                session.begin(1, active(&ids)).unwrap();
                assert_eq!(session.engine().queue().in_flight(), 8);
                // given up for another layer, whose reads take their place
                session.begin(2, active(&ids)).unwrap();
                assert_eq!(session.engine().queue().in_flight(), 8);
                finish(session, recipe, 2, &ids);
                // given up with the session
                session.begin(0, active(&ids)).unwrap();
            });
        },
    );
}

/// Finishing is refused.
fn fails<'a>(session: &mut Session<'_, 'a, SimulatedQueue<'a>>, layer: u32, ids: ActiveSet<'_>) {
    let mut ignore = |_, _, _: &[u8], _: &[u8]| Ok(());
    let found = session.finish(&Threads(0), layer, ids, |_, _, _| Ok(0.0), &mut ignore);
    assert_eq!(found, Err(EngineError::NotBegun { layer }));
}

#[test]
fn what_was_not_begun_cannot_be_finished() {
    with_engine(
        |_| {},
        |recipe, engine| {
            let (ids, others) = (set(3), set(5));
            engine.session(|session| {
                fails(session, 0, active(&ids));
                session.begin(1, active(&ids)).unwrap();
                fails(session, 0, active(&ids));
                fails(session, 1, active(&others));
                fails(session, 1, active(&ids[1..]));
                finish(session, recipe, 1, &ids);
                fails(session, 1, active(&ids));
                // an engine without any of these neurons
                let wide = ActiveSet::new(&[1, 5000], 6000).unwrap();
                let found = session.begin(0, wide);
                assert!(matches!(found, Err(EngineError::Active { found: 5000, .. })), "{found:?}");
                session.begin(0, ActiveSet::default()).unwrap();
                let nothing = finish(session, recipe, 0, &[]);
                assert_eq!(nothing, FetchStats::default());
            });
        },
    );
}

/// A prefetch does not replace what a layer that was begun computes from, nor the layer itself.
#[test]
fn what_was_begun_is_not_prefetched_over() {
    with_engine(
        |config| config.queue_depth = 256,
        |recipe, engine| {
            let ids = set(2);
            engine.session(|session| {
                session.prefetch(1, &ids).unwrap();
                session.begin(1, active(&ids)).unwrap();
                assert_eq!(session.prefetch(1, &ids).unwrap(), FetchStats::default());
                session.prefetch(2, &ids).unwrap();
                session.prefetch(0, &ids).unwrap();
                let stats = finish(session, recipe, 1, &ids);
                assert_eq!(stats.prefetched, ids.len() as u64);
            });
        },
    );
}

/// Of a prediction, what is under way when the layer is begun is read; the rest of it is planned anew, so that nothing
/// more of what is not needed is read. Every read is counted once.
#[test]
fn what_is_not_under_way_is_planned_anew() {
    with_engine(
        |_| {},
        |recipe, engine| {
            let (needed, predicted) = (set(3), set(2));
            engine.session(|session| {
                let planned = session.prefetch(1, &predicted).unwrap();
                session.begin(1, active(&needed)).unwrap();
                let stats = finish(session, recipe, 1, &needed);
                assert!(planned.reads > 6 && stats.ahead_reads == 6, "{planned:?} {stats:?}");
                assert!(stats.ahead_bytes >= 6 * 4096 && stats.prefetched > 0);
                let read_now = stats.active - stats.prefetched;
                assert_eq!(stats.bytes_read, read_now * 4096, "{stats:?}");
                assert_eq!(stats.useful_bytes, stats.active * 4096);
                let counted = stats.reads + stats.ahead_reads;
                assert_eq!(session.engine().latencies().reads(), counted);
                // nothing was prefetched
                session.begin(2, active(&needed)).unwrap();
                let stats = finish(session, recipe, 2, &needed);
                assert_eq!((stats.ahead_reads, stats.ahead_bytes, stats.prefetched), (0, 0, 0));
            });
        },
    );
}

/// Demanded reads find a quarter of the depth free.
#[test]
fn a_prefetch_does_not_fill_the_queue() {
    with_engine(
        |_| {},
        |recipe, engine| {
            let ids = set(3);
            engine.session(|session| {
                session.prefetch(1, &ids).unwrap();
                assert_eq!(session.engine().queue().in_flight(), 6);
                session.begin(0, active(&ids)).unwrap();
                assert_eq!(session.engine().queue().in_flight(), 8);
                finish(session, recipe, 0, &ids);
            });
        },
    );
}

/// Of a prediction that is too large the strongest are read, whatever their ids.
#[test]
fn the_strongest_of_a_prediction_are_kept() {
    let small = |config: &mut Config| (config.prefetch_bytes, config.queue_depth) = (20 * 4096, 64);
    with_engine(small, |recipe, engine| {
        let ids = set(3);
        // the last ones matter
        let strengths: Vec<f32> = ids.iter().map(|id| *id as f32).collect();
        let last: Vec<u32> = ids[ids.len() - 15..].to_vec();
        engine.session(|session| {
            session.prefetch(1, &ids).unwrap();
            session.begin(1, active(&last)).unwrap();
            assert_eq!(finish(session, recipe, 1, &last).prefetched, 0, "the front was read");
            let read = session.prefetch_strongest(1, &ids, &strengths).unwrap();
            assert!((15..=20).contains(&(read.bytes_read / 4096)), "{read:?}");
            session.begin(1, active(&last)).unwrap();
            assert_eq!(finish(session, recipe, 1, &last).prefetched, 15);
        });
    });
}

/// Where the staging area is too small for a layer, the rounds of the second token are not more than those of the
/// first, and nearly as few as there can be.
#[test]
fn the_size_of_rounds_is_remembered() {
    for share in [2, 3, 5, 9] {
        let change = |config: &mut Config| {
            config.collapse = Collapse::Off;
            config.staging_bytes = NEURONS as usize * 4096 / share;
        };
        with_engine(change, |_, engine| {
            let ids = set(1);
            let mut rounds = || engine.fetch(0, &ids, |_, _| Ok(())).unwrap().rounds;
            let (first, second) = (rounds(), rounds());
            assert!(second <= first, "{first} rounds, then {second}");
            let (second, least) = (second as f64, share as f64);
            assert!(second <= (least * 1.3).ceil(), "{second} rounds, {least} would do");
        });
    }
}
