//! Naive models of the cache policies, shared with the fuzz target `cache`.
#![allow(unreachable_pub)] // a module of a test, and of another crate

use std::collections::{HashMap, HashSet, VecDeque};

use lnp_engine::CachePolicy;
use lnp_engine::arena::{Arena, ArenaSize};
use lnp_engine::cache::Cache;
use lnp_engine::limits::{
    CACHE_COST_FIRST, CACHE_COST_LEAST, CACHE_COST_STEP, CACHE_GHOSTS_PER_BUNDLE,
    CACHE_LONG_RUN_ADMITS_ONE_IN, CACHE_LONG_RUN_BUNDLES, CACHE_PINNED_PERCENT,
    CACHE_RECENT_HALF_LIFE_TICKS, CACHE_RECENT_WEIGHT, CACHE_SAMPLE_CELLS,
    CACHE_STEADY_HALF_LIFE_TICKS, CACHE_TICKS_PER_ROUND,
};

/// Sequences instead of rings, names instead of cells, and searched from front to back.
pub struct Model {
    policy: CachePolicy,
    cells: usize,
    bundles: usize,
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
    pub fn new(policy: CachePolicy, bundles: usize, cells: usize) -> Self {
        Self {
            policy,
            cells: if policy == CachePolicy::None { 0 } else { cells },
            bundles,
            hot: HashSet::new(),
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

    /// Names the hot set, by the count of each bundle.
    pub fn pin(&mut self, counts: &[u32]) {
        let share = match self.policy {
            CachePolicy::Pinned => self.cells,
            CachePolicy::PinnedLinkingAligned => self.cells * CACHE_PINNED_PERCENT / 100,
            _ => return,
        };
        if share == 0 {
            return;
        }
        let mut by_count: Vec<u32> = (0..counts.len() as u32).collect();
        by_count.sort_by_key(|bundle| (std::cmp::Reverse(counts[*bundle as usize]), *bundle));
        let all = self.policy == CachePolicy::Pinned;
        by_count.retain(|bundle| all || counts[*bundle as usize] > 0);
        by_count.truncate(share);
        self.hot = by_count.into_iter().collect();
        self.clear();
    }

    pub fn clear(&mut self) {
        self.hot_held.clear();
        self.recent.clear();
        self.small.clear();
        self.main.clear();
        self.ghosts.clear();
        self.ghost_of.clear();
        self.long = 0;
    }

    pub fn contents(&self) -> HashSet<u32> {
        let queues = self.small.iter().chain(&self.main).map(|(bundle, _)| *bundle);
        queues.chain(self.recent.iter().copied()).chain(self.hot_held.iter().copied()).collect()
    }

    fn rest(&self) -> usize {
        self.cells - self.hot.len()
    }

    pub fn ask(&mut self, bundle: u32, run_bundles: u32) {
        if self.hot.contains(&bundle) {
            self.hot_held.insert(bundle);
            return;
        }
        match self.policy {
            CachePolicy::None | CachePolicy::Pinned | CachePolicy::DecayedFrequency => {}
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
        if self.ghosts.len() == (self.cells * CACHE_GHOSTS_PER_BUNDLE as usize).min(self.bundles) {
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

/// What is done to a cache.
#[derive(Clone, Debug)]
pub enum Operation {
    /// As the engine does: hit, or else admit, with the length of the run.
    Ask(u32, u32),
    /// A hit alone.
    Hit(u32),
    /// An admission alone, also of what is there.
    Admit(u32, u32),
    Clear,
    /// Another hot set: the count of each bundle.
    Pin(Vec<u32>),
}

/// Does the same to a cache and to its model, and compares them after each step.
pub fn compare(
    policy: CachePolicy,
    bundles: usize,
    cells: usize,
    operations: impl IntoIterator<Item = Operation>,
) {
    if policy == CachePolicy::DecayedFrequency {
        return compare_decayed(bundles, cells, operations);
    }
    let mut size = ArenaSize::default();
    Cache::size(&mut size, bundles, cells, policy);
    let mut memory = vec![0xee; size.bytes()];
    let mut cache = Cache::new(&mut Arena::new(&mut memory), bundles, cells, policy).unwrap();
    let mut model = Model::new(policy, bundles, cells);
    // what each cell was last filled with, as a reader of the admissions sees it
    let mut filled: HashMap<u32, u32> = HashMap::new();
    for operation in operations {
        let hot_before = model.hot_held.clone();
        match operation {
            Operation::Ask(bundle, run_bundles) => {
                if !hit(&mut cache, &filled, bundle) {
                    admit(&mut cache, &mut filled, bundle, run_bundles, cells);
                }
                if (bundle as usize) < bundles {
                    model.ask(bundle, run_bundles);
                }
                assert!(hot_before.iter().all(|hot| cache.peek(*hot).is_some()));
            }
            Operation::Hit(bundle) => {
                if hit(&mut cache, &filled, bundle) {
                    model.ask(bundle, 1);
                }
            }
            Operation::Admit(bundle, run_bundles) => {
                let there = cache.peek(bundle);
                admit(&mut cache, &mut filled, bundle, run_bundles, cells);
                if there.is_some() {
                    assert_eq!(cache.peek(bundle), there);
                } else if (bundle as usize) < bundles {
                    model.ask(bundle, run_bundles);
                }
            }
            Operation::Clear => {
                cache.clear();
                model.clear();
                filled.clear();
            }
            Operation::Pin(counts) => {
                cache.pin((0..).zip(counts.iter().copied()));
                model.pin(&counts);
                filled.retain(|_, bundle| model.contents().contains(bundle));
            }
        }
        let held: HashSet<u32> =
            (0..bundles as u32).filter(|bundle| cache.peek(*bundle).is_some()).collect();
        assert_eq!(held, model.contents());
        assert_eq!((cache.len() as usize, cache.is_empty()), (held.len(), held.is_empty()));
        assert!(held.len() <= cells);
        // every cell has the one bundle that it was last filled with
        assert!(filled.iter().all(|(cell, bundle)| cache.peek(*bundle) == Some(*cell)));
    }
}

/// Whether the bundle is there; if so, in the cell that it was put into.
fn hit(cache: &mut Cache<'_>, filled: &HashMap<u32, u32>, bundle: u32) -> bool {
    let found = cache.hit(bundle);
    if let Some(cell) = found {
        assert_eq!(filled.get(&cell), Some(&bundle));
    }
    found.is_some()
}

fn admit(
    cache: &mut Cache<'_>,
    filled: &mut HashMap<u32, u32>,
    bundle: u32,
    run_bundles: u32,
    cells: usize,
) {
    if let Some(cell) = cache.admit(bundle, run_bundles) {
        assert!((cell as usize) < cells);
        filled.insert(cell, bundle);
        assert_eq!(cache.peek(bundle), Some(cell));
    }
}

/// Every use of every bundle, kept, and weighed anew whenever a worth is asked for.
struct Uses {
    profiled: Vec<u32>,
    /// All of these together.
    profiled_sum: f64,
    /// Ticks since the beginning, and the bundle.
    uses: Vec<(usize, u32)>,
    cost: Vec<f64>,
    /// The bundle that each cell holds or is kept for, and whether it was read.
    cells: Vec<Option<(u32, bool)>>,
}

impl Uses {
    fn new(bundles: usize, cells: usize) -> Self {
        let mut uses = Self {
            profiled: vec![0; bundles],
            profiled_sum: 0.0,
            uses: Vec::new(),
            cost: Vec::new(),
            cells: vec![None; cells],
        };
        uses.clear(false);
        uses
    }

    /// Cells are kept for the most frequent once counts were told, however few.
    fn clear(&mut self, keep: bool) {
        self.uses.clear();
        self.profiled_sum = self.profiled.iter().map(|count| f64::from(*count)).sum();
        self.cost = vec![f64::from(CACHE_COST_FIRST); self.profiled.len()];
        let mut hot: Vec<u32> = (0..self.profiled.len() as u32).collect();
        hot.sort_by_key(|bundle| (std::cmp::Reverse(self.profiled[*bundle as usize]), *bundle));
        hot.retain(|bundle| keep && self.profiled[*bundle as usize] > 0);
        hot.truncate(self.cells.len());
        hot.sort_unstable();
        let kept = hot.iter().map(|bundle| Some((*bundle, false)));
        let cells = self.cells.len();
        self.cells = kept.chain(std::iter::repeat(None)).take(cells).collect();
    }

    fn tick_uses(&self) -> usize {
        (self.profiled.len() / CACHE_TICKS_PER_ROUND).max(1)
    }

    fn cell_of(&self, bundle: u32) -> Option<usize> {
        self.cells.iter().position(|cell| cell.is_some_and(|(of, _)| of == bundle))
    }

    fn holds(&self, bundle: u32) -> bool {
        self.cells.contains(&Some((bundle, true)))
    }

    fn count(&mut self, bundle: u32) {
        self.uses.push((self.uses.len() / self.tick_uses(), bundle));
    }

    fn worth(&self, bundle: u32) -> f64 {
        let now = self.uses.len() / self.tick_uses();
        let decayed = |half_life: usize| {
            let ages = self.uses.iter().filter(|(_, used)| *used == bundle).map(|(at, _)| now - at);
            ages.map(|age| 0.5_f64.powf(age as f64 / half_life as f64)).sum::<f64>()
        };
        let half_life = CACHE_STEADY_HALF_LIFE_TICKS as f64;
        let share = f64::from(self.profiled[bundle as usize]) / self.profiled_sum.max(1.0);
        let before = share * half_life * self.tick_uses() as f64 / 2_f64.ln();
        let steady =
            before * 0.5_f64.powf(now as f64 / half_life) + decayed(CACHE_STEADY_HALF_LIFE_TICKS);
        let rate = steady + f64::from(CACHE_RECENT_WEIGHT) * decayed(CACHE_RECENT_HALF_LIFE_TICKS);
        let least = f64::from(CACHE_COST_LEAST);
        rate * (least + (1.0 - least) * self.cost[bundle as usize])
    }
}

/// A relative difference that rounding may make.
const ROUNDING: f64 = 1e-3;

/// The same for the policy `decayed-frequency`. In which cells it looks for the one that gives way is its own affair: of
/// whichever it takes it is asked that the bundle there is worth no more than the newcomer, and no more than those of as
/// many cells as it looks into.
fn compare_decayed(bundles: usize, cells: usize, operations: impl IntoIterator<Item = Operation>) {
    let policy = CachePolicy::DecayedFrequency;
    let mut size = ArenaSize::default();
    Cache::size(&mut size, bundles, cells, policy);
    let mut memory = vec![0xee; size.bytes()];
    let mut cache = Cache::new(&mut Arena::new(&mut memory), bundles, cells, policy).unwrap();
    let mut model = Uses::new(if cells == 0 { 0 } else { bundles }, cells);
    let mut kept = Vec::new();
    for operation in operations {
        match operation {
            Operation::Ask(bundle, run_bundles) => {
                if cache.hit(bundle).is_some() {
                    assert!(model.holds(bundle));
                    model.count(bundle);
                } else {
                    admit_decayed(&mut cache, &mut model, bundle, run_bundles);
                }
            }
            Operation::Hit(bundle) => {
                if cache.hit(bundle).is_some() {
                    model.count(bundle);
                }
            }
            Operation::Admit(bundle, run_bundles) => {
                admit_decayed(&mut cache, &mut model, bundle, run_bundles);
            }
            Operation::Clear => {
                cache.clear();
                model.clear(true);
            }
            Operation::Pin(counts) => {
                cache.pin((0..).zip(counts.iter().copied()));
                model.profiled.iter_mut().zip(&counts).for_each(|(to, count)| *to = *count);
                model.clear(true);
                kept = model.cells.iter().flatten().map(|(bundle, _)| *bundle).collect();
            }
        }
        let held: HashMap<u32, u32> = (0..)
            .zip(&model.cells)
            .filter_map(|(cell, of)| of.filter(|(_, read)| *read).map(|(bundle, _)| (bundle, cell)))
            .collect();
        let found = |bundle| cache.peek(bundle) == held.get(&bundle).copied();
        assert!((0..bundles as u32).all(found), "{held:?}");
        assert_eq!((cache.len() as usize, cache.is_empty()), (held.len(), held.is_empty()));
        assert!(cache.hot().is_empty() || cache.hot() == kept);
    }
}

fn admit_decayed(cache: &mut Cache<'_>, model: &mut Uses, bundle: u32, run_bundles: u32) {
    let admitted = cache.admit(bundle, run_bundles);
    if bundle as usize >= model.profiled.len() || model.holds(bundle) {
        assert_eq!(admitted, None);
        return;
    }
    model.count(bundle);
    let cost = &mut model.cost[bundle as usize];
    *cost += f64::from(CACHE_COST_STEP) * (1.0 / f64::from(run_bundles.max(1)) - *cost);
    let certain = model.cell_of(bundle).or(model.cells.iter().position(Option::is_none));
    if certain.is_some() {
        assert_eq!(admitted.map(|cell| cell as usize), certain);
    }
    let looked = (CACHE_SAMPLE_CELLS as usize).min(model.cells.len());
    let worth_at_least = |worth: f64| {
        let others = model.cells.iter().flatten();
        others.filter(|(other, _)| model.worth(*other) >= worth * (1.0 - ROUNDING)).count()
    };
    let newcomer = model.worth(bundle);
    match admitted {
        Some(cell) => {
            if let Some((victim, _)) = model.cells[cell as usize].filter(|_| certain.is_none()) {
                let worth = model.worth(victim);
                assert!(worth <= newcomer * (1.0 + ROUNDING), "{worth} gave way to {newcomer}");
                assert!(worth_at_least(worth) >= looked, "others are worth less than {worth}");
            }
            model.cells[cell as usize] = Some((bundle, true));
        }
        None => assert!(worth_at_least(newcomer) >= looked, "{newcomer} was not taken in"),
    }
}
