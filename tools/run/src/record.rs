//! Recording traces: a model run over a text, and which of its neurons are active.

use anyhow::Result;
use lnp_link::trace::TraceData;
use lnp_model::{DenseFfn, Family, Model};

/// The trace of a text, as [`DenseFfn::record`] makes it. Corpus and split are empty: the caller knows
/// them.
///
/// # Errors
/// As [`DenseFfn::record`].
pub fn record(
    model: &Model,
    dense: &mut DenseFfn,
    token_ids: &[u32],
    window: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<TraceData> {
    let layers = dense.record(model, token_ids, window, progress)?;
    let active = match model.config().family {
        Family::Opt => "relu(fc1)>0",
        Family::Llama => "relu(gate_proj)>0",
    };
    Ok(TraceData {
        model: model.checkpoint().name(),
        corpus: String::new(),
        split: String::new(),
        active: active.to_owned(),
        neurons: model.config().neurons,
        tokens: token_ids.len(),
        window,
        token_ids: Some(token_ids.to_vec()),
        layers,
    })
}
