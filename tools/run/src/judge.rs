//! What a pack's predictors find of what is active, on text at hand.

use anyhow::Result;
use lnp_kernels::CpuFeatures;
use lnp_model::ExactPredictor;
use lnp_predict::Sample;
use lnp_predict::ffn::Reads;
use serde::Serialize;

use crate::predict::Predict;
use crate::stored::{Stored, StoredPredictors};

/// What came of one operating point of all layers, and what the pack says of it: means over the layers that have it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// How many layers ahead.
    pub horizon: u32,
    /// What the point is chosen by.
    pub quality: f64,
    /// Layers that have such a point.
    pub layers: u32,
    /// Share of the active (token, neuron) pairs that were named.
    pub recall: f64,
    /// The same, as the pack says.
    pub recall_told: f64,
    /// Neurons named for each active one.
    pub reads_per_active: f64,
    /// The same, as the pack says.
    pub reads_per_active_told: f64,
}

/// Judges all predictors by what is exactly active at the inputs of a sample.
///
/// # Errors
/// Predictors of another model.
pub fn judge(
    stored: &Stored<'_>,
    exact: &ExactPredictor,
    sample: &Sample,
    features: CpuFeatures,
) -> Result<Vec<Judged>> {
    let mut memory = stored.memory(features)?;
    let predictors = StoredPredictors::new(stored, 1.0, features, &mut memory)?;
    let mut judged: Vec<Judged> = Vec::new();
    let (mut active, mut named) = (Vec::new(), Vec::new());
    for layer in 0..predictors.layers() {
        exact.active(layer, &sample.all_inputs(layer), &mut active)?;
        for horizon in 0..=layer {
            let points = predictors.points_ahead(layer, horizon).to_vec();
            let x = sample.all_inputs(layer - horizon);
            for point in &points {
                predictors.named((layer, horizon), point.quality, &x, &mut named)?;
                let mut reads = Reads::default();
                active.iter().zip(&named).for_each(|(active, named)| reads.count(active, named));
                let row = (horizon as u32, f64::from(point.quality));
                let at = judged.iter().position(|found| (found.horizon, found.quality) == row);
                let at = at.unwrap_or_else(|| {
                    judged.push(Judged::none(row));
                    judged.len() - 1
                });
                let row = &mut judged[at];
                row.layers += 1;
                row.recall += reads.recall();
                row.recall_told += f64::from(point.recall);
                row.reads_per_active += reads.per_active();
                row.reads_per_active_told += f64::from(point.reads_per_active);
            }
        }
    }
    for row in &mut judged {
        let layers = f64::from(row.layers);
        row.recall /= layers;
        row.recall_told /= layers;
        row.reads_per_active /= layers;
        row.reads_per_active_told /= layers;
    }
    judged.sort_by(|a, b| {
        (a.horizon, a.quality)
            .partial_cmp(&(b.horizon, b.quality))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    Ok(judged)
}

impl Judged {
    fn none((horizon, quality): (u32, f64)) -> Self {
        let (recall, recall_told) = (0.0, 0.0);
        let (reads_per_active, reads_per_active_told) = (0.0, 0.0);
        Self {
            horizon,
            quality,
            layers: 0,
            recall,
            recall_told,
            reads_per_active,
            reads_per_active_told,
        }
    }
}
