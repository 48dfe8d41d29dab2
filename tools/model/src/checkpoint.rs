//! The weights of a model, read on demand, whatever they lie in.
//!
//! `folder` and [`super::gguf`] find where the tensors are; from there on a model folder and a GGUF
//! file are the same: tensors by their Hugging Face names, in pieces of files.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use lnp_common::data_file::DataFile;
use lnp_common::files;

use super::activation::Activation;
use super::config::ModelConfig;
use super::folder::{self, CONFIG_FILE};
use super::gguf::powerinfer::PowerInfer;
use super::gguf::{self, GgufFile};
use super::stored::transposed;
pub use super::stored::{StoredType, standing_alone, to_f32};

/// A model's tensors, in the files of a model folder or in GGUF files. Headers are held, tensors are read when
/// asked for. Cheap to clone.
#[derive(Clone)]
pub struct Checkpoint {
    path: PathBuf,
    found: Arc<Found>,
    /// What the model is, where the files of the weights say it themselves: GGUF files do.
    config: Option<Arc<ModelConfig>>,
    activation: Option<Activation>,
    /// Whether the weights of the FFN are there too.
    has_ffn: bool,
}

/// Where the tensors of a model are.
pub(super) struct Found {
    pub(super) files: Vec<DataFile>,
    /// By Hugging Face name.
    pub(super) tensors: BTreeMap<String, Place>,
    /// What PowerInfer's files have beside the weights.
    pub(super) powerinfer: Option<PowerInfer>,
    /// How the weights were made up, where they were.
    pub(super) synthetic: Option<String>,
}

/// Where a tensor is, and what.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub(super) dtype: StoredType,
    /// Dimensions, the slowest first.
    pub(super) shape: Vec<usize>,
    /// Which of the files.
    pub(super) file: usize,
    /// First byte there.
    pub(super) offset: u64,
    pub(super) bytes: usize,
    pub(super) laid: Laid,
}

/// How a tensor's elements lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Laid {
    /// Row after row.
    InRows,
    /// The rows of heads so wide as llama.cpp turns them: those of the two halves in turn.
    HeadsInterleaved(usize),
    /// Column after column: the rows of the file are the tensor's columns.
    InColumns,
}

/// One file of a checkpoint, named by content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Name of the file, without its folder.
    pub file_name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, lower-case hex.
    pub sha256_hex: String,
}

impl Checkpoint {
    /// Opens the weights of a model folder, or of a GGUF file with the parts that belong to it.
    ///
    /// # Errors
    /// Neither, no weights in it, an invalid header, a tensor that two files hold, or one that is promised and
    /// in no file; of a GGUF file also a model that is not supported.
    pub fn open(path: &Path) -> Result<Self> {
        let (config, found) = if gguf::is_gguf(path) {
            let (config, found) = GgufFile::open(path)?.model()?;
            (Some(Arc::new(config)), found)
        } else {
            (None, folder::find(path)?)
        };
        Ok(Self {
            path: path.to_owned(),
            found: Arc::new(found),
            config,
            activation: None,
            has_ffn: true,
        })
    }

    /// What a pack holds of a model besides its FFN.
    pub(super) fn resident(path: &Path, found: Found, config: Option<Arc<ModelConfig>>) -> Self {
        let (path, found) = (path.to_owned(), Arc::new(found));
        Self { path, found, config, activation: None, has_ffn: false }
    }

    /// Whether the weights of the FFN are there: not where a pack holds the rest.
    pub fn has_ffn(&self) -> bool {
        self.has_ffn
    }

    /// The same model with another activation than its files say, if one is given.
    #[must_use]
    pub fn with_activation(self, activation: Option<Activation>) -> Self {
        Self { activation, ..self }
    }

    /// The activation that the caller said.
    pub(super) fn activation(&self) -> Option<Activation> {
        self.activation
    }

    /// What the model is, where its weights' own files say it.
    pub(super) fn config(&self) -> Option<&ModelConfig> {
        self.config.as_deref()
    }

    /// What the files are, and have beside the weights, where they are PowerInfer's.
    pub fn powerinfer(&self) -> Option<&PowerInfer> {
        self.found.powerinfer.as_ref()
    }

    /// The model folder, or the GGUF file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that says what the model is, for messages.
    pub fn described_in(&self) -> PathBuf {
        if self.config.is_some() { self.path.clone() } else { self.path.join(CONFIG_FILE) }
    }

    /// What in the folder or the file it is.
    pub fn description(&self) -> &'static str {
        if self.config.is_some() { "its metadata" } else { CONFIG_FILE }
    }

    /// The files that hold the weights.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.found.files.iter().map(|file| file.path().to_owned()).collect()
    }

    /// All files of the model that a program may read, whether they are there or not.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let mut inputs = self.paths();
        if self.config.is_none() {
            inputs.extend(folder::OTHER_FILES.map(|name| self.path.join(name)));
        }
        inputs
    }

    /// How the weights were made up, where `lnp synth` made them: their metadata says so.
    pub fn synthetic(&self) -> Option<&str> {
        self.found.synthetic.as_deref()
    }

    /// Name of the model: the last component of the folder's path, or the GGUF file's without its ending; of synthetic
    /// weights `synthetic(...)`.
    pub fn name(&self) -> String {
        let name = self.file_name();
        if self.synthetic().is_some() { format!("synthetic({name})") } else { name }
    }

    fn file_name(&self) -> String {
        if self.config.is_some() {
            return gguf::model_name(&self.path);
        }
        let resolved = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let name = resolved.file_name().unwrap_or(resolved.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// Names of all tensors, ascending.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.found.tensors.keys().map(String::as_str)
    }

    /// Whether the tensor exists.
    pub fn contains(&self, name: &str) -> bool {
        self.found.tensors.contains_key(name)
    }

    /// Shape of a tensor.
    ///
    /// # Errors
    /// No such tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.place(name)?.shape)
    }

    /// Element type of a tensor.
    ///
    /// # Errors
    /// No such tensor.
    pub fn dtype(&self, name: &str) -> Result<StoredType> {
        Ok(self.place(name)?.dtype)
    }

    /// All elements of a tensor of weights, row-major, as f32: see [`to_f32`].
    ///
    /// # Errors
    /// No such tensor, another type, or a failed read.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let (dtype, bytes) = self.read_raw(name)?;
        to_f32(dtype, &bytes).with_context(|| {
            format!(
                "{}: tensor `{name}` is {dtype}, expected F64, F32, F16 or BF16; \
                 convert the checkpoint to one of these",
                self.file_of(name)
            )
        })
    }

    /// Type and bytes of a tensor as they stand in the file (little-endian, row-major). Where columns share scales in
    /// it, they are turned into rows as F32.
    ///
    /// # Errors
    /// No such tensor, or a failed read.
    pub fn read_raw(&self, name: &str) -> Result<(StoredType, Vec<u8>)> {
        let place = self.place(name)?;
        let bytes = self.read(name, place, 0..place.bytes)?;
        let rows = place.shape.first().copied().unwrap_or(0);
        match place.laid {
            Laid::InRows => Ok((place.dtype, bytes)),
            Laid::HeadsInterleaved(head_dim) => {
                Ok((place.dtype, halves_apart(&bytes, rows, head_dim)))
            }
            Laid::InColumns => self.turned(name, place, bytes, [place.shape[1], rows]),
        }
    }

    /// Whether the columns of a matrix stand in its file as rows.
    pub fn has_columns_as_rows(&self, name: &str) -> bool {
        self.found.tensors.get(name).is_some_and(|place| place.laid == Laid::InColumns)
    }

    /// Type and bytes of some columns of a matrix, one after the other: as they stand in the file where they stand
    /// there as rows, else as F32 where rows share scales.
    ///
    /// # Errors
    /// No such tensor, no such columns, a type that is none of weights, or a failed read.
    pub fn read_columns_raw(
        &self,
        name: &str,
        columns: Range<usize>,
    ) -> Result<(StoredType, Vec<u8>)> {
        let place = self.place(name)?;
        let [rows, have] = *place.shape.as_slice() else {
            bail!("{}: tensor `{name}` is no matrix", self.file_of(name));
        };
        if columns.start > columns.end || columns.end > have {
            bail!(
                "{}: tensor `{name}`: columns {}..{} asked for, it has {have}",
                self.file_of(name),
                columns.start,
                columns.end
            );
        }
        let cut = |bytes: usize| columns.start * bytes..columns.end * bytes;
        if place.laid == Laid::InColumns {
            let bytes = self.read(name, place, cut(place.bytes / have.max(1)))?;
            return Ok((place.dtype, bytes));
        }
        let (dtype, bytes) = self.read_raw(name)?;
        let (dtype, bytes) =
            self.turned(name, &Place { dtype, ..place.clone() }, bytes, [rows, have])?;
        Ok((dtype, bytes[cut(bytes.len() / have.max(1))].to_vec()))
    }

    /// The bytes of so many rows and columns, with columns as rows.
    fn turned(
        &self,
        name: &str,
        place: &Place,
        bytes: Vec<u8>,
        [rows, columns]: [usize; 2],
    ) -> Result<(StoredType, Vec<u8>)> {
        let (dtype, bytes) = standing_alone(place.dtype, bytes).with_context(|| {
            format!(
                "{}: tensor `{name}` is {}, not a type of weights",
                self.file_of(name),
                place.dtype
            )
        })?;
        Ok((dtype, transposed(&bytes, rows, columns)))
    }

    /// Type and bytes of some rows (first dimension) of a tensor.
    ///
    /// # Errors
    /// No such tensor, rows beyond its end, rows that are not whole bytes, or a failed read.
    pub fn read_rows_raw(&self, name: &str, rows: Range<usize>) -> Result<(StoredType, Vec<u8>)> {
        let place = self.place(name)?;
        let have = place.shape.first().copied().unwrap_or(0);
        if rows.start > rows.end || rows.end > have {
            bail!(
                "{}: tensor `{name}`: rows {}..{} asked for, it has {have}",
                self.file_of(name),
                rows.start,
                rows.end
            );
        }
        let range = |bytes: usize| -> Result<Range<usize>> {
            let row_bytes = bytes.checked_div(have).unwrap_or(0);
            if row_bytes * have != bytes {
                bail!("{}: tensor `{name}`: rows are not whole bytes", self.file_of(name));
            }
            Ok(rows.start * row_bytes..rows.end * row_bytes)
        };
        if place.laid != Laid::InRows {
            let (dtype, all) = self.read_raw(name)?;
            return Ok((dtype, all[range(all.len())?].to_vec()));
        }
        Ok((place.dtype, self.read(name, place, range(place.bytes)?)?))
    }

    /// The files by content. Reads and hashes every file, which takes seconds per gigabyte.
    ///
    /// # Errors
    /// A failed read.
    pub fn sources(&self) -> Result<Vec<Source>> {
        self.found
            .files
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

    fn place(&self, name: &str) -> Result<&Place> {
        self.found.tensors.get(name).with_context(|| {
            format!(
                "{}: no tensor `{name}` among the {} of this checkpoint; is it the model that \
                 {} describes?",
                self.path.display(),
                self.found.tensors.len(),
                self.description()
            )
        })
    }

    /// Bytes of a tensor, relative to its begin.
    fn read(&self, name: &str, place: &Place, bytes: Range<usize>) -> Result<Vec<u8>> {
        let file = &self.found.files[place.file];
        file.read(name, place.offset + bytes.start as u64, bytes.len())
    }

    /// The file that holds a tensor, for messages.
    fn file_of(&self, name: &str) -> String {
        let place = self.found.tensors.get(name);
        let path = place.map_or(self.path.as_path(), |at| self.found.files[at.file].path());
        path.display().to_string()
    }
}

/// Rows of heads with those of their two halves in turn, which llama.cpp makes of the rows of queries and keys
/// for the way it turns them: back to one half after the other.
fn halves_apart(bytes: &[u8], rows: usize, head_dim: usize) -> Vec<u8> {
    let row_bytes = bytes.len() / rows.max(1);
    let mut out = Vec::with_capacity(bytes.len());
    for head in bytes.chunks_exact(head_dim * row_bytes) {
        for half in 0..2 {
            let rows = head.chunks_exact(row_bytes).skip(half).step_by(2);
            rows.for_each(|row| out.extend_from_slice(row));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_in_halves() {
        // two heads of four rows, as llama.cpp's converter lays them
        let stored = [0, 0, 2, 2, 1, 1, 3, 3, 4, 4, 6, 6, 5, 5, 7, 7];
        let expected: Vec<u8> = (0..8).flat_map(|row| [row, row]).collect();
        assert_eq!(halves_apart(&stored, 8, 4), expected);
    }
}
