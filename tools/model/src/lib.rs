//! Running a language model whose FFN is computed elsewhere.
//!
//! Attention, embeddings and norms are dense: held in the checkpoint's types or rounded, multiplied by our kernels for few
//! tokens, by candle for many.
//! The FFN, which the rest of this project reads sparsely from flash, comes in through [`FeedForward`].
//!
//! Reading order: [`checkpoint`] (weights) with `stored` (their types), `folder` and [`gguf`] (where they lie), `config`
//! (what they mean, with `activity` for what is zero nowhere), `architecture` (what a decoder is
//! made of) and `families` (a page of facts each), this file, then `loader`, `dense_type` and `matrix` (how weights are held),
//! `decoder` with `attention`, `remembered` (keys and values) and `rotary`, `streams` (what Gemma 3n has around layers), `predictor` (which neurons are active), `dense` (the FFN in memory), `inputs` (what reaches it),
//! `tokenizer`, `prompt`, `chat`, `generate` with its `sampler`, and [`perplexity`]; `needed` tells what memory it will take,
//! `resident` what of it a pack may hold.
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
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Storage, Tensor};

mod activation;
pub mod activity;
mod architecture;
mod attention;
mod chat;
pub mod checkpoint;
mod config;
mod decoder;
mod dense;
mod dense_type;
mod families;
mod folder;
mod generate;
pub mod gguf;
mod inputs;
mod json;
mod loader;
mod matrix;
mod needed;
pub mod perplexity;
mod predictor;
mod prompt;
mod remembered;
mod resident;
mod rotary;
mod sampler;
#[cfg(test)]
mod small_models;
mod stored;
mod streams;
#[cfg(test)]
mod tests;
mod times;
mod tokenizer;

pub use activation::Activation;
pub use activity::Activity;
pub use chat::{ChatTemplate, Message, Role};
pub use checkpoint::{Checkpoint, Source};
pub use config::{FfnNorm, FfnTensors, ModelConfig};
pub use dense::DenseFfn;
pub use dense_type::{DenseNumbers, DenseOptions, DenseType};
pub use generate::{Generated, Text, generate};
pub use inputs::{InputSample, forward_windows};
pub use matrix::multiply_rows;
pub use predictor::ExactPredictor;
pub use prompt::prompt_ids;
pub use remembered::{KvOptions, KvType};
pub use resident::Resident;
pub use sampler::{Sampler, Sampling};
pub use times::Times;
pub use tokenizer::{Decoder, Tokenizer};

use loader::Loader;
use remembered::LayerCache;
use times::timed;

/// Most tokens that a long text is fed at a time: the scores of attention take memory as these tokens
/// times all before them, and a window may be as long as the model's context.
pub const PIECE_TOKENS: usize = 256;

/// Computes the FFN of one layer for some tokens.
pub trait FeedForward {
    /// Told as soon as a layer's input is known, where its output is asked for only later: between the two a block
    /// whose FFN stands beside its attention computes that. What has to be read can be begun. `forward` of this
    /// layer comes next, with the same `x`, unless something fails.
    ///
    /// # Errors
    /// As [`FeedForward::forward`].
    fn begin(&mut self, _layer: usize, _x: &[f32]) -> Result<()> {
        Ok(())
    }

    /// `x`: row-major `[tokens][hidden]`, already normalised. Fills `y`, of the same shape, with
    /// the FFN's output: output bias included, residual not. `y` holds zeros on entry.
    ///
    /// # Errors
    /// Whatever keeps the FFN from being computed; the forward pass ends with it and leaves the
    /// state where it was.
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()>;

    /// Told now and then while something else is computed: who reads meanwhile goes on with it.
    ///
    /// # Errors
    /// As [`FeedForward::forward`].
    fn go_on(&mut self) -> Result<()> {
        Ok(())
    }

    /// Of the time that all of it took so far, what went to telling which neurons are active and to waiting for reads;
    /// the other parts are empty.
    fn times(&self) -> Times {
        Times::default()
    }
}

/// The dense parts of a model, all but the FFN.
pub struct Model {
    config: ModelConfig,
    checkpoint: Checkpoint,
    decoder: decoder::Decoder,
    /// How keys and values are held, in f32 or f16.
    remembering: [remembered::Shape; 2],
    resident_bytes: usize,
}

/// One text being continued: its position and its key-value cache.
pub struct State {
    position: usize,
    caches: Vec<LayerCache>,
    /// Where the time went: attention, the FFN as a whole, the head.
    times: Times,
}

impl State {
    /// Tokens fed so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Where the time of all tokens went, as far as it went through the model: the FFN as a whole.
    pub fn times(&self) -> Times {
        self.times
    }

    /// Forgets all tokens from this position on.
    pub fn rewind(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// Bytes of the key-value cache.
    pub fn bytes(&self) -> usize {
        self.caches.iter().map(LayerCache::bytes).sum()
    }
}

impl Model {
    /// Loads attention, embeddings and norms of a Hugging Face model folder or a GGUF file, in the types that they are
    /// stored in. The FFN weights stay in the files.
    ///
    /// # Errors
    /// An unsupported or incomplete model; the message names the file and what was expected.
    pub fn load(path: &Path) -> Result<Self> {
        Self::of(Checkpoint::open(path)?)
    }

    /// The same of a model whose weights are open already.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn of(checkpoint: Checkpoint) -> Result<Self> {
        Self::held(checkpoint, DenseOptions::default())
    }

    /// The same, held in a type of choice.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn held(checkpoint: Checkpoint, options: DenseOptions) -> Result<Self> {
        let config = ModelConfig::load(&checkpoint)?;
        let mut loader = Loader::new(&checkpoint, options);
        let decoder = decoder::Decoder::load(&mut loader, &config)?;
        let resident_bytes = loader.bytes();
        let heads = [config.kv_heads, config.head_dim];
        let shape = |dtype| remembered::Shape::new(dtype, heads, options.features);
        let remembering = [shape(KvType::F32)?, shape(KvType::F16)?];
        Ok(Self { config, checkpoint, decoder, remembering, resident_bytes })
    }

    /// The same, told from where on its neurons are active, if that is not in its activation.
    ///
    /// # Errors
    /// Thresholds that are not of such a model.
    pub fn with_activity(self, activity: Option<Activity>) -> Result<Self> {
        Ok(Self { config: self.config.with_activity(activity)?, ..self })
    }

    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where its weights are.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Bytes of the weights held in memory (a tied head counts once).
    pub fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// An empty text: position 0, nothing remembered.
    pub fn new_state(&self) -> State {
        self.new_state_with(KvOptions::default())
    }

    /// The same, with keys and values held as the caller says.
    pub fn new_state_with(&self, options: KvOptions) -> State {
        let shape = self.remembering[usize::from(options.dtype == KvType::F16)];
        let cache = |_| LayerCache::new(shape, options.tokens);
        let caches = (0..self.config.layers).map(cache).collect();
        State { position: 0, caches, times: Times::default() }
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
        ffn: &mut dyn FeedForward,
    ) -> Result<Vec<f32>> {
        let x = self.hidden(state, tokens, ffn)?;
        let last = x.narrow(0, tokens.len() - 1, 1)?.contiguous()?;
        let logits = timed(&mut state.times.head, || self.logits(&last))?;
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
        ffn: &mut dyn FeedForward,
    ) -> Result<Vec<f32>> {
        let x = self.hidden(state, tokens, ffn)?;
        let logits = timed(&mut state.times.head, || self.logits(&x))?;
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
        ffn: &mut dyn FeedForward,
    ) -> Result<()> {
        self.hidden(state, tokens, ffn)?;
        state.position += tokens.len();
        Ok(())
    }

    /// Logits `[rows][vocab]` of hidden states [rows, hidden].
    fn logits(&self, x: &Tensor) -> Result<Vec<f32>> {
        Ok(self.decoder.logits(x)?.flatten_all()?.to_vec1()?)
    }

    fn hidden(
        &self,
        state: &mut State,
        tokens: &[u32],
        ffn: &mut dyn FeedForward,
    ) -> Result<Tensor> {
        let ModelConfig { vocab, max_positions, layers, .. } = self.config;
        ensure!(!tokens.is_empty(), "no token to feed: give at least one");
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocab) {
            bail!(
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
        let (begin, ffn_before) = (Instant::now(), state.times.ffn);
        let x = self.decoder.hidden(state, tokens, ffn)?;
        let of_ffn = state.times.ffn - ffn_before;
        state.times.attention += begin.elapsed().saturating_sub(of_ffn);
        Ok(x)
    }
}

/// The FFN of one layer, on tensors [tokens, hidden].
struct LayerFfn<'f> {
    ffn: &'f mut dyn FeedForward,
    layer: usize,
    /// What it took.
    time: &'f mut Duration,
}

impl LayerFfn<'_> {
    fn begin(&mut self, x: &Tensor) -> Result<()> {
        let layer = self.layer;
        timed(self.time, || with_numbers(x, |x| self.ffn.begin(layer, x)))?
            .with_context(|| format!("FFN of layer {layer}"))
    }

    fn go_on(&mut self) -> Result<()> {
        let layer = self.layer;
        self.ffn.go_on().with_context(|| format!("FFN of layer {layer}"))
    }

    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        let (layer, shape) = (self.layer, x.dims2()?);
        let mut y = vec![0.0; x.elem_count()];
        timed(self.time, || with_numbers(x, |x| self.ffn.forward(layer, x, &mut y)))?
            .with_context(|| format!("FFN of layer {layer}"))?;
        Ok(Tensor::from_vec(y, shape, &Device::Cpu)?)
    }
}

/// Calls `body` with a tensor's numbers where they lie, not a copy of them.
fn with_numbers<T>(x: &Tensor, body: impl FnOnce(&[f32]) -> T) -> candle_core::Result<T> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        candle_core::bail!("a tensor that is not in memory")
    };
    Ok(body(&storage.as_slice::<f32>()?[layout.start_offset()..][..x.elem_count()]))
}
