//! What the cells come to: the main table, what a profile of another text costs, and whether an order
//! would do as the default.

use serde::Serialize;

use super::cells::{At, CacheKind, Grid};
use super::inputs::Relation;
use super::judge::{Judge, Verdict, over};
use lnp_link::Objective;

/// Share of the bundles that the main table's cache holds, where it is among the caches.
const MAIN_RATIO: f64 = 0.1;

/// A line of the main table: all tests together.
#[derive(Debug, Clone, Serialize)]
pub struct MainRow {
    /// The order.
    pub order: String,
    /// Reads a token; none for the bound.
    pub reads: Option<f64>,
    /// Bytes a token.
    pub bytes: f64,
    /// How it compares.
    pub verdict: Verdict,
}

/// A ratio of times, and where it was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Worst {
    /// The ratio.
    pub ratio: f64,
    /// The cell, in words.
    pub cell: String,
}

/// What it costs to make an order from another text than it is used for.
#[derive(Debug, Clone, Serialize)]
pub struct Mismatch {
    /// The order.
    pub order: String,
    /// In the main block: time over that of the profile of the test's own corpus, by profile, then
    /// test; none where there is no such profile.
    pub matrix: Vec<Vec<Option<f64>>>,
    /// The worst of all cells by kind of cache: `none`, `pinned`, `dynamic`.
    pub worst: Vec<WorstMismatch>,
}

/// The worst of one kind of cache.
#[derive(Debug, Clone, Serialize)]
pub struct WorstMismatch {
    /// `none`, `pinned` or `dynamic`.
    pub cache: &'static str,
    /// Made from one other corpus; none where no test has a profile of its own corpus to compare with.
    pub mismatched: Option<Worst>,
    /// Made from all corpora; none likewise.
    pub mixed: Option<Worst>,
}

/// The whole of it.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The main block, in words.
    pub main_block: String,
    /// Its orders.
    pub main: Vec<MainRow>,
    /// Blocks of tokens that were resampled; the spread of one says nothing.
    pub blocks: usize,
    /// What profiles of other texts cost.
    pub mismatch: Vec<Mismatch>,
    /// Names of the profiles: rows of the matrices.
    pub profiles: Vec<String>,
    /// Names of the tests: columns of the matrices.
    pub tests: Vec<String>,
}

/// The main block: bundles of 4 KiB, the hottest 10 % pinned, the last profile (the mixed one); or, where
/// these were not asked for, the first bundle size and the last cache.
pub fn main_place(grid: &Grid) -> At {
    let settings = &grid.settings;
    let main = |cache: &CacheKind| cache.group() == "pinned" && cache.ratio == MAIN_RATIO;
    let bundle = settings.bundle_bytes.iter().position(|of| *of == Objective::BUNDLE_BYTES_DEFAULT);
    let last = settings.caches.len() - 1;
    At {
        cache: settings.caches.iter().position(main).unwrap_or(last),
        test: 0,
        profile: grid.learned.len() - 1,
        kind: 0,
        bundle: bundle.unwrap_or(0),
    }
}

/// A cell's place in words.
pub fn told(grid: &Grid, at: At) -> String {
    format!(
        "{} on {}, {}, {}",
        grid.learned[at.profile].name(),
        grid.tests[at.test].text.name,
        lnp_common::report::bytes(grid.settings.bundle_bytes[at.bundle].into()),
        grid.settings.caches[at.cache].name(),
    )
}

/// Sums up.
pub fn summary(judge: &Judge<'_>) -> Summary {
    let grid = judge.grid;
    let main = main_place(grid);
    Summary {
        main_block: format!(
            "profile {}, bundles of {}, {}, all tests together",
            grid.learned[main.profile].name(),
            lnp_common::report::bytes(grid.settings.bundle_bytes[main.bundle].into()),
            grid.settings.caches[main.cache].name(),
        ),
        main: main_rows(judge, main),
        blocks: grid.tests.iter().map(|test| test.blocks()).sum(),
        mismatch: (0..grid.settings.kinds.len()).map(|kind| mismatch(grid, main, kind)).collect(),
        profiles: grid.learned.iter().map(|learned| learned.name().to_owned()).collect(),
        tests: grid.tests.iter().map(|test| test.text.name.clone()).collect(),
    }
}

fn main_rows(judge: &Judge<'_>, main: At) -> Vec<MainRow> {
    let grid = judge.grid;
    let tokens: usize = grid.tests.iter().map(|test| test.tokens).sum();
    let dense = grid.dense(main.bundle);
    let mut rows = vec![MainRow {
        order: "dense".into(),
        reads: Some(dense.reads as f64),
        bytes: dense.bytes as f64,
        verdict: judge.dense_on_all(main),
    }];
    for (kind, name) in grid.settings.kinds.iter().enumerate() {
        let at = At { kind, ..main };
        let cells = || (0..grid.tests.len()).map(|test| grid.cell(At { test, ..at }));
        let per_token = |total: u64| total as f64 / tokens as f64;
        rows.push(MainRow {
            order: name.name(),
            reads: Some(per_token(cells().map(|cell| cell.reads).sum())),
            bytes: per_token(cells().map(|cell| cell.bytes).sum()),
            verdict: judge.order_on_all(at),
        });
    }
    let missed = |test| grid.cell(At { test, ..main }).block_missed.iter().sum::<f64>();
    let missed: f64 = (0..grid.tests.len()).map(missed).sum();
    rows.push(MainRow {
        order: "bound".into(),
        reads: None,
        bytes: missed / tokens as f64 * f64::from(grid.settings.bundle_bytes[main.bundle]),
        verdict: judge.bound_on_all(main),
    });
    rows
}

/// A cell's time over that of the profile of the test's own corpus.
fn to_matched(grid: &Grid, at: At) -> Option<f64> {
    let own = |profile: &usize| {
        grid.learned[*profile].relation(&grid.tests[at.test]) == Relation::Matched
    };
    let profile = (0..grid.learned.len()).find(own)?;
    Some(over(grid.cell(at).us(), grid.cell(At { profile, ..at }).us()))
}

fn mismatch(grid: &Grid, main: At, kind: usize) -> Mismatch {
    let row = |profile| {
        let cell = |test| to_matched(grid, At { kind, profile, test, ..main });
        (0..grid.tests.len()).map(cell).collect()
    };
    let worst = |cache, relation| {
        let mut worst: Option<Worst> = None;
        for at in grid.places().filter(|at| at.kind == kind) {
            let wanted = grid.settings.caches[at.cache].group() == cache
                && grid.learned[at.profile].relation(&grid.tests[at.test]) == relation;
            let found = to_matched(grid, at).filter(|_| wanted);
            if let Some(ratio) =
                found.filter(|found| worst.as_ref().is_none_or(|w| *found > w.ratio))
            {
                worst = Some(Worst { ratio, cell: told(grid, at) });
            }
        }
        worst
    };
    let of_cache = |cache: &'static str| WorstMismatch {
        cache,
        mismatched: worst(cache, Relation::Mismatched),
        mixed: worst(cache, Relation::Mixed),
    };
    Mismatch {
        order: grid.settings.kinds[kind].name(),
        matrix: (0..grid.learned.len()).map(row).collect(),
        worst: ["none", "pinned", "dynamic"].map(of_cache).into(),
    }
}
