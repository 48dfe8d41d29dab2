//! x86-64 with AVX-512 (F, BW, DQ, VL): sixteen lanes; with dot products of bf16 and of bytes where
//! the CPU has them.

use core::arch::x86_64::{
    __m128, __m128i, __m256i, __m512, __m512bh, __m512i, _mm_loadu_si128, _mm_set1_epi8,
    _mm_sub_epi8, _mm256_dpbusd_epi32, _mm256_loadu_si256, _mm256_set_m128i, _mm256_set1_epi8,
    _mm256_setzero_si256, _mm256_xor_si256, _mm512_add_ps, _mm512_castsi512_ps,
    _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32, _mm512_cvtph_ps,
    _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_reduce_add_ps,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps,
};

use super::avx2;
use crate::arch::integer::{self, Integers, Step};
use crate::arch::vector::{self, Bf16, F16, F32, Load, Q4, Q8, Stored, Vector};
use crate::input::{Input, STEP};

impl Vector for __m512 {
    const LANES: usize = 16;
    type Block = [Self; 2];

    #[inline(always)]
    unsafe fn zeros() -> Self::Block {
        // SAFETY: AVX-512 is there by contract.
        [unsafe { _mm512_setzero_ps() }; 2]
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: AVX-512 is there by contract.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for sixteen values; no alignment is needed.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for room for sixteen values; no alignment is needed.
        unsafe { _mm512_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: AVX-512 is there by contract.
        unsafe { _mm512_fmadd_ps(self, factor, sum) }
    }

    #[inline(always)]
    unsafe fn sum(blocks: [Self::Block; 2]) -> f32 {
        // SAFETY: AVX-512 is there by contract.
        unsafe { sum(blocks) }
    }

    #[inline(always)]
    unsafe fn widen(half: u16) -> f32 {
        // SAFETY: F16C is there by contract.
        unsafe { avx2::widen(half) }
    }
}

/// The sum of all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum([first, second]: [[__m512; 2]; 2]) -> f32 {
    let pair = |at: usize| _mm512_add_ps(first[at], second[at]);
    _mm512_reduce_add_ps(_mm512_add_ps(pair(0), pair(1)))
}

impl Load<__m512> for F32 {
    #[inline(always)]
    unsafe fn load(numbers: *const u8) -> [__m512; 2] {
        let at = |half: usize| {
            let from = numbers.wrapping_add(64 * half);
            // SAFETY: the caller vouches for 128 bytes, of which these are 64.
            unsafe { _mm512_loadu_ps(from.cast()) }
        };
        [at(0), at(1)]
    }
}

impl Load<__m512> for F16 {
    #[inline(always)]
    unsafe fn load(numbers: *const u8) -> [__m512; 2] {
        let at = |half: usize| {
            let from = numbers.wrapping_add(32 * half);
            // SAFETY: the caller vouches for 64 bytes, of which these are 32.
            let halves = unsafe { _mm256_loadu_si256(from.cast()) };
            // SAFETY: AVX-512 is there by contract.
            unsafe { _mm512_cvtph_ps(halves) }
        };
        [at(0), at(1)]
    }
}

impl Load<__m512> for Bf16 {
    #[inline(always)]
    unsafe fn load(numbers: *const u8) -> [__m512; 2] {
        let at = |half: usize| {
            let from = numbers.wrapping_add(32 * half);
            // SAFETY: the caller vouches for 64 bytes, of which these are 32.
            let halves = unsafe { _mm256_loadu_si256(from.cast()) };
            // SAFETY: AVX-512 is there by contract.
            unsafe { widen_bf16(halves) }
        };
        [at(0), at(1)]
    }
}

/// Sixteen bf16 as f32: they are its upper halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn widen_bf16(halves: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
}

impl Load<__m512> for Q8 {
    #[inline(always)]
    unsafe fn load(numbers: *const u8) -> [__m512; 2] {
        let at = |half: usize| {
            let from = numbers.wrapping_add(16 * half);
            // SAFETY: the caller vouches for 32 bytes, of which these are 16.
            let bytes = unsafe { _mm_loadu_si128(from.cast()) };
            // SAFETY: AVX-512 is there by contract.
            unsafe { widen_bytes(bytes) }
        };
        [at(0), at(1)]
    }
}

/// Sixteen signed bytes as f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn widen_bytes(bytes: __m128i) -> __m512 {
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
}

impl Load<__m512> for Q4 {
    #[inline(always)]
    unsafe fn load(numbers: *const u8) -> [__m512; 2] {
        // SAFETY: the caller vouches for 16 bytes.
        let bytes = unsafe { _mm_loadu_si128(numbers.cast()) };
        // SAFETY: AVX-512 and AVX2 are there by contract.
        unsafe { widen_halves(bytes) }
    }
}

/// Halves of bytes, less 8, as f32: the lower ones first.
#[inline]
#[target_feature(enable = "avx2,avx512f")]
fn widen_halves(bytes: __m128i) -> [__m512; 2] {
    let [low, high] = avx2::split_halves(bytes);
    let eight = _mm_set1_epi8(8);
    [widen_bytes(_mm_sub_epi8(low, eight)), widen_bytes(_mm_sub_epi8(high, eight))]
}

/// q8_0 with dot products of bytes, of which one side is unsigned: 128 is added to the weights.
pub(super) struct Q8Vnni;
/// q4_0 with dot products of bytes.
pub(super) struct Q4Vnni;

impl Stored for Q8Vnni {
    const BLOCK_BYTES: usize = Q8::BLOCK_BYTES;
    const SCALE_BYTES: usize = Q8::SCALE_BYTES;
}

impl Stored for Q4Vnni {
    const BLOCK_BYTES: usize = Q4::BLOCK_BYTES;
    const SCALE_BYTES: usize = Q4::SCALE_BYTES;
}

impl Integers for Q8Vnni {
    type Partial = __m256i;
    type Four = __m128;
    const OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn zero() -> __m128 {
        // SAFETY: AVX2 is there by contract.
        unsafe { <Q8 as Integers>::zero() }
    }

    #[inline(always)]
    unsafe fn multiply(w: *const u8, x: *const u8) -> __m256i {
        // SAFETY: the caller vouches for 32 bytes.
        let w = unsafe { _mm256_loadu_si256(w.cast()) };
        // SAFETY: the caller vouches for 32 bytes.
        let x = unsafe { _mm256_loadu_si256(x.cast()) };
        // SAFETY: AVX-512 VL and VNNI are there by contract.
        unsafe { multiply_bytes(w, x) }
    }

    #[inline(always)]
    unsafe fn add(sum: __m128, products: [__m256i; STEP], step: &Step<'_>) -> __m128 {
        // SAFETY: AVX2, FMA and F16C are there by contract.
        unsafe { avx2::add_blocks(sum, products, Self::OFFSET, step) }
    }

    #[inline(always)]
    unsafe fn total(sum: __m128) -> f32 {
        // SAFETY: AVX is there by contract.
        unsafe { avx2::total(sum) }
    }
}

/// Sums of four products of (signed bytes + 128) with signed bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512vnni")]
fn multiply_bytes(w: __m256i, x: __m256i) -> __m256i {
    let above = _mm256_xor_si256(w, _mm256_set1_epi8(i8::MIN));
    _mm256_dpbusd_epi32(_mm256_setzero_si256(), above, x)
}

impl Integers for Q4Vnni {
    type Partial = __m256i;
    type Four = __m128;
    const OFFSET: i32 = 8;

    #[inline(always)]
    unsafe fn zero() -> __m128 {
        // SAFETY: AVX2 is there by contract.
        unsafe { <Q4 as Integers>::zero() }
    }

    #[inline(always)]
    unsafe fn multiply(w: *const u8, x: *const u8) -> __m256i {
        // SAFETY: the caller vouches for 16 bytes.
        let w = unsafe { _mm_loadu_si128(w.cast()) };
        // SAFETY: the caller vouches for 32 bytes.
        let x = unsafe { _mm256_loadu_si256(x.cast()) };
        // SAFETY: AVX2, AVX-512 VL and VNNI are there by contract.
        unsafe { multiply_halves(w, x) }
    }

    #[inline(always)]
    unsafe fn add(sum: __m128, products: [__m256i; STEP], step: &Step<'_>) -> __m128 {
        // SAFETY: AVX2, FMA and F16C are there by contract.
        unsafe { avx2::add_blocks(sum, products, Self::OFFSET, step) }
    }

    #[inline(always)]
    unsafe fn total(sum: __m128) -> f32 {
        // SAFETY: AVX is there by contract.
        unsafe { avx2::total(sum) }
    }
}

/// Sums of four products of halves of bytes, 0 to 15, with signed bytes.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512vl,avx512vnni")]
fn multiply_halves(w: __m128i, x: __m256i) -> __m256i {
    let [low, high] = avx2::split_halves(w);
    _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set_m128i(high, low), x)
}

/// [`vector::dot`] of this instruction set.
///
/// # Safety
/// AVX2, FMA, F16C; AVX-512 F, BW, DQ and VL.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn dot<W: Load<__m512>>(x: &Input<'_>, w: &[u8]) -> f32 {
    // SAFETY: the instruction set is there by contract.
    unsafe { vector::dot::<__m512, W>(x.values, w) }
}

/// [`vector::add_scaled`] of this instruction set.
///
/// # Safety
/// As [`dot`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn add_scaled<W: Load<__m512>>(scale: f32, w: &[u8], y: &mut [f32]) {
    // SAFETY: the instruction set is there by contract.
    unsafe { vector::add_scaled::<__m512, W>(scale, w, y) }
}

/// [`integer::dot`] of this instruction set.
///
/// # Safety
/// As [`dot`], and AVX512_VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn dot_vnni<W: Integers>(x: &Input<'_>, w: &[u8]) -> f32 {
    // SAFETY: the instruction set is there by contract.
    unsafe { integer::dot::<W>(x, w) }
}

/// The dot product with both halves of what each value was split into.
///
/// # Safety
/// As [`dot`], and AVX512_BF16.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) unsafe fn dot_bf16(x: &Input<'_>, w: &[u8]) -> f32 {
    let load = |bytes: &[u8; 64]| -> __m512bh {
        // SAFETY: the array holds 64 bytes; no alignment is needed.
        let loaded: __m512i = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
        // SAFETY: both are 64 bytes without invalid values.
        unsafe { core::mem::transmute(loaded) }
    };
    let (first, second) = x.prepared.split_at(x.prepared.len() / 2);
    let (first, second, w) =
        (first.as_chunks::<64>().0, second.as_chunks::<64>().0, w.as_chunks::<64>().0);
    let add = |sums: [__m512; 2], block: usize| {
        let w = load(&w[block]);
        let upper = _mm512_dpbf16_ps(sums[0], load(&first[block]), w);
        [upper, _mm512_dpbf16_ps(sums[1], load(&second[block]), w)]
    };
    let mut sums = [[_mm512_setzero_ps(); 2]; 2];
    let blocks = w.len().min(first.len()).min(second.len());
    for pair in 0..blocks / 2 {
        sums = [add(sums[0], 2 * pair), add(sums[1], 2 * pair + 1)];
    }
    if blocks % 2 == 1 {
        sums[0] = add(sums[0], blocks - 1);
    }
    sum(sums)
}
