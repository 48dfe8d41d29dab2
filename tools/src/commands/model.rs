//! Which model: the options of all commands that take one.

use std::path::PathBuf;

use anyhow::{Context, Result};
use lnp_common::report::{say, shown};
use lnp_kernels::CpuFeatures;
use lnp_model::{Activation, Checkpoint, DenseOptions, DenseType, Model};

#[derive(Debug, clap::Args)]
pub(super) struct ModelArgs {
    /// Hugging Face model folder (config.json, *.safetensors, tokenizer.json), or a GGUF file
    #[arg(id = "model", long = "model", value_name = "MODEL")]
    pub(super) path: PathBuf,
    /// Activation of the FFN, in place of the one that the model's files say: relu, relu2, drelu, fatrelu:THRESHOLD,
    /// silu, gelu or gelu_tanh; GGUF files do not say it, but for what is usual in their architecture
    #[arg(long, value_name = "NAME")]
    activation: Option<Activation>,
}

/// How attention, embeddings and head are held.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct DenseArgs {
    /// Type in which attention, embeddings and head are held: f32, f16 or q8_0. f16 and q8_0 round what the checkpoint has
    /// in other types [default: what loses nothing: f16 of a checkpoint in f16, else f32]
    #[arg(long, value_name = "TYPE", value_parser = parse_dense_type)]
    dense_dtype: Option<DenseType>,
}

impl DenseArgs {
    /// What was asked for, in JSON.
    pub(super) fn name(self) -> &'static str {
        self.dense_dtype.map_or("lossless", DenseType::name)
    }

    /// Loads a model so, for a CPU's features.
    pub(super) fn load(self, checkpoint: Checkpoint, features: CpuFeatures) -> Result<Model> {
        match self.dense_dtype {
            None => Model::of(checkpoint),
            numbers => Model::held(checkpoint, DenseOptions { numbers, features }),
        }
    }
}

fn parse_dense_type(name: &str) -> Result<DenseType> {
    let names = DenseType::ALL.map(DenseType::name).join(", ");
    DenseType::from_name(name).with_context(|| format!("must be one of {names}"))
}

impl ModelArgs {
    /// Opens its weights, and says where they were made up.
    pub(super) fn open(&self) -> Result<Checkpoint> {
        let checkpoint = Checkpoint::open(&self.path)?.with_activation(self.activation);
        if let Some(how) = checkpoint.synthetic() {
            say(&format!("lnp: {} is a synthetic model, by {how}\n", shown(&self.path)));
        }
        Ok(checkpoint)
    }
}
