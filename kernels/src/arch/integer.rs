//! The dot product of quantised types, once: whole blocks in integers, exactly, then one rounding
//! for the block's scale.
//!
//! Four blocks are a step, so that their sums and scales fill a register of four lanes. Lane `k` adds
//! up the blocks with number `k` modulo 4: the same bits for every tier that keeps to this. (For a matrix,
//! see `quad`.)

use super::Ahead;
use super::vector::Stored;
use crate::dtype::{BLOCK, Dtype};
use crate::input::{Input, STEP};

/// A register of four f32, to which the sums of four blocks are added.
pub(super) trait Four: Copy {
    /// Four i32.
    type Sums: Copy;

    /// # Safety
    /// The instruction set is there.
    unsafe fn zero() -> Self;

    /// `self + w_scales * x_scales * (sums - offset * x_sums)`, a lane for each block.
    ///
    /// # Safety
    /// The instruction set is there.
    unsafe fn add(self, sums: Self::Sums, offset: i32, step: &Step<'_>) -> Self;

    /// `self + w_scales * x_scale * (sums - above)`.
    ///
    /// # Safety
    /// The instruction set is there.
    unsafe fn add_one(
        self,
        sums: Self::Sums,
        above: i32,
        w_scales: [u16; STEP],
        x_scale: f32,
    ) -> Self;

    /// # Safety
    /// The instruction set is there.
    unsafe fn lanes(self) -> [f32; STEP];

    /// `(lane 0 + lane 1) + (lane 2 + lane 3)`.
    ///
    /// # Safety
    /// The instruction set is there.
    unsafe fn total(self) -> f32;
}

/// Integer dot products of an instruction set for one number type.
pub(super) trait Integers: Stored {
    /// The register that they are added to.
    type Four: Four;
    /// How far the stored numbers lie above what they mean: `w = d * (q - OFFSET)`.
    const OFFSET: i32;

    /// The sum of products of each of four blocks.
    ///
    /// # Safety
    /// The instruction set of `Four` and what the implementing type needs beyond it are there; at `w`
    /// four blocks of weights can be read, at `x` 128 bytes.
    unsafe fn multiply(w: *const u8, x: *const u8) -> <Self::Four as Four>::Sums;
}

/// What a step of four blocks is multiplied with.
pub(super) struct Step<'a> {
    /// The weights' scales, f16.
    pub(super) w_scales: [u16; STEP],
    /// The input's scales, f32.
    pub(super) x_scales: &'a [u8; 4 * STEP],
    /// The sums of the input's numbers, i32.
    pub(super) x_sums: &'a [u8; 4 * STEP],
}

/// The longest step.
pub(super) const STEP_BYTES_MAX: usize = STEP * Dtype::Q8_0.block_bytes();

/// `sum of w[i] * x[i]`.
///
/// # Safety
/// The instruction set of `I` is there. (Lengths are safe: what is not in both is left out.)
#[inline(always)]
pub(super) unsafe fn dot<I: Integers>(x: &Input<'_>, w: &[u8], ahead: Ahead) -> f32 {
    let x = x.blocks();
    let step_bytes = STEP * I::BLOCK_BYTES;
    // SAFETY: it needs the instruction set alone, which this function asks of its caller.
    let mut sum = unsafe { I::Four::zero() };
    let mut steps = x.scales.iter().zip(x.sums).zip(x.numbers);
    let whole = w.chunks_exact(step_bytes);
    let rest = whole.remainder();
    // `whole` first: it ends before a step of x is taken for nothing.
    for (w, ((x_scales, x_sums), numbers)) in whole.zip(&mut steps) {
        ahead.ask(w.as_ptr(), step_bytes);
        // SAFETY: the instruction set is there, as this function asks of its caller; `w` is a chunk of a
        // whole step.
        sum = unsafe { add_step::<I>(sum, w, x_scales, x_sums, numbers) };
    }
    if let (false, Some(((x_scales, x_sums), numbers))) = (rest.is_empty(), steps.next()) {
        // What is missing is zero, on both sides.
        let mut last = [0; STEP_BYTES_MAX];
        last[..rest.len()].copy_from_slice(rest);
        // SAFETY: the instruction set is there, as this function asks of its caller; the slice of `last`,
        // which is as long as the longest step, is one step.
        sum = unsafe { add_step::<I>(sum, &last[..step_bytes], x_scales, x_sums, numbers) };
    }
    // SAFETY: it needs the instruction set alone, which this function asks of its caller.
    unsafe { sum.total() }
}

/// Adds four blocks.
///
/// # Safety
/// The instruction set of `I` is there; `w` holds four blocks.
#[inline(always)]
unsafe fn add_step<I: Integers>(
    sum: I::Four,
    w: &[u8],
    x_scales: &[u8; 4 * STEP],
    x_sums: &[u8; 4 * STEP],
    numbers: &[u8; BLOCK * STEP],
) -> I::Four {
    // SAFETY: the instruction set is there and `w` holds four blocks, as this function asks of its
    // caller; the array holds 128 bytes.
    let sums = unsafe { I::multiply(w.as_ptr(), numbers.as_ptr()) };
    let step = Step { w_scales: w_scales::<I>(w), x_scales, x_sums };
    // SAFETY: it needs the instruction set alone, which this function asks of its caller.
    unsafe { sum.add(sums, I::OFFSET, &step) }
}

/// The scales of four blocks.
#[inline(always)]
pub(super) fn w_scales<T: Stored>(w: &[u8]) -> [u16; STEP] {
    let scale = |at: usize| u16::from_le_bytes([w[at], w[at + 1]]);
    // Not `map`, which the compiler does not always see through here.
    [scale(0), scale(T::BLOCK_BYTES), scale(2 * T::BLOCK_BYTES), scale(3 * T::BLOCK_BYTES)]
}
