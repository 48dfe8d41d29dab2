//! PowerInfer's files: GGUF but for the first bytes, `PWRI`, with down matrices turned (`blk.N.ffn_down_t`, whose rows
//! are neurons), ReLU for what is SiLU or GELU elsewhere, and predictors of which neurons are active.
//!
//! A layer's predictor is `blk.N.fc1.weight` `[rank, hidden]` and `blk.N.fc2.weight` `[neurons, rank]`, without biases
//! and with a ReLU between; ranks differ from layer to layer. It takes the residual, what the norm of the FFN takes
//! too. Computed are the neurons whose scores are at least `powerinfer.sparse_threshold`, 0 unless that is there.
//! (Read in PowerInfer's `convert.py`, `convert-hf-to-powerinfer-gguf.py`, `llama.cpp` and `ggml.c`.)

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::GgufFile;
use crate::checkpoint::Place;
use crate::config::ModelConfig;

/// Entry of the metadata.
const THRESHOLD: &str = "powerinfer.sparse_threshold";

/// What such a file has beside the weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PowerInfer {
    /// The least score that is computed.
    pub threshold: f32,
    /// Rank of each layer's predictor; empty where there are none.
    pub ranks: Vec<usize>,
}

/// The names of a predictor's matrices, of the one that meets the input first.
pub fn predictor_tensors(layer: usize) -> [String; 2] {
    ["fc1", "fc2"].map(|name| format!("blk.{layer}.{name}.weight"))
}

/// What a file has, if it is PowerInfer's.
pub(super) fn read(
    gguf: &GgufFile,
    config: &ModelConfig,
    tensors: &BTreeMap<String, Place>,
) -> Result<Option<PowerInfer>> {
    if !gguf.is_powerinfer {
        return Ok(None);
    }
    let threshold = gguf.metadata.number(THRESHOLD)?.unwrap_or(0.0) as f32;
    ensure!(threshold.is_finite(), "metadata `{THRESHOLD}` is {threshold}: damaged");
    let [first, _] = predictor_tensors(0);
    if !tensors.contains_key(&first) {
        return Ok(Some(PowerInfer { threshold, ranks: Vec::new() }));
    }
    let mut ranks = Vec::new();
    for layer in 0..config.layers {
        let names = predictor_tensors(layer);
        let shape = |name: &String| -> Result<&[usize]> {
            let place = tensors.get(name).with_context(|| {
                format!("no tensor `{name}`, but predictors of other layers: damaged")
            })?;
            Ok(&place.shape)
        };
        let (reduce, expand) = (shape(&names[0])?, shape(&names[1])?);
        let (hidden, neurons) = (config.hidden, config.neurons);
        let rank = reduce[0];
        ensure!(
            reduce == [rank, hidden] && expand == [neurons, rank] && rank <= hidden.max(neurons),
            "tensors `{}` and `{}` are {reduce:?} and {expand:?}, expected are [rank, {hidden}] and \
             [{neurons}, rank], of a rank up to {}",
            names[0],
            names[1],
            hidden.max(neurons)
        );
        ranks.push(rank);
    }
    Ok(Some(PowerInfer { threshold, ranks }))
}
