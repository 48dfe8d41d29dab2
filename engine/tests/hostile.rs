//! Callers that ask for anything at all get an error, and the engine goes on.

#[path = "../../format/tests/common/mod.rs"]
mod common;

use common::Recipe;
use lnp_engine::engine::{Alone, Session};
use lnp_engine::ffn::Ffn;
use lnp_engine::queue::ReadQueue;
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::{Combine, Config, DeviceLaw, Engine, EngineError, FetchStats, required_bytes};
use lnp_format::Pack;
use lnp_kernels::CpuFeatures;
use proptest::prelude::*;

const LAYERS: u32 = 2;
const NEURONS: u32 = 30;

/// What a caller may do.
#[derive(Clone, Debug)]
enum Call {
    Fetch,
    Prefetch,
    Forward { x: usize, y: usize },
    Cancel,
}

fn call() -> impl Strategy<Value = Call> {
    let length = || prop_oneof![4 => Just(32), 1 => 0..70_usize];
    prop_oneof![
        Just(Call::Fetch),
        Just(Call::Prefetch),
        (length(), length()).prop_map(|(x, y)| Call::Forward { x, y }),
        Just(Call::Cancel),
    ]
}

fn layer() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..LAYERS, 1 => any::<u32>()]
}

/// Right ones and all kinds of wrong ones.
fn active() -> impl Strategy<Value = Vec<u32>> {
    let neuron = || prop_oneof![8 => 0..NEURONS, 1 => Just(NEURONS), 1 => any::<u32>()];
    prop_oneof![
        4 => prop::collection::btree_set(0..NEURONS, 0..30).prop_map(|set| set.into_iter().collect()),
        2 => prop::collection::vec(neuron(), 0..70),
        1 => prop::collection::btree_set(neuron(), 0..50).prop_map(|set| set.into_iter().collect()),
        1 => Just((0..NEURONS).collect()),
        1 => Just((0..NEURONS).rev().collect()),
        1 => Just((0..=NEURONS).collect()),
    ]
}

fn is_right(active: &[u32]) -> bool {
    active.windows(2).all(|pair| pair[0] < pair[1]) && active.iter().all(|n| *n < NEURONS)
}

/// Makes one call: what it says of the layer and the active set, or `None` where that is not asked.
fn perform<'a>(
    session: &mut Session<'_, 'a, SimulatedQueue<'a>>,
    ffn: &mut Ffn<'_>,
    recipe: &Recipe,
    (call, layer, active): (&Call, u32, &[u32]),
) -> Option<Result<FetchStats, EngineError>> {
    match call {
        Call::Fetch => {
            let mut count = 0;
            let mut finish = |neuron, _, bundle: &[u8], _: &[u8]| {
                assert_eq!(bundle, recipe.bundle(layer, neuron));
                count += 1;
                Ok(())
            };
            let arrive = |_: u32, _: &[u8], _: &[u8]| Ok(0.0);
            let found = session.fetch(&Alone, layer, active, arrive, &mut finish);
            let right = layer < LAYERS && is_right(active);
            assert_eq!(count, if right { active.len() } else { 0 });
            Some(found)
        }
        Call::Prefetch if session.engine().config().prefetch_bytes == 0 => {
            assert!(session.prefetch(layer, active).is_err());
            None
        }
        Call::Prefetch => Some(session.prefetch(layer, active)),
        Call::Forward { x, y } => {
            let (x, mut y) = (vec![0.5; *x], vec![0.0; *y]);
            let found = ffn.forward_in(session, &Alone, layer, &x, &[active], &mut y);
            if x.len() == 32 && y.len() == 32 {
                return Some(found);
            }
            assert!(matches!(found, Err(EngineError::Kernel(_))));
            None
        }
        Call::Cancel => {
            session.cancel_prefetch();
            None
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 2000 }))]
    #[test]
    fn whatever_is_asked_for_gives_a_result_or_an_error(
        prefetch_pages in 0usize..4,
        cache_bundles in 0u32..70,
        staging in 1usize..12,
        queue_depth in 1u32..9,
        polled in prop::sample::select(vec![0u32, 500_000]),
        calls in prop::collection::vec((call(), layer(), active()), 1..12),
    ) {
        let recipe = Recipe::small(LAYERS, NEURONS).with_replicas(1);
        let file = recipe.build();
        let pack = Pack::parse(&file, file.len() as u64).unwrap();
        let least = Config::staging_bytes_min(&pack);
        let staging_bytes = (staging * 1024).max(least);
        let base = Config::new(&pack);
        let prefetch_bytes = prefetch_pages * 4096;
        let config = Config { prefetch_bytes, cache_bundles, staging_bytes, queue_depth, ..base };
        let mut memory = vec![0xcc; required_bytes(&config, &pack).unwrap()];
        let law = DeviceLaw::new(0.0, 10.0, 1000.0, Combine::Sum).unwrap();
        let device = SimulatedQueue::new(Image::Bytes(&file), law, queue_depth, 1).polled(polled);
        let mut engine =
            Engine::open(pack, &config, &mut memory, |_| Ok::<_, EngineError>(device)).unwrap();
        let mut ffn_memory = [0; 4096];
        let mut ffn = Ffn::new(pack.shape(), CpuFeatures::NONE, 1, &mut ffn_memory).unwrap();
        engine.session(|session| {
            for (call, layer, active) in &calls {
                let right = *layer < LAYERS && is_right(active);
                match perform(session, &mut ffn, &recipe, (call, *layer, active)) {
                    None => {}
                    Some(Ok(_)) => assert!(right, "{call:?} {layer} {active:?}"),
                    Some(Err(EngineError::Layer { .. })) => assert!(*layer >= LAYERS),
                    Some(Err(EngineError::Active { position, found, neurons })) => {
                        assert_eq!((active[position], NEURONS), (found, neurons));
                        assert!(is_right(&active[..position]) && !is_right(&active[..=position]));
                    }
                    Some(Err(other)) => panic!("{other:?}"),
                }
            }
        });
        prop_assert!(engine.is_idle());
        prop_assert_eq!(engine.queue().in_flight(), 0);
    }
}
