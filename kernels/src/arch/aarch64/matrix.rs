//! Matrix products of bytes (FEAT_I8MM): gate and up of a bundle with the inputs of two tokens.

use core::arch::aarch64::{
    float32x4_t, int8x16_t, int32x4_t, vdupq_n_f32, vdupq_n_s32, vreinterpretq_s8_s64,
    vreinterpretq_s32_s64, vreinterpretq_s64_s8, vreinterpretq_s64_s32, vzip1q_s32, vzip1q_s64,
    vzip2q_s32, vzip2q_s64,
};
use core::arch::asm;

use super::bytes::{add, total};
use super::neon::Bytes;
use crate::arch::Ahead;
use crate::arch::integer::{STEP_BYTES_MAX, Step, w_scales};
use crate::arch::vector::Q8;
use crate::dtype::BLOCK;
use crate::input::{Blocks, Input, STEP};

/// Four dot products: `[gate, up][first, second]`, each with the bits of
/// [`crate::arch::integer::dot`].
///
/// # Safety
/// Advanced SIMD and FEAT_I8MM.
#[target_feature(enable = "neon,i8mm")]
pub(super) unsafe fn dot_pair<T: Bytes>(
    x: [&Input<'_>; 2],
    w: [&[u8]; 2],
    ahead: Ahead,
) -> [[f32; 2]; 2] {
    let x = [x[0].blocks(), x[1].blocks()];
    let step_bytes = STEP * T::BLOCK_BYTES;
    let mut sums = [vdupq_n_f32(0.0); 4];
    let (mut last_gate, mut last_up) = ([0; STEP_BYTES_MAX], [0; STEP_BYTES_MAX]);
    let steps = x[0].numbers.len().min(x[1].numbers.len());
    for (step, (gate, up)) in w[0].chunks(step_bytes).zip(w[1].chunks(step_bytes)).enumerate() {
        if step == steps {
            break;
        }
        ahead.ask(gate.as_ptr(), step_bytes);
        ahead.ask(up.as_ptr(), step_bytes);
        let (gate, up) = if gate.len() == step_bytes && up.len() == step_bytes {
            (gate, up)
        } else {
            // What is missing is zero, on both sides.
            last_gate[..gate.len()].copy_from_slice(gate);
            last_up[..up.len()].copy_from_slice(up);
            (&last_gate[..step_bytes], &last_up[..step_bytes])
        };
        sums = add_step::<T>(sums, [gate, up], &x, step);
    }
    [[total(sums[0]), total(sums[1])], [total(sums[2]), total(sums[3])]]
}

/// Adds four blocks; the lanes of a sum are the blocks, as in the dot product of one.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn add_step<T: Bytes>(
    sums: [float32x4_t; 4],
    w: [&[u8]; 2],
    x: &[Blocks<'_>; 2],
    step: usize,
) -> [float32x4_t; 4] {
    let weights = |part: usize, block: usize| {
        let numbers = w[part][block * T::BLOCK_BYTES + T::SCALE_BYTES..].as_ptr();
        // SAFETY: block 0 to 3 of four, from behind its scale.
        unsafe { T::bytes(numbers) }
    };
    let values = |token: usize, block: usize| {
        let numbers = x[token].numbers[step][block * BLOCK..].as_ptr();
        // SAFETY: 32 bytes of 128, from one of four blocks.
        unsafe { Q8::bytes(numbers) }
    };
    let product = |block| {
        multiply([weights(0, block), weights(1, block)], [values(0, block), values(1, block)])
    };
    let products = transpose([product(0), product(1), product(2), product(3)]);
    let scales = [w_scales::<T>(w[0]), w_scales::<T>(w[1])];
    let mut out = sums;
    for (at, out) in out.iter_mut().enumerate() {
        let (part, x) = (at / 2, &x[at % 2]);
        let step =
            Step { w_scales: scales[part], x_scales: &x.scales[step], x_sums: &x.sums[step] };
        *out = add(*out, products[at], i32::from(T::OFFSET), &step);
    }
    out
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

/// Rows to columns.
#[inline]
#[target_feature(enable = "neon")]
fn transpose([a, b, c, d]: [int32x4_t; 4]) -> [int32x4_t; 4] {
    let (ab_low, ab_high) = (vzip1q_s32(a, b), vzip2q_s32(a, b));
    let (cd_low, cd_high) = (vzip1q_s32(c, d), vzip2q_s32(c, d));
    let join = |ab, cd| {
        let (ab, cd) = (vreinterpretq_s64_s32(ab), vreinterpretq_s64_s32(cd));
        [vreinterpretq_s32_s64(vzip1q_s64(ab, cd)), vreinterpretq_s32_s64(vzip2q_s64(ab, cd))]
    };
    let ([first, second], [third, fourth]) = (join(ab_low, cd_low), join(ab_high, cd_high));
    [first, second, third, fourth]
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
