//! All cells, one line each; and in each place the dense stream and the bound.

use anyhow::Result;
use rayon::prelude::*;

use super::cells::{At, Grid};
use super::judge::{Judge, Verdict};

/// The columns. Times are device microseconds a token: on all tokens, and the middle, 5 % and 95 %
/// quantiles over resamples of them; `to_` is that time over another's.
const HEAD: [&str; 26] = [
    "model",
    "profile",
    "test",
    "relation",
    "order",
    "pinned_apart",
    "placements",
    "flash",
    "made_for_bytes",
    "bundle_bytes",
    "cache_policy",
    "cache_ratio",
    "tokens",
    "reads_per_token",
    "bytes_per_token",
    "us",
    "us_median",
    "us_p5",
    "us_p95",
    "to_frequency",
    "to_frequency_median",
    "to_frequency_p5",
    "to_frequency_p95",
    "to_identity",
    "to_dense",
    "to_bound",
];

/// A line of the table.
type Record = [String; HEAD.len()];

/// The whole table.
///
/// # Errors
/// None in practice: it is written to memory.
pub fn csv(judge: &Judge<'_>) -> Result<String> {
    let places: Vec<At> = judge.grid.places().collect();
    let records: Vec<Vec<Record>> = places.par_iter().map(|at| records(judge, *at)).collect();
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(HEAD)?;
    for record in records.iter().flatten() {
        out.write_record(record)?;
    }
    Ok(String::from_utf8(out.into_inner()?)?)
}

/// A cell's line; before that of the first order the two of the baselines without an order.
fn records(judge: &Judge<'_>, at: At) -> Vec<Record> {
    let grid = judge.grid;
    let (kind, cell) = (&grid.settings.kinds[at.kind], grid.cell(at));
    let tokens = grid.tests[at.test].tokens as f64;
    let mut out = Vec::new();
    let baseline = |name: &str| [name, "0", "1", "1", ""].map(str::to_owned);
    if at.kind == 0 {
        let dense = grid.dense(at.bundle);
        let counts = (dense.reads as f64, dense.bytes as f64);
        out.push(record(grid, at, baseline("dense"), counts, &judge.dense(at)));
        let missed: f64 = cell.block_missed.iter().sum();
        let bytes = missed / tokens * f64::from(grid.settings.bundle_bytes[at.bundle]);
        out.push(record(grid, at, baseline("bound"), (0.0, bytes), &judge.bound(at)));
    }
    let made_for = kind.made_for.map_or(String::new(), |bytes| bytes.to_string());
    let flash = format!("{:.3}", grid.layouts[at.kind][at.profile].flash());
    let placements = kind.placements().to_string();
    let order = [kind.order.to_string(), kind.pin.to_string(), placements, flash, made_for];
    let counts = (cell.reads as f64 / tokens, cell.bytes as f64 / tokens);
    out.push(record(grid, at, order, counts, &judge.order(at)));
    out
}

fn record(
    grid: &Grid,
    at: At,
    [order, pinned_apart, placements, flash, made_for]: [String; 5],
    (reads, bytes): (f64, f64),
    verdict: &Verdict,
) -> Record {
    let (learned, test) = (&grid.learned[at.profile], &grid.tests[at.test]);
    let cache = grid.settings.caches[at.cache];
    let Verdict { us, to_frequency, to_identity, to_dense, to_bound } = verdict;
    let time = |us: f64| format!("{us:.2}");
    let ratio = |ratio: f64| format!("{ratio:.4}");
    [
        plain(learned.profile.model()),
        plain(learned.name()),
        plain(&test.text.name),
        learned.relation(test).name().to_owned(),
        order,
        pinned_apart,
        placements,
        flash,
        made_for,
        grid.settings.bundle_bytes[at.bundle].to_string(),
        cache.policy.name().to_owned(),
        cache.ratio.to_string(),
        test.tokens.to_string(),
        format!("{reads:.3}"),
        format!("{bytes:.0}"),
        time(us.value),
        time(us.median),
        time(us.p5),
        time(us.p95),
        ratio(to_frequency.value),
        ratio(to_frequency.median),
        ratio(to_frequency.p5),
        ratio(to_frequency.p95),
        ratio(*to_identity),
        ratio(*to_dense),
        ratio(*to_bound),
    ]
}

/// A name that cannot end its column, for readers too that split lines at commas.
fn plain(name: &str) -> String {
    name.replace(|c: char| c == ',' || c == '"' || c.is_control(), " ")
}
