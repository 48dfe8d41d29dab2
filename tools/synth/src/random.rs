//! Random numbers: streams that can be begun anywhere, and normal ones from a table.

use std::sync::LazyLock;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::activity::normal_quantile;

/// Bits of a draw that choose one normal number: five of a word of 64.
const BITS: u32 = 12;
const NUMBERS: usize = 1 << BITS;

/// The middle quantiles of as many equal parts of the normal distribution, scaled to variance 1. No weight then
/// lies further out than 3.5 deviations, and drawing one costs a look into 16 KiB.
static NORMAL: LazyLock<Box<[f32; NUMBERS]>> = LazyLock::new(|| {
    let mut numbers = Box::new([0.0; NUMBERS]);
    let middle = |part: usize| normal_quantile((part as f64 + 0.5) / NUMBERS as f64);
    let variance =
        (0..NUMBERS).map(|part| middle(part) * middle(part)).sum::<f64>() / NUMBERS as f64;
    for (part, number) in numbers.iter_mut().enumerate() {
        *number = (middle(part) / variance.sqrt()) as f32;
    }
    numbers
});

/// What a stream is for: streams of different purposes never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Weights of a tensor, by the tensor's name and the row.
    Weights,
    /// Signs of a rotation.
    Rotation,
    /// What is a token's own, by its place in the cycle.
    Code,
    /// What hangs together with its neighbours, by the place.
    Latents,
    /// What changes slowly, by the stretch.
    Topic,
    /// The direction of a cluster of neurons, by layer and cluster.
    Cluster,
    /// Cluster and frequency of a layer's neurons.
    Neurons,
    /// Where the columns of a matrix go to, by its name.
    Writing,
    /// Which token a byte is like.
    Bytes,
    /// Texts.
    Text,
}

/// The stream of a purpose and a place in it.
pub(crate) fn stream(seed: u64, purpose: Purpose, place: [u64; 2]) -> Xoshiro256PlusPlus {
    let key = [purpose as u64, place[0], place[1]]
        .into_iter()
        .fold(seed, |key, part| mix(key ^ mix(part)));
    Xoshiro256PlusPlus::seed_from_u64(key)
}

/// A number for a name (FNV-1a).
pub(crate) fn named(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finaliser of SplitMix64, with its increment: a bijection without visible pattern.
fn mix(value: u64) -> u64 {
    let mut value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Fills with normal numbers of this deviation.
pub(crate) fn fill_normal(random: &mut Xoshiro256PlusPlus, deviation: f32, out: &mut [f32]) {
    let table = &**NORMAL;
    for five in out.chunks_mut(5) {
        let mut word = random.next_u64();
        for number in five {
            *number = deviation * table[word as usize % NUMBERS];
            word >>= BITS;
        }
    }
}

/// A normal number.
pub(crate) fn normal(random: &mut Xoshiro256PlusPlus) -> f64 {
    f64::from(NORMAL[(random.next_u64() >> (64 - BITS)) as usize])
}

/// A number below `end`; the bias is under `end` / 2^64.
pub(crate) fn below(random: &mut Xoshiro256PlusPlus, end: usize) -> usize {
    ((u128::from(random.next_u64()) * end as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_are_normal() {
        let mut numbers = vec![0.0; 100_003];
        fill_normal(&mut stream(1, Purpose::Weights, [0, 0]), 2.0, &mut numbers);
        let moment = |power: i32| {
            numbers.iter().map(|x| f64::from(*x / 2.0).powi(power)).sum::<f64>()
                / numbers.len() as f64
        };
        for (power, expected) in [(1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)] {
            assert!((moment(power) - expected).abs() < 0.06, "{power}: {}", moment(power));
        }
    }

    #[test]
    fn streams_differ_in_every_part_of_their_names() {
        let first = |seed, purpose, place| stream(seed, purpose, place).next_u64();
        let all = [
            first(0, Purpose::Code, [0, 0]),
            first(1, Purpose::Code, [0, 0]),
            first(0, Purpose::Latents, [0, 0]),
            first(0, Purpose::Code, [1, 0]),
            first(0, Purpose::Code, [0, 1]),
        ];
        for (number, one) in all.iter().enumerate() {
            assert!(!all[..number].contains(one));
        }
        assert_eq!(first(7, Purpose::Code, [3, 4]), first(7, Purpose::Code, [3, 4]));
    }
}
