//! Llama and the families that differ from it in a field or two; none of them sparse but where the
//! activation was changed.

use anyhow::Result;

use super::{Defaults, LLAMA, sliding};
use crate::architecture::Slides;
use crate::config::ModelConfig;
use crate::json::Fields;

/// Llama 1 to 3, TinyLlama, SmolLM, MobiLlama, ReluLLaMA.
pub(super) fn llama(fields: &Fields<'_>) -> Result<ModelConfig> {
    LLAMA.read(fields)
}

/// Mistral sees a window, of 4,096 tokens where the field is absent and not null.
pub(super) fn mistral(fields: &Fields<'_>) -> Result<ModelConfig> {
    windowed(fields, &Defaults { family: "mistral", ..LLAMA })
}

/// A decoder all of whose layers see a window as Mistral's.
pub(super) fn windowed(fields: &Fields<'_>, defaults: &Defaults) -> Result<ModelConfig> {
    let mut config = defaults.read(fields)?;
    let usual = (!fields.mentions("sliding_window")).then_some(4096);
    let window = fields.whole("sliding_window")?.or(usual);
    config.architecture.layers = sliding(fields, config.layers, window, Slides::From(0))?;
    Ok(config)
}

/// Qwen2 and 2.5: biases on queries, keys and values, whatever the fields say.
pub(super) fn qwen2(fields: &Fields<'_>) -> Result<ModelConfig> {
    let mut config = qwen(fields, "qwen2")?;
    config.architecture.attention.qkv_bias = true;
    config.architecture.attention.out_bias = false;
    Ok(config)
}

/// Qwen3: no biases, norms over each head.
pub(super) fn qwen3(fields: &Fields<'_>) -> Result<ModelConfig> {
    let mut config = qwen(fields, "qwen3")?;
    config.architecture.attention.head_norms = Some(["self_attn.q_norm", "self_attn.k_norm"]);
    Ok(config)
}

fn qwen(fields: &Fields<'_>, family: &'static str) -> Result<ModelConfig> {
    let mut config = Defaults { family, bos: None, eos: None, ..LLAMA }.read(fields)?;
    if fields.flag("use_sliding_window")? == Some(true) {
        let window = fields.whole("sliding_window")?.unwrap_or(4096);
        let first = fields.whole("max_window_layers")?.unwrap_or(28);
        config.architecture.layers =
            sliding(fields, config.layers, Some(window), Slides::From(first))?;
    }
    Ok(config)
}

/// MiniCPM and MiniCPM-S: embeddings, residuals and hidden state scaled.
pub(super) fn minicpm(fields: &Fields<'_>) -> Result<ModelConfig> {
    let mut config = Defaults { family: "minicpm", tied: true, ..LLAMA }.read(fields)?;
    let number = |key: &str| Ok::<_, anyhow::Error>(fields.number(key)?.unwrap_or(1.0));
    let layers = config.layers as f64;
    let architecture = &mut config.architecture;
    architecture.embedding_scale = Some(number("scale_emb")?);
    architecture.residual_scale = Some(number("scale_depth")? / layers.sqrt());
    architecture.head_scale = Some(number("dim_model_base")? / config.hidden as f64);
    Ok(config)
}

/// Granite: as MiniCPM, and a factor for the scores.
pub(super) fn granite(fields: &Fields<'_>) -> Result<ModelConfig> {
    let mut config = Defaults { family: "granite", ..LLAMA }.read(fields)?;
    let number = |key: &str| Ok::<_, anyhow::Error>(fields.number(key)?.unwrap_or(1.0));
    let architecture = &mut config.architecture;
    architecture.embedding_scale = Some(number("embedding_multiplier")?);
    architecture.residual_scale = Some(number("residual_multiplier")?);
    architecture.head_scale = Some(1.0 / number("logits_scaling")?);
    architecture.attention.scale = number("attention_multiplier")?;
    Ok(config)
}
