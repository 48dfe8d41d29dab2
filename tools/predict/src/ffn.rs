//! An FFN in memory that leaves out what a predictor does not predict: what a predictor costs a model, and
//! what it would read.

use anyhow::{Result, ensure};
use lnp_model::{DenseFfn, FeedForward};

use crate::file::Predictors;

/// What was read of what was active, so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reads {
    /// Active (token, neuron) pairs.
    pub active: u64,
    /// Pairs read.
    pub read: u64,
    /// Active ones among those.
    pub found: u64,
}

impl Reads {
    /// Counts a token whose active neurons and those read are these, both ascending.
    pub fn count(&mut self, active: &[u32], read: &[u32]) {
        self.active += active.len() as u64;
        self.read += read.len() as u64;
        self.found += active.iter().filter(|id| read.binary_search(id).is_ok()).count() as u64;
    }

    /// Bundles read for each active one.
    pub fn per_active(&self) -> f64 {
        self.read as f64 / self.active.max(1) as f64
    }

    /// Share of the active ones that were read.
    pub fn recall(&self) -> f64 {
        self.found as f64 / self.active.max(1) as f64
    }
}

/// The whole FFN in memory, of which only predicted neurons count. Predictors of horizon 0 are used.
pub struct PredictedFfn<'a> {
    dense: &'a mut DenseFfn,
    predictors: &'a Predictors,
    quality: f64,
    reads: Reads,
}

impl<'a> PredictedFfn<'a> {
    /// Reads at the operating points of a quality.
    ///
    /// # Errors
    /// A layer has no predictor.
    pub fn new(dense: &'a mut DenseFfn, predictors: &'a Predictors, quality: f64) -> Result<Self> {
        for layer in 0..predictors.layers {
            predictors.of(layer, 0)?;
        }
        Ok(Self { dense, predictors, quality, reads: Reads::default() })
    }

    /// What was read so far.
    pub fn reads(&self) -> Reads {
        self.reads
    }
}

impl FeedForward for PredictedFfn<'_> {
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
        let predictor = self.predictors.of(layer, 0)?;
        let point = predictor.point_of(self.quality);
        let scores = predictor.scores(x, point)?;
        let threshold = predictor.threshold(point)?;
        let reads = &mut self.reads;
        let mut fits = true;
        self.dense.forward_chosen(layer, x, y, &mut |activations| {
            fits = activations.len() == scores.len();
            for (activation, score) in activations.iter_mut().zip(&scores) {
                let (active, read) = (*activation != 0.0, *score > threshold);
                reads.active += u64::from(active);
                reads.read += u64::from(read);
                reads.found += u64::from(active && read);
                if !read {
                    *activation = 0.0;
                }
            }
        })?;
        ensure!(fits, "predictors of another shape than the model");
        Ok(())
    }
}
