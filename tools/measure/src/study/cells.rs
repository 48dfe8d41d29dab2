//! The cells of a study: one order from one profile on one test, for one bundle size and one cache.

use anyhow::Result;
use lnp_engine::cache::Read;
use lnp_engine::{CachePolicy, DeviceLaw};
use rayon::prelude::*;

use super::inputs::{Learned, Test};
use super::layouts::{Kind, Layout};
use super::missed::{Missed, through_cache};
use lnp_link::hot::{hot_bundles, hot_sets};
use lnp_link::price::{Price, Pricer};
use lnp_link::{LAYER_STEPS, Objective, Slots};

/// A cache: its policy, and the share of the bundles that it holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheKind {
    /// What it keeps.
    pub policy: CachePolicy,
    /// Share of the bundles.
    pub ratio: f64,
}

impl CacheKind {
    /// Each policy at each ratio above 0; one without a cache where 0 is among them.
    pub fn menu(policies: &[CachePolicy], ratios: &[f64]) -> Vec<Self> {
        let mut menu = Vec::new();
        if ratios.contains(&0.0) {
            menu.push(Self { policy: CachePolicy::None, ratio: 0.0 });
        }
        for &policy in policies.iter().filter(|policy| **policy != CachePolicy::None) {
            menu.extend(
                ratios.iter().filter(|ratio| **ratio > 0.0).map(|&ratio| Self { policy, ratio }),
            );
        }
        menu
    }

    /// `none`, `pinned` or `dynamic`: what keeps nothing, the same for ever, or what was asked for.
    pub fn group(&self) -> &'static str {
        match self.policy {
            CachePolicy::None => "none",
            CachePolicy::Pinned => "pinned",
            _ => "dynamic",
        }
    }

    /// Its name in tables: `pinned 10 %`.
    pub fn name(&self) -> String {
        match self.policy {
            CachePolicy::None => "no cache".into(),
            policy => format!("{} {:.0} %", policy.name(), 100.0 * self.ratio),
        }
    }
}

/// What a study goes over, besides profiles and tests.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The law of the device.
    pub law: DeviceLaw,
    /// Orders.
    pub kinds: Vec<Kind>,
    /// Bytes of a bundle.
    pub bundle_bytes: Vec<u32>,
    /// Caches.
    pub caches: Vec<CacheKind>,
}

impl Settings {
    fn objective(&self, bundle_bytes: u32) -> Objective {
        Objective { law: self.law, bundle_bytes }
    }
}

/// What one combination cost.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cell {
    /// Reads of all tokens.
    pub reads: u64,
    /// Bytes read, holes and rounding included.
    pub bytes: u64,
    /// Bundles of each block of tokens that were active and not in the cache.
    pub block_missed: Vec<f64>,
    /// Device time of each block of tokens, microseconds.
    pub block_us: Vec<f64>,
}

impl Cell {
    fn of(test: &Test) -> Self {
        let none = vec![0.0; test.blocks()];
        Self { block_missed: none.clone(), block_us: none, ..Self::default() }
    }

    fn add(&mut self, test: &Test, token: usize, missed: usize, price: &Price) {
        self.reads += price.reads;
        self.bytes += price.bytes;
        let block = token / test.block_tokens;
        self.block_missed[block] += missed as f64;
        self.block_us[block] += price.time_us;
    }

    /// Device time of all tokens, microseconds.
    pub fn us(&self) -> f64 {
        self.block_us.iter().sum()
    }
}

/// Which cell: places in the lists of the [`Grid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Of [`Settings::caches`].
    pub cache: usize,
    /// Of the tests.
    pub test: usize,
    /// Of the profiles.
    pub profile: usize,
    /// Of [`Settings::kinds`].
    pub kind: usize,
    /// Of [`Settings::bundle_bytes`].
    pub bundle: usize,
}

/// All cells, and what they are of.
pub struct Grid {
    /// What was gone over.
    pub settings: Settings,
    /// Profiles; the mixed one is last.
    pub learned: Vec<Learned>,
    /// Tests.
    pub tests: Vec<Test>,
    /// The orders, by kind and profile.
    pub layouts: Vec<Vec<Layout>>,
    cells: Vec<Cell>,
}

impl Grid {
    /// A cell; of a place within the lists.
    pub fn cell(&self, at: At) -> &Cell {
        let (profiles, kinds) = (self.learned.len(), self.settings.kinds.len());
        let batch = (at.cache * self.tests.len() + at.test) * profiles + at.profile;
        let bundles = self.settings.bundle_bytes.len();
        &self.cells[(batch * kinds + at.kind) * bundles + at.bundle]
    }

    /// All places, in the order of the lists, the last of [`At`] fastest.
    pub fn places(&self) -> impl Iterator<Item = At> + '_ {
        let (kinds, bundles) = (self.settings.kinds.len(), self.settings.bundle_bytes.len());
        let (tests, profiles) = (self.tests.len(), self.learned.len());
        (0..self.cells.len()).map(move |number| {
            let (rest, bundle) = (number / bundles, number % bundles);
            let (rest, kind) = (rest / kinds, rest % kinds);
            let (rest, profile) = (rest / profiles, rest % profiles);
            At { cache: rest / tests, test: rest % tests, profile, kind, bundle }
        })
    }

    /// The place of an order among the kinds: the first of its kind.
    pub fn kind_of(&self, order: lnp_link::Order) -> Option<usize> {
        self.settings.kinds.iter().position(|kind| kind.order == order)
    }

    /// What a token costs that streams every layer.
    pub fn dense(&self, bundle: usize) -> Price {
        let objective = self.settings.objective(self.settings.bundle_bytes[bundle]);
        let of_layer = Pricer::dense(&objective, self.tests[0].neurons);
        self.tests[0].layers.iter().fold(Price::default(), |sum, _| sum.and_layer(of_layer))
    }

    /// The bytes that a bundle takes at the full bandwidth, microseconds.
    pub fn bundle_us(&self, bundle: usize) -> f64 {
        self.settings.law.transfer_us(self.settings.bundle_bytes[bundle].into())
    }
}

/// Steps that [`study`] tells its progress in, beside [`LAYER_STEPS`] for each layer linked: one for
/// each kind on each profile, test and cache.
pub fn steps(settings: &Settings, profiles: usize, tests: usize, layers: usize) -> u64 {
    let kinds = settings.kinds.len() * profiles;
    (kinds * (tests * settings.caches.len() * CELL_STEPS as usize)) as u64
        + (kinds * layers) as u64 * LAYER_STEPS
}

/// Steps of the progress for an order on a test under a cache; about as long as those of a layer.
const CELL_STEPS: u64 = 500;

/// Prices every combination; on rayon's current pool. `progress` is called with steps done, [`steps`]
/// in all.
///
/// # Errors
/// A profile that cannot be read.
pub fn study(
    settings: Settings,
    learned: Vec<Learned>,
    tests: Vec<Test>,
    progress: &(impl Fn(u64) + Sync),
) -> Result<Grid> {
    let (profiles, kinds) = (learned.len(), settings.kinds.len());
    let default = settings.objective(Objective::BUNDLE_BYTES_DEFAULT);
    let made: Vec<Result<Layout>> = (0..kinds * profiles)
        .into_par_iter()
        .map(|at| settings.kinds[at / profiles].make(&learned[at % profiles], &default, progress))
        .collect();
    let mut made = made.into_iter();
    let layouts = (0..kinds)
        .map(|_| made.by_ref().take(profiles).collect::<Result<Vec<Layout>>>())
        .collect::<Result<Vec<_>>>()?;
    let mut cells = Vec::new();
    for cache in &settings.caches {
        for test in &tests {
            let missed = missed_of(*cache, test, &learned)?;
            let priced: Vec<Result<Vec<Cell>>> = (0..profiles * kinds)
                .into_par_iter()
                .map(|at| {
                    let (profile, kind) = (at / kinds, at % kinds);
                    let layout = &layouts[kind][profile];
                    let cells = match missed.get(profile % missed.len().max(1)) {
                        Some(missed) => price_missed(&settings, test, missed, layout),
                        None => price_cached(&settings, *cache, test, &learned[profile], layout)?,
                    };
                    progress(CELL_STEPS);
                    Ok(cells)
                })
                .collect();
            for priced in priced {
                cells.extend(priced?);
            }
        }
    }
    Ok(Grid { settings, learned, tests, layouts, cells })
}

/// What a cache leaves, by profile, or one for all; nothing for a cache that goes by how bundles lie.
pub(super) fn missed_of(cache: CacheKind, test: &Test, learned: &[Learned]) -> Result<Vec<Missed>> {
    let cells = hot_bundles(test.layers.len(), test.neurons, cache.ratio);
    match cache.policy {
        CachePolicy::None | CachePolicy::Pinned => {
            let distinct = if cells == 0 { 1 } else { learned.len() };
            let of =
                |learned: &Learned| Missed::but(test, &hot_sets(&learned.active_counts, cells));
            Ok(learned[..distinct].par_iter().map(of).collect())
        }
        CachePolicy::Lru | CachePolicy::S3Fifo => {
            Ok(vec![Missed::by_cache(test, cache.policy, cells)?])
        }
        _ => Ok(Vec::new()),
    }
}

/// The cells of all bundle sizes, each token read from its cheapest placement.
pub(super) fn price_missed(
    settings: &Settings,
    test: &Test,
    missed: &Missed,
    layout: &Layout,
) -> Vec<Cell> {
    let mut cells = vec![Cell::of(test); settings.bundle_bytes.len()];
    let mut pricers: Vec<Pricer> = settings
        .bundle_bytes
        .iter()
        .map(|bytes| Pricer::new(&settings.objective(*bytes), layout.slots_max()))
        .collect();
    let mut slots = Vec::new();
    for token in 0..test.tokens {
        for (layer, placements) in layout.slots.iter().enumerate() {
            let batch = missed.batch(token, layer);
            let mut best = vec![None::<Price>; cells.len()];
            for placed in placements {
                sort_slots(batch, placed.first(), &mut slots);
                for (pricer, best) in pricers.iter_mut().zip(&mut best) {
                    // Which copies are read depends on what a read costs in bundles.
                    let price = match placed.has_copies() {
                        true => pricer.batch(batch, placed),
                        false => pricer.slots_price(&slots),
                    };
                    if best.is_none_or(|best| price.time_us < best.time_us) {
                        *best = Some(price);
                    }
                }
            }
            for (cell, best) in cells.iter_mut().zip(best) {
                cell.add(test, token, batch.len(), &best.unwrap_or_default());
            }
        }
    }
    cells
}

/// The same where the cache asks how bundles are read.
fn price_cached(
    settings: &Settings,
    cache: CacheKind,
    test: &Test,
    learned: &Learned,
    layout: &Layout,
) -> Result<Vec<Cell>> {
    let counts = &learned.active_counts;
    let both = price_cold_and_warm(settings, cache, test, counts, layout, false)?;
    Ok(both.into_iter().map(|[_, warm]| warm).collect())
}

/// The cells of all bundle sizes with the cache empty at the beginning, where `cold` asks for them, and once it has seen
/// all tokens. What a cache that asks how bundles are read keeps depends on their size where there are several placements, of which the cheapest
/// is read, or copies, and where it asks what came in one read; otherwise all sizes have the same cache.
pub(super) fn price_cold_and_warm(
    settings: &Settings,
    cache: CacheKind,
    test: &Test,
    active_counts: &[Vec<u32>],
    layout: &Layout,
    cold: bool,
) -> Result<Vec<[Cell; 2]>> {
    let several =
        |placements: &Vec<Slots>| placements.len() > 1 || placements.iter().any(Slots::has_copies);
    let several = layout.slots.iter().any(several);
    let asks_reads = cache.policy == CachePolicy::DecayedFrequency;
    let of_size_alone = several || asks_reads;
    let together = if of_size_alone { 1 } else { settings.bundle_bytes.len().max(1) };
    let cache_cells = hot_bundles(test.layers.len(), test.neurons, cache.ratio);
    let (mut cells, mut keys, mut slots) = (Vec::new(), Vec::new(), Vec::new());
    for sizes in settings.bundle_bytes.chunks(together) {
        let of_size = |bytes: &u32| {
            let pricer = Pricer::new(&settings.objective(*bytes), layout.slots_max());
            (pricer, [Cell::of(test), Cell::of(test)])
        };
        let mut priced: Vec<(Pricer, [Cell; 2])> = sizes.iter().map(of_size).collect();
        through_cache(test, cache.policy, cache_cells, active_counts, |batch, reads| {
            let placements = &layout.slots[batch.layer];
            let placement = match placements.len() {
                1 => 0,
                _ => priced[0].0.cheapest(batch.missed, placements).0,
            };
            priced[0].0.choose(batch.missed, &placements[placement], &mut keys);
            run_lengths(&keys, reads);
            if !batch.warm && !cold && !asks_reads {
                return;
            }
            slots.clear();
            slots.extend(keys.iter().map(|(slot, _)| *slot));
            for (pricer, cells) in &mut priced {
                let price = pricer.slots_price(&slots);
                let cell = &mut cells[usize::from(batch.warm)];
                cell.add(test, batch.token, batch.missed.len(), &price);
            }
            for extent in priced[0].0.reads() {
                let wanted = keys.iter().skip(extent.first as usize).take(extent.count as usize);
                wanted.for_each(|(_, at)| reads[*at].read_bundles = extent.count);
            }
        })?;
        cells.extend(priced.into_iter().map(|(_, cells)| cells));
    }
    Ok(cells)
}

/// The slots of some neurons, ascending.
fn sort_slots(ids: &[u32], slot_of_neuron: &[u32], slots: &mut Vec<u32>) {
    slots.clear();
    slots.extend(ids.iter().map(|id| slot_of_neuron[*id as usize]));
    slots.sort_unstable();
}

/// For each of some bundles, by slot and position, how long the run of adjacent slots is that it lies in.
fn run_lengths(keys: &[(u32, usize)], reads: &mut [Read]) {
    for run in keys.chunk_by(|one, next| one.0 + 1 == next.0) {
        run.iter().for_each(|(_, at)| reads[*at].run_bundles = run.len() as u32);
    }
}
