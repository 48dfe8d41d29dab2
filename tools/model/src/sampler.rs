//! Which token comes next.

use std::collections::VecDeque;

use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// How the next token is chosen: the steps of llama.cpp, in its order. First the penalty, then what `top_k`, `top_p` and
/// `min_p` leave of the tokens, then chance by temperature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 for the most likely token; the higher, the more even are the chances.
    pub temperature: f64,
    /// Only so many of the most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that together have this probability; 1 for all.
    pub top_p: f64,
    /// Only tokens that have this share of the most likely one's probability; 0 for all.
    pub min_p: f64,
    /// Logits of recent tokens are divided by it, negative ones multiplied (arXiv 1909.05858); 1 for none.
    pub repetition_penalty: f64,
    /// How many tokens are recent.
    pub penalty_last: usize,
    /// Seed of chance.
    pub seed: u64,
}

impl Default for Sampling {
    /// The most likely token.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            penalty_last: 64,
            seed: 0,
        }
    }
}

/// Chooses tokens.
#[derive(Debug)]
pub struct Sampler {
    how: Sampling,
    random: Xoshiro256PlusPlus,
    /// The last `penalty_last` tokens of the text, where there is a penalty.
    recent: VecDeque<u32>,
}

impl Sampler {
    /// Always the most likely token.
    pub fn greedy() -> Self {
        let how = Sampling::default();
        let random = Xoshiro256PlusPlus::seed_from_u64(how.seed);
        Self { how, random, recent: VecDeque::new() }
    }

    /// Greedy for temperature 0, else seeded chance among all tokens.
    ///
    /// # Errors
    /// A temperature that is negative or not a number.
    pub fn new(temperature: f64, seed: u64) -> Result<Self> {
        Self::with(Sampling { temperature, seed, ..Sampling::default() })
    }

    /// The same, told all of it.
    ///
    /// # Errors
    /// A number that is none, or outside its range.
    pub fn with(how: Sampling) -> Result<Self> {
        let Sampling { temperature, top_p, min_p, repetition_penalty, .. } = how;
        ensure!(
            temperature >= 0.0 && temperature.is_finite(),
            "a temperature of {temperature}: must be 0 or more"
        );
        ensure!(top_p > 0.0 && top_p <= 1.0, "a top-p of {top_p}: must be above 0, at most 1");
        ensure!((0.0..=1.0).contains(&min_p), "a min-p of {min_p}: must be 0 to 1");
        ensure!(
            repetition_penalty > 0.0 && repetition_penalty.is_finite(),
            "a repetition penalty of {repetition_penalty}: must be above 0, 1 for none"
        );
        let random = Xoshiro256PlusPlus::seed_from_u64(how.seed);
        Ok(Self { how, random, ..Self::greedy() })
    }

    /// Tells it tokens of the text that it did not choose: those of a prompt.
    pub fn saw(&mut self, tokens: &[u32]) {
        if self.how.repetition_penalty == 1.0 {
            return;
        }
        self.recent.extend(tokens);
        let too_many = self.recent.len().saturating_sub(self.how.penalty_last);
        self.recent.drain(..too_many);
    }

    /// Chooses a token.
    ///
    /// # Errors
    /// Logits that are empty or not numbers.
    pub fn choose(&mut self, logits: &[f32]) -> Result<u32> {
        let told = "the model's logits are not numbers: is the checkpoint damaged?";
        ensure!(!logits.iter().any(|logit| logit.is_nan()), told);
        let token = if self.recent.is_empty() {
            self.choose_of(logits)?
        } else {
            self.choose_of(&self.penalised(logits))?
        };
        self.saw(&[token]);
        Ok(token)
    }

    fn choose_of(&mut self, logits: &[f32]) -> Result<u32> {
        if self.how.temperature == 0.0 {
            return most_likely(logits);
        }
        let kept = kept(&self.how, logits);
        let (_, top) = *kept.first().context("a model without a vocabulary")?;
        let weight = |logit: f32| (f64::from(logit - top) / self.how.temperature).exp();
        let total: f64 = kept.iter().map(|(_, logit)| weight(*logit)).sum();
        let mut left = self.random.random::<f64>() * total;
        for (token, logit) in &kept {
            left -= weight(*logit);
            if left < 0.0 {
                return Ok(*token);
            }
        }
        Ok(kept[0].0)
    }

    /// Logits with the penalty on recent tokens.
    fn penalised(&self, logits: &[f32]) -> Vec<f32> {
        let mut penalised = logits.to_vec();
        let penalty = self.how.repetition_penalty as f32;
        for token in &self.recent {
            let at = *token as usize;
            // from the model's own, so that a token that came twice is not punished twice
            if let (Some(value), Some(logit)) = (penalised.get_mut(at), logits.get(at)) {
                *value = if *logit > 0.0 { logit / penalty } else { logit * penalty };
            }
        }
        penalised
    }
}

/// The first of the highest.
fn most_likely(logits: &[f32]) -> Result<u32> {
    let mut best = (0, *logits.first().context("a model without a vocabulary")?);
    for (token, logit) in (0..).zip(logits) {
        if *logit > best.1 {
            best = (token, *logit);
        }
    }
    Ok(best.0)
}

/// The tokens that may come, with their logits: the most likely first.
fn kept(how: &Sampling, logits: &[f32]) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    let by_logit = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if how.top_k > 0 && how.top_k < all.len() {
        all.select_nth_unstable_by(how.top_k - 1, by_logit);
        all.truncate(how.top_k);
    }
    all.sort_unstable_by(by_logit);
    let Some(top) = all.first().map(|(_, logit)| *logit) else { return all };
    let probability = |logit: f32| f64::from(logit - top).exp();
    if how.top_p < 1.0 {
        let total: f64 = all.iter().map(|(_, logit)| probability(*logit)).sum();
        let mut before = 0.0;
        let enough = all.iter().take_while(|(_, logit)| {
            let needed = before < how.top_p * total;
            before += probability(*logit);
            needed
        });
        let count = enough.count().max(1);
        all.truncate(count);
    }
    let count = all.iter().take_while(|(_, logit)| probability(*logit) >= how.min_p).count();
    all.truncate(count.max(1));
    all
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// Made by `tests/sampling.py` with Hugging Face transformers.
    const REFERENCE: &str = include_str!("../tests/sampling.json");

    #[derive(Deserialize)]
    struct Reference {
        logits: Vec<f32>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        recent: Vec<u32>,
        repetition_penalty: f64,
        top_k: usize,
        top_p: f64,
        min_p: f64,
        kept: Vec<u32>,
        logits: Vec<f32>,
    }

    #[test]
    fn keeps_what_transformers_keeps() {
        let Reference { logits, cases } = serde_json::from_str(REFERENCE).unwrap();
        assert!(cases.len() >= 20);
        for case in cases {
            let Case { repetition_penalty, top_k, top_p, min_p, .. } = case;
            let how = Sampling { repetition_penalty, top_k, top_p, min_p, ..Sampling::default() };
            let mut sampler = Sampler::with(how).unwrap();
            sampler.saw(&case.recent);
            let mut found = kept(&how, &sampler.penalised(&logits));
            found.sort_unstable_by_key(|(token, _)| *token);
            let tokens: Vec<u32> = found.iter().map(|(token, _)| *token).collect();
            assert_eq!(tokens, case.kept, "{how:?}");
            for ((_, found), expected) in found.iter().zip(&case.logits) {
                assert!((found - expected).abs() <= 1e-6, "{how:?}");
            }
        }
    }

    /// How often a token comes is its probability, of those that are kept.
    #[test]
    fn chance_follows_the_temperature() {
        let logits = [2.0_f32, 0.5, 1.0, -1.0, 1.5];
        let (temperature, draws) = (0.7, 20_000);
        let how = Sampling { temperature, top_k: 4, seed: 5, ..Sampling::default() };
        let mut sampler = Sampler::with(how).unwrap();
        let mut counts = [0; 5];
        (0..draws).for_each(|_| counts[sampler.choose(&logits).unwrap() as usize] += 1);
        assert_eq!(counts[3], 0);
        let weight = |token: usize| (f64::from(logits[token]) / temperature).exp();
        let total: f64 = [0, 1, 2, 4].into_iter().map(weight).sum();
        for token in [0, 1, 2, 4] {
            let (expected, found) = (weight(token) / total, f64::from(counts[token]));
            let deviation = (expected * (1.0 - expected) / f64::from(draws)).sqrt();
            assert!((found / f64::from(draws) - expected).abs() < 5.0 * deviation, "{token}");
        }
        let mut same = Sampler::with(how).unwrap();
        let mut again = Sampler::with(how).unwrap();
        (0..50).for_each(|_| {
            assert_eq!(same.choose(&logits).unwrap(), again.choose(&logits).unwrap());
        });
    }

    #[test]
    fn recent_tokens_are_less_likely() {
        let how = Sampling { repetition_penalty: 2.0, penalty_last: 2, ..Sampling::default() };
        let mut sampler = Sampler::with(how).unwrap();
        let logits = [1.0, 1.5, 0.9, -3.0];
        // each that was chosen counts half, until two others came after it
        let chosen: Vec<u32> = (0..4).map(|_| sampler.choose(&logits).unwrap()).collect();
        assert_eq!(chosen, [1, 0, 2, 1]);
        assert!(sampler.choose(&[]).is_err());
        assert!(sampler.choose(&[f32::NAN]).is_err());
        for bad in [
            Sampling { temperature: -1.0, ..Sampling::default() },
            Sampling { top_p: 0.0, ..Sampling::default() },
            Sampling { min_p: 1.5, ..Sampling::default() },
            Sampling { repetition_penalty: 0.0, ..Sampling::default() },
        ] {
            assert!(Sampler::with(bad).is_err());
        }
    }
}
