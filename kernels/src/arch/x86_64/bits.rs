//! Codes of few bits, as twice what they are, times bytes: `w = d * (2 c - (2^K - 1))`.

use core::arch::x86_64::{
    __m128, __m128i, __m256i, _mm_and_si128, _mm_loadl_epi64, _mm_loadu_si128, _mm_set1_epi8,
    _mm_slli_epi16, _mm_srli_epi16, _mm_unpackhi_epi8, _mm_unpacklo_epi8, _mm256_add_epi32,
    _mm256_and_si256, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_set_m128i, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_set1_epi64x, _mm256_setr_epi8, _mm256_shuffle_epi8, _mm256_xor_si256,
};

use super::avx2::{multiply_signed, sums};
use crate::arch::quad::Apart;
use crate::arch::vector::{Bits, Stored};
use crate::input::STEP;

/// A block of codes times a block of bytes.
pub(super) trait Codes: Stored {
    /// As [`Apart::OFFSET`].
    const OFFSET: i32;

    /// Sums of four products of numbers that lie [`Codes::OFFSET`] above what they mean, with signed bytes,
    /// none of which is -128.
    ///
    /// # Safety
    /// AVX2 is there, and `BLOCK_BYTES - SCALE_BYTES` bytes can be read at `codes`.
    unsafe fn multiply(codes: *const u8, x: __m256i) -> __m256i;
}

impl<const K: usize> Apart for Bits<K>
where
    Self: Codes,
{
    type Four = __m128;
    const OFFSET: i32 = <Self as Codes>::OFFSET;

    #[inline(always)]
    unsafe fn multiply(w: [*const u8; STEP], x: *const u8) -> __m128i {
        // SAFETY: the caller vouches for 32 bytes.
        let x = unsafe { _mm256_loadu_si256(x.cast()) };
        let block = |w: *const u8| {
            // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches, and the
            // codes are those of one of its four blocks.
            unsafe { <Self as Codes>::multiply(w.wrapping_add(Self::SCALE_BYTES), x) }
        };
        // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
        unsafe { sums([block(w[0]), block(w[1]), block(w[2]), block(w[3])]) }
    }
}

impl Codes for Bits<1> {
    const OFFSET: i32 = 1;

    #[inline(always)]
    unsafe fn multiply(codes: *const u8, x: __m256i) -> __m256i {
        // SAFETY: the caller vouches for four bytes; an array of bytes needs no alignment.
        let codes = unsafe { codes.cast::<[u8; 4]>().read() };
        // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
        let codes = unsafe { double_1(codes) };
        // SAFETY: the same.
        unsafe { multiply_unsigned(codes, x) }
    }
}

impl Codes for Bits<2> {
    const OFFSET: i32 = 3;

    #[inline(always)]
    unsafe fn multiply(codes: *const u8, x: __m256i) -> __m256i {
        // SAFETY: the caller vouches for eight bytes; no alignment is needed.
        let codes = unsafe { _mm_loadl_epi64(codes.cast()) };
        // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
        let codes = unsafe { double_2(codes) };
        // SAFETY: the same.
        unsafe { multiply_unsigned(codes, x) }
    }
}

impl Codes for Bits<4> {
    const OFFSET: i32 = 15;

    #[inline(always)]
    unsafe fn multiply(codes: *const u8, x: __m256i) -> __m256i {
        // SAFETY: the caller vouches for sixteen bytes; no alignment is needed.
        let codes = unsafe { _mm_loadu_si128(codes.cast()) };
        // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
        let codes = unsafe { double_4(codes) };
        // SAFETY: the same.
        unsafe { multiply_unsigned(codes, x) }
    }
}

/// Twice a code fits no byte: 128 less are multiplied, and the products doubled.
impl Codes for Bits<8> {
    const OFFSET: i32 = 255 - 2 * 128;

    #[inline(always)]
    unsafe fn multiply(codes: *const u8, x: __m256i) -> __m256i {
        // SAFETY: the caller vouches for 32 bytes; no alignment is needed.
        let codes = unsafe { _mm256_loadu_si256(codes.cast()) };
        // SAFETY: AVX2 is of the instruction set for which the caller of this method vouches.
        unsafe { multiply_double(codes, x) }
    }
}

/// 32 codes of one bit, doubled.
#[inline]
#[target_feature(enable = "avx2")]
fn double_1(codes: [u8; 4]) -> __m256i {
    // each byte eight times, of which each looks at its own bit
    let all = _mm256_set1_epi32(i32::from_le_bytes(codes));
    let eight_times = _mm256_setr_epi8(
        0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3,
        3, 3,
    );
    let bits = _mm256_set1_epi64x(i64::from_le_bytes([1, 2, 4, 8, 16, 32, 64, 128]));
    let own = _mm256_and_si256(_mm256_shuffle_epi8(all, eight_times), bits);
    _mm256_and_si256(_mm256_cmpeq_epi8(own, bits), _mm256_set1_epi8(2))
}

/// 32 codes of two bits in the lower eight bytes, doubled.
#[inline]
#[target_feature(enable = "avx2")]
fn double_2(codes: __m128i) -> __m256i {
    // nibbles first, which hold two codes each
    let mask = _mm_set1_epi8(15);
    let low = _mm_and_si128(codes, mask);
    let high = _mm_and_si128(_mm_srli_epi16::<4>(codes), mask);
    let pairs = _mm_unpacklo_epi8(low, high);
    let mask = _mm_set1_epi8(6);
    let first = _mm_and_si128(_mm_slli_epi16::<1>(pairs), mask);
    let second = _mm_and_si128(_mm_srli_epi16::<1>(pairs), mask);
    _mm256_set_m128i(_mm_unpackhi_epi8(first, second), _mm_unpacklo_epi8(first, second))
}

/// 32 codes of four bits, doubled.
#[inline]
#[target_feature(enable = "avx2")]
fn double_4(codes: __m128i) -> __m256i {
    let mask = _mm_set1_epi8(30);
    let first = _mm_and_si128(_mm_slli_epi16::<1>(codes), mask);
    let second = _mm_and_si128(_mm_srli_epi16::<3>(codes), mask);
    _mm256_set_m128i(_mm_unpackhi_epi8(first, second), _mm_unpacklo_epi8(first, second))
}

/// Sums of four products of numbers up to 30 with signed bytes: two fit 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply_unsigned(w: __m256i, x: __m256i) -> __m256i {
    _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1))
}

/// Twice the sums of four products of (bytes - 128) with signed bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply_double(codes: __m256i, x: __m256i) -> __m256i {
    let products = multiply_signed(_mm256_xor_si256(codes, _mm256_set1_epi8(i8::MIN)), x);
    _mm256_add_epi32(products, products)
}
