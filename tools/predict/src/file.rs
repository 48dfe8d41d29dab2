//! The predictors file: a safetensors file.
//!
//! Metadata, all strings: `format` = [`FORMAT`]; `model`, `layers`, `neurons`, `hidden`; `source.N.file`,
//! `source.N.bytes`, `source.N.sha256` for every file of the model, as a pack's provenance has them, so that
//! predictors of other weights can be refused; `ffn_bytes`, what the FFN takes in f16; `recall`, the quality
//! that they were made for; `rows`, how many tokens they were made from; `traces`, a JSON list of the traces'
//! names and hashes; `tool`; and for each predictor `predictor.{layer}.{horizon}`, a JSON object with `kind`
//! (`low-rank`, `rows` or `exact`), `numbers` (`f32`, `f16`, `q8_0` or `bits:K`), `rank` (of a low-rank one),
//! `between` (`relu` where a ReLU stands between the two factors, else absent) and `thresholds` (`layer` or
//! `neuron`).
//!
//! A predictor of `layer` takes the FFN input of layer `layer - horizon`. With the suffix `.{layer}.{horizon}`
//! its tensors are:
//!
//! | tensor | type and shape | what |
//! |---|---|---|
//! | `reduce` | matrix rank x hidden | low rank: the factor that meets the input |
//! | `expand` | matrix neurons x rank | low rank: the factor that makes scores |
//! | `reduce_bias` | F16 `[rank]` | added before the ReLU between the factors; absent where there is none |
//! | `rows` | matrix neurons x hidden | the deciding rows, in place of the two |
//! | `offset` | F16 `[neurons]`, or `[points, neurons]` | what is added to the scores, at every point or by point |
//! | `strength_scale` | F16 `[neurons]` | what a score above 0 is multiplied by to estimate the neuron's strength; may be absent |
//! | `points` | F32 `[points, 5]` | quality, threshold, recall, reads per active, share kept ([`Point`]) |
//!
//! A matrix in `f32` or `f16` is a tensor F32 or F16 of its shape; in blocks it is U8 `[rows, bytes of a row]`
//! ([`crate::numbers`]). A neuron is read where `expand (reduce x) + offset`, with a ReLU between
//! `expand relu(reduce x + reduce_bias) + offset`, or `rows x + offset` is above the point's threshold. Same predictors, same bytes.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use lnp_common::files::write_whole;
use lnp_common::tensor_file::{Elements, TensorData, TensorFile, write_tensors};
use lnp_link::TraceSource;
use lnp_model::{Checkpoint, ModelConfig, Source};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::numbers::{Numbers, f16_bytes};
use crate::points::Point;
use crate::predictor::{Between, Body, Predictor};
use crate::read::parse;

/// The value of the metadata entry `format`.
pub const FORMAT: &str = "lnp-predictors-v1";
/// What stands between two factors, where something does.
pub(crate) const RELU: &str = "relu";
/// Numbers of an operating point.
pub(crate) const POINT_NUMBERS: usize = 5;

/// Predictors of a model, and where they come from.
#[derive(Debug, Clone)]
pub struct Predictors {
    /// Name of the model.
    pub model: String,
    /// Layers of the model.
    pub layers: usize,
    /// Neurons of a layer.
    pub neurons: usize,
    /// Width of an FFN input.
    pub hidden: usize,
    /// The files of the model.
    pub sources: Vec<Source>,
    /// Bytes of the model's FFN in f16.
    pub ffn_bytes: usize,
    /// The quality that they were made for.
    pub recall: f64,
    /// Tokens that they were made from.
    pub rows: usize,
    /// The traces that these come from.
    pub traces: Vec<TraceSource>,
    /// By horizon, then by layer.
    pub predictors: Vec<Predictor>,
}

/// What metadata says of a predictor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) kind: String,
    pub(crate) numbers: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rank: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) between: Option<String>,
    pub(crate) thresholds: String,
}

impl Predictors {
    /// The predictor of a layer from so many layers before.
    ///
    /// # Errors
    /// There is none.
    pub fn of(&self, layer: usize, horizon: usize) -> Result<&Predictor> {
        let found = self.predictors.iter().find(|p| (p.layer, p.horizon) == (layer, horizon));
        found.with_context(|| format!("no predictor of layer {layer}, {horizon} layers ahead"))
    }

    /// Bytes in memory at one operating point, of the predictors of one horizon.
    pub fn bytes(&self, horizon: usize) -> usize {
        self.predictors.iter().filter(|p| p.horizon == horizon).map(Predictor::bytes).sum()
    }

    /// What one horizon's take at an operating point, as a share of the FFN in f16.
    pub fn bytes_share(&self, horizon: usize) -> f64 {
        self.bytes(horizon) as f64 / self.ffn_bytes.max(1) as f64
    }

    /// Checks that they are of a model's weights; hashes the model's files.
    ///
    /// # Errors
    /// Another shape, or other files.
    pub fn check_model(&self, checkpoint: &Checkpoint, config: &ModelConfig) -> Result<()> {
        let ours = [self.layers, self.neurons, self.hidden];
        let model = [config.layers, config.neurons, config.hidden];
        ensure!(
            ours == model,
            "predictors of layers, neurons, hidden {ours:?}, the model has {model:?}: they do not belong \
             together"
        );
        for (number, source) in checkpoint.sources()?.into_iter().enumerate() {
            let stored = self.sources.get(number).map(|source| source.sha256_hex.as_str());
            ensure!(
                stored == Some(&source.sha256_hex),
                "{}: SHA-256 is {}, the predictors were made from {}",
                source.file_name,
                source.sha256_hex,
                stored.unwrap_or("no such file")
            );
        }
        Ok(())
    }

    /// Writes the file, which appears whole or not at all.
    ///
    /// # Errors
    /// A failed write.
    pub fn write(&self, path: &Path) -> Result<()> {
        let bytes: usize = self.predictors.iter().map(Predictor::bytes).sum();
        write_whole(path, bytes as u64, |file| {
            let mut out = BufWriter::new(file);
            self.write_to(&mut out)?;
            Ok(out.flush()?)
        })
        .map_err(|error| anyhow!("cannot write predictors {error:#}"))
    }

    /// Writes the bytes of the file.
    ///
    /// # Errors
    /// A failed write.
    pub fn write_to(&self, out: &mut impl Write) -> Result<()> {
        let small: Vec<[Vec<u8>; 4]> = self.predictors.iter().map(small_tensors).collect();
        let mut tensors = Vec::new();
        for (predictor, [offset, points, bias, scales]) in self.predictors.iter().zip(&small) {
            let mut add = |name: &str, dtype, shape: Vec<usize>, data| {
                let name = tensor_name(name, predictor.layer, predictor.horizon);
                tensors.push(TensorData { name, dtype, shape, data: Elements::Bytes(data) });
            };
            let matrices = match predictor.body() {
                Body::LowRank { reduce, expand, .. } => {
                    vec![("reduce", reduce), ("expand", expand)]
                }
                Body::Rows(rows) => vec![("rows", rows)],
            };
            for (name, matrix) in matrices {
                let (dtype, width) = tensor_type(matrix.numbers(), matrix.columns());
                add(name, dtype, vec![matrix.rows(), width], matrix.bytes());
            }
            let neurons = predictor.offsets()[0].len();
            let shape = match predictor.offsets().len() {
                1 => vec![neurons],
                points => vec![points, neurons],
            };
            add("offset", Dtype::F16, shape, offset);
            if !bias.is_empty() {
                add("reduce_bias", Dtype::F16, vec![bias.len() / 2], bias);
            }
            if !scales.is_empty() {
                add("strength_scale", Dtype::F16, vec![neurons], scales);
            }
            add("points", Dtype::F32, vec![predictor.points().len(), POINT_NUMBERS], points);
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        write_tensors(out, &self.metadata()?, &tensors)
    }

    fn metadata(&self) -> Result<BTreeMap<String, String>> {
        let mut entries = BTreeMap::new();
        let mut put = |key: &str, value: String| entries.insert(key.to_owned(), value);
        put("format", FORMAT.to_owned());
        put("model", self.model.clone());
        put("layers", self.layers.to_string());
        put("neurons", self.neurons.to_string());
        put("hidden", self.hidden.to_string());
        put("ffn_bytes", self.ffn_bytes.to_string());
        put("recall", self.recall.to_string());
        put("rows", self.rows.to_string());
        put("traces", serde_json::to_string(&self.traces)?);
        put("tool", lnp_link::Links::this_tool());
        for (number, source) in self.sources.iter().enumerate() {
            put(&format!("source.{number}.file"), source.file_name.clone());
            put(&format!("source.{number}.bytes"), source.bytes.to_string());
            put(&format!("source.{number}.sha256"), source.sha256_hex.clone());
        }
        for predictor in &self.predictors {
            let about = serde_json::to_string(&about(predictor))?;
            put(&tensor_name("predictor", predictor.layer, predictor.horizon), about);
        }
        Ok(entries)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, is of another format, or contradicts itself.
    pub fn read(path: &Path) -> Result<Self> {
        let read = || -> Result<Self> { parse(&TensorFile::open(path)?) };
        read().with_context(|| {
            format!("{}: not usable predictors; make them with `lnp predict`", path.display())
        })
    }
}

fn about(predictor: &Predictor) -> About {
    let numbers = match predictor.body() {
        Body::LowRank { reduce, .. } => reduce.numbers(),
        Body::Rows(rows) => rows.numbers(),
    };
    About {
        kind: predictor.body().to_string(),
        numbers: numbers.to_string(),
        rank: predictor.body().rank(),
        between: match predictor.body() {
            Body::LowRank { between: Between::Relu { .. }, .. } => Some(RELU.to_owned()),
            _ => None,
        },
        thresholds: if predictor.by_neuron() { "neuron" } else { "layer" }.to_owned(),
    }
}

pub(crate) fn tensor_name(array: &str, layer: usize, horizon: usize) -> String {
    format!("{array}.{layer}.{horizon}")
}

/// The type and the width of the tensor that a matrix of so many columns is.
pub(crate) fn tensor_type(numbers: Numbers, columns: usize) -> (Dtype, usize) {
    match numbers {
        Numbers::F32 => (Dtype::F32, columns),
        Numbers::F16 => (Dtype::F16, columns),
        _ => (Dtype::U8, numbers.row_bytes(columns)),
    }
}

/// Offsets, operating points, a bias between the factors and scales of strength as the file has them.
fn small_tensors(predictor: &Predictor) -> [Vec<u8>; 4] {
    let offset = predictor.offsets().iter().flat_map(|offset| f16_bytes(offset)).collect();
    let numbers = |point: &Point| {
        [point.quality, point.threshold, point.recall, point.reads_per_active, point.share_kept]
    };
    let points = predictor.points().iter().flat_map(numbers);
    let bias = predictor.body().reduce_bias().map(f16_bytes).unwrap_or_default();
    let scales = predictor.strength_scales().map(f16_bytes).unwrap_or_default();
    [offset, points.flat_map(f32::to_le_bytes).collect(), bias, scales]
}
