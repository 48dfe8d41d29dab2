//! aarch64 Advanced SIMD: four lanes.

use core::arch::aarch64::{
    float16x4_t, float32x4_t, int8x16_t, int16x8_t, uint8x16_t, uint16x4_t, uint16x8_t, vaddq_f32,
    vaddvq_f32, vandq_u8, vcvt_f32_f16, vcvt_high_f32_f16, vcvtq_f16_s16, vcvtq_f32_s32,
    vdup_n_u16, vdupq_n_f32, vdupq_n_s8, vdupq_n_u8, vfmaq_f32, vget_low_f16, vget_low_s8,
    vget_low_s16, vget_low_u16, vgetq_lane_f32, vld1q_f32, vld1q_s8, vld1q_u8, vmovl_high_s8,
    vmovl_high_s16, vmovl_s8, vmovl_s16, vreinterpret_f16_u16, vreinterpretq_f16_u16,
    vreinterpretq_f32_u32, vreinterpretq_s8_u8, vreinterpretq_u16_u8, vshll_high_n_u16,
    vshll_n_u16, vshrq_n_u8, vst1q_f32, vsubq_s8,
};

use crate::arch::Ahead;
use crate::arch::vector::{self, Bf16, F16, F32, Load, Q4, Q8, Stored, Vector};
use crate::input::Input;

/// The registers of 32 values.
type Block = [float32x4_t; 8];

impl Vector for float32x4_t {
    const LANES: usize = 4;
    type Block = Block;

    #[inline(always)]
    unsafe fn zeros() -> Block {
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        [unsafe { vdupq_n_f32(0.0) }; 8]
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { vdupq_n_f32(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for four values; no alignment is needed.
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for room for four values; no alignment is needed.
        unsafe { vst1q_f32(to, self) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { vfmaq_f32(sum, self, factor) }
    }

    #[inline(always)]
    unsafe fn sum(blocks: [Block; 2]) -> f32 {
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { sum(blocks) }
    }

    #[inline(always)]
    unsafe fn widen(half: u16) -> f32 {
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { widen(half) }
    }
}

/// The sum of all lanes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn sum([first, second]: [Block; 2]) -> f32 {
    let pair = |at: usize| vaddq_f32(first[at], second[at]);
    let two = |at: usize| vaddq_f32(pair(at), pair(at + 1));
    vaddvq_f32(vaddq_f32(vaddq_f32(two(0), two(2)), vaddq_f32(two(4), two(6))))
}

/// An f16 as f32.
#[inline]
#[target_feature(enable = "neon")]
fn widen(half: u16) -> f32 {
    vgetq_lane_f32::<0>(widen_four(vdup_n_u16(half)))
}

/// Four f16 as f32.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn widen_four(halves: uint16x4_t) -> float32x4_t {
    let halves: float16x4_t = vreinterpret_f16_u16(halves);
    vcvt_f32_f16(halves)
}

impl Load<float32x4_t> for F32 {
    #[inline(always)]
    unsafe fn load(numbers: *const u8) -> Block {
        let at = |four: usize| {
            let from = numbers.wrapping_add(16 * four);
            // SAFETY: the caller vouches for 128 bytes, of which these are 16.
            unsafe { vld1q_f32(from.cast()) }
        };
        [at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)]
    }
}

/// 64 bytes as four registers of 16-bit numbers.
///
/// # Safety
/// 64 bytes can be read at `numbers`; no alignment is needed.
#[inline(always)]
pub(super) unsafe fn load_halves(numbers: *const u8) -> [uint16x8_t; 4] {
    let at = |eight: usize| {
        let from = numbers.wrapping_add(16 * eight);
        // SAFETY: the caller vouches for 64 bytes, of which these are 16.
        let loaded = unsafe { vld1q_u8(from) };
        // SAFETY: part of every aarch64 that this module is compiled for.
        unsafe { vreinterpretq_u16_u8(loaded) }
    };
    [at(0), at(1), at(2), at(3)]
}

impl Load<float32x4_t> for F16 {
    #[inline(always)]
    unsafe fn load(numbers: *const u8) -> Block {
        // SAFETY: the caller vouches for 64 bytes.
        let halves = unsafe { load_halves(numbers) };
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { widen_f16(halves) }
    }
}

/// 32 f16 as f32.
#[inline]
#[target_feature(enable = "neon")]
fn widen_f16(halves: [uint16x8_t; 4]) -> Block {
    let [a, b, c, d] = halves;
    let pair = |eight| {
        let eight = vreinterpretq_f16_u16(eight);
        [vcvt_f32_f16(vget_low_f16(eight)), vcvt_high_f32_f16(eight)]
    };
    let (a, b, c, d) = (pair(a), pair(b), pair(c), pair(d));
    [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]]
}

impl Load<float32x4_t> for Bf16 {
    #[inline(always)]
    unsafe fn load(numbers: *const u8) -> Block {
        // SAFETY: the caller vouches for 64 bytes.
        let halves = unsafe { load_halves(numbers) };
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { widen_bf16(halves) }
    }
}

/// 32 bf16 as f32: they are its upper halves.
#[inline]
#[target_feature(enable = "neon")]
fn widen_bf16(halves: [uint16x8_t; 4]) -> Block {
    let [a, b, c, d] = halves;
    let pair = |eight| {
        let low = vshll_n_u16::<16>(vget_low_u16(eight));
        [vreinterpretq_f32_u32(low), vreinterpretq_f32_u32(vshll_high_n_u16::<16>(eight))]
    };
    let (a, b, c, d) = (pair(a), pair(b), pair(c), pair(d));
    [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]]
}

/// A quantised type's numbers as 32 signed bytes.
pub(super) trait Bytes: Stored {
    /// How far the bytes lie above the weights' numbers.
    const OFFSET: i8;
    /// # Safety
    /// Advanced SIMD is there, and a block's numbers can be read at `numbers`.
    unsafe fn bytes(numbers: *const u8) -> [int8x16_t; 2];
}

impl Bytes for Q8 {
    const OFFSET: i8 = 0;
    #[inline(always)]
    unsafe fn bytes(numbers: *const u8) -> [int8x16_t; 2] {
        // SAFETY: the caller vouches for 32 bytes.
        let low = unsafe { vld1q_s8(numbers.cast()) };
        // SAFETY: the second half of them.
        let high = unsafe { vld1q_s8(numbers.wrapping_add(16).cast()) };
        [low, high]
    }
}

impl Bytes for Q4 {
    const OFFSET: i8 = 8;
    #[inline(always)]
    unsafe fn bytes(numbers: *const u8) -> [int8x16_t; 2] {
        // SAFETY: the caller vouches for 16 bytes.
        let bytes = unsafe { vld1q_u8(numbers) };
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { split_nibbles(bytes) }
    }
}

/// The lower and the upper nibbles of 16 bytes.
#[inline]
#[target_feature(enable = "neon")]
fn split_nibbles(bytes: uint8x16_t) -> [int8x16_t; 2] {
    let low = vandq_u8(bytes, vdupq_n_u8(15));
    [vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes))]
}

impl Load<float32x4_t> for Q8 {
    #[inline(always)]
    unsafe fn load(numbers: *const u8) -> Block {
        // SAFETY: it needs Advanced SIMD and the numbers of one block at the pointer, for both of
        // which the caller of this method vouches.
        let bytes = unsafe { Self::bytes(numbers) };
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { widen_bytes(bytes, Self::OFFSET) }
    }
}

impl Load<float32x4_t> for Q4 {
    #[inline(always)]
    unsafe fn load(numbers: *const u8) -> Block {
        // SAFETY: it needs Advanced SIMD and the numbers of one block at the pointer, for both of
        // which the caller of this method vouches.
        let bytes = unsafe { Self::bytes(numbers) };
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { widen_bytes(bytes, <Self as Bytes>::OFFSET) }
    }
}

/// Bytes less an offset, as 16-bit integers.
#[inline]
#[target_feature(enable = "neon")]
fn widen_to_16([low, high]: [int8x16_t; 2], offset: i8) -> [int16x8_t; 4] {
    let offset = vdupq_n_s8(offset);
    let (low, high) = (vsubq_s8(low, offset), vsubq_s8(high, offset));
    let first = |bytes| vmovl_s8(vget_low_s8(bytes));
    [first(low), vmovl_high_s8(low), first(high), vmovl_high_s8(high)]
}

/// Bytes less an offset, as f32.
#[inline]
#[target_feature(enable = "neon")]
fn widen_bytes(bytes: [int8x16_t; 2], offset: i8) -> Block {
    let [a, b, c, d] = widen_to_16(bytes, offset);
    let pair = |eight| {
        let low = vmovl_s16(vget_low_s16(eight));
        [vcvtq_f32_s32(low), vcvtq_f32_s32(vmovl_high_s16(eight))]
    };
    let (a, b, c, d) = (pair(a), pair(b), pair(c), pair(d));
    [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]]
}

/// A quantised type whose numbers become f32 by way of f16, which holds them exactly: two
/// instructions fewer for eight of them.
pub(super) struct ByHalf<T>(core::marker::PhantomData<T>);

impl<T: Stored> Stored for ByHalf<T> {
    const BLOCK_BYTES: usize = T::BLOCK_BYTES;
    const SCALE_BYTES: usize = T::SCALE_BYTES;
}

impl<T: Bytes> Load<float32x4_t> for ByHalf<T> {
    #[inline(always)]
    unsafe fn load(numbers: *const u8) -> Block {
        // SAFETY: it needs Advanced SIMD and the numbers of one block at the pointer, for both of
        // which the caller of this method vouches.
        let bytes = unsafe { T::bytes(numbers) };
        // SAFETY: FEAT_FP16 is there, because only `add_scaled_fp16` takes this type.
        unsafe { widen_bytes_fp16(bytes, T::OFFSET) }
    }
}

/// Bytes less an offset, as f32.
#[inline]
#[target_feature(enable = "neon,fp16")]
fn widen_bytes_fp16(bytes: [int8x16_t; 2], offset: i8) -> Block {
    let [a, b, c, d] = widen_to_16(bytes, offset);
    let pair = |eight| {
        let eight = vcvtq_f16_s16(eight);
        [vcvt_f32_f16(vget_low_f16(eight)), vcvt_high_f32_f16(eight)]
    };
    let (a, b, c, d) = (pair(a), pair(b), pair(c), pair(d));
    [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]]
}

/// [`vector::dot`] of this instruction set.
///
/// # Safety
/// Advanced SIMD.
#[target_feature(enable = "neon")]
pub(super) unsafe fn dot<W: Load<float32x4_t>>(x: &Input<'_>, w: &[u8], ahead: Ahead) -> f32 {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { vector::dot::<float32x4_t, W>(x.values, w, ahead) }
}

/// [`vector::add_scaled`] of this instruction set.
///
/// # Safety
/// Advanced SIMD.
#[target_feature(enable = "neon")]
pub(super) unsafe fn add_scaled<W: Load<float32x4_t>>(
    scale: f32,
    w: &[u8],
    y: &mut [f32],
    ahead: Ahead,
) {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { vector::add_scaled::<float32x4_t, W>(scale, w, y, ahead) }
}

/// The same with half-precision arithmetic.
///
/// # Safety
/// Advanced SIMD and FEAT_FP16.
#[target_feature(enable = "neon,fp16")]
pub(super) unsafe fn add_scaled_fp16<W: Load<float32x4_t>>(
    scale: f32,
    w: &[u8],
    y: &mut [f32],
    ahead: Ahead,
) {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { vector::add_scaled::<float32x4_t, W>(scale, w, y, ahead) }
}
