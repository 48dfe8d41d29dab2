//! Which model, and how it is held: the options of all commands that take one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lnp_common::report::{say, shown};
use lnp_kernels::CpuFeatures;
use lnp_model::{Activation, Checkpoint, DenseNumbers, DenseOptions, DenseType, KvType, Model};

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
    /// Type in which attention, embeddings and head are held: f32, f16, bf16, q8_0 or q4_0, to which what the checkpoint
    /// has in other types is rounded; or `stored`: as the model's files have them, what is quantised too [default: what loses
    /// nothing: f16 or bf16 of a checkpoint in it, else f32]
    #[arg(long, value_name = "TYPE", value_parser = parse_dense_type)]
    dense_dtype: Option<DenseNumbers>,
    /// Where the embeddings are: in memory, or on flash, in the model's files, of which a row is read for each token
    #[arg(long, value_name = "WHERE", value_enum, default_value_t)]
    embeddings: Embeddings,
}

/// Values of `--embeddings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Embeddings {
    #[default]
    Memory,
    Flash,
}

impl DenseArgs {
    /// What was asked for, in JSON.
    pub(super) fn name(self) -> &'static str {
        match self.dense_dtype.unwrap_or_default() {
            DenseNumbers::Lossless => "lossless",
            DenseNumbers::Stored => STORED,
            DenseNumbers::Of(dtype) => dtype.name(),
        }
    }

    /// Whether a type was asked for.
    pub(super) fn is_asked(self) -> bool {
        self.dense_dtype.is_some()
    }

    /// The same of what a pack holds: as it is there, unless it was asked for otherwise.
    pub(super) fn or_stored(self) -> Self {
        Self { dense_dtype: self.dense_dtype.or(Some(DenseNumbers::Stored)), ..self }
    }

    /// How they are held, for a CPU's features: where nothing was asked for, none of the kernels that round.
    pub(super) fn options(self, features: CpuFeatures) -> DenseOptions {
        let usual = DenseOptions {
            embeddings_on_flash: self.embeddings == Embeddings::Flash,
            ..DenseOptions::default()
        };
        match self.dense_dtype {
            None => usual,
            Some(numbers) => DenseOptions { numbers, features, ..usual },
        }
    }

    /// Loads a model so.
    pub(super) fn load(self, checkpoint: Checkpoint, features: CpuFeatures) -> Result<Model> {
        Model::held(checkpoint, self.options(features))
    }
}

const STORED: &str = "stored";

/// `--dense-dtype`.
pub(super) fn parse_dense_type(name: &str) -> Result<DenseNumbers> {
    if name == STORED {
        return Ok(DenseNumbers::Stored);
    }
    let names = DenseType::ALL.map(DenseType::name).join(", ");
    let found = DenseType::from_name(name).map(DenseNumbers::Of);
    found.with_context(|| format!("must be one of {names}, {STORED}"))
}

/// `--kv-dtype`.
pub(super) fn parse_kv_type(name: &str) -> Result<KvType> {
    let names = KvType::ALL.map(KvType::name).join(", ");
    KvType::from_name(name).with_context(|| format!("must be one of {names}"))
}

impl ModelArgs {
    /// Opens its weights, and says where they were made up.
    pub(super) fn open(&self) -> Result<Checkpoint> {
        Ok(self.told(Checkpoint::open(&self.path)?))
    }

    /// The same where a pack holds all but the FFN's weights: so many bytes from this one on.
    pub(super) fn open_of_pack(&self, pack: &Path, offset: u64, bytes: u64) -> Result<Checkpoint> {
        Ok(self.told(Checkpoint::of_pack(&self.path, pack, offset, bytes)?))
    }

    fn told(&self, checkpoint: Checkpoint) -> Checkpoint {
        if let Some(how) = checkpoint.synthetic() {
            say(&format!("lnp: {} is a synthetic model, by {how}\n", shown(&self.path)));
        }
        checkpoint.with_activation(self.activation)
    }
}
