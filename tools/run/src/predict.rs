//! Which neurons a layer needs: told exactly, or by predictors; and which the next ones probably will.

use anyhow::{Result, bail};
use lnp_model::ExactPredictor;
use lnp_predict::points::Point;

use crate::stored::StoredPredictors;

/// What some tokens need of a layer: lists of one entry for each token, or empty where there is nothing to tell.
#[derive(Default)]
pub struct Needed {
    /// The neurons: ids, ascending.
    pub sets: Vec<Vec<u32>>,
    /// How much each of these is estimated to matter.
    pub strengths: Vec<Vec<f32>>,
    /// What products have to be above, where the layer's activation goes by all of them.
    pub cutoffs: Vec<f32>,
}

/// Says which neurons a layer's tokens need.
pub trait Predict: Sync {
    /// Fills `out` for the tokens of `x` (row-major `[tokens][hidden]`).
    ///
    /// # Errors
    /// No such layer, or an `x` that is not whole tokens.
    fn active(&self, layer: usize, x: &[f32], out: &mut Needed) -> Result<()>;

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

    /// Whether it can say by what it knows of `layer` itself, from the input of the layer before in place of its own,
    /// what that will probably need. How much that finds, nobody has measured.
    fn lends(&self, _layer: usize) -> bool {
        false
    }

    /// Says so, as [`Self::ahead`] does.
    ///
    /// # Errors
    /// As [`Self::ahead`].
    fn lent(&self, layer: usize, _x: &[f32], _out: &mut Vec<u32>) -> Result<()> {
        bail!("no prediction of layer {layer} to lend")
    }

    /// Share of the active neurons that it names, by what is known of it; 1 for all.
    fn recall(&self) -> f64;

    /// Bytes that it holds.
    fn resident_bytes(&self) -> usize;
}

impl Predict for ExactPredictor {
    fn active(&self, layer: usize, x: &[f32], out: &mut Needed) -> Result<()> {
        out.strengths.clear();
        self.active_and_cutoffs(layer, x, &mut out.sets, &mut out.cutoffs)
    }

    fn recall(&self) -> f64 {
        1.0
    }

    fn resident_bytes(&self) -> usize {
        Self::resident_bytes(self)
    }
}

/// Says that every neuron is needed: the layer as a whole is read and computed.
pub struct Every {
    /// Of a layer.
    pub neurons: usize,
    /// Values of a token.
    pub hidden: usize,
}

impl Predict for Every {
    fn active(&self, _layer: usize, x: &[f32], out: &mut Needed) -> Result<()> {
        out.strengths.clear();
        out.cutoffs.clear();
        out.sets.resize_with(x.len() / self.hidden.max(1), Vec::new);
        for set in out.sets.iter_mut().filter(|set| set.len() != self.neurons) {
            *set = (0..self.neurons as u32).collect();
        }
        Ok(())
    }

    fn recall(&self) -> f64 {
        1.0
    }

    fn resident_bytes(&self) -> usize {
        0
    }
}

/// What is needed told exactly, what will be by predictors.
pub struct ExactAndAhead<'s> {
    /// Of what is needed.
    pub exact: ExactPredictor,
    /// Of layers ahead.
    pub ahead: StoredPredictors<'s>,
}

impl Predict for ExactAndAhead<'_> {
    fn active(&self, layer: usize, x: &[f32], out: &mut Needed) -> Result<()> {
        Predict::active(&self.exact, layer, x, out)
    }

    fn points_ahead(&self, layer: usize, horizon: usize) -> &[Point] {
        self.ahead.points_ahead(layer, horizon)
    }

    fn ahead(
        &self,
        layer: usize,
        horizon: usize,
        point: usize,
        x: &[f32],
        out: &mut Vec<u32>,
    ) -> Result<()> {
        self.ahead.ahead(layer, horizon, point, x, out)
    }

    fn lends(&self, layer: usize) -> bool {
        self.ahead.lends(layer)
    }

    fn lent(&self, layer: usize, x: &[f32], out: &mut Vec<u32>) -> Result<()> {
        self.ahead.lent(layer, x, out)
    }

    fn recall(&self) -> f64 {
        1.0
    }

    fn resident_bytes(&self) -> usize {
        self.exact.resident_bytes() + self.ahead.resident_bytes()
    }
}
