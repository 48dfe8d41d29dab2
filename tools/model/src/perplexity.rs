//! How well a model predicts text: what a pack's number type costs.
//!
//! *Loss* is the mean negative log-likelihood, in nats, of token i + 1 of a window given tokens 0 to
//! i of it; *perplexity* is exp(loss). Windows are independent of each other, so that their first
//! tokens are not predicted: a window of n tokens makes n - 1 predictions.

use anyhow::{Context, Result, ensure};

use crate::{FeedForward, Model, PIECE_TOKENS};

/// Tokens of a text, in windows.
#[derive(Debug, Clone)]
pub struct Windows {
    ids: Vec<u32>,
    window: usize,
}

impl Windows {
    /// Checks that a model can be judged by these tokens.
    ///
    /// # Errors
    /// A window that the model's context does not hold or that predicts nothing, fewer than two
    /// tokens, or one beyond the model's vocabulary.
    pub fn new(model: &Model, ids: Vec<u32>, window: usize) -> Result<Self> {
        let (most, vocab) = (model.config().max_positions, model.config().vocab);
        ensure!(
            (2..=most).contains(&window),
            "a window of {window} tokens: the model takes 2 to {most}; choose another with --window"
        );
        ensure!(ids.len() >= 2, "nothing to predict: {} tokens, at least 2 are needed", ids.len());
        if let Some((token, id)) = ids.iter().enumerate().find(|(_, id)| **id as usize >= vocab) {
            anyhow::bail!(
                "token {token} has id {id}, beyond the model's vocabulary of {vocab}: trace the \
                 text with this model"
            );
        }
        Ok(Self { ids, window })
    }

    /// Tokens of a window; the last one may have fewer.
    pub fn window(&self) -> usize {
        self.window
    }

    /// All tokens.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }
}

/// The loss over some predictions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    /// Tokens predicted.
    pub predicted: usize,
    /// Mean negative log-likelihood of a predicted token, nats.
    pub nats: f64,
}

impl Loss {
    /// exp(loss).
    pub fn perplexity(&self) -> f64 {
        self.nats.exp()
    }
}

/// The loss of a model with this FFN. `progress` is told the number of tokens fed after each window.
///
/// # Errors
/// A failed forward pass, or logits that are not numbers.
pub fn loss(
    model: &Model,
    ffn: &mut dyn FeedForward,
    windows: &Windows,
    progress: &mut dyn FnMut(usize),
) -> Result<Loss> {
    let vocab = model.config().vocab;
    let (mut sum, mut predicted, mut fed) = (0.0, 0, 0);
    for ids in windows.ids.chunks(windows.window) {
        let mut state = model.new_state();
        // the logits after the last token predict one that is not there
        let mut to_come = ids[1..].iter();
        for piece in ids.chunks(PIECE_TOKENS) {
            let logits = model.forward_all(&mut state, piece, ffn)?;
            for (logits, next) in logits.chunks_exact(vocab).zip(&mut to_come) {
                sum += negative_log_likelihood(logits, *next)?;
                predicted += 1;
            }
            fed += piece.len();
            progress(fed);
        }
    }
    Ok(Loss { predicted, nats: sum / predicted as f64 })
}

/// -ln of the probability that softmax gives a token, in f64. The largest logit is taken off first,
/// so that no exponential overflows.
///
/// # Errors
/// Logits that are not numbers, or no such token.
pub fn negative_log_likelihood(logits: &[f32], token: u32) -> Result<f64> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let below_top = |logit: f32| f64::from(logit) - f64::from(top);
    let total: f64 = logits.iter().map(|&logit| below_top(logit).exp()).sum();
    let logit = *logits.get(token as usize).context("a token beyond the vocabulary")?;
    let found = total.ln() - below_top(logit);
    ensure!(found.is_finite(), "the model's logits are not numbers: is the checkpoint damaged?");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use rand::RngExt;
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    /// softmax as it is written in books, then the logarithm.
    fn naive(logits: &[f32], token: usize) -> f64 {
        let exponentials: Vec<f64> = logits.iter().map(|logit| f64::from(*logit).exp()).collect();
        -(exponentials[token] / exponentials.iter().sum::<f64>()).ln()
    }

    #[test]
    fn as_the_naive_softmax() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        for vocab in [1, 2, 3, 50, 1000] {
            for scale in [0.0, 0.1, 10.0, 100.0] {
                let logits: Vec<f32> =
                    (0..vocab).map(|_| (random.random::<f32>() - 0.5) * scale).collect();
                for token in [0, vocab / 2, vocab - 1] {
                    let found = negative_log_likelihood(&logits, token as u32).unwrap();
                    let expected = naive(&logits, token);
                    assert!((found - expected).abs() <= 1e-12 * (1.0 + expected), "{found}");
                }
            }
        }
        // equal logits: ln of the vocabulary
        let even = negative_log_likelihood(&[3.0; 8], 5).unwrap();
        assert!((even - 8f64.ln()).abs() < 1e-15);
    }

    #[test]
    fn large_logits_do_not_overflow_and_nonsense_is_an_error() {
        let found = negative_log_likelihood(&[3e38, -3e38, 3e38], 0).unwrap();
        assert!((found - 2f64.ln()).abs() < 1e-15);
        for bad in [&[f32::NAN, 1.0][..], &[1.0, f32::NAN], &[f32::INFINITY, 1.0], &[]] {
            assert!(negative_log_likelihood(bad, 0).is_err(), "{bad:?}");
        }
        assert!(negative_log_likelihood(&[1.0], 1).is_err());
        let loss = Loss { predicted: 1, nats: 2.0 };
        assert!((loss.perplexity() - 7.389_056_098_930_65).abs() < 1e-12);
    }
}
