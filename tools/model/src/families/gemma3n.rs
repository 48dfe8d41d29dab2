//! Gemma 3n, its text part: hidden states in several streams, inputs of each layer's own, layers that share keys
//! and values, and in the first layers a Gaussian top-k on the gate.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::gemma;
use crate::activation::Activation;
use crate::architecture::{NormKind, StreamsAbout};
use crate::config::ModelConfig;
use crate::json::Fields;

/// Layers that leave neurons at zero where no field says which, of a model of more than as many; and the share that
/// they leave out.
const SPARSE_LAYERS: usize = 10;
const SPARSITY: f64 = 0.95;

pub(super) fn gemma3n(fields: &Fields<'_>) -> Result<ModelConfig> {
    let layers = fields.size("num_hidden_layers")?;
    let mut config = gemma::around(fields, "gemma3n_text", [None, Some(30.0)], 5)?;
    gemma::two_ropes(fields, &mut config)?;
    config.own_activations = (0..layers)
        .map(|layer| sparsity(fields, layer, layers)?.map(topk).transpose())
        .collect::<Result<_>>()?;
    let size =
        |key: &str, default: usize| -> Result<usize> { Ok(fields.whole(key)?.unwrap_or(default)) };
    let streams = StreamsAbout {
        count: size("altup_num_inputs", 4)?,
        active: size("altup_active_idx", 0)?,
        scales: fields.flag("altup_correct_scale")?.unwrap_or(true),
        input_width: size("hidden_size_per_layer_input", 256)?,
        input_vocab: size("vocab_size_per_layer_input", 262_144)?,
        beside_rank: size("laurel_rank", 64)?,
    };
    ensure!(
        (1..=64).contains(&streams.count) && streams.active < streams.count,
        "altup_num_inputs {} with altup_active_idx {} is not supported",
        streams.count,
        streams.active
    );
    for (key, value) in [
        ("hidden_size_per_layer_input", streams.input_width),
        ("vocab_size_per_layer_input", streams.input_vocab),
        ("laurel_rank", streams.beside_rank),
    ] {
        ensure!((1..=1 << 24).contains(&value), "{key} {value} is not supported");
    }
    let sharing = size("num_kv_shared_layers", 15)?;
    let architecture = &mut config.architecture;
    let first_sharing = layers.saturating_sub(sharing);
    ensure!(
        (first_sharing..layers)
            .all(|layer| architecture.layers.shared_from(layer, first_sharing).is_some()),
        "num_kv_shared_layers {sharing} leaves layers without keys and values to share"
    );
    // The weights as they are, and no divisor of scores: queries are normed.
    architecture.norm = NormKind::Rms;
    architecture.attention.scale = 1.0;
    architecture.attention.value_norm = true;
    architecture.attention.sharing_layers = sharing;
    architecture.streams = Some(streams);
    Ok(config)
}

/// The share of its neurons that a layer leaves out; none where it computes all.
fn sparsity(fields: &Fields<'_>, layer: usize, layers: usize) -> Result<Option<f64>> {
    const KEY: &str = "activation_sparsity_pattern";
    let found = match fields.value(KEY) {
        None => {
            let sparse = layers > SPARSE_LAYERS && layer < SPARSE_LAYERS;
            Some(if sparse { SPARSITY } else { 0.0 })
        }
        Some(Value::Array(all)) => {
            let found = all.len();
            ensure!(found == layers, "{KEY} has {found} entries for {layers} layers");
            all[layer].as_f64()
        }
        Some(one) => one.as_f64(),
    };
    let share = found.with_context(|| format!("key `{KEY}` is no list of numbers"))?;
    ensure!((0.0..1.0).contains(&share), "{KEY} {share} is not supported: a share below 1 is");
    Ok(Some(share).filter(|share| *share > 0.0))
}

/// The activation that leaves this share out, were the products normally distributed.
fn topk(share: f64) -> Result<Activation> {
    // The quantile by bisection: the share below x ascends with x.
    let below = |x: f64| 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
    let (mut low, mut high) = (-10.0, 10.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if below(middle) < share { low = middle } else { high = middle }
    }
    Ok(Activation::GaussianTopk { deviations: low as f32 })
}
