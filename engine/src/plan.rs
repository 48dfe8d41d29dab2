//! The planner: from the slots to be read to extents, merging across holes where that is cheaper
//! than another read (*access collapse*). One extent is one read.
//!
//! A plan is a partition of the wanted slots into groups of neighbours: each group is an extent,
//! from the first block of its first bundle to the last block of its last. No extent is longer than
//! [`Geometry::read_bytes_max`], but for a single bundle that is.

mod cheapest;
mod merge;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::law::{Combine, Curve, DeviceLaw};

/// When two extents with a hole between them become one read.
// A curve is larger than the rest; an engine holds one, and a copy of it is not worth a reference.
#[allow(clippy::large_enum_variant)]
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
    /// Where a measured curve says it is cheaper.
    Curve(Curve),
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
            Self::Curve(_) => "curve",
            Self::Whole => "whole",
        }
    }

    /// What a plan costs by the rule that it was made by, to compare plans of one set of bundles in
    /// several placements: microseconds under a law or a curve; else bytes, a read counting as many
    /// as the rule would read through rather than make it (more than any layer has, for `Off`).
    pub fn cost(&self, plan: &Plan, extents: &[Extent]) -> f64 {
        const MORE_THAN_ANY_LAYER: u64 = 1 << 50;
        let in_bytes = |read_bytes: u64| plan.reads as f64 * read_bytes as f64 + plan.bytes as f64;
        match self {
            Self::Off => in_bytes(MORE_THAN_ANY_LAYER),
            Self::Gap { bytes } => in_bytes(*bytes),
            Self::Law(law) => law.time_us(plan.reads, plan.bytes),
            Self::Curve(curve) => curve.time_us(extents.iter().map(Extent::bytes)),
            Self::Whole => plan.bytes as f64,
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
    /// Slots of the placement: its bundles, copies included.
    pub slots: u32,
    /// Longest extent, bytes, a multiple of the block; raised, for an extent whose first bundle is
    /// longer once it is rounded out to blocks, to that bundle's length.
    pub read_bytes_max: u32,
}

impl Geometry {
    /// Bytes that [`Collapse::Whole`] reads, and so the staging area that it needs: the region, and a
    /// block more for each cut that goes through a block.
    pub fn whole_bytes(&self) -> u64 {
        let (mut bytes, mut first) = (0, 0);
        while first < self.slots {
            let end = self.whole_end(first);
            bytes += self.end(end - 1) - self.begin(first);
            first = end;
        }
        bytes
    }

    /// The bundle after the last that fits into one extent with `first` and all between.
    fn whole_end(&self, first: u32) -> u32 {
        // The limit is a multiple of the block, so rounding a bundle's end up does not cross it.
        let end = self.reach(first) / u64::from(self.bundle_stride.max(1));
        let end = u32::try_from(end).unwrap_or(u32::MAX);
        end.max(first.saturating_add(1)).min(self.slots)
    }

    /// First byte of the blocks of a bundle.
    pub(crate) const fn begin(&self, slot: u32) -> u64 {
        let block = self.block_bytes as u64;
        (slot as u64 * self.bundle_stride as u64) & block.wrapping_neg()
    }

    /// First byte after the blocks of a bundle.
    pub(crate) const fn end(&self, slot: u32) -> u64 {
        let block = self.block_bytes as u64;
        let end = (slot as u64 + 1) * self.bundle_stride as u64;
        (end + block.saturating_sub(1)) & block.wrapping_neg()
    }

    /// Bytes of the extent from one bundle to another, both included.
    pub(crate) const fn span(&self, first: u32, last: u32) -> u64 {
        self.end(last) - self.begin(first)
    }

    /// Where an extent that begins with this bundle ends at the latest: it ascends with the bundle.
    fn reach(&self, first: u32) -> u64 {
        (self.begin(first) + u64::from(self.read_bytes_max)).max(self.end(first))
    }

    /// Whether the bundles from one to another may be one extent.
    pub(crate) fn fits(&self, first: u32, last: u32) -> bool {
        self.end(last) <= self.reach(first)
    }

    /// Bytes between the blocks of two bundles; 0 where they touch or share one.
    const fn hole(&self, left: u32, right: u32) -> u64 {
        self.begin(right).saturating_sub(self.end(left))
    }
}

/// A stretch of a layer's region that is one read, in whole blocks.
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
    /// The first of the wanted slots that are taken from it, as an index into them.
    pub first: u32,
    /// How many of the wanted slots are taken from it: the next extent's `first` is `first + count`.
    /// 0 only under [`Collapse::Whole`].
    pub count: u32,
}

impl Extent {
    /// Its length, bytes.
    pub const fn bytes(&self) -> u64 {
        self.end - self.begin
    }

    /// The wanted slots that are taken from it, as indices into them.
    pub const fn wanted(&self) -> core::ops::Range<usize> {
        self.first as usize..self.first as usize + self.count as usize
    }
}

/// What a plan will cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Extents, in ascending order. Two neighbours share a block at most, and only where a stretch
    /// longer than a read was cut inside a block.
    pub extents: usize,
    /// Reads: one an extent.
    pub reads: u64,
    /// Bytes read, rounding, holes and shared blocks included.
    pub bytes: u64,
    /// Runs of adjacent slots among those asked for, whatever was merged.
    pub runs: u64,
    /// Holes between two neighbours of the wanted slots that are read through.
    pub merges: u64,
}

/// Entries of scratch that [`plan`] needs for so many slots.
pub const fn scratch_len(slots: usize) -> usize {
    slots.saturating_mul(3)
}

/// Plans the reads of strictly ascending `slots`.
///
/// What holds of the result, among all partitions of the slots into groups of neighbours that keep
/// to [`Geometry::read_bytes_max`]:
///
/// - [`Collapse::Law`] under [`Combine::Sum`] and [`Collapse::Curve`]: none is cheaper;
/// - [`Collapse::Law`] under [`Combine::Max`]: none is cheaper where that limit forbids no merge that
///   the balance asks for. Where it does, extents are merged from the front as long as they fit, and
///   a better partition may exist;
/// - under these three, the whole layer as [`Collapse::Whole`] would read it is never cheaper: where
///   a stream of everything is the fastest, that is what the plan comes to;
/// - [`Collapse::Off`]: the fewest reads without reading a hole;
/// - [`Collapse::Gap`]: stretches are merged from the front, as long as they fit.
///
/// `extents` is for at least as many entries as there are slots ([`Geometry::slots`], for
/// [`Collapse::Whole`]), `scratch` for [`scratch_len`]; the plan's extents are the first
/// [`Plan::extents`] of `extents`. Slots beyond the two or the layer are ignored.
pub fn plan(
    slots: &[u32],
    geometry: &Geometry,
    collapse: &Collapse,
    extents: &mut [Extent],
    scratch: &mut [u64],
) -> Plan {
    let mut plan = Plan { runs: runs(slots), ..Plan::default() };
    let inside = slots.partition_point(|slot| *slot < geometry.slots);
    let room = match collapse {
        Collapse::Whole => inside,
        Collapse::Off | Collapse::Gap { .. } => extents.len(),
        Collapse::Law(_) | Collapse::Curve(_) => extents.len().min(scratch.len() / scratch_len(1)),
    };
    let slots = &slots[..inside.min(room)];
    plan.extents = match collapse {
        Collapse::Off => stretches(slots, geometry, extents),
        Collapse::Gap { bytes } => merge::below(slots, geometry, *bytes, extents),
        Collapse::Law(law) => match law.combine() {
            Combine::Sum => cheapest::by_sum(slots, geometry, law, extents, scratch),
            Combine::Max => merge::balanced(slots, geometry, law, extents, scratch),
        },
        Collapse::Curve(curve) => cheapest::by_curve(slots, geometry, curve, extents, scratch),
        Collapse::Whole => whole(slots, geometry, extents),
    };
    plan.reads = plan.extents as u64;
    for extent in &mut extents[..plan.extents] {
        extent.staging_offset = plan.bytes;
        plan.bytes += extent.bytes();
        let wanted = slots.get(extent.wanted()).unwrap_or_default();
        let apart = wanted.windows(2).filter(|pair| geometry.hole(pair[0], pair[1]) > 0);
        plan.merges += apart.count() as u64;
    }
    plan
}

/// Runs of adjacent slots.
pub fn runs(slots: &[u32]) -> u64 {
    let breaks = slots.windows(2).filter(|pair| pair[1] != pair[0].wrapping_add(1)).count() as u64;
    breaks + u64::from(!slots.is_empty())
}

/// The extent of `slots[first..end]`, which is not empty; where it is staged is not known yet.
fn extent_of(slots: &[u32], geometry: &Geometry, first: usize, end: usize) -> Extent {
    Extent {
        begin: geometry.begin(slots[first]),
        end: geometry.end(slots[end - 1]),
        staging_offset: 0,
        first: first as u32,
        count: (end - first) as u32,
    }
}

/// What shares or touches a block is one extent, cut where the next bundle would not fit any more.
fn stretches(slots: &[u32], geometry: &Geometry, extents: &mut [Extent]) -> usize {
    from_the_front(slots, geometry, 0, extents)
}

/// Extents from the front, each as long as it fits and no hole in it is above `hole_bytes`. With no
/// bound on holes none has fewer extents.
fn from_the_front(
    slots: &[u32],
    geometry: &Geometry,
    hole_bytes: u64,
    extents: &mut [Extent],
) -> usize {
    let (mut count, mut first) = (0, 0);
    for end in 1..=slots.len() {
        let goes_on = slots.get(end).is_some_and(|next| {
            geometry.hole(slots[end - 1], *next) <= hole_bytes && geometry.fits(slots[first], *next)
        });
        if !goes_on {
            extents[count] = extent_of(slots, geometry, first, end);
            count += 1;
            first = end;
        }
    }
    count
}

/// The layer, where anything is wanted, cut like [`stretches`].
fn whole(slots: &[u32], geometry: &Geometry, extents: &mut [Extent]) -> usize {
    let (mut count, mut bundle, mut first) = (0, 0, 0);
    while !slots.is_empty() && bundle < geometry.slots {
        let Some(extent) = extents.get_mut(count) else { break };
        let end = geometry.whole_end(bundle);
        let held = slots[first..].iter().take_while(|slot| **slot < end).count();
        *extent = Extent {
            begin: geometry.begin(bundle),
            end: geometry.end(end - 1),
            staging_offset: 0,
            first: first as u32,
            count: held as u32,
        };
        (count, bundle, first) = (count + 1, end, first + held);
    }
    count
}
