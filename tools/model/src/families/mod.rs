//! The families: what `config.json` means for each. A family is a page of facts; its line in
//! [`FAMILIES`] is the one place where it is named.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::activation::Activation;
use super::architecture::{
    Architecture, Attention, LayerKind, Layers, Names, NormKind, Order, Qkv, Rope, RopeScaling,
    Slides,
};
use super::config::ModelConfig;
use super::json::Fields;

mod falcon;
mod gemma;
mod gemma3n;
mod llama;
mod opt;
mod relu;

/// Reads a configuration.
type Page = fn(&Fields<'_>) -> Result<ModelConfig>;

/// `model_type`, and who reads it.
const FAMILIES: [(&str, Page); 19] = [
    ("arcee", relu::arcee),
    ("bamboo", relu::bamboo),
    ("bitnet", relu::bitnet),
    ("falcon", falcon::falcon),
    ("gemma", gemma::gemma),
    ("gemma2", gemma::gemma2),
    ("gemma3_text", gemma::gemma3),
    ("gemma3n_text", gemma3n::gemma3n),
    ("granite", llama::granite),
    ("llama", llama::llama),
    ("llama_sparse_relu", relu::sparse_lm),
    ("minicpm", llama::minicpm),
    ("mistral", llama::mistral),
    ("nemotron", relu::nemotron),
    ("opt", opt::opt),
    ("phi", falcon::phi),
    ("qwen2", llama::qwen2),
    ("qwen3", llama::qwen3),
    ("sparsellama", relu::sparse_llama),
];

/// Fields that make of any family something else, and what it is called.
const OTHERWISE: [(&str, &str); 5] = [
    ("num_experts", "a mixture of experts"),
    ("num_local_experts", "a mixture of experts"),
    ("n_routed_experts", "a mixture of experts"),
    ("quantization_config", "a quantised checkpoint"),
    ("vision_config", "a model with images"),
];

/// Models with more than text: `model_type`, that of the text part, and what its tensors' names begin with.
const WITH_TEXT: [(&str, &str, &[&str]); 1] = [(
    "gemma3n",
    "gemma3n_text",
    &["model.language_model.", "language_model.model.", "language_model."],
)];

/// Reads the fields of a `config.json`.
///
/// # Errors
/// Another family, or something in it that is not supported: the message names the field.
pub(super) fn read(fields: &Fields<'_>) -> Result<ModelConfig> {
    let model_type = fields.text("model_type")?.unwrap_or("(missing)");
    if let Some((_, text, prefixes)) = WITH_TEXT.iter().find(|(name, ..)| *name == model_type) {
        let context = || format!("text_config of `{model_type}`");
        let inner = fields.object("text_config")?.with_context(context)?;
        let found = inner.text("model_type")?;
        ensure!(found == Some(text), "model_type {found:?} in {} is not supported", context());
        let mut config = read(&inner).with_context(context)?;
        config.architecture.names.prefixes = prefixes;
        return Ok(config);
    }
    for (key, what) in OTHERWISE {
        let there = fields.value(key).filter(|value| value.as_u64() != Some(0));
        ensure!(there.is_none(), "`{key}`: {what} is not supported");
    }
    let Some((_, page)) = FAMILIES.iter().find(|(name, _)| *name == model_type) else {
        let names: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
        bail!("model_type `{model_type}` is not supported; supported are: {}", names.join(", "));
    };
    page(fields)
}

/// The names of most families since Llama.
const LLAMA_NAMES: Names = Names {
    prefixes: &["model.", ""],
    layers: "layers.",
    embedding: "embed_tokens",
    final_norm: "norm",
    qkv: Qkv::Apart(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    attention_out: "self_attn.o_proj",
    attention_sub_norm: None,
    attention_norm: "input_layernorm",
    ffn_norm: "post_attention_layernorm",
    after: ["", ""],
    gate: Some("mlp.gate_proj"),
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    ffn_sub_norm: None,
};

/// What a family takes for fields that are absent, and how it names them. As it stands here: Llama.
struct Defaults {
    family: &'static str,
    bos: Option<u32>,
    eos: Option<u32>,
    /// Key and value of the norms' epsilon.
    norm_eps: (&'static str, f64),
    rope_theta: f64,
    /// Share of a head's columns that turn; the field is honoured only where families have it.
    partial_rotary: Option<f64>,
    /// Key and value.
    activation: (&'static str, &'static str),
    tied: bool,
    /// Key of the neurons' number, and how many times the hidden size it is where it is absent.
    neurons: &'static str,
    neurons_by_hidden: Option<usize>,
    max_positions: Option<usize>,
}

const LLAMA: Defaults = Defaults {
    family: "llama",
    bos: Some(1),
    eos: Some(2),
    norm_eps: ("rms_norm_eps", 1e-6),
    rope_theta: 10_000.0,
    partial_rotary: None,
    activation: ("hidden_act", "silu"),
    tied: false,
    neurons: "intermediate_size",
    neurons_by_hidden: None,
    max_positions: None,
};

impl Defaults {
    /// A decoder as Llama's: RMSNorm before attention and FFN, rotary positions, a gate, no biases but
    /// where a field says so. The pages change what differs.
    fn read(&self, fields: &Fields<'_>) -> Result<ModelConfig> {
        let (hidden, heads) = (fields.size("hidden_size")?, fields.size("num_attention_heads")?);
        let layers = fields.size("num_hidden_layers")?;
        let vocab = fields.size("vocab_size")?;
        let head_dim = fields.whole("head_dim")?;
        let head_dim = head_dim.unwrap_or(hidden.checked_div(heads).unwrap_or(0));
        let (eps_key, eps) = self.norm_eps;
        let (act_key, act) = self.activation;
        let bias = fields.flag("attention_bias")?.unwrap_or(false);
        let special = |key: &str, default: Option<u32>| -> Result<Vec<u32>> {
            // null is none, absent is the family's default
            let default = default.filter(|id| !fields.mentions(key) && (*id as usize) < vocab);
            Ok(fields.ids(key)?.unwrap_or_else(|| default.into_iter().collect()))
        };
        let or_size = |key: &str, default: Option<usize>| -> Result<usize> {
            fields.whole(key)?.or(default).map_or_else(|| fields.size(key), Ok)
        };
        let neurons = self.neurons_by_hidden.map(|times| times.saturating_mul(hidden));
        Ok(ModelConfig {
            family: self.family,
            layers,
            neurons: of_all_layers(fields, self.neurons, layers, neurons)?,
            hidden,
            heads,
            kv_heads: fields.whole("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            vocab,
            max_positions: or_size("max_position_embeddings", self.max_positions)?,
            bos_token_id: special("bos_token_id", self.bos)?.first().copied(),
            eos_token_ids: special("eos_token_id", self.eos)?,
            tie_word_embeddings: fields.flag("tie_word_embeddings")?.unwrap_or(self.tied),
            norm_eps: fields.number(eps_key)?.unwrap_or(eps),
            activation: Activation::named(fields.text(act_key)?.unwrap_or(act), fields)?,
            own_activations: Vec::new(),
            activity: None,
            prefix: LLAMA_NAMES.prefixes[0].to_owned(),
            architecture: Architecture {
                names: LLAMA_NAMES,
                norm: NormKind::Rms,
                order: Order::Before,
                final_norm: true,
                embedding_width: hidden,
                learned_positions: None,
                attention: Attention {
                    qkv_bias: bias,
                    out_bias: bias,
                    scale: 1.0 / (head_dim as f64).sqrt(),
                    cap: None,
                    head_norms: None,
                    value_norm: false,
                    sharing_layers: 0,
                },
                layers: sliding(fields, layers, None, Slides::None)?,
                ropes: vec![self.rope(fields, head_dim)?],
                embedding_scale: None,
                residual_scale: None,
                head_scale: None,
                head_bias: false,
                logit_cap: None,
                ffn_bias: fields.flag("mlp_bias")?.unwrap_or(false),
                streams: None,
            },
        })
    }

    /// The rotary positions, in the form of today (`rope_parameters`) or of before.
    fn rope(&self, fields: &Fields<'_>, head_dim: usize) -> Result<Rope> {
        let parameters = fields.object("rope_parameters")?;
        let theta = parameters.map_or(Ok(None), |rope| rope.number("rope_theta"))?;
        let theta = theta.or(fields.number("rope_theta")?).unwrap_or(self.rope_theta);
        let factor = "partial_rotary_factor";
        let inner = parameters.map_or(Ok(None), |rope| rope.number(factor))?;
        let share = inner.or(fields.number(factor)?).unwrap_or(self.partial_rotary.unwrap_or(1.0));
        ensure!(
            share == 1.0 || self.partial_rotary.is_some() && share > 0.0 && share < 1.0,
            "partial_rotary_factor {share} is not supported for {}",
            self.family
        );
        let columns = (head_dim as f64 * share) as usize;
        ensure!(
            share == 1.0 || columns > 0,
            "partial_rotary_factor {share} leaves nothing to turn"
        );
        let scaling = match parameters.or(fields.object("rope_scaling")?) {
            Some(rope) => rope_scaling(&rope)?,
            None => RopeScaling::None,
        };
        Ok(Rope { theta, columns, scaling })
    }
}

/// A size that a field has as a number, or as a list of the same one for every layer.
fn of_all_layers(
    fields: &Fields<'_>,
    key: &str,
    layers: usize,
    default: Option<usize>,
) -> Result<usize> {
    let Some(list) = fields.value(key).and_then(Value::as_array) else {
        return fields.whole(key)?.or(default).map_or_else(|| fields.size(key), Ok);
    };
    let found = list.len();
    ensure!(found == layers, "{key} has {found} entries for {layers} layers");
    let size = list
        .first()
        .and_then(Value::as_u64)
        .with_context(|| format!("key `{key}` is neither a whole number nor a list of them"))?;
    let alike = list.iter().all(|other| other.as_u64() == Some(size));
    ensure!(alike, "{key} differs from layer to layer: not supported");
    Ok(size.try_into()?)
}

/// How a family's frequencies are scaled.
fn rope_scaling(rope: &Fields<'_>) -> Result<RopeScaling> {
    // `type` is what older files call it.
    let kind = rope.text("rope_type")?.or(rope.text("type")?).unwrap_or("default");
    let number = |key: &str| -> Result<f64> {
        let found =
            rope.number(key)?.with_context(|| format!("rope_type `{kind}` needs `{key}`"))?;
        ensure!(found > 0.0, "`{key}` of rope_type `{kind}` is {found}: it must be above zero");
        Ok(found)
    };
    Ok(match kind {
        // Dynamic scaling begins beyond max_position_embeddings, where a text ends here.
        "default" | "dynamic" => RopeScaling::None,
        "linear" => RopeScaling::Linear(number("factor")?),
        "llama3" => RopeScaling::Llama3 {
            factor: number("factor")?,
            low: number("low_freq_factor")?,
            high: number("high_freq_factor")?,
            original: number("original_max_position_embeddings")?,
        },
        "yarn" => {
            rope.only("truncate", true)?;
            let factor = number("factor")?;
            let grown = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
            let magnitude = match (rope.number("mscale")?, rope.number("mscale_all_dim")?) {
                (Some(some), Some(all)) if some != 0.0 && all != 0.0 => grown(some) / grown(all),
                _ => grown(1.0),
            };
            RopeScaling::Yarn {
                factor,
                slow: rope.number("beta_slow")?.unwrap_or(1.0),
                fast: rope.number("beta_fast")?.unwrap_or(32.0),
                original: number("original_max_position_embeddings")?,
                magnitude: rope.number("attention_factor")?.unwrap_or(magnitude),
            }
        }
        _ => bail!(
            "rope_type `{kind}` is not supported; supported are: default, linear, dynamic, llama3, \
             yarn"
        ),
    })
}

/// Layers that see no further than a window: those that `layer_types` says, else those that `slides`
/// says.
fn sliding(
    fields: &Fields<'_>,
    layers: usize,
    window: Option<usize>,
    mut slides: Slides,
) -> Result<Layers> {
    if let Some(types) = fields.texts("layer_types")? {
        let found = types.len();
        ensure!(found == layers, "layer_types has {found} entries for {layers} layers");
        let is_sliding = |kind: &&str| match *kind {
            "sliding_attention" => Ok(true),
            "full_attention" => Ok(false),
            other => bail!("layer_types `{other}` is not supported"),
        };
        slides = Slides::Listed(types.iter().map(is_sliding).collect::<Result<_>>()?);
    }
    let Some(window) = window else { return Ok(Layers::FULL) };
    ensure!(window > 0, "number of sliding_window is zero");
    let sliding = LayerKind { window: Some(window), ..Layers::FULL.full };
    Ok(Layers { sliding, slides, ..Layers::FULL })
}
