//! The shapes: a line for each model, which is all that a new one takes.
//!
//! Sizes are those of the models' own `config.json`. Active shares are the published means over layers and tokens
//! (Neuralink, ASPLOS 2025: Alpaca); where nothing is published, that of the nearest shape.

/// What a model is built like: names of tensors, norms, activation, positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// OPT: LayerNorm, biases, learned positions, ReLU without a gate.
    Opt {
        /// Whether norms come after the sums, as in the 350M model only.
        norm_after: bool,
    },
    /// Llama with ReLU on the gate, as ReLULLaMA.
    Llama,
    /// Mistral with ReLU on the gate.
    Mistral,
    /// Arcee: as Llama, but ReLU squared and no gate.
    Arcee,
}

impl Family {
    /// Whether the FFN has a gate: then it decides which neurons are active.
    pub fn gated(self) -> bool {
        matches!(self, Self::Llama | Self::Mistral)
    }

    /// Whether it is OPT: LayerNorm, and biases that hold the neurons' thresholds.
    pub fn is_opt(self) -> bool {
        matches!(self, Self::Opt { .. })
    }
}

/// The sizes of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// What `--model` calls it.
    pub name: &'static str,
    /// What it is built like.
    pub family: Family,
    /// Decoder layers.
    pub layers: usize,
    /// FFN neurons a layer.
    pub neurons: usize,
    /// Width of the hidden state.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Longest context, tokens.
    pub positions: usize,
    /// Mean share of the neurons that are active.
    pub active: f64,
}

impl Shape {
    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Width of the embeddings: half of the hidden state in the 350M model only.
    pub fn embedding_width(&self) -> usize {
        match self.family {
            Family::Opt { norm_after: true } => self.hidden / 2,
            _ => self.hidden,
        }
    }
}

const OPT: Family = Family::Opt { norm_after: false };
const OPT_AFTER: Family = Family::Opt { norm_after: true };

const fn shape(
    name: &'static str,
    family: Family,
    [layers, neurons, hidden]: [usize; 3],
    [heads, kv_heads]: [usize; 2],
    [vocab, positions]: [usize; 2],
    active: f64,
) -> Shape {
    Shape { name, family, layers, neurons, hidden, heads, kv_heads, vocab, positions, active }
}

/// All of them. To add one: a line here, a row in `docs/synth.md`.
#[rustfmt::skip]
pub const SHAPES: [Shape; 15] = [
    //    name               family          layers neurons hidden  heads, kv    vocab, context   active
    shape("opt-125m",        OPT,            [12,  3_072,   768],  [12, 12],  [50_272,  2_048],  0.095),
    shape("opt-350m",        OPT_AFTER,      [24,  4_096, 1_024],  [16, 16],  [50_272,  2_048],  0.095),
    shape("opt-1.3b",        OPT,            [24,  8_192, 2_048],  [32, 32],  [50_272,  2_048],  0.037),
    shape("opt-6.7b",        OPT,            [32, 16_384, 4_096],  [32, 32],  [50_272,  2_048],  0.032),
    shape("llama-2-7b",      Family::Llama,  [32, 11_008, 4_096],  [32, 32],  [32_000,  4_096],  0.237),
    shape("mistral-7b",      Family::Mistral,[32, 14_336, 4_096],  [32,  8],  [32_000, 32_768],  0.235),
    // Arcee's own, and Arcee at the sizes of OPT: llama.cpp has no OPT, but computes this one as its authors do.
    shape("arcee-4.5b",      Family::Arcee,  [36, 18_432, 2_560],  [20,  4], [128_004, 65_536],  0.032),
    shape("arcee-opt-1.3b",  Family::Arcee,  [24,  8_192, 2_048],  [32, 32],  [50_272,  2_048],  0.037),
    shape("arcee-opt-6.7b",  Family::Arcee,  [32, 16_384, 4_096],  [32, 32],  [50_272,  2_048],  0.032),
    // Stand-ins of about 100 million parameters.
    shape("opt-100m",        OPT,            [12,  3_072,   768],  [12, 12],   [4_096,  2_048],  0.032),
    shape("llama-100m",      Family::Llama,  [12,  2_560,   768],  [12, 12],   [4_096,  2_048],  0.237),
    shape("arcee-100m",      Family::Arcee,  [12,  3_072,   768],  [12, 12],   [4_096,  2_048],  0.032),
    // For tests: made in a moment.
    shape("opt-tiny",        OPT,            [ 3,    512,   256],  [ 4,  4],   [1_024,  1_024],  0.08),
    shape("llama-tiny",      Family::Llama,  [ 3,    512,   256],  [ 4,  2],   [1_024,  1_024],  0.237),
    shape("arcee-tiny",      Family::Arcee,  [ 3,    512,   256],  [ 4,  2],   [1_024,  1_024],  0.08),
];

/// The shape of this name.
pub fn shape_named(name: &str) -> Option<&'static Shape> {
    SHAPES.iter().find(|shape| shape.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_heads_fit() {
        for (number, shape) in SHAPES.iter().enumerate() {
            assert!(SHAPES[..number].iter().all(|other| other.name != shape.name));
            assert_eq!(shape.hidden % shape.heads, 0, "{}", shape.name);
            assert_eq!(shape.heads % shape.kv_heads, 0, "{}", shape.name);
            assert_eq!(shape_named(shape.name), Some(shape));
        }
    }
}
