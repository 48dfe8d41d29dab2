//! How the next token is chosen, as options.

use anyhow::Result;
use lnp_model::{Sampler, Sampling};

/// Which token comes next.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub(super) struct SamplingArgs {
    /// 0 for the most likely token, above 0 for chance
    #[arg(long, visible_alias = "temp", value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Of chance: only the K most likely tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Of chance: only the most likely tokens that together have the probability P
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f64,
    /// Of chance: only tokens that have P times the probability of the most likely one
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f64,
    /// Make recent tokens less likely: their logits are divided by this, negative ones multiplied
    #[arg(long, visible_alias = "repeat-penalty", value_name = "R", default_value_t = 1.0)]
    repetition_penalty: f64,
    /// How many tokens are recent
    #[arg(long, visible_alias = "repeat-last-n", value_name = "N", default_value_t = 64)]
    penalty_last: usize,
    /// Seed of chance
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
}

impl SamplingArgs {
    /// # Errors
    /// A number outside its range.
    pub(super) fn sampler(&self) -> Result<Sampler> {
        let Self { temperature, top_k, top_p, min_p, repetition_penalty, penalty_last, seed } =
            *self;
        Sampler::with(Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            penalty_last,
            seed,
        })
    }
}
