//! Matrix products of bytes (FEAT_I8MM): gate and up of a bundle with the inputs of two tokens.

use core::arch::aarch64::{
    float32x4_t, int8x16_t, int32x4_t, vaddq_f32, vcombine_f32, vcombine_s32, vcvtq_f32_s32,
    vdup_n_f32, vdup_n_s32, vdup_n_u16, vdupq_n_f32, vdupq_n_s32, vfmaq_f32, vgetq_lane_f32,
    vld1q_s8, vmlsq_n_s32, vmulq_f32, vreinterpretq_s8_s64, vreinterpretq_s64_s8, vset_lane_f32,
    vset_lane_s32, vst1q_f32, vzip1q_s64, vzip2q_s64,
};
use core::arch::asm;

use super::neon::{Bytes, widen_four};
use crate::dtype::BLOCK;
use crate::input::{Input, STEP};

/// Four dot products: `[gate, up][first, second]`, each with the bits of
/// [`crate::arch::integer::dot`]: a register holds all four for one block, and one of four registers
/// takes every fourth block.
///
/// # Safety
/// Advanced SIMD and FEAT_I8MM.
#[target_feature(enable = "neon,i8mm")]
pub(super) unsafe fn dot_pair<T: Bytes>(x: [&Input<'_>; 2], w: [&[u8]; 2]) -> [[f32; 2]; 2] {
    let mut sums = [vdupq_n_f32(0.0); STEP];
    let [first, second] = x.map(Input::blocks);
    let [gate, up] = w.map(|w| w.chunks_exact(T::BLOCK_BYTES));
    for (block, (gate, up)) in gate.zip(up).enumerate() {
        let (step, lane) = (block / STEP, block % STEP);
        let (Some(first_numbers), Some(second_numbers)) =
            (first.numbers.get(step), second.numbers.get(step))
        else {
            break;
        };
        // SAFETY: 32 bytes of 128, from one of four blocks.
        let x0 = unsafe { load(first_numbers[lane * BLOCK..].as_ptr()) };
        // SAFETY: the same.
        let x1 = unsafe { load(second_numbers[lane * BLOCK..].as_ptr()) };
        // SAFETY: the chunk is a block, its numbers begin after the scale.
        let w0 = unsafe { T::bytes(gate[T::SCALE_BYTES..].as_ptr()) };
        // SAFETY: the same.
        let w1 = unsafe { T::bytes(up[T::SCALE_BYTES..].as_ptr()) };
        let x_sums = pair_s32(number(first.sums, block), number(second.sums, block));
        let products = vmlsq_n_s32(multiply([w0, w1], [x0, x1]), x_sums, i32::from(T::OFFSET));
        let x_scales = [first.scales, second.scales].map(|scales| number(scales, block));
        let scales = vmulq_f32(w_scales(gate, up), pair_f32(x_scales));
        sums[lane] = vfmaq_f32(sums[lane], vcvtq_f32_s32(products), scales);
    }
    let sum = vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3]));
    let mut out = [0.0; 4];
    // SAFETY: the array has room for four values.
    unsafe { vst1q_f32(out.as_mut_ptr(), sum) };
    [[out[0], out[1]], [out[2], out[3]]]
}

/// # Safety
/// 32 bytes can be read at `x`.
#[inline(always)]
unsafe fn load(x: *const u8) -> [int8x16_t; 2] {
    // SAFETY: the caller vouches for 32 bytes.
    let low = unsafe { vld1q_s8(x.cast()) };
    // SAFETY: the second half of them.
    let high = unsafe { vld1q_s8(x.wrapping_add(16).cast()) };
    [low, high]
}

/// The four bytes of a block's scale or sum.
fn number(steps: &[[u8; 4 * STEP]], block: usize) -> [u8; 4] {
    let found = steps.get(block / STEP).map(|step| step.as_chunks::<4>().0);
    found.and_then(|step| step.get(block % STEP)).copied().unwrap_or_default()
}

/// Two integers, twice.
#[inline]
#[target_feature(enable = "neon")]
fn pair_s32(first: [u8; 4], second: [u8; 4]) -> int32x4_t {
    let two = vset_lane_s32::<1>(i32::from_le_bytes(second), vdup_n_s32(i32::from_le_bytes(first)));
    vcombine_s32(two, two)
}

/// Two values, twice.
#[inline]
#[target_feature(enable = "neon")]
fn pair_f32([first, second]: [[u8; 4]; 2]) -> float32x4_t {
    let two = vset_lane_f32::<1>(f32::from_le_bytes(second), vdup_n_f32(f32::from_le_bytes(first)));
    vcombine_f32(two, two)
}

/// The scales of two blocks of weights, each twice.
#[inline]
#[target_feature(enable = "neon")]
fn w_scales(gate: &[u8], up: &[u8]) -> float32x4_t {
    let [gate, up] = [gate, up].map(|block| {
        let half = block.first_chunk().map_or(0, |half| u16::from_le_bytes(*half));
        vdup_n_f32(vgetq_lane_f32::<0>(widen_four(vdup_n_u16(half))))
    });
    vcombine_f32(gate, up)
}

/// `[w0 . x0, w0 . x1, w1 . x0, w1 . x1]` of 32 bytes each.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn multiply(w: [[int8x16_t; 2]; 2], x: [[int8x16_t; 2]; 2]) -> int32x4_t {
    let mut sums = vdupq_n_s32(0);
    for half in 0..2 {
        let [w_low, w_high] = zip(w[0][half], w[1][half]);
        let [x_low, x_high] = zip(x[0][half], x[1][half]);
        sums = smmla(smmla(sums, w_low, x_low), w_high, x_high);
    }
    sums
}

/// The lower eight bytes of both, and the upper.
#[inline]
#[target_feature(enable = "neon")]
fn zip(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
    let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
    [vreinterpretq_s8_s64(vzip1q_s64(a, b)), vreinterpretq_s8_s64(vzip2q_s64(a, b))]
}

/// Adds the products of two rows of eight bytes with two others. (The intrinsic is not stable yet.)
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: FEAT_I8MM is there; only registers that are named are touched.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {w:v}.16b, {x:v}.16b",
            sums = inout(vreg) sums,
            w = in(vreg) w,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
