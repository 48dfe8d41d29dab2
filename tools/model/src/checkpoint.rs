//! The weights of a Hugging Face model folder, read on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use half::{bf16, f16};
use rayon::prelude::*;
pub use safetensors::Dtype;
use serde::Deserialize;

use lnp_common::files;
use lnp_common::tensor_file::TensorFile;

/// What the model is, in a model folder.
pub(super) const CONFIG_FILE: &str = "config.json";
/// How it is to be asked, there.
pub(super) const GENERATION_FILE: &str = "generation_config.json";
/// The tokenizer there.
pub(super) const TOKENIZER_FILE: &str = "tokenizer.json";
/// What transformers does around it.
pub(super) const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
/// How a pack begins: all that this room knows of packs.
const PACK_BEGIN: &[u8] = b"\x89LNP";
const INDEX_FILE: &str = "model.safetensors.index.json";
/// Longest index, bytes.
const INDEX_BYTES_MAX: u64 = 1 << 26;
/// Below this many elements a conversion is not worth splitting between threads.
const CONVERT_ELEMENTS_MIN: usize = 1 << 16;

/// The safetensors files of a model folder. Headers are held, tensors are read when asked for.
pub struct Checkpoint {
    dir: PathBuf,
    files: Vec<TensorFile>,
    /// Tensor name to its file.
    tensors: BTreeMap<String, usize>,
}

/// One file of a checkpoint, named by content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Name of the file within the model folder.
    pub file_name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, lower-case hex.
    pub sha256_hex: String,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens all safetensors files of a model folder, in order of their names: those that
    /// `model.safetensors.index.json` names if it exists, else every `*.safetensors`.
    ///
    /// # Errors
    /// No folder, no such file, an invalid header, a tensor that two files hold, or one that the index
    /// promises and no file holds.
    pub fn open(dir: &Path) -> Result<Self> {
        check_folder(dir)?;
        let index = read_index(dir)?;
        let names = match &index {
            Some(index) => index.weight_map.values().cloned().collect(),
            None => list_safetensors(dir)?,
        };
        let mut files = Vec::new();
        let mut tensors = BTreeMap::new();
        for name in &names {
            let path = dir.join(name);
            let file = TensorFile::open(&path).or_else(|error| {
                files::check_is_no_pointer(&path)?;
                Err(error)
            })?;
            for tensor in file.tensors().keys() {
                if let Some(other) = tensors.insert(tensor.clone(), files.len()) {
                    let other: &String = names.iter().nth(other).unwrap_or(name);
                    bail!(
                        "{}: tensor `{tensor}` is in both {other} and {name}; \
                         keep one set of weights in the folder",
                        dir.display()
                    );
                }
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
        Ok(Self { dir: dir.to_owned(), files, tensors })
    }

    /// The model folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The files that hold the weights.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|file| file.path().to_owned()).collect()
    }

    /// All files of the folder that a program may read, whether they are there or not.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let others =
            [INDEX_FILE, CONFIG_FILE, GENERATION_FILE, TOKENIZER_FILE, TOKENIZER_CONFIG_FILE];
        let others = others.map(|name| self.dir.join(name));
        self.paths().into_iter().chain(others).collect()
    }

    /// Name of the model: the last component of the folder's path.
    pub fn name(&self) -> String {
        let resolved = self.dir.canonicalize().unwrap_or_else(|_| self.dir.clone());
        let name = resolved.file_name().unwrap_or(resolved.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// Names of all tensors, ascending.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether the tensor exists.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Shape of a tensor.
    ///
    /// # Errors
    /// No such tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.file(name)?.info(name)?.shape)
    }

    /// Element type of a tensor.
    ///
    /// # Errors
    /// No such tensor.
    pub fn dtype(&self, name: &str) -> Result<Dtype> {
        Ok(self.file(name)?.info(name)?.dtype)
    }

    /// All elements of an F64, F32, F16 or BF16 tensor, row-major, as f32: exact, but for F64, which is rounded.
    ///
    /// # Errors
    /// No such tensor, another type, or a failed read.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let (dtype, bytes) = self.read_raw(name)?;
        to_f32(dtype, &bytes).with_context(|| {
            format!(
                "{}: tensor `{name}` is {dtype:?}, expected F64, F32, F16 or BF16; \
                 convert the checkpoint to one of these",
                self.place(name)
            )
        })
    }

    /// Type and bytes of a tensor as they stand in the file (little-endian, row-major).
    ///
    /// # Errors
    /// No such tensor, or a failed read.
    pub fn read_raw(&self, name: &str) -> Result<(Dtype, Vec<u8>)> {
        let file = self.file(name)?;
        Ok((file.info(name)?.dtype, file.read(name)?))
    }

    /// Type and bytes of some rows (first dimension) of a tensor.
    ///
    /// # Errors
    /// No such tensor, rows beyond its end, rows that are not whole bytes, or a failed read.
    pub fn read_rows_raw(&self, name: &str, rows: Range<usize>) -> Result<(Dtype, Vec<u8>)> {
        let file = self.file(name)?;
        let info = file.info(name)?;
        let have = info.shape.first().copied().unwrap_or(0);
        if rows.start > rows.end || rows.end > have {
            bail!(
                "{}: tensor `{name}`: rows {}..{} asked for, it has {have}",
                self.place(name),
                rows.start,
                rows.end
            );
        }
        let bytes = info.data_offsets.1 - info.data_offsets.0;
        let row_bytes = bytes.checked_div(have).unwrap_or(0);
        if row_bytes * have != bytes {
            bail!("{}: tensor `{name}`: rows are not whole bytes", self.place(name));
        }
        let range = rows.start * row_bytes..rows.end * row_bytes;
        Ok((info.dtype, file.read_range(name, range)?))
    }

    /// The files by content. Reads and hashes every file, which takes seconds per gigabyte.
    ///
    /// # Errors
    /// A failed read.
    pub fn sources(&self) -> Result<Vec<Source>> {
        self.files
            .iter()
            .map(|file| {
                Ok(Source {
                    file_name: file.file_name(),
                    bytes: file.len_bytes(),
                    sha256_hex: files::sha256_hex(file.path())?,
                })
            })
            .collect()
    }

    fn file(&self, name: &str) -> Result<&TensorFile> {
        self.tensors.get(name).and_then(|&file| self.files.get(file)).with_context(|| {
            format!(
                "{}: no tensor `{name}` among the {} of this checkpoint; is it the model that \
                 config.json describes?",
                self.dir.display(),
                self.tensors.len()
            )
        })
    }

    /// The file that holds a tensor, for messages.
    fn place(&self, name: &str) -> String {
        let path = self.file(name).map_or(self.dir.as_path(), TensorFile::path);
        path.display().to_string()
    }
}

/// Bytes of a floating-point tensor (little-endian) as f32; None if the type is none of the four known: F64, F32,
/// F16, BF16.
pub fn to_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    fn convert<const N: usize>(bytes: &[u8], one: fn([u8; N]) -> f32) -> Vec<f32> {
        let (elements, _) = bytes.as_chunks::<N>();
        elements.par_iter().with_min_len(CONVERT_ELEMENTS_MIN).map(|&bytes| one(bytes)).collect()
    }
    match dtype {
        Dtype::F64 => Some(convert(bytes, |bytes| f64::from_le_bytes(bytes) as f32)),
        Dtype::F32 => Some(convert(bytes, f32::from_le_bytes)),
        Dtype::F16 => Some(convert(bytes, |bytes| f16::from_le_bytes(bytes).to_f32())),
        Dtype::BF16 => Some(convert(bytes, |bytes| bf16::from_le_bytes(bytes).to_f32())),
        _ => None,
    }
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
        Some(begin) if begin.starts_with(b"GGUF") => bail!(
            "{dir}: a GGUF file, which lnp does not read: give the Hugging Face model folder \
             (config.json, *.safetensors, tokenizer.json) that it was made from"
        ),
        Some(begin) if begin.starts_with(PACK_BEGIN) => {
            bail!("{dir}: a pack: give the folder of the model that it was made from")
        }
        _ => bail!(
            "{dir}: not a folder: give the Hugging Face model folder (config.json, *.safetensors, \
             tokenizer.json)"
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
