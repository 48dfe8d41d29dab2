//! How far each cache is from the best, in device time: every policy, from a cold start and warm, beside Belady's MIN, on
//! one order.
//!
//! Belady's time is that of reading what MIN misses, from the same order by the same planner and law. MIN keeps what is
//! asked for again soonest, so nothing misses less; but the fewest misses are not the least time, and a cache that keeps
//! what is dear to read can come closer than its hits say. What the least time is nobody knows: it is no more than Belady's.

use anyhow::Result;
use lnp_engine::CachePolicy;
use rayon::prelude::*;
use serde::Serialize;

use super::cells::{Cell, Grid, price_cold_and_warm, price_missed};
use super::inputs::{Relation, Test};
use super::missed::Missed;
use crate::replay::CacheState;
use crate::replay::belady;
use lnp_common::report::{bytes, plain, table};
use lnp_link::Order;
use lnp_link::hot::hot_bundles;

/// One policy in one place.
#[derive(Debug, Clone, Serialize)]
pub struct CacheRow {
    /// What the order, and the hot set, is from.
    pub profile: String,
    /// What is read.
    pub test: String,
    /// How they stand to each other.
    pub relation: &'static str,
    /// Bytes of a bundle.
    pub bundle_bytes: u32,
    /// Share of the bundles that it holds.
    pub cache_ratio: f64,
    /// What it keeps.
    pub cache_policy: &'static str,
    /// `cold` or `warm`.
    pub cache_state: &'static str,
    /// Device time of a token, microseconds.
    pub us: f64,
    /// Share of the active bundles found in it.
    pub hit_rate: f64,
    /// Its time over that of Belady's in the same state.
    pub to_belady: f64,
}

/// All of them, of one order.
#[derive(Debug, Clone, Serialize)]
pub struct CacheTable {
    /// The order: the default, or the last that was asked for.
    pub order: String,
    /// By test, cache size, profile, bundle size, policy and state; Belady's last.
    pub rows: Vec<CacheRow>,
}

/// Name of Belady's rows.
const BELADY: &str = "belady";
const STATES: [CacheState; 2] = [CacheState::Cold, CacheState::Warm];

/// Prices all caches again, on rayon's current pool. Empty where there are none.
///
/// # Errors
/// The engine refuses a cache.
pub fn caches(grid: &Grid) -> Result<CacheTable> {
    let kind = default_kind(grid);
    let mut ratios: Vec<f64> = grid.settings.caches.iter().map(|cache| cache.ratio).collect();
    ratios.retain(|ratio| *ratio > 0.0);
    ratios.sort_by(f64::total_cmp);
    ratios.dedup();
    let places: Vec<(usize, f64)> = (0..grid.tests.len())
        .flat_map(|test| ratios.iter().map(move |ratio| (test, *ratio)))
        .collect();
    let rows: Vec<Result<Vec<CacheRow>>> =
        places.into_par_iter().map(|(test, ratio)| rows(grid, kind, test, ratio)).collect();
    let rows: Vec<Vec<CacheRow>> = rows.into_iter().collect::<Result<_>>()?;
    Ok(CacheTable {
        order: grid.settings.kinds[kind].name(),
        rows: rows.into_iter().flatten().collect(),
    })
}

/// The place of the default order among the kinds, or of the last that was asked for.
pub(super) fn default_kind(grid: &Grid) -> usize {
    let kinds = &grid.settings.kinds;
    let is_default = |kind: &super::Kind| kind.order == Order::Refined && kind.pin > 0.0;
    kinds.iter().position(is_default).unwrap_or(kinds.len() - 1)
}

/// The bundles that each layer of each token asks for.
pub(super) fn steps(test: &Test) -> Vec<Vec<u32>> {
    let of = |token: usize, layer: usize| {
        test.active(layer, token).map(|id| id + (layer * test.neurons) as u32).collect()
    };
    let layers = 0..test.layers.len();
    (0..test.tokens).flat_map(|token| layers.clone().map(move |layer| of(token, layer))).collect()
}

fn rows(grid: &Grid, kind: usize, test: usize, ratio: f64) -> Result<Vec<CacheRow>> {
    let (settings, test) = (&grid.settings, &grid.tests[test]);
    let steps = steps(test);
    let asked: usize = steps.iter().map(Vec::len).sum();
    let cells = hot_bundles(test.layers.len(), test.neurons, ratio);
    let best = STATES.map(|state| {
        let missed = belady::misses(&steps, cells, state);
        Missed::of_steps(test.layers.len(), test.neurons, &missed)
    });
    let policies = settings.caches.iter().filter(|cache| cache.ratio == ratio);
    let mut all = Vec::new();
    for (profile, learned) in grid.learned.iter().enumerate() {
        let layout = &grid.layouts[kind][profile];
        let best: Vec<Vec<Cell>> =
            best.iter().map(|missed| price_missed(settings, test, missed, layout)).collect();
        let mut priced: Vec<(&'static str, Vec<[Cell; 2]>)> = Vec::new();
        for cache in policies.clone() {
            let counts = &learned.active_counts;
            let cells = price_cold_and_warm(settings, *cache, test, counts, layout, true)?;
            priced.push((cache.policy.name(), cells));
        }
        let of_best = best[0].iter().zip(&best[1]).map(|(cold, warm)| [cold.clone(), warm.clone()]);
        priced.push((BELADY, of_best.collect()));
        for (bundle, bundle_bytes) in settings.bundle_bytes.iter().enumerate() {
            for (policy, cells) in &priced {
                for (state, cell) in cells[bundle].iter().enumerate() {
                    let missed: f64 = cell.block_missed.iter().sum();
                    all.push(CacheRow {
                        profile: learned.name().to_owned(),
                        test: test.text.name.clone(),
                        relation: learned.relation(test).name(),
                        bundle_bytes: *bundle_bytes,
                        cache_ratio: ratio,
                        cache_policy: policy,
                        cache_state: STATES[state].name(),
                        us: cell.us() / test.tokens as f64,
                        hit_rate: 1.0 - missed / asked.max(1) as f64,
                        to_belady: cell.us() / best[state][bundle].us().max(f64::MIN_POSITIVE),
                    });
                }
            }
        }
    }
    Ok(all)
}

/// All rows as CSV.
///
/// # Errors
/// None in practice: it is written to memory.
pub fn csv(model: &str, caches: &CacheTable) -> Result<String> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record([
        "model",
        "order",
        "profile",
        "test",
        "relation",
        "bundle_bytes",
        "cache_ratio",
        "cache_policy",
        "cache_state",
        "us",
        "hit_rate",
        "to_belady",
    ])?;
    for row in &caches.rows {
        out.write_record([
            plain(model),
            caches.order.clone(),
            plain(&row.profile),
            plain(&row.test),
            row.relation.to_owned(),
            row.bundle_bytes.to_string(),
            row.cache_ratio.to_string(),
            row.cache_policy.to_owned(),
            row.cache_state.to_owned(),
            format!("{:.2}", row.us),
            format!("{:.4}", row.hit_rate),
            format!("{:.4}", row.to_belady),
        ])?;
    }
    Ok(String::from_utf8(out.into_inner()?)?)
}

fn geometric_mean(ratios: impl Iterator<Item = f64>) -> Option<f64> {
    let logs: Vec<f64> = ratios.map(f64::ln).collect();
    (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
}

/// By cache size, relation and test, the geometric mean over bundle sizes and profiles of each policy's time over
/// Belady's, cold and warm; and what is to be said of the policy that follows the text. Empty where there are no caches.
pub fn render(caches: &CacheTable) -> String {
    let of_policy = |name: &'static str| move |row: &&CacheRow| row.cache_policy == name;
    let mut policies: Vec<&str> = Vec::new();
    let mut places: Vec<(f64, &str, &str)> = Vec::new();
    for row in &caches.rows {
        if row.cache_policy != BELADY && !policies.contains(&row.cache_policy) {
            policies.push(row.cache_policy);
        }
        let place = (row.cache_ratio, row.relation, row.test.as_str());
        if !places.contains(&place) {
            places.push(place);
        }
    }
    if policies.is_empty() {
        return String::new();
    }
    let order = |name: &str| {
        let relations = [Relation::Matched, Relation::Mixed, Relation::Mismatched];
        relations.iter().position(|relation| relation.name() == name)
    };
    places.sort_by(|one, other| one.0.total_cmp(&other.0).then(order(one.1).cmp(&order(other.1))));
    let line = |(ratio, relation, test): &(f64, &str, &str)| {
        let mut line = vec![format!("{:.0} %", 100.0 * ratio), (*relation).to_owned(), plain(test)];
        line.extend(policies.iter().map(|policy| {
            let mean = |state: CacheState| {
                let rows = caches.rows.iter().filter(|row| {
                    (row.cache_ratio, row.relation, row.test.as_str()) == (*ratio, *relation, *test)
                        && (row.cache_policy, row.cache_state) == (*policy, state.name())
                });
                geometric_mean(rows.map(|row| row.to_belady)).unwrap_or(f64::NAN)
            };
            format!("{:.2} / {:.2}", mean(CacheState::Cold), mean(CacheState::Warm))
        }));
        line
    };
    let lines: Vec<Vec<String>> = places.iter().map(line).collect();
    let head: Vec<&str> =
        ["cache", "profile", "test"].into_iter().chain(policies.clone()).collect();
    let mut out = format!(
        "Device time of caches over that of Belady's (fewest misses, not always least time), cold / warm: {},\n\
         geometric mean of bundle sizes and profiles\n{}",
        caches.order,
        table(&head, &lines, 3)
    );
    let follows: Vec<&CacheRow> =
        caches.rows.iter().filter(of_policy(CachePolicy::DecayedFrequency.name())).collect();
    let over: Vec<(f64, &CacheRow)> = follows
        .into_iter()
        .filter_map(|row| {
            let time = |policy: CachePolicy| {
                let same = |other: &&CacheRow| {
                    other.cache_policy == policy.name() && is_same_place(row, other)
                };
                caches.rows.iter().find(same).map(|row| row.us)
            };
            let better = time(CachePolicy::Pinned)?.min(time(CachePolicy::LinkingAligned)?);
            Some((row.us / better.max(f64::MIN_POSITIVE), row))
        })
        .collect();
    let worst = over.iter().max_by(|one, other| one.0.total_cmp(&other.0));
    if let (Some((ratio, row)), Some(mean)) =
        (worst, geometric_mean(over.iter().map(|(ratio, _)| *ratio)))
    {
        out += &format!(
            "{} over the better of pinned and linking-aligned: {mean:.3} in the mean of {} cells, at worst {ratio:.3} \
             ({} on {}, {}, {:.0} %, {})\n",
            row.cache_policy,
            over.len(),
            plain(&row.profile),
            plain(&row.test),
            bytes(row.bundle_bytes.into()),
            100.0 * row.cache_ratio,
            row.cache_state,
        );
    }
    out
}

/// Whether two rows differ in their policy only.
fn is_same_place(one: &CacheRow, other: &CacheRow) -> bool {
    let place = |row: &CacheRow| (row.bundle_bytes, row.cache_ratio, row.cache_state);
    place(one) == place(other) && one.profile == other.profile && one.test == other.test
}
