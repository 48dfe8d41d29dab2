//! Where a GGUF file's tensors go: from llama.cpp's names to those of Hugging Face, which the model's family
//! gives, so that one table serves all families.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::GgufFile;
use super::header::TensorInfo;
use crate::architecture::{Names, Qkv};
use crate::checkpoint::{Laid, Place};
use crate::config::ModelConfig;

/// Architectures whose query and key rows llama.cpp's converter lays for pairs of neighbours to turn together.
const INTERLEAVED: [&str; 5] = ["llama", "minicpm", "granite", "arcee", "bamboo"];

/// The tensors of the model by their Hugging Face names, and of PowerInfer's predictors by their own. Those that the
/// family does not name are left out.
pub(super) fn hugging_face(
    gguf: &GgufFile,
    config: &ModelConfig,
) -> Result<BTreeMap<String, Place>> {
    let architecture = gguf.metadata.text("general.architecture")?.unwrap_or_default();
    let interleaved = INTERLEAVED.contains(&architecture).then_some(config.head_dim);
    let own_ffn_norm = gguf.tensor("blk.0.attn_norm_2.weight").is_some();
    let mut tensors = BTreeMap::new();
    for (file, tensor) in gguf.tensors() {
        let TensorInfo { dtype, shape, offset, bytes, .. } = tensor.clone();
        let bytes = usize::try_from(bytes)
            .with_context(|| format!("tensor `{}` is too large", tensor.name))?;
        let mut place = Place { dtype, shape, file, offset, bytes, laid: Laid::InRows };
        let Some((role, end)) = tensor.name.rsplit_once('.') else { continue };
        let Some((layer, role)) = in_layer(role) else {
            if let Some(name) = of_model(role, config) {
                put(&mut tensors, format!("{name}.{end}"), place)?;
            }
            continue;
        };
        let prefix = config.layer_prefix(layer);
        if let ("attn_qkv", Qkv::Apart(names)) = (role, config.architecture.names.qkv) {
            let parts =
                apart(&place, config).with_context(|| format!("tensor `{}`", tensor.name))?;
            for (name, part) in names.iter().zip(parts) {
                put(&mut tensors, format!("{prefix}{name}.{end}"), part)?;
            }
        } else if let Some(name) = of_layer(role, config, own_ffn_norm) {
            if let ("attn_q" | "attn_k", Some(head_dim)) = (role, interleaved) {
                let heads = if role == "attn_q" { config.heads } else { config.kv_heads };
                check_rows(&place, heads * head_dim)
                    .with_context(|| format!("tensor `{}`", tensor.name))?;
                place.laid = Laid::HeadsInterleaved(head_dim);
            }
            if role == "ffn_down_t" && place.shape.len() == 2 {
                place.shape.reverse();
                place.laid = Laid::InColumns;
            }
            put(&mut tensors, format!("{prefix}{name}.{end}"), place)?;
        } else if matches!(role, "fc1" | "fc2") {
            put(&mut tensors, tensor.name.clone(), place)?;
        }
    }
    Ok(tensors)
}

/// Parts of a model may have the same tensor, and one file two names for it.
fn put(tensors: &mut BTreeMap<String, Place>, name: String, place: Place) -> Result<()> {
    ensure!(!tensors.contains_key(&name), "tensor `{name}` is there twice: damaged");
    tensors.insert(name, place);
    Ok(())
}

/// The layer that a name such as `blk.3.ffn_up` is of, and what it is there.
fn in_layer(name: &str) -> Option<(usize, &str)> {
    let (layer, role) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, role))
}

/// Name of what belongs to no layer.
fn of_model(role: &str, config: &ModelConfig) -> Option<String> {
    let names = &config.architecture.names;
    let name = match role {
        "output" => return Some("lm_head".into()),
        "token_embd" => names.embedding,
        "position_embd" => "embed_positions",
        "output_norm" => names.final_norm,
        _ => return None,
    };
    Some(format!("{}{name}", config.prefix))
}

/// Name within a layer. Falcon's own norm of the FFN is what is `attn_norm` elsewhere.
fn of_layer(role: &str, config: &ModelConfig, own_ffn_norm: bool) -> Option<&'static str> {
    let Names { qkv, after, .. } = config.architecture.names;
    let names = &config.architecture.names;
    let of_qkv = |at: usize| match qkv {
        Qkv::Apart(names) => Some(names[at]),
        Qkv::Grouped(_) => None,
    };
    let head_norm = |at: usize| config.architecture.attention.head_norms.map(|names| names[at]);
    match role {
        "attn_norm" if own_ffn_norm => Some(names.ffn_norm),
        "attn_norm" | "attn_norm_2" => Some(names.attention_norm),
        "attn_q" => of_qkv(0),
        "attn_k" => of_qkv(1),
        "attn_v" => of_qkv(2),
        "attn_q_norm" => head_norm(0),
        "attn_k_norm" => head_norm(1),
        "attn_output" => Some(names.attention_out),
        "attn_sub_norm" => names.attention_sub_norm,
        "post_attention_norm" => Some(after[0]),
        "ffn_norm" => Some(names.ffn_norm),
        "ffn_gate" => names.gate,
        "ffn_up" => Some(names.up),
        "ffn_down" | "ffn_down_t" => Some(names.down),
        "ffn_sub_norm" => names.ffn_sub_norm,
        "post_ffw_norm" => Some(after[1]),
        _ => None,
    }
}

/// Checks that a tensor has so many rows, of whole bytes.
fn check_rows(place: &Place, expected: usize) -> Result<()> {
    let found = place.shape[0];
    ensure!(found == expected, "has {found} rows, its metadata makes it {expected}");
    ensure!(
        place.dtype.block() == 1 || place.shape.len() > 1,
        "has no rows: a bias of type {}",
        place.dtype
    );
    Ok(())
}

/// Queries, keys and values of one tensor, whose rows they are one after the other.
fn apart(all: &Place, config: &ModelConfig) -> Result<[Place; 3]> {
    let of_keys = config.kv_heads * config.head_dim;
    let rows = [config.heads * config.head_dim, of_keys, of_keys];
    let found = rows.iter().sum();
    check_rows(all, found)?;
    let mut offset = all.offset;
    Ok(rows.map(|rows| {
        let bytes = all.bytes / found * rows;
        let mut place = Place { offset, bytes, ..all.clone() };
        place.shape[0] = rows;
        offset += bytes as u64;
        place
    }))
}
