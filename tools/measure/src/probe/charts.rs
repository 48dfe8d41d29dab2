//! The charts of a probe.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::table::head;
use crate::colours::of_number;
use crate::profile::Pattern;
use crate::profile::{Measured, Stream};
use crate::svg::{Axis, Chart, Line, Scale};
use lnp_common::files::write_text;
use lnp_common::report::bytes;

const SIZE: Axis<'static> =
    Axis { name: "bytes of a read", scale: Scale::Log2, told: |value| size(value) };
const LATENCY: Axis<'static> =
    Axis { name: "latency, us", scale: Scale::Log10, told: |value| format!("{value}") };

/// The files.
const NAMES: [&str; 3] = ["throughput.svg", "latency-by-size.svg", "latency-by-depth.svg"];

/// `4 KiB`, without a fraction.
fn size(value: f64) -> String {
    bytes(value).replace(".0 ", " ")
}

/// File names and contents: those that the streams are enough for.
fn charts(streams: &[Stream], note: &str) -> Vec<(&'static str, Result<String>)> {
    let longest = streams.iter().map(|one| one.kind.range_bytes).max().unwrap_or(0);
    let random: Vec<&Stream> = streams
        .iter()
        .filter(|one| one.kind.pattern == Pattern::Random && one.kind.range_bytes == longest)
        .filter(|one| Some(one.kind.back_end) == streams.first().map(|one| one.kind.back_end))
        .collect();
    let mut depths: Vec<u32> = random.iter().map(|one| one.kind.depth).collect();
    depths.sort_unstable();
    depths.dedup();
    let mib_s = Axis { name: "MiB/s", scale: Scale::Log10, told: |value| format!("{value}") };
    let over_size = |depth: u32, of: &dyn Fn(&Stream) -> Option<f64>| -> Vec<(f64, f64)> {
        let mut points: Vec<(f64, f64)> = random
            .iter()
            .filter(|one| one.kind.depth == depth)
            .filter_map(|one| Some((one.kind.read_bytes.into(), of(one)?)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    let throughput: Vec<Line> = depths
        .iter()
        .map(|depth| Line {
            name: format!("depth {depth}"),
            colour: of_number(depth.ilog2() as usize),
            points: over_size(*depth, &|one| Some(one.mib_s)),
        })
        .collect();
    let title = "Random reads: throughput by size and depth";
    let mut found = vec![(NAMES[0], Chart { title, note, x: &SIZE, y: &mib_s }.lines(&throughput))];
    let least = depths.first().copied().unwrap_or(1);
    let by_size: Vec<Line> = PERCENTILES
        .iter()
        .enumerate()
        .map(|(at, (name, of))| percentile(at, name, over_size(least, of)))
        .collect();
    let title = format!("Random reads, depth {least}: latency by size");
    let chart = Chart { title: &title, note, x: &SIZE, y: &LATENCY };
    found.push((NAMES[1], chart.lines(&by_size)));
    if depths.len() > 1 {
        found.push((NAMES[2], by_depth(&random, note)));
    }
    found
}

/// A percentile of a stream, where it has one.
type Percentile = fn(&Stream) -> Option<f64>;

const PERCENTILES: [(&str, Percentile); 3] = [
    ("median", |one| Some(one.latency_us_p50)),
    ("p99", |one| one.latency_us_p99),
    ("p99.9", |one| one.latency_us_p999),
];

fn percentile(at: usize, name: &str, points: Vec<(f64, f64)>) -> Line {
    Line { name: name.to_owned(), colour: of_number(at), points }
}

/// Of the size that was measured at most depths, the smallest of those.
fn by_depth(random: &[&Stream], note: &str) -> Result<String> {
    let count = |bytes: u32| random.iter().filter(|one| one.kind.read_bytes == bytes).count();
    let sizes = random.iter().map(|one| one.kind.read_bytes);
    let usual = sizes.clone().find(|bytes| *bytes == 4096);
    let most = usual.or_else(|| sizes.max_by_key(|bytes| count(*bytes)));
    let read_bytes = most.context("no streams")?;
    let depth =
        Axis { name: "reads in flight", scale: Scale::Log2, told: |value| format!("{value}") };
    let of_size = |of: &Percentile| -> Vec<(f64, f64)> {
        let mut points: Vec<(f64, f64)> = random
            .iter()
            .filter(|one| one.kind.read_bytes == read_bytes)
            .filter_map(|one| Some((one.kind.depth.into(), of(one)?)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    let found: Vec<Line> = PERCENTILES
        .iter()
        .enumerate()
        .map(|(at, (name, of))| percentile(at, name, of_size(of)))
        .collect();
    let title = format!("Random reads of {}: latency by depth", size(read_bytes.into()));
    Chart { title: &title, note, x: &depth, y: &LATENCY }.lines(&found)
}

/// The files that [`write()`] makes in a folder, which is made where there is none.
///
/// # Errors
/// It cannot be made.
pub fn files(folder: &Path) -> Result<[PathBuf; 3]> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("{}: cannot be made a folder for charts", folder.display()))?;
    Ok(NAMES.map(|name| folder.join(name)))
}

/// Writes the charts of what was measured into a folder.
///
/// # Errors
/// A file cannot be written.
pub fn write(folder: &Path, streams: &[Stream], measured: &Measured) -> Result<()> {
    let note = format!("{}, {}", head(measured).trim_end(), measured.date);
    for (name, text) in charts(streams, &note) {
        write_text(&folder.join(name), &text?)?;
    }
    Ok(())
}
