//! A Hugging Face model folder: its files, and the tensors in its safetensors files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use lnp_common::data_file::DataFile;
use lnp_common::files;
use lnp_common::tensor_file::{SYNTHETIC, TensorFile};

use super::checkpoint::{Found, Laid, Place};

/// What the model is, in a model folder.
pub(super) const CONFIG_FILE: &str = "config.json";
/// How it is to be asked, there.
pub(super) const GENERATION_FILE: &str = "generation_config.json";
/// The tokenizer there.
pub(super) const TOKENIZER_FILE: &str = "tokenizer.json";
/// What transformers does around it.
pub(super) const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
/// How a dialogue becomes a text, there.
pub(super) const CHAT_TEMPLATE_FILE: &str = "chat_template.jinja";
/// Which tensor is in which file, there.
const INDEX_FILE: &str = "model.safetensors.index.json";
/// All of them that are no weights.
pub(super) const OTHER_FILES: [&str; 6] = [
    INDEX_FILE,
    CONFIG_FILE,
    GENERATION_FILE,
    TOKENIZER_FILE,
    TOKENIZER_CONFIG_FILE,
    CHAT_TEMPLATE_FILE,
];
/// How a pack begins: all that this room knows of packs.
const PACK_BEGIN: &[u8] = b"\x89LNP";
/// Longest index, bytes.
const INDEX_BYTES_MAX: u64 = 1 << 26;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Finds the tensors of all safetensors files of a model folder, in order of their names: those that
/// `model.safetensors.index.json` names if it exists, else every `*.safetensors`.
///
/// # Errors
/// No folder, no such file, an invalid header, a tensor that two files hold, or one that the index
/// promises and no file holds.
pub(super) fn find(dir: &Path) -> Result<Found> {
    check_folder(dir)?;
    let index = read_index(dir)?;
    let names = match &index {
        Some(index) => index.weight_map.values().cloned().collect(),
        None => list_safetensors(dir)?,
    };
    let mut files: Vec<DataFile> = Vec::new();
    let mut tensors: BTreeMap<String, Place> = BTreeMap::new();
    let mut synthetic = None;
    for name in &names {
        let path = dir.join(name);
        let file = TensorFile::open(&path).or_else(|error| {
            files::check_is_no_pointer(&path)?;
            Err(error)
        })?;
        let (file, mut header) = file.into_parts();
        synthetic = synthetic.or_else(|| header.metadata.remove(SYNTHETIC));
        for (tensor, info) in header.tensors {
            if let Some(other) = tensors.get(&tensor) {
                bail!(
                    "{}: tensor `{tensor}` is in both {} and {name}; \
                     keep one set of weights in the folder",
                    dir.display(),
                    files[other.file].file_name()
                );
            }
            let (begin, end) = info.data_offsets;
            let place = Place {
                dtype: info.dtype.into(),
                shape: info.shape,
                file: files.len(),
                offset: header.data_start + begin as u64,
                bytes: end - begin,
                laid: Laid::InRows,
            };
            tensors.insert(tensor, place);
        }
        files.push(file);
    }
    if let Some(index) = &index {
        for (tensor, file) in &index.weight_map {
            if !tensors.contains_key(tensor) {
                bail!(
                    "{}: {INDEX_FILE} promises tensor `{tensor}` in {file}, which lacks it; \
                     download the folder again",
                    dir.display()
                );
            }
        }
    }
    Ok(Found { files, tensors, powerinfer: None, synthetic })
}

fn read_index(dir: &Path) -> Result<Option<Index>> {
    let path = dir.join(INDEX_FILE);
    if let Err(error) = path.metadata()
        && error.kind() == std::io::ErrorKind::NotFound
    {
        return Ok(None);
    }
    let text = files::read_text(&path, INDEX_BYTES_MAX)?;
    let index: Index = serde_json::from_str(&text)
        .with_context(|| format!("{}: not a safetensors index", path.display()))?;
    for file in index.weight_map.values() {
        // The index comes with the download: it must not lead out of the folder.
        if Path::new(file).file_name() != Some(file.as_ref()) {
            bail!("{}: file name `{file}` leads out of the folder", path.display());
        }
    }
    Ok(Some(index))
}

/// Checks that a model is a folder, and says what else it is.
///
/// # Errors
/// Nothing there, or a file.
pub(super) fn check_folder(dir: &Path) -> Result<()> {
    let facts = dir
        .metadata()
        .with_context(|| format!("{}: cannot list the model folder", dir.display()))?;
    if facts.is_dir() {
        return Ok(());
    }
    let (begin, dir) = (files::first_bytes(dir), dir.display());
    match begin.as_deref() {
        Some(begin) if begin.starts_with(PACK_BEGIN) => {
            bail!("{dir}: a pack: give the folder of the model that it was made from")
        }
        _ => bail!(
            "{dir}: neither a folder nor a GGUF file: give the Hugging Face model folder (config.json, \
             *.safetensors, tokenizer.json) or the model as GGUF"
        ),
    }
}

/// A line of Python that loads a model folder with a class of transformers and saves it again, in the
/// files of today.
pub(super) fn conversion(class: &str, dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "python3 -c 'from transformers import {class} as A; \
         A.from_pretrained(\"{dir}\").save_pretrained(\"{dir}\")'"
    )
}

fn list_safetensors(dir: &Path) -> Result<BTreeSet<String>> {
    let context = || format!("{}: cannot list the model folder", dir.display());
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(dir).with_context(context)? {
        let name = entry.with_context(context)?.file_name();
        if let Some(name) = name.to_str().filter(|name| name.ends_with(".safetensors")) {
            names.insert(name.to_owned());
        }
    }
    if names.is_empty() {
        bail!(
            "{}: no *.safetensors file; give a Hugging Face model folder{}",
            dir.display(),
            other_weights(dir)
        );
    }
    Ok(names)
}

/// What helps where a folder has weights of another kind.
fn other_weights(dir: &Path) -> String {
    const KINDS: [&str; 3] = ["bin", "pt", "pth"];
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names = files.map(|file| file.path());
    let found = names
        .find(|path| path.extension().is_some_and(|kind| KINDS.iter().any(|other| kind == *other)));
    let Some(name) = found.as_deref().and_then(Path::file_name) else { return String::new() };
    format!(
        ", or convert {}, which is there, once: {}",
        name.display(),
        conversion("AutoModelForCausalLM", dir)
    )
}
