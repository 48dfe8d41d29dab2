//! Model folders: a small OPT or Llama model, whose config.json and weights were then edited.

use super::{Bytes, Input, Kind, Made, Tensor, edit_byte, edit_number};

/// A hidden size must be a multiple of this.
const HIDDEN: usize = 32;

/// The sizes of a model.
struct Sizes {
    layers: usize,
    neurons: usize,
    heads: usize,
    kv_heads: usize,
    vocab: usize,
    positions: usize,
}

/// Takes a model folder from the front of the bytes: sizes, then edits.
pub(super) fn input(bytes: &mut Bytes<'_>) -> Input {
    let choice = bytes.byte();
    let heads = 1 << (choice >> 2 & 3);
    let sizes = Sizes {
        layers: bytes.count(2),
        neurons: bytes.count(12),
        heads,
        kv_heads: if choice & 16 == 0 { heads } else { 1 },
        vocab: bytes.count(5),
        positions: bytes.count(20),
    };
    let (config, shapes) = if choice & 1 == 0 { opt(&sizes) } else { llama(&sizes) };
    let dtype = ["F16", "F32", "BF16", "F16"][usize::from(choice >> 5 & 3)];
    let mut weights = Made::new(&[], shapes.into_iter().map(|s| tensor(s, dtype)).collect());
    let mut config = config.into_bytes();
    let valid = bytes.rest.is_empty();
    bytes.edits(|bytes| match bytes.byte() % 4 {
        0 | 1 => edit_number(&mut config, bytes),
        2 => edit_byte(&mut config, bytes),
        _ => weights.edit(bytes),
    });
    Input { kind: Kind::Model, file: config, weights: weights.bytes(), valid }
}

/// A tensor of halves.
fn tensor((name, shape): (String, Vec<usize>), dtype: &'static str) -> Tensor {
    let half: &[u8] = match dtype {
        "F32" => &[0, 0, 0, 0x3f],
        "BF16" => &[0, 0x3f],
        _ => &[0, 0x38],
    };
    let data = half.repeat(shape.iter().product());
    (name, dtype, shape, data)
}

fn opt(sizes: &Sizes) -> (String, Vec<(String, Vec<usize>)>) {
    let &Sizes { layers, neurons, heads, vocab, positions, .. } = sizes;
    let config = format!(
        r#"{{"model_type":"opt","hidden_size":{HIDDEN},"ffn_dim":{neurons},"num_hidden_layers":{layers},"num_attention_heads":{heads},"vocab_size":{vocab},"max_position_embeddings":{positions},"bos_token_id":0,"eos_token_id":[1,2]}}"#
    );
    let mut shapes = vec![
        ("embed_tokens.weight".to_owned(), vec![vocab, HIDDEN]),
        ("embed_positions.weight".to_owned(), vec![positions + 2, HIDDEN]),
        ("final_layer_norm.weight".to_owned(), vec![HIDDEN]),
        ("final_layer_norm.bias".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..layers {
        for (name, out, inputs) in [
            ("self_attn.q_proj", HIDDEN, HIDDEN),
            ("self_attn.k_proj", HIDDEN, HIDDEN),
            ("self_attn.v_proj", HIDDEN, HIDDEN),
            ("self_attn.out_proj", HIDDEN, HIDDEN),
            ("fc1", neurons, HIDDEN),
            ("fc2", HIDDEN, neurons),
        ] {
            shapes.push((format!("layers.{layer}.{name}.weight"), vec![out, inputs]));
            shapes.push((format!("layers.{layer}.{name}.bias"), vec![out]));
        }
        for norm in ["final_layer_norm", "self_attn_layer_norm"] {
            shapes.push((format!("layers.{layer}.{norm}.weight"), vec![HIDDEN]));
            shapes.push((format!("layers.{layer}.{norm}.bias"), vec![HIDDEN]));
        }
    }
    let named = shapes.into_iter().map(|(name, shape)| (format!("model.decoder.{name}"), shape));
    (config, named.collect())
}

fn llama(sizes: &Sizes) -> (String, Vec<(String, Vec<usize>)>) {
    let &Sizes { layers, neurons, heads, kv_heads, vocab, positions } = sizes;
    let head_dim = HIDDEN / heads;
    let config = format!(
        r#"{{"model_type":"llama","hidden_act":"relu","hidden_size":{HIDDEN},"intermediate_size":{neurons},"num_hidden_layers":{layers},"num_attention_heads":{heads},"num_key_value_heads":{kv_heads},"head_dim":{head_dim},"vocab_size":{vocab},"max_position_embeddings":{positions},"rope_theta":10000.0,"rms_norm_eps":0.00001,"tie_word_embeddings":false,"eos_token_id":1}}"#
    );
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
        ("lm_head.weight".to_owned(), vec![vocab, HIDDEN]),
    ];
    for layer in 0..layers {
        let kv = kv_heads * head_dim;
        for (name, shape) in [
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![kv, HIDDEN]),
            ("self_attn.v_proj", vec![kv, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("mlp.gate_proj", vec![neurons, HIDDEN]),
            ("mlp.up_proj", vec![neurons, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, neurons]),
        ] {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    (config, shapes)
}
