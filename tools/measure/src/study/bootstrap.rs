//! How far a mean would differ on another text of the same kind: the bootstrap over blocks of
//! neighbouring tokens, which are alike and therefore drawn together.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde::Serialize;

use lnp_common::report::quantile;

/// A value on the text at hand, and the middle and the 5 % and 95 % quantiles over resamples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// On all tokens.
    pub value: f64,
    /// Middle of the resamples.
    pub median: f64,
    /// 5 % of the resamples are at or below.
    pub p5: f64,
    /// 95 % of the resamples are at or below.
    pub p95: f64,
}

/// Which blocks each resample consists of; the same for all cells of a test, so that two orders are
/// compared on the same text.
pub struct Resamples {
    /// Resample by resample, as many as there are blocks.
    blocks: Vec<Vec<usize>>,
}

impl Resamples {
    /// `count` resamples with replacement, the same for the same seed. Of texts of so many blocks, one
    /// after the other, each gives as many blocks to a resample as it has.
    pub fn new(blocks_of_texts: &[usize], count: usize, seed: u64) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut resample = |_| {
            let (mut drawn, mut first) = (Vec::new(), 0);
            for blocks in blocks_of_texts {
                // The high half of draw * blocks; its bias is under 2^-32.
                let mut draw =
                    || ((u128::from(random.next_u64()) * *blocks as u128) >> 64) as usize;
                drawn.extend((0..*blocks).map(|_| first + draw()));
                first += blocks;
            }
            drawn
        };
        Self { blocks: (0..count).map(&mut resample).collect() }
    }

    /// The ratio of two sums over the same blocks: a mean is time over tokens.
    pub fn ratio(&self, above: &[f64], below: &[f64]) -> Spread {
        let of = |above: f64, below: f64| if below > 0.0 { above / below } else { 1.0 };
        let resampled = |blocks: &Vec<usize>| {
            let sum = |values: &[f64]| blocks.iter().map(|block| values[*block]).sum();
            of(sum(above), sum(below))
        };
        let mut ratios: Vec<f64> = self.blocks.iter().map(resampled).collect();
        Spread {
            value: of(above.iter().sum(), below.iter().sum()),
            median: quantile(&mut ratios, 0.5),
            p5: quantile(&mut ratios, 0.05),
            p95: quantile(&mut ratios, 0.95),
        }
    }
}
