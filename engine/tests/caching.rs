//! What the cache policies are for: they keep what is asked for. `cache_models.rs` has every step.

use lnp_engine::CachePolicy;
use lnp_engine::arena::{Arena, ArenaSize};
use lnp_engine::cache::{Cache, Read};
use lnp_engine::limits::{CACHE_LONG_RUN_ADMITS_ONE_IN, CACHE_LONG_RUN_BUNDLES};

fn with<R>(
    policy: CachePolicy,
    bundles: usize,
    cells: usize,
    body: impl FnOnce(&mut Cache<'_>) -> R,
) -> R {
    let mut size = ArenaSize::default();
    Cache::size(&mut size, bundles, cells, policy);
    let mut memory = vec![0xee; size.bytes()];
    body(&mut Cache::new(&mut Arena::new(&mut memory), bundles, cells, policy).unwrap())
}

/// The tests of S3-FIFO.
fn with_cache<R>(bundles: usize, cells: usize, body: impl FnOnce(&mut Cache<'_>) -> R) -> R {
    with(CachePolicy::S3Fifo, bundles, cells, body)
}

/// Asks for a bundle as the engine does; true for a hit.
fn ask(cache: &mut Cache<'_>, bundle: u32) -> bool {
    cache.hit(bundle).is_some() || {
        cache.admit(bundle, 1);
        false
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
    with_cache(10, 4, |cache| assert!(cache.admit(10, 1).is_none() && cache.hit(10).is_none()));
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

#[test]
fn policies_go_by_their_names() {
    for policy in CachePolicy::ALL {
        assert_eq!(CachePolicy::from_name(policy.name()), Some(policy));
    }
    assert_eq!(CachePolicy::from_name("LRU"), None);
}

#[test]
fn the_hot_set_is_the_most_frequent_and_survives_a_clear() {
    with(CachePolicy::Pinned, 10, 3, |cache| {
        let counts = [5, 0, 9, 5, 5, 0, 1, u32::MAX, 0, 0];
        cache.pin((0..).zip(counts));
        for _ in 0..2 {
            (0..10).for_each(|bundle| {
                ask(cache, bundle);
            });
            let held: Vec<u32> = (0..10).filter(|bundle| cache.peek(*bundle).is_some()).collect();
            assert_eq!(held, [0, 2, 7]); // of the three fives the lowest
            cache.clear();
            assert!(cache.is_empty());
        }
    });
}

#[test]
fn without_a_profile_no_cell_is_wasted() {
    with(CachePolicy::Pinned, 10, 3, |cache| {
        cache.pin((0..10).map(|bundle| (bundle, u32::from(bundle == 4))));
        (0..10).for_each(|bundle| {
            ask(cache, bundle);
        });
        let held: Vec<u32> = (0..10).filter(|bundle| cache.peek(*bundle).is_some()).collect();
        assert_eq!(held, [0, 1, 4]);
    });
    // the cells that are not pinned are for the rest
    with(CachePolicy::PinnedLinkingAligned, 10, 3, |cache| {
        cache.pin((0..10).map(|bundle| (bundle, 0)));
        (0..10).for_each(|bundle| {
            ask(cache, bundle);
        });
        assert_eq!(cache.len(), 3);
    });
}

#[test]
fn long_runs_are_admitted_now_and_then() {
    with(CachePolicy::LinkingAligned, 1000, 1000, |cache| {
        let mut admitted = |run_bundles, bundles: std::ops::Range<u32>| {
            bundles.filter(|bundle| cache.admit(*bundle, run_bundles).is_some()).count() as u32
        };
        assert_eq!(admitted(CACHE_LONG_RUN_BUNDLES - 1, 0..100), 100);
        assert_eq!(admitted(CACHE_LONG_RUN_BUNDLES, 100..500), 400 / CACHE_LONG_RUN_ADMITS_ONE_IN);
    });
}

#[test]
fn the_hot_set_gives_way_to_what_is_used() {
    with(CachePolicy::DecayedFrequency, 1000, 100, |cache| {
        // the profile saw the first hundred, and only them
        cache.pin((0..1000).map(|bundle| (bundle, u32::from(bundle < 100))));
        assert_eq!(cache.hot(), (0..100).collect::<Vec<u32>>());
        let mut hits = |bundles: std::ops::Range<u32>, rounds: u32| {
            let mut last = 0;
            for _ in 0..rounds {
                last = bundles.clone().filter(|bundle| ask(cache, *bundle)).count();
            }
            last
        };
        // as long as that is what is used, it stays, whatever passes by once
        assert_eq!(hits(0..100, 10), 100);
        hits(100..1000, 1);
        assert!(hits(0..100, 1) >= 90);
        // another text
        assert_eq!(hits(500..600, 400), 100);
        assert!(cache.hot().is_empty());
        cache.clear();
        assert!(cache.is_empty() && cache.hot().len() == 100);
    });
}

#[test]
fn what_is_read_alone_is_kept_rather_than_one_of_many() {
    with(CachePolicy::DecayedFrequency, 1000, 50, |cache| {
        // a hundred bundles in turns, all as often; the even ones come one by one, the others together
        for _ in 0..100 {
            for bundle in 0..100 {
                if cache.hit(bundle).is_none() {
                    let read_bundles = if bundle % 2 == 0 { 1 } else { 50 };
                    cache.admit_read(bundle, Read { run_bundles: 1, read_bundles });
                }
            }
        }
        let kept = (0..100).step_by(2).filter(|bundle| cache.peek(*bundle).is_some()).count();
        assert!(kept >= 40, "{kept} of 50 that are read alone");
    });
}
