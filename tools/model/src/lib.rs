//! Running a language model whose FFN is computed elsewhere.
//!
//! Attention, embeddings and norms are dense and small: candle computes them in f32 on the CPU.
//! The FFN, which the rest of this project reads sparsely from flash, comes in through [`Ffn`].
//!
//! Reading order: [`checkpoint`] (weights), `config` (what they mean), this file, then the two
//! families, `predictor` (which neurons are active), `dense` (the FFN in memory), `inputs` (what reaches it),
//! `tokenizer`, `generate` with its `sampler`, and [`perplexity`].
//!
//! ```no_run
//! use lnp_model::{DenseFfn, Model, Sampler, Tokenizer, generate};
//!
//! let dir = std::path::Path::new("opt-relu");
//! let (model, tokenizer) = (Model::load(dir)?, Tokenizer::load(dir)?);
//! let mut ffn = DenseFfn::load(model.checkpoint(), model.config())?;
//! let prompt_ids = tokenizer.encode("Once upon a time")?;
//! let mut greedy = Sampler::new(0.0, 0)?;
//! let generated = generate(&model, &mut ffn, &prompt_ids, 20, &mut greedy, &mut |_| Ok(true))?;
//! println!("{}", tokenizer.decode(&generated.tokens, true)?);
//! # Ok::<(), anyhow::Error>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};

mod attention;
pub mod checkpoint;
mod config;
mod dense;
mod generate;
mod inputs;
mod llama;
mod loader;
mod opt;
pub mod perplexity;
mod predictor;
mod sampler;
#[cfg(test)]
mod small_models;
#[cfg(test)]
mod tests;
mod tokenizer;

pub use checkpoint::{Checkpoint, Source};
pub use config::{Activation, Family, FfnTensors, ModelConfig};
pub use dense::DenseFfn;
pub use generate::{Generated, generate};
pub use inputs::{InputSample, forward_windows};
pub use predictor::ExactPredictor;
pub use sampler::Sampler;
pub use tokenizer::{Decoder, Tokenizer};

use attention::LayerCache;
use llama::Llama;
use loader::Loader;
use opt::Opt;

/// Most tokens that a long text is fed at a time: the scores of attention take memory as these tokens
/// times all before them, and a window may be as long as the model's context.
pub const PIECE_TOKENS: usize = 256;

/// Computes the FFN of one layer for some tokens.
pub trait Ffn {
    /// `x`: row-major `[tokens][hidden]`, already normalised. Fills `y`, of the same shape, with
    /// the FFN's output: output bias included, residual not. `y` holds zeros on entry.
    ///
    /// # Errors
    /// Whatever keeps the FFN from being computed; the forward pass ends with it and leaves the
    /// state where it was.
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()>;
}

/// The dense parts of a model, all but the FFN.
pub struct Model {
    config: ModelConfig,
    checkpoint: Checkpoint,
    net: Net,
    resident_bytes: usize,
}

enum Net {
    Opt(Opt),
    Llama(Llama),
}

/// One text being continued: its position and its key-value cache.
pub struct State {
    position: usize,
    caches: Vec<LayerCache>,
}

impl State {
    /// Tokens fed so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes of the key-value cache.
    pub fn bytes(&self) -> usize {
        self.caches.iter().map(LayerCache::bytes).sum()
    }
}

impl Model {
    /// Loads attention, embeddings and norms of a Hugging Face model folder, as f32. The FFN
    /// weights stay in the files.
    ///
    /// # Errors
    /// An unsupported or incomplete model; the message names the file and what was expected.
    pub fn load(dir: &Path) -> Result<Self> {
        Self::of(Checkpoint::open(dir)?)
    }

    /// The same of a folder whose weights are open already.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn of(checkpoint: Checkpoint) -> Result<Self> {
        let config = ModelConfig::load(checkpoint.dir(), &checkpoint)?;
        let mut loader = Loader::new(&checkpoint);
        let net = match config.family {
            Family::Opt => Net::Opt(Opt::load(&mut loader, &config)?),
            Family::Llama => Net::Llama(Llama::load(&mut loader, &config)?),
        };
        let resident_bytes = loader.bytes();
        Ok(Self { config, checkpoint, net, resident_bytes })
    }

    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where its weights are.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Bytes of the weights held in memory (f32; a tied head counts once).
    pub fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// An empty text: position 0, nothing cached.
    pub fn new_state(&self) -> State {
        let caches = (0..self.config.layers).map(|_| LayerCache::default()).collect();
        State { position: 0, caches }
    }

    /// Feeds tokens at the state's position; returns the logits `[vocab]` after the last of them.
    ///
    /// One call with several tokens computes the same function as several calls with one each,
    /// but sums may be rounded differently.
    ///
    /// # Errors
    /// No token, a token id beyond the vocabulary, a context longer than the model's, or a failed
    /// FFN. The state is then as it was.
    pub fn forward(
        &self,
        state: &mut State,
        tokens: &[u32],
        ffn: &mut dyn Ffn,
    ) -> Result<Vec<f32>> {
        let x = self.hidden(state, tokens, ffn)?;
        let last = x.narrow(0, tokens.len() - 1, 1)?.contiguous()?;
        let logits = self.logits(&last)?;
        state.position += tokens.len();
        Ok(logits)
    }

    /// The same with the logits after each of the tokens: row-major `[tokens][vocab]`.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn forward_all(
        &self,
        state: &mut State,
        tokens: &[u32],
        ffn: &mut dyn Ffn,
    ) -> Result<Vec<f32>> {
        let x = self.hidden(state, tokens, ffn)?;
        let logits = self.logits(&x)?;
        state.position += tokens.len();
        Ok(logits)
    }

    /// The same without the logits, for when only the FFN's inputs matter.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn forward_hidden(
        &self,
        state: &mut State,
        tokens: &[u32],
        ffn: &mut dyn Ffn,
    ) -> Result<()> {
        self.hidden(state, tokens, ffn)?;
        state.position += tokens.len();
        Ok(())
    }

    /// Logits `[rows][vocab]` of hidden states [rows, hidden].
    fn logits(&self, x: &Tensor) -> Result<Vec<f32>> {
        let logits = match &self.net {
            Net::Opt(opt) => opt.logits(x)?,
            Net::Llama(llama) => llama.logits(x)?,
        };
        Ok(logits.flatten_all()?.to_vec1()?)
    }

    fn hidden(&self, state: &mut State, tokens: &[u32], ffn: &mut dyn Ffn) -> Result<Tensor> {
        let ModelConfig { vocab, max_positions, layers, .. } = self.config;
        ensure!(!tokens.is_empty(), "no token to feed: give at least one");
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocab) {
            anyhow::bail!(
                "token id {id} is beyond the vocabulary of {vocab}: was the text encoded with this \
                 model's tokenizer?"
            );
        }
        ensure!(
            tokens.len() <= max_positions.saturating_sub(state.position),
            "context too long: {} tokens after {}, the model's limit is {max_positions}; shorten \
             the text",
            tokens.len(),
            state.position
        );
        ensure!(state.caches.len() == layers, "the state belongs to a model of another depth");
        match &self.net {
            Net::Opt(opt) => opt.hidden(state, tokens, ffn),
            Net::Llama(llama) => llama.hidden(state, tokens, ffn),
        }
    }
}

/// Runs the FFN of a layer on x [tokens, hidden].
fn ffn_tensor(ffn: &mut dyn Ffn, layer: usize, x: &Tensor) -> Result<Tensor> {
    let shape = x.dims2()?;
    let x = x.flatten_all()?.to_vec1::<f32>()?;
    let mut y = vec![0.0; x.len()];
    ffn.forward(layer, &x, &mut y).with_context(|| format!("FFN of layer {layer}"))?;
    Ok(Tensor::from_vec(y, shape, &Device::Cpu)?)
}

fn token_tensor(tokens: &[u32]) -> Result<Tensor> {
    Ok(Tensor::from_slice(tokens, tokens.len(), &Device::Cpu)?)
}

/// The numbers from `first` on, one per token.
fn position_ids(first: usize, tokens: usize) -> Result<Tensor> {
    // Limits of the configuration keep them within 32 bits.
    let ids: Vec<u32> = (first..first + tokens).map(|id| id as u32).collect();
    Ok(Tensor::from_vec(ids, tokens, &Device::Cpu)?)
}
