//! Families whose attention and FFN stand side by side: Falcon, Phi.

use anyhow::{Result, ensure};

use super::{Defaults, LLAMA, LLAMA_NAMES};
use crate::architecture::{Names, NormKind, Order, Qkv};
use crate::config::ModelConfig;
use crate::json::Fields;

const FALCON_NAMES: Names = Names {
    prefixes: &["transformer.", ""],
    layers: "h.",
    embedding: "word_embeddings",
    final_norm: "ln_f",
    qkv: Qkv::Grouped("self_attention.query_key_value"),
    attention_out: "self_attention.dense",
    gate: None,
    up: "mlp.dense_h_to_4h",
    down: "mlp.dense_4h_to_h",
    ..LLAMA_NAMES
};

/// Falcon: one matrix for queries, keys and values; the older form shares one key-value head.
pub(super) fn falcon(fields: &Fields<'_>) -> Result<ModelConfig> {
    let defaults = Defaults {
        family: "falcon",
        bos: Some(11),
        eos: Some(11),
        norm_eps: ("layer_norm_epsilon", 1e-5),
        activation: ("activation", "gelu"),
        tied: true,
        neurons: "ffn_hidden_size",
        neurons_by_hidden: Some(4),
        max_positions: Some(2048),
        ..LLAMA
    };
    fields.only("alibi", false)?;
    let mut config = defaults.read(fields)?;
    let is =
        |key: &str, default: bool| Ok::<_, anyhow::Error>(fields.flag(key)?.unwrap_or(default));
    let (newer, parallel) = (is("new_decoder_architecture", false)?, is("parallel_attn", true)?);
    ensure!(
        parallel || !newer,
        "parallel_attn false is not supported with new_decoder_architecture"
    );
    let shared = is("multi_query", true)? && !newer;
    let kv_heads = fields.whole("num_kv_heads")?.unwrap_or(config.heads);
    config.kv_heads = if shared { 1 } else { kv_heads };
    let own_norms = newer && fields.whole("num_ln_in_parallel_attn")?.unwrap_or(2) == 2;
    let bias = is("bias", false)?;
    let architecture = &mut config.architecture;
    architecture.norm = NormKind::Layer;
    architecture.order =
        if parallel { Order::Parallel { ffn_norm: own_norms } } else { Order::Before };
    architecture.names = FALCON_NAMES;
    if own_norms {
        architecture.names =
            Names { attention_norm: "ln_attn", ffn_norm: "ln_mlp", ..FALCON_NAMES };
    }
    (architecture.attention.qkv_bias, architecture.attention.out_bias) = (bias, bias);
    architecture.ffn_bias = bias;
    Ok(config)
}

/// Phi 1, 1.5 and 2: biases everywhere, the head's too, heads that turn in part.
pub(super) fn phi(fields: &Fields<'_>) -> Result<ModelConfig> {
    let defaults = Defaults {
        family: "phi",
        norm_eps: ("layer_norm_eps", 1e-5),
        partial_rotary: Some(0.5),
        activation: ("hidden_act", "gelu_new"),
        ..LLAMA
    };
    fields.only("qk_layernorm", false)?;
    let mut config = defaults.read(fields)?;
    let architecture = &mut config.architecture;
    architecture.names = Names {
        final_norm: "final_layernorm",
        attention_out: "self_attn.dense",
        gate: None,
        up: "mlp.fc1",
        down: "mlp.fc2",
        ..LLAMA_NAMES
    };
    architecture.norm = NormKind::Layer;
    architecture.order = Order::Parallel { ffn_norm: false };
    (architecture.attention.qkv_bias, architecture.attention.out_bias) = (true, true);
    (architecture.head_bias, architecture.ffn_bias) = (true, true);
    Ok(config)
}
