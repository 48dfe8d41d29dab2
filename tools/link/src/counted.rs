//! Counts of more tokens than a trace has: what an engine's recorder (`lnp_engine::recorder`) counted of all that it was
//! asked for, where the trace is a sample of that.
//!
//! One U16 tensor `counts.{i}` `[neurons]` per layer, and in the metadata `counted_tokens`, how many tokens they are of.

use anyhow::{Context, Result, ensure};
use lnp_common::tensor_file::TensorFile;
use safetensors::Dtype;

use crate::trace::check_tensor;

fn name(layer: usize) -> String {
    format!("counts.{layer}")
}

/// Checks that the counts of all layers are there, or those of none.
pub(crate) fn check_counted(file: &TensorFile, layers: usize, neurons: usize) -> Result<()> {
    let found = file.tensors().keys().filter(|name| name.starts_with("counts.")).count();
    if found == 0 {
        return Ok(());
    }
    ensure!(found == layers, "has counts of {found} layers, metadata `layers` is {layers}");
    for layer in 0..layers {
        check_tensor(file, &name(layer), Dtype::U16, &[neurons])?;
    }
    counted_tokens(file).map(|_| ())
}

fn counted_tokens(file: &TensorFile) -> Result<u64> {
    let text = file.metadata().get("counted_tokens");
    let text = text.context("has counts, metadata lacks `counted_tokens`")?;
    let tokens = text.parse::<u32>().ok().filter(|tokens| *tokens > 0);
    let rule = || format!("metadata `counted_tokens` is `{text}`, expected 1 to {}", u32::MAX);
    tokens.map(u64::from).with_context(rule)
}

/// The counts of a layer, and of how many tokens they are; none where the file has none.
pub(crate) fn counted(file: &TensorFile, layer: usize) -> Result<Option<(Vec<u32>, u64)>> {
    let name = name(layer);
    if !file.tensors().contains_key(&name) {
        return Ok(None);
    }
    let tokens = counted_tokens(file)?;
    let bytes = file.read(&name)?;
    let (counts, _) = bytes.as_chunks();
    let counts: Vec<u32> = counts.iter().map(|count| u16::from_le_bytes(*count).into()).collect();
    let most = counts.iter().max().copied().unwrap_or(0);
    ensure!(u64::from(most) <= tokens, "tensor `{name}` counts {most} of {tokens} tokens: damaged");
    Ok(Some((counts, tokens)))
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, Result};

    use crate::trace::TraceReader;

    /// What the engine's recorder writes.
    const GOLDEN: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../engine/tests/golden/recorded.trace");

    /// The golden file, with one text in its header replaced by another of its length.
    fn edited(from: &str, to: &str) -> Result<(tempfile::TempDir, Result<TraceReader>)> {
        assert_eq!(from.len(), to.len());
        let mut file = std::fs::read(GOLDEN)?;
        let at = file.windows(from.len()).position(|bytes| bytes == from.as_bytes());
        let at = at.with_context(|| from.to_owned())?;
        file[at..at + to.len()].copy_from_slice(to.as_bytes());
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("edited.trace");
        std::fs::write(&path, file)?;
        Ok((folder, TraceReader::open(&path)))
    }

    #[test]
    fn counts_are_of_all_layers_and_fit_their_tokens() -> Result<()> {
        let tokens = "\"counted_tokens\":\"5\"";
        assert!(edited(tokens, tokens)?.1?.counted(2)?.is_some());
        for (from, to, told) in [
            ("counts.2", "others.2", "counts of 2 layers"),
            ("counts.2", "counts.x", "counts.2"),
            ("\"U16\",\"shape\":[45]", "\"I16\",\"shape\":[45]", "counts.0"),
            (tokens, "\"counted_tokens\":\"0\"", "expected 1 to"),
            (tokens, "\"counted_tokenz\":\"5\"", "lacks `counted_tokens`"),
        ] {
            let error = edited(from, to)?.1.err().with_context(|| to.to_owned())?;
            assert!(format!("{error:#}").contains(told), "{error:#}");
        }
        // What it counts is seen when it is read.
        let error = edited(tokens, "\"counted_tokens\":\"1\"")?.1?.counted(1).unwrap_err();
        assert!(format!("{error:#}").contains("of 1 tokens: damaged"), "{error:#}");
        Ok(())
    }
}
