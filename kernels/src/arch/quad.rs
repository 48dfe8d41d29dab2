//! Rows of quantised types, four at a time, once: a lane for each row, a step for each block of x.
//!
//! However short rows are, nothing has to be added up at their ends but lanes of a register, and no step
//! is incomplete. Each row's blocks are added one after the other: the same bits for every tier, whatever
//! the other rows are.

use super::Ahead;
use super::integer::Four;
use super::prefetch::{AHEAD_BYTES, LINE_BYTES};
use super::vector::Stored;
use crate::dtype::BLOCK;
use crate::input::{Blocks, Input, STEP};

/// Integer dot products of an instruction set for one number type, of blocks that do not lie side by side.
pub(super) trait Apart: Stored {
    /// The register that they are added to.
    type Four: Four;
    /// How far the numbers that are multiplied lie above what they mean: `w = d * (q - OFFSET)`.
    const OFFSET: i32;

    /// The sum of products of each of four blocks with the same one of x.
    ///
    /// # Safety
    /// The instruction set of `Four` and what the implementing type needs beyond it are there; at each of
    /// `w` a block of weights can be read, at `x` 32 bytes.
    unsafe fn multiply(w: [*const u8; STEP], x: *const u8) -> <Self::Four as Four>::Sums;
}

/// How far ahead of a place in one of four rows memory is asked for.
#[derive(Clone, Copy)]
struct Lead {
    /// Up to this offset of a row, what lies `own` bytes further in the same one.
    offset: usize,
    own: usize,
    /// From there on, what will be read in the next rows.
    next: usize,
}

impl Lead {
    fn new(row_bytes: usize) -> Self {
        let together = STEP * row_bytes;
        let own = AHEAD_BYTES / STEP;
        if row_bytes > own {
            return Self { offset: row_bytes - own, own, next: own + together - row_bytes };
        }
        // whole groups of four rows
        Self { offset: 0, own, next: AHEAD_BYTES.div_ceil(together.max(1)) * together }
    }
}

/// `out[i] = row i . x`.
///
/// # Safety
/// The instruction set of `I` is there. (Lengths are safe: what is not in all is left out.)
#[inline(always)]
pub(super) unsafe fn rows<I: Apart>(x: &Input<'_>, rows: &[u8], out: &mut [f32], ahead: Ahead) {
    let row_bytes = x.values.len() / BLOCK * I::BLOCK_BYTES;
    let (x, lead) = (x.blocks(), Lead::new(row_bytes));
    for (out, rows) in out.chunks_mut(STEP).zip(rows.chunks((STEP * row_bytes).max(1))) {
        // Where fewer are left, the first stands for those that are missing.
        let (first, _) = rows.split_at_checked(row_bytes).unwrap_or_default();
        let row = |at: usize| rows.get(at * row_bytes..(at + 1) * row_bytes).unwrap_or(first);
        // SAFETY: it needs the instruction set alone, which this function asks of its caller.
        let sums = unsafe { four::<I>(&x, [row(0), row(1), row(2), row(3)], lead, ahead) };
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum);
    }
}

/// Four rows of the same length times x.
///
/// # Safety
/// As [`rows`].
#[inline(always)]
unsafe fn four<I: Apart>(
    x: &Blocks<'_>,
    rows: [&[u8]; STEP],
    lead: Lead,
    ahead: Ahead,
) -> [f32; STEP] {
    // SAFETY: it needs the instruction set alone, which this function asks of its caller.
    let mut sum = unsafe { I::Four::zero() };
    let numbers = x.numbers.as_flattened();
    let scales = x.scales.as_flattened().as_chunks().0.iter();
    let x = scales.zip(x.sums.as_flattened().as_chunks().0);
    let x = x.zip(numbers.as_chunks::<BLOCK>().0);
    let blocks = |row: usize| rows[row].chunks_exact(I::BLOCK_BYTES);
    // Rows first: they end before a block of x is taken for nothing.
    let all = blocks(0).zip(blocks(1)).zip(blocks(2)).zip(blocks(3)).zip(x);
    let mut offset = 0;
    for ((((a, b), c), d), ((x_scale, x_sum), x)) in all {
        if offset % LINE_BYTES < I::BLOCK_BYTES {
            let lead = if offset < lead.offset { lead.own } else { lead.next };
            [a, b, c, d].iter().for_each(|w| ahead.ask_line(w.as_ptr().wrapping_add(lead)));
        }
        offset += I::BLOCK_BYTES;
        let w = [a.as_ptr(), b.as_ptr(), c.as_ptr(), d.as_ptr()];
        // SAFETY: the instruction set is there, as this function asks of its caller; each of `w` is a chunk
        // of a block, and the array holds 32 bytes.
        let sums = unsafe { I::multiply(w, x.as_ptr()) };
        let above = I::OFFSET.wrapping_mul(i32::from_le_bytes(*x_sum));
        let scale = |w: &[u8]| u16::from_le_bytes([w[0], w[1]]);
        let w_scales = [scale(a), scale(b), scale(c), scale(d)];
        // SAFETY: it needs the instruction set alone, which this function asks of its caller.
        sum = unsafe { sum.add_one(sums, above, w_scales, f32::from_le_bytes(*x_scale)) };
    }
    // SAFETY: it needs the instruction set alone, which this function asks of its caller.
    unsafe { sum.lanes() }
}
