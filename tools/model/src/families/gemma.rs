//! Gemma 1 to 3: RMSNorm with one added to its weights, scaled embeddings, GELU on the gate.

use anyhow::{Context, Result};

use super::{Defaults, LLAMA, LLAMA_NAMES, rope_scaling, sliding};
use crate::activation::Activation;
use crate::architecture::{Names, NormKind, Order, Rope, RopeScaling, Slides};
use crate::config::ModelConfig;
use crate::json::Fields;

/// The four norms of a layer since Gemma 2.
const AROUND: Names = Names {
    ffn_norm: "pre_feedforward_layernorm",
    after: ["post_attention_layernorm", "post_feedforward_layernorm"],
    ..LLAMA_NAMES
};

const GEMMA: Defaults = Defaults {
    family: "gemma",
    bos: Some(2),
    eos: Some(1),
    activation: ("hidden_activation", "gelu_pytorch_tanh"),
    tied: true,
    ..LLAMA
};

fn read(fields: &Fields<'_>, defaults: &Defaults) -> Result<ModelConfig> {
    fields.only("use_bidirectional_attention", false)?;
    let mut config = defaults.read(fields)?;
    config.architecture.norm = NormKind::RmsPlusOne;
    config.architecture.embedding_scale = Some((config.hidden as f64).sqrt());
    Ok(config)
}

/// Gemma 1. Its `hidden_act: gelu` means the approximation.
pub(super) fn gemma(fields: &Fields<'_>) -> Result<ModelConfig> {
    let mut config = read(fields, &GEMMA)?;
    if let Some(name) =
        fields.text("hidden_act")?.filter(|_| fields.value("hidden_activation").is_none())
    {
        config.activation = Activation::named(name, fields)?;
    }
    if config.activation == Activation::Gelu {
        config.activation = Activation::GeluTanh;
    }
    Ok(config)
}

/// Gemma 2: norms around attention and FFN, caps on scores and logits, a window in every other layer.
pub(super) fn gemma2(fields: &Fields<'_>) -> Result<ModelConfig> {
    around(fields, "gemma2", [Some(50.0), Some(30.0)], 2)
}

/// Gemma 3, its text part: norms over each head, a window in five of six layers, which turn slower.
pub(super) fn gemma3(fields: &Fields<'_>) -> Result<ModelConfig> {
    let period = fields.whole("sliding_window_pattern")?.unwrap_or(6);
    let mut config = around(fields, "gemma3_text", [None, None], period)?;
    two_ropes(fields, &mut config)?;
    Ok(config)
}

/// What Gemma has since 3: positions that turn slower in a window, and norms over each head.
pub(super) fn two_ropes(fields: &Fields<'_>, config: &mut ModelConfig) -> Result<()> {
    let parameters = fields.object("rope_parameters")?;
    let of_kind = |kind: &str| parameters.map_or(Ok(None), |all| all.object(kind));
    let rope = |kind: &str, theta: &str, default: f64, older: &str| -> Result<Rope> {
        let found = of_kind(kind)?;
        let inner = found.map_or(Ok(None), |rope| rope.number("rope_theta"))?;
        let theta = inner.or(fields.number(theta)?).unwrap_or(default);
        let scaling = match found.or(fields.object(older)?) {
            Some(rope) => rope_scaling(&rope)?,
            None => RopeScaling::None,
        };
        Ok(Rope { theta, columns: config.head_dim, scaling })
    };
    let ropes = vec![
        rope("full_attention", "rope_theta", 1e6, "rope_scaling")?,
        rope("sliding_attention", "rope_local_base_freq", 1e4, "")?,
    ];
    let architecture = &mut config.architecture;
    architecture.ropes = ropes;
    architecture.layers.sliding.rope = Some(1);
    architecture.attention.head_norms = Some(["self_attn.q_norm", "self_attn.k_norm"]);
    Ok(())
}

/// `caps`: of scores and of logits, where the fields are absent; `period`: the layers of which one sees everything.
pub(super) fn around(
    fields: &Fields<'_>,
    family: &'static str,
    caps: [Option<f64>; 2],
    period: usize,
) -> Result<ModelConfig> {
    let mut config = read(fields, &Defaults { family, ..GEMMA })?;
    let cap = |key: &str, default: Option<f64>| -> Result<Option<f64>> {
        Ok(fields.number(key)?.or(default.filter(|_| !fields.mentions(key))))
    };
    let window = fields.whole("sliding_window")?.context("key `sliding_window` is missing")?;
    let layers = sliding(fields, config.layers, Some(window), Slides::AllBut(period.max(1)))?;
    let architecture = &mut config.architecture;
    architecture.names = AROUND;
    architecture.order = Order::Around;
    architecture.layers = layers;
    architecture.attention.scale =
        1.0 / fields.number("query_pre_attn_scalar")?.unwrap_or(256.0).sqrt();
    architecture.attention.cap = cap("attn_logit_softcapping", caps[0])?;
    architecture.logit_cap = cap("final_logit_softcapping", caps[1])?;
    Ok(config)
}
