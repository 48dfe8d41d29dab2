//! Text from a model whose FFN comes from a pack, through the engine.

use anyhow::{Context, Result, ensure};
use lnp_engine::engine::Alone;
use lnp_engine::ffn::Ffn;
use lnp_engine::queue::ReadQueue;
use lnp_engine::{Config, Engine, FetchStats, required_bytes};
use lnp_format::{Pack, Shape};
use lnp_kernels::CpuFeatures;
use rand::RngExt;
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::model::{self, ExactPredictor, Model, ModelConfig, PIECE_TOKENS};
use crate::pack::Recipe;
use crate::report::bytes;

/// The FFN of a model, sparse, from a pack: computes the active set exactly from resident weights,
/// fetches its bundles and computes from them.
pub struct SparseFfn<'e, 'a, Q> {
    engine: &'e mut Engine<'a, Q>,
    ffn: Ffn<'e>,
    predictor: &'e ExactPredictor,
    active: Vec<Vec<u32>>,
    stats: FetchStats,
    active_bundles: u64,
}

impl<'e, 'a, Q: ReadQueue<'a> + Send> SparseFfn<'e, 'a, Q> {
    /// Joins engine, kernels and predictor.
    pub fn new(engine: &'e mut Engine<'a, Q>, ffn: Ffn<'e>, predictor: &'e ExactPredictor) -> Self {
        let stats = FetchStats::default();
        Self { engine, ffn, predictor, active: Vec::new(), stats, active_bundles: 0 }
    }

    /// What was fetched so far; what several tokens of a prompt have in common counts once.
    pub fn stats(&self) -> &FetchStats {
        &self.stats
    }

    /// The sum of the sizes of all active sets so far.
    pub fn active_bundles(&self) -> u64 {
        self.active_bundles
    }
}

impl<'a, Q: ReadQueue<'a> + Send> model::Ffn for SparseFfn<'_, 'a, Q> {
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
        self.predictor.active(layer, x, &mut self.active)?;
        self.active_bundles += self.active.iter().map(|active| active.len() as u64).sum::<u64>();
        let sets: Vec<&[u32]> = self.active.iter().map(Vec::as_slice).collect();
        let hidden = x.len() / sets.len().max(1);
        let tokens = self.ffn.tokens_max();
        let batches = x.chunks(tokens * hidden).zip(y.chunks_mut(tokens * hidden));
        for ((x, y), active) in batches.zip(sets.chunks(tokens)) {
            let stats = self.engine.session(|session| {
                self.ffn.forward_batch(session, &Alone, layer as u32, x, active, y)
            })?;
            self.stats.add(&stats);
        }
        Ok(())
    }
}

/// Memory for [`Ffn::new`], for batches of `tokens_max` tokens.
///
/// # Errors
/// As [`Ffn::required_bytes`].
pub fn ffn_memory(pack: &Pack<'_>, features: CpuFeatures, tokens_max: usize) -> Result<Vec<u8>> {
    Ok(vec![0; Ffn::required_bytes(pack.shape(), features, tokens_max)?])
}

/// Checks that a pack is of a model's shape.
///
/// # Errors
/// One line that says what differs.
pub fn check_shape(shape: &Shape, config: &ModelConfig) -> Result<()> {
    let packed = [shape.layers, shape.neurons, shape.hidden, shape.parts].map(|n| n as usize);
    let model = [config.layers, config.neurons, config.hidden, config.parts()];
    ensure!(
        packed == model,
        "the pack has layers, neurons, hidden, parts {packed:?}, the model {model:?}: they do not \
         belong together"
    );
    Recipe::check_activation(shape, config)
}

/// Engine settings for so much memory: the staging area first, the rest is cache. Without a limit,
/// a staging area for a whole layer (at most 64 MiB) and a cache of `cache_ratio` of the bundles.
///
/// # Errors
/// A limit that is too small, or a ratio that is not one.
pub fn fit_memory(
    pack: &Pack<'_>,
    base: Config,
    memory: Option<usize>,
    cache_ratio: f64,
) -> Result<Config> {
    const STAGING_BYTES_USUAL: usize = 64 << 20;
    let (least, full) = (Config::staging_bytes_min(pack), Config::staging_bytes_full(pack));
    let bundles = pack.shape().bundles() as u32;
    let usual = full.min(STAGING_BYTES_USUAL).max(least);
    let with = |staging_bytes, cache_bundles| Config { staging_bytes, cache_bundles, ..base };
    let Some(memory) = memory else {
        ensure!(
            (0.0..=1.0).contains(&cache_ratio),
            "a cache ratio of {cache_ratio}: 0 to 1 is possible"
        );
        return Ok(with(usual, (f64::from(bundles) * cache_ratio).round() as u32));
    };
    let needed = required_bytes(&with(least, 0), pack)?;
    ensure!(
        needed <= memory,
        "--memory {memory} is too small: at least {needed} bytes ({}) are needed",
        bytes(needed as f64)
    );
    // Half of what is left for staging, the rest for the cache; what the cache leaves goes back.
    let staging = usual.min(least + (memory - needed) / 2);
    let (mut fits, mut too_many) = (0, bundles + 1);
    while fits + 1 < too_many {
        let middle = fits + (too_many - fits) / 2;
        let enough = required_bytes(&with(staging, middle), pack)? <= memory;
        if enough { fits = middle } else { too_many = middle }
    }
    let left = memory - required_bytes(&with(staging, fits), pack)?;
    Ok(with(usual.min(staging + left), fits))
}

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

/// What came of [`generate`].
#[derive(Debug)]
pub struct Generated {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Logits after the prompt.
    pub prompt_logits: Vec<f32>,
    /// Tokens that went through the model: the prompt, and all generated ones but the last.
    pub fed: usize,
    /// Bytes of keys and values that attention remembered at the end.
    pub state_bytes: usize,
}

/// Feeds a prompt and generates `count` tokens, or fewer where `on_token` says false.
///
/// # Errors
/// A context that is too short, or whatever the model or the engine says.
pub fn generate(
    model: &Model,
    ffn: &mut dyn model::Ffn,
    prompt_ids: &[u32],
    count: usize,
    sampler: &mut Sampler,
    on_token: &mut dyn FnMut(u32) -> Result<bool>,
) -> Result<Generated> {
    let most = model.config().max_positions;
    ensure!(
        count <= (most + 1).saturating_sub(prompt_ids.len()),
        "the prompt has {} tokens and {count} are to follow: the model's context is {most}; use a \
         shorter prompt or a smaller -n",
        prompt_ids.len()
    );
    let mut state = model.new_state();
    // In pieces: attention takes memory as the square of what is fed at once.
    let mut prompt_logits = Vec::new();
    for piece in prompt_ids.chunks(PIECE_TOKENS) {
        prompt_logits = model.forward(&mut state, piece, ffn)?;
    }
    let mut tokens = Vec::new();
    let mut logits = prompt_logits.clone();
    while tokens.len() < count {
        let token = sampler.choose(&logits)?;
        tokens.push(token);
        if !on_token(token)? || tokens.len() == count {
            break;
        }
        logits = model.forward(&mut state, &[token], ffn)?;
    }
    Ok(Generated { tokens, prompt_logits, fed: state.position(), state_bytes: state.bytes() })
}
