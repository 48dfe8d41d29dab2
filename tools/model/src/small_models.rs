//! The tensors of small OPT and Llama models: names and shapes, for tests and for the fuzz target
//! `readers`, which includes this file.

/// The sizes of a model.
pub(super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) neurons: usize,
    /// Key-value heads times their dimension; of Llama.
    pub(super) kv: usize,
    pub(super) vocab: usize,
    /// Positions of the context; of OPT.
    pub(super) positions: usize,
}

/// Names and shapes, without the prefix of all of them.
pub(super) fn opt(sizes: &Sizes) -> Vec<(String, Vec<usize>)> {
    let &Sizes { hidden, layers, neurons, vocab, positions, .. } = sizes;
    let mut shapes = vec![
        ("embed_tokens.weight".to_owned(), vec![vocab, hidden]),
        ("embed_positions.weight".to_owned(), vec![positions + 2, hidden]),
        ("final_layer_norm.weight".to_owned(), vec![hidden]),
        ("final_layer_norm.bias".to_owned(), vec![hidden]),
    ];
    for layer in 0..layers {
        for (name, out, inputs) in [
            ("self_attn.q_proj", hidden, hidden),
            ("self_attn.k_proj", hidden, hidden),
            ("self_attn.v_proj", hidden, hidden),
            ("self_attn.out_proj", hidden, hidden),
            ("fc1", neurons, hidden),
            ("fc2", hidden, neurons),
        ] {
            shapes.push((format!("layers.{layer}.{name}.weight"), vec![out, inputs]));
            shapes.push((format!("layers.{layer}.{name}.bias"), vec![out]));
        }
        for norm in ["final_layer_norm", "self_attn_layer_norm"] {
            shapes.push((format!("layers.{layer}.{norm}.weight"), vec![hidden]));
            shapes.push((format!("layers.{layer}.{norm}.bias"), vec![hidden]));
        }
    }
    shapes
}

/// Names and shapes.
pub(super) fn llama(sizes: &Sizes) -> Vec<(String, Vec<usize>)> {
    let &Sizes { hidden, layers, neurons, kv, vocab, .. } = sizes;
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
        ("lm_head.weight".to_owned(), vec![vocab, hidden]),
    ];
    for layer in 0..layers {
        for (name, shape) in [
            ("input_layernorm", vec![hidden]),
            ("post_attention_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![hidden, hidden]),
            ("self_attn.k_proj", vec![kv, hidden]),
            ("self_attn.v_proj", vec![kv, hidden]),
            ("self_attn.o_proj", vec![hidden, hidden]),
            ("mlp.gate_proj", vec![neurons, hidden]),
            ("mlp.up_proj", vec![neurons, hidden]),
            ("mlp.down_proj", vec![hidden, neurons]),
        ] {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    shapes
}
