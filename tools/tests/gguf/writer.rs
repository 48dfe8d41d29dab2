//! Writes GGUF files for tests: the format byte by byte, and model folders as llama.cpp's converters write them.
//! It shares nothing with the reader, and `llama_cpp.py` sees what llama.cpp makes of its files.
#![allow(dead_code)] // each test binary uses its part

use std::path::Path;

use lnp_format::Dtype;
use lnp_model::Checkpoint;
use lnp_model::checkpoint::StoredType;
use lnp_pack::convert::convert;
use serde_json::Value;

/// A file to be written.
#[derive(Default, Clone)]
pub(crate) struct Gguf {
    entries: Vec<Vec<u8>>,
    tensors: Vec<Tensor>,
}

#[derive(Clone)]
struct Tensor {
    name: String,
    /// The slowest first.
    shape: Vec<usize>,
    kind: u32,
    bytes: Vec<u8>,
}

const ALIGNMENT: usize = 32;
/// Numbers of ggml's types.
const F32: u32 = 0;

fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

impl Gguf {
    /// An entry whose value is of this type.
    pub(crate) fn entry(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.entries.push([&text(key.as_bytes()), &kind.to_le_bytes()[..], value].concat());
    }

    pub(crate) fn u32(&mut self, key: &str, value: u64) {
        self.entry(key, 4, &(value as u32).to_le_bytes());
    }

    pub(crate) fn f32(&mut self, key: &str, value: f64) {
        self.entry(key, 6, &(value as f32).to_le_bytes());
    }

    pub(crate) fn flag(&mut self, key: &str, value: bool) {
        self.entry(key, 7, &[u8::from(value)]);
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.entry(key, 8, &text(value.as_bytes()));
    }

    /// An array of so many values of this type.
    pub(crate) fn array(&mut self, key: &str, kind: u32, count: usize, values: &[u8]) {
        let head = [&kind.to_le_bytes()[..], &(count as u64).to_le_bytes()].concat();
        self.entry(key, 9, &[&head, values].concat());
    }

    pub(crate) fn texts<'t>(&mut self, key: &str, values: impl Iterator<Item = &'t str>) {
        let values: Vec<Vec<u8>> = values.map(|value| text(value.as_bytes())).collect();
        self.array(key, 8, values.len(), &values.concat());
    }

    pub(crate) fn i32s(&mut self, key: &str, values: &[i32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, 5, values.len(), &bytes);
    }

    pub(crate) fn f32s(&mut self, key: &str, values: &[f32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, 6, values.len(), &bytes);
    }

    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize], kind: u32, bytes: Vec<u8>) {
        self.tensors.push(Tensor { name: name.to_owned(), shape: shape.to_vec(), kind, bytes });
    }

    fn f32_tensor(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, shape, F32, bytes);
    }

    /// A matrix, rounded to F16.
    pub(crate) fn f16_tensor(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes());
        self.tensor(name, shape, 1, bytes.collect());
    }

    /// The bytes of a file of PowerInfer's: other first bytes.
    pub(crate) fn powerinfer_bytes(&self) -> Vec<u8> {
        [b"PWRI", &self.bytes()[4..]].concat()
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        out.extend(self.entries.concat());
        let mut offset = 0;
        for Tensor { name, shape, kind, bytes } in &self.tensors {
            out.extend(text(name.as_bytes()));
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|length| out.extend((*length as u64).to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += bytes.len().next_multiple_of(ALIGNMENT);
        }
        for Tensor { bytes, .. } in &self.tensors {
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
            out.extend(bytes);
        }
        out
    }

    /// The same in so many files: all metadata in the first, tensors shared out.
    pub(crate) fn parts(&self, count: usize) -> Vec<Vec<u8>> {
        let part = |number: usize| {
            let mut part = Self::default();
            if number == 0 {
                part.entries = self.entries.clone();
            }
            part.entry("split.no", 2, &(number as u16).to_le_bytes());
            part.entry("split.count", 2, &(count as u16).to_le_bytes());
            part.entry("split.tensors.count", 5, &(self.tensors.len() as i32).to_le_bytes());
            part.tensors = self.tensors.iter().skip(number).step_by(count).cloned().collect();
            part.bytes()
        };
        (0..count).map(part).collect()
    }
}

/// What becomes of matrices.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Matrices {
    /// As the folder has them.
    Kept,
    /// Rounded, as `lnp pack` rounds: as ggml does.
    As(Dtype),
}

/// A model folder as llama.cpp's converter has it, without its tokenizer.
pub(crate) fn converted(dir: &Path, matrices: Matrices) -> Gguf {
    converted_for(dir, matrices, false)
}

/// A model folder as PowerInfer's converters have it, without tokenizer and predictors: down matrices turned. A window,
/// which they do not write, stands where llama.cpp has one.
pub(crate) fn converted_for_powerinfer(dir: &Path, matrices: Matrices) -> Gguf {
    converted_for(dir, matrices, true)
}

fn converted_for(dir: &Path, matrices: Matrices, powerinfer: bool) -> Gguf {
    let config: Value = read_json(&dir.join("config.json"));
    let of = |key: &str| config.get(key).filter(|value| !value.is_null());
    let whole = |key: &str| of(key).and_then(Value::as_u64);
    let number = |key: &str| of(key).and_then(Value::as_f64);
    let kind = config["model_type"].as_str().unwrap();
    let architecture = match kind {
        "bamboo" if powerinfer => "bamboo",
        "sparsellama" | "llama_sparse_relu" | "mistral" | "bamboo" => "llama",
        "gemma3_text" => "gemma3",
        "phi" => "phi2",
        other => other,
    };
    let mut gguf = Gguf::default();
    gguf.text("general.architecture", architecture);
    let key = |name: &str| format!("{architecture}.{name}");
    let (heads, hidden) = (whole("num_attention_heads").unwrap(), whole("hidden_size").unwrap());
    let kv_heads = match kind {
        "falcon" if config["new_decoder_architecture"] == true => whole("num_kv_heads"),
        "falcon" => Some(if config["multi_query"] == false { heads } else { 1 }),
        _ => whole("num_key_value_heads"),
    };
    let kv_heads = kv_heads.unwrap_or(heads);
    let layers = whole("num_hidden_layers").unwrap();
    let head_dim = whole("head_dim").unwrap_or(hidden / heads);
    let neurons = ["intermediate_size", "ffn_dim", "ffn_hidden_size"].into_iter().find_map(whole);
    gguf.u32(&key("block_count"), layers);
    gguf.u32(&key("embedding_length"), hidden);
    gguf.u32(&key("feed_forward_length"), neurons.unwrap_or(4 * hidden));
    // theirs counts the rows of OPT's table
    let padding = if powerinfer && kind == "opt" { 2 } else { 0 };
    let length = whole("max_position_embeddings").unwrap_or(2048) + padding;
    gguf.u32(&key("context_length"), length);
    gguf.u32(&key("attention.head_count"), heads);
    gguf.u32(&key("attention.head_count_kv"), kv_heads);
    if of("head_dim").is_some() {
        gguf.u32(&key("attention.key_length"), head_dim);
        gguf.u32(&key("attention.value_length"), head_dim);
    }
    for name in ["rms_norm_eps", "norm_eps", "layer_norm_eps", "layer_norm_epsilon"] {
        let rms = if name == "rms_norm_eps" { "_rms" } else { "" };
        let put = |eps| gguf.f32(&key(&format!("attention.layer_norm{rms}_epsilon")), eps);
        number(name).into_iter().for_each(put);
    }
    let rope = of("rope_parameters").or(of("rope_scaling")).cloned().unwrap_or_default();
    let rope = rope.get("full_attention").cloned().unwrap_or(rope);
    let of_rope = |key: &str| rope.get(key).and_then(Value::as_f64);
    let theta = number("rope_theta").or(of_rope("rope_theta"));
    theta.into_iter().for_each(|theta| gguf.f32(&key("rope.freq_base"), theta));
    let usual = if kind == "nemotron" || kind == "phi" { 0.5 } else { 1.0 };
    let share = of_rope("partial_rotary_factor").or(number("partial_rotary_factor"));
    gguf.u32(&key("rope.dimension_count"), (head_dim as f64 * share.unwrap_or(usual)) as u64);
    let rope_type =
        rope.get("rope_type").or(rope.get("type")).and_then(Value::as_str).unwrap_or("default");
    if matches!(rope_type, "linear" | "yarn") {
        gguf.text(&key("rope.scaling.type"), rope_type);
        gguf.f32(&key("rope.scaling.factor"), of_rope("factor").unwrap());
        let original = of_rope("original_max_position_embeddings").unwrap_or(0.0);
        gguf.u32(&key("rope.scaling.original_context_length"), original as u64);
        for beta in ["beta_fast", "beta_slow"] {
            let found = of_rope(beta);
            found.into_iter().for_each(|b| gguf.f32(&key(&format!("rope.scaling.yarn_{beta}")), b));
        }
    }
    if rope_type == "llama3" {
        let divisors = llama3_divisors(&rope, theta.unwrap(), head_dim as usize);
        gguf.f32_tensor("rope_freqs.weight", &[divisors.len()], &divisors);
    }
    for (name, field) in [
        ("attention.sliding_window", "sliding_window"),
        ("attention.sliding_window_pattern", "sliding_window_pattern"),
    ] {
        whole(field).into_iter().for_each(|value| gguf.u32(&key(name), value));
    }
    for (name, field) in [
        ("attn_logit_softcapping", "attn_logit_softcapping"),
        ("final_logit_softcapping", "final_logit_softcapping"),
        ("embedding_scale", "embedding_multiplier"),
        ("residual_scale", "residual_multiplier"),
        ("attention.scale", "attention_multiplier"),
        ("logit_scale", "logits_scaling"),
    ] {
        // a folder of MiniCPM's may have Granite's fields beside its own
        let found = number(field).filter(|_| kind != "minicpm");
        found.into_iter().for_each(|value| gguf.f32(&key(name), value));
    }
    if kind == "minicpm" {
        gguf.f32(&key("embedding_scale"), number("scale_emb").unwrap());
        gguf.f32(&key("residual_scale"), number("scale_depth").unwrap() / (layers as f64).sqrt());
        gguf.f32(&key("logit_scale"), hidden as f64 / number("dim_model_base").unwrap());
    }
    for name in ["bos", "eos"] {
        let id = &config[format!("{name}_token_id")];
        let id = id.as_u64().or(id.get(0).and_then(Value::as_u64));
        id.into_iter().for_each(|id| gguf.u32(&format!("tokenizer.ggml.{name}_token_id"), id));
    }

    let checkpoint = Checkpoint::open(dir).unwrap();
    let about = About {
        kind,
        heads,
        kv_heads,
        head_dim,
        query_pre: number("query_pre_attn_scalar"),
        powerinfer,
    };
    for name in checkpoint.names() {
        if name == "lm_head.weight" && config["tie_word_embeddings"] == true {
            continue;
        }
        about.put(&checkpoint, name, matrices, &mut gguf);
    }
    gguf
}

struct About<'a> {
    kind: &'a str,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    query_pre: Option<f64>,
    powerinfer: bool,
}

impl About<'_> {
    fn put(&self, checkpoint: &Checkpoint, hf: &str, matrices: Matrices, gguf: &mut Gguf) {
        let mut shape = checkpoint.shape(hf).unwrap().to_vec();
        let mut values = checkpoint.read_f32(hf).unwrap();
        let mut name = self.name(hf);
        if self.powerinfer && name.contains("ffn_down.") {
            name = name.replace("ffn_down.", "ffn_down_t.");
            if let &[_, columns] = shape.as_slice() {
                let column = |at: usize| values.iter().copied().skip(at).step_by(columns);
                values = (0..columns).flat_map(column).collect();
                shape.reverse();
            }
        }
        let width = shape.get(1).copied().unwrap_or(1);
        let norm = name.contains("norm") && name.ends_with(".weight");
        if norm && (self.kind.starts_with("gemma") || self.kind == "nemotron") {
            values.iter_mut().for_each(|value| *value += 1.0);
        }
        let interleaved =
            ["llama", "sparsellama", "llama_sparse_relu", "mistral", "bamboo", "minicpm"];
        let interleaved = [&interleaved[..], &["granite", "arcee"]].concat();
        if interleaved.contains(&self.kind)
            && (name.contains("attn_q.") || name.contains("attn_k."))
        {
            values = permuted(&values, width, self.head_dim as usize);
        }
        if name.contains("attn_qkv") {
            values = self.parts_together(&values, width);
        }
        // Files do not say what scores are divided by, but by the width of a head: what is another goes into the
        // queries.
        let queries = if self.kind == "gemma2" { "attn_q.weight" } else { "attn_q_norm.weight" };
        let rescaled = self.query_pre.filter(|_| name.contains(queries));
        if let Some(by) = rescaled {
            let by = (self.head_dim as f64 / by).sqrt() as f32;
            values.iter_mut().for_each(|value| *value *= by);
        }
        if shape.len() < 2 || rescaled.is_some() {
            return gguf.f32_tensor(&name, &shape, &values);
        }
        let to = match (matrices, checkpoint.dtype(hf).unwrap()) {
            (Matrices::As(dtype), _) => dtype,
            (_, StoredType::F16) => Dtype::F16,
            (_, StoredType::Bf16) => Dtype::Bf16,
            _ => Dtype::F32,
        };
        let kind = match to {
            Dtype::F16 => 1,
            Dtype::Q4_0 => 2,
            Dtype::Q8_0 => 8,
            Dtype::Bf16 => 30,
            _ => F32,
        };
        let mut bytes = Vec::new();
        for row in values.chunks(width) {
            let row: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
            let mut out = vec![0; to.part_bytes(width as u32) as usize];
            convert(StoredType::F32, &row, to, &mut out).unwrap();
            bytes.extend(out);
        }
        gguf.tensor(&name, &shape, kind, bytes);
    }

    /// llama.cpp's name of a tensor.
    fn name(&self, hf: &str) -> String {
        let (name, end) = hf.rsplit_once('.').unwrap();
        let name =
            name.strip_prefix("model.").or(name.strip_prefix("transformer.")).unwrap_or(name);
        let name = name.strip_prefix("decoder.").unwrap_or(name);
        let in_layer = name.strip_prefix("layers.").or(name.strip_prefix("h."));
        let Some((layer, role)) = in_layer.and_then(|rest| rest.split_once('.')) else {
            let role = match name {
                "embed_tokens" | "word_embeddings" => "token_embd",
                "embed_positions" => "position_embd",
                "norm" | "final_layer_norm" | "ln_f" | "final_layernorm" => "output_norm",
                "lm_head" => "output",
                other => panic!("{other}"),
            };
            return format!("{role}.{end}");
        };
        let around = matches!(self.kind, "gemma2" | "gemma3_text");
        let role = match role {
            "input_layernorm" | "self_attn_layer_norm" | "ln_mlp" => "attn_norm",
            "ln_attn" => "attn_norm_2",
            "post_attention_layernorm" if around => "post_attention_norm",
            "post_attention_layernorm" | "final_layer_norm" | "pre_feedforward_layernorm" => {
                "ffn_norm"
            }
            "post_feedforward_layernorm" => "post_ffw_norm",
            "self_attn.q_proj" => "attn_q",
            "self_attn.k_proj" => "attn_k",
            "self_attn.v_proj" => "attn_v",
            "self_attention.query_key_value" => "attn_qkv",
            "self_attn.o_proj"
            | "self_attn.out_proj"
            | "self_attn.dense"
            | "self_attention.dense" => "attn_output",
            "self_attn.q_norm" => "attn_q_norm",
            "self_attn.k_norm" => "attn_k_norm",
            "self_attn.attn_sub_norm" => "attn_sub_norm",
            "mlp.ffn_sub_norm" => "ffn_sub_norm",
            "mlp.gate_proj" => "ffn_gate",
            "mlp.up_proj" | "mlp.fc1" | "fc1" | "mlp.dense_h_to_4h" => "ffn_up",
            "mlp.down_proj" | "mlp.fc2" | "fc2" | "mlp.dense_4h_to_h" => "ffn_down",
            other => panic!("{other}"),
        };
        format!("blk.{layer}.{role}.{end}")
    }

    /// Falcon's rows: for each key-value head its queries, key and value, to all queries, all keys, all values.
    fn parts_together(&self, values: &[f32], width: usize) -> Vec<f32> {
        let head = self.head_dim as usize * width;
        let queries = (self.heads / self.kv_heads) as usize;
        let groups = || values.chunks((queries + 2) * head);
        let part =
            |from: usize, to: usize| groups().flat_map(move |group| &group[from * head..to * head]);
        let all = part(0, queries).chain(part(queries, queries + 1));
        all.chain(part(queries + 1, queries + 2)).copied().collect()
    }
}

/// `permute` of llama.cpp's converter: rows of the two halves of a head in turn.
fn permuted(values: &[f32], width: usize, head_dim: usize) -> Vec<f32> {
    let mut out = Vec::new();
    for head in values.chunks(head_dim * width) {
        let row = |at: usize| &head[at * width..(at + 1) * width];
        for pair in 0..head_dim / 2 {
            out.extend_from_slice(row(pair));
            out.extend_from_slice(row(pair + head_dim / 2));
        }
    }
    out
}

/// `rope_freqs` of llama.cpp's converter.
fn llama3_divisors(rope: &Value, theta: f64, head_dim: usize) -> Vec<f32> {
    let of = |key: &str| rope[key].as_f64().unwrap();
    let (factor, low, high) = (of("factor"), of("low_freq_factor"), of("high_freq_factor"));
    let original = of("original_max_position_embeddings");
    let divisor = |pair: usize| {
        let frequency = 1.0 / theta.powf((2 * pair) as f64 / head_dim as f64);
        let length = 2.0 * std::f64::consts::PI / frequency;
        if length < original / high {
            1.0
        } else if length > original / low {
            factor
        } else {
            let smooth = (original / length - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..head_dim / 2).map(|pair| divisor(pair) as f32).collect()
}

/// Puts the tokenizer of a folder in, which is byte-level BPE.
pub(crate) fn put_tokenizer(gguf: &mut Gguf, dir: &Path, pre: &str) {
    let tokenizer = read_json(&dir.join("tokenizer.json"));
    let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
    let mut tokens: Vec<(u64, &str)> =
        vocabulary.iter().map(|(token, id)| (id.as_u64().unwrap(), token.as_str())).collect();
    let mut kinds = std::collections::BTreeMap::new();
    for added in tokenizer["added_tokens"].as_array().unwrap() {
        let token = (added["id"].as_u64().unwrap(), added["content"].as_str().unwrap());
        tokens.push(token);
        kinds.insert(token.0, if added["special"] == true { 3 } else { 4 });
    }
    tokens.sort();
    tokens.dedup();
    let merge = |merge: &Value| match merge {
        Value::String(merge) => merge.clone(),
        pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
    };
    let merges = tokenizer["model"]["merges"].as_array().unwrap();
    let merges: Vec<String> = merges.iter().map(merge).collect();
    gguf.text("tokenizer.ggml.model", "gpt2");
    gguf.text("tokenizer.ggml.pre", pre);
    gguf.texts("tokenizer.ggml.tokens", tokens.iter().map(|(_, token)| *token));
    let kinds: Vec<i32> = tokens.iter().map(|(id, _)| *kinds.get(id).unwrap_or(&1)).collect();
    gguf.i32s("tokenizer.ggml.token_type", &kinds);
    gguf.texts("tokenizer.ggml.merges", merges.iter().map(String::as_str));
    gguf.flag("tokenizer.ggml.add_bos_token", true);
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}
