//! The cheapest partition of the wanted slots where the cost of a batch is the sum over its reads.
//!
//! A dynamic programme: the cheapest way to read the slots up to the j-th ends in some extent from
//! the i-th to the j-th, and begins with the cheapest way to read those before the i-th.
//!
//! Holes so large that reading through them pays under no circumstances cut the problem into
//! segments first; most segments are short.

use super::{Extent, Geometry, extent_of};
use crate::law::{Curve, DeviceLaw};

/// Scratch, an entry for each slot of a segment.
struct Tables<'a> {
    /// Bits of the least cost of the slots up to this one.
    cost: &'a mut [u64],
    /// Where the last extent of that cheapest way begins.
    from: &'a mut [u64],
    /// For [`sum_tables`]: candidates for that beginning.
    open: &'a mut [u64],
}

impl Tables<'_> {
    /// Least cost of the slots before this one.
    fn cost_before(&self, at: usize) -> f64 {
        at.checked_sub(1).map_or(0.0, |last| f64::from_bits(self.cost[last]))
    }
}

/// Plans for `t = t0 + a * reads + bytes / B`.
pub(super) fn by_sum(
    slots: &[u32],
    geometry: &Geometry,
    law: &DeviceLaw,
    extents: &mut [Extent],
    scratch: &mut [u64],
) -> usize {
    let gap = law.gap_exact_bytes();
    by_segments(slots, law.gap_bytes(), geometry, extents, scratch, |slots, tables| {
        // Each hole of the segment is worth reading through: where one read can, that is it.
        if geometry.fits(slots[0], slots[slots.len() - 1]) {
            tables.from[slots.len() - 1] = 0;
        } else {
            sum_tables(slots, geometry, gap, tables);
        }
    })
}

/// Plans for a measured curve.
pub(super) fn by_curve(
    slots: &[u32],
    geometry: &Geometry,
    curve: &Curve,
    extents: &mut [Extent],
    scratch: &mut [u64],
) -> usize {
    let hole = curve.useless_hole_bytes(geometry.block_bytes, geometry.read_bytes_max);
    by_segments(slots, hole, geometry, extents, scratch, |slots, tables| {
        curve_tables(slots, geometry, curve, tables);
    })
}

/// Cuts at each hole of at least `useless` bytes, has `fill` find the best extents of each segment,
/// and writes them.
fn by_segments(
    slots: &[u32],
    useless: u64,
    geometry: &Geometry,
    extents: &mut [Extent],
    scratch: &mut [u64],
    fill: impl Fn(&[u32], &mut Tables<'_>),
) -> usize {
    let (cost, rest) = scratch.split_at_mut(slots.len());
    let (from, open) = rest.split_at_mut(slots.len());
    let mut tables = Tables { cost, from, open };
    // What touches is never cut for a hole that is none.
    let useless = useless.max(1);
    let (mut count, mut begin) = (0, 0);
    for end in 1..=slots.len() {
        if slots.get(end).is_some_and(|next| geometry.hole(slots[end - 1], *next) < useless) {
            continue;
        }
        fill(&slots[begin..end], &mut tables);
        count += write(slots, begin..end, geometry, &mut tables, &mut extents[count..]);
        begin = end;
    }
    count
}

/// Writes the extents of a segment from its filled tables. Returns how many.
fn write(
    slots: &[u32],
    segment: core::ops::Range<usize>,
    geometry: &Geometry,
    tables: &mut Tables<'_>,
    extents: &mut [Extent],
) -> usize {
    // The way back from the end turns into the way there: each beginning learns its end.
    let mut end = segment.len();
    while let Some(last) = end.checked_sub(1) {
        let from = tables.from[last] as usize;
        tables.cost[from] = end as u64;
        end = from;
    }
    let (mut count, mut first) = (0, 0);
    while first < segment.len() {
        let end = tables.cost[first] as usize;
        extents[count] = extent_of(slots, geometry, segment.start + first, segment.start + end);
        (count, first) = (count + 1, end);
    }
    count
}

/// Any curve: every beginning within the limit is tried.
fn curve_tables(slots: &[u32], geometry: &Geometry, curve: &Curve, tables: &mut Tables<'_>) {
    for (last, slot) in slots.iter().enumerate() {
        let mut best = (f64::INFINITY, last);
        for first in (0..=last).rev() {
            if !geometry.fits(slots[first], *slot) {
                break;
            }
            let read_us = curve.read_us(geometry.span(slots[first], *slot));
            let cost = tables.cost_before(first) + read_us;
            if cost < best.0 {
                best = (cost, first);
            }
        }
        tables.cost[last] = best.0.to_bits();
        tables.from[last] = best.1 as u64;
    }
}

/// The sum, in bytes: a read costs `gap` and its length. Of a beginning only its cost before it less
/// its first byte matters, the same for every end; and the beginnings within the limit move forward
/// with the end. So the best is the least of a sliding window, kept in a queue of the candidates
/// that no later one beats: a constant time for each slot.
fn sum_tables(slots: &[u32], geometry: &Geometry, gap: f64, tables: &mut Tables<'_>) {
    // Counted from the segment's start, to keep the numbers small.
    let origin = geometry.begin(slots[0]);
    let key = |tables: &Tables<'_>, first: usize| {
        tables.cost_before(first) - (geometry.begin(slots[first]) - origin) as f64
    };
    let (mut head, mut tail) = (0, 0);
    for (last, slot) in slots.iter().enumerate() {
        let key_last = key(tables, last);
        while head < tail && key(tables, tables.open[tail - 1] as usize) >= key_last {
            tail -= 1;
        }
        tables.open[tail] = last as u64;
        tail += 1;
        while !geometry.fits(slots[tables.open[head] as usize], *slot) {
            head += 1;
        }
        let first = tables.open[head] as usize;
        let cost = key(tables, first) + (geometry.end(*slot) - origin) as f64 + gap;
        tables.cost[last] = cost.to_bits();
        tables.from[last] = first as u64;
    }
}
