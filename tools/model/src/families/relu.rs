//! Families that were made sparse: an activation that leaves most neurons at zero.

use anyhow::Result;

use super::llama::windowed;
use super::{Defaults, LLAMA, LLAMA_NAMES};
use crate::activation::Activation;
use crate::architecture::{Names, NormKind};
use crate::config::ModelConfig;
use crate::json::Fields;

/// Names of an FFN without a gate.
const UNGATED: Names = Names { gate: None, ..LLAMA_NAMES };

/// ProSparse: Llama with `hidden_act: fatrelu`.
pub(super) fn sparse_llama(fields: &Fields<'_>) -> Result<ModelConfig> {
    Defaults { family: "sparsellama", ..LLAMA }.read(fields)
}

/// SparseLM: Llama with ReLU, over the gate where there is one, though `hidden_act` says silu.
pub(super) fn sparse_lm(fields: &Fields<'_>) -> Result<ModelConfig> {
    let mut config = Defaults { family: "llama_sparse_relu", ..LLAMA }.read(fields)?;
    if fields.flag("sparsity_gated_mlp")? == Some(false) {
        config.architecture.names = UNGATED;
    }
    config.activation = Activation::Relu;
    Ok(config)
}

/// Bamboo and TurboSparse-Mistral: Mistral with ReLU over gate and up; `hidden_act` says relu.
pub(super) fn bamboo(fields: &Fields<'_>) -> Result<ModelConfig> {
    fields.only("hidden_act", "relu")?;
    let mut config = windowed(fields, &Defaults { family: "bamboo", ..LLAMA })?;
    config.activation = Activation::Drelu;
    Ok(config)
}

/// Arcee: Llama without a gate, ReLU squared.
pub(super) fn arcee(fields: &Fields<'_>) -> Result<ModelConfig> {
    let defaults = Defaults {
        family: "arcee",
        bos: Some(128_000),
        eos: Some(128_001),
        norm_eps: ("rms_norm_eps", 1e-5),
        activation: ("hidden_act", "relu2"),
        ..LLAMA
    };
    let mut config = defaults.read(fields)?;
    config.architecture.names = UNGATED;
    Ok(config)
}

/// Nemotron and Minitron: no gate, ReLU squared, LayerNorm with one added to its weights, heads that turn
/// in part.
pub(super) fn nemotron(fields: &Fields<'_>) -> Result<ModelConfig> {
    let defaults = Defaults {
        family: "nemotron",
        bos: Some(2),
        eos: Some(3),
        norm_eps: ("norm_eps", 1e-5),
        partial_rotary: Some(0.5),
        activation: ("hidden_act", "relu2"),
        ..LLAMA
    };
    let mut config = defaults.read(fields)?;
    config.architecture.names = UNGATED;
    config.architecture.norm = NormKind::LayerPlusOne;
    Ok(config)
}

/// BitNet, its weights not quantised: ReLU squared, norms before both output matrices.
pub(super) fn bitnet(fields: &Fields<'_>) -> Result<ModelConfig> {
    let defaults = Defaults {
        family: "bitnet",
        bos: Some(128_000),
        eos: Some(128_001),
        norm_eps: ("rms_norm_eps", 1e-5),
        rope_theta: 500_000.0,
        activation: ("hidden_act", "relu2"),
        ..LLAMA
    };
    let mut config = defaults.read(fields)?;
    config.architecture.names = Names {
        attention_sub_norm: Some("self_attn.attn_sub_norm"),
        ffn_sub_norm: Some("mlp.ffn_sub_norm"),
        ..LLAMA_NAMES
    };
    Ok(config)
}
