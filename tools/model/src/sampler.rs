//! Which token comes next.

use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// How the next token is chosen.
#[derive(Debug)]
pub enum Sampler {
    /// The most likely one.
    Greedy,
    /// By chance, from the softmax of logits / temperature.
    Temperature {
        /// Above 0; the lower, the closer to greedy.
        temperature: f64,
        /// The source of chance.
        random: Xoshiro256PlusPlus,
    },
}

impl Sampler {
    /// Greedy for temperature 0, else seeded chance.
    ///
    /// # Errors
    /// A temperature that is negative or not a number.
    pub fn new(temperature: f64, seed: u64) -> Result<Self> {
        ensure!(
            temperature >= 0.0 && temperature.is_finite(),
            "a temperature of {temperature}: must be 0 or more"
        );
        if temperature == 0.0 {
            return Ok(Self::Greedy);
        }
        Ok(Self::Temperature { temperature, random: Xoshiro256PlusPlus::seed_from_u64(seed) })
    }

    /// Chooses a token.
    ///
    /// # Errors
    /// Logits that are empty or not numbers.
    pub fn choose(&mut self, logits: &[f32]) -> Result<u32> {
        let mut best = 0;
        for (token, logit) in logits.iter().enumerate() {
            ensure!(
                !logit.is_nan(),
                "the model's logits are not numbers: is the checkpoint damaged?"
            );
            if *logit > logits[best] {
                best = token;
            }
        }
        let top = f64::from(*logits.get(best).context("a model without a vocabulary")?);
        let Self::Temperature { temperature, random } = self else { return Ok(best as u32) };
        let weight = |logit: &f32| ((f64::from(*logit) - top) / *temperature).exp();
        let total: f64 = logits.iter().map(weight).sum();
        let mut left = random.random::<f64>() * total;
        for (token, logit) in logits.iter().enumerate() {
            left -= weight(logit);
            if left < 0.0 {
                return Ok(token as u32);
            }
        }
        Ok(best as u32)
    }
}
