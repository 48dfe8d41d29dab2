//! f16 dot products whose products are added in f32 (FEAT_FHM). The input is rounded to f16.

use core::arch::aarch64::{
    float16x8_t, float32x4_t, vcombine_f16, vcvt_f16_f32, vdupq_n_f32, vfmlalq_high_f16,
    vfmlalq_low_f16, vld1q_f32, vmulq_n_f32, vreinterpretq_f16_u16, vreinterpretq_u8_f16, vst1q_u8,
};

use super::neon::{load_halves, sum};
use crate::arch::Ahead;
use crate::dtype::BLOCK;
use crate::input::Input;

/// Fills [`crate::input::Form::F16Scaled`].
///
/// The scale brings the largest value to between 2^14 and 2^15 (a denormal one to less), where neither
/// it nor what is 2^-28 of it is lost in f16. NaN where a value is not finite.
///
/// # Safety
/// Advanced SIMD and FEAT_FHM; `out` has the bytes of the form.
#[target_feature(enable = "neon,fp16")]
pub(super) unsafe fn prepare(values: &[f32], out: &mut [u8]) {
    let most = values.iter().map(|v| v.abs().to_bits()).fold(0, u32::max);
    let (scale, inverse) = scale_of(f32::from_bits(most));
    let Some((scale_out, halves)) = out.split_first_chunk_mut::<4>() else { return };
    *scale_out = scale.to_le_bytes();
    for (v, out) in values.as_chunks::<8>().0.iter().zip(halves.as_chunks_mut::<16>().0) {
        // SAFETY: the array holds eight values.
        let low = unsafe { vld1q_f32(v.as_ptr()) };
        // SAFETY: the second half of them.
        let high = unsafe { vld1q_f32(v.as_ptr().wrapping_add(4)) };
        let half = |four| vcvt_f16_f32(vmulq_n_f32(four, inverse));
        let halves: float16x8_t = vcombine_f16(half(low), half(high));
        let bytes = vreinterpretq_u8_f16(halves);
        // SAFETY: the array has room for 16 bytes.
        unsafe { vst1q_u8(out.as_mut_ptr(), bytes) };
    }
}

/// A power of two and its inverse, for the largest value.
fn scale_of(most: f32) -> (f32, f32) {
    if !most.is_finite() {
        return (f32::NAN, f32::NAN);
    }
    // Biased exponents, kept where both the scale and its inverse are normal numbers.
    let exponent = (most.to_bits() >> 23).clamp(15, 254);
    let scale = exponent - 14;
    (f32::from_bits(scale << 23), f32::from_bits((254 - scale) << 23))
}

/// The dot product, half as many instructions as by way of f32.
///
/// # Safety
/// Advanced SIMD and FEAT_FHM.
#[target_feature(enable = "neon,fp16,fhm")]
pub(super) unsafe fn dot(x: &Input<'_>, w: &[u8], ahead: Ahead) -> f32 {
    let Some((scale, x)) = x.prepared.split_first_chunk::<4>() else { return f32::NAN };
    const BYTES: usize = 2 * BLOCK;
    let (x, w) = (x.as_chunks::<BYTES>().0, w.as_chunks::<BYTES>().0);
    let mut sums = [[vdupq_n_f32(0.0); 8]; 2];
    for (x, w) in x.chunks_exact(2).zip(w.chunks_exact(2)) {
        ahead.ask(w[0].as_ptr(), 2 * BYTES);
        add_products(&mut sums[0], &x[0], &w[0]);
        add_products(&mut sums[1], &x[1], &w[1]);
    }
    let blocks = x.len().min(w.len());
    if blocks % 2 == 1 {
        add_products(&mut sums[0], &x[blocks - 1], &w[blocks - 1]);
    }
    sum(sums) * f32::from_le_bytes(*scale)
}

/// Adds the products of one block.
#[inline]
#[target_feature(enable = "neon,fp16,fhm")]
fn add_products(sums: &mut [float32x4_t; 8], x: &[u8; 2 * BLOCK], w: &[u8; 2 * BLOCK]) {
    // SAFETY: the array holds 64 bytes.
    let x = unsafe { load_halves(x.as_ptr()) };
    // SAFETY: the array holds 64 bytes.
    let w = unsafe { load_halves(w.as_ptr()) };
    for (sums, (x, w)) in sums.as_chunks_mut::<2>().0.iter_mut().zip(x.into_iter().zip(w)) {
        let (x, w) = (vreinterpretq_f16_u16(x), vreinterpretq_f16_u16(w));
        sums[0] = vfmlalq_low_f16(sums[0], x, w);
        sums[1] = vfmlalq_high_f16(sums[1], x, w);
    }
}
