//! What a round computes, by whichever thread: whatever is at hand or has arrived, each thing once.

use core::iter::repeat;

use lnp_format::checksum::crc32;
use zerocopy::byteorder::{LE, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::bank::Reads;
use super::workers::Arrive;
use crate::arena::BufferState;
use crate::error::EngineError;
use crate::limits::{BANKS, HIT_GROUP_BUNDLES, LOOKAHEAD_BYTES, QUEUE_DEPTH_MAX};
use crate::sync::{AtomicU32, Ordering};

/// Where a bundle of the active set is.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Place {
    /// Neuron id.
    pub(super) neuron: u32,
    /// Its slot.
    pub(super) slot: u32,
    /// [`CACHED`], or the bank.
    pub(super) source: u32,
    /// The cell, or the extent.
    pub(super) number: u32,
    /// First byte in the extent.
    pub(super) at: u32,
    /// Length of the run of adjacent slots that it is read in, bundles.
    pub(super) run_bundles: u32,
}

/// [`Place::source`] of what the cache holds.
pub(super) const CACHED: u32 = BANKS as u32;

/// Coefficients that are none: not computed yet, and failed. Both are NaNs that no arithmetic makes.
pub(super) const PENDING: u32 = u32::MAX;
pub(super) const FAILED: u32 = u32::MAX - 1;

/// What a round computes from: shared by all threads. The states of the buffers say who may touch
/// what; a coefficient is written once, by whoever claimed its buffer.
pub(super) struct Work<'w, 'a, A> {
    pub(super) places: &'w [Place],
    pub(super) reads: [&'w Reads<'a>; BANKS],
    /// Which of the banks hold bundles of this round; the others are read for a later one.
    pub(super) needed: [bool; BANKS],
    /// Reads of each bank that were submitted: a buffer among them that is free has failed.
    pub(super) submitted: [AtomicU32; BANKS],
    /// Not 0 where a worker unwound: what it had claimed will never be computed.
    pub(super) broken: AtomicU32,
    pub(super) cells: &'w [u8],
    /// One for every [`HIT_GROUP_BUNDLES`] places: the cached ones of a group are claimed together.
    pub(super) hit_groups: &'w [AtomicU32],
    pub(super) coefficients: &'w [AtomicU32],
    pub(super) stride: usize,
    /// Of the placement that each bank is read from, by slot; empty where reads are not verified.
    pub(super) checksums: [&'w [U32<LE>]; BANKS],
    pub(super) layer: u32,
    pub(super) arrive: A,
}

/// Where a thread goes on looking for something to claim.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    hit_group: usize,
    buffers: [usize; BANKS],
}

impl<A: Arrive> Work<'_, '_, A> {
    /// Claims one thing that is ready and computes it; false where there is nothing just now.
    pub(super) fn compute_one(&self, cursor: &mut Cursor) -> bool {
        while let Some(group) = self.hit_groups.get(cursor.hit_group) {
            cursor.hit_group += 1;
            if BufferState(group).claim() {
                self.compute_hits(cursor.hit_group - 1);
                return true;
            }
        }
        for (bank, reads) in self.reads.iter().enumerate().filter(|(bank, _)| self.needed[*bank]) {
            let mark = &mut cursor.buffers[bank];
            let submitted = self.submitted[bank].load(Ordering::Acquire) as usize;
            // Past what is claimed, and what failed without being needed.
            while *mark < submitted
                && (reads.staging.is_claimed(*mark) || reads.staging.is_free(*mark))
            {
                *mark += 1;
            }
            // No further than is worth a look each time: what is left is reached when the mark moves.
            for number in *mark..submitted.min(*mark + 2 * QUEUE_DEPTH_MAX) {
                if let Some(bytes) = reads.staging.claim(number) {
                    let later = reads.positions(number).skip(lookahead(self.stride)).map(Some);
                    for (position, later) in reads.positions(number).zip(later.chain(repeat(None)))
                    {
                        self.compute(position, later, bytes);
                    }
                    return true;
                }
            }
        }
        false
    }

    fn compute_hits(&self, group: usize) {
        let begin = group * HIT_GROUP_BUNDLES;
        for position in begin..self.places.len().min(begin + HIT_GROUP_BUNDLES) {
            if self.places[position].source == CACHED {
                let later = position + lookahead(self.stride);
                let cached = self.places.get(later).is_some_and(|place| place.source == CACHED);
                self.compute(position, cached.then_some(later), self.cells);
            }
        }
    }

    /// Computes one place; `later` is one that comes some way after it in the same bytes.
    fn compute(&self, position: usize, later: Option<usize>, bytes: &[u8]) {
        let (Some(place), Some(coefficient)) =
            (self.places.get(position), self.coefficients.get(position))
        else {
            return;
        };
        let later = later.and_then(|later| self.places.get(later));
        let bits = match self.arrive(place, later, bytes) {
            Err(_) => FAILED,
            // NaN is NaN: one that looks like a mark becomes another
            Ok(value) if matches!(value.to_bits(), PENDING | FAILED) => f32::NAN.to_bits(),
            Ok(value) => value.to_bits(),
        };
        coefficient.store(bits, Ordering::Release);
    }

    pub(super) fn arrive(
        &self,
        place: &Place,
        later: Option<&Place>,
        bytes: &[u8],
    ) -> Result<f32, EngineError> {
        let bundle = bundle_of(place, bytes, self.stride)?;
        let checksums = self.checksums.get(place.source as usize);
        if let Some(expected) = checksums.and_then(|sums| sums.get(place.slot as usize)) {
            let (layer, slot) = (self.layer, place.slot);
            let (expected, found) = (expected.get(), crc32(bundle));
            if found != expected {
                return Err(EngineError::BundleDamaged { layer, slot, expected, found });
            }
        }
        let later = later.map(|later| bundle_of(later, bytes, self.stride));
        (self.arrive)(place.neuron, bundle, later.and_then(Result::ok).unwrap_or_default())
    }

    /// The bytes that a place lies in, where they have arrived: its extent's, or all cells.
    pub(super) fn bytes_of(&self, place: &Place) -> Option<&[u8]> {
        if place.source == CACHED {
            return Some(self.cells);
        }
        self.reads.get(place.source as usize)?.staging.bytes_of(place.number as usize)
    }

    /// Whether nobody reads a place's bundle, or has.
    pub(super) fn is_lost(&self, place: &Place) -> bool {
        let reads = self.reads.get(place.source as usize);
        reads.is_some_and(|reads| reads.staging.is_free(place.number as usize))
    }

    /// The bundle of a later place; empty where it has not arrived.
    pub(super) fn later_bundle(&self, place: Option<&Place>) -> &[u8] {
        let bundle = place.and_then(|place| {
            let bytes = self.bytes_of(place)?;
            bundle_of(place, bytes, self.stride).ok()
        });
        bundle.unwrap_or_default()
    }
}

/// A bundle's bytes in those of its extent, or of all cells.
pub(super) fn bundle_of<'b>(
    place: &Place,
    bytes: &'b [u8],
    stride: usize,
) -> Result<&'b [u8], EngineError> {
    let begin =
        if place.source == CACHED { place.number as usize * stride } else { place.at as usize };
    let bundle = bytes.get(begin..).and_then(|rest| rest.get(..stride));
    bundle.ok_or(EngineError::broken("a bundle lies within its extent"))
}

/// How many bundles [`LOOKAHEAD_BYTES`] are.
pub(super) const fn lookahead(stride: usize) -> usize {
    if stride == 0 { 1 } else { LOOKAHEAD_BYTES.div_ceil(stride) }
}

/// No coefficient is computed yet.
pub(super) fn reset(coefficients: &[AtomicU32], hit_groups: &[AtomicU32], round: usize) {
    for coefficient in coefficients.iter().take(round) {
        coefficient.store(PENDING, Ordering::Relaxed);
    }
    for group in hit_groups.iter().take(round.div_ceil(HIT_GROUP_BUNDLES)) {
        BufferState(group).make_ready();
    }
}
