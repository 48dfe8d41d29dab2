//! x86-64 with AVX2, FMA and F16C: eight lanes.

use core::arch::x86_64::{
    __m128, __m128i, __m256, __m256i, _mm_add_epi32, _mm_add_ps, _mm_and_si128, _mm_cvtepi32_ps,
    _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_cvtsi64_si128, _mm_cvtss_f32, _mm_fmadd_ps, _mm_hadd_ps,
    _mm_loadl_epi64, _mm_loadu_ps, _mm_loadu_si128, _mm_movehl_ps, _mm_mul_ps, _mm_mullo_epi32,
    _mm_set1_epi8, _mm_set1_epi32, _mm_set1_ps, _mm_setzero_ps, _mm_srli_epi16, _mm_storeu_ps,
    _mm_sub_epi8, _mm_sub_epi32, _mm_unpackhi_epi64, _mm256_add_ps, _mm256_castps256_ps128,
    _mm256_castsi256_ps, _mm256_castsi256_si128, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps,
    _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_extractf128_ps, _mm256_extracti128_si256,
    _mm256_fmadd_ps, _mm256_hadd_epi32, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_set_m128i, _mm256_set1_epi16, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_sign_epi8, _mm256_slli_epi32, _mm256_storeu_ps,
};

use crate::arch::Ahead;
use crate::arch::integer::{self, Four, Integers, Step};
use crate::arch::quad::Apart;
use crate::arch::vector::{self, Bf16, F16, F32, Load, Q4, Q8, Stored, Vector};
use crate::dtype::BLOCK;
use crate::input::{Input, STEP};

impl Vector for __m256 {
    const LANES: usize = 8;
    type Block = [Self; 4];

    #[inline(always)]
    unsafe fn zeros() -> Self::Block {
        // SAFETY: AVX is of the instruction set for which the caller of this method vouches.
        [unsafe { _mm256_setzero_ps() }; 4]
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: AVX is of the instruction set for which the caller of this method vouches.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for eight values; no alignment is needed.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for room for eight values; no alignment is needed.
        unsafe { _mm256_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: FMA is of the instruction set for which the caller of this method vouches.
        unsafe { _mm256_fmadd_ps(self, factor, sum) }
    }

    #[inline(always)]
    unsafe fn sum(blocks: [Self::Block; 2]) -> f32 {
        // SAFETY: AVX is of the instruction set for which the caller of this method vouches.
        unsafe { sum(blocks) }
    }

    #[inline(always)]
    unsafe fn widen(half: u16) -> f32 {
        // SAFETY: F16C is of the instruction set for which the caller of this method vouches.
        unsafe { widen(half) }
    }
}

/// The sum of all lanes.
#[inline]
#[target_feature(enable = "avx")]
fn sum([first, second]: [[__m256; 4]; 2]) -> f32 {
    let pair = |at: usize| _mm256_add_ps(first[at], second[at]);
    let eight = _mm256_add_ps(_mm256_add_ps(pair(0), pair(1)), _mm256_add_ps(pair(2), pair(3)));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_hadd_ps(two, two))
}

/// An f16 as f32.
#[inline]
#[target_feature(enable = "f16c")]
pub(super) fn widen(half: u16) -> f32 {
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half.into())))
}

impl Load<__m256> for F32 {
    #[inline(always)]
    unsafe fn load(numbers: *const u8) -> [__m256; 4] {
        let at = |eight: usize| {
            let from = numbers.wrapping_add(32 * eight);
            // SAFETY: the caller vouches for 128 bytes, of which these are 32.
            unsafe { _mm256_loadu_ps(from.cast()) }
        };
        [at(0), at(1), at(2), at(3)]
    }
}

impl Load<__m256> for F16 {
    #[inline(always)]
    unsafe fn load(numbers: *const u8) -> [__m256; 4] {
        let at = |eight: usize| {
            let from = numbers.wrapping_add(16 * eight);
            // SAFETY: the caller vouches for 64 bytes, of which these are 16.
            let halves = unsafe { _mm_loadu_si128(from.cast()) };
            // SAFETY: F16C is of the instruction set for which the caller of this method vouches.
            unsafe { _mm256_cvtph_ps(halves) }
        };
        [at(0), at(1), at(2), at(3)]
    }
}

impl Load<__m256> for Bf16 {
    #[inline(always)]
    unsafe fn load(numbers: *const u8) -> [__m256; 4] {
        let at = |eight: usize| {
            let from = numbers.wrapping_add(16 * eight);
            // SAFETY: the caller vouches for 64 bytes, of which these are 16.
            let halves = unsafe { _mm_loadu_si128(from.cast()) };
            // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
            unsafe { widen_bf16(halves) }
        };
        [at(0), at(1), at(2), at(3)]
    }
}

/// Eight bf16 as f32: they are its upper halves.
#[inline]
#[target_feature(enable = "avx2")]
fn widen_bf16(halves: __m128i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
}

impl Load<__m256> for Q8 {
    #[inline(always)]
    unsafe fn load(numbers: *const u8) -> [__m256; 4] {
        let at = |eight: usize| {
            let from = numbers.wrapping_add(8 * eight);
            // SAFETY: the caller vouches for 32 bytes, of which these are 8.
            let bytes = unsafe { _mm_loadl_epi64(from.cast()) };
            // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
            unsafe { widen_bytes(bytes) }
        };
        [at(0), at(1), at(2), at(3)]
    }
}

/// The lower eight bytes, signed, as f32.
#[inline]
#[target_feature(enable = "avx2")]
fn widen_bytes(bytes: __m128i) -> __m256 {
    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
}

impl Load<__m256> for Q4 {
    #[inline(always)]
    unsafe fn load(numbers: *const u8) -> [__m256; 4] {
        // SAFETY: the caller vouches for 16 bytes.
        let bytes = unsafe { _mm_loadu_si128(numbers.cast()) };
        // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
        unsafe { widen_nibbles(bytes) }
    }
}

/// Nibbles, less 8, as f32: the lower ones first.
#[inline]
#[target_feature(enable = "avx2")]
fn widen_nibbles(bytes: __m128i) -> [__m256; 4] {
    let [low, high] = split_nibbles(bytes);
    let eight = _mm_set1_epi8(8);
    let (low, high) = (_mm_sub_epi8(low, eight), _mm_sub_epi8(high, eight));
    let upper = |bytes| widen_bytes(_mm_unpackhi_epi64(bytes, bytes));
    [widen_bytes(low), upper(low), widen_bytes(high), upper(high)]
}

/// The lower and the upper nibbles of 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn split_nibbles(bytes: __m128i) -> [__m128i; 2] {
    let mask = _mm_set1_epi8(15);
    [_mm_and_si128(bytes, mask), _mm_and_si128(_mm_srli_epi16::<4>(bytes), mask)]
}

impl Integers for Q8 {
    type Four = __m128;
    const OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn multiply(w: *const u8, x: *const u8) -> __m128i {
        let block = |at: usize| {
            let w = w.wrapping_add(at * Self::BLOCK_BYTES + Self::SCALE_BYTES);
            // SAFETY: the numbers of one of four blocks, for which the caller vouches.
            let w = unsafe { _mm256_loadu_si256(w.cast()) };
            // SAFETY: 32 of the 128 bytes for which the caller vouches.
            let x = unsafe { _mm256_loadu_si256(x.wrapping_add(at * BLOCK).cast()) };
            // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
            unsafe { multiply_signed(w, x) }
        };
        // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
        unsafe { sums([block(0), block(1), block(2), block(3)]) }
    }
}

impl Apart for Q8 {
    type Four = __m128;
    const OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn multiply(w: [*const u8; STEP], x: *const u8) -> __m128i {
        // SAFETY: the caller vouches for 32 bytes.
        let x = unsafe { _mm256_loadu_si256(x.cast()) };
        let block = |w: *const u8| {
            // SAFETY: the numbers of one of four blocks, for which the caller vouches.
            let w = unsafe { _mm256_loadu_si256(w.wrapping_add(Self::SCALE_BYTES).cast()) };
            // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
            unsafe { multiply_signed(w, x) }
        };
        // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
        unsafe { sums([block(w[0]), block(w[1]), block(w[2]), block(w[3])]) }
    }
}

/// Sums of four products of signed bytes; `x` has no -128.
///
/// The instruction wants one side unsigned, so `w` gives its sign to `x`. |w| <= 128 and
/// |x| <= 127, so that two products fit 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn multiply_signed(w: __m256i, x: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(_mm256_sign_epi8(w, w), _mm256_sign_epi8(x, w));
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

impl Integers for Q4 {
    type Four = __m128;
    const OFFSET: i32 = 8;

    #[inline(always)]
    unsafe fn multiply(w: *const u8, x: *const u8) -> __m128i {
        let block = |at: usize| {
            let w = w.wrapping_add(at * Self::BLOCK_BYTES + Self::SCALE_BYTES);
            // SAFETY: the numbers of one of four blocks, for which the caller vouches.
            let w = unsafe { _mm_loadu_si128(w.cast()) };
            // SAFETY: 32 of the 128 bytes for which the caller vouches.
            let x = unsafe { _mm256_loadu_si256(x.wrapping_add(at * BLOCK).cast()) };
            // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
            unsafe { multiply_nibbles(w, x) }
        };
        // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
        unsafe { sums([block(0), block(1), block(2), block(3)]) }
    }
}

impl Apart for Q4 {
    type Four = __m128;
    const OFFSET: i32 = 8;

    #[inline(always)]
    unsafe fn multiply(w: [*const u8; STEP], x: *const u8) -> __m128i {
        // SAFETY: the caller vouches for 32 bytes.
        let x = unsafe { _mm256_loadu_si256(x.cast()) };
        let block = |w: *const u8| {
            // SAFETY: the numbers of one of four blocks, for which the caller vouches.
            let w = unsafe { _mm_loadu_si128(w.wrapping_add(Self::SCALE_BYTES).cast()) };
            // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
            unsafe { multiply_nibbles(w, x) }
        };
        // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
        unsafe { sums([block(w[0]), block(w[1]), block(w[2]), block(w[3])]) }
    }
}

/// Sums of four products of nibbles, 0 to 15, with signed bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply_nibbles(w: __m128i, x: __m256i) -> __m256i {
    let [low, high] = split_nibbles(w);
    let pairs = _mm256_maddubs_epi16(_mm256_set_m128i(high, low), x);
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// The sum of the lanes of each.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sums(p: [__m256i; STEP]) -> __m128i {
    let pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(p[0], p[1]), _mm256_hadd_epi32(p[2], p[3]));
    _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs))
}

impl Four for __m128 {
    type Sums = __m128i;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: part of x86-64.
        unsafe { _mm_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn add(self, sums: __m128i, offset: i32, step: &Step<'_>) -> Self {
        // SAFETY: AVX2, FMA and F16C are the instruction set for which the caller of this method
        // vouches.
        unsafe { add(self, sums, offset, step) }
    }

    #[inline(always)]
    unsafe fn add_one(
        self,
        sums: __m128i,
        above: i32,
        w_scales: [u16; STEP],
        x_scale: f32,
    ) -> Self {
        // SAFETY: AVX2, FMA and F16C are the instruction set for which the caller of this method
        // vouches.
        unsafe { add_one(self, sums, above, w_scales, x_scale) }
    }

    #[inline(always)]
    unsafe fn lanes(self) -> [f32; STEP] {
        let mut lanes = [0.0; STEP];
        // SAFETY: part of x86-64; the array has room for four values, and no alignment is needed.
        unsafe { _mm_storeu_ps(lanes.as_mut_ptr(), self) };
        lanes
    }

    #[inline(always)]
    unsafe fn total(self) -> f32 {
        // SAFETY: AVX is of the instruction set for which the caller of this method vouches.
        unsafe { total(self) }
    }
}

/// [`Four::add`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add(sum: __m128, mut sums: __m128i, offset: i32, step: &Step<'_>) -> __m128 {
    if offset != 0 {
        // SAFETY: the array holds 16 bytes; no alignment is needed.
        let x_sums = unsafe { _mm_loadu_si128(step.x_sums.as_ptr().cast()) };
        sums = _mm_sub_epi32(sums, _mm_mullo_epi32(x_sums, _mm_set1_epi32(offset)));
    }
    // SAFETY: the array holds 16 bytes; no alignment is needed.
    let x_scales = unsafe { _mm_loadu_ps(step.x_scales.as_ptr().cast()) };
    let scales = _mm_mul_ps(widen_four(step.w_scales), x_scales);
    _mm_fmadd_ps(_mm_cvtepi32_ps(sums), scales, sum)
}

/// [`Four::add_one`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_one(sum: __m128, sums: __m128i, above: i32, w_scales: [u16; STEP], x_scale: f32) -> __m128 {
    let sums = _mm_sub_epi32(sums, _mm_set1_epi32(above));
    let scales = _mm_mul_ps(widen_four(w_scales), _mm_set1_ps(x_scale));
    _mm_fmadd_ps(_mm_cvtepi32_ps(sums), scales, sum)
}

/// Four f16 as f32.
#[inline]
#[target_feature(enable = "f16c")]
fn widen_four(halves: [u16; STEP]) -> __m128 {
    let halves = halves.iter().rev().fold(0, |all, half| all << 16 | i64::from(*half));
    _mm_cvtph_ps(_mm_cvtsi64_si128(halves))
}

/// [`Four::total`].
#[inline]
#[target_feature(enable = "avx")]
fn total(sum: __m128) -> f32 {
    let pairs = _mm_hadd_ps(sum, sum);
    _mm_cvtss_f32(_mm_hadd_ps(pairs, pairs))
}

/// [`vector::dot`] of this instruction set.
///
/// # Safety
/// AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn dot<W: Load<__m256>>(x: &Input<'_>, w: &[u8], ahead: Ahead) -> f32 {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { vector::dot::<__m256, W>(x.values, w, ahead) }
}

/// [`integer::dot`] of this instruction set.
///
/// # Safety
/// AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn dot_integer<W: Integers>(x: &Input<'_>, w: &[u8], ahead: Ahead) -> f32 {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { integer::dot::<W>(x, w, ahead) }
}

/// [`vector::add_scaled`] of this instruction set.
///
/// # Safety
/// AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn add_scaled<W: Load<__m256>>(
    scale: f32,
    w: &[u8],
    y: &mut [f32],
    ahead: Ahead,
) {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { vector::add_scaled::<__m256, W>(scale, w, y, ahead) }
}
