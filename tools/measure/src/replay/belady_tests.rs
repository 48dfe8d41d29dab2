//! Belady's MIN against trying everything.

use proptest::prelude::*;

use super::{CacheState, misses};

const BUNDLES: u32 = 6;

/// The fewest misses from `step` on with `held` in the cache (a bit each): tries all that could be
/// kept of what is held and what was read.
fn fewest(steps: &[u32], cells: u32, held: u32) -> u32 {
    let Some((asked, rest)) = steps.split_first() else { return 0 };
    let all = held | asked;
    let kept =
        (0..1 << BUNDLES).filter(|kept: &u32| kept & !all == 0 && kept.count_ones() <= cells);
    let after = kept.map(|kept| fewest(rest, cells, kept)).min().unwrap_or(0);
    (asked & !held).count_ones() + after
}

fn fewest_warm(steps: &[u32], cells: u32) -> u32 {
    let begins = (0..1 << BUNDLES).filter(|held: &u32| held.count_ones() <= cells);
    begins.map(|held| fewest(steps, cells, held)).min().unwrap_or(0)
}

fn bundles(set: u32) -> Vec<u32> {
    (0..BUNDLES).filter(|bundle| set >> bundle & 1 == 1).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_cache_misses_less(
        sets in prop::collection::vec(0_u32..1 << BUNDLES, 0..5),
        cells in 0_u32..5,
    ) {
        let steps: Vec<Vec<u32>> = sets.iter().map(|set| bundles(*set)).collect();
        for state in [CacheState::Cold, CacheState::Warm] {
            let missed = misses(&steps, cells as usize, state);
            let all: usize = missed.iter().map(Vec::len).sum();
            let expected = match state {
                CacheState::Cold => fewest(&sets, cells, 0),
                CacheState::Warm => fewest_warm(&sets, cells),
            };
            prop_assert_eq!(all as u32, expected, "{:?}", state);
            for (missed, asked) in missed.iter().zip(&steps) {
                prop_assert!(missed.iter().all(|bundle| asked.contains(bundle)));
            }
        }
    }
}

/// By hand: two cells, four bundles; 0 and 1 come back soonest, so 2 and 3 are passed by.
#[test]
fn what_is_asked_for_late_is_not_kept() {
    let steps = [vec![0, 1, 2, 3], vec![0, 1], vec![0, 1, 2, 3]];
    let missed = misses(&steps, 2, CacheState::Cold);
    assert_eq!(missed, [vec![0, 1, 2, 3], vec![], vec![2, 3]]);
    assert_eq!(misses(&steps, 2, CacheState::Warm)[0], [2, 3]);
}
