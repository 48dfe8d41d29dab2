//! What `config.json` says about a model, reduced to what is supported.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use lnp_common::files::read_text;

use super::activation::Activation;
use super::activity::Activity;
use super::architecture::{Architecture, NormKind, Order};
use super::checkpoint::Checkpoint;
use super::families;
use super::folder::GENERATION_FILE;
use super::json::{Fields, parse};

/// Longest config.json, bytes.
pub(crate) const CONFIG_BYTES_MAX: u64 = 1 << 24;

/// A supported model, as `config.json` describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Its family, as `model_type` names it.
    pub family: &'static str,
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
    /// Token that a text begins with, if there is one: as `generation_config.json` says, else
    /// `config.json`, else the family.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text: likewise.
    pub eos_token_ids: Vec<u32>,
    /// Whether the output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Epsilon of LayerNorm or RMSNorm.
    pub norm_eps: f64,
    /// FFN activation: of all layers but those that have their own.
    pub activation: Activation,
    /// By layer, where one has another; empty where all are alike.
    pub(crate) own_activations: Vec<Option<Activation>>,
    /// From where on a neuron is active, of an activation without zeros; no file of the folder tells it.
    pub activity: Option<Activity>,
    /// What the names of the decoder's tensors begin with.
    pub prefix: String,
    /// What the decoder is made of.
    pub(crate) architecture: Architecture,
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
    pub gate_bias: Option<String>,
    /// `[neurons]`.
    pub up_bias: Option<String>,
    /// `[hidden]`.
    pub down_bias: Option<String>,
    /// `[neurons]`: the weights of a norm over the activated neurons, before down.
    pub sub_norm: Option<String>,
}

impl FfnTensors {
    /// The matrix `[neurons, hidden]` whose product decides which neurons are active: gate, else up. (With
    /// dReLU the other one has a say too.)
    pub fn deciding(&self) -> &str {
        self.gate.as_deref().unwrap_or(&self.up)
    }

    /// The bias that goes before the activation: that of the gate, where there is one.
    pub fn neuron_bias(&self) -> Option<&String> {
        if self.gate.is_some() { self.gate_bias.as_ref() } else { self.up_bias.as_ref() }
    }

    /// The bias of the up rows where these do not decide: of a gated FFN.
    pub fn gated_up_bias(&self) -> Option<&String> {
        self.up_bias.as_ref().filter(|_| self.gate.is_some())
    }
}

/// What the norm before an FFN does to what it takes, but for the size of that.
#[derive(Debug, Clone, PartialEq)]
pub struct FfnNorm {
    /// What it multiplies by.
    pub weight: Vec<f32>,
    /// What a LayerNorm, which takes the mean away first, adds; none of an RMSNorm.
    pub bias: Option<Vec<f32>>,
}

impl ModelConfig {
    /// The same, told from where on its neurons are active.
    ///
    /// # Errors
    /// Thresholds that are not of such a model.
    pub fn with_activity(mut self, activity: Option<Activity>) -> Result<Self> {
        if let Some(activity) = activity {
            activity.check(&self)?;
            self.activity = Some(activity);
        }
        Ok(self)
    }

    /// Reads what describes a model, `config.json` in a model folder, and finds the prefix of its tensor names.
    ///
    /// # Errors
    /// An unreadable file, an unsupported model (the message says what is supported), or a
    /// checkpoint without the expected tensors.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        let mut config = match checkpoint.config() {
            Some(config) => config.clone(),
            None => Self::of_folder(checkpoint)?,
        };
        if let Some(activation) = checkpoint.activation() {
            config.activation = activation;
        }
        Ok(config)
    }

    fn of_folder(checkpoint: &Checkpoint) -> Result<Self> {
        let (dir, path) = (checkpoint.path(), checkpoint.described_in());
        let text = read_text(&path, CONFIG_BYTES_MAX)?;
        let mut config = Self::from_json(&text).with_context(|| path.display().to_string())?;
        config.ask_generation(dir)?;
        let names = config.architecture.names;
        // some exporters leave the embeddings out where the head is the same
        let first =
            [names.embedding.to_owned(), format!("{}0.{}", names.layers, names.attention_norm)];
        let stands = |prefix: &str| {
            first.iter().any(|name| checkpoint.contains(&format!("{prefix}{name}.weight")))
        };
        let Some(prefix) = names.prefixes.iter().find(|prefix| stands(prefix)) else {
            bail!(
                "{}: no tensor `{}{}.weight` in the checkpoint, expected for {}",
                dir.display(),
                names.prefixes[0],
                names.embedding,
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
        let map = parse(text).context("not a model configuration")?;
        Self::from_fields(&Fields(&map))
    }

    /// The same of fields that are parsed already.
    pub(crate) fn from_fields(fields: &Fields<'_>) -> Result<Self> {
        let mut config = families::read(fields)?;
        config.prefix = config.architecture.names.prefixes[0].to_owned();
        config.check()?;
        Ok(config)
    }

    /// Parts of a bundle: up row and down column, the gate row before them where there is a gate.
    pub fn parts(&self) -> usize {
        if self.architecture.names.gate.is_some() { 3 } else { 2 }
    }

    /// What the names of a layer's tensors begin with, final dot included.
    pub fn layer_prefix(&self, layer: usize) -> String {
        format!("{}{}{layer}.", self.prefix, self.architecture.names.layers)
    }

    /// Names of the FFN tensors of a layer.
    pub fn ffn_tensors(&self, layer: usize) -> FfnTensors {
        let prefix = self.layer_prefix(layer);
        let weight = |name: &str| format!("{prefix}{name}.weight");
        let bias = |name: &str| self.architecture.ffn_bias.then(|| format!("{prefix}{name}.bias"));
        let names = &self.architecture.names;
        FfnTensors {
            gate: names.gate.map(weight),
            up: weight(names.up),
            down: weight(names.down),
            gate_bias: names.gate.and_then(bias),
            up_bias: bias(names.up),
            down_bias: bias(names.down),
            sub_norm: names.ffn_sub_norm.map(weight),
        }
    }

    /// FFN activation of a layer.
    pub fn activation_of(&self, layer: usize) -> Activation {
        self.own_activations.get(layer).copied().flatten().unwrap_or(self.activation)
    }

    /// The layer's activation, where it is not that of the model.
    pub fn own_activation(&self, layer: usize) -> Option<Activation> {
        Some(self.activation_of(layer)).filter(|own| *own != self.activation)
    }

    /// Layers whose activation leaves neurons at zero.
    fn layers_with_zeros(&self) -> usize {
        (0..self.layers).filter(|layer| self.activation_of(*layer).cut().is_ok()).count()
    }

    /// Whether some activation leaves neurons at zero: in layers without any, all are active then.
    pub fn has_zeros(&self) -> bool {
        self.layers_with_zeros() > 0
    }

    /// The norm before a layer's FFN.
    ///
    /// # Errors
    /// There is none before it, or its weights are missing or of another length.
    pub fn ffn_norm(&self, checkpoint: &Checkpoint, layer: usize) -> Result<FfnNorm> {
        let Architecture { names, norm, order, .. } = &self.architecture;
        let name = match order {
            Order::After => bail!("family {}: the norm of the FFN stands after it", self.family),
            Order::Parallel { ffn_norm: false } => names.attention_norm,
            _ => names.ffn_norm,
        };
        let read = |end: &str| -> Result<Vec<f32>> {
            let name = format!("{}{name}.{end}", self.layer_prefix(layer));
            let values = checkpoint.read_f32(&name)?;
            let (found, hidden) = (values.len(), self.hidden);
            ensure!(found == hidden, "tensor `{name}` has {found} values, expected {hidden}");
            Ok(values)
        };
        let mut weight = read("weight")?;
        if matches!(norm, NormKind::LayerPlusOne | NormKind::RmsPlusOne) {
            weight.iter_mut().for_each(|weight| *weight += 1.0);
        }
        let centres = matches!(norm, NormKind::Layer | NormKind::LayerPlusOne);
        let bias = centres.then(|| read("bias")).transpose()?;
        Ok(FfnNorm { weight, bias })
    }

    /// Checks that it is known which neurons are active: by an activation's zeros, or by thresholds.
    ///
    /// # Errors
    /// Activations that make no neuron inactive, and no thresholds.
    pub fn check_active(&self, checkpoint: &Checkpoint) -> Result<()> {
        if self.activity.is_some() || self.has_zeros() {
            return Ok(());
        }
        self.active_above(checkpoint).map(|_| ())
    }

    /// Checks that one rule says of all layers which neurons are active.
    ///
    /// # Errors
    /// Layers with activations of their own.
    pub fn check_alike(&self) -> Result<()> {
        let own = (0..self.layers).find_map(|layer| self.own_activation(layer));
        ensure!(
            own.is_none(),
            "predictors are made for models whose layers have one activation; in this one it is {} or {}: without \
             predictors, which neurons are active is computed from gate rows in memory",
            self.activation.name(),
            own.map_or("another", Activation::name)
        );
        Ok(())
    }

    /// What is to be above this for a neuron to be active: [`Activation::cut`].
    ///
    /// # Errors
    /// An activation that makes no neuron inactive.
    pub fn active_above(&self, checkpoint: &Checkpoint) -> Result<f32> {
        self.activation.cut().with_context(|| {
            let file = checkpoint.described_in().display().to_string();
            match checkpoint.config() {
                Some(_) => format!(
                    "{file}: GGUF does not tell it, taken is what is usual: say the model's own with --activation"
                ),
                None => file,
            }
        })
    }

    /// When a neuron is active, in words: what traces say of their bits.
    pub fn active_rule(&self) -> String {
        let last = |name: &'static str| name.rsplit('.').next().unwrap_or(name);
        let names = &self.architecture.names;
        let first = last(names.gate.unwrap_or(names.up));
        match &self.activity {
            Some(Activity { share, measure, .. }) => {
                format!(
                    "{measure} of {}({first}) among the highest {share}",
                    self.activation.name()
                )
            }
            None => self.rule_of_zeros(first, last(names.up)),
        }
    }

    /// The same by zeros.
    fn rule_of_zeros(&self, first: &str, up: &str) -> String {
        let (some, layers) = (self.layers_with_zeros(), self.layers);
        let mut all = (0..layers).map(|layer| self.activation_of(layer));
        let with_zeros = all.find(|own| own.cut().is_ok()).unwrap_or(self.activation);
        let rule = with_zeros.rule(first, up);
        if some == layers {
            return rule;
        }
        format!("{rule} in {some} of {layers} layers, all in the others")
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
                "{}: tensor `{name}` has shape {found:?}, {} makes it {shape:?}",
                checkpoint.path().display(),
                checkpoint.description()
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
        let heads = self.kv_heads.saturating_mul(2).saturating_add(self.heads);
        for (what, value) in [
            ("layers", self.layers),
            ("neurons", self.neurons),
            ("hidden size", self.hidden),
            ("heads", self.heads),
            ("key-value heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("columns of all heads", heads.saturating_mul(self.head_dim)),
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
        for columns in self.architecture.ropes.iter().map(|rope| rope.columns) {
            ensure!(columns.is_multiple_of(2), "head_dim {columns} is odd: no rotary halves");
        }
        Ok(())
    }

    /// Where `generation_config.json` is there and says so, it decides how texts begin and end.
    fn ask_generation(&mut self, dir: &Path) -> Result<()> {
        let path = dir.join(GENERATION_FILE);
        if let Err(error) = path.metadata()
            && error.kind() == std::io::ErrorKind::NotFound
        {
            return Ok(());
        }
        let text = read_text(&path, CONFIG_BYTES_MAX)?;
        let context = || format!("{}: not a generation configuration", path.display());
        let map = parse(&text).with_context(context)?;
        if let Some(ids) = Fields(&map).ids("eos_token_id").with_context(context)? {
            self.eos_token_ids = ids;
        }
        if let Some(ids) = Fields(&map).ids("bos_token_id").with_context(context)? {
            self.bos_token_id = ids.first().copied();
        }
        Ok(())
    }
}
