//! Which neurons a layer needs: told exactly, or by predictors; and which the next ones probably will.

use anyhow::{Context, Result, bail, ensure};
use lnp_model::{ExactPredictor, ModelConfig};
use lnp_predict::Predictors;
use lnp_predict::points::Point;

/// Says which neurons a layer's tokens need.
pub trait Predict: Sync {
    /// Fills `out` with one list for each token of `x` (row-major `[tokens][hidden]`): ids, ascending.
    ///
    /// # Errors
    /// No such layer, or an `x` that is not whole tokens.
    fn active(&self, layer: usize, x: &[f32], out: &mut Vec<Vec<u32>>) -> Result<()>;

    /// What is known of its predictions of `layer` from the FFN input of `layer - horizon`, by operating point; empty
    /// where it makes none.
    fn points_ahead(&self, _layer: usize, _horizon: usize) -> &[Point] {
        &[]
    }

    /// Fills `out` with the neurons, ascending, that `layer` will probably need, from `x`, one token's FFN input of
    /// `layer - horizon`, at one of [`Self::points_ahead`].
    ///
    /// # Errors
    /// It makes no such prediction, or an `x` that is not one token.
    fn ahead(
        &self,
        layer: usize,
        horizon: usize,
        _point: usize,
        _x: &[f32],
        _out: &mut Vec<u32>,
    ) -> Result<()> {
        bail!("no prediction of layer {layer}, {horizon} layers ahead")
    }

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

/// What is needed told exactly, what will be by predictors.
pub struct ExactAndAhead {
    /// Of what is needed.
    pub exact: ExactPredictor,
    /// Of layers ahead.
    pub predictors: Predictors,
}

impl Predict for ExactAndAhead {
    fn active(&self, layer: usize, x: &[f32], out: &mut Vec<Vec<u32>>) -> Result<()> {
        self.exact.active(layer, x, out)
    }

    fn points_ahead(&self, layer: usize, horizon: usize) -> &[Point] {
        points_ahead(&self.predictors, layer, horizon)
    }

    fn ahead(
        &self,
        layer: usize,
        horizon: usize,
        point: usize,
        x: &[f32],
        out: &mut Vec<u32>,
    ) -> Result<()> {
        ahead(&self.predictors, (layer, horizon), point, x, out)
    }

    fn recall(&self) -> f64 {
        1.0
    }

    fn resident_bytes(&self) -> usize {
        self.exact.resident_bytes() + self.predictors.resident_bytes()
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

    fn points_ahead(&self, layer: usize, horizon: usize) -> &[Point] {
        points_ahead(&self.predictors, layer, horizon)
    }

    fn ahead(
        &self,
        layer: usize,
        horizon: usize,
        point: usize,
        x: &[f32],
        out: &mut Vec<u32>,
    ) -> Result<()> {
        ahead(&self.predictors, (layer, horizon), point, x, out)
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

fn points_ahead(predictors: &Predictors, layer: usize, horizon: usize) -> &[Point] {
    predictors.of(layer, horizon).map_or(&[], |predictor| predictor.points())
}

fn ahead(
    predictors: &Predictors,
    (layer, horizon): (usize, usize),
    point: usize,
    x: &[f32],
    out: &mut Vec<u32>,
) -> Result<()> {
    let predictor = predictors.of(layer, horizon)?;
    let (scores, threshold) = (predictor.scores(x, point)?, predictor.threshold(point)?);
    ensure!(scores.len() == predictors.neurons, "layers are predicted ahead for single tokens");
    out.clear();
    let read = (0u32..).zip(&scores).filter(|(_, score)| **score > threshold);
    out.extend(read.map(|(id, _)| id));
    Ok(())
}
