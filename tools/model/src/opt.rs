//! OPT: learned positions, LayerNorm before each block, biases everywhere.

use anyhow::Result;
use candle_core::{Module, Tensor};
use candle_nn::{LayerNorm, Linear};

use super::attention::{Heads, causal_mask};
use super::config::ModelConfig;
use super::loader::Loader;
use super::{Ffn, State, ffn_tensor, position_ids, token_tensor};

/// OPT counts positions from 2: the first two rows of the table belong to padding.
const POSITION_OFFSET: usize = 2;

/// The dense parts of an OPT model.
pub(crate) struct Opt {
    embed_tokens: Tensor,
    embed_positions: Tensor,
    layers: Vec<Layer>,
    final_norm: LayerNorm,
    head: Linear,
}

struct Layer {
    attention_norm: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: Heads,
    ffn_norm: LayerNorm,
}

impl Opt {
    pub(crate) fn load(loader: &mut Loader<'_>, config: &ModelConfig) -> Result<Self> {
        let hidden = config.hidden;
        let name = |end: &str| format!("{}{end}", config.prefix);
        let embed_tokens = loader.tensor(&name("embed_tokens.weight"), &[config.vocab, hidden])?;
        let positions = config.max_positions + POSITION_OFFSET;
        let head = if config.tie_word_embeddings {
            Linear::new(embed_tokens.clone(), None)
        } else {
            loader.linear("lm_head.weight", None, config.vocab, hidden)?
        };
        Ok(Self {
            embed_tokens,
            embed_positions: loader
                .tensor(&name("embed_positions.weight"), &[positions, hidden])?,
            layers: (0..config.layers)
                .map(|layer| Layer::load(loader, config, layer))
                .collect::<Result<_>>()?,
            final_norm: loader.layer_norm(&name("final_layer_norm"), hidden, config.norm_eps)?,
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
        let positions = position_ids(position + POSITION_OFFSET, tokens.len())?;
        let mut x = (self.embed_tokens.index_select(&token_tensor(tokens)?, 0)?
            + self.embed_positions.index_select(&positions, 0)?)?;
        let mask = causal_mask(position, tokens.len())?;
        for (index, (layer, cache)) in self.layers.iter().zip(&mut state.caches).enumerate() {
            let normed = layer.attention_norm.forward(&x)?;
            let (k, v) = (layer.k.forward(&normed)?, layer.v.forward(&normed)?);
            let (k, v) = cache.append(position, &k, &v)?;
            let attended = layer.heads.attend(&layer.q.forward(&normed)?, &k, &v, mask.as_ref())?;
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
        let (hidden, eps) = (config.hidden, config.norm_eps);
        let name = |end: &str| format!("{}{end}", config.layer_prefix(layer));
        let projection = |loader: &mut Loader<'_>, end: &str| {
            let (weight, bias) = (name(&format!("{end}.weight")), name(&format!("{end}.bias")));
            loader.linear(&weight, Some(&bias), hidden, hidden)
        };
        Ok(Self {
            q: projection(loader, "self_attn.q_proj")?,
            k: projection(loader, "self_attn.k_proj")?,
            v: projection(loader, "self_attn.v_proj")?,
            out: projection(loader, "self_attn.out_proj")?,
            heads: Heads { heads: config.heads, kv_heads: config.heads, head_dim: config.head_dim },
            attention_norm: loader.layer_norm(&name("self_attn_layer_norm"), hidden, eps)?,
            // The layer's own final norm stands before the FFN.
            ffn_norm: loader.layer_norm(&name("final_layer_norm"), hidden, eps)?,
        })
    }
}
