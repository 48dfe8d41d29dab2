//! x86-64 with AVX-512 (F, BW, DQ, VL): sixteen lanes; with dot products of bf16 and of bytes where
//! the CPU has them.

use core::arch::x86_64::{
    __m128, __m128i, __m256i, __m512, __m512bh, __m512i, _mm_loadu_si128, _mm256_dpbusd_epi32,
    _mm256_loadu_si256, _mm256_set1_epi8, _mm256_setzero_si256, _mm256_xor_si256, _mm512_add_epi32,
    _mm512_add_ps, _mm512_and_si512, _mm512_castsi128_si512, _mm512_castsi512_ps,
    _mm512_castsi512_si128, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32,
    _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_dpbf16_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_inserti32x4, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_permutexvar_epi32,
    _mm512_permutexvar_ps, _mm512_reduce_add_ps, _mm512_set1_epi8, _mm512_set1_ps,
    _mm512_setr_epi32, _mm512_setr_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_shuffle_epi32, _mm512_slli_epi32, _mm512_srli_epi16, _mm512_srli_epi32,
    _mm512_storeu_ps,
};

use super::avx2;
use crate::arch::Ahead;
use crate::arch::integer::{self, Integers};
use crate::arch::quad::Apart;
use crate::arch::vector::{self, Bf16, F16, F32, Load, Q4, Q8, Stored, Vector};
use crate::dtype::BLOCK;
use crate::input::{Input, STEP};

impl Vector for __m512 {
    const LANES: usize = 16;
    type Block = [Self; 2];

    #[inline(always)]
    unsafe fn zeros() -> Self::Block {
        // SAFETY: AVX-512 is of the instruction set for which the caller of this method vouches.
        [unsafe { _mm512_setzero_ps() }; 2]
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: AVX-512 is of the instruction set for which the caller of this method vouches.
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
        // SAFETY: AVX-512 is of the instruction set for which the caller of this method vouches.
        unsafe { _mm512_fmadd_ps(self, factor, sum) }
    }

    #[inline(always)]
    unsafe fn sum(blocks: [Self::Block; 2]) -> f32 {
        // SAFETY: AVX-512 is of the instruction set for which the caller of this method vouches.
        unsafe { sum(blocks) }
    }

    #[inline(always)]
    unsafe fn widen(half: u16) -> f32 {
        // SAFETY: F16C is of the instruction set for which the caller of this method vouches.
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
            // SAFETY: AVX-512 is of the instruction set for which the caller of this method
            // vouches.
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
            // SAFETY: AVX-512 is of the instruction set for which the caller of this method
            // vouches.
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
            // SAFETY: AVX-512 is of the instruction set for which the caller of this method
            // vouches.
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
        // SAFETY: AVX-512 is of the instruction set for which the caller of this method vouches.
        unsafe { widen_nibbles(bytes) }
    }
}

/// Nibbles, less 8, as f32: the lower ones first. Looked up in a table, by the lowest four
/// bits of each lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn widen_nibbles(bytes: __m128i) -> [__m512; 2] {
    let table = _mm512_setr_ps(
        -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0,
    );
    let bytes = _mm512_cvtepu8_epi32(bytes);
    let look_up = |lanes| _mm512_permutexvar_ps(lanes, table);
    [look_up(bytes), look_up(_mm512_srli_epi32::<4>(bytes))]
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
    type Four = __m128;
    const OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn multiply(w: *const u8, x: *const u8) -> __m128i {
        let block = |at: usize| {
            let w = w.wrapping_add(at * Self::BLOCK_BYTES + Self::SCALE_BYTES);
            // SAFETY: the numbers of one of four blocks, for which the caller vouches.
            let w = unsafe { _mm256_loadu_si256(w.cast()) };
            // SAFETY: 32 of the 128 bytes for which the caller vouches.
            let x = unsafe { _mm256_loadu_si256(x.wrapping_add(at * BLOCK).cast()) };
            // SAFETY: AVX-512 VL and VNNI are what this type needs, for which the caller of this
            // method vouches.
            unsafe { multiply_bytes(w, x) }
        };
        // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
        unsafe { avx2::sums([block(0), block(1), block(2), block(3)]) }
    }
}

impl Apart for Q8Vnni {
    type Four = __m128;
    const OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn multiply(w: [*const u8; STEP], x: *const u8) -> __m128i {
        // SAFETY: the caller vouches for 32 bytes.
        let x = unsafe { _mm256_loadu_si256(x.cast()) };
        let block = |w: *const u8| {
            // SAFETY: the numbers of one of four blocks, for which the caller vouches.
            let w = unsafe { _mm256_loadu_si256(w.wrapping_add(Self::SCALE_BYTES).cast()) };
            // SAFETY: AVX-512 VL and VNNI are what this type needs, for which the caller of this
            // method vouches.
            unsafe { multiply_bytes(w, x) }
        };
        // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
        unsafe { avx2::sums([block(w[0]), block(w[1]), block(w[2]), block(w[3])]) }
    }
}

/// Sums of four products of (signed bytes + 128) with signed bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512vnni")]
fn multiply_bytes(w: __m256i, x: __m256i) -> __m256i {
    let above = _mm256_xor_si256(w, _mm256_set1_epi8(i8::MIN));
    _mm256_dpbusd_epi32(_mm256_setzero_si256(), above, x)
}

/// The input has the first halves of four blocks side by side, then the second halves: as four
/// blocks of weights have them in one register, in the halves of its bytes.
impl Integers for Q4Vnni {
    type Four = __m128;
    const OFFSET: i32 = 8;

    #[inline(always)]
    unsafe fn multiply(w: *const u8, x: *const u8) -> __m128i {
        let block = |at: usize| {
            let w = w.wrapping_add(at * Self::BLOCK_BYTES + Self::SCALE_BYTES);
            // SAFETY: the numbers of one of four blocks, for which the caller vouches.
            unsafe { _mm_loadu_si128(w.cast()) }
        };
        // SAFETY: the first half of the 128 bytes for which the caller vouches.
        let first = unsafe { _mm512_loadu_si512(x.cast()) };
        // SAFETY: the second half.
        let second = unsafe { _mm512_loadu_si512(x.wrapping_add(64).cast()) };
        // SAFETY: AVX-512 and VNNI are what this type needs, for which the caller of this method
        // vouches.
        let products =
            unsafe { multiply_nibbles([block(0), block(1), block(2), block(3)], [first, second]) };
        // SAFETY: AVX-512 is of the instruction set for which the caller of this method vouches.
        unsafe { sum_of_each(products) }
    }
}

/// Sums of eight products of nibbles, 0 to 15, with signed bytes: four for each block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn multiply_nibbles(w: [__m128i; 4], [first, second]: [__m512i; 2]) -> __m512i {
    let two = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(w[0]), w[1]);
    let w = _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(two, w[2]), w[3]);
    let mask = _mm512_set1_epi8(15);
    let (low, high) =
        (_mm512_and_si512(w, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(w), mask));
    _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), low, first), high, second)
}

/// The sums of each four lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn sum_of_each(products: __m512i) -> __m128i {
    let swapped = _mm512_shuffle_epi32::<0b10_11_00_01>(products);
    let pairs = _mm512_add_epi32(products, swapped);
    let swapped = _mm512_shuffle_epi32::<0b01_00_11_10>(pairs);
    let sums = _mm512_add_epi32(pairs, swapped);
    let first_of_each = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm512_castsi512_si128(_mm512_permutexvar_epi32(first_of_each, sums))
}

/// [`vector::dot`] of this instruction set.
///
/// # Safety
/// AVX2, FMA, F16C; AVX-512 F, BW, DQ and VL.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn dot<W: Load<__m512>>(x: &Input<'_>, w: &[u8], ahead: Ahead) -> f32 {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { vector::dot::<__m512, W>(x.values, w, ahead) }
}

/// [`vector::add_scaled`] of this instruction set.
///
/// # Safety
/// As [`dot`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn add_scaled<W: Load<__m512>>(
    scale: f32,
    w: &[u8],
    y: &mut [f32],
    ahead: Ahead,
) {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { vector::add_scaled::<__m512, W>(scale, w, y, ahead) }
}

/// [`integer::dot`] of this instruction set.
///
/// # Safety
/// As [`dot`], and AVX512_VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn dot_vnni<W: Integers>(x: &Input<'_>, w: &[u8], ahead: Ahead) -> f32 {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { integer::dot::<W>(x, w, ahead) }
}

/// The dot product with both halves of what each value was split into.
///
/// # Safety
/// As [`dot`], and AVX512_BF16.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) unsafe fn dot_bf16(x: &Input<'_>, w: &[u8], ahead: Ahead) -> f32 {
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
        ahead.ask(w[2 * pair].as_ptr(), 128);
        sums = [add(sums[0], 2 * pair), add(sums[1], 2 * pair + 1)];
    }
    if blocks % 2 == 1 {
        sums[0] = add(sums[0], blocks - 1);
    }
    sum(sums)
}
