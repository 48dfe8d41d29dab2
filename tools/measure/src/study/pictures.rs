//! The study's charts: I/O time against the size of the cache, how long reads are, who is active with
//! whom before and after linking.

use anyhow::Result;
use lnp_common::report::{bytes, quantile};
use lnp_device::LawText;
use plotters::style::RGBColor;

use super::cells::{At, Grid};
use super::judge::Judge;
use super::matrix::Matrices;
use super::missed::Missed;
use super::summary::main_place;
use crate::colours;
use crate::lengths::ReadLengths;
use crate::svg::{Axis, Chart, Line, Scale};
use lnp_link::price::{Objective, Pricer};
use lnp_link::{LayerActivity, Order};

/// Values a side of the co-activation matrix.
pub(crate) const MATRIX_SIDE: usize = 96;

/// File names and contents.
///
/// # Errors
/// A chart cannot be drawn.
pub fn pictures(judge: &Judge<'_>) -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("io-over-cache.svg", io_over_cache(judge)?),
        ("read-lengths.svg", read_lengths(judge)?),
        ("coactivation.svg", coactivation(judge)?),
    ])
}

/// The orders that are shown: the baselines, greedy, and the fastest of the main block with one placement
/// and with several.
fn shown(judge: &Judge<'_>) -> Vec<usize> {
    let kinds = &judge.grid.settings.kinds;
    let main = main_place(judge.grid);
    let us = |kind: &usize| judge.order_on_all(At { kind: *kind, ..main }).us.value;
    let fastest = |several: bool| {
        let such = (0..kinds.len()).filter(|kind| (kinds[*kind].placements() > 1) == several);
        such.min_by(|one, other| us(one).total_cmp(&us(other)))
    };
    let named = [Order::Identity, Order::Frequency, Order::Greedy];
    let mut shown: Vec<usize> = named.iter().filter_map(|of| judge.grid.kind_of(*of)).collect();
    shown.extend([fastest(false), fastest(true)].into_iter().flatten());
    let mut seen = Vec::new();
    shown.retain(|kind| {
        !seen.contains(kind) && {
            seen.push(*kind);
            true
        }
    });
    shown
}

fn colour(grid: &Grid, kind: usize) -> RGBColor {
    colours::of_order(grid.settings.kinds[kind].order)
}

/// `identity` is what others call bundling.
fn name(grid: &Grid, kind: usize) -> String {
    match grid.settings.kinds[kind].order {
        Order::Identity => "bundle (model order)".into(),
        _ => grid.settings.kinds[kind].name(),
    }
}

fn title(judge: &Judge<'_>, what: &str, cache: bool) -> String {
    let (grid, main) = (judge.grid, main_place(judge.grid));
    let size = bytes(grid.settings.bundle_bytes[main.bundle].into());
    let cache = if cache {
        format!(", {}", grid.settings.caches[main.cache].name())
    } else {
        String::new()
    };
    format!("{what}: {}, {size} bundles{cache}", grid.learned[main.profile].profile.model())
}

/// Device, files and version. No date: the same study gives the same pictures at any time.
fn note(grid: &Grid) -> String {
    let tests: Vec<&str> = grid.tests.iter().map(|test| test.file.as_str()).collect();
    format!(
        "simulated device, {}; profile {}, tests {}; lnp {}",
        LawText::from(&grid.settings.law),
        grid.learned[main_place(grid).profile].name(),
        tests.join(", "),
        env!("CARGO_PKG_VERSION")
    )
}

fn io_over_cache(judge: &Judge<'_>) -> Result<String> {
    let (grid, main) = (judge.grid, main_place(judge.grid));
    let policy = grid.settings.caches[main.cache].policy;
    let is_shown = |cache: &usize| {
        let cache = grid.settings.caches[*cache];
        cache.policy == policy || cache.ratio == 0.0
    };
    let caches: Vec<usize> = (0..grid.settings.caches.len()).filter(is_shown).collect();
    let line = |name: String, colour, us: &dyn Fn(At) -> f64| {
        let point = |cache: &usize| {
            let percent = 100.0 * grid.settings.caches[*cache].ratio;
            (percent, us(At { cache: *cache, ..main }) / 1e3)
        };
        Line { name, colour, points: caches.iter().map(point).collect() }
    };
    let mut all = vec![line("dense".into(), colours::DENSE, &|at| judge.dense_on_all(at).us.value)];
    for kind in shown(judge) {
        let us = |at| judge.order_on_all(At { kind, ..at }).us.value;
        all.push(line(name(grid, kind), colour(grid, kind), &us));
    }
    all.push(line("bound".into(), colours::BOUND, &|at| judge.bound_on_all(at).us.value));
    let x = Axis {
        name: "cache, % of the bundles (the most frequent pinned)",
        scale: Scale::Linear,
        told: |value| format!("{value}"),
    };
    let y = Axis {
        name: "I/O ms a token (simulated)",
        scale: Scale::Linear,
        told: |value| format!("{value}"),
    };
    let (title, note) = (title(judge, "I/O time", false), note(grid));
    Chart { title: &title, note: &note, x: &x, y: &y }.lines(&all)
}

/// Which share of the wanted bundles comes in reads of how many wanted bundles.
fn read_lengths(judge: &Judge<'_>) -> Result<String> {
    let (grid, main) = (judge.grid, main_place(judge.grid));
    let objective =
        Objective { law: grid.settings.law, bundle_bytes: grid.settings.bundle_bytes[main.bundle] };
    let all = shown(judge).into_iter().map(|kind| {
        let mut lengths = ReadLengths::default();
        for test in &grid.tests {
            let nothing = vec![vec![false; test.neurons]; test.layers.len()];
            let missed = Missed::but(test, &nothing);
            let layout = &grid.layouts[kind][main.profile];
            let mut pricer = Pricer::new(&objective, layout.slots_max());
            for token in 0..test.tokens {
                for layer in 0..test.layers.len() {
                    lengths.add(&mut pricer, missed.batch(token, layer), &layout.slots[layer]);
                }
            }
        }
        Line { name: name(grid, kind), colour: colour(grid, kind), points: lengths.percents() }
    });
    let x = Axis {
        name: "wanted bundles of a read: from so many to twice as many",
        scale: Scale::Log2,
        told: |value| format!("{value}"),
    };
    let y = Axis {
        name: "% of the wanted bundles",
        scale: Scale::Linear,
        told: |value| format!("{value}"),
    };
    let (title, note) = (title(judge, "Length of reads, no cache", false), note(grid));
    Chart { title: &title, note: &note, x: &x, y: &y }.lines(&all.collect::<Vec<_>>())
}

/// Who is active with whom in the middle layer on the first test: on the way down and across the slots,
/// as many neurons a value as it takes.
fn coactivation(judge: &Judge<'_>) -> Result<String> {
    let (grid, main) = (judge.grid, main_place(judge.grid));
    let test = &grid.tests[main.test];
    let layer = test.layers.len() / 2;
    let activity = LayerActivity::from_bits(test.neurons, &[(&test.layers[layer], test.tokens)])?;
    let side = MATRIX_SIDE.min(test.neurons);
    let mut shown = shown(judge);
    shown.retain(|kind| grid.settings.kinds[*kind].placements() == 1);
    let (first, last) = (shown.first().copied(), shown.last().copied());
    let pictures: Vec<(String, Vec<f64>)> = [first, last]
        .into_iter()
        .flatten()
        .map(|kind| {
            let slots = &grid.layouts[kind][main.profile].slots[layer][0];
            (name(grid, kind), shades(&activity, slots.first(), side))
        })
        .collect();
    // One scale for all: what is black is the darkest hundredth of the darkest.
    let black = pictures.iter().map(|(_, roots)| quantile(&mut roots.clone(), 0.99));
    let what = format!("Active together, layer {layer} on {}", test.text.name);
    let matrices = Matrices {
        title: &title(judge, &what, false),
        note: &note(grid),
        axis: "slot",
        most: test.neurons,
        side,
        scale: "share of the tokens",
        black: black.fold(f64::MIN_POSITIVE, f64::max),
        told: &|root| format!("{:.2} %", 100.0 * root * root),
        matrices: &pictures,
    };
    Ok(matrices.draw())
}

/// The share of tokens in which two neurons are active together, mean over the pairs of a value: its
/// square root, so that what is rare can be seen too.
pub(crate) fn shades(activity: &LayerActivity, slots: &[u32], side: usize) -> Vec<f64> {
    // Of an order with copies the slots are more than the neurons.
    let last = slots.iter().max().map_or(1, |last| *last as usize + 1);
    let place = |id: u32| slots[id as usize] as usize * side / last.max(activity.neurons());
    let mut sums = vec![0.0; side * side];
    let mut pairs = vec![0.0_f64; side * side];
    let ids: Vec<u32> = (0..activity.neurons() as u32).collect();
    for one in &ids {
        for other in &ids {
            pairs[place(*one) * side + place(*other)] += f64::from(u8::from(one != other));
        }
    }
    activity.visit_pairs(&ids, |one, other, count| {
        sums[place(one) * side + place(other)] += f64::from(count);
        sums[place(other) * side + place(one)] += f64::from(count);
    });
    let tokens = activity.tokens().max(1) as f64;
    sums.iter().zip(&pairs).map(|(sum, of)| (sum / of.max(1.0) / tokens).sqrt()).collect()
}
