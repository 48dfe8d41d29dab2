//! Any slots in any geometry, planned by every rule, against the naive oracles that the engine's tests
//! have: each slot once, aligned, ascending, within the limit and the region; the cheapest partition
//! where the planner promises it; never more than a stream of the whole layer.

use std::collections::BTreeSet;

use arbitrary::Arbitrary;
use lnp_engine::law::Curve;
use lnp_engine::plan::{Extent, Geometry, runs};
use lnp_engine::{Collapse, Combine, DeviceLaw};

use crate::planning_model::{blocks, cheapest_sum, check, exhaustive, run_plan, too_little_room};

/// A layer, a device and what is wanted.
#[derive(Arbitrary, Debug)]
pub struct Case {
    layout: Layout,
    device: Device,
    gap: u64,
    gap_bits: u8,
    wanted: Vec<Stretch>,
    /// Room for extents and scratch that need not be enough.
    room: (u8, u16),
}

#[derive(Arbitrary, Debug)]
struct Layout {
    stride: u32,
    stride_bits: u8,
    block: u8,
    neurons: u16,
    /// The last bundles of the largest layer that there can be, instead of a small one.
    huge: bool,
    read_blocks: u32,
    read_bits: u8,
}

#[derive(Arbitrary, Debug)]
struct Device {
    t0: u16,
    a: u32,
    a_bits: u8,
    bandwidth: u32,
    curve: Vec<(u16, u8)>,
}

/// Adjacent slots, after a hole.
#[derive(Arbitrary, Debug)]
struct Stretch {
    hole: u8,
    slots: u8,
}

/// A number of at most so many bits: small ones are as likely as large ones.
const fn bits(number: u32, count: u8) -> u32 {
    number & (u32::MAX >> (count % 32))
}

impl Layout {
    fn geometry(&self) -> Geometry {
        let block_bytes = 512 << (self.block % 8);
        let blocks = bits(self.read_blocks, self.read_bits) % (u32::MAX / block_bytes) + 1;
        let slots = if self.huge { 1 << 24 } else { u32::from(self.neurons) % 3000 + 1 };
        let stride = bits(self.stride, self.stride_bits) % (1 << 26) + 1;
        Geometry { bundle_stride: stride, block_bytes, slots, read_bytes_max: blocks * block_bytes }
    }
}

impl Device {
    fn law(&self, combine: Combine) -> DeviceLaw {
        let a_us = f64::from(bits(self.a, self.a_bits) % 240_000_001) / 4.0;
        let b_mib_s = f64::from(self.bandwidth % (1 << 30)) / 16.0 + 0.001;
        DeviceLaw::new(self.t0.into(), a_us, b_mib_s, combine).expect("a law within its limits")
    }

    fn curve(&self) -> Option<Curve> {
        let mut point = (0, 5.0);
        let points: Vec<(u32, f64)> = self
            .curve
            .iter()
            .take(16)
            .map(|(bytes, us)| {
                point = (point.0 + u32::from(*bytes) * 64 + 1, point.1 + f64::from(*us) / 8.0);
                point
            })
            .collect();
        Curve::new(self.t0.into(), &points).ok()
    }
}

/// Ascending slots; some may lie beyond the layer.
fn slots(case: &Case, geometry: &Geometry) -> Vec<u32> {
    let mut next = if case.layout.huge { geometry.slots - 2000 } else { 0 };
    let mut slots = Vec::new();
    for stretch in case.wanted.iter().take(100) {
        next += u32::from(stretch.hole);
        let end = next + u32::from(stretch.slots % 40) + 1;
        slots.extend(next..end);
        next = end;
    }
    slots.truncate(300);
    slots
}

/// Plans by every rule.
pub fn run(case: &Case) {
    let geometry = case.layout.geometry();
    let all = slots(case, &geometry);
    let inside = all.partition_point(|slot| *slot < geometry.slots);
    let slots = &all[..inside];
    let (sum, max) = (case.device.law(Combine::Sum), case.device.law(Combine::Max));
    let curve = case.device.curve();
    let gap = case.gap & (u64::MAX >> (case.gap_bits % 64));
    let mut rules =
        vec![Collapse::Off, Collapse::Gap { bytes: gap }, Collapse::Law(sum), Collapse::Law(max)];
    rules.extend(curve.map(Collapse::Curve));
    if !case.layout.huge {
        rules.push(Collapse::Whole);
    }
    for rule in &rules {
        let (found, extents) = run_plan(slots, &geometry, rule);
        check(slots, &geometry, rule, &found, &extents);
        let region = (u64::from(geometry.slots) * u64::from(geometry.bundle_stride))
            .next_multiple_of(geometry.block_bytes.into());
        assert!(extents.last().is_none_or(|last| last.end <= region));
        exact(slots, &geometry, rule, &extents);
        no_dearer_than_a_stream(slots, &geometry, rule, &extents);
        // Slots beyond the layer change nothing but the count of runs.
        let (beyond, _) = run_plan(&all, &geometry, rule);
        assert_eq!(
            (beyond.reads, beyond.bytes, beyond.runs),
            (found.reads, found.bytes, runs(&all))
        );
        too_little_room(slots, &geometry, rule, case.room.0.into(), case.room.1 as usize % 700);
    }
    assert_eq!(runs(slots), naive_runs(slots));
}

fn naive_runs(slots: &[u32]) -> u64 {
    let set: BTreeSet<u32> = slots.iter().copied().collect();
    set.iter().filter(|slot| slot.checked_sub(1).is_none_or(|one| !set.contains(&one))).count()
        as u64
}

fn assert_no_dearer(found: f64, best: f64, what: &str) {
    assert!(found <= best * (1.0 + 1e-9) + 1e-9, "{what}: {found} planned, {best} possible");
}

/// No partition is cheaper, where the planner says so.
fn exact(slots: &[u32], geometry: &Geometry, rule: &Collapse, extents: &[Extent]) {
    let (reads, bytes) = (extents.len() as u64, extents.iter().map(Extent::bytes).sum());
    match rule {
        Collapse::Law(law) if law.combine() == Combine::Sum => {
            let best = cheapest_sum(slots, geometry, |bytes| law.work_us(1, bytes));
            assert_no_dearer(law.work_us(reads, bytes), best, "sum");
        }
        Collapse::Law(law) if slots.len() <= 9 => {
            let span = slots
                .first()
                .zip(slots.last())
                .map_or(0..0, |(first, last)| blocks(*first, *last, geometry));
            let span_bytes = (span.end - span.start) * u64::from(geometry.block_bytes);
            if span_bytes <= geometry.read_bytes_max.into() {
                let cost = |sizes: &[u64]| law.work_us(sizes.len() as u64, sizes.iter().sum());
                let best = exhaustive(slots, geometry, cost);
                assert_no_dearer(law.work_us(reads, bytes), best, "max");
            }
        }
        Collapse::Curve(curve) => {
            let best = cheapest_sum(slots, geometry, |bytes| curve.read_us(bytes));
            let found: f64 = extents.iter().map(|extent| curve.read_us(extent.bytes())).sum();
            assert_no_dearer(found, best, "curve");
        }
        _ => {}
    }
}

/// Reading the whole layer is never cheaper than what is planned by a law or a curve.
fn no_dearer_than_a_stream(
    slots: &[u32],
    geometry: &Geometry,
    rule: &Collapse,
    extents: &[Extent],
) {
    if geometry.slots > 3000 || !matches!(rule, Collapse::Law(_) | Collapse::Curve(_)) {
        return;
    }
    let (planned, _) = run_plan(slots, geometry, rule);
    let (whole, stream) = run_plan(slots, geometry, &Collapse::Whole);
    let cost = (rule.cost(&planned, extents), rule.cost(&whole, &stream));
    assert_no_dearer(cost.0, cost.1, rule.name());
}
