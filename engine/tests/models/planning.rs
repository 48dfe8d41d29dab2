//! Naive oracles of the planner, shared with the fuzz target `planner`.
#![allow(dead_code, unreachable_pub)] // each user takes its part

use lnp_engine::Collapse;
use lnp_engine::plan::{Extent, Geometry, Plan, plan, runs, scratch_len};

/// A plan and its extents.
pub fn run_plan(slots: &[u32], geometry: &Geometry, collapse: &Collapse) -> (Plan, Vec<Extent>) {
    let room = match collapse {
        Collapse::Whole => slots.len().max(geometry.slots as usize),
        _ => slots.len(),
    };
    let mut extents = vec![Extent::default(); room];
    // what was there before must not matter
    let mut scratch = vec![0x5555_5555_5555_5555; scratch_len(slots.len())];
    let found = plan(slots, geometry, collapse, &mut extents, &mut scratch);
    extents.truncate(found.extents);
    (found, extents)
}

/// The blocks of the bundles from one to another.
pub fn blocks(first: u32, last: u32, geometry: &Geometry) -> std::ops::Range<u64> {
    let (stride, block) = (u64::from(geometry.bundle_stride), u64::from(geometry.block_bytes));
    let end = (u64::from(last) + 1) * stride;
    u64::from(first) * stride / block..end.div_ceil(block)
}

/// Cheapest cost over all partitions of at most 13 slots into groups of neighbours that keep to the
/// limit; `cost` is asked with the bytes of each group.
pub fn exhaustive(slots: &[u32], geometry: &Geometry, cost: impl Fn(&[u64]) -> f64) -> f64 {
    let mut best = f64::INFINITY;
    for cuts in 0..1_u32 << slots.len().saturating_sub(1) {
        let mut groups: Vec<Vec<u32>> = Vec::new();
        for (at, slot) in slots.iter().enumerate() {
            match groups.last_mut() {
                Some(group) if cuts >> (at - 1) & 1 == 0 => group.push(*slot),
                _ => groups.push(vec![*slot]),
            }
        }
        let sizes: Vec<u64> = groups
            .iter()
            .map(|group| blocks(group[0], *group.last().unwrap(), geometry))
            .map(|range| (range.end - range.start) * u64::from(geometry.block_bytes))
            .collect();
        let within = |(group, size): (&Vec<u32>, &u64)| {
            let alone = blocks(group[0], group[0], geometry);
            let alone = (alone.end - alone.start) * u64::from(geometry.block_bytes);
            *size <= alone.max(geometry.read_bytes_max.into())
        };
        if groups.iter().zip(&sizes).all(within) {
            best = best.min(cost(&sizes));
        }
    }
    best
}

/// The same over any number of slots where a batch costs the sum over its reads, `read_cost` of the
/// bytes of each: every beginning of the last group is tried, with the best for what is before it.
pub fn cheapest_sum(slots: &[u32], geometry: &Geometry, read_cost: impl Fn(u64) -> f64) -> f64 {
    let bytes = |first: u32, last: u32| {
        let range = blocks(first, last, geometry);
        (range.end - range.start) * u64::from(geometry.block_bytes)
    };
    let mut best = vec![0.0];
    for (last, slot) in slots.iter().enumerate() {
        let groups = (0..=last).filter(|first| {
            let first = slots[*first];
            bytes(first, *slot) <= bytes(first, first).max(geometry.read_bytes_max.into())
        });
        let costs = groups.map(|first| best[first] + read_cost(bytes(slots[first], *slot)));
        best.push(costs.fold(f64::INFINITY, f64::min));
    }
    best[slots.len()]
}

/// What holds of every plan, whatever the collapse.
pub fn check(
    slots: &[u32],
    geometry: &Geometry,
    collapse: &Collapse,
    plan: &Plan,
    extents: &[Extent],
) {
    let block = u64::from(geometry.block_bytes);
    let (mut staged, mut next, mut end, mut merges) = (0, 0, 0, 0);
    for extent in extents {
        assert!(extent.begin < extent.end && extent.begin % block == 0 && extent.end % block == 0);
        // a block is read twice at most where two extents meet
        assert!(extent.begin + block >= end && extent.end > end);
        end = extent.end;
        assert_eq!((extent.staging_offset, extent.wanted().start), (staged, next));
        staged += extent.bytes();
        next += extent.count as usize;
        assert!(extent.count > 0 || *collapse == Collapse::Whole);
        let wanted = &slots[extent.wanted()];
        for slot in wanted {
            let held = blocks(*slot, *slot, geometry);
            assert!(extent.begin <= held.start * block && held.end * block <= extent.end);
        }
        let single = extent.bytes() <= 2 * block + u64::from(geometry.bundle_stride);
        assert!(extent.bytes() <= u64::from(geometry.read_bytes_max) || single);
        merges += wanted
            .windows(2)
            .filter(|pair| {
                blocks(pair[1], pair[1], geometry).start > blocks(pair[0], pair[0], geometry).end
            })
            .count() as u64;
    }
    assert_eq!(next, slots.len());
    assert_eq!((plan.bytes, plan.reads, plan.merges), (staged, extents.len() as u64, merges));
}

/// Plans with room for so many extents and entries of scratch: the slots that there is no room for are
/// left out from the end, and the others planned as if they were all.
pub fn too_little_room(
    slots: &[u32],
    geometry: &Geometry,
    collapse: &Collapse,
    extents: usize,
    scratch: usize,
) {
    let planned = match collapse {
        Collapse::Whole => slots.len(),
        Collapse::Off | Collapse::Gap { .. } => extents,
        Collapse::Law(_) | Collapse::Curve(_) => extents.min(scratch / scratch_len(1)),
    };
    let mut extents = vec![Extent::default(); extents];
    let short = plan(slots, geometry, collapse, &mut extents, &mut vec![!0; scratch]);
    let kept = &slots[..planned.min(slots.len())];
    let (like, mut expected) = run_plan(kept, geometry, collapse);
    check(kept, geometry, collapse, &like, &expected);
    // The stream of a whole layer ends where there is no room for another extent.
    expected.truncate(extents.len());
    assert_eq!(extents[..short.extents], expected);
    let bytes = expected.iter().map(Extent::bytes).sum();
    assert_eq!((short.reads, short.bytes, short.runs), (expected.len() as u64, bytes, runs(slots)));
}
