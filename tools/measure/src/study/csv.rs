//! All cells, one line each; and in each place the dense stream and the bound.

use std::fmt::Write as _;

use rayon::prelude::*;

use super::cells::{At, Grid};
use super::judge::{Judge, Verdict};

/// The columns. Times are device microseconds a token: on all tokens, and the middle, 5 % and 95 %
/// quantiles over resamples of them; `to_` is that time over another's.
pub const HEAD: &str = "model,profile,test,relation,order,pinned_apart,placements,made_for_bytes,\
bundle_bytes,cache_policy,cache_ratio,tokens,reads_per_token,bytes_per_token,us,us_median,us_p5,us_p95,\
to_frequency,to_frequency_median,to_frequency_p5,to_frequency_p95,to_identity,to_dense,to_bound";

/// The whole table.
pub fn csv(judge: &Judge<'_>) -> String {
    let places: Vec<At> = judge.grid.places().collect();
    let lines: Vec<String> = places.par_iter().map(|at| lines(judge, *at)).collect();
    format!("{HEAD}\n{}", lines.concat())
}

/// A cell's line; before that of the first order the two of the baselines without an order.
fn lines(judge: &Judge<'_>, at: At) -> String {
    let grid = judge.grid;
    let (kind, cell) = (&grid.settings.kinds[at.kind], grid.cell(at));
    let tokens = grid.tests[at.test].tokens as f64;
    let mut out = String::new();
    if at.kind == 0 {
        let dense = grid.dense(at.bundle);
        let counts = (dense.reads as f64, dense.bytes as f64);
        line(&mut out, grid, at, "dense,0,1,", counts, &judge.dense(at));
        let missed: f64 = cell.block_missed.iter().sum();
        let bytes = missed / tokens * f64::from(grid.settings.bundle_bytes[at.bundle]);
        line(&mut out, grid, at, "bound,0,1,", (0.0, bytes), &judge.bound(at));
    }
    let made_for = kind.made_for.map_or(String::new(), |bytes| bytes.to_string());
    let order = format!("{},{},{},{made_for}", kind.order, kind.pin, kind.placements());
    let counts = (cell.reads as f64 / tokens, cell.bytes as f64 / tokens);
    line(&mut out, grid, at, &order, counts, &judge.order(at));
    out
}

fn line(
    out: &mut String,
    grid: &Grid,
    at: At,
    order: &str,
    (reads, bytes): (f64, f64),
    verdict: &Verdict,
) {
    let (learned, test) = (&grid.learned[at.profile], &grid.tests[at.test]);
    let cache = grid.settings.caches[at.cache];
    let Verdict { us, to_frequency, to_identity, to_dense, to_bound } = verdict;
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "{},{},{},{},{order},{},{},{},{},{reads:.3},{bytes:.0},{:.2},{:.2},{:.2},{:.2},\
         {:.4},{:.4},{:.4},{:.4},{to_identity:.4},{to_dense:.4},{to_bound:.4}",
        plain(learned.profile.model()),
        plain(&learned.corpus),
        plain(&test.corpus),
        learned.relation(test),
        grid.settings.bundle_bytes[at.bundle],
        cache.policy.name(),
        cache.ratio,
        test.tokens,
        us.value,
        us.median,
        us.p5,
        us.p95,
        to_frequency.value,
        to_frequency.median,
        to_frequency.p5,
        to_frequency.p95,
    );
}

/// A name that cannot end its column.
fn plain(name: &str) -> String {
    name.replace(|c: char| c == ',' || c == '"' || c.is_control(), " ")
}
