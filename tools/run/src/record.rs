//! Recording traces: a model run over a text, and which of its neurons are active.

use anyhow::Result;
use lnp_link::trace::TraceData;
use lnp_model::{DenseFfn, Model};

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
    Ok(TraceData {
        model: model.checkpoint().name(),
        corpus: String::new(),
        split: String::new(),
        active: model.config().active_rule(),
        neurons: model.config().neurons,
        tokens: token_ids.len(),
        window,
        token_ids: Some(token_ids.to_vec()),
        layers,
    })
}
