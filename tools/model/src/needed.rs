//! How much memory a model will take: told before any of its weights are read.

use anyhow::Result;
use lnp_kernels::TOKENS_MAX;

use crate::decoder::Decoder;
use crate::loader::Loader;
use crate::matrix::PIECE_NUMBERS;
use crate::{Checkpoint, DenseOptions, KvOptions, Model, ModelConfig, PIECE_TOKENS};

impl Model {
    /// Bytes of the weights that [`Model::held`] will hold: nothing of them is read.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn bytes_needed(checkpoint: &Checkpoint, options: DenseOptions) -> Result<usize> {
        let config = ModelConfig::load(checkpoint)?;
        let mut loader = Loader::counting(checkpoint, options);
        Decoder::load(&mut loader, &config)?;
        Ok(loader.bytes())
    }
}

impl ModelConfig {
    /// Bytes of the keys and values of a text, all layers.
    pub fn kv_bytes(&self, options: KvOptions) -> usize {
        let shared = self.architecture.attention.sharing_layers;
        let layers = self.layers.saturating_sub(shared);
        2 * layers * self.kv_heads * options.dtype.row_bytes(self.head_dim) * options.tokens
    }

    /// About the most that a pass takes beside what is held, bytes: hidden states, attention's scores, logits; of a prompt
    /// of so many tokens, in pieces, where `exact` says whether products of all neurons are made.
    pub fn scratch_bytes(&self, prompt: usize, exact: bool) -> usize {
        let tokens = prompt.clamp(1, PIECE_TOKENS);
        let q_width = self.heads * self.head_dim;
        let states = tokens * (8 * self.hidden + 4 * q_width);
        // Scores, the same without what is not seen, and weights.
        let scores = if tokens > 1 { 3 * self.heads * tokens * prompt } else { 0 };
        let neurons = if exact { 3 * tokens * self.neurons } else { tokens * self.neurons / 2 };
        let piece = if tokens > TOKENS_MAX { 2 * PIECE_NUMBERS } else { 0 };
        size_of::<f32>() * (states + scores + neurons + piece + 4 * self.vocab)
    }
}
