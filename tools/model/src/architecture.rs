//! What a decoder is made of: the description that each family's page fills in.

/// A decoder, but for the sizes of [`super::ModelConfig`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Architecture {
    pub(crate) names: Names,
    pub(crate) norm: NormKind,
    pub(crate) order: Order,
    /// Whether a norm stands before the head.
    pub(crate) final_norm: bool,
    /// Width of the embeddings; other than the hidden size, a projection stands at either end.
    pub(crate) embedding_width: usize,
    /// The table of learned positions begins with so many rows that belong to no position.
    pub(crate) learned_positions: Option<usize>,
    pub(crate) attention: Attention,
    pub(crate) layers: Layers,
    /// What [`LayerKind::rope`] chooses from.
    pub(crate) ropes: Vec<Rope>,
    /// Embeddings are multiplied by it.
    pub(crate) embedding_scale: Option<f64>,
    /// What attention and FFN add to the hidden state is multiplied by it.
    pub(crate) residual_scale: Option<f64>,
    /// The hidden state before the head is multiplied by it.
    pub(crate) head_scale: Option<f64>,
    pub(crate) head_bias: bool,
    /// Logits become `cap * tanh(logits / cap)`.
    pub(crate) logit_cap: Option<f64>,
    /// Biases of the FFN.
    pub(crate) ffn_bias: bool,
    /// Where hidden states come in several streams.
    pub(crate) streams: Option<StreamsAbout>,
}

/// Several streams of hidden states, and inputs of each layer's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamsAbout {
    pub(crate) count: usize,
    /// The one that layers compute.
    pub(crate) active: usize,
    /// Whether what a layer computed is scaled before its own input is added.
    pub(crate) scales: bool,
    /// Width of the inputs of each layer's own.
    pub(crate) input_width: usize,
    /// Tokens that have such inputs.
    pub(crate) input_vocab: usize,
    /// Rank of the matrices beside attention.
    pub(crate) beside_rank: usize,
}

/// Names of tensors, without `.weight` or `.bias`; those of a layer stand behind its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Names {
    /// What the names of all but the head may begin with.
    pub(crate) prefixes: &'static [&'static str],
    /// What follows for a layer, before its number.
    pub(crate) layers: &'static str,
    pub(crate) embedding: &'static str,
    pub(crate) final_norm: &'static str,
    pub(crate) qkv: Qkv,
    pub(crate) attention_out: &'static str,
    /// Over what attention found, before its output matrix.
    pub(crate) attention_sub_norm: Option<&'static str>,
    pub(crate) attention_norm: &'static str,
    pub(crate) ffn_norm: &'static str,
    /// Of [`Order::Around`]: after attention, and after the FFN.
    pub(crate) after: [&'static str; 2],
    pub(crate) gate: Option<&'static str>,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
    /// Over the activated neurons, before down.
    pub(crate) ffn_sub_norm: Option<&'static str>,
}

/// Where queries, keys and values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Qkv {
    /// A matrix each.
    Apart([&'static str; 3]),
    /// One matrix: for each key-value head the rows of its queries, then of its key and its value.
    Grouped(&'static str),
}

/// A norm's function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// LayerNorm with a bias.
    Layer,
    /// The same, one added to the weights.
    LayerPlusOne,
    /// RMSNorm.
    Rms,
    /// The same, one added to the weights.
    RmsPlusOne,
}

/// Where the norms stand, and how attention and FFN follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// `x += f(norm(x))`, for attention and then for the FFN.
    Before,
    /// `x = norm(x + f(x))`, likewise.
    After,
    /// `x += norm(f(norm(x)))`, likewise.
    Around,
    /// `x += attention(norm(x)) + ffn(norm(x))`: one norm for both, or one each.
    Parallel {
        /// Whether the FFN has a norm of its own.
        ffn_norm: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attention {
    pub(crate) qkv_bias: bool,
    pub(crate) out_bias: bool,
    /// Scores are multiplied by it.
    pub(crate) scale: f64,
    /// Scores become `cap * tanh(scores / cap)`.
    pub(crate) cap: Option<f64>,
    /// Norms over each head of queries and keys, before they turn.
    pub(crate) head_norms: Option<[&'static str; 2]>,
    /// Whether there is one, without weights, over each head of values.
    pub(crate) value_norm: bool,
    /// Layers at the end that have no keys and values of their own: theirs are those of the last layer before them of
    /// their kind.
    pub(crate) sharing_layers: usize,
}

/// The two kinds that the layers of a model are of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layers {
    pub(crate) full: LayerKind,
    pub(crate) sliding: LayerKind,
    pub(crate) slides: Slides,
}

impl Layers {
    /// Layers that all see everything, and turn.
    pub(crate) const FULL: Self = {
        let full = LayerKind { window: None, rope: Some(0) };
        Self { full, sliding: full, slides: Slides::None }
    };

    /// The layer whose keys and values a layer uses, if not its own: see [`Attention::sharing_layers`].
    pub(crate) fn shared_from(&self, layer: usize, first_sharing: usize) -> Option<usize> {
        if layer < first_sharing {
            return None;
        }
        (0..first_sharing).rev().find(|before| self.slides(*before) == self.slides(layer))
    }

    fn slides(&self, layer: usize) -> bool {
        match &self.slides {
            Slides::None => false,
            Slides::From(first) => layer >= *first,
            Slides::AllBut(each) => !(layer + 1).is_multiple_of(*each),
            Slides::Listed(slide) => slide.get(layer).copied().unwrap_or(false),
        }
    }

    pub(crate) fn kind(&self, layer: usize) -> LayerKind {
        if self.slides(layer) { self.sliding } else { self.full }
    }
}

/// Which layers see a window only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Slides {
    None,
    /// This and those after it.
    From(usize),
    /// All but each so many-th.
    AllBut(usize),
    Listed(Vec<bool>),
}

/// Where one layer differs from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerKind {
    /// How many tokens a token sees, itself among them; all before it if there is no window.
    pub(crate) window: Option<usize>,
    /// Which of the rotary positions, if any.
    pub(crate) rope: Option<usize>,
}

/// Rotary positions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    /// Base of the frequencies.
    pub(crate) theta: f64,
    /// How many columns of a head turn: the first.
    pub(crate) columns: usize,
    pub(crate) scaling: RopeScaling,
}

/// How frequencies are changed for contexts longer than those that were trained first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RopeScaling {
    None,
    /// Divided by these, one for each pair of columns.
    Divided(Vec<f32>),
    /// Divided by this.
    Linear(f64),
    /// Slow ones divided, fast ones kept, a ramp between them.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    /// The same by pairs: those that turn less than `slow` times over the original context divided, those
    /// that turn more than `fast` times kept. Cosines and sines are multiplied by `magnitude`.
    Yarn {
        factor: f64,
        slow: f64,
        fast: f64,
        original: f64,
        magnitude: f64,
    },
}
