//! The summary as tables.

use super::cells::Grid;
use super::defaults::Candidate;
use super::summary::{Mismatch, Summary};
use lnp_common::report::{plain, table, thousands};
use lnp_link::Order;

/// Cells in which the default loses that are listed; the JSON has all.
const LOSSES_MAX: usize = 20;

/// All tables.
pub fn render(grid: &Grid, summary: &Summary, candidates: &[Candidate]) -> String {
    format!(
        "\n{}; to frequency: 5 to 95 % of resamples\n{}\n\
         Cost of another profile, by cache: time over that of the matched profile, worst of all cells\n{}\n\
         The same in the main block, by profile (rows) and test\n{}\n\
         Slower than a baseline, no cache and pinned caches, matched and mixed profiles\n{}\n{}",
        plain(&summary.main_block),
        main(summary),
        worst(summary),
        matrices(summary),
        losers(candidates),
        losses_of_default(grid, candidates),
    )
}

fn main(summary: &Summary) -> String {
    let row = |row: &super::summary::MainRow| {
        let verdict = &row.verdict;
        let (us, to) = (&verdict.us, &verdict.to_frequency);
        vec![
            row.order.clone(),
            row.reads.map_or("-".into(), |reads| format!("{reads:.0}")),
            format!("{:.2}", row.bytes / 1_048_576.0),
            thousands(us.value),
            format!("{}-{}", thousands(us.p5), thousands(us.p95)),
            format!("{:.3}", to.value),
            format!("{:.3}-{:.3}", to.p5, to.p95),
            format!("{:.3}", verdict.to_identity),
            format!("{:.3}", verdict.to_dense),
            format!("{:.2}", verdict.to_bound),
        ]
    };
    let head = [
        "order",
        "reads",
        "MiB",
        "us",
        "5-95 %",
        "/frequency",
        "5-95 %",
        "/bundle",
        "/dense",
        "/bound",
    ];
    table(&head, &summary.main.iter().map(row).collect::<Vec<_>>(), 1)
}

fn worst(summary: &Summary) -> String {
    let row = |mismatch: &Mismatch| {
        let mut row = vec![mismatch.order.clone()];
        for of in &mismatch.worst {
            row.extend([&of.mismatched, &of.mixed].map(|worst| match worst.ratio {
                0.0 => "-".into(),
                ratio => format!("{ratio:.3}"),
            }));
        }
        row
    };
    let head = ["order", "none", "mixed", "pinned", "mixed", "dynamic", "mixed"];
    table(&head, &summary.mismatch.iter().map(row).collect::<Vec<_>>(), 1)
}

fn matrices(summary: &Summary) -> String {
    let mut head = vec!["order", "profile"];
    head.extend(summary.tests.iter().map(String::as_str));
    let mut rows = Vec::new();
    for mismatch in &summary.mismatch {
        for (profile, ratios) in summary.profiles.iter().zip(&mismatch.matrix) {
            let mut row = vec![mismatch.order.clone(), plain(profile)];
            row.extend(
                ratios.iter().map(|ratio| ratio.map_or("-".into(), |ratio| format!("{ratio:.3}"))),
            );
            rows.push(row);
        }
    }
    table(&head, &rows, 2)
}

/// Those that a default would meet.
fn ordinary(candidate: &&Candidate) -> bool {
    candidate.cache != "dynamic" && candidate.relation != "mismatched"
}

fn losers(candidates: &[Candidate]) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut names: Vec<&str> =
        candidates.iter().map(|candidate| candidate.order.as_str()).collect();
    names.dedup();
    for name in names {
        let of: Vec<&Candidate> =
            candidates.iter().filter(ordinary).filter(|of| of.order == name).collect();
        let count = |baseline: &str| {
            let losses = of.iter().flat_map(|of| &of.losses);
            losses.filter(|loss| loss.baseline == baseline).count()
        };
        let by_frequency = of
            .iter()
            .map(|of| &of.worst_to_frequency)
            .max_by(|one, other| one.ratio.total_cmp(&other.ratio));
        let by_dense = of.iter().map(|of| of.worst_to_dense.ratio).fold(0.0, f64::max);
        rows.push(vec![
            name.to_owned(),
            of.iter().map(|of| of.cells).sum::<usize>().to_string(),
            count("frequency").to_string(),
            by_frequency.map_or(String::new(), |worst| format!("{:.3}", worst.ratio)),
            count("dense").to_string(),
            format!("{by_dense:.3}"),
            by_frequency.map_or(String::new(), |worst| plain(&worst.cell)),
        ]);
    }
    let head = [
        "order",
        "cells",
        "slower than frequency",
        "worst",
        "than dense",
        "worst",
        "worst to frequency",
    ];
    table(&head, &rows, 1)
}

/// The default of `lnp link`: where it loses.
fn losses_of_default(grid: &Grid, candidates: &[Candidate]) -> String {
    let is_default = |kind: &&super::layouts::Kind| kind.order == Order::Refined && kind.pin > 0.0;
    let Some(default) = grid.settings.kinds.iter().find(is_default).map(|kind| kind.name()) else {
        return String::new();
    };
    let of = candidates.iter().filter(ordinary).filter(|of| of.order == default);
    let losses: Vec<_> = of.flat_map(|of| &of.losses).collect();
    let row = |loss: &&super::defaults::Loss| {
        vec![
            loss.baseline.to_owned(),
            plain(&loss.at.cell),
            format!("{:.3}", loss.at.ratio),
            loss.p5.map_or("-".into(), |p5| format!("{p5:.3}")),
        ]
    };
    let rows: Vec<Vec<String>> = losses.iter().take(LOSSES_MAX).map(row).collect();
    match rows.len() {
        0 => format!("{default}, the default, is never slower than frequency or dense there\n"),
        shown => format!(
            "{default}, the default, is slower in {} of them ({shown} shown)\n{}",
            losses.len(),
            table(&["than", "cell", "ratio", "5 %"], &rows, 2)
        ),
    }
}
