//! The cache against a plain model: what it says it holds, it holds; and it keeps what is asked for.

use std::collections::HashMap;

use lnp_engine::arena::{Arena, ArenaSize};
use lnp_engine::cache::Cache;
use proptest::prelude::*;

fn with_cache<R>(bundles: usize, cells: usize, body: impl FnOnce(&mut Cache<'_>) -> R) -> R {
    let mut size = ArenaSize::default();
    Cache::size(&mut size, bundles, cells);
    let mut memory = vec![0xee; size.bytes()];
    body(&mut Cache::new(&mut Arena::new(&mut memory), bundles, cells).unwrap())
}

/// Asks for a bundle as the engine does; true for a hit.
fn ask(cache: &mut Cache<'_>, bundle: u32) -> bool {
    cache.hit(bundle).is_some() || {
        cache.admit(bundle);
        false
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn cells_and_bundles_match(
        cells in 0usize..20,
        accesses in prop::collection::vec(0u32..60, 0..600),
    ) {
        with_cache(60, cells, |cache| {
            // what each cell was last filled with, as a reader of the admissions sees it
            let mut content: HashMap<u32, u32> = HashMap::new();
            for bundle in accesses {
                match cache.hit(bundle) {
                    Some(cell) => prop_assert_eq!(content.get(&cell), Some(&bundle)),
                    None => if let Some(cell) = cache.admit(bundle) {
                        prop_assert!((cell as usize) < cells);
                        content.insert(cell, bundle);
                        prop_assert_eq!(cache.peek(bundle), Some(cell));
                    },
                }
                for (cell, held) in &content {
                    prop_assert_eq!(cache.peek(*held), Some(*cell));
                }
                prop_assert_eq!(cache.len() as usize, content.len());
            }
            cache.clear();
            prop_assert!(cache.is_empty() && (0..60).all(|bundle| cache.peek(bundle).is_none()));
            Ok(())
        })?;
    }
}

#[test]
fn what_is_asked_for_again_survives_a_scan() {
    with_cache(100_000, 100, |cache| {
        for _ in 0..4 {
            (0..40).for_each(|bundle| {
                ask(cache, bundle);
            });
        }
        (1000..50_000).for_each(|bundle| {
            ask(cache, bundle);
        });
        let kept = (0..40).filter(|bundle| cache.peek(*bundle).is_some()).count();
        assert!(kept >= 30, "{kept} of 40 popular bundles survived a scan of 49,000");
    });
}

#[test]
fn a_cache_without_cells_holds_nothing() {
    with_cache(10, 0, |cache| assert!(!ask(cache, 3) && !ask(cache, 3)));
}

#[test]
fn bundles_beyond_the_pack_are_not_admitted() {
    with_cache(10, 4, |cache| assert!(cache.admit(10).is_none() && cache.hit(10).is_none()));
}

/// Ten cells, so small holds one: written out by hand from the S3-FIFO paper.
#[test]
fn a_ghost_that_comes_back_goes_to_main() {
    with_cache(100, 10, |cache| {
        (0..10).for_each(|bundle| {
            ask(cache, bundle); // all in small
        });
        ask(cache, 10); // 0, never hit, is thrown out of small and remembered
        assert!(cache.peek(0).is_none());
        assert!(!ask(cache, 0)); // back, to main; 1 goes
        assert!(cache.peek(1).is_none());
        (20..60).for_each(|bundle| {
            ask(cache, bundle); // a scan goes through small only
        });
        assert!(cache.peek(0).is_some(), "main is not touched by a scan");
    });
}

#[test]
fn main_spares_what_was_hit_once_per_hit() {
    with_cache(100, 2, |cache| {
        // two ghosts come back: both cells are main
        for bundle in [0, 1, 2, 3] {
            ask(cache, bundle);
        }
        ask(cache, 0);
        ask(cache, 1);
        assert!(cache.peek(0).is_some() && cache.peek(1).is_some());
        assert!(ask(cache, 0) && ask(cache, 0)); // two hits on 0, none on 1
        ask(cache, 2); // main gives way: 0 is spared, 1 is thrown out
        assert!(cache.peek(0).is_some() && cache.peek(1).is_none());
    });
}
