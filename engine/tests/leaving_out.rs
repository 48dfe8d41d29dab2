//! What a session leaves out is never what it has already, and it loses the strength that was allowed, on average.

#[path = "../../format/tests/common/mod.rs"]
mod common;
mod support;

use common::Recipe;
use lnp_engine::engine::{Alone, LeaveOut};
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::{
    CachePolicy, Collapse, Combine, Config, DeviceLaw, Engine, EngineError, required_bytes,
};
use lnp_format::Pack;
use support::Dice;

const NEURONS: u32 = 300;
const LAYERS: u32 = 2;

fn pack() -> Vec<u8> {
    let mut recipe = Recipe::small(LAYERS, NEURONS);
    recipe.shape.hidden = 512;
    recipe.shape.bundle_stride = 4096;
    recipe.build()
}

fn squares(strengths: &[f32]) -> f64 {
    strengths.iter().map(|strength| f64::from(*strength).powi(2)).sum()
}

/// An engine over the pack, a cache of so many bundles in it.
fn with_engine<R>(
    cache: u32,
    body: impl for<'a> FnOnce(&mut Engine<'a, SimulatedQueue<'a>>, DeviceLaw) -> R,
) -> R {
    let file = pack();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let law = DeviceLaw::new(0.0, 9.64, 2034.0, Combine::Sum).unwrap();
    let config = Config {
        cache_bundles: cache,
        cache_policy: CachePolicy::Lru,
        collapse: Collapse::Law(law),
        ..Config::new(&pack)
    };
    let mut arena = vec![0; required_bytes(&config, &pack).unwrap()];
    let device = SimulatedQueue::new(Image::Bytes(&file), law, 8, 1);
    let mut engine =
        Engine::open(pack, &config, &mut arena, |_| Ok::<_, EngineError>(device)).unwrap();
    body(&mut engine, law)
}

#[test]
fn the_share_is_lost_on_average_and_time_is_saved() {
    for cache in [0, 60] {
        for share in [0.003, 0.02] {
            with_engine(cache, |engine, law| {
                let shape = *engine.pack().shape();
                let mut memory = vec![0x5a; LeaveOut::required_bytes(&shape)];
                let mut leaving = LeaveOut::new(&shape, law, share, &mut memory).unwrap();
                let mut dice = Dice::new(u64::from(cache) + 5);
                let (mut lost, mut sets, mut left_out) = (0.0, 0_u32, 0);
                for token in 0..400 {
                    for layer in 0..LAYERS {
                        let all: Vec<u32> = (0..NEURONS).filter(|_| dice.one_in(8)).collect();
                        let strengths: Vec<f32> =
                            all.iter().map(|_| (dice.below(1000) as f32 / 250.0).exp()).collect();
                        let mut active = all.clone();
                        let (kept, stats) = engine.session(|session| {
                            let kept =
                                session.leave_out(layer, &mut active, &strengths, &mut leaving);
                            let kept = kept.unwrap();
                            let mut fetch = |ids: &[u32]| {
                                let nothing = |_: u32, _: &[u8], _: &[u8]| Ok(0.0);
                                let mut done = |_: u32, _: f32, _: &[u8], _: &[u8]| Ok(());
                                session.fetch(&Alone, layer, ids, nothing, &mut done).unwrap()
                            };
                            let stats = fetch(&active[..kept]);
                            (kept, stats)
                        });
                        active.truncate(kept);
                        assert!(active.is_sorted_by(|a, b| a < b));
                        assert!(active.iter().all(|neuron| all.contains(neuron)));
                        assert_eq!(stats.active, kept as u64);
                        let of = |neuron: &u32| strengths[all.binary_search(neuron).unwrap()];
                        let kept: Vec<f32> = active.iter().map(of).collect();
                        if token >= 100 {
                            lost += 1.0 - squares(&kept) / squares(&strengths);
                            sets += 1;
                            left_out += all.len() - active.len();
                        }
                    }
                }
                let mean = lost / f64::from(sets);
                assert!((0.8 * share..1.25 * share).contains(&mean), "{cache} {share}: {mean}");
                assert!(left_out > 0);
                let told = leaving.left_out();
                assert!(told.sets > u64::from(sets) && told.bundles >= left_out as u64);
                assert!((told.lost / told.sets as f64 - share).abs() < share / 2.0);
            });
        }
    }
}

#[test]
fn what_is_cached_is_kept_whatever_it_is_worth() {
    with_engine(NEURONS * LAYERS, |engine, law| {
        let shape = *engine.pack().shape();
        let mut memory = vec![0; LeaveOut::required_bytes(&shape)];
        let mut leaving = LeaveOut::new(&shape, law, 0.5, &mut memory).unwrap();
        let known: Vec<u32> = (0..NEURONS).step_by(3).collect();
        engine.fetch(1, &known, |_, _| Ok(())).unwrap();
        engine.session(|session| {
            let mut active = known.clone();
            let weak = vec![0.0; active.len()];
            let kept = session.leave_out(1, &mut active, &weak, &mut leaving).unwrap();
            assert_eq!(active[..kept], known);
            // in the other layer nothing is there, and nothing has strength
            let kept = session.leave_out(0, &mut active, &weak, &mut leaving).unwrap();
            assert_eq!(kept, 0);
        });
    });
}

#[test]
fn what_cannot_be_is_an_error() {
    with_engine(0, |engine, law| {
        let shape = *engine.pack().shape();
        let mut memory = vec![0; LeaveOut::required_bytes(&shape)];
        let needed = memory.len();
        let few = LeaveOut::new(&shape, law, 0.1, &mut memory[1..]);
        let (expected, found) = (needed, needed - 1);
        assert_eq!(few.unwrap_err(), EngineError::ArenaTooSmall { expected, found });
        let mut leaving = LeaveOut::new(&shape, law, 0.1, &mut memory).unwrap();
        engine.session(|session| {
            let mut ask = |layer, active: &[u32], strengths: &[f32]| {
                session.leave_out(layer, &mut active.to_vec(), strengths, &mut leaving)
            };
            // no strengths are known: all are kept
            assert_eq!(ask(0, &[1, 2], &[]), Ok(2));
            assert_eq!(ask(0, &[], &[]), Ok(0));
            assert_eq!(ask(0, &[1, 2], &[1.0]), Err(EngineError::OtherShape));
            assert!(matches!(ask(9, &[1], &[1.0]), Err(EngineError::Layer { .. })));
            assert!(ask(0, &[2, 1], &[1.0, 1.0]).is_err());
            assert!(ask(0, &[NEURONS], &[1.0]).is_err());
            // no number counts as nothing
            assert_eq!(ask(0, &[1, 2], &[f32::NAN, 1.0]), Ok(1));
        });
        let other = lnp_format::Shape { neurons: 7, ..shape };
        let mut memory = vec![0; LeaveOut::required_bytes(&other)];
        let mut leaving = LeaveOut::new(&other, law, 0.1, &mut memory).unwrap();
        let found = engine.session(|session| session.leave_out(0, &mut [1], &[1.0], &mut leaving));
        assert_eq!(found, Err(EngineError::OtherShape));
    });
}
