//! The best that any cache could do with the same active sets: Belady's MIN, which knows the future,
//! with bypass, so that it need not keep what was read.
//!
//! After each layer's active set it keeps, of what it has and what was just read, the bundles that
//! are asked for again soonest. No policy hits more often, whatever it does. That is a bound on hits
//! and on the bytes of missed bundles, not on device time: which bundles are missed depends on the
//! neurons only, and another choice with more misses may leave fewer runs.

use std::collections::BinaryHeap;

use anyhow::Result;
use lnp_engine::choose::{self, choose};
use lnp_engine::plan::{Collapse, Extent, plan, scratch_len};
use lnp_engine::{Config, DeviceLaw, FetchStats};
use lnp_format::Pack;

use super::options::{CacheState, ReplayOptions, cells};
use super::record::Record;
use super::rows::{BELADY, Label, Row, row};
use super::sets::ActiveSets;
use super::strategy::base_name;
use lnp_link::trace::active;
use lnp_pack::PackIndex;

/// No next use, and not held.
const NEVER: u32 = u32::MAX;

/// What the best cache of `cells` misses of each step. A step's bundles, each once, are asked for
/// together. A cold cache begins empty, a warm one with whatever serves it best.
pub fn misses(steps: &[Vec<u32>], cells: usize, state: CacheState) -> Vec<Vec<u32>> {
    let bundles = steps.iter().flatten().max().map_or(0, |most| *most as usize + 1);
    let (next_uses, first_use) = next_uses(steps, bundles);
    // Of each held bundle the step of its next use; and all of them with the farthest on top. An
    // entry of the heap counts only as long as `held` says the same.
    let mut held = vec![NEVER; bundles];
    let mut farthest: BinaryHeap<(u32, u32)> = BinaryHeap::new();
    let mut count = 0;
    let mut keep = |held: &mut Vec<u32>, count: &mut usize, bundle: u32, next: u32| {
        if next != NEVER {
            held[bundle as usize] = next;
            farthest.push((next, bundle));
            *count += 1;
        }
        while *count > cells
            && let Some((next, bundle)) = farthest.pop()
        {
            if held[bundle as usize] == next {
                held[bundle as usize] = NEVER;
                *count -= 1;
            }
        }
    };
    if state == CacheState::Warm {
        for (bundle, next) in first_use.iter().enumerate() {
            keep(&mut held, &mut count, bundle as u32, *next);
        }
    }
    let mut all_misses = Vec::with_capacity(steps.len());
    for (step, next_uses) in steps.iter().zip(&next_uses) {
        let missed: Vec<u32> =
            step.iter().copied().filter(|bundle| held[*bundle as usize] == NEVER).collect();
        for bundle in step {
            if held[*bundle as usize] != NEVER {
                held[*bundle as usize] = NEVER;
                count -= 1;
            }
        }
        for (bundle, next) in step.iter().zip(next_uses) {
            keep(&mut held, &mut count, *bundle, *next);
        }
        all_misses.push(missed);
    }
    all_misses
}

/// For each bundle of each step the step that asks for it next; and of each bundle the first.
fn next_uses(steps: &[Vec<u32>], bundles: usize) -> (Vec<Vec<u32>>, Vec<u32>) {
    let mut next = vec![NEVER; bundles];
    let mut all: Vec<Vec<u32>> = Vec::with_capacity(steps.len());
    for (number, step) in steps.iter().enumerate().rev() {
        let mut replace =
            |bundle: &u32| std::mem::replace(&mut next[*bundle as usize], number as u32);
        all.push(step.iter().map(&mut replace).collect());
    }
    all.reverse();
    (all, next)
}

/// The rows of a pack: the best cache at each ratio, in each state.
pub(super) fn rows(
    index: &PackIndex,
    sets: &ActiveSets,
    tokens: usize,
    options: &ReplayOptions,
) -> Result<Vec<Row>> {
    let pack = index.pack()?;
    let steps = steps(&pack, sets, tokens)?;
    let mut rows = Vec::new();
    for ratio in options.caches.ratios_above_0() {
        for state in options.caches.states() {
            let missed = misses(&steps, cells(&pack, ratio) as usize, *state);
            let record = record(&pack, sets.layers.len(), &steps, &missed, &options.law);
            let base = base_name(pack.provenance().order());
            let name = format!("{base}+collapse+{BELADY}{}", options.caches.ratio_name(ratio));
            let label = Label {
                strategy: options.caches.in_state(&name, true, *state),
                collapse: Collapse::Law(options.law),
                cache_policy: BELADY,
                cache_ratio: ratio,
                cache_state: *state,
                simulated: true,
                calibrated: None,
                adapt: false,
                judged: None,
                beliefs: Vec::new(),
            };
            rows.push(row(&record, label, index, options)?);
        }
    }
    Ok(rows)
}

/// The bundles that each layer of each token asks for.
fn steps(pack: &Pack<'_>, sets: &ActiveSets, tokens: usize) -> Result<Vec<Vec<u32>>> {
    let copies = sets.copies(pack)?;
    let neurons = pack.shape().neurons;
    let of = |token: usize, layer: usize| {
        let first = ((token % copies) * sets.layers.len() + layer) as u32 * neurons;
        active(&sets.layers[layer], sets.neurons, token).map(move |id| first + id).collect()
    };
    let layers = 0..sets.layers.len();
    Ok((0..tokens).flat_map(|token| layers.clone().map(move |layer| of(token, layer))).collect())
}

/// Reads what was missed, by the law.
fn record(
    pack: &Pack<'_>,
    layers: usize,
    steps: &[Vec<u32>],
    missed: &[Vec<u32>],
    law: &DeviceLaw,
) -> Record {
    let shape = pack.shape();
    let geometry = Config::new(pack).geometry(pack);
    let mut extents = vec![Extent::default(); shape.neurons as usize];
    let choosing = choose::scratch_len(shape.slots);
    let mut scratch = vec![0; scratch_len(shape.neurons as usize).max(choosing)];
    let (mut entries, mut slots): (Vec<u64>, Vec<u32>) = (Vec::new(), Vec::new());
    let mut record = Record::new(layers);
    for (step, (asked, missed)) in steps.iter().zip(missed).enumerate() {
        let collapse = Collapse::Law(*law);
        let mut geometry = geometry;
        slots.clear();
        if let Some(view) = missed.first().and_then(|bundle| pack.layer(bundle / shape.neurons)) {
            geometry.slots = view.slots();
            let slots_of = |at: usize| view.slots_of(missed[at] % shape.neurons);
            let first =
                |at: usize| slots_of(at).next().map(|slot| u64::from(slot) << 32 | at as u64);
            entries.clear();
            entries.extend((0..missed.len()).filter_map(first));
            choose(&mut entries, &geometry, &collapse, slots_of, &mut scratch);
            slots.extend(entries.iter().map(|entry| (entry >> 32) as u32));
            slots.sort_unstable();
        }
        let plan = plan(&slots, &geometry, &collapse, &mut extents, &mut scratch);
        let time_us = law.time_us(plan.reads, plan.bytes);
        record.layers[step % layers].add(&FetchStats {
            active: asked.len() as u64,
            hits: (asked.len() - missed.len()) as u64,
            reads: plan.reads,
            runs: plan.runs,
            bytes_read: plan.bytes,
            useful_bytes: missed.len() as u64 * u64::from(shape.bundle_stride),
            rounds: u64::from(plan.reads > 0),
            io_ns: (time_us * 1e3) as u64,
            ..FetchStats::default()
        });
        record.predicted_us += time_us;
        if step % layers == 0 {
            record.times_us.push(vec![0.0]);
        }
        if let Some(time) = record.times_us.last_mut() {
            time[0] += time_us;
        }
    }
    record
}

#[cfg(test)]
#[path = "belady_tests.rs"]
mod tests;
