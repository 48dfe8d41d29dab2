//! What no order could go below on the very texts of the tests, and what no copies could within a budget of flash: of the
//! reads that a cache leaves which keeps the same for ever, and of those that Belady's leaves.
//!
//! The orders are made from a profile and cannot know the test: how much of the distance is theirs to gain nobody knows.
//! `lnp_link::floor` says why nothing goes below.

use anyhow::Result;
use lnp_engine::CachePolicy;
use lnp_engine::law::Combine;
use rayon::prelude::*;
use serde::Serialize;

use super::caches::{default_kind, steps};
use super::cells::{Grid, missed_of, price_missed};
use super::inputs::Test;
use super::missed::Missed;
use crate::replay::{CacheState, belady};
use lnp_common::report::{bytes, plain, table, thousands};
use lnp_link::Objective;
use lnp_link::floor::Together;
use lnp_link::hot::hot_bundles;

/// Slots over neurons: each bundle once, then the budgets of copies.
pub const FLASH: [f64; 4] = [1.0, 1.3, 2.0, 4.0];

/// One cache on one test.
#[derive(Debug, Clone, Serialize)]
pub struct FloorRow {
    /// What the order, and what is pinned, is from: the mixed profile where there is one.
    pub profile: String,
    /// What is read.
    pub test: String,
    /// How they stand to each other.
    pub relation: &'static str,
    /// Bytes of a bundle.
    pub bundle_bytes: u32,
    /// What keeps bundles: `none`, `pinned` or `belady`, warm.
    pub cache_policy: &'static str,
    /// Share of the bundles that it holds.
    pub cache_ratio: f64,
    /// Device time of a token from the order, microseconds.
    pub order_us: f64,
    /// What no order goes below by [`FLASH`], microseconds a token.
    pub floor_us: [f64; FLASH.len()],
    /// The bytes alone at the full bandwidth.
    pub bound_us: f64,
}

/// All of them.
#[derive(Debug, Clone, Serialize)]
pub struct FloorTable {
    /// The order that they stand beside: the default, or the last that was asked for.
    pub order: String,
    /// [`FLASH`].
    pub flash: [f64; FLASH.len()],
    /// By cache, test and bundle size; none under a law that does not add up.
    pub rows: Vec<FloorRow>,
}

/// Finds the floors, on rayon's current pool.
///
/// # Errors
/// The engine refuses a cache.
pub fn floors(grid: &Grid) -> Result<FloorTable> {
    let kind = default_kind(grid);
    let mut ratios: Vec<f64> = grid.settings.caches.iter().map(|cache| cache.ratio).collect();
    ratios.retain(|ratio| *ratio > 0.0);
    ratios.sort_by(f64::total_cmp);
    ratios.dedup();
    let tests = 0..grid.tests.len();
    let kept = grid.settings.caches.iter().filter(|cache| cache.group() != "dynamic");
    let mut places: Vec<(Option<usize>, f64, usize)> = Vec::new();
    for cache in kept {
        let at = grid.settings.caches.iter().position(|other| other == cache);
        places.extend(tests.clone().map(|test| (at, cache.ratio, test)));
    }
    for ratio in ratios {
        places.extend(tests.clone().map(|test| (None, ratio, test)));
    }
    if grid.settings.law.combine() != Combine::Sum {
        places.clear();
    }
    let of = |(cache, ratio, test): (Option<usize>, f64, usize)| -> Result<Vec<FloorRow>> {
        let test = &grid.tests[test];
        let learned = &grid.learned[grid.learned.len() - 1..];
        let (policy, missed) = match cache.map(|at| grid.settings.caches[at]) {
            Some(cache) => (cache.policy.name(), missed_of(cache, test, learned)?.pop()),
            None => {
                let cells = hot_bundles(test.layers.len(), test.neurons, ratio);
                let left = belady::misses(&steps(test), cells, CacheState::Warm);
                ("belady", Some(Missed::of_steps(test.layers.len(), test.neurons, &left)))
            }
        };
        Ok(missed.map_or(Vec::new(), |missed| rows(grid, kind, test, (policy, ratio), &missed)))
    };
    let rows: Vec<Result<Vec<FloorRow>>> = places.into_par_iter().map(of).collect();
    let rows: Vec<Vec<FloorRow>> = rows.into_iter().collect::<Result<_>>()?;
    let rows = rows.into_iter().flatten().collect();
    Ok(FloorTable { order: grid.settings.kinds[kind].name(), flash: FLASH, rows })
}

/// One cache on one test, all bundle sizes.
fn rows(
    grid: &Grid,
    kind: usize,
    test: &Test,
    (policy, ratio): (&'static str, f64),
    missed: &Missed,
) -> Vec<FloorRow> {
    let settings = &grid.settings;
    let floors_of = |layer: usize| -> Vec<Vec<f64>> {
        let batches = (0..test.tokens).map(|token| missed.batch(token, layer));
        let together = Together::of(test.neurons, batches);
        let of_size = |bundle_bytes: &u32| {
            let objective = Objective { law: settings.law, bundle_bytes: *bundle_bytes };
            together.floor_us(&objective, &FLASH).unwrap_or_default()
        };
        settings.bundle_bytes.iter().map(of_size).collect()
    };
    let by_layer: Vec<Vec<Vec<f64>>> =
        (0..test.layers.len()).into_par_iter().map(floors_of).collect();
    let learned = &grid.learned[grid.learned.len() - 1];
    let layout = &grid.layouts[kind][grid.learned.len() - 1];
    let tokens = test.tokens as f64;
    let priced = price_missed(settings, test, missed, layout);
    let row = |(bundle, cell): (usize, super::Cell)| {
        let floor =
            |at: usize| by_layer.iter().map(|floors| floors[bundle][at]).sum::<f64>() / tokens;
        let count: f64 = cell.block_missed.iter().sum();
        FloorRow {
            profile: learned.name().to_owned(),
            test: test.text.name.clone(),
            relation: learned.relation(test).name(),
            bundle_bytes: settings.bundle_bytes[bundle],
            cache_policy: policy,
            cache_ratio: ratio,
            order_us: cell.us() / tokens,
            floor_us: std::array::from_fn(floor),
            bound_us: count * grid.bundle_us(bundle) / tokens,
        }
    };
    priced.into_iter().enumerate().map(row).collect()
}

/// All rows as CSV, a line for each budget of flash.
///
/// # Errors
/// None in practice: it is written to memory.
pub fn csv(model: &str, floors: &FloorTable) -> Result<String> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record([
        "model",
        "order",
        "profile",
        "test",
        "relation",
        "bundle_bytes",
        "cache_policy",
        "cache_ratio",
        "flash",
        "order_us",
        "floor_us",
        "bound_us",
    ])?;
    for row in &floors.rows {
        for (flash, floor_us) in floors.flash.iter().zip(row.floor_us) {
            out.write_record([
                plain(model),
                floors.order.clone(),
                plain(&row.profile),
                plain(&row.test),
                row.relation.to_owned(),
                row.bundle_bytes.to_string(),
                row.cache_policy.to_owned(),
                row.cache_ratio.to_string(),
                flash.to_string(),
                format!("{:.2}", row.order_us),
                format!("{floor_us:.2}"),
                format!("{:.2}", row.bound_us),
            ])?;
        }
    }
    Ok(String::from_utf8(out.into_inner()?)?)
}

/// By cache, the mean over tests of the order's time, the floors and the bound, for bundles of 4 KiB or else the first size.
/// Empty where there are none.
pub fn render(floors: &FloorTable) -> String {
    let usual = |row: &&FloorRow| row.bundle_bytes == Objective::BUNDLE_BYTES_DEFAULT;
    let Some(first) = floors.rows.iter().find(usual).or(floors.rows.first()) else {
        return String::new();
    };
    let of_size: Vec<&FloorRow> =
        floors.rows.iter().filter(|row| row.bundle_bytes == first.bundle_bytes).collect();
    let mut caches: Vec<(&str, f64)> =
        of_size.iter().map(|row| (row.cache_policy, row.cache_ratio)).collect();
    caches.dedup();
    let line = |(policy, ratio): &(&str, f64)| {
        let rows: Vec<&&FloorRow> = of_size
            .iter()
            .filter(|row| (row.cache_policy, row.cache_ratio) == (*policy, *ratio))
            .collect();
        let mean = |us: &dyn Fn(&FloorRow) -> f64| {
            thousands(rows.iter().map(|row| us(row)).sum::<f64>() / rows.len() as f64)
        };
        let name = match *policy == CachePolicy::None.name() {
            true => "no cache".to_owned(),
            false => format!("{policy} {:.0} %", 100.0 * ratio),
        };
        let mut line = vec![name, mean(&|row| row.order_us)];
        line.extend((0..FLASH.len()).map(|at| mean(&|row| row.floor_us[at])));
        line.push(mean(&|row| row.bound_us));
        line
    };
    let lines: Vec<Vec<String>> = caches.iter().map(line).collect();
    let budgets: Vec<String> = floors.flash[1..].iter().map(|flash| format!("{flash}")).collect();
    let mut head = vec!["cache", "the order", "any order"];
    head.extend(budgets.iter().map(String::as_str));
    head.push("bound");
    format!(
        "Device time that no order goes below on these tests, us a token, made from them or not; then no copies in so many\n\
         times the flash: beside {}, profile {}, bundles of {}, mean of tests, warm\n{}",
        floors.order,
        plain(&first.profile),
        bytes(first.bundle_bytes.into()),
        table(&head, &lines, 1)
    )
}
