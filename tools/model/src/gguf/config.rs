//! What a GGUF file's metadata say of the model, told as `config.json` tells it, so that the pages of the
//! families are the same.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::GgufFile;
use crate::activation::Activation;
use crate::architecture::{NormKind, Qkv, RopeScaling};
use crate::config::ModelConfig;
use crate::json::Fields;

/// Architectures of llama.cpp, and the `model_type` each is.
const ARCHITECTURES: [(&str, &str); 15] = [
    ("arcee", "arcee"),
    // none of llama.cpp's: PowerInfer's
    ("bamboo", "bamboo"),
    ("bitnet", "bitnet"),
    ("falcon", "falcon"),
    ("gemma", "gemma"),
    ("gemma2", "gemma2"),
    ("gemma3", "gemma3_text"),
    ("granite", "granite"),
    ("llama", "llama"),
    ("minicpm", "minicpm"),
    ("nemotron", "nemotron"),
    // none of llama.cpp's: PowerInfer's, by the names and keys of llama.cpp
    ("opt", "opt"),
    ("phi2", "phi"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
];
/// Entries that make of an architecture something else, and what it is called.
const OTHERWISE: [(&str, &str); 2] =
    [("expert_count", "a mixture of experts"), ("attention.key_length_mla", "latent attention")];
/// Key of llama.cpp for an activation, which it writes for few architectures.
const ACTIVATION: &str = "hidden_activation";

/// Entries of the architecture, by their names without its prefix.
struct Entries<'a> {
    gguf: &'a GgufFile,
    architecture: &'a str,
}

impl Entries<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        self.gguf.metadata.number(&self.key(key))
    }

    fn text(&self, key: &str) -> Result<Option<&str>> {
        self.gguf.metadata.text(&self.key(key))
    }

    /// A whole number that is the same for all layers, if they have one each.
    fn whole(&self, key: &str) -> Result<Option<u64>> {
        let key = self.key(key);
        let Some(values) = self.gguf.metadata.wholes(&key)? else { return Ok(None) };
        let first = values.first().copied().unwrap_or(0);
        ensure!(
            values.iter().all(|value| *value == first),
            "metadata `{key}` differs from layer to layer, which is not supported"
        );
        Ok(Some(u64::try_from(first).with_context(|| format!("metadata `{key}` is {first}"))?))
    }

    fn size(&self, key: &str) -> Result<u64> {
        self.whole(key)?.with_context(|| format!("metadata `{}` is missing", self.key(key)))
    }
}

/// Reads the metadata. Of the activation, for which few architectures have an entry, the command line has the last
/// word.
pub(super) fn read(gguf: &GgufFile) -> Result<ModelConfig> {
    let architecture =
        gguf.metadata.text("general.architecture")?.context("no model: no general.architecture")?;
    let Some((_, model_type)) = ARCHITECTURES.iter().find(|(name, _)| *name == architecture) else {
        let names = ARCHITECTURES.map(|(name, _)| name).join(", ");
        bail!("architecture `{architecture}` is not supported; supported are: {names}");
    };
    let entries = Entries { gguf, architecture };
    for (key, what) in OTHERWISE {
        let there = entries.whole(key)?.unwrap_or(0) > 0;
        ensure!(!there, "metadata `{}`: {what} is not supported", entries.key(key));
    }
    let mut fields = sizes(&entries, model_type)?;
    rope(&entries, &mut fields)?;
    special_tokens(gguf, &mut fields)?;
    of_family(&entries, &mut fields)?;
    // Absent and null are not the same to the families.
    fields.retain(|_, value| !value.is_null());
    let mut config = ModelConfig::from_fields(&Fields(&fields))?;
    // what PowerInfer computes, whatever is usual elsewhere
    if gguf.is_powerinfer && matches!(architecture, "falcon" | "llama") {
        config.activation = Activation::Relu;
    }
    if let Some(name) = entries.text(ACTIVATION)? {
        config.activation = name
            .parse()
            .or_else(|_| Activation::named(name, &Fields(&Map::new())))
            .with_context(|| format!("metadata `{}`", entries.key(ACTIVATION)))?;
    }
    as_converted(gguf, &mut config)?;
    Ok(config)
}

/// What every architecture has.
fn sizes(entries: &Entries<'_>, model_type: &str) -> Result<Map<String, Value>> {
    let (heads, layers) = (entries.size("attention.head_count")?, entries.size("block_count")?);
    let (keys, values) = ("attention.key_length", "attention.value_length");
    let (key_length, value_length) = (entries.whole(keys)?, entries.whole(values)?);
    ensure!(
        key_length == value_length,
        "metadata `{}` and `{}` differ, which is not supported",
        entries.key(keys),
        entries.key(values)
    );
    let (_, embedding) =
        entries.gguf.tensor("token_embd.weight").context("no token_embd.weight")?;
    let neurons = entries.size("feed_forward_length")?;
    let eps = entries
        .number("attention.layer_norm_rms_epsilon")?
        .or(entries.number("attention.layer_norm_epsilon")?);
    let fields = json!({
        "model_type": model_type, "num_hidden_layers": layers, "num_attention_heads": heads,
        "hidden_size": entries.size("embedding_length")?,
        "num_key_value_heads": entries.whole("attention.head_count_kv")?.unwrap_or(heads),
        "head_dim": key_length, "vocab_size": embedding.shape[0],
        "max_position_embeddings": entries.size("context_length")?,
        "intermediate_size": neurons, "ffn_dim": neurons, "ffn_hidden_size": neurons,
        "rms_norm_eps": eps, "norm_eps": eps, "layer_norm_eps": eps, "layer_norm_epsilon": eps,
        "sliding_window": entries.whole("attention.sliding_window")?,
        // llama.cpp's converters leave out a head that is the embeddings
        "tie_word_embeddings": entries.gguf.tensor("output.weight").is_none(),
    });
    Ok(serde_json::from_value(fields)?)
}

/// Rotary positions.
fn rope(entries: &Entries<'_>, fields: &mut Map<String, Value>) -> Result<()> {
    let theta = entries.number("rope.freq_base")?;
    fields.insert("rope_theta".into(), json!(theta));
    let head_dim = match fields["head_dim"].as_u64() {
        Some(head_dim) => head_dim,
        None => entries
            .size("embedding_length")?
            .checked_div(entries.size("attention.head_count")?)
            .unwrap_or(0),
    };
    if let Some(columns) = entries.whole("rope.dimension_count")? {
        let share = columns as f64 / head_dim.max(1) as f64;
        fields.insert("partial_rotary_factor".into(), json!(share));
    }
    let legacy = entries.number("rope.scale_linear")?;
    let kind = entries.text("rope.scaling.type")?;
    let kind = kind.unwrap_or(if legacy.is_some() { "linear" } else { "none" });
    if kind != "none" {
        let factor = entries.number("rope.scaling.factor")?.or(legacy);
        // llama.cpp multiplies what Hugging Face takes where nothing is said
        let usual = 0.1 * factor.unwrap_or(1.0).max(1.0).ln() + 1.0;
        let magnitude = entries.number("rope.scaling.attn_factor")?.map(|by| by * usual);
        let scaling = json!({
            "rope_type": kind,
            "factor": factor,
            "original_max_position_embeddings":
                entries.number("rope.scaling.original_context_length")?,
            "attention_factor": magnitude,
            "beta_fast": entries.number("rope.scaling.yarn_beta_fast")?,
            "beta_slow": entries.number("rope.scaling.yarn_beta_slow")?,
        });
        fields.insert("rope_scaling".into(), scaling);
    }
    Ok(())
}

/// The tokens that a text begins and ends with.
fn special_tokens(gguf: &GgufFile, fields: &mut Map<String, Value>) -> Result<()> {
    let id = |name: &str| gguf.metadata.whole(&format!("tokenizer.ggml.{name}_token_id"));
    let mut ends = Vec::new();
    for name in ["eos", "eot", "eom"] {
        ends.extend(id(name)?.filter(|id| !ends.contains(id)));
    }
    fields.insert("eos_token_id".into(), json!(ends));
    fields.insert("bos_token_id".into(), json!(id("bos")?.map_or(-1, |id| id as i64)));
    Ok(())
}

/// What some families have besides.
fn of_family(entries: &Entries<'_>, fields: &mut Map<String, Value>) -> Result<()> {
    let hidden = entries.size("embedding_length")?;
    let layers = entries.size("block_count")?;
    let (scale, logit_scale) = (entries.number("embedding_scale")?, entries.number("logit_scale")?);
    let residual = entries.number("residual_scale")?;
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    match entries.architecture {
        // MiniCPM's older files say none of these: llama.cpp takes those of the first models
        "minicpm" => {
            put("scale_emb", json!(scale.unwrap_or(12.0)));
            let depth = residual.map_or(1.4, |scale| scale * (layers as f64).sqrt());
            put("scale_depth", json!(depth));
            let base = logit_scale.map_or(256.0, |scale| hidden as f64 / scale);
            put("dim_model_base", json!(base));
        }
        "granite" => {
            put("embedding_multiplier", json!(scale));
            put("residual_multiplier", json!(residual));
            put("logits_scaling", json!(logit_scale));
            put("attention_multiplier", json!(entries.number("attention.scale")?));
        }
        "gemma2" | "gemma3" => {
            put("attn_logit_softcapping", json!(entries.number("attn_logit_softcapping")?));
            put("final_logit_softcapping", json!(entries.number("final_logit_softcapping")?));
            // The file does not say what scores are divided by. llama.cpp tells the largest of each, whose
            // heads are not what is taken, by their layers.
            let heads = entries.size("attention.head_count")?;
            let largest = matches!((entries.architecture, layers), ("gemma2", 46) | ("gemma3", 62));
            let of_head = entries.whole("attention.key_length")?.unwrap_or(256);
            let scalar = if largest { hidden.checked_div(heads).unwrap_or(0) } else { of_head };
            put("query_pre_attn_scalar", json!(scalar));
            let period = entries.whole("attention.sliding_window_pattern")?;
            put("sliding_window_pattern", json!(period));
            put("rope_local_base_freq", json!(entries.number("rope.freq_base_swa")?));
        }
        "falcon" => {
            // The older form shares one key-value head; converted, both lie the same.
            let kv_heads = entries.whole("attention.head_count_kv")?.unwrap_or(1);
            let own_norms = entries.gguf.tensor("blk.0.attn_norm_2.weight").is_some();
            put("new_decoder_architecture", json!(true));
            put("num_kv_heads", json!(kv_heads));
            put("num_ln_in_parallel_attn", json!(if own_norms { 2 } else { 1 }));
            put("bias", json!(entries.gguf.tensor("blk.0.ffn_up.bias").is_some()));
        }
        "opt" => {
            let has = |name: &str| entries.gguf.tensor(name).is_some();
            // PowerInfer's converter counts the rows of the table, of which two are for padding.
            let rows = entries.gguf.tensor("position_embd.weight").map(|(_, found)| found.shape[0]);
            let length = entries.size("context_length")?;
            let positions = rows.map_or(length, |rows| length.min((rows as u64).saturating_sub(2)));
            put("max_position_embeddings", json!(positions));
            put("enable_bias", json!(has("blk.0.ffn_up.bias")));
            put("_remove_final_layer_norm", json!(!has("output_norm.weight")));
        }
        "llama" | "arcee" => {
            let has = |name: &str| entries.gguf.tensor(name).is_some();
            put("attention_bias", json!(has("blk.0.attn_q.bias")));
            put("mlp_bias", json!(has("blk.0.ffn_up.bias")));
        }
        _ => {}
    }
    Ok(())
}

/// What llama.cpp's converters changed in the tensors.
fn as_converted(gguf: &GgufFile, config: &mut ModelConfig) -> Result<()> {
    let architecture = &mut config.architecture;
    architecture.norm = match architecture.norm {
        // the one is added already
        NormKind::LayerPlusOne => NormKind::Layer,
        NormKind::RmsPlusOne => NormKind::Rms,
        other => other,
    };
    // rows of queries, then of keys, then of values
    if let Qkv::Grouped(_) = architecture.names.qkv {
        let parts = ["self_attention.query", "self_attention.key", "self_attention.value"];
        architecture.names.qkv = Qkv::Apart(parts);
    }
    // Llama 3.1's frequencies, as what they are divided by
    if let Some((file, tensor)) = gguf.tensor("rope_freqs.weight") {
        let bytes = usize::try_from(tensor.bytes)?;
        let bytes = gguf.files[file].read(&tensor.name, tensor.offset, bytes)?;
        let divisors = crate::stored::to_f32(tensor.dtype, &bytes).unwrap_or_default();
        for rope in &mut architecture.ropes {
            let (found, expected) = (divisors.len(), rope.columns / 2);
            ensure!(
                found == expected,
                "tensor `{}` has {found} numbers, its metadata makes it {expected}",
                tensor.name
            );
            rope.scaling = RopeScaling::Divided(divisors.clone());
        }
    }
    Ok(())
}
