//! Codes of few bits as bytes, of twice what they are: `w = d * (2 c - (2^K - 1))`.

use core::arch::aarch64::{
    float32x4_t, int8x16_t, int32x4_t, uint8x8_t, uint8x16_t, vand_u8, vandq_u8, vcombine_u8,
    vdup_n_u8, vdupq_n_u8, vdupq_n_u64, veorq_u8, vld1_u8, vld1q_u8, vreinterpretq_s8_u8,
    vreinterpretq_u8_u64, vshlq_n_s32, vshlq_n_u8, vshr_n_u8, vshrq_n_u8, vtstq_u8, vzip1_u8,
    vzip1q_u8, vzip2_u8, vzip2q_u8,
};
use core::marker::PhantomData;

use super::neon::Bytes;
use crate::arch::integer::Four;
use crate::arch::quad::Apart;
use crate::arch::vector::{Bits, Stored};
use crate::input::STEP;

impl Bytes for Bits<1> {
    const OFFSET: i8 = 1;

    #[inline(always)]
    unsafe fn bytes(numbers: *const u8) -> [int8x16_t; 2] {
        // SAFETY: the caller vouches for four bytes; an array of bytes needs no alignment.
        let codes = unsafe { numbers.cast::<[u8; 4]>().read() };
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { double_1(codes) }
    }
}

impl Bytes for Bits<2> {
    const OFFSET: i8 = 3;

    #[inline(always)]
    unsafe fn bytes(numbers: *const u8) -> [int8x16_t; 2] {
        // SAFETY: the caller vouches for eight bytes.
        let codes = unsafe { vld1_u8(numbers) };
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { double_2(codes) }
    }
}

impl Bytes for Bits<4> {
    const OFFSET: i8 = 15;

    #[inline(always)]
    unsafe fn bytes(numbers: *const u8) -> [int8x16_t; 2] {
        // SAFETY: the caller vouches for sixteen bytes.
        let codes = unsafe { vld1q_u8(numbers) };
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { double_4(codes) }
    }
}

/// Twice a code fits no byte: these are 128 less than the codes, and [`Doubled`] their products.
impl Bytes for Bits<8> {
    const OFFSET: i8 = 0;

    #[inline(always)]
    unsafe fn bytes(numbers: *const u8) -> [int8x16_t; 2] {
        // SAFETY: the caller vouches for 32 bytes.
        let low = unsafe { vld1q_u8(numbers) };
        // SAFETY: the second half of them.
        let high = unsafe { vld1q_u8(numbers.wrapping_add(16)) };
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { less_128([low, high]) }
    }
}

/// Dot products of codes of eight bits, from those of the bytes.
pub(super) struct Doubled<I>(PhantomData<I>);

impl<I: Stored> Stored for Doubled<I> {
    const BLOCK_BYTES: usize = I::BLOCK_BYTES;
    const SCALE_BYTES: usize = I::SCALE_BYTES;
}

impl<I: Apart<Four = float32x4_t>> Apart for Doubled<I> {
    type Four = float32x4_t;
    const OFFSET: i32 = 255 - 2 * 128;

    #[inline(always)]
    unsafe fn multiply(w: [*const u8; STEP], x: *const u8) -> <Self::Four as Four>::Sums {
        // SAFETY: what it needs this method asks of its own caller.
        let sums: int32x4_t = unsafe { I::multiply(w, x) };
        // SAFETY: Advanced SIMD is of the instruction set for which the caller of this method
        // vouches.
        unsafe { vshlq_n_s32::<1>(sums) }
    }
}

/// 32 codes of one bit, doubled.
#[inline]
#[target_feature(enable = "neon")]
fn double_1([a, b, c, d]: [u8; 4]) -> [int8x16_t; 2] {
    let own = vreinterpretq_u8_u64(vdupq_n_u64(u64::from_le_bytes([1, 2, 4, 8, 16, 32, 64, 128])));
    // each byte eight times, of which each looks at its own bit
    let sixteen = |first, second| {
        let bytes = vcombine_u8(vdup_n_u8(first), vdup_n_u8(second));
        vreinterpretq_s8_u8(vandq_u8(vtstq_u8(bytes, own), vdupq_n_u8(2)))
    };
    [sixteen(a, b), sixteen(c, d)]
}

/// 32 codes of two bits, doubled.
#[inline]
#[target_feature(enable = "neon")]
fn double_2(codes: uint8x8_t) -> [int8x16_t; 2] {
    // nibbles first, which hold two codes each
    let (low, high) = (vand_u8(codes, vdup_n_u8(15)), vshr_n_u8::<4>(codes));
    let pairs = vcombine_u8(vzip1_u8(low, high), vzip2_u8(low, high));
    let mask = vdupq_n_u8(6);
    zip(vandq_u8(vshlq_n_u8::<1>(pairs), mask), vandq_u8(vshrq_n_u8::<1>(pairs), mask))
}

/// 32 codes of four bits, doubled.
#[inline]
#[target_feature(enable = "neon")]
fn double_4(codes: uint8x16_t) -> [int8x16_t; 2] {
    let mask = vdupq_n_u8(30);
    zip(vandq_u8(vshlq_n_u8::<1>(codes), mask), vandq_u8(vshrq_n_u8::<3>(codes), mask))
}

/// One of the first, one of the second, and so on.
#[inline]
#[target_feature(enable = "neon")]
fn zip(first: uint8x16_t, second: uint8x16_t) -> [int8x16_t; 2] {
    let (low, high) = (vzip1q_u8(first, second), vzip2q_u8(first, second));
    [vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(high)]
}

#[inline]
#[target_feature(enable = "neon")]
fn less_128([low, high]: [uint8x16_t; 2]) -> [int8x16_t; 2] {
    let less = |codes| vreinterpretq_s8_u8(veorq_u8(codes, vdupq_n_u8(128)));
    [less(low), less(high)]
}
