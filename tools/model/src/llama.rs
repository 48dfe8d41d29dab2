//! Llama: rotary positions, RMSNorm before each block, no biases, shared key-value heads.

use anyhow::Result;
use candle_core::{Device, Module, Tensor};
use candle_nn::rotary_emb::rope_thd;
use candle_nn::{Linear, RmsNorm};

use super::attention::{Heads, causal_mask};
use super::config::ModelConfig;
use super::loader::Loader;
use super::{Ffn, State, ffn_tensor, token_tensor};

/// The dense parts of a Llama model.
pub(crate) struct Llama {
    embed_tokens: Tensor,
    rotary: Rotary,
    layers: Vec<Layer>,
    final_norm: RmsNorm,
    head: Linear,
}

struct Layer {
    attention_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: Heads,
    ffn_norm: RmsNorm,
}

impl Llama {
    pub(crate) fn load(loader: &mut Loader<'_>, config: &ModelConfig) -> Result<Self> {
        let hidden = config.hidden;
        let name = |end: &str| format!("{}{end}", config.prefix);
        let embed_tokens = loader.tensor(&name("embed_tokens.weight"), &[config.vocab, hidden])?;
        let head = if config.tie_word_embeddings {
            Linear::new(embed_tokens.clone(), None)
        } else {
            loader.linear("lm_head.weight", None, config.vocab, hidden)?
        };
        let layers = (0..config.layers)
            .map(|layer| Layer::load(loader, config, layer))
            .collect::<Result<_>>()?;
        Ok(Self {
            embed_tokens,
            // After the layers, whose weights have to be of this head_dim.
            rotary: Rotary::new(config),
            layers,
            final_norm: loader.rms_norm(&name("norm"), hidden, config.norm_eps)?,
            head,
        })
    }

    /// Hidden states [tokens, hidden] after the last layer.
    pub(crate) fn hidden(
        &self,
        state: &mut State,
        tokens: &[u32],
        ffn: &mut dyn Ffn,
    ) -> Result<Tensor> {
        let position = state.position;
        let mut x = self.embed_tokens.index_select(&token_tensor(tokens)?, 0)?;
        let mask = causal_mask(position, tokens.len())?;
        let angles = self.rotary.angles(position, tokens.len())?;
        for (index, (layer, cache)) in self.layers.iter().zip(&mut state.caches).enumerate() {
            let normed = layer.attention_norm.forward(&x)?;
            let Heads { heads, kv_heads, .. } = layer.heads;
            let q = angles.turn(&layer.q.forward(&normed)?, heads)?;
            let k = angles.turn(&layer.k.forward(&normed)?, kv_heads)?;
            let (k, v) = cache.append(position, &k, &layer.v.forward(&normed)?)?;
            let attended = layer.heads.attend(&q, &k, &v, mask.as_ref())?;
            x = (x + layer.out.forward(&attended)?)?;
            let normed = layer.ffn_norm.forward(&x)?;
            x = (x + ffn_tensor(ffn, index, &normed)?)?;
        }
        Ok(x)
    }

    /// Logits [rows, vocab] of some hidden states [rows, hidden].
    pub(crate) fn logits(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.head.forward(&self.final_norm.forward(x)?)?)
    }
}

impl Layer {
    fn load(loader: &mut Loader<'_>, config: &ModelConfig, layer: usize) -> Result<Self> {
        let &ModelConfig { hidden, heads, kv_heads, head_dim, norm_eps, .. } = config;
        let name = |end: &str| format!("{}{end}", config.layer_prefix(layer));
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        Ok(Self {
            attention_norm: loader.rms_norm(&name("input_layernorm"), hidden, norm_eps)?,
            q: loader.linear(&name("self_attn.q_proj.weight"), None, q_width, hidden)?,
            k: loader.linear(&name("self_attn.k_proj.weight"), None, kv_width, hidden)?,
            v: loader.linear(&name("self_attn.v_proj.weight"), None, kv_width, hidden)?,
            out: loader.linear(&name("self_attn.o_proj.weight"), None, hidden, q_width)?,
            heads: Heads { heads, kv_heads, head_dim },
            ffn_norm: loader.rms_norm(&name("post_attention_layernorm"), hidden, norm_eps)?,
        })
    }
}

/// Rotary positions, with the two halves of a head as the pairs that turn (the convention of
/// Hugging Face checkpoints).
struct Rotary {
    /// Radians per position, one for each of the head_dim / 2 pairs.
    frequencies: Vec<f32>,
}

impl Rotary {
    fn new(config: &ModelConfig) -> Self {
        let head_dim = config.head_dim as f32;
        let theta = config.rope_theta as f32;
        let frequency = |pair: usize| 1.0 / theta.powf((2 * pair) as f32 / head_dim);
        Self { frequencies: (0..config.head_dim / 2).map(frequency).collect() }
    }

    fn angles(&self, position: usize, tokens: usize) -> Result<Angles> {
        let angles: Vec<f32> = (position..position + tokens)
            .flat_map(|position| self.frequencies.iter().map(move |f| position as f32 * f))
            .collect();
        let angles = Tensor::from_vec(angles, (tokens, self.frequencies.len()), &Device::Cpu)?;
        Ok(Angles { cos: angles.cos()?, sin: angles.sin()? })
    }
}

/// Cosines and sines [tokens, head_dim / 2] of the tokens at hand.
struct Angles {
    cos: Tensor,
    sin: Tensor,
}

impl Angles {
    /// Turns each head of x [tokens, heads * head_dim].
    fn turn(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let x = x.reshape((1, tokens, heads, width / heads))?;
        Ok(rope_thd(&x, &self.cos, &self.sin)?.reshape((tokens, width))?)
    }
}
