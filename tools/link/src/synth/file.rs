//! Writing a synthetic trace, layer by layer.

use std::io::{BufWriter, Seek, Write};
use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use safetensors::Dtype;

use crate::trace::{SYNTHETIC, layer_name, metadata};
use lnp_common::files::write_whole;
use lnp_common::tensor_file::{TensorShape, write_header};

/// What the header of a synthetic trace says; its bits are written layer by layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntheticTrace {
    /// What it resembles, as `synthetic(...)`.
    pub model: String,
    /// The text of the traces it was learned from, as `synthetic(...)`.
    pub corpus: String,
    /// `profile` or `test`.
    pub split: String,
    /// How it was made.
    pub how: String,
    /// Layers of the model.
    pub layers: usize,
    /// Neurons per layer.
    pub neurons: usize,
    /// Tokens.
    pub tokens: usize,
    /// Tokens of a window.
    pub window: usize,
}

impl SyntheticTrace {
    /// Writes the trace; `write_layers` writes the bits of all layers, in order, and they are
    /// counted. The file appears complete or not at all.
    ///
    /// # Errors
    /// Those of `write_layers`, too few or too many bytes written, or a failed write.
    pub fn write(
        &self,
        path: &Path,
        write_layers: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let texts = [&*self.model, &*self.corpus, &*self.split, "synthetic"];
        let numbers = [self.layers, self.neurons, self.tokens, self.window];
        let mut metadata = metadata(texts, numbers);
        metadata.insert(SYNTHETIC.to_owned(), self.how.clone());
        let names: Vec<String> = (0..self.layers).map(layer_name).collect();
        let shape = [self.tokens, self.neurons.div_ceil(8)];
        let tensors: Vec<TensorShape<'_>> = names
            .iter()
            .map(|name| TensorShape { name, dtype: Dtype::U8, shape: &shape })
            .collect();
        let file_bytes = (self.layers * shape[0] * shape[1]) as u64;
        write_whole(path, file_bytes, |file| {
            let mut out = BufWriter::new(file);
            write_header(&mut out, &metadata, &tensors)?;
            let begin = out.stream_position()?;
            write_layers(&mut out)?;
            let written = out.stream_position()? - begin;
            ensure!(written == file_bytes, "{written} bytes of bits, expected {file_bytes}");
            Ok(out.flush()?)
        })
        .map_err(|error| anyhow!("cannot write trace {error:#}"))
    }
}
