//! Recording traces: a model run over a text, and which of its neurons are active.

use anyhow::Result;
use lnp_link::inputs::{InputRows, sampled_rows};
use lnp_link::predicted::{PredictedLayer, PredictedSets};
use lnp_link::trace::TraceData;
use lnp_model::{DenseFfn, FeedForward, InputSample, Model, forward_windows};
use lnp_predict::Predictors;
use lnp_predict::predictor::Predictor;

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
    record_with(model, dense, token_ids, window, Further::default(), progress)
}

/// What a trace may have beside its active sets.
#[derive(Default)]
pub struct Further<'a> {
    /// The FFN inputs of so many tokens.
    pub inputs: usize,
    /// What these predictors would read.
    pub predicted: Option<PredictedBy<'a>>,
}

/// Predictors at a quality.
#[derive(Clone, Copy)]
pub struct PredictedBy<'a> {
    /// All of them.
    pub predictors: &'a Predictors,
    /// SHA-256 of their file.
    pub sha256: &'a str,
    /// The recall that the operating points are named after.
    pub quality: f64,
}

/// The same with more beside it.
///
/// # Errors
/// As [`record()`], an input that f16 does not hold, or predictors of another shape.
pub fn record_with(
    model: &Model,
    dense: &mut DenseFfn,
    token_ids: &[u32],
    window: usize,
    further: Further<'_>,
    progress: &mut dyn FnMut(usize),
) -> Result<TraceData> {
    model.config().check_active(model.checkpoint())?;
    let rows = sampled_rows(token_ids.len(), further.inputs);
    dense.start_recording();
    let mut sample = InputSample::new(dense, model.config(), &rows);
    let predicted = match further.predicted {
        None => {
            forward_windows(model, &mut sample, token_ids, window, progress)?;
            None
        }
        Some(by) => {
            let mut noted = NotePredicted::new(&mut sample, by);
            forward_windows(model, &mut noted, token_ids, window, progress)?;
            let (predictors, quality) = (by.sha256.to_owned(), by.quality);
            Some(PredictedSets { predictors, quality, layers: noted.sets })
        }
    };
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
        predicted,
        synthetic: model.checkpoint().synthetic().map(str::to_owned),
        layers,
    })
}

/// An FFN that also notes what predictors say of its inputs.
struct NotePredicted<'a> {
    ffn: &'a mut dyn FeedForward,
    by: PredictedBy<'a>,
    /// In the order of the predictors.
    sets: Vec<PredictedLayer>,
    ids: Vec<Vec<u32>>,
}

impl<'a> NotePredicted<'a> {
    fn new(ffn: &'a mut dyn FeedForward, by: PredictedBy<'a>) -> Self {
        let set = |predictor: &Predictor| PredictedLayer {
            layer: predictor.layer,
            horizon: predictor.horizon,
            bits: Vec::new(),
        };
        let sets = by.predictors.predictors.iter().map(set).collect();
        Self { ffn, by, sets, ids: Vec::new() }
    }
}

impl FeedForward for NotePredicted<'_> {
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
        let row_bytes = self.by.predictors.neurons.div_ceil(8);
        for (predictor, set) in self.by.predictors.predictors.iter().zip(&mut self.sets) {
            if predictor.layer != layer + predictor.horizon {
                continue;
            }
            predictor.active(x, predictor.point_of(self.by.quality), &mut self.ids)?;
            for ids in &self.ids {
                let begin = set.bits.len();
                set.bits.resize(begin + row_bytes, 0);
                ids.iter().for_each(|id| set.bits[begin + *id as usize / 8] |= 1 << (id % 8));
            }
        }
        self.ffn.forward(layer, x, y)
    }
}
