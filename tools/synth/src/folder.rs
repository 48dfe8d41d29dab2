//! The folder: weights in files of at most 2 GB, and what describes them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use anyhow::{Result, ensure};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use lnp_common::files::write_text;
use lnp_common::folders::write_folder;
use lnp_common::tensor_file::{SYNTHETIC, TensorShape, write_header};

use crate::describe;
use crate::fill::{Maker, Rows, Scratch};
use crate::shapes::Shape;
use crate::tensors::{Tensor, tensors};
use crate::tokens::{Words, tokenizer};

/// Most bytes of the tensors of one file, as transformers would have them.
const FILE_BYTES_MAX: u64 = 2_000_000_000;
/// Bytes that a thread makes at a time; a row may be longer.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces made while those before are written, for each thread.
const PIECES_OF_THREAD: usize = 4;
/// Bytes, about, of everything that is no weight, beside 32 for each token of the vocabulary.
const TEXTS_BYTES: u64 = 1 << 19;
/// Tokens of the texts to profile and to test with.
const TEXT_TOKENS: [usize; 2] = [12_288, 4_096];

/// The type of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightType {
    /// Half precision.
    F16,
    /// Brain floating point.
    Bf16,
    /// Single precision.
    F32,
}

impl WeightType {
    fn bytes(self) -> u64 {
        if self == Self::F32 { 4 } else { 2 }
    }

    fn stored(self) -> Dtype {
        match self {
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
            Self::F32 => Dtype::F32,
        }
    }

    /// What `config.json` calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::F32 => "float32",
        }
    }

    fn append(self, row: &[f32], bytes: &mut Vec<u8>) {
        match self {
            Self::F32 => bytes.extend(row.iter().flat_map(|number| number.to_le_bytes())),
            Self::F16 => {
                let mut numbers = vec![f16::ZERO; row.len()];
                numbers.convert_from_f32_slice(row);
                bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            }
            Self::Bf16 => {
                let mut numbers = vec![bf16::ZERO; row.len()];
                numbers.convert_from_f32_slice(row);
                bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            }
        }
    }
}

/// What is to be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recipe {
    /// Sizes and family.
    pub shape: &'static Shape,
    /// Layers that are made: the first ones of the shape, or all of them.
    pub layers: usize,
    /// Mean active share over all layers of the shape, above 0 and at most [`Recipe::ACTIVE_MAX`].
    pub active: f64,
    /// Type of the weights.
    pub weights: WeightType,
    /// The same seed, the same bytes.
    pub seed: u64,
}

impl Recipe {
    /// The last layer's share is 1.6 times the mean.
    pub const ACTIVE_MAX: f64 = 0.6;

    /// All layers of a shape, as active as the shape says, in f16.
    pub fn of(shape: &'static Shape) -> Self {
        Self {
            shape,
            layers: shape.layers,
            active: shape.active,
            weights: WeightType::F16,
            seed: 0,
        }
    }

    /// Parameters of the model.
    pub fn parameters(&self) -> u64 {
        tensors(self.shape, self.layers).iter().map(Tensor::numbers).sum()
    }

    /// Bytes of the folder, about.
    pub fn bytes(&self) -> u64 {
        self.parameters() * self.weights.bytes() + TEXTS_BYTES + 32 * self.shape.vocab as u64
    }

    /// The mean active share that a layer is drawn for.
    pub fn share_of_layer(&self, layer: usize) -> f64 {
        crate::activity::share_of_layer(self.shape, self.active, layer)
    }

    /// How it was made, JSON: what marks the weights as synthetic.
    pub fn how(&self) -> String {
        let Self { shape, layers, active, weights, seed } = self;
        json!({
            "tool": concat!("lnp ", env!("CARGO_PKG_VERSION")), "model": shape.name, "layers": layers,
            "active": active, "dtype": weights.name(), "seed": seed,
        })
        .to_string()
    }

    /// Writes the model folder, which appears complete or not at all; `progress` is told the bytes of weights written.
    ///
    /// # Errors
    /// A recipe that is not possible, no room, something of that name, or a failed write.
    pub fn write(&self, path: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
        let Self { shape, layers, active, .. } = *self;
        ensure!(
            (1..=shape.layers).contains(&layers),
            "--layers {layers}: {} has {}",
            shape.name,
            shape.layers
        );
        ensure!(
            active > 0.0 && active <= Self::ACTIVE_MAX,
            "--active {active}: at most {}",
            Self::ACTIVE_MAX
        );
        write_folder(path, self.bytes(), |folder| {
            self.write_weights(folder, progress)?;
            let write_json =
                |name: &str, value: &Value| write_text(&folder.join(name), &format!("{value:#}\n"));
            write_json("config.json", &describe::config(self))?;
            write_json("generation_config.json", &describe::generation())?;
            write_json("tokenizer_config.json", &describe::tokenizer())?;
            write_text(&folder.join("tokenizer.json"), &tokenizer(shape.vocab).to_string())?;
            write_text(&folder.join("README.md"), &describe::readme(self))?;
            std::fs::create_dir(folder.join("text"))?;
            let words = Words::of(shape.vocab, self.seed);
            let [profile, test] = TEXT_TOKENS;
            // of other words: what is learned from one is not known of the other
            write_text(&folder.join("text/profile.txt"), &words.text(0.0..0.75, profile, 0))?;
            write_text(&folder.join("text/test.txt"), &words.text(0.75..1.0, test, 1))
        })
    }

    fn write_weights(&self, folder: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
        let tensors = tensors(self.shape, self.layers);
        let maker = Maker::new(self.shape, self.active, self.seed);
        let files = self.divided(&tensors);
        let mut places = Map::new();
        for (number, range) in files.iter().enumerate() {
            let name = match files.len() {
                1 => "model.safetensors".to_owned(),
                count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
            };
            let tensors = &tensors[range.clone()];
            places.extend(tensors.iter().map(|tensor| (tensor.name.clone(), name.clone().into())));
            self.write_file(&folder.join(&name), tensors, &maker, progress)?;
        }
        if files.len() > 1 {
            let bytes = self.parameters() * self.weights.bytes();
            let index = json!({"metadata": {"total_size": bytes, SYNTHETIC: self.how()}, "weight_map": places});
            write_text(&folder.join("model.safetensors.index.json"), &format!("{index:#}\n"))?;
        }
        Ok(())
    }

    /// Which tensors each file has.
    fn divided(&self, tensors: &[Tensor]) -> Vec<Range<usize>> {
        let (mut files, mut begin, mut bytes) = (Vec::new(), 0, 0);
        for (number, tensor) in tensors.iter().enumerate() {
            let more = tensor.numbers() * self.weights.bytes();
            if number > begin && bytes + more > FILE_BYTES_MAX {
                files.push(begin..number);
                (begin, bytes) = (number, 0);
            }
            bytes += more;
        }
        files.push(begin..tensors.len());
        files
    }

    fn write_file(
        &self,
        path: &Path,
        tensors: &[Tensor],
        maker: &Maker<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let dtype = self.weights.stored();
        let shapes: Vec<TensorShape<'_>> = tensors
            .iter()
            .map(|tensor| TensorShape { name: &tensor.name, dtype, shape: &tensor.shape })
            .collect();
        let metadata = BTreeMap::from([
            ("format".to_owned(), "pt".to_owned()),
            (SYNTHETIC.to_owned(), self.how()),
        ]);
        let mut file = File::create(path)?;
        write_header(&mut file, &metadata, &shapes)?;
        for tensor in tensors {
            self.write_tensor(&mut file, tensor, &maker.rows(tensor), progress)?;
        }
        Ok(file.sync_all()?)
    }

    /// Pieces are made by all threads while those before are written.
    fn write_tensor(
        &self,
        file: &mut File,
        tensor: &Tensor,
        rows: &Rows<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let row_bytes = tensor.columns() * self.weights.bytes() as usize;
        let of_piece = (PIECE_BYTES / row_bytes).max(1);
        let of_group = of_piece * PIECES_OF_THREAD * rayon::current_num_threads().max(1);
        let make = |first: usize| -> Vec<u8> {
            let last = (first + of_piece).min(tensor.rows());
            let (mut scratch, mut bytes) =
                (Scratch::default(), Vec::with_capacity((last - first) * row_bytes));
            (first..last)
                .for_each(|row| self.weights.append(rows.make(row, &mut scratch), &mut bytes));
            bytes
        };
        let mut write = |pieces: &[Vec<u8>]| -> Result<()> {
            for piece in pieces {
                file.write_all(piece)?;
                progress(piece.len() as u64);
            }
            Ok(())
        };
        let mut made: Vec<Vec<u8>> = Vec::new();
        for first in (0..tensor.rows()).step_by(of_group) {
            let last = (first + of_group).min(tensor.rows());
            let firsts: Vec<usize> = (first..last).step_by(of_piece).collect();
            let (written, next) =
                rayon::join(|| write(&made), || firsts.into_par_iter().map(make).collect());
            written?;
            made = next;
        }
        write(&made)
    }
}
