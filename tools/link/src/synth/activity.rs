//! The real bits as they would be at another mean activity.
//!
//! The odds of every neuron's frequency are multiplied by one factor, the same for all layers. Which
//! of a neuron's firings stay (or where it fires besides) is told by how many of its kin fire too:
//! a stand-in for the activations, of which a trace keeps the signs only. Kin alone would make pairs
//! too strong, chance alone too weak; the noise here lies where a Gaussian copula says they belong.

use anyhow::{Result, ensure};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng;

use super::kin::Kin;
use crate::LayerActivity;

/// Uniform noise added to the share of kin that fire. A copula keeps its correlations when the
/// thresholds move; with this much noise the best partners' strength comes within about a tenth of
/// what it then predicts, for odds of 0.4 and of 2 (`docs/synth.md`).
const NOISE: f32 = 0.75;

/// A factor on the odds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rescale {
    odds: f64,
}

impl Rescale {
    /// Everything stays as it is.
    pub const NONE: Self = Self { odds: 1.0 };

    /// The factor that brings the mean frequency of neurons to `mean`; `counts` are the tokens in
    /// which each neuron of each layer fires, of `tokens`.
    ///
    /// # Errors
    /// Too many neurons never fire for that mean.
    pub fn to_mean(counts: &[Vec<u32>], tokens: u64, mean: f64) -> Result<Self> {
        let neurons: usize = counts.iter().map(Vec::len).sum();
        let mean_at = |odds: f64| {
            let rescale = Self { odds };
            let of = |count: &u32| rescale.frequency(f64::from(*count) / tokens as f64);
            counts.iter().flatten().map(of).sum::<f64>() / neurons as f64
        };
        // By halves of the factor's logarithm; 2^40 is beyond any frequency a trace can show.
        let (mut low, mut high) = (-40.0f64, 40.0f64);
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if mean_at(middle.exp2()) < mean { low = middle } else { high = middle }
        }
        let odds = f64::midpoint(low, high).exp2();
        ensure!(
            (mean_at(odds) - mean).abs() < mean * 1e-3,
            "--active {mean}: neurons that never fire in the traces cannot be made to; at most {:.3} \
             can be reached",
            mean_at(high.exp2())
        );
        Ok(Self { odds })
    }

    /// A frequency with its odds multiplied.
    pub fn frequency(&self, frequency: f64) -> f64 {
        let scaled = frequency * self.odds;
        scaled / (1.0 - frequency + scaled)
    }

    /// Changes the bits of a layer, a row a token.
    ///
    /// # Errors
    /// Bits that do not fit the number of neurons.
    pub fn apply(
        &self,
        bits: &mut [u8],
        neurons: usize,
        mut random: Xoshiro256PlusPlus,
    ) -> Result<()> {
        if *self == Self::NONE {
            return Ok(());
        }
        let row_bytes = neurons.div_ceil(8);
        let tokens = bits.len() / row_bytes;
        let activity = LayerActivity::from_bits(neurons, &[(bits, tokens)])?;
        let kin = Kin::of(&activity);
        let fires = |row: &[u64], token: usize| row[token / 64] >> (token % 64) & 1 == 1;
        let mut scores: Vec<(f32, u32)> = Vec::with_capacity(tokens);
        for neuron in 0..neurons {
            let own = activity.row(neuron);
            let total: f32 = kin.best[neuron].iter().map(|(_, index)| index).sum();
            scores.clear();
            scores.extend((0..tokens as u32).map(|token| {
                let unit = (random.next_u64() >> 40) as f32 / (1u64 << 24) as f32;
                (unit * NOISE + 2.0 * f32::from(u8::from(fires(own, token as usize))), token)
            }));
            for (other, index) in &kin.best[neuron] {
                let row = activity.row(*other as usize);
                for (score, token) in &mut scores {
                    if fires(row, *token as usize) {
                        *score += index / total;
                    }
                }
            }
            let frequency = f64::from(activity.count(neuron)) / tokens as f64;
            let wanted = (self.frequency(frequency) * tokens as f64).round() as usize;
            if wanted > 0 && wanted < tokens {
                scores
                    .select_nth_unstable_by(wanted, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            }
            for (place, (_, token)) in scores.iter().enumerate() {
                let byte = &mut bits[*token as usize * row_bytes + neuron / 8];
                let bit = 1 << (neuron % 8);
                *byte = if place < wanted { *byte | bit } else { *byte & !bit };
            }
        }
        Ok(())
    }
}
