//! Each cache policy against a naive model of it, over random sequences of operations.

use std::collections::{HashMap, HashSet, VecDeque};

use lnp_engine::CachePolicy;
use lnp_engine::arena::{Arena, ArenaSize};
use lnp_engine::cache::Cache;
use lnp_engine::limits::{
    CACHE_GHOSTS_PER_BUNDLE, CACHE_LONG_RUN_ADMITS_ONE_IN, CACHE_LONG_RUN_BUNDLES,
    CACHE_PINNED_PERCENT,
};
use proptest::prelude::*;

const BUNDLES: usize = 60;

/// Sequences instead of rings, names instead of cells, and searched from front to back.
struct Model {
    policy: CachePolicy,
    cells: usize,
    hot: HashSet<u32>,
    hot_held: HashSet<u32>,
    /// LRU, the newest last.
    recent: VecDeque<u32>,
    /// S3-FIFO: bundle and hits, the oldest first.
    small: VecDeque<(u32, u8)>,
    main: VecDeque<(u32, u8)>,
    /// Every ghost ever made that is not pushed out yet; the serial number of the valid one of each.
    ghosts: VecDeque<(u32, u64)>,
    ghost_of: HashMap<u32, u64>,
    serial: u64,
    long: u32,
}

impl Model {
    fn new(policy: CachePolicy, cells: usize, counts: &[u32]) -> Self {
        let cells = if policy == CachePolicy::None { 0 } else { cells };
        let share = match policy {
            CachePolicy::Pinned => cells,
            CachePolicy::PinnedLinkingAligned => cells * CACHE_PINNED_PERCENT / 100,
            _ => 0,
        };
        let mut by_count: Vec<u32> = (0..counts.len() as u32).collect();
        by_count.sort_by_key(|bundle| (std::cmp::Reverse(counts[*bundle as usize]), *bundle));
        let all = policy == CachePolicy::Pinned;
        by_count.retain(|bundle| all || counts[*bundle as usize] > 0);
        by_count.truncate(share);
        Self {
            policy,
            cells,
            hot: by_count.into_iter().collect(),
            hot_held: HashSet::new(),
            recent: VecDeque::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: VecDeque::new(),
            ghost_of: HashMap::new(),
            serial: 0,
            long: 0,
        }
    }

    fn clear(&mut self) {
        self.hot_held.clear();
        self.recent.clear();
        self.small.clear();
        self.main.clear();
        self.ghosts.clear();
        self.ghost_of.clear();
        self.long = 0;
    }

    fn contents(&self) -> HashSet<u32> {
        let queues = self.small.iter().chain(&self.main).map(|(bundle, _)| *bundle);
        queues.chain(self.recent.iter().copied()).chain(self.hot_held.iter().copied()).collect()
    }

    fn rest(&self) -> usize {
        self.cells - self.hot.len()
    }

    fn ask(&mut self, bundle: u32, run_bundles: u32) {
        if self.hot.contains(&bundle) {
            self.hot_held.insert(bundle);
            return;
        }
        match self.policy {
            CachePolicy::None | CachePolicy::Pinned => {}
            CachePolicy::Lru => {
                self.recent.retain(|held| *held != bundle);
                self.recent.push_back(bundle);
                if self.recent.len() > self.rest() {
                    self.recent.pop_front();
                }
            }
            CachePolicy::S3Fifo => self.ask_s3_fifo(bundle),
            CachePolicy::LinkingAligned | CachePolicy::PinnedLinkingAligned => {
                if !self.contents().contains(&bundle) && run_bundles >= CACHE_LONG_RUN_BUNDLES {
                    self.long += 1;
                    if !self.long.is_multiple_of(CACHE_LONG_RUN_ADMITS_ONE_IN) {
                        return;
                    }
                }
                self.ask_s3_fifo(bundle);
            }
        }
    }

    fn ask_s3_fifo(&mut self, bundle: u32) {
        let mut queues = self.small.iter_mut().chain(&mut self.main);
        if let Some((_, hits)) = queues.find(|(held, _)| *held == bundle) {
            *hits = (*hits + 1).min(3);
            return;
        }
        if self.rest() == 0 {
            return;
        }
        let known = self.ghost_of.contains_key(&bundle);
        if self.small.len() + self.main.len() == self.rest() {
            self.evict();
        }
        self.ghost_of.remove(&bundle);
        if known { &mut self.main } else { &mut self.small }.push_back((bundle, 0));
    }

    fn evict(&mut self) {
        let share = (self.rest() / 10).max(1);
        loop {
            if self.small.len() >= share || self.main.is_empty() {
                let (bundle, hits) = self.small.pop_front().unwrap();
                if hits == 0 {
                    return self.haunt(bundle);
                }
                self.main.push_back((bundle, 0));
            } else {
                let (bundle, hits) = self.main.pop_front().unwrap();
                if hits == 0 {
                    return;
                }
                self.main.push_back((bundle, hits - 1));
            }
        }
    }

    fn haunt(&mut self, bundle: u32) {
        if self.ghosts.len() == (self.cells * CACHE_GHOSTS_PER_BUNDLE as usize).min(BUNDLES) {
            let (old, serial) = self.ghosts.pop_front().unwrap();
            if self.ghost_of.get(&old) == Some(&serial) {
                self.ghost_of.remove(&old);
            }
        }
        self.serial += 1;
        self.ghosts.push_back((bundle, self.serial));
        self.ghost_of.insert(bundle, self.serial);
    }
}

#[derive(Clone, Debug)]
enum Operation {
    /// As the engine does: hit, or else admit.
    Ask(u32, u32),
    Clear,
}

fn operation() -> impl Strategy<Value = Operation> {
    let bundle = prop_oneof![3 => 0..BUNDLES as u32, 2 => 0..12_u32];
    prop_oneof![
        200 => (bundle, 1..9_u32).prop_map(|(bundle, run)| Operation::Ask(bundle, run)),
        1 => Just(Operation::Clear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 600 }))]
    #[test]
    fn policies_do_as_their_models(
        policy in prop::sample::select(CachePolicy::ALL.to_vec()),
        cells in 0_usize..25,
        counts in prop::collection::vec(prop_oneof![0..4_u32, 0..u32::MAX], BUNDLES),
        operations in prop::collection::vec(operation(), 0..700),
    ) {
        let mut size = ArenaSize::default();
        Cache::size(&mut size, BUNDLES, cells, policy);
        let mut memory = vec![0xee; size.bytes()];
        let mut cache = Cache::new(&mut Arena::new(&mut memory), BUNDLES, cells, policy).unwrap();
        cache.pin(counts.iter().enumerate().map(|(bundle, count)| (bundle as u32, *count)));
        let mut model = Model::new(policy, cells, &counts);
        // what each cell was last filled with, as a reader of the admissions sees it
        let mut filled: HashMap<u32, u32> = HashMap::new();
        for operation in operations {
            let pinned_before = model.hot_held.clone();
            match operation {
                Operation::Ask(bundle, run_bundles) => {
                    match cache.hit(bundle) {
                        Some(cell) => prop_assert_eq!(filled.get(&cell), Some(&bundle)),
                        None => if let Some(cell) = cache.admit(bundle, run_bundles) {
                            prop_assert!((cell as usize) < cells);
                            filled.insert(cell, bundle);
                            prop_assert_eq!(cache.peek(bundle), Some(cell));
                        },
                    }
                    model.ask(bundle, run_bundles);
                    prop_assert!(pinned_before.iter().all(|hot| cache.peek(*hot).is_some()));
                }
                Operation::Clear => {
                    cache.clear();
                    model.clear();
                    filled.clear();
                }
            }
            let held: HashSet<u32> =
                (0..BUNDLES as u32).filter(|bundle| cache.peek(*bundle).is_some()).collect();
            prop_assert_eq!(&held, &model.contents());
            prop_assert_eq!(cache.len() as usize, held.len());
            prop_assert_eq!(cache.is_empty(), held.is_empty());
            prop_assert!(held.len() <= cells);
            // every cell has the one bundle that it was last filled with
            prop_assert!(filled.iter().all(|(cell, bundle)| cache.peek(*bundle) == Some(*cell)));
        }
    }
}
