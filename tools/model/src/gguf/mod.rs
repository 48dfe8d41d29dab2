//! GGUF files: the models of llama.cpp, in one file or several, read as they are.
//!
//! `header` reads what a file says and checks it, `metadata` holds the values, `config` makes of them what
//! `config.json` says in a model folder, `names` finds the tensors by their Hugging Face names, `tokenizer`
//! builds the tokenizer, [`powerinfer`] says what is special about PowerInfer's files. `docs/models.md` says what is
//! supported.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use lnp_common::data_file::DataFile;
use lnp_common::files::first_bytes;

mod config;
mod header;
pub mod inspect;
mod metadata;
mod names;
pub mod powerinfer;
mod tokenizer;

use header::{Header, TensorInfo};
use metadata::Metadata;

use super::checkpoint::Found;
use super::config::ModelConfig;
use super::tokenizer::Tokenizer;

/// What the names of GGUF files end with.
const ENDING: &str = ".gguf";
/// Most parts of a model.
const PARTS_MAX: usize = 1000;

/// Whether there is a GGUF file, by how it begins.
pub fn is_gguf(path: &Path) -> bool {
    let magic = [header::MAGIC, header::MAGIC_POWERINFER];
    first_bytes(path).is_some_and(|begin| magic.iter().any(|magic| begin.starts_with(*magic)))
}

/// A model's files, their headers read.
pub(super) struct GgufFile {
    files: Vec<DataFile>,
    is_powerinfer: bool,
    version: u32,
    /// Of the first part, which has all that matters.
    metadata: Metadata,
    /// The tensors of each file.
    tensors: Vec<Vec<TensorInfo>>,
}

impl GgufFile {
    /// Opens a file, or all parts of a model of which it is one.
    ///
    /// # Errors
    /// What is wrong with it, in one line that names the file.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let paths = parts(path)?;
        let mut files = Vec::new();
        let mut headers = Vec::new();
        for (number, path) in paths.iter().enumerate() {
            let file = DataFile::open(path)?;
            let read = || -> Result<Header> {
                let header = Header::read(&file)?;
                let told = |key| header.metadata.whole(key);
                if paths.len() > 1 {
                    let (no, count) = (told("split.no")?, told("split.count")?);
                    ensure!(
                        (no, count) == (Some(number as u64), Some(paths.len() as u64)),
                        "named as part {} of {}, but it says otherwise: name the parts as they were",
                        number + 1,
                        paths.len()
                    );
                }
                Ok(header)
            };
            headers.push(read().with_context(|| path.display().to_string())?);
            files.push(file);
        }
        let mut headers = headers.into_iter();
        let mut first = headers.next().context("no part of a GGUF file")?;
        if paths.len() == 1 {
            let count = first.metadata.whole("split.count").with_context(|| shown(path))?;
            ensure!(
                count.unwrap_or(1) <= 1,
                "{}: one of {} parts: give it the name it had, such as model-00001-of-00003.gguf",
                shown(path),
                count.unwrap_or(1)
            );
        }
        let mut tensors = vec![std::mem::take(&mut first.tensors)];
        tensors.extend(headers.map(|header| header.tensors));
        let Header { is_powerinfer, version, metadata, .. } = first;
        Ok(Self { files, is_powerinfer, version, metadata, tensors })
    }

    /// What the model is, and where its tensors are by their Hugging Face names.
    ///
    /// # Errors
    /// An architecture that is not supported, or what is missing; the message names the file.
    pub(super) fn model(self) -> Result<(ModelConfig, Found)> {
        let read = || -> Result<_> {
            let config = config::read(&self)?;
            let tensors = names::hugging_face(&self, &config)?;
            let powerinfer = powerinfer::read(&self, &config, &tensors)?;
            Ok((config, tensors, powerinfer))
        };
        let (config, tensors, powerinfer) = read().with_context(|| shown(self.files[0].path()))?;
        Ok((config, Found { files: self.files, tensors, powerinfer, synthetic: None }))
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// None in the file, or one of a kind that is not supported; the message names the file.
    pub(super) fn tokenizer(&self) -> Result<Tokenizer> {
        let path = self.files[0].path();
        let (json, adds_bos) = tokenizer::described(&self.metadata).with_context(|| shown(path))?;
        Tokenizer::from_json(&json, path, Some(adds_bos))
    }

    /// The chat template, if there is one.
    ///
    /// # Errors
    /// Something else in its place; the message names the file.
    pub(super) fn chat_template(&self) -> Result<Option<String>> {
        let found = self.metadata.text("tokenizer.chat_template");
        Ok(found.with_context(|| shown(self.files[0].path()))?.map(str::to_owned))
    }

    /// All tensors, and which file each is in.
    fn tensors(&self) -> impl Iterator<Item = (usize, &TensorInfo)> {
        let files = self.tensors.iter().enumerate();
        files.flat_map(|(file, tensors)| tensors.iter().map(move |tensor| (file, tensor)))
    }

    fn tensor(&self, name: &str) -> Option<(usize, &TensorInfo)> {
        self.tensors().find(|(_, tensor)| tensor.name == name)
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Name of a model: the file's, without its ending and the number of its part.
pub(super) fn model_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    match part_of(&name) {
        Some((before, _)) => before.to_owned(),
        None => name.strip_suffix(ENDING).unwrap_or(&name).to_owned(),
    }
}

/// The files of a model of which one is named: those beside it where its name ends in `-00001-of-00003.gguf`.
fn parts(path: &Path) -> Result<Vec<PathBuf>> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((before, count)) = part_of(name) else { return Ok(vec![path.to_owned()]) };
    ensure!(
        (1..=PARTS_MAX).contains(&count),
        "{}: {count} parts, 1 to {PARTS_MAX} are possible",
        shown(path)
    );
    let part = |number| path.with_file_name(format!("{before}-{number:05}-of-{count:05}{ENDING}"));
    Ok((1..=count).map(part).collect())
}

/// What stands before the number of a part, and how many parts there are.
fn part_of(name: &str) -> Option<(&str, usize)> {
    let (before, count) = name.strip_suffix(ENDING)?.rsplit_once("-of-")?;
    let (before, number) = before.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(number) && digits(count)).then_some((before, count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored::to_f32;

    /// `blocks.py` made the file with the package `gguf`, whose numbers are beside the blocks.
    #[test]
    fn blocks_of_every_type() -> Result<()> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/gguf/blocks.gguf");
        let gguf = GgufFile::open(&path)?;
        let read = |name: &str| -> Result<_> {
            let (file, tensor) = gguf.tensor(name).context("no such tensor")?;
            let bytes = gguf.files[file].read(name, tensor.offset, tensor.bytes as usize)?;
            assert_eq!(tensor.shape, [2, 256], "{name}");
            to_f32(tensor.dtype, &bytes).context("not readable")
        };
        let mut types = 0;
        for (_, TensorInfo { name, .. }) in gguf.tensors() {
            if name.ends_with(".values") {
                continue;
            }
            let (found, expected) = (read(name)?, read(&format!("{name}.values"))?);
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_eq!(found, expected, "{name}: {at}");
            }
            types += 1;
        }
        assert_eq!(types, 13);

        let of = &gguf.metadata;
        let whole = |key: &str| of.whole(&format!("one.{key}")).unwrap();
        assert_eq!([whole("uint8"), whole("uint16")], [Some(200), Some(60_000)]);
        assert_eq!([whole("uint32"), whole("uint64")], [Some(1 << 31), Some(1 << 60)]);
        assert_eq!(of.wholes("one.int8")?, Some(vec![-100]));
        assert_eq!(of.wholes("one.int64")?, Some(vec![-(1 << 60)]));
        assert_eq!(
            (of.number("one.float32")?, of.number("one.float64")?),
            (Some(1e-5), Some(1e-5))
        );
        assert_eq!((of.flag("one.bool")?, of.text("one.string")?), (Some(true), Some("a ▁ \0")));
        assert_eq!(of.texts("many.texts")?, Some(vec!["", "Ġ", "two words"]));
        assert_eq!(of.wholes("many.numbers")?, Some(vec![1, -2, 3]));
        assert_eq!(of.floats("many.floats")?, Some(vec![0.5, -1e30]));
        assert_eq!(of.whole("absent")?, None);
        let told = of.whole("one.int8").unwrap_err().to_string();
        assert_eq!(told, "metadata `one.int8` is -100, expected is a whole number");
        Ok(())
    }

    #[test]
    fn parts_by_name() -> Result<()> {
        let found = parts(Path::new("a/m-q8-00002-of-00003.gguf"))?;
        let expected = [1, 2, 3].map(|n| PathBuf::from(format!("a/m-q8-0000{n}-of-00003.gguf")));
        assert_eq!(found, expected);
        assert_eq!(parts(Path::new("a/m-1-of-3.gguf"))?, [PathBuf::from("a/m-1-of-3.gguf")]);
        assert!(parts(Path::new("m-00001-of-00000.gguf")).is_err());
        assert_eq!(model_name(Path::new("a/m-q8-00002-of-00003.gguf")), "m-q8");
        assert_eq!(model_name(Path::new("a/m.Q8_0.gguf")), "m.Q8_0");
        Ok(())
    }
}
