//! Plans that merge stretches: across all holes below a size, or so many of the smallest that the
//! two sides of [`Combine::Max`](crate::Combine::Max) are balanced.

use super::{Extent, Geometry, from_the_front, stretches};
use crate::law::DeviceLaw;

/// Merges across each hole smaller than `bytes`.
pub(super) fn below(
    slots: &[u32],
    geometry: &Geometry,
    bytes: u64,
    extents: &mut [Extent],
) -> usize {
    let count = stretches(slots, geometry, extents);
    merge(&mut extents[..count], bytes, 0, geometry)
}

/// Merges across the holes that make the larger of operations and transfer smallest.
pub(super) fn balanced(
    slots: &[u32],
    geometry: &Geometry,
    law: &DeviceLaw,
    extents: &mut [Extent],
    scratch: &mut [u64],
) -> usize {
    let count = stretches(slots, geometry, extents);
    let (below, ties) = balance(law, &extents[..count], scratch);
    let merged = merge(&mut extents[..count], below, ties, geometry);
    let balanced_us = work_us(law, &extents[..merged]);
    // Where the limit forbids merges that the balance counts on, fewer reads may cost less after all:
    // the fewest that there can be, which are never more, nor longer, than those of a stream of all.
    let fewest = from_the_front(slots, geometry, u64::MAX, extents);
    if work_us(law, &extents[..fewest]) < balanced_us {
        return fewest;
    }
    let count = stretches(slots, geometry, extents);
    merge(&mut extents[..count], below, ties, geometry)
}

/// Microseconds of these reads.
fn work_us(law: &DeviceLaw, extents: &[Extent]) -> f64 {
    law.work_us(extents.len() as u64, extents.iter().map(Extent::bytes).sum())
}

/// Merges across each hole smaller than `below`, and across the first `ties` holes as large, where
/// the result is not longer than a read may be. Returns how many extents are left.
fn merge(extents: &mut [Extent], below: u64, mut ties: usize, geometry: &Geometry) -> usize {
    let mut count = 0;
    for at in 0..extents.len() {
        let extent = extents[at];
        if let Some(last) = extents[..count].last_mut() {
            // Where a stretch was cut there is no hole, and the limit keeps the cut.
            let hole = extent.begin.saturating_sub(last.end);
            let tie = hole == below && ties > 0;
            let fits = extent.end - last.begin <= u64::from(geometry.read_bytes_max);
            if fits && (hole < below || tie) {
                ties -= usize::from(tie);
                last.end = extent.end;
                last.count += extent.count;
                continue;
            }
        }
        extents[count] = extent;
        count += 1;
    }
    count
}

/// Merging the k smallest holes is best for any k, operations only fall with k and bytes only rise,
/// so one pass over the sorted holes finds the best k.
/// Returns (all holes below this, and so many that are as large).
fn balance(law: &DeviceLaw, extents: &[Extent], scratch: &mut [u64]) -> (u64, usize) {
    let mut count = 0;
    // Cut stretches have no hole between them and cannot be merged.
    let holes = extents.windows(2).filter(|pair| pair[0].end < pair[1].begin);
    for (entry, pair) in scratch.iter_mut().zip(holes) {
        *entry = pair[1].begin - pair[0].end;
        count += 1;
    }
    let holes = &mut scratch[..count];
    holes.sort_unstable();
    let mut bytes: u64 = extents.iter().map(Extent::bytes).sum();
    let mut reads = extents.len() as u64;
    let mut best = (law.work_us(reads, bytes), 0);
    for (k, hole) in holes.iter().enumerate() {
        bytes += hole;
        reads -= 1;
        let work_us = law.work_us(reads, bytes);
        if work_us < best.0 {
            best = (work_us, k + 1);
        }
    }
    let Some(largest) = best.1.checked_sub(1).map(|last| holes[last]) else { return (0, 0) };
    let ties = holes[..best.1].iter().rev().take_while(|hole| **hole == largest).count();
    (largest, ties)
}
