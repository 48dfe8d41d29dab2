//! Tests on checkpoints of a few kilobytes, written for the purpose.

use std::path::Path;

use anyhow::Result;
use half::bf16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::small_models::{self, Sizes};
use super::*;
use crate::checkpoint::StoredType;
use crate::perplexity::{Windows, loss, negative_log_likelihood};

const HIDDEN: usize = 32;
const NEURONS: usize = 20;
const VOCAB: usize = 11;
const HEADS: usize = 4;
const HEAD_DIM: usize = HIDDEN / HEADS;
const TOKENS: [u32; 7] = [1, 9, 4, 4, 0, 10, 3];

/// A tensor to be written: name, shape, values.
type Entry = (String, Vec<usize>, Vec<f32>);

/// Values in -1..1, multiples of 1/64 so that bf16 holds them exactly; the name is the seed.
fn values(name: &str, count: usize) -> Vec<f32> {
    let mut seed = name.bytes().fold(7u64, |seed, byte| seed.wrapping_mul(31) + u64::from(byte));
    let next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((seed >> 40) % 128) as f32 / 64.0 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn entry(name: &str, shape: &[usize]) -> Entry {
    (name.to_owned(), shape.to_vec(), values(name, shape.iter().product()))
}

fn write(path: &Path, entries: &[Entry], dtype: Dtype) -> Result<()> {
    let bytes = |values: &[f32]| -> Vec<u8> {
        match dtype {
            Dtype::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    };
    let data: Vec<Vec<u8>> = entries.iter().map(|(_, _, values)| bytes(values)).collect();
    let views = entries.iter().zip(&data).map(|((name, shape, _), data)| {
        (name.clone(), TensorView::new(dtype, shape.clone(), data).unwrap())
    });
    Ok(safetensors::serialize_to_file(views, None, path)?)
}

fn write_config(dir: &Path, config: &Value) -> Result<()> {
    Ok(std::fs::write(dir.join("config.json"), config.to_string())?)
}

fn llama_config(kv_heads: usize) -> Value {
    json!({
        "model_type": "llama", "hidden_act": "relu", "hidden_size": HIDDEN, "vocab_size": VOCAB,
        "intermediate_size": NEURONS, "num_hidden_layers": 2, "num_attention_heads": HEADS,
        "num_key_value_heads": kv_heads, "max_position_embeddings": 16, "rope_theta": 500.0,
        "tie_word_embeddings": false, "eos_token_id": [2, 3], "rope_scaling": null,
    })
}

fn opt_config() -> Value {
    json!({
        "model_type": "opt", "hidden_size": HIDDEN, "vocab_size": VOCAB, "ffn_dim": NEURONS,
        "num_hidden_layers": 1, "num_attention_heads": HEADS, "max_position_embeddings": 16,
        "eos_token_id": 2, "bos_token_id": 2,
    })
}

fn sizes(layers: usize, kv_heads: usize) -> Sizes {
    let kv = kv_heads * HEAD_DIM;
    Sizes { hidden: HIDDEN, layers, neurons: NEURONS, kv, vocab: VOCAB, positions: 16 }
}

fn llama_entries(kv_heads: usize) -> Vec<Entry> {
    let shapes = small_models::llama(&sizes(2, kv_heads));
    shapes.iter().map(|(name, shape)| entry(name, shape)).collect()
}

fn opt_entries(prefix: &str) -> Vec<Entry> {
    // The values depend on the name without its prefix, so that two prefixes give one model.
    let named = |(name, shape, values): Entry| (format!("{prefix}{name}"), shape, values);
    let shapes = small_models::opt(&sizes(1, HEADS));
    shapes.iter().map(|(name, shape)| named(entry(name, shape))).collect()
}

fn logits(dir: &Path) -> Result<Vec<f32>> {
    let model = Model::load(dir)?;
    let mut dense = DenseFfn::load(model.checkpoint(), model.config())?;
    model.forward(&mut model.new_state(), &TOKENS, &mut dense)
}

fn message<T>(result: Result<T>) -> String {
    format!("{:#}", result.err().unwrap())
}

/// The logits after each token are those of the text that ends there.
#[test]
fn logits_of_every_position() -> Result<()> {
    for (config, entries) in
        [(llama_config(2), llama_entries(2)), (opt_config(), opt_entries("decoder."))]
    {
        let dir = TempDir::new()?;
        write_config(dir.path(), &config)?;
        write(&dir.path().join("model.safetensors"), &entries, Dtype::F32)?;
        let model = Model::load(dir.path())?;
        let mut dense = DenseFfn::load(model.checkpoint(), model.config())?;
        // after a token that is there already
        let (first, rest) = TOKENS.split_at(1);
        let mut state = model.new_state();
        model.forward_hidden(&mut state, first, &mut dense)?;
        let all = model.forward_all(&mut state, rest, &mut dense)?;
        assert_eq!((state.position(), all.len()), (TOKENS.len(), rest.len() * VOCAB));
        for (end, found) in (2..).zip(all.chunks_exact(VOCAB)) {
            let alone = model.forward(&mut model.new_state(), &TOKENS[..end], &mut dense)?;
            let most = alone.iter().fold(0.0, |most: f32, logit| most.max(logit.abs()));
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * most;
            assert!(found.iter().zip(&alone).all(close), "{found:?} {alone:?}");
        }
    }
    Ok(())
}

/// A long window is fed in pieces, and is one window all the same.
#[test]
fn windows_longer_than_a_piece() -> Result<()> {
    let dir = TempDir::new()?;
    let mut config = llama_config(2);
    let tokens = 2 * PIECE_TOKENS + 70;
    config["max_position_embeddings"] = json!(tokens);
    write_config(dir.path(), &config)?;
    write(&dir.path().join("model.safetensors"), &llama_entries(2), Dtype::F32)?;
    let model = Model::load(dir.path())?;
    let mut dense = DenseFfn::load(model.checkpoint(), model.config())?;
    let ids: Vec<u32> =
        values("tokens", tokens).iter().map(|v| (v * 64.0 + 64.0) as u32 % VOCAB as u32).collect();

    dense.start_recording();
    let logits = model.forward_all(&mut model.new_state(), &ids, &mut dense)?;
    let at_once = dense.take_recording();
    let in_pieces = dense.record(&model, &ids, tokens, &mut |_| ())?;
    for (layer, expected) in in_pieces.iter().zip(&at_once) {
        let other = layer.iter().zip(expected).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
        assert!(layer.len() == expected.len() && other <= 5, "{other} bits differ");
    }

    let windows = Windows::new(&model, ids.clone(), tokens)?;
    let found = loss(&model, &mut dense, &windows, &mut |_| ())?;
    let mut expected = 0.0;
    for (logits, next) in logits.chunks_exact(VOCAB).zip(&ids[1..]) {
        expected += negative_log_likelihood(logits, *next)? / (tokens - 1) as f64;
    }
    assert_eq!(found.predicted, tokens - 1);
    assert!((found.nats - expected).abs() < 1e-5 * expected, "{} {expected}", found.nats);
    Ok(())
}

/// Key-value heads that several query heads share give what copies of them would give.
#[test]
fn shared_key_value_heads() -> Result<()> {
    let shared = TempDir::new()?;
    write_config(shared.path(), &llama_config(2))?;
    write(&shared.path().join("model.safetensors"), &llama_entries(2), Dtype::F32)?;
    let copied = TempDir::new()?;
    write_config(copied.path(), &llama_config(HEADS))?;
    let mut entries = llama_entries(2);
    for (name, shape, values) in &mut entries {
        if name.contains("k_proj") || name.contains("v_proj") {
            shape[0] = HIDDEN;
            let heads = values.chunks_exact(HEAD_DIM * HIDDEN);
            *values = heads.flat_map(|head| [head, head].concat()).collect();
        }
    }
    write(&copied.path().join("model.safetensors"), &entries, Dtype::F32)?;
    let (a, b) = (logits(shared.path())?, logits(copied.path())?);
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} {b:?}");
    Ok(())
}

/// Two files and an index, in bf16, are the same checkpoint as one file in f32.
#[test]
fn shards_and_types() -> Result<()> {
    let one = TempDir::new()?;
    write_config(one.path(), &llama_config(2))?;
    let entries = llama_entries(2);
    write(&one.path().join("model.safetensors"), &entries, Dtype::F32)?;
    let two = TempDir::new()?;
    write_config(two.path(), &llama_config(2))?;
    let (a, b) = entries.split_at(9);
    write(&two.path().join("a.safetensors"), a, Dtype::BF16)?;
    write(&two.path().join("b.safetensors"), b, Dtype::BF16)?;
    let checkpoint = Checkpoint::open(two.path())?;
    assert_eq!(logits(one.path())?, logits(two.path())?);
    let sources = checkpoint.sources()?;
    assert_eq!(
        sources.iter().map(|s| s.file_name.as_str()).collect::<Vec<_>>(),
        ["a.safetensors", "b.safetensors"]
    );
    assert!(sources.iter().all(|source| source.sha256_hex.len() == 64 && source.bytes > 0));

    let name = "model.layers.0.mlp.up_proj.weight";
    let (dtype, all) = checkpoint.read_raw(name)?;
    let (_, rows) = checkpoint.read_rows_raw(name, 3..5)?;
    assert_eq!((dtype, rows.as_slice()), (StoredType::Bf16, &all[3 * HIDDEN * 2..5 * HIDDEN * 2]));
    assert!(message(checkpoint.read_rows_raw(name, 3..NEURONS + 1)).contains("rows 3..21"));
    assert!(message(checkpoint.read_f32("nothing")).contains("no tensor `nothing`"));

    // With an index, only the files it names count, and all it promises has to be there.
    let index = two.path().join("model.safetensors.index.json");
    std::fs::write(&index, json!({"weight_map": {name: "b.safetensors"}}).to_string())?;
    assert!(!Checkpoint::open(two.path())?.contains("lm_head.weight"));
    std::fs::write(&index, json!({"weight_map": {"gone": "b.safetensors"}}).to_string())?;
    assert!(message(Checkpoint::open(two.path())).contains("promises tensor `gone`"));
    std::fs::write(&index, json!({"weight_map": {"x": "../b.safetensors"}}).to_string())?;
    assert!(message(Checkpoint::open(two.path())).contains("leads out of the folder"));
    std::fs::remove_file(index)?;

    write(&two.path().join("c.safetensors"), &b[..1], Dtype::F32)?;
    let error = message(Checkpoint::open(two.path()));
    assert!(error.contains("is in both b.safetensors and c.safetensors"), "{error}");
    Ok(())
}

#[test]
fn both_prefixes_of_opt() -> Result<()> {
    let mut found = Vec::new();
    for prefix in ["model.decoder.", "decoder."] {
        let dir = TempDir::new()?;
        write_config(dir.path(), &opt_config())?;
        write(&dir.path().join("model.safetensors"), &opt_entries(prefix), Dtype::F32)?;
        let model = Model::load(dir.path())?;
        let names = model.config().ffn_tensors(0);
        assert_eq!(names.up, format!("{prefix}layers.0.fc1.weight"));
        assert_eq!((names.gate, model.config().parts()), (None, 2));
        found.push(logits(dir.path())?);
    }
    assert_eq!(found[0], found[1]);
    Ok(())
}

#[test]
fn damaged_files_are_errors() -> Result<()> {
    let dir = TempDir::new()?;
    assert!(message(Checkpoint::open(dir.path())).contains("no *.safetensors file"));
    let path = dir.path().join("model.safetensors");
    write(&path, &opt_entries("decoder."), Dtype::F32)?;
    let good = std::fs::read(&path)?;
    for length in [0, 7, 8, 100, good.len() - 1] {
        std::fs::write(&path, &good[..length])?;
        assert!(message(Checkpoint::open(dir.path())).contains("model.safetensors"), "{length}");
    }
    for header_len in [100_000_001, u64::MAX, good.len() as u64] {
        let mut bad = good.clone();
        bad[..8].copy_from_slice(&header_len.to_le_bytes());
        std::fs::write(&path, &bad)?;
        assert!(message(Checkpoint::open(dir.path())).contains("header of"), "{header_len}");
    }
    // A tensor of another shape than config.json says.
    std::fs::write(&path, &good)?;
    let mut config = opt_config();
    config["vocab_size"] = json!(VOCAB + 1);
    write_config(dir.path(), &config)?;
    let error = message(Model::load(dir.path()));
    assert!(error.contains("`decoder.embed_tokens.weight` has shape [11, 32]"), "{error}");
    // A head whose frequencies alone would take 256 MiB, and one of 8 GiB.
    write(&path, &llama_entries(2), Dtype::F32)?;
    let mut config = llama_config(2);
    for (head_dim, expected) in [
        (1 << 27, "q_proj.weight` has shape [32, 32]"),
        (u32::MAX - 1, "number of columns of all heads, 34359738352, is beyond 32 bits"),
    ] {
        config["head_dim"] = json!(head_dim);
        write_config(dir.path(), &config)?;
        let error = message(Model::load(dir.path()));
        assert!(error.contains(expected), "{error}");
    }
    Ok(())
}

#[test]
fn what_config_json_may_not_say() {
    let refuse = |base: &Value, key: &str, value: Value, expected: &str| {
        let mut config = base.clone();
        config[key] = value;
        let error = message(ModelConfig::from_json(&config.to_string()));
        assert!(error.contains(expected), "{key}: {error}");
    };
    let opt = opt_config();
    refuse(&opt, "activation_function", json!("quick_gelu"), "`quick_gelu` is not supported");
    refuse(&opt, "layer_norm_elementwise_affine", json!(false), "only true is");
    refuse(&opt, "hidden_size", json!(40), "not a multiple of 32");
    refuse(&opt, "num_attention_heads", json!(5), "not a multiple of 5 heads");
    refuse(&opt, "num_attention_heads", json!(0), "zero");
    refuse(&opt, "ffn_dim", Value::Null, "`ffn_dim` is missing");
    refuse(&opt, "ffn_dim", json!("NaN"), "key `ffn_dim` is \"NaN\", expected is a whole number");
    let llama = llama_config(2);
    refuse(&llama, "hidden_act", json!("fatrelu"), "`hidden_act_param` is missing");
    refuse(&llama, "partial_rotary_factor", json!(0.5), "partial_rotary_factor 0.5");
    refuse(&llama, "rope_scaling", json!({"type": "linear"}), "needs `factor`");
    refuse(&llama, "rope_parameters", json!({"rope_type": "longrope"}), "rope_type `longrope`");
    refuse(&llama, "num_key_value_heads", json!(3), "key-value heads");
    refuse(&llama, "layer_types", json!(["full_attention"]), "1 entries for 2 layers");
    let kinds = json!(["full_attention", "linear_attention"]);
    refuse(&llama, "layer_types", kinds, "layer_types `linear_attention`");
    let mut phi = llama.clone();
    (phi["model_type"], phi["num_key_value_heads"]) = (json!("phi"), json!(HEADS));
    refuse(&phi, "partial_rotary_factor", json!(0.01), "leaves nothing to turn");
    refuse(&phi, "qk_layernorm", json!(true), "qk_layernorm true is not supported");
    let mut mistral = llama;
    mistral["model_type"] = json!("mistral");
    refuse(&mistral, "sliding_window", json!(0), "number of sliding_window is zero");
}

#[test]
fn keys_of_llama() -> Result<()> {
    let mut json = llama_config(2);
    let config = ModelConfig::from_json(&json.to_string())?;
    assert_eq!((config.architecture.ropes[0].theta, config.parts()), (500.0, 3));
    // what is absent is as in transformers, null is none
    assert_eq!((config.bos_token_id, config.eos_token_ids.as_slice()), (Some(1), &[2, 3][..]));
    let names = config.ffn_tensors(1);
    assert_eq!(names.gate.as_deref(), Some("model.layers.1.mlp.gate_proj.weight"));
    json["rope_parameters"] = json!({"rope_theta": 7.0, "rope_type": "default"});
    assert_eq!(ModelConfig::from_json(&json.to_string())?.architecture.ropes[0].theta, 7.0);
    for none in [Value::Null, json!(-1)] {
        json["bos_token_id"] = none;
        assert_eq!(ModelConfig::from_json(&json.to_string())?.bos_token_id, None);
    }
    Ok(())
}
