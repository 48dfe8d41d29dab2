//! The planner: from the slots to be read to extents, merging across holes where that is cheaper
//! than another read (*access collapse*).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::law::{Combine, DeviceLaw};

/// When two extents with a hole between them become one read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Collapse {
    /// Never: only extents that share or touch a block are one read.
    Off,
    /// Where the hole is smaller than so many bytes (the published fixed threshold).
    Gap {
        /// The threshold, bytes.
        bytes: u64,
    },
    /// Where the device law says it is cheaper.
    Law(DeviceLaw),
    /// Always, and the rest of the layer too, where anything of it is to be read: the dense baseline.
    Whole,
}

impl Collapse {
    /// Its name in reports.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Gap { .. } => "gap",
            Self::Law(_) => "law",
            Self::Whole => "whole",
        }
    }
}

/// How the bundles of a layer lie on the device.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Bytes from one bundle to the next.
    pub bundle_stride: u32,
    /// Unit of direct reads, bytes, a power of two.
    pub block_bytes: u32,
    /// Bundles of the layer.
    pub neurons: u32,
    /// Longest single read, bytes, a multiple of the block.
    pub read_bytes_max: u32,
}

/// A stretch of a layer's region that is read, in whole blocks.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Extent {
    /// First byte, from the start of the region.
    pub begin: u64,
    /// First byte after it.
    pub end: u64,
    /// Where its bytes go, from the start of the staging area.
    pub staging_offset: u64,
}

impl Extent {
    /// Its length, bytes.
    pub const fn bytes(&self) -> u64 {
        self.end - self.begin
    }
    /// Reads that it takes.
    pub const fn reads(&self, read_bytes_max: u32) -> u64 {
        self.bytes().div_ceil(read_bytes_max as u64)
    }
}

/// What a plan will cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Extents, in ascending order, none touching the next.
    pub extents: usize,
    /// Reads: extents, the long ones split.
    pub reads: u64,
    /// Bytes read, rounding and holes included.
    pub bytes: u64,
    /// Runs of adjacent slots among those asked for, whatever was merged.
    pub runs: u64,
    pub merges: u64,
}

/// Plans the reads of strictly ascending `slots`.
///
/// Under [`Collapse::Law`] no other choice of holes is cheaper by the law, as long as no extent is
/// longer than one read.
///
/// `extents` and `holes` are scratch for at least as many entries as there are slots (one, for
/// [`Collapse::Whole`]); the plan's extents are the first [`Plan::extents`] of `extents`. Slots
/// beyond the scratch or the layer are ignored.
pub fn plan(
    slots: &[u32],
    geometry: &Geometry,
    collapse: &Collapse,
    extents: &mut [Extent],
    holes: &mut [u64],
) -> Plan {
    let mut plan = Plan { runs: runs(slots), ..Plan::default() };
    let count = if *collapse == Collapse::Whole && !slots.is_empty() {
        whole(geometry, extents)
    } else {
        round_to_blocks(slots, geometry, extents)
    };
    let found = &mut extents[..count];
    plan.extents = match collapse {
        Collapse::Off | Collapse::Whole => count,
        Collapse::Gap { bytes } => merge(found, *bytes, 0, geometry.read_bytes_max),
        Collapse::Law(law) => match law.combine() {
            Combine::Sum => merge(found, law.gap_bytes(), 0, geometry.read_bytes_max),
            Combine::Max => {
                let (below, ties) = balance(law, found, holes);
                merge(found, below, ties, geometry.read_bytes_max)
            }
        },
    };
    let mut staging_offset = 0;
    for extent in &mut extents[..plan.extents] {
        extent.staging_offset = staging_offset;
        staging_offset += extent.bytes();
        plan.reads += extent.reads(geometry.read_bytes_max);
    }
    plan.bytes = staging_offset;
    plan
}

/// Runs of adjacent slots.
pub fn runs(slots: &[u32]) -> u64 {
    let breaks = slots.windows(2).filter(|pair| pair[1] != pair[0].wrapping_add(1)).count() as u64;
    breaks + u64::from(!slots.is_empty())
}

/// One extent: the layer.
fn whole(geometry: &Geometry, extents: &mut [Extent]) -> usize {
    let block = u64::from(geometry.block_bytes);
    let bytes = u64::from(geometry.neurons) * u64::from(geometry.bundle_stride);
    match extents.first_mut() {
        None => 0,
        Some(extent) => {
            *extent = Extent { begin: 0, end: bytes.next_multiple_of(block), staging_offset: 0 };
            1
        }
    }
}

/// Rounds each bundle out to blocks; what then touches is one extent.
fn round_to_blocks(slots: &[u32], geometry: &Geometry, extents: &mut [Extent]) -> usize {
    let block = u64::from(geometry.block_bytes);
    let stride = u64::from(geometry.bundle_stride);
    let mut count = 0_usize;
    for slot in slots.iter().filter(|slot| **slot < geometry.neurons) {
        let first = u64::from(*slot) * stride;
        let begin = first / block * block;
        let end = (first + stride).next_multiple_of(block);
        if let Some(last) = count.checked_sub(1).and_then(|last| extents.get_mut(last))
            && begin <= last.end
        {
            last.end = end;
            continue;
        }
        let Some(next) = extents.get_mut(count) else { break };
        *next = Extent { begin, end, staging_offset: 0 };
        count += 1;
    }
    count
}

/// Merges across each hole smaller than `below`, and across the first `ties` holes as large, where
/// that saves a read: two extents so long that they are split anyway may take as many reads
/// together as apart. Returns how many extents are left.
fn merge(extents: &mut [Extent], below: u64, mut ties: usize, read_bytes_max: u32) -> usize {
    let mut count = 0;
    for at in 0..extents.len() {
        let extent = extents[at];
        if count > 0 {
            let last = &mut extents[count - 1];
            let hole = extent.begin - last.end;
            let tie = hole == below && ties > 0;
            let apart = last.reads(read_bytes_max) + extent.reads(read_bytes_max);
            let saves = Extent { end: extent.end, ..*last }.reads(read_bytes_max) < apart;
            if saves && (hole < below || tie) {
                ties -= usize::from(tie);
                last.end = extent.end;
                continue;
            }
        }
        extents[count] = extent;
        count += 1;
    }
    count
}

/// For [`Combine::Max`]: which holes to read through so that the larger of operations and transfer
/// is smallest. Merging the k smallest holes is best for any k, operations only fall with k and
/// bytes only rise, so one pass over the sorted holes finds the best k.
/// Returns (all holes below this, and so many that are as large).
fn balance(law: &DeviceLaw, extents: &[Extent], holes: &mut [u64]) -> (u64, usize) {
    let count = extents.len().saturating_sub(1).min(holes.len());
    let holes = &mut holes[..count];
    for (hole, pair) in holes.iter_mut().zip(extents.windows(2)) {
        *hole = pair[1].begin - pair[0].end;
    }
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
