//! Work on many bits at once: squares of bits turned, and numbers kept as bit planes.
//!
//! A *plane* holds one binary digit of as many numbers as it has bits. Adding a vector of bits to
//! such numbers takes five logic operations for a whole vector (two with AVX-512), whatever its
//! length, so counting in planes beats counting in bytes or words by far. The vectors are pulp's:
//! it finds out at run time what the CPU has, without `unsafe` here.

use pulp::Simd;

/// Turns a square of bits: bit c of word r becomes bit r of word c.
pub(super) fn transpose(square: &mut [u64; 64]) {
    swap_blocks::<32>(square, 0x0000_0000_ffff_ffff);
    swap_blocks::<16>(square, 0x0000_ffff_0000_ffff);
    swap_blocks::<8>(square, 0x00ff_00ff_00ff_00ff);
    swap_blocks::<4>(square, 0x0f0f_0f0f_0f0f_0f0f);
    swap_blocks::<2>(square, 0x3333_3333_3333_3333);
    swap_blocks::<1>(square, 0x5555_5555_5555_5555);
}

/// Swaps the upper right with the lower left block of every square of 2 * `SIZE` bits.
#[inline(always)]
fn swap_blocks<const SIZE: usize>(square: &mut [u64; 64], low: u64) {
    for pair in square.chunks_exact_mut(2 * SIZE) {
        let (upper, lower) = pair.split_at_mut(SIZE);
        for (a, b) in upper.iter_mut().zip(lower) {
            let differ = ((*a >> SIZE) ^ *b) & low;
            *b ^= differ;
            *a ^= differ << SIZE;
        }
    }
}

/// Turns every 8 x 8 square of eight planes: bit c of byte k of word p (in each lane) becomes bit p
/// of byte k of word c. So byte k of word c is the number whose digits lay in bit c of byte k.
#[inline(always)]
pub(super) fn planes_to_bytes<const LANES: usize>(planes: &mut [[u64; LANES]; 8]) {
    for (step, low) in
        [(4, 0x0f0f_0f0f_0f0f_0f0f), (2, 0x3333_3333_3333_3333), (1, 0x5555_5555_5555_5555_u64)]
    {
        for at in (0..8).filter(|at| at & step == 0) {
            let (upper, lower) = planes.split_at_mut(at + step);
            for (a, b) in upper[at].iter_mut().zip(&mut lower[0]) {
                let differ = ((*a >> step) ^ *b) & low;
                *b ^= differ;
                *a ^= differ << step;
            }
        }
    }
}

/// Adds two vectors of bits to a plane and returns what is carried to the next.
#[inline(always)]
pub(super) fn add_two<S: Simd>(simd: S, plane: &mut S::u64s, a: S::u64s, b: S::u64s) -> S::u64s {
    let one = simd.xor_u64s(a, b);
    let carry = simd.or_u64s(simd.and_u64s(a, b), simd.and_u64s(one, *plane));
    *plane = simd.xor_u64s(one, *plane);
    carry
}

/// Adds a vector of bits to a plane and returns what is carried to the next.
#[inline(always)]
pub(super) fn add_one<S: Simd>(simd: S, plane: &mut S::u64s, a: S::u64s) -> S::u64s {
    let carry = simd.and_u64s(*plane, a);
    *plane = simd.xor_u64s(*plane, a);
    carry
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn squares_are_turned(words in prop::collection::vec(any::<u64>(), 64)) {
            let mut square: [u64; 64] = words.clone().try_into().unwrap();
            transpose(&mut square);
            for (r, word) in words.iter().enumerate() {
                for (c, turned) in square.iter().enumerate() {
                    prop_assert_eq!(word >> c & 1, turned >> r & 1);
                }
            }
        }

        #[test]
        fn planes_become_bytes(words in prop::collection::vec(any::<[u64; 3]>(), 8)) {
            let mut planes: [[u64; 3]; 8] = words.clone().try_into().unwrap();
            planes_to_bytes(&mut planes);
            for lane in 0..3 {
                for (c, byte) in (0..8).flat_map(|c| (0..8).map(move |k| (c, k))) {
                    let digit = |p: usize| words[p][lane] >> (8 * byte + c) & 1;
                    let number: u64 = (0..8).map(|p| digit(p) << p).sum();
                    prop_assert_eq!(planes[c][lane] >> (8 * byte) & 255, number);
                }
            }
        }
    }
}
