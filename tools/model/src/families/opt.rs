//! OPT: LayerNorm with biases, learned positions, an FFN of two parts with biases.

use anyhow::Result;

use super::{Defaults, LLAMA, LLAMA_NAMES};
use crate::architecture::{Attention, LayerKind, Layers, Names, NormKind, Order};
use crate::config::ModelConfig;
use crate::json::Fields;

const NAMES: Names = Names {
    prefixes: &["model.decoder.", "decoder."],
    final_norm: "final_layer_norm",
    attention_out: "self_attn.out_proj",
    attention_norm: "self_attn_layer_norm",
    // of the layer, not of the model
    ffn_norm: "final_layer_norm",
    gate: None,
    up: "fc1",
    down: "fc2",
    ..LLAMA_NAMES
};

/// OPT counts positions from 2: the first two rows of the table belong to padding.
const POSITION_OFFSET: usize = 2;

pub(super) fn opt(fields: &Fields<'_>) -> Result<ModelConfig> {
    let defaults = Defaults {
        family: "opt",
        bos: Some(2),
        // OPT has no key for it: the default of the layer it uses
        norm_eps: ("layer_norm_eps", 1e-5),
        activation: ("activation_function", "relu"),
        tied: true,
        neurons: "ffn_dim",
        ..LLAMA
    };
    fields.only("layer_norm_elementwise_affine", true)?;
    let mut config = defaults.read(fields)?;
    let bias = fields.flag("enable_bias")?.unwrap_or(true);
    let first = fields.flag("do_layer_norm_before")?.unwrap_or(true);
    let no_final_norm = fields.flag("_remove_final_layer_norm")?.unwrap_or(false);
    config.kv_heads = config.heads;
    let architecture = &mut config.architecture;
    architecture.names = NAMES;
    architecture.norm = NormKind::Layer;
    architecture.order = if first { Order::Before } else { Order::After };
    architecture.final_norm = first && !no_final_norm;
    architecture.embedding_width = fields.whole("word_embed_proj_dim")?.unwrap_or(config.hidden);
    architecture.learned_positions = Some(POSITION_OFFSET);
    architecture.ropes.clear();
    let kind = LayerKind { rope: None, ..Layers::FULL.full };
    architecture.layers = Layers { full: kind, sliding: kind, ..Layers::FULL };
    architecture.attention =
        Attention { qkv_bias: bias, out_bias: bias, ..architecture.attention.clone() };
    architecture.ffn_bias = bias;
    Ok(config)
}
