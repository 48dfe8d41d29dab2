//! The summary as tables.

use super::defaults::{Candidate, Loss, ORDINARY};
use super::layouts::Kind;
use super::summary::{MainRow, Mismatch, Summary, Worst, WorstMismatch};
use lnp_common::report::{plain, table, thousands};
use lnp_link::Order;

/// Cells in which the default loses that are listed; the JSON has all.
const LOSSES_MAX: usize = 20;

/// What stands in the place of tables that there are no cells for.
const NO_NAMES: &str = "No test has a profile that is known to be of its own text: nothing can be said of profiles \
of another text.\nName the texts that belong together: --traces NAME=FILE --tests NAME=FILE\n";
/// The same of the tables of losses, with one profile and no test of its text.
const NO_CELLS: &str = "No cell has a matched or mixed profile without a cache or with a pinned one: nothing can be \
said of a default.\n";

/// All tables. What nothing was measured for is not claimed: a line says why instead.
pub fn render(kinds: &[Kind], summary: &Summary, candidates: &[Candidate]) -> String {
    let spread = if summary.blocks > 1 { "; to frequency: 5 to 95 % of resamples" } else { "" };
    format!(
        "\n{}{spread}\n{}\n{}\n{}",
        plain(&summary.main_block),
        main(summary),
        mismatches(summary),
        losses(kinds, candidates),
    )
}

/// What a profile of another text costs.
fn mismatches(summary: &Summary) -> String {
    let compared = summary.mismatch.iter().flat_map(|of| of.matrix.iter().flatten());
    if compared.flatten().next().is_none() {
        return NO_NAMES.to_owned();
    }
    let mut out = String::new();
    let worst = worst(summary);
    if !worst.is_empty() {
        out += "Cost of another profile, by cache: time over that of the matched profile, worst of all cells\n";
        out += &worst;
        out += "\n";
    }
    out += "Time over that of the matched profile in the main block, by profile (rows) and test\n";
    out + &matrices(summary)
}

/// Where orders are slower than a baseline.
fn losses(kinds: &[Kind], candidates: &[Candidate]) -> String {
    let losers = losers(candidates);
    if losers.is_empty() {
        return NO_CELLS.to_owned();
    }
    format!(
        "Slower than a baseline, no cache and pinned caches, matched and mixed profiles\n{losers}\n{}",
        losses_of_default(kinds, candidates)
    )
}

fn main(summary: &Summary) -> String {
    // One block has no spread.
    let spread = |text: String| if summary.blocks > 1 { text } else { "-".to_owned() };
    let row = |row: &MainRow| {
        let verdict = &row.verdict;
        let (us, to) = (&verdict.us, &verdict.to_frequency);
        vec![
            row.order.clone(),
            row.reads.map_or("-".into(), |reads| format!("{reads:.0}")),
            format!("{:.2}", row.bytes / 1_048_576.0),
            thousands(us.value),
            spread(format!("{}-{}", thousands(us.p5), thousands(us.p95))),
            format!("{:.3}", to.value),
            spread(format!("{:.3}-{:.3}", to.p5, to.p95)),
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

/// The columns that have something in them; empty where none has.
fn worst(summary: &Summary) -> String {
    let cell = |of: &WorstMismatch, mixed: bool| {
        let worst = if mixed { &of.mixed } else { &of.mismatched };
        worst.as_ref().map(|worst| format!("{:.3}", worst.ratio))
    };
    let mut columns = Vec::new();
    for (at, of) in
        summary.mismatch.first().map_or(&[][..], |first| &first.worst).iter().enumerate()
    {
        for mixed in [false, true] {
            let found = |row: &Mismatch| cell(&row.worst[at], mixed);
            if summary.mismatch.iter().any(|row| found(row).is_some()) {
                let name = if mixed { format!("{}, mixed", of.cache) } else { of.cache.to_owned() };
                let cells: Vec<Option<String>> = summary.mismatch.iter().map(found).collect();
                columns.push((name, cells));
            }
        }
    }
    if columns.is_empty() {
        return String::new();
    }
    let names = columns.iter().map(|(name, _)| name.as_str());
    let head: Vec<&str> = ["order"].into_iter().chain(names).collect();
    let row = |(at, of): (usize, &Mismatch)| {
        let cells = columns.iter().map(|(_, cells)| cells[at].clone().unwrap_or("-".into()));
        [of.order.clone()].into_iter().chain(cells).collect()
    };
    table(&head, &summary.mismatch.iter().enumerate().map(row).collect::<Vec<_>>(), 1)
}

/// Of the tests that have a profile of their own text.
fn matrices(summary: &Summary) -> String {
    let has_matched = |test: &usize| {
        summary.mismatch.iter().any(|of| of.matrix.iter().any(|ratios| ratios[*test].is_some()))
    };
    let tests: Vec<usize> = (0..summary.tests.len()).filter(has_matched).collect();
    let mut head = vec!["order", "profile"];
    head.extend(tests.iter().map(|test| summary.tests[*test].as_str()));
    let mut rows = Vec::new();
    for mismatch in &summary.mismatch {
        for (profile, ratios) in summary.profiles.iter().zip(&mismatch.matrix) {
            let mut row = vec![mismatch.order.clone(), plain(profile)];
            let cell =
                |test: &usize| ratios[*test].map_or("-".into(), |ratio| format!("{ratio:.3}"));
            row.extend(tests.iter().map(cell));
            rows.push(row);
        }
    }
    table(&head, &rows, 2)
}

/// Those that a default would meet.
fn ordinary(candidate: &&Candidate) -> bool {
    candidate.cache != "dynamic" && candidate.relation == ORDINARY && candidate.cells > 0
}

/// Empty where no order has a cell.
fn losers(candidates: &[Candidate]) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut names: Vec<&str> =
        candidates.iter().filter(ordinary).map(|candidate| candidate.order.as_str()).collect();
    names.dedup();
    for name in names {
        let of: Vec<&Candidate> =
            candidates.iter().filter(ordinary).filter(|of| of.order == name).collect();
        let count = |baseline: &str| {
            let losses = of.iter().flat_map(|of| &of.losses);
            losses.filter(|loss| loss.baseline == baseline).count()
        };
        let worst = |of: Vec<&Worst>| -> Option<Worst> {
            of.into_iter().max_by(|one, other| one.ratio.total_cmp(&other.ratio)).cloned()
        };
        let by_frequency =
            worst(of.iter().filter_map(|of| of.worst_to_frequency.as_ref()).collect());
        let by_dense = worst(of.iter().filter_map(|of| of.worst_to_dense.as_ref()).collect());
        let ratio = |worst: &Option<Worst>| {
            worst.as_ref().map_or("-".into(), |worst| format!("{:.3}", worst.ratio))
        };
        rows.push(vec![
            name.to_owned(),
            of.iter().map(|of| of.cells).sum::<usize>().to_string(),
            count("frequency").to_string(),
            ratio(&by_frequency),
            count("dense").to_string(),
            ratio(&by_dense),
            by_frequency.map_or(String::new(), |worst| plain(&worst.cell)),
        ]);
    }
    if rows.is_empty() {
        return String::new();
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

/// The default of `lnp link`: where it loses; nothing where it was not tried.
fn losses_of_default(kinds: &[Kind], candidates: &[Candidate]) -> String {
    let is_default = |kind: &&Kind| kind.order == Order::Refined && kind.pin > 0.0;
    let Some(default) = kinds.iter().find(is_default).map(Kind::name) else {
        return String::new();
    };
    let of: Vec<&Candidate> =
        candidates.iter().filter(ordinary).filter(|of| of.order == default).collect();
    if of.is_empty() {
        return String::new();
    }
    let losses: Vec<&Loss> = of.iter().flat_map(|of| &of.losses).collect();
    let row = |loss: &&Loss| {
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
