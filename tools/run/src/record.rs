//! Recording traces: a model run over a text, and which of its neurons are active.

use anyhow::Result;
use lnp_link::inputs::{InputRows, sampled_rows};
use lnp_link::trace::TraceData;
use lnp_model::{DenseFfn, InputSample, Model, forward_windows};

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
    record_with_inputs(model, dense, token_ids, window, 0, progress)
}

/// The same with the FFN inputs of so many of the tokens.
///
/// # Errors
/// As [`record()`], or an input that f16 does not hold.
pub fn record_with_inputs(
    model: &Model,
    dense: &mut DenseFfn,
    token_ids: &[u32],
    window: usize,
    inputs: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<TraceData> {
    model.config().active_above(model.checkpoint())?;
    let rows = sampled_rows(token_ids.len(), inputs);
    dense.start_recording();
    let mut sample = InputSample::new(dense, model.config(), &rows);
    forward_windows(model, &mut sample, token_ids, window, progress)?;
    let inputs = sample.take();
    let layers = dense.take_recording();
    let hidden = model.config().hidden;
    let inputs = (!rows.is_empty()).then_some(InputRows { rows, hidden, layers: inputs });
    Ok(TraceData {
        model: model.checkpoint().name(),
        corpus: String::new(),
        split: String::new(),
        active: model.config().active_rule(),
        neurons: model.config().neurons,
        tokens: token_ids.len(),
        window,
        token_ids: Some(token_ids.to_vec()),
        inputs,
        layers,
    })
}
