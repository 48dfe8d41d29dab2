//! `lnp study`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::byte_count::parse_short_length;
use super::replay::PolicyNames;
use lnp_common::files::{check_target, write_text};
use lnp_common::report::{plain, print, print_json, progress, thousands};
use lnp_device::LawText;
use lnp_link::Order;
use lnp_measure::profile::DeviceProfile;
use lnp_measure::study::caches::{CacheTable, caches};
use lnp_measure::study::cells::steps;
use lnp_measure::study::defaults::{Candidate, candidates};
use lnp_measure::study::floors::{self, FloorTable};
use lnp_measure::study::judge::Judge;
use lnp_measure::study::summary::{Summary, summary};
use lnp_measure::study::{
    CacheKind, Grid, Kind, Learned, Settings, Source, Test, caches as cache_table, csv, pictures,
    study,
};

/// Compare orders, profiles, bundle sizes and caches on traces, simulated
///
/// Makes every order from each profile and from all of them together (mixed), and tries it on each test
/// corpus, for every bundle size and cache, in the device time of one law. Caches are warm. `dense`,
/// `identity` (bundling), `frequency` and the bound (what is active and not cached, at full bandwidth)
/// are always there. The default order's caches are shown from a cold start too, beside Belady's, which
/// knows the future, and what no order could go below on these very tests, nor copies of bundles within a
/// budget of flash. Writes cells.csv, caches.csv, floors.csv, study.json and three charts into a folder.
///
/// A trace's corpus is the NAME given, or else what the trace or its file's name says.
///
/// Example: lnp study --traces novels=a.trace web=b.trace --tests novels=c.trace web=d.trace -o study
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// Traces to make orders from, one of each corpus; NAME= where the trace does not say which text it is
    /// of. A profile and a test of one name belong together
    #[arg(long, value_name = "[NAME=]FILE", required = true, num_args = 1..)]
    traces: Vec<Source>,
    /// Traces to try them on, one of each corpus; none that orders are made from
    #[arg(long, value_name = "[NAME=]FILE", required = true, num_args = 1..)]
    tests: Vec<Source>,
    /// Orders, as in `lnp link`; identity and frequency are added
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "identity,random,frequency,greedy,miss,jaccard,bisect,refined,copies:1.3,replicas:2,replicas:4"
    )]
    orders: Vec<Order>,
    /// Share of the bundles that stand apart in `miss`, the replicas and in a second version of jaccard,
    /// bisect and refined
    #[arg(long, value_name = "R", default_value_t = 0.1, value_parser = super::link::share)]
    pin: f64,
    /// Bytes of a bundle that refined and the replicas are made for: 4K,16384
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "4K,16K",
          value_parser = parse_short_length)]
    made_for: Vec<u32>,
    /// Bytes of a bundle: 4K,8192
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "2304,4K,8K,16K,24K",
          value_parser = parse_short_length)]
    bundle_bytes: Vec<u32>,
    /// Shares of the bundles that caches hold
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0,0.05,0.1,0.2",
          value_parser = super::link::share)]
    cache_ratios: Vec<f64>,
    /// Cache policies, or all
    #[arg(
        long,
        value_name = "NAMES",
        default_value = "pinned,lru,s3-fifo,linking-aligned,decayed-frequency"
    )]
    cache_policies: PolicyNames,
    /// The first N tokens of each test
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Device profile with the law [default:
    /// a_us=9.64,b_mib_s=2034,combine=sum, fitted to published times of a OnePlus 12]
    #[arg(long, value_name = "FILE", conflicts_with = "law")]
    device: Option<PathBuf>,
    /// The law itself: a_us=9.64,b_mib_s=2034,combine=sum
    #[arg(long, value_name = "LAW")]
    law: Option<LawText>,
    /// Resamples of the tokens
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    resamples: u32,
    /// Seed of the resamples
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The folder to write into; made where there is none
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// Bytes for counts of pairs, all layers in the works together.
const MEMORY: u64 = 2 << 30;
/// What is written into the folder.
const FILES: [&str; 7] = [
    "cells.csv",
    "caches.csv",
    "floors.csv",
    "study.json",
    "io-over-cache.svg",
    "read-lengths.svg",
    "coactivation.svg",
];

pub(super) fn run(args: &Args) -> Result<()> {
    let law = match (&args.device, args.law) {
        (Some(device), _) => DeviceProfile::read(device)?.law,
        (None, law) => law.unwrap_or(LawText::ONEPLUS_12),
    };
    let settings = Settings {
        law: law.law()?,
        kinds: Kind::menu(&orders(args), args.pin, &distinct(&args.made_for)),
        bundle_bytes: distinct(&args.bundle_bytes),
        caches: CacheKind::menu(&args.cache_policies.0, &args.cache_ratios),
    };
    ensure!(!settings.caches.is_empty(), "--cache-policies none needs 0 among --cache-ratios");
    let learned = Learned::open(&args.traces, MEMORY)?;
    let tests = Test::read(&args.tests, args.tokens as usize, &learned)?;
    prepare(args)?;
    let layers = tests.first().context("no tests")?.layers.len();
    let bar = progress("studying", steps(&settings, learned.len(), tests.len(), layers));
    let grid = study(settings, learned, tests, &|steps| bar.inc(steps))?;
    let compared = caches(&grid)?;
    let least = floors::floors(&grid)?;
    bar.finish_and_clear();
    let judge = Judge::new(&grid, args.resamples as usize, args.seed)?;
    let (summed, candidates) = (summary(&judge), candidates(&judge));
    let json = json(args, &law, &grid, &summed, &candidates, (&compared, &least));
    let write = |name: &str, text: &str| write_text(&args.output.join(name), text);
    for (name, text) in pictures::pictures(&judge)? {
        write(name, &text)?;
    }
    write("cells.csv", &csv::csv(&judge)?)?;
    write("caches.csv", &cache_table::csv(grid.learned[0].profile.model(), &compared)?)?;
    write("floors.csv", &floors::csv(grid.learned[0].profile.model(), &least)?)?;
    write("study.json", &(serde_json::to_string_pretty(&json)? + "\n"))?;
    if args.json {
        print_json(&json)
    } else {
        print(&told(&grid, &summed, &candidates, (&compared, &least)))
    }
}

/// The orders asked for and the baselines, each once.
fn orders(args: &Args) -> Vec<Order> {
    let mut orders = vec![Order::Identity, Order::Frequency];
    for order in &args.orders {
        if !orders.contains(order) {
            orders.push(*order);
        }
    }
    orders
}

fn distinct(values: &[u32]) -> Vec<u32> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.dedup();
    values
}

/// Makes the folder, and checks that everything can be written before the long work.
fn prepare(args: &Args) -> Result<()> {
    let folder = args.output.display();
    if !args.output.is_dir() {
        std::fs::create_dir(&args.output)
            .with_context(|| format!("{folder}: cannot be made; give a folder, or a new name"))?;
    }
    let traces = args.traces.iter().chain(&args.tests).map(|source| source.path.as_path());
    let inputs: Vec<&Path> = traces.chain(args.device.as_deref()).collect();
    FILES.iter().try_for_each(|name| check_target(&args.output.join(name), &inputs))
}

fn is_synthetic(grid: &Grid) -> bool {
    grid.tests.iter().any(|test| test.synthetic)
        || grid.learned.iter().any(|learned| learned.profile.is_synthetic())
}

fn json(
    args: &Args,
    law: &LawText,
    grid: &Grid,
    summary: &Summary,
    candidates: &[Candidate],
    (compared, least): (&CacheTable, &FloorTable),
) -> serde_json::Value {
    let settings = &grid.settings;
    let test = |test: &Test| {
        serde_json::json!({
            "corpus": test.text.name, "corpus_known": test.text.known, "tokens": test.tokens, "block_tokens": test.block_tokens,
        })
    };
    serde_json::json!({
        "model": grid.learned[0].profile.model(),
        "simulated": true,
        "synthetic": is_synthetic(grid),
        "law": law,
        "orders": settings.kinds.iter().map(Kind::name).collect::<Vec<_>>(),
        "bundle_bytes": settings.bundle_bytes,
        "caches": settings.caches.iter().map(CacheKind::name).collect::<Vec<_>>(),
        "cache_state": "warm",
        "profiles": grid.learned.iter().map(|learned| serde_json::json!({
            "corpus": learned.name(),
            "corpus_known": learned.text.as_ref().is_none_or(|text| text.known), "tokens": learned.profile.tokens(),
        })).collect::<Vec<_>>(),
        "tests": grid.tests.iter().map(test).collect::<Vec<_>>(),
        "resamples": args.resamples,
        "seed": args.seed,
        "summary": summary,
        "candidates": candidates,
        "caches_over_belady": compared,
        "floors": least,
    })
}

fn told(
    grid: &Grid,
    summary: &Summary,
    candidates: &[Candidate],
    (compared, least): (&CacheTable, &FloorTable),
) -> String {
    let text = lnp_measure::study::tables::render(&grid.settings.kinds, summary, candidates);
    let what = if is_synthetic(grid) { "SYNTHETIC traces, " } else { "" };
    let model = plain(grid.learned[0].profile.model());
    format!(
        "{model}: {what}SIMULATED device, {} cells\n{text}\n{}\n{}",
        thousands(grid.places().count() as f64),
        cache_table::render(compared),
        floors::render(least),
    )
}
