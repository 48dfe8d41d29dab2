//! Dot products of quantised types: by widening multiplication, and by dot products of bytes.

use core::arch::aarch64::{
    float32x4_t, int8x16_t, int32x4_t, vaddvq_f32, vcvtq_f32_s32, vdupq_n_f32, vdupq_n_s32,
    vfmaq_f32, vget_low_s8, vld1_u16, vld1q_f32, vld1q_s32, vmlal_high_s8, vmlal_s8, vmlsq_n_s32,
    vmull_s8, vmulq_f32, vmulq_n_f32, vpadalq_s16, vpaddlq_s16, vpaddq_f32, vpaddq_s32, vst1q_f32,
    vsubq_s32,
};
use core::arch::asm;
use core::marker::PhantomData;

use super::neon::{Bytes, widen_four};
use crate::arch::Ahead;
use crate::arch::integer::{self, Four, Integers, Step};
use crate::arch::quad::Apart;
use crate::arch::vector::{Q8, Stored};
use crate::dtype::BLOCK;
use crate::input::{Input, STEP};

/// Widening multiplication, which every aarch64 has.
pub(super) struct Multiply<T>(PhantomData<T>);
/// Dot products of bytes (FEAT_DotProd).
pub(super) struct Products<T>(PhantomData<T>);

impl<T: Stored> Stored for Multiply<T> {
    const BLOCK_BYTES: usize = T::BLOCK_BYTES;
    const SCALE_BYTES: usize = T::SCALE_BYTES;
}

impl<T: Stored> Stored for Products<T> {
    const BLOCK_BYTES: usize = T::BLOCK_BYTES;
    const SCALE_BYTES: usize = T::SCALE_BYTES;
}

/// The sum of products of each of four blocks.
///
/// # Safety
/// Advanced SIMD is there; at `w` four blocks of `T` can be read, at `x` 128 bytes.
#[inline(always)]
unsafe fn sums<T: Bytes>(
    w: *const u8,
    x: *const u8,
    product: impl Fn([int8x16_t; 2], [int8x16_t; 2]) -> int32x4_t,
) -> int32x4_t {
    let block = |at: usize| {
        // SAFETY: the numbers of one of four blocks, for which the caller vouches.
        let w = unsafe { T::bytes(w.wrapping_add(at * T::BLOCK_BYTES + T::SCALE_BYTES)) };
        // SAFETY: 32 of the 128 bytes for which the caller vouches.
        let x = unsafe { Q8::bytes(x.wrapping_add(at * BLOCK)) };
        product(w, x)
    };
    // SAFETY: Advanced SIMD is there, as this function asks of its caller.
    unsafe { sum_of_each([block(0), block(1), block(2), block(3)]) }
}

/// The sum of the lanes of each.
#[inline]
#[target_feature(enable = "neon")]
fn sum_of_each(p: [int32x4_t; STEP]) -> int32x4_t {
    vpaddq_s32(vpaddq_s32(p[0], p[1]), vpaddq_s32(p[2], p[3]))
}

/// The sum of products of each of four blocks with the same one of x.
///
/// # Safety
/// Advanced SIMD is there; at each of `w` a block of `T` can be read, at `x` 32 bytes.
#[inline(always)]
unsafe fn sums_apart<T: Bytes>(
    w: [*const u8; STEP],
    x: *const u8,
    product: impl Fn([int8x16_t; 2], [int8x16_t; 2]) -> int32x4_t,
) -> int32x4_t {
    // SAFETY: the caller vouches for 32 bytes.
    let x = unsafe { Q8::bytes(x) };
    let block = |w: *const u8| {
        // SAFETY: the numbers of one of four blocks, for which the caller vouches.
        let w = unsafe { T::bytes(w.wrapping_add(T::SCALE_BYTES)) };
        product(w, x)
    };
    // SAFETY: Advanced SIMD is there, as this function asks of its caller.
    unsafe { sum_of_each([block(w[0]), block(w[1]), block(w[2]), block(w[3])]) }
}

impl<T: Bytes> Integers for Multiply<T> {
    type Four = float32x4_t;
    const OFFSET: i32 = T::OFFSET as i32;

    #[inline(always)]
    unsafe fn multiply(w: *const u8, x: *const u8) -> int32x4_t {
        let product = |w, x| {
            // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
            // vouches.
            unsafe { multiply(w, x) }
        };
        // SAFETY: it needs Advanced SIMD, four blocks at `w` and 128 bytes at `x`, for which the
        // caller of this method vouches; the closure needs nothing else.
        unsafe { sums::<T>(w, x, product) }
    }
}

impl<T: Bytes> Apart for Multiply<T> {
    type Four = float32x4_t;
    const OFFSET: i32 = T::OFFSET as i32;

    #[inline(always)]
    unsafe fn multiply(w: [*const u8; STEP], x: *const u8) -> int32x4_t {
        let product = |w, x| {
            // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
            // vouches.
            unsafe { multiply(w, x) }
        };
        // SAFETY: it needs Advanced SIMD, a block at each of `w` and 32 bytes at `x`, for which the
        // caller of this method vouches; the closure needs nothing else.
        unsafe { sums_apart::<T>(w, x, product) }
    }
}

/// Sums of eight products of signed bytes. |w| <= 128 and |x| <= 127, so that two products fit 16
/// bits.
#[inline]
#[target_feature(enable = "neon")]
fn multiply(w: [int8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t {
    let low = vmull_s8(vget_low_s8(w[0]), vget_low_s8(x[0]));
    let low = vmlal_s8(low, vget_low_s8(w[1]), vget_low_s8(x[1]));
    let high = core::arch::aarch64::vmull_high_s8(w[0], x[0]);
    let high = vmlal_high_s8(high, w[1], x[1]);
    vpadalq_s16(vpaddlq_s16(low), high)
}

impl<T: Bytes> Integers for Products<T> {
    type Four = float32x4_t;
    const OFFSET: i32 = T::OFFSET as i32;

    #[inline(always)]
    unsafe fn multiply(w: *const u8, x: *const u8) -> int32x4_t {
        let product = |w, x| {
            // SAFETY: FEAT_DotProd is there, because only functions with it take this type.
            unsafe { multiply_dotprod(w, x) }
        };
        // SAFETY: it needs Advanced SIMD, four blocks at `w` and 128 bytes at `x`, for which the
        // caller of this method vouches; the closure needs nothing else.
        unsafe { sums::<T>(w, x, product) }
    }
}

impl<T: Bytes> Apart for Products<T> {
    type Four = float32x4_t;
    const OFFSET: i32 = T::OFFSET as i32;

    #[inline(always)]
    unsafe fn multiply(w: [*const u8; STEP], x: *const u8) -> int32x4_t {
        let product = |w, x| {
            // SAFETY: FEAT_DotProd is there, because only functions with it take this type.
            unsafe { multiply_dotprod(w, x) }
        };
        // SAFETY: it needs Advanced SIMD, a block at each of `w` and 32 bytes at `x`, for which the
        // caller of this method vouches; the closure needs nothing else.
        unsafe { sums_apart::<T>(w, x, product) }
    }
}

/// Sums of eight products of signed bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn multiply_dotprod(w: [int8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t {
    sdot(sdot(vdupq_n_s32(0), w[0], x[0]), w[1], x[1])
}

/// Adds the dot products of four bytes each. (The intrinsic is not stable yet.)
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: FEAT_DotProd is there; only registers that are named are touched.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {w:v}.16b, {x:v}.16b",
            sums = inout(vreg) sums,
            w = in(vreg) w,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

impl Four for float32x4_t {
    type Sums = int32x4_t;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { vdupq_n_f32(0.0) }
    }

    #[inline(always)]
    unsafe fn add(self, sums: int32x4_t, offset: i32, step: &Step<'_>) -> Self {
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { add(self, sums, offset, step) }
    }

    #[inline(always)]
    unsafe fn add_one(
        self,
        sums: int32x4_t,
        above: i32,
        w_scales: [u16; STEP],
        x_scale: f32,
    ) -> Self {
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { add_one(self, sums, above, w_scales, x_scale) }
    }

    #[inline(always)]
    unsafe fn lanes(self) -> [f32; STEP] {
        let mut lanes = [0.0; STEP];
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches; the array has room for four values.
        unsafe { vst1q_f32(lanes.as_mut_ptr(), self) };
        lanes
    }

    #[inline(always)]
    unsafe fn total(self) -> f32 {
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { total(self) }
    }
}

/// [`Four::add`].
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn add(
    sum: float32x4_t,
    mut sums: int32x4_t,
    offset: i32,
    step: &Step<'_>,
) -> float32x4_t {
    if offset != 0 {
        // SAFETY: the array holds 16 bytes; no alignment is needed.
        let x_sums = unsafe { vld1q_s32(step.x_sums.as_ptr().cast()) };
        sums = vmlsq_n_s32(sums, x_sums, offset);
    }
    // SAFETY: the array holds 4 numbers.
    let w_scales = unsafe { vld1_u16(step.w_scales.as_ptr()) };
    // SAFETY: the array holds 16 bytes; no alignment is needed.
    let x_scales = unsafe { vld1q_f32(step.x_scales.as_ptr().cast()) };
    vfmaq_f32(sum, vcvtq_f32_s32(sums), vmulq_f32(widen_four(w_scales), x_scales))
}

/// [`Four::add_one`].
#[inline]
#[target_feature(enable = "neon")]
fn add_one(
    sum: float32x4_t,
    sums: int32x4_t,
    above: i32,
    w_scales: [u16; STEP],
    x_scale: f32,
) -> float32x4_t {
    let sums = vsubq_s32(sums, vdupq_n_s32(above));
    // SAFETY: the array holds 4 numbers.
    let w_scales = unsafe { vld1_u16(w_scales.as_ptr()) };
    vfmaq_f32(sum, vcvtq_f32_s32(sums), vmulq_n_f32(widen_four(w_scales), x_scale))
}

/// [`Four::total`].
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn total(sum: float32x4_t) -> f32 {
    // lanes 0 + 1 and 2 + 3, twice; then the first two of those
    vaddvq_f32(vpaddq_f32(sum, vdupq_n_f32(0.0)))
}

/// [`integer::dot`] by widening multiplication.
///
/// # Safety
/// Advanced SIMD.
#[target_feature(enable = "neon")]
pub(super) unsafe fn dot<T: Bytes>(x: &Input<'_>, w: &[u8], ahead: Ahead) -> f32 {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { integer::dot::<Multiply<T>>(x, w, ahead) }
}

/// [`integer::dot`] by dot products of bytes.
///
/// # Safety
/// Advanced SIMD and FEAT_DotProd.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn dot_products<T: Bytes>(x: &Input<'_>, w: &[u8], ahead: Ahead) -> f32 {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { integer::dot::<Products<T>>(x, w, ahead) }
}
