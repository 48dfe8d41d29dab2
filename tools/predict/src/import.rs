//! Predictors that others trained: two matrices a layer, as PowerInfer, Deja Vu and SVDP write them.
//!
//! A layer's file `model_{layer}.pt` (a state_dict) or `model_{layer}.safetensors` holds `fc1.weight`
//! `[rank, hidden]` and `fc2.weight` `[neurons, rank]`, and may hold `fc1.bias` and `fc2.bias`; or one safetensors
//! file holds those of all layers, as `{layer}.fc1.weight` or `….{layer}.fc1.weight`; or they stand beside the weights
//! in a GGUF file of PowerInfer's. The scores are fc2 (fc1 x + bias) + bias, with a ReLU around the inner part or not;
//! x is the input of the FFN, after its norm, or the residual, before it. Thresholds are ours, set on text at hand,
//! or theirs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use half::f16;
use lnp_common::tensor_file::TensorFile;
use lnp_model::checkpoint::to_f32;
use lnp_model::gguf::is_gguf;
use lnp_model::gguf::powerinfer::PowerInfer;
use lnp_model::{Checkpoint, FfnNorm, ModelConfig};

use crate::calibrate::{Held, Made};
use crate::numbers::{Matrix, Numbers};
use crate::predictor::{Between, Body};
use crate::sample::Sample;
use crate::torch::TorchFile;
use crate::weights::LayerWeights;

/// Where others' predictors are.
pub enum Others {
    /// A folder of one file for each layer.
    Folder(PathBuf),
    /// One safetensors file.
    File(PathBuf),
    /// A GGUF file of PowerInfer's.
    PowerInfer(Box<Checkpoint>, PowerInfer),
}

/// How others' predictors are to be taken.
#[derive(Debug, Clone, Copy)]
pub struct Import {
    /// Whether a ReLU stands between the matrices.
    pub relu: bool,
    /// Whether they take the residual: what the norm before the FFN takes. Else what that makes of it.
    pub residual: bool,
    /// Whether their own threshold is the only operating point.
    pub theirs: bool,
    /// How the factors' numbers are to be stored: f16 or q8_0.
    pub numbers: Numbers,
    /// The recall at which the ways to set thresholds are compared.
    pub recall: f64,
}

/// Takes in the predictors of all layers, padded with zeros to ranks that can be stored, and sets thresholds on the
/// sample; `step` is called after each layer.
///
/// # Errors
/// A layer that is not there, another shape than the model's, numbers that are none or do not fit into f16,
/// files that are damaged; a threshold of theirs that means nothing after the norm.
pub fn import(
    others: &Others,
    import: &Import,
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    sample: &Sample,
    step: &dyn Fn(),
) -> Result<Vec<Made>> {
    let mut made = Vec::new();
    for layer in 0..config.layers {
        let factors = Factors::read(others, layer, config)?;
        // the size of a residual is a factor of its scores, but not of biases, and what is left of it has none
        let known = !import.residual || others.threshold() == 0.0 && !factors.has_biases();
        let threshold = known.then(|| others.above());
        let norm = import.residual.then(|| config.ffn_norm(checkpoint, layer)).transpose()?;
        let (body, offset) = factors.body(import.relu, norm.as_ref(), import.numbers)?;
        let held = Held::of(sample, &LayerWeights::load(checkpoint, config, layer)?, (layer, 0));
        let of_theirs =
            threshold.map(|at| held.at(body.clone(), offset.clone(), at)).transpose()?;
        let at_theirs = of_theirs.as_ref().map(|theirs| theirs.points()[0]);
        let predictor = match (import.theirs, of_theirs) {
            (false, _) => held.calibrated(body, offset, import.recall, true)?,
            (true, Some(theirs)) => theirs,
            (true, None) => bail!(
                "their threshold, or a bias of theirs, is not 0 and holds for the residual, whose size is lost after \
                 the norm: have thresholds set (--thresholds ours)"
            ),
        };
        made.push(Made { at_theirs, ..Made::of(predictor) });
        step();
    }
    if import.theirs {
        // one point is all there is: named after what it finds, the same in all layers
        let found: f32 = made.iter().map(|made| made.predictor.points()[0].recall).sum();
        let quality = found / made.len().max(1) as f32;
        made.iter_mut()
            .for_each(|made| made.predictor = made.predictor.clone().of_quality(quality));
    }
    Ok(made)
}

impl Others {
    /// Finds out which of these stands there.
    ///
    /// # Errors
    /// A GGUF file that cannot be read, or that has no predictors.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() || !is_gguf(path) {
            let path = path.to_owned();
            return Ok(if path.is_dir() { Self::Folder(path) } else { Self::File(path) });
        }
        let checkpoint = Checkpoint::open(path)?;
        let found = checkpoint.powerinfer().filter(|found| !found.ranks.is_empty()).cloned();
        let found = found.with_context(|| {
            format!("{}: a GGUF file without predictors; PowerInfer's have some", path.display())
        })?;
        Ok(Self::PowerInfer(Box::new(checkpoint), found))
    }

    /// The ranks of all layers, as the files have them.
    ///
    /// # Errors
    /// As [`import`].
    pub fn ranks(&self, config: &ModelConfig) -> Result<Vec<usize>> {
        (0..config.layers).map(|layer| Opened::of_layer(self, layer)?.shapes(config)).collect()
    }

    /// The files that [`import`] would read, of those that there are.
    pub fn files(&self, layers: usize) -> Vec<PathBuf> {
        let of_layers = |from: &Path| {
            let all = (0..layers).flat_map(|layer| of_layer(from, layer));
            all.filter(|path| path.exists()).collect()
        };
        match self {
            Self::Folder(from) => of_layers(from),
            Self::File(path) => vec![path.clone()],
            Self::PowerInfer(checkpoint, _) => checkpoint.paths(),
        }
    }

    /// Whether they are PowerInfer's own file, which says what else is not told: ReLU between, the residual, f16.
    pub fn is_powerinfer(&self) -> bool {
        matches!(self, Self::PowerInfer(..))
    }

    /// What scores are compared with by those who made them.
    fn threshold(&self) -> f32 {
        match self {
            Self::Folder(_) | Self::File(_) => 0.0,
            Self::PowerInfer(_, found) => found.threshold,
        }
    }

    /// What they are above where a neuron is read; PowerInfer computes what is not below the threshold.
    fn above(&self) -> f32 {
        if self.is_powerinfer() { self.threshold().next_down() } else { self.threshold() }
    }
}

/// The two names that a layer's file may have.
fn of_layer(from: &Path, layer: usize) -> [PathBuf; 2] {
    ["pt", "safetensors"].map(|end| from.join(format!("model_{layer}.{end}")))
}

/// A layer's tensors, wherever they are.
struct Opened {
    file: OpenedFile,
    path: PathBuf,
    /// What stands before their names.
    prefix: String,
}

enum OpenedFile {
    Torch(Box<TorchFile>),
    Safetensors(TensorFile),
    Gguf(Checkpoint),
}

impl Opened {
    fn of_layer(others: &Others, layer: usize) -> Result<Self> {
        let from = match others {
            Others::Folder(from) => from,
            Others::File(path) => return Self::of_one_file(path, layer),
            Others::PowerInfer(checkpoint, _) => {
                let (path, prefix) = (checkpoint.path().to_owned(), format!("blk.{layer}."));
                return Ok(Self { file: OpenedFile::Gguf((**checkpoint).clone()), path, prefix });
            }
        };
        let [torch, safetensors] = of_layer(from, layer);
        let (file, path) = if safetensors.exists() {
            (OpenedFile::Safetensors(TensorFile::open(&safetensors)?), safetensors)
        } else {
            ensure!(
                torch.exists(),
                "{}: neither model_{layer}.pt nor model_{layer}.safetensors is in it",
                from.display()
            );
            (OpenedFile::Torch(Box::new(TorchFile::open(&torch)?)), torch)
        };
        Ok(Self { file, path, prefix: String::new() })
    }

    /// The names of this layer end alike, whatever stands before.
    fn of_one_file(path: &Path, layer: usize) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let (alone, end) = (format!("{layer}.{FC1}"), format!(".{layer}.{FC1}"));
        let mut names =
            file.tensors().keys().filter(|name| **name == alone || name.ends_with(&end));
        let prefix = match (names.next(), names.next()) {
            (Some(name), None) => name[..name.len() - FC1.len()].to_owned(),
            (None, _) => anyhow::bail!("{}: has no tensor `{alone}`", path.display()),
            (Some(one), Some(two)) => {
                anyhow::bail!("{}: both `{one}` and `{two}` are of layer {layer}", path.display())
            }
        };
        Ok(Self { file: OpenedFile::Safetensors(file), path: path.to_owned(), prefix })
    }

    fn name(&self, tensor: &str) -> String {
        format!("{}{tensor}", self.prefix)
    }

    fn contains(&self, tensor: &str) -> bool {
        match &self.file {
            OpenedFile::Torch(file) => file.contains(&self.name(tensor)),
            OpenedFile::Safetensors(file) => file.tensors().contains_key(&self.name(tensor)),
            OpenedFile::Gguf(file) => file.contains(&self.name(tensor)),
        }
    }

    fn shape(&self, tensor: &str) -> Result<&[usize]> {
        match &self.file {
            OpenedFile::Torch(file) => file.shape(&self.name(tensor)),
            OpenedFile::Safetensors(file) => Ok(&file.info(&self.name(tensor))?.shape),
            OpenedFile::Gguf(file) => file.shape(&self.name(tensor)),
        }
    }

    /// The rank: what the shapes of the tensors agree on. It is at most that of a square matrix.
    fn shapes(&self, config: &ModelConfig) -> Result<usize> {
        let (hidden, neurons) = (config.hidden, config.neurons);
        let check = |tensor: &str, expected: &[usize], told: &str| -> Result<()> {
            let found = self.shape(tensor)?;
            let path = self.path.display();
            ensure!(found == expected, "{path}: tensor `{tensor}` is {found:?}, expected {told}");
            Ok(())
        };
        let rank = self.shape(FC1)?.first().copied().unwrap_or(0);
        let most = hidden.max(neurons);
        let told = format!("[1 to {most}, {hidden}]");
        check(FC1, &[rank.clamp(1, most), hidden], &told)?;
        check(FC2, &[neurons, rank], &format!("[{neurons}, {rank}]"))?;
        for (tensor, length) in [(FC1_BIAS, rank), (FC2_BIAS, neurons)] {
            if self.contains(tensor) {
                check(tensor, &[length], &format!("[{length}]"))?;
            }
        }
        Ok(rank)
    }

    /// The numbers of a tensor; its shape was looked at before.
    fn read(&mut self, tensor: &str) -> Result<Vec<f32>> {
        let name = self.name(tensor);
        let values = match &mut self.file {
            OpenedFile::Torch(file) => file.read(&name)?,
            OpenedFile::Gguf(file) => file.read_f32(&name)?,
            OpenedFile::Safetensors(file) => {
                let dtype = file.info(&name)?.dtype;
                to_f32(dtype, &file.read(&name)?).with_context(|| {
                    let path = self.path.display();
                    format!("{path}: tensor `{name}` is {dtype:?}, expected F64, F32, F16 or BF16")
                })?
            }
        };
        let sound = values.iter().all(|value| value.is_finite());
        ensure!(sound, "{}: tensor `{name}` holds numbers that are none", self.path.display());
        Ok(values)
    }
}

const FC1: &str = "fc1.weight";
const FC2: &str = "fc2.weight";
const FC1_BIAS: &str = "fc1.bias";
const FC2_BIAS: &str = "fc2.bias";

/// What a layer's files hold, row-major.
struct Factors {
    rank: usize,
    hidden: usize,
    /// [rank, hidden]
    reduce: Vec<f32>,
    reduce_bias: Option<Vec<f32>>,
    /// [neurons, rank]
    expand: Vec<f32>,
    /// Zeros where there is none.
    bias: Vec<f32>,
}

impl Factors {
    fn read(others: &Others, layer: usize, config: &ModelConfig) -> Result<Self> {
        let mut opened = Opened::of_layer(others, layer)?;
        let rank = opened.shapes(config)?;
        let mut optional =
            |tensor: &str| opened.contains(tensor).then(|| opened.read(tensor)).transpose();
        let (reduce_bias, bias) = (optional(FC1_BIAS)?, optional(FC2_BIAS)?);
        let bias = bias.unwrap_or_else(|| vec![0.0; config.neurons]);
        let (reduce, expand) = (opened.read(FC1)?, opened.read(FC2)?);
        Ok(Self { rank, hidden: config.hidden, reduce, reduce_bias, expand, bias })
    }

    fn has_biases(&self) -> bool {
        self.reduce_bias.iter().chain([&self.bias]).flatten().any(|bias| *bias != 0.0)
    }

    /// The same for what a norm makes of the residual: (x - bias) / weight is what it took, but for its size and, of a
    /// LayerNorm, its mean, which are lost. The size scales scores, and not their signs.
    fn after(mut self, norm: &FfnNorm) -> Self {
        // a component that is multiplied by zero is lost as well
        let inverse = |weight: &f32| if *weight == 0.0 { 0.0 } else { 1.0 / weight };
        let inverse: Vec<f32> = norm.weight.iter().map(inverse).collect();
        for row in self.reduce.chunks_mut(self.hidden) {
            row.iter_mut().zip(&inverse).for_each(|(value, by)| *value *= by);
        }
        let Some(bias) = &norm.bias else { return self };
        let along = |row: &[f32]| -> f32 {
            let products = row.iter().zip(bias).map(|(a, b)| f64::from(*a) * f64::from(*b));
            -products.sum::<f64>() as f32
        };
        let of_norm = self.reduce.chunks(self.hidden).map(along);
        let own = self.reduce_bias.take().unwrap_or_else(|| vec![0.0; self.rank]);
        self.reduce_bias = Some(own.iter().zip(of_norm).map(|(own, more)| own + more).collect());
        self
    }

    /// As we store it, and what is added to the scores; of those that take the residual after this norm.
    fn body(
        self,
        relu: bool,
        norm: Option<&FfnNorm>,
        numbers: Numbers,
    ) -> Result<(Body, Vec<f32>)> {
        if let Some(norm) = norm {
            return self.after(norm).body(relu, None, numbers);
        }
        let rank = self.rank.next_multiple_of(numbers.columns_step());
        let mut reduce = self.reduce;
        reduce.resize(rank * self.hidden, 0.0);
        let widened = |row: &[f32]| {
            let zeros = std::iter::repeat_n(0.0, rank - self.rank);
            row.iter().copied().chain(zeros).collect::<Vec<f32>>()
        };
        let expand: Vec<f32> = self.expand.chunks(self.rank).flat_map(widened).collect();
        let (mut offset, mut between) = (self.bias, Between::Nothing);
        if relu {
            let rounded = |bias: Vec<f32>| {
                let mut bias = widened(&bias);
                bias.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32());
                bias
            };
            between = Between::Relu { bias: self.reduce_bias.map(rounded) };
        } else if let Some(bias) = &self.reduce_bias {
            for (sum, row) in offset.iter_mut().zip(self.expand.chunks(self.rank)) {
                let along = row.iter().zip(bias).map(|(a, b)| f64::from(*a) * f64::from(*b));
                *sum = (f64::from(*sum) + along.sum::<f64>()) as f32;
            }
        }
        let reduce = Matrix::encode(numbers, self.hidden, &reduce)?;
        let expand = Matrix::encode(numbers, rank, &expand)?;
        Ok((Body::LowRank { reduce, expand, between }, offset))
    }
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
