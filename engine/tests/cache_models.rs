//! Each cache policy against a naive model of it, over random sequences of operations.

#[path = "models/cache.rs"]
mod model;

use lnp_engine::CachePolicy;
use model::{Operation, compare};
use proptest::prelude::*;

const BUNDLES: usize = 60;

fn counts() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(prop_oneof![0..4_u32, 0..=u32::MAX], BUNDLES)
}

fn operation() -> impl Strategy<Value = Operation> {
    let bundle = || prop_oneof![30 => 0..BUNDLES as u32, 20 => 0..12_u32, 1 => 0..=u32::MAX];
    prop_oneof![
        180 => (bundle(), 1..9_u32).prop_map(|(bundle, run)| Operation::Ask(bundle, run)),
        10 => bundle().prop_map(Operation::Hit),
        10 => (bundle(), 1..9_u32).prop_map(|(bundle, run)| Operation::Admit(bundle, run)),
        1 => Just(Operation::Clear),
        1 => counts().prop_map(Operation::Pin),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 600 }))]
    #[test]
    fn policies_do_as_their_models(
        policy in prop::sample::select(CachePolicy::ALL.to_vec()),
        cells in 0_usize..25,
        counts in counts(),
        operations in prop::collection::vec(operation(), 0..700),
    ) {
        compare(policy, BUNDLES, cells, std::iter::once(Operation::Pin(counts)).chain(operations));
    }
}

/// Found by the fuzz target `cache`.
#[test]
fn the_largest_counts_are_told_apart() {
    let counts = vec![u32::MAX - 1, u32::MAX];
    compare(CachePolicy::Pinned, 2, 1, [Operation::Pin(counts), Operation::Ask(0, 1)]);
}
