//! Says what is in a GGUF file, and whether and how it can be used.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use serde::Serialize;

use super::GgufFile;
use super::powerinfer::PowerInfer;
use crate::stored::StoredType;

/// What is in the files of a model.
#[derive(Debug, Serialize)]
pub struct Description {
    /// The files, in order.
    pub files: Vec<FileDescription>,
    /// Version of the format.
    pub version: u32,
    /// Whether it is one of PowerInfer's.
    pub is_powerinfer: bool,
    /// `general.architecture`.
    pub architecture: Option<String>,
    /// Keys and, in a few words, values.
    pub metadata: BTreeMap<String, String>,
    /// Tensors by type.
    pub types: Vec<TypeDescription>,
    /// What the model is.
    pub model: Option<ModelDescription>,
    /// What stands in the way where it cannot be used.
    pub model_error: Option<String>,
    /// Its tokens.
    pub tokenizer: Option<TokenizerDescription>,
    /// What stands in the way where its tokenizer cannot be used.
    pub tokenizer_error: Option<String>,
}

/// One of the files.
#[derive(Debug, Serialize)]
pub struct FileDescription {
    /// Its name, without its folder.
    pub file: String,
    /// Its length.
    pub bytes: u64,
}

/// Tensors of one type.
#[derive(Debug, Serialize)]
pub struct TypeDescription {
    /// Name of the type.
    #[serde(rename = "type")]
    pub name: String,
    /// How many.
    pub tensors: usize,
    /// What they take.
    pub bytes: u64,
    /// Whether it can be read as weights.
    pub readable: bool,
}

/// A model that can be used.
#[derive(Debug, Serialize)]
pub struct ModelDescription {
    /// Its family: a row in `docs/models.md`.
    pub family: &'static str,
    /// Layers.
    pub layers: usize,
    /// FFN neurons of a layer.
    pub neurons: usize,
    /// Hidden size.
    pub hidden: usize,
    /// Whether the FFN has a gate.
    pub gated: bool,
    /// Activation of the FFN, which the command line can say otherwise.
    pub activation: &'static str,
    /// Whether it leaves neurons at zero: others run densely only.
    pub sparse: bool,
    /// Types of the FFN's weights.
    pub ffn_types: Vec<String>,
    /// Of a file of PowerInfer's: its predictors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub powerinfer: Option<PowerInfer>,
}

/// A tokenizer that can be used.
#[derive(Debug, Serialize)]
pub struct TokenizerDescription {
    /// `tokenizer.ggml.model`.
    pub model: String,
    /// `tokenizer.ggml.pre`, where it is there.
    pub pre: Option<String>,
    /// Tokens.
    pub tokens: usize,
}

/// Describes a file, or all parts of a model of which it is one; `None` where it is no GGUF file.
///
/// # Errors
/// A damaged file. A model that cannot be used is none.
pub fn describe(path: &Path) -> Result<Option<Description>> {
    if !super::is_gguf(path) {
        return Ok(None);
    }
    let gguf = GgufFile::open(path)?;
    let mut types: BTreeMap<StoredType, (usize, u64)> = BTreeMap::new();
    for (_, tensor) in gguf.tensors() {
        let (tensors, bytes) = types.entry(tensor.dtype).or_default();
        (*tensors, *bytes) = (*tensors + 1, bytes.saturating_add(tensor.bytes));
    }
    let types = types.into_iter().map(|(dtype, (tensors, bytes))| {
        let readable = is_readable(dtype);
        TypeDescription { name: dtype.to_string(), tensors, bytes, readable }
    });
    let (tokenizer, tokenizer_error) = apart(tokenizer(&gguf));
    let metadata = &gguf.metadata;
    let shown = metadata.keys().map(|key| (key.to_owned(), metadata.shown(key))).collect();
    let architecture = metadata.text("general.architecture").ok().flatten().map(str::to_owned);
    let files = gguf.files.iter();
    let files = files
        .map(|file| FileDescription { file: file.file_name(), bytes: file.len_bytes() })
        .collect();
    let (types, version) = (types.collect(), gguf.version);
    let is_powerinfer = gguf.is_powerinfer;
    let (model, model_error) = apart(model(gguf));
    Ok(Some(Description {
        files,
        version,
        is_powerinfer,
        architecture,
        metadata: shown,
        types,
        model,
        model_error,
        tokenizer,
        tokenizer_error,
    }))
}

fn apart<T>(found: Result<T>) -> (Option<T>, Option<String>) {
    match found {
        Ok(found) => (Some(found), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    }
}

fn is_readable(dtype: StoredType) -> bool {
    !matches!(dtype, StoredType::Other(_))
}

fn tokenizer(gguf: &GgufFile) -> Result<TokenizerDescription> {
    gguf.tokenizer()?;
    let text = |key| Ok::<_, anyhow::Error>(gguf.metadata.text(key)?.map(str::to_owned));
    Ok(TokenizerDescription {
        model: text("tokenizer.ggml.model")?.unwrap_or_default(),
        pre: text("tokenizer.ggml.pre")?,
        tokens: gguf.metadata.texts("tokenizer.ggml.tokens")?.map_or(0, |tokens| tokens.len()),
    })
}

fn model(gguf: GgufFile) -> Result<ModelDescription> {
    let (config, found) = gguf.model()?;
    if let Some((name, place)) = found.tensors.iter().find(|(_, at)| !is_readable(at.dtype)) {
        bail!("tensor `{name}` is {}, a type that lnp does not read", place.dtype);
    }
    let mut ffn_types: Vec<StoredType> = Vec::new();
    for layer in 0..config.layers {
        let names = config.ffn_tensors(layer);
        for name in names.gate.iter().chain([&names.up, &names.down]) {
            let Some(place) = found.tensors.get(name) else {
                bail!("no tensor for `{name}`");
            };
            ffn_types.push(place.dtype);
        }
    }
    ffn_types.sort();
    ffn_types.dedup();
    Ok(ModelDescription {
        family: config.family,
        layers: config.layers,
        neurons: config.neurons,
        hidden: config.hidden,
        gated: config.parts() == 3,
        activation: config.activation.name(),
        sparse: config.activation.cut().is_ok(),
        ffn_types: ffn_types.iter().map(StoredType::to_string).collect(),
        powerinfer: found.powerinfer,
    })
}
