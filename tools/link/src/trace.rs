//! Traces: which FFN neurons were active for each token of a text.
//!
//! A trace is a safetensors file with one U8 tensor `layer.{i}` `[tokens, ceil(neurons / 8)]` per
//! layer, bit k of byte j = neuron 8j + k, and optionally `token_ids` I32 `[tokens]`, the FFN inputs of
//! some tokens ([`crate::inputs`]), the sets that predictors would have read ([`crate::predicted`]), and how often each
//! neuron was active in more tokens than these (`counts.{i}`, what an engine's recorder writes). Its metadata
//! says `neurons`, `layers`, `tokens`, `window` (positions restart every so many tokens) and where
//! it comes from: `model`, `corpus`, `split`. A made-up trace, or one of a made-up model, has the entry `synthetic`, which says
//! how it was made, and says `synthetic(...)` in its `model` and `corpus` ([`crate::synth`]).

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use safetensors::Dtype;

use crate::counted::{check_counted, counted};
use crate::inputs::{INPUT_ROWS, InputRows, check_inputs, inputs_name, rows_of};
use crate::predicted::{PredictedSets, about, check_predicted, predicted_name};
use crate::rows::active_neurons;
use lnp_common::files::{sha256_hex, write_whole};
pub use lnp_common::tensor_file::SYNTHETIC;
use lnp_common::tensor_file::{Elements, TensorData, TensorFile, write_tensors};

const FORMAT: &str = "ffn-activation-bits-v1";
const BIT_ORDER: &str = "little";
const TOKEN_IDS: &str = "token_ids";

/// An open trace: its header is validated, its bits are read layer by layer.
pub struct TraceReader {
    file: TensorFile,
    layers: usize,
    neurons: usize,
    tokens: usize,
    window: usize,
}

impl TraceReader {
    /// Opens a trace and checks that its metadata and its tensors agree. Reads the header only.
    ///
    /// # Errors
    /// An unreadable file, missing metadata, or a tensor that is missing, of another type or of
    /// another shape than the metadata says.
    pub fn open(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path)?;
        Self::validate(file).with_context(|| {
            format!("{}: not a usable trace; record it again with `lnp trace`", path.display())
        })
    }

    fn validate(file: TensorFile) -> Result<Self> {
        for (key, expected) in [("format", FORMAT), ("bitorder", BIT_ORDER)] {
            if let Some(found) = file.metadata().get(key) {
                ensure!(found == expected, "metadata `{key}` is `{found}`, expected `{expected}`");
            }
        }
        let count = |key: &str| -> Result<usize> {
            let text =
                file.metadata().get(key).with_context(|| format!("metadata lacks `{key}`"))?;
            match text.parse::<u32>() {
                Ok(value) if value > 0 => Ok(value as usize),
                _ => {
                    bail!("metadata `{key}` is `{text}`, expected a number from 1 to {}", u32::MAX)
                }
            }
        };
        let (layers, neurons) = (count("layers")?, count("neurons")?);
        let (tokens, window) = (count("tokens")?, count("window")?);
        let shape = [tokens, neurons.div_ceil(8)];
        for layer in 0..layers {
            check_tensor(&file, &layer_name(layer), Dtype::U8, &shape)?;
        }
        let found = file.tensors().keys().filter(|name| name.starts_with("layer.")).count();
        ensure!(found == layers, "has {found} layer tensors, metadata `layers` is {layers}");
        if file.tensors().contains_key(TOKEN_IDS) {
            check_tensor(&file, TOKEN_IDS, Dtype::I32, &[tokens])?;
        }
        check_inputs(&file, layers)?;
        check_predicted(&file, layers, &shape)?;
        check_counted(&file, layers, neurons)?;
        Ok(Self { file, layers, neurons, tokens, window })
    }

    /// Layers of the model.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Neurons per layer.
    pub fn neurons(&self) -> usize {
        self.neurons
    }

    /// Tokens traced.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Positions restart every so many tokens.
    pub fn window(&self) -> usize {
        self.window
    }

    /// All metadata of the file.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.file.metadata()
    }

    /// What text was traced, if the file says.
    pub fn corpus(&self) -> Option<&str> {
        self.text("corpus")
    }

    /// Which part of the corpus: `profile` to make an order from, `test` to judge it.
    pub fn split(&self) -> Option<&str> {
        self.text("split")
    }

    /// Which model was traced, if the file says.
    pub fn model(&self) -> Option<&str> {
        self.text("model")
    }

    /// Whether the trace was made up by `lnp synth`, or the model that it is of.
    pub fn is_synthetic(&self) -> bool {
        self.metadata().contains_key(SYNTHETIC)
    }

    /// Ids of the traced tokens, if the file has them.
    ///
    /// # Errors
    /// A failed read, or a negative id.
    pub fn token_ids(&self) -> Result<Option<Vec<u32>>> {
        if !self.file.tensors().contains_key(TOKEN_IDS) {
            return Ok(None);
        }
        let bytes = self.file.read(TOKEN_IDS)?;
        let (ids, _) = bytes.as_chunks();
        let id = |(token, &bytes): (usize, &[u8; 4])| {
            let id = i32::from_le_bytes(bytes);
            u32::try_from(id).with_context(|| {
                format!(
                    "{}: token {token} has id {id}, below 0: damaged",
                    self.file.path().display()
                )
            })
        };
        ids.iter().enumerate().map(id).collect::<Result<_>>().map(Some)
    }

    /// Which tokens the trace has FFN inputs of, and how wide these are; none where it has no inputs.
    ///
    /// # Errors
    /// A failed read, or rows that do not ascend or are beyond the tokens.
    pub fn input_rows(&self) -> Result<Option<(Vec<u32>, usize)>> {
        if !self.file.tensors().contains_key(INPUT_ROWS) {
            return Ok(None);
        }
        let rows = rows_of(&self.file.read(INPUT_ROWS)?, self.tokens)
            .with_context(|| self.file.path().display().to_string())?;
        Ok(Some((rows, self.file.info(&inputs_name(0))?.shape[1])))
    }

    /// The FFN inputs of a layer: f16, little-endian, row-major, one row for each of
    /// [`Self::input_rows`].
    ///
    /// # Errors
    /// No such layer, no inputs, or a failed read.
    pub fn inputs(&self, layer: usize) -> Result<Vec<u8>> {
        self.file.read(&inputs_name(layer))
    }

    /// Bits of a layer: one row of ceil(neurons / 8) bytes per token.
    ///
    /// # Errors
    /// No such layer, a failed read, or a bit that is set beyond the last neuron.
    pub fn layer_bits(&self, layer: usize) -> Result<Vec<u8>> {
        self.bits(&layer_name(layer))
    }

    /// The same of what was predicted of a layer from so many layers before; none where the trace has no such sets.
    ///
    /// # Errors
    /// As [`Self::layer_bits`].
    pub fn predicted_bits(&self, layer: usize, horizon: usize) -> Result<Option<Vec<u8>>> {
        let name = predicted_name(layer, horizon);
        self.file.tensors().contains_key(&name).then(|| self.bits(&name)).transpose()
    }

    /// In how many of how many tokens each neuron of a layer was active, where the trace tells it of more tokens than it has.
    ///
    /// # Errors
    /// No such layer, a failed read, or a count of more than all tokens.
    pub fn counted(&self, layer: usize) -> Result<Option<(Vec<u32>, u64)>> {
        counted(&self.file, layer).with_context(|| self.file.path().display().to_string())
    }

    /// SHA-256 of the predictors that made the predicted sets, and their quality; none where there are no such sets.
    pub fn predictors(&self) -> Option<(&str, f64)> {
        about(self.metadata())
    }

    fn bits(&self, name: &str) -> Result<Vec<u8>> {
        let bits = self.file.read(name)?;
        check_unused_bits(&bits, self.neurons)
            .with_context(|| format!("{}: tensor `{name}`", self.file.path().display()))?;
        Ok(bits)
    }

    /// SHA-256 of the file, lower-case hex. Reads the whole file.
    ///
    /// # Errors
    /// A failed read.
    pub fn sha256_hex(&self) -> Result<String> {
        sha256_hex(self.file.path())
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.metadata().get(key).map(String::as_str)
    }
}

/// Ids, ascending, of the neurons active for a token, from the bits of a layer. Nothing for a token
/// beyond the end.
pub fn active(bits: &[u8], neurons: usize, token: usize) -> impl Iterator<Item = u32> + '_ {
    let row_bytes = neurons.div_ceil(8);
    let start = token.saturating_mul(row_bytes);
    let row = bits.get(start..start.saturating_add(row_bytes)).unwrap_or_default();
    active_neurons(row).map(|neuron| neuron as u32)
}

/// A trace in memory, to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceData {
    /// Name of the model.
    pub model: String,
    /// What text was traced.
    pub corpus: String,
    /// Which part of the corpus, `profile` or `test`.
    pub split: String,
    /// What makes a neuron active, in words.
    pub active: String,
    /// Neurons per layer.
    pub neurons: usize,
    /// Tokens traced.
    pub tokens: usize,
    /// Positions restart every so many tokens.
    pub window: usize,
    /// Ids of the tokens, if they may be kept.
    pub token_ids: Option<Vec<u32>>,
    /// FFN inputs of some tokens, to fit predictors to.
    pub inputs: Option<InputRows>,
    /// What predictors would have read.
    pub predicted: Option<PredictedSets>,
    /// How the model's weights were made up, where they were: the trace is then synthetic too.
    pub synthetic: Option<String>,
    /// Per layer, one row of ceil(neurons / 8) bytes per token.
    pub layers: Vec<Vec<u8>>,
}

impl TraceData {
    fn check(&self) -> Result<()> {
        for (what, value) in [
            ("neurons", self.neurons),
            ("tokens", self.tokens),
            ("window", self.window),
            ("layers", self.layers.len()),
        ] {
            ensure!((1..=u32::MAX as usize).contains(&value), "{what} is {value}");
        }
        let expected = self.tokens.saturating_mul(self.neurons.div_ceil(8));
        for (layer, bits) in self.layers.iter().enumerate() {
            let found = bits.len();
            ensure!(found == expected, "layer {layer} has {found} bytes, expected {expected}");
            check_unused_bits(bits, self.neurons).with_context(|| format!("layer {layer}"))?;
        }
        if let Some(ids) = &self.token_ids {
            ensure!(ids.len() == self.tokens, "{} token ids for {} tokens", ids.len(), self.tokens);
            let unfit = ids.iter().find(|&&id| i32::try_from(id).is_err());
            ensure!(unfit.is_none(), "token id {unfit:?} does not fit in 31 bits");
        }
        if let Some(predicted) = &self.predicted {
            predicted.check(self.tokens, self.neurons, self.layers.len())?;
        }
        self.inputs.as_ref().map_or(Ok(()), |inputs| inputs.check(self.tokens, self.layers.len()))
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let numbers = [self.layers.len(), self.neurons, self.tokens, self.window];
        let mut entries = metadata([&self.model, &self.corpus, &self.split, &self.active], numbers);
        entries.extend(self.predicted.iter().flat_map(PredictedSets::metadata));
        entries.extend(self.synthetic.iter().map(|how| (SYNTHETIC.to_owned(), how.clone())));
        entries
    }

    fn write_to(&self, out: &mut impl Write) -> Result<()> {
        self.check()?;
        let mut tensors = Vec::new();
        if let Some(ids) = &self.token_ids {
            tensors.push(TensorData {
                name: TOKEN_IDS.to_owned(),
                dtype: Dtype::I32,
                shape: vec![self.tokens],
                data: Elements::Words(ids),
            });
        }
        for (layer, bits) in self.layers.iter().enumerate() {
            tensors.push(TensorData {
                name: layer_name(layer),
                dtype: Dtype::U8,
                shape: vec![self.tokens, self.neurons.div_ceil(8)],
                data: Elements::Bytes(bits),
            });
        }
        tensors.extend(self.inputs.iter().flat_map(InputRows::tensors));
        let predicted = self.predicted.iter();
        tensors.extend(predicted.flat_map(|sets| sets.tensors(self.tokens, self.neurons)));
        write_tensors(out, &self.metadata(), &tensors)
    }
}

/// Writes a trace. The same data gives the same bytes. The file appears complete or not at all.
///
/// # Errors
/// Data that contradicts itself, or a failed write.
pub fn write_trace(path: &Path, data: &TraceData) -> Result<()> {
    let predicted = data.predicted.iter().flat_map(|sets| &sets.layers).map(|layer| &layer.bits);
    let inputs = data.inputs.iter().flat_map(|inputs| &inputs.layers).chain(predicted);
    let file_bytes =
        data.layers.iter().chain(inputs).map(Vec::len).sum::<usize>() + 4 * data.tokens;
    write_whole(path, file_bytes as u64, |file| {
        let mut out = BufWriter::new(file);
        data.write_to(&mut out)?;
        Ok(out.flush()?)
    })
    .map_err(|error| anyhow!("cannot write trace {error:#}"))
}

/// The metadata of every trace: texts are model, corpus, split and what makes a neuron active;
/// numbers are layers, neurons, tokens and window.
pub(crate) fn metadata(texts: [&str; 4], numbers: [usize; 4]) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    let mut put = |key: &str, value: &str| entries.insert(key.to_owned(), value.to_owned());
    put("format", FORMAT);
    put("bitorder", BIT_ORDER);
    for (key, text) in ["model", "corpus", "split", "active"].into_iter().zip(texts) {
        put(key, text);
    }
    for (key, number) in ["layers", "neurons", "tokens", "window"].into_iter().zip(numbers) {
        put(key, &number.to_string());
    }
    entries
}

pub(crate) fn layer_name(layer: usize) -> String {
    format!("layer.{layer}")
}

/// Checks that a tensor is of this type and shape.
///
/// # Errors
/// It is not, or is not there.
pub fn check_tensor(file: &TensorFile, name: &str, dtype: Dtype, shape: &[usize]) -> Result<()> {
    let info = file.info(name)?;
    ensure!(
        info.dtype == dtype && info.shape == shape,
        "tensor `{name}` is {:?} {:?}, expected {dtype:?} {shape:?}",
        info.dtype,
        info.shape
    );
    Ok(())
}

/// Bits of the last byte of a row that no neuron owns have to be zero.
pub(crate) fn check_unused_bits(bits: &[u8], neurons: usize) -> Result<()> {
    let used = neurons % 8;
    if used == 0 {
        return Ok(());
    }
    let row_bytes = neurons.div_ceil(8);
    for (token, row) in bits.chunks(row_bytes).enumerate() {
        let last = row.last().copied().unwrap_or(0);
        ensure!(last >> used == 0, "token {token} has a bit beyond neuron {}", neurons - 1);
    }
    Ok(())
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
