//! Which tensors a model has, by their Hugging Face names, and what each is filled with.

use crate::residual::Writer;
use crate::shapes::{Family, Shape};

/// What the weights of a tensor are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    Ones,
    Zeros,
    /// Ones, and zeros where the common direction lies.
    WithoutCommon,
    /// Normal numbers that make products of variance 1.
    Plain {
        layer: usize,
    },
    /// Rows that find latents: which neurons are active.
    Readers {
        layer: usize,
    },
    /// Minus the thresholds of a layer.
    Thresholds {
        layer: usize,
    },
    /// Columns that add to the residual stream.
    Writers {
        layer: usize,
        what: Writer,
    },
    Embeddings,
    Head,
    Positions,
    /// From the width of embeddings to the hidden state, and back.
    ProjectIn,
    ProjectOut,
}

/// A tensor of the model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) fill: Fill,
}

impl Tensor {
    pub(crate) fn rows(&self) -> usize {
        if self.shape.len() == 2 { self.shape[0] } else { 1 }
    }

    pub(crate) fn columns(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }

    pub(crate) fn numbers(&self) -> u64 {
        self.shape.iter().map(|length| *length as u64).product()
    }
}

/// All tensors, in the order of the files, of a model cut off after so many layers.
pub(crate) fn tensors(shape: &Shape, layers: usize) -> Vec<Tensor> {
    let mut list = List { tensors: Vec::new(), prefix: String::new() };
    let width = shape.embedding_width();
    let (vocab, hidden) = (shape.vocab, shape.hidden);
    let opt = shape.family.is_opt();
    let decoder = if opt { "model.decoder." } else { "model." };
    decoder.clone_into(&mut list.prefix);
    list.matrix("embed_tokens", [vocab, width], Fill::Embeddings);
    if opt {
        // the first two rows belong to padding
        list.matrix("embed_positions", [shape.positions + 2, hidden], Fill::Positions);
    }
    if width != hidden {
        list.matrix("project_in", [hidden, width], Fill::ProjectIn);
        list.matrix("project_out", [width, hidden], Fill::ProjectOut);
    }
    for layer in 0..layers {
        list.prefix = format!("{decoder}layers.{layer}.");
        if opt { list.opt_layer(shape, layer) } else { list.llama_layer(shape, layer) }
    }
    decoder.clone_into(&mut list.prefix);
    match shape.family {
        Family::Opt { norm_after: true } => {}
        Family::Opt { norm_after: false } => list.layer_norm("final_layer_norm", hidden),
        _ => list.vector("norm.weight", hidden, Fill::Ones),
    }
    list.prefix.clear();
    list.matrix("lm_head", [vocab, width], Fill::Head);
    list.tensors
}

struct List {
    tensors: Vec<Tensor>,
    prefix: String,
}

impl List {
    fn push(&mut self, name: &str, shape: Vec<usize>, fill: Fill) {
        self.tensors.push(Tensor { name: format!("{}{name}", self.prefix), shape, fill });
    }

    fn matrix(&mut self, name: &str, [rows, columns]: [usize; 2], fill: Fill) {
        self.push(&format!("{name}.weight"), vec![rows, columns], fill);
    }

    fn vector(&mut self, name: &str, length: usize, fill: Fill) {
        self.push(name, vec![length], fill);
    }

    fn layer_norm(&mut self, name: &str, width: usize) {
        self.vector(&format!("{name}.weight"), width, Fill::Ones);
        self.vector(&format!("{name}.bias"), width, Fill::Zeros);
    }

    fn opt_layer(&mut self, shape: &Shape, layer: usize) {
        let (hidden, neurons) = (shape.hidden, shape.neurons);
        for name in
            ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"]
        {
            let fill = match name {
                "self_attn.out_proj" => Fill::Writers { layer, what: Writer::Attention },
                _ => Fill::Plain { layer },
            };
            self.matrix(name, [hidden, hidden], fill);
            self.vector(&format!("{name}.bias"), hidden, Fill::Zeros);
        }
        self.layer_norm("self_attn_layer_norm", hidden);
        self.matrix("fc1", [neurons, hidden], Fill::Readers { layer });
        self.vector("fc1.bias", neurons, Fill::Thresholds { layer });
        self.matrix("fc2", [hidden, neurons], Fill::Writers { layer, what: Writer::Ffn });
        self.vector("fc2.bias", hidden, Fill::Zeros);
        self.layer_norm("final_layer_norm", hidden);
    }

    fn llama_layer(&mut self, shape: &Shape, layer: usize) {
        let (hidden, neurons) = (shape.hidden, shape.neurons);
        let [queries, keys] = [shape.heads, shape.kv_heads].map(|heads| heads * shape.head_dim());
        self.vector("input_layernorm.weight", hidden, Fill::WithoutCommon);
        self.matrix("self_attn.q_proj", [queries, hidden], Fill::Plain { layer });
        self.matrix("self_attn.k_proj", [keys, hidden], Fill::Plain { layer });
        self.matrix("self_attn.v_proj", [keys, hidden], Fill::Plain { layer });
        let attention = Fill::Writers { layer, what: Writer::Attention };
        self.matrix("self_attn.o_proj", [hidden, queries], attention);
        self.vector("post_attention_layernorm.weight", hidden, Fill::Ones);
        if shape.family.gated() {
            self.matrix("mlp.gate_proj", [neurons, hidden], Fill::Readers { layer });
            self.matrix("mlp.up_proj", [neurons, hidden], Fill::Plain { layer });
        } else {
            self.matrix("mlp.up_proj", [neurons, hidden], Fill::Readers { layer });
        }
        self.matrix("mlp.down_proj", [hidden, neurons], Fill::Writers { layer, what: Writer::Ffn });
    }
}
