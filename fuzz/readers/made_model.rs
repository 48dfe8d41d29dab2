//! Model folders: a small OPT or Llama model, whose config.json and weights were then edited.

#[path = "../../tools/model/src/small_models.rs"]
mod small_models;

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

impl Sizes {
    fn of_tensors(&self) -> small_models::Sizes {
        let &Self { layers, neurons, heads, kv_heads, vocab, positions } = self;
        let kv = kv_heads * (HIDDEN / heads);
        small_models::Sizes { hidden: HIDDEN, layers, neurons, kv, vocab, positions }
    }
}

/// Takes a model folder from the front of the bytes: sizes, then edits.
pub(super) fn input(bytes: &mut Bytes<'_>, kind: Kind) -> Input {
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
    Input { weights: weights.bytes(), ..Input::of(kind, config, valid) }
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
    let shapes = small_models::opt(&sizes.of_tensors());
    let named = shapes.into_iter().map(|(name, shape)| (format!("model.decoder.{name}"), shape));
    (config, named.collect())
}

fn llama(sizes: &Sizes) -> (String, Vec<(String, Vec<usize>)>) {
    let &Sizes { layers, neurons, heads, kv_heads, vocab, positions } = sizes;
    let head_dim = HIDDEN / heads;
    let config = format!(
        r#"{{"model_type":"llama","hidden_act":"relu","hidden_size":{HIDDEN},"intermediate_size":{neurons},"num_hidden_layers":{layers},"num_attention_heads":{heads},"num_key_value_heads":{kv_heads},"head_dim":{head_dim},"vocab_size":{vocab},"max_position_embeddings":{positions},"rope_theta":10000.0,"rms_norm_eps":0.00001,"tie_word_embeddings":false,"eos_token_id":1}}"#
    );
    (config, small_models::llama(&sizes.of_tensors()))
}
