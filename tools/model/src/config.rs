//! What `config.json` says about a model, reduced to what is supported.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use lnp_common::files::read_text;
use serde::Deserialize;

use super::checkpoint::{CONFIG_FILE, Checkpoint, GENERATION_FILE};

/// Longest config.json, bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 24;

/// Architectures that can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// OPT: LayerNorm before each block, learned positions, FFN of two parts with biases.
    Opt,
    /// Llama: RMSNorm, rotary positions, gated FFN of three parts without biases.
    Llama,
}

/// Activation of the FFN: what makes a neuron inactive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0): a neuron is active if and only if its pre-activation is above zero.
    Relu,
}

/// A supported model, as `config.json` describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Architecture.
    pub family: Family,
    /// Decoder layers.
    pub layers: usize,
    /// FFN neurons per layer.
    pub neurons: usize,
    /// Width of the hidden state; a multiple of 32.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Token ids are below this.
    pub vocab: usize,
    /// Longest context, in tokens.
    pub max_positions: usize,
    /// Token that a text begins with, if there is one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text: as `generation_config.json` says, else `config.json`.
    pub eos_token_ids: Vec<u32>,
    /// Whether the output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Epsilon of LayerNorm or RMSNorm.
    pub norm_eps: f64,
    /// Base of the rotary frequencies (Llama only).
    pub rope_theta: f64,
    /// FFN activation.
    pub activation: Activation,
    /// What the names of the decoder's tensors begin with.
    pub prefix: String,
}

/// Names of the FFN tensors of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FfnTensors {
    /// `[neurons, hidden]`; gated FFNs only.
    pub gate: Option<String>,
    /// `[neurons, hidden]`.
    pub up: String,
    /// `[hidden, neurons]`.
    pub down: String,
    /// `[neurons]`.
    pub up_bias: Option<String>,
    /// `[hidden]`.
    pub down_bias: Option<String>,
}

impl FfnTensors {
    /// The matrix `[neurons, hidden]` whose product decides which neurons are active: gate, else
    /// up.
    pub fn deciding(&self) -> &str {
        self.gate.as_deref().unwrap_or(&self.up)
    }
}

/// The keys of config.json that matter, all optional: what is missing takes the default that
/// transformers gives it.
#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    activation_function: Option<String>,
    hidden_act: Option<String>,
    num_hidden_layers: Option<usize>,
    ffn_dim: Option<usize>,
    intermediate_size: Option<usize>,
    hidden_size: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<Ids>,
    tie_word_embeddings: Option<bool>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_parameters: Option<Rope>,
    rope_scaling: Option<Rope>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    do_layer_norm_before: Option<bool>,
    word_embed_proj_dim: Option<usize>,
    enable_bias: Option<bool>,
    layer_norm_elementwise_affine: Option<bool>,
    #[serde(rename = "_remove_final_layer_norm")]
    remove_final_layer_norm: Option<bool>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

impl Ids {
    fn all(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

/// What matters of `generation_config.json`.
#[derive(Deserialize)]
struct Generation {
    eos_token_id: Option<Ids>,
}

#[derive(Deserialize)]
struct Rope {
    rope_theta: Option<f64>,
    /// `type` is what older files call it.
    #[serde(alias = "type")]
    rope_type: Option<String>,
    partial_rotary_factor: Option<f64>,
}

impl ModelConfig {
    /// Reads `config.json` of a model folder and finds the prefix of its tensor names.
    ///
    /// # Errors
    /// An unreadable file, an unsupported model (the message says what is supported), or a
    /// checkpoint without the expected tensors.
    pub fn load(dir: &Path, checkpoint: &Checkpoint) -> Result<Self> {
        let path = dir.join(CONFIG_FILE);
        let text = read_text(&path, CONFIG_BYTES_MAX)?;
        let mut config = Self::from_json(&text).with_context(|| path.display().to_string())?;
        if let Some(ids) = generation_eos(dir)? {
            config.eos_token_ids = ids;
        }
        let prefixes: &[&str] = match config.family {
            Family::Opt => &["model.decoder.", "decoder."],
            Family::Llama => &["model.", ""],
        };
        let found =
            prefixes.iter().find(|p| checkpoint.contains(&format!("{p}embed_tokens.weight")));
        let Some(prefix) = found else {
            bail!(
                "{}: no tensor `{}embed_tokens.weight` in the checkpoint, expected for {:?}",
                dir.display(),
                prefixes[0],
                config.family
            );
        };
        config.prefix = (*prefix).to_owned();
        Ok(config)
    }

    /// Parses the text of a `config.json`; tensor names get their usual prefix.
    ///
    /// # Errors
    /// Invalid JSON, a missing key, or a model that is not supported.
    pub fn from_json(text: &str) -> Result<Self> {
        let raw: Raw = serde_json::from_str(text).context("not a model configuration")?;
        let config = match raw.model_type.as_deref() {
            Some("opt") => opt(&raw)?,
            Some("llama") => llama(&raw)?,
            other => bail!(
                "model_type `{}` is not supported; supported are: opt, llama",
                other.unwrap_or("(missing)")
            ),
        };
        config.check()?;
        Ok(config)
    }

    /// Parts of a bundle: up row and down column (OPT), with the gate row before them (Llama).
    pub fn parts(&self) -> usize {
        match self.family {
            Family::Opt => 2,
            Family::Llama => 3,
        }
    }

    /// What the names of a layer's tensors begin with, final dot included.
    pub fn layer_prefix(&self, layer: usize) -> String {
        format!("{}layers.{layer}.", self.prefix)
    }

    /// Names of the FFN tensors of a layer.
    pub fn ffn_tensors(&self, layer: usize) -> FfnTensors {
        let name = |end: &str| format!("{}{end}", self.layer_prefix(layer));
        match self.family {
            Family::Opt => FfnTensors {
                gate: None,
                up: name("fc1.weight"),
                down: name("fc2.weight"),
                up_bias: Some(name("fc1.bias")),
                down_bias: Some(name("fc2.bias")),
            },
            Family::Llama => FfnTensors {
                gate: Some(name("mlp.gate_proj.weight")),
                up: name("mlp.up_proj.weight"),
                down: name("mlp.down_proj.weight"),
                up_bias: None,
                down_bias: None,
            },
        }
    }

    /// Checks that every matrix of every FFN is there, of the shape that `config.json` makes it: what
    /// is set aside for layers and neurons is then backed by weights.
    ///
    /// Not done on loading: a pack of placeholders may be of any shape.
    ///
    /// # Errors
    /// The first that is missing or of another shape.
    pub fn check_ffn(&self, checkpoint: &Checkpoint) -> Result<()> {
        let check = |name: &str, shape: [usize; 2]| -> Result<()> {
            let found = checkpoint.shape(name)?;
            ensure!(
                found == shape,
                "{}: tensor `{name}` has shape {found:?}, config.json makes it {shape:?}",
                checkpoint.dir().display()
            );
            Ok(())
        };
        for layer in 0..self.layers {
            let FfnTensors { gate, up, down, .. } = self.ffn_tensors(layer);
            for name in gate.iter().chain([&up]) {
                check(name, [self.neurons, self.hidden])?;
            }
            check(&down, [self.hidden, self.neurons])?;
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        for (what, value) in [
            ("layers", self.layers),
            ("neurons", self.neurons),
            ("hidden size", self.hidden),
            ("heads", self.heads),
            ("key-value heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab),
            ("max_position_embeddings", self.max_positions),
        ] {
            ensure!(value > 0, "number of {what} is zero");
            ensure!(u32::try_from(value).is_ok(), "number of {what}, {value}, is beyond 32 bits");
        }
        let Self { hidden, heads, kv_heads, .. } = *self;
        ensure!(
            hidden.is_multiple_of(32),
            "hidden_size {hidden} is not supported: not a multiple of 32"
        );
        ensure!(hidden % heads == 0, "hidden_size {hidden} is not a multiple of {heads} heads");
        ensure!(
            heads % kv_heads == 0,
            "{heads} heads are not a multiple of {kv_heads} key-value heads"
        );
        if self.family == Family::Llama {
            ensure!(
                self.head_dim.is_multiple_of(2),
                "head_dim {} is odd: no rotary halves",
                self.head_dim
            );
        }
        Ok(())
    }
}

/// The tokens that `generation_config.json` ends a text at, where it is there and says so.
fn generation_eos(dir: &Path) -> Result<Option<Vec<u32>>> {
    let path = dir.join(GENERATION_FILE);
    if let Err(error) = path.metadata()
        && error.kind() == std::io::ErrorKind::NotFound
    {
        return Ok(None);
    }
    let text = read_text(&path, CONFIG_BYTES_MAX)?;
    let generation: Generation = serde_json::from_str(&text)
        .with_context(|| format!("{}: not a generation configuration", path.display()))?;
    Ok(generation.eos_token_id.map(Ids::all))
}

fn opt(raw: &Raw) -> Result<ModelConfig> {
    let hidden = required("hidden_size", raw.hidden_size)?;
    let heads = required("num_attention_heads", raw.num_attention_heads)?;
    ensure!(
        raw.do_layer_norm_before != Some(false),
        "do_layer_norm_before false is not supported: OPT models with the norm first only"
    );
    ensure!(
        raw.word_embed_proj_dim.is_none_or(|dim| dim == hidden),
        "word_embed_proj_dim {} is not supported: it has to equal hidden_size {hidden}",
        raw.word_embed_proj_dim.unwrap_or(0)
    );
    for (key, bad) in [
        ("enable_bias false", raw.enable_bias == Some(false)),
        ("layer_norm_elementwise_affine false", raw.layer_norm_elementwise_affine == Some(false)),
        ("_remove_final_layer_norm true", raw.remove_final_layer_norm == Some(true)),
    ] {
        ensure!(!bad, "{key} is not supported for OPT");
    }
    Ok(ModelConfig {
        family: Family::Opt,
        layers: required("num_hidden_layers", raw.num_hidden_layers)?,
        neurons: required("ffn_dim", raw.ffn_dim)?,
        hidden,
        heads,
        kv_heads: heads,
        head_dim: hidden.checked_div(heads).unwrap_or(0),
        vocab: required("vocab_size", raw.vocab_size)?,
        max_positions: required("max_position_embeddings", raw.max_position_embeddings)?,
        bos_token_id: raw.bos_token_id,
        eos_token_ids: raw.eos_token_id.clone().map(Ids::all).unwrap_or_default(),
        tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(true),
        // OPT has no key for it: the default of the layer it uses.
        norm_eps: 1e-5,
        rope_theta: 0.0,
        activation: activation(raw.activation_function.as_deref().unwrap_or("relu"))?,
        prefix: "model.decoder.".to_owned(),
    })
}

fn llama(raw: &Raw) -> Result<ModelConfig> {
    let hidden = required("hidden_size", raw.hidden_size)?;
    let heads = required("num_attention_heads", raw.num_attention_heads)?;
    ensure!(raw.attention_bias != Some(true), "attention_bias true is not supported for Llama");
    ensure!(raw.mlp_bias != Some(true), "mlp_bias true is not supported for Llama");
    for rope in [&raw.rope_parameters, &raw.rope_scaling].into_iter().flatten() {
        let kind = rope.rope_type.as_deref().unwrap_or("default");
        ensure!(kind == "default", "rope type `{kind}` is not supported; supported is: default");
        ensure!(
            rope.partial_rotary_factor.is_none_or(|factor| factor == 1.0),
            "partial_rotary_factor other than 1 is not supported"
        );
    }
    let theta = raw.rope_parameters.as_ref().and_then(|rope| rope.rope_theta).or(raw.rope_theta);
    Ok(ModelConfig {
        family: Family::Llama,
        layers: required("num_hidden_layers", raw.num_hidden_layers)?,
        neurons: required("intermediate_size", raw.intermediate_size)?,
        hidden,
        heads,
        kv_heads: raw.num_key_value_heads.unwrap_or(heads),
        head_dim: raw.head_dim.unwrap_or(hidden.checked_div(heads).unwrap_or(0)),
        vocab: required("vocab_size", raw.vocab_size)?,
        max_positions: required("max_position_embeddings", raw.max_position_embeddings)?,
        bos_token_id: raw.bos_token_id,
        eos_token_ids: raw.eos_token_id.clone().map(Ids::all).unwrap_or_default(),
        tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(false),
        norm_eps: raw.rms_norm_eps.unwrap_or(1e-6),
        rope_theta: theta.unwrap_or(10_000.0),
        activation: activation(raw.hidden_act.as_deref().unwrap_or("silu"))?,
        prefix: "model.".to_owned(),
    })
}

fn required(key: &str, value: Option<usize>) -> Result<usize> {
    value.with_context(|| format!("key `{key}` is missing"))
}

fn activation(name: &str) -> Result<Activation> {
    match name {
        "relu" => Ok(Activation::Relu),
        _ => bail!(
            "activation `{name}` is not supported; supported is: relu (take a checkpoint that was \
             trained or fine-tuned with it)"
        ),
    }
}
