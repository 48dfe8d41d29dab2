//! x86-64 with AVX2, FMA and F16C: eight lanes, four accumulators (FMA takes four cycles).

use core::arch::x86_64::{
    __m256, _mm_loadu_si128, _mm256_add_ps, _mm256_castps256_ps128, _mm256_cvtph_ps,
    _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_storeu_ps,
};
use core::arch::x86_64::{_mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_shuffle_ps};

/// Lanes of a vector.
const LANES: usize = 8;
/// Weights of one step of a loop; hidden sizes are multiples of it.
const STEP: usize = 32;

/// How eight weights become eight f32.
trait Weight {
    /// Bytes of one weight.
    const BYTES: usize;
    /// # Safety
    /// `bytes` may be read for `8 * BYTES` bytes; AVX2 and F16C are there.
    unsafe fn load(bytes: *const u8) -> __m256;
}

struct WeightF32;
impl Weight for WeightF32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load(bytes: *const u8) -> __m256 {
        // SAFETY: the caller vouches for 32 readable bytes and AVX; the load needs no alignment.
        unsafe { _mm256_loadu_ps(bytes.cast()) }
    }
}

struct WeightF16;
impl Weight for WeightF16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load(bytes: *const u8) -> __m256 {
        // SAFETY: the caller vouches for 16 readable bytes; the load needs no alignment.
        let halves = unsafe { _mm_loadu_si128(bytes.cast()) };
        // SAFETY: the caller vouches for F16C; no memory is touched.
        unsafe { _mm256_cvtph_ps(halves) }
    }
}

/// # Safety
/// AVX2, FMA, F16C; `w` holds `x.len()` weights, a multiple of [`STEP`].
#[inline(always)]
unsafe fn dot<W: Weight>(x: &[f32], w: &[u8]) -> f32 {
    // SAFETY: AVX is there, by contract.
    let mut sums = [unsafe { _mm256_setzero_ps() }; STEP / LANES];
    for (x, w) in x.chunks_exact(STEP).zip(w.chunks_exact(STEP * W::BYTES)) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            let at = lane * LANES;
            // SAFETY: `at + 8 <= 32` weights of `w`'s chunk; features by contract.
            let w = unsafe { W::load(w.as_ptr().wrapping_add(at * W::BYTES)) };
            // SAFETY: `at + 8 <= 32` values of `x`'s chunk; no alignment needed.
            let x = unsafe { _mm256_loadu_ps(x.as_ptr().wrapping_add(at)) };
            // SAFETY: FMA is there, by contract.
            *sum = unsafe { _mm256_fmadd_ps(w, x, *sum) };
        }
    }
    // SAFETY: AVX is there, by contract.
    unsafe { reduce(sums) }
}

/// Sum of all lanes, always in the same order.
///
/// # Safety
/// AVX is there.
#[target_feature(enable = "avx")]
unsafe fn reduce(sums: [__m256; STEP / LANES]) -> f32 {
    let eight = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// # Safety
/// AVX2, FMA, F16C; `w` holds `y.len()` weights, a multiple of [`LANES`].
#[inline(always)]
unsafe fn add_scaled<W: Weight>(scale: f32, w: &[u8], y: &mut [f32]) {
    // SAFETY: AVX is there, by contract.
    let scale = unsafe { _mm256_set1_ps(scale) };
    for (y, w) in y.chunks_exact_mut(LANES).zip(w.chunks_exact(LANES * W::BYTES)) {
        // SAFETY: the chunk holds 8 weights; features by contract.
        let w = unsafe { W::load(w.as_ptr()) };
        // SAFETY: the chunk holds 8 values; no alignment needed.
        let sum = unsafe { _mm256_loadu_ps(y.as_ptr()) };
        // SAFETY: FMA is there, by contract.
        let sum = unsafe { _mm256_fmadd_ps(scale, w, sum) };
        // SAFETY: the chunk holds 8 values and is ours to write; no alignment needed.
        unsafe { _mm256_storeu_ps(y.as_mut_ptr(), sum) };
    }
}

/// The shell for f32: [`dot`].
///
/// # Safety
/// As [`dot`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn dot_f32(x: &[f32], w: &[u8]) -> f32 {
    // SAFETY: the caller's contract is the same.
    unsafe { dot::<WeightF32>(x, w) }
}

/// The shell for f16: [`dot`].
///
/// # Safety
/// As [`dot`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn dot_f16(x: &[f32], w: &[u8]) -> f32 {
    // SAFETY: the caller's contract is the same.
    unsafe { dot::<WeightF16>(x, w) }
}

/// The shell for f32: [`add_scaled`].
///
/// # Safety
/// As [`add_scaled`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn add_scaled_f32(scale: f32, w: &[u8], y: &mut [f32]) {
    // SAFETY: the caller's contract is the same.
    unsafe { add_scaled::<WeightF32>(scale, w, y) }
}

/// The shell for f16: [`add_scaled`].
///
/// # Safety
/// As [`add_scaled`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn add_scaled_f16(scale: f32, w: &[u8], y: &mut [f32]) {
    // SAFETY: the caller's contract is the same.
    unsafe { add_scaled::<WeightF16>(scale, w, y) }
}
