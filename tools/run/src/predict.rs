//! Which neurons a layer needs: told exactly, or by predictors.

use anyhow::{Context, Result};
use lnp_model::{ExactPredictor, ModelConfig};
use lnp_predict::Predictors;

/// Says which neurons a layer's tokens need.
pub trait Predict: Sync {
    /// Fills `out` with one list for each token of `x` (row-major `[tokens][hidden]`): ids, ascending.
    ///
    /// # Errors
    /// No such layer, or an `x` that is not whole tokens.
    fn active(&self, layer: usize, x: &[f32], out: &mut Vec<Vec<u32>>) -> Result<()>;

    /// Share of the active neurons that it names, by what is known of it; 1 for all.
    fn recall(&self) -> f64;

    /// Bytes that it holds.
    fn resident_bytes(&self) -> usize;
}

impl Predict for ExactPredictor {
    fn active(&self, layer: usize, x: &[f32], out: &mut Vec<Vec<u32>>) -> Result<()> {
        Self::active(self, layer, x, out)
    }

    fn recall(&self) -> f64 {
        1.0
    }

    fn resident_bytes(&self) -> usize {
        Self::resident_bytes(self)
    }
}

/// Predictors at their operating points of one quality.
pub struct AtQuality {
    predictors: Predictors,
    /// By layer.
    points: Vec<usize>,
}

impl AtQuality {
    /// # Errors
    /// Predictors of another model, or without one for a layer.
    pub fn new(predictors: Predictors, config: &ModelConfig, quality: f64) -> Result<Self> {
        let point = |layer| Ok(predictors.of(layer, 0)?.point_of(quality));
        let points = (0..config.layers).map(point).collect::<Result<_>>()?;
        Ok(Self { predictors, points })
    }
}

impl Predict for AtQuality {
    fn active(&self, layer: usize, x: &[f32], out: &mut Vec<Vec<u32>>) -> Result<()> {
        let count = self.points.len();
        let point = self.points.get(layer).with_context(|| format!("layer {layer} of {count}"))?;
        self.predictors.of(layer, 0)?.active(x, *point, out)
    }

    fn recall(&self) -> f64 {
        let of = |(layer, point): (usize, &usize)| {
            let predictor = self.predictors.of(layer, 0).ok()?;
            predictor.points().get(*point).map(|point| f64::from(point.recall))
        };
        let recalls: Vec<f64> = self.points.iter().enumerate().filter_map(of).collect();
        recalls.iter().sum::<f64>() / recalls.len().max(1) as f64
    }

    fn resident_bytes(&self) -> usize {
        self.predictors.resident_bytes()
    }
}
