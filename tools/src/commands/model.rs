//! Which model: the options of all commands that take one.

use std::path::PathBuf;

use anyhow::Result;
use lnp_model::{Activation, Checkpoint};

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

impl ModelArgs {
    /// Opens its weights.
    pub(super) fn open(&self) -> Result<Checkpoint> {
        Ok(Checkpoint::open(&self.path)?.with_activation(self.activation))
    }
}
