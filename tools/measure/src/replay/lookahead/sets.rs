//! What a trace says of layers ahead.

use anyhow::{Result, ensure};
use lnp_link::trace::TraceReader;

use super::HORIZON_MAX;
use crate::replay::sets::{ActiveSets, overlap, shares};

/// What a trace says is needed, and what was expected.
pub struct AheadSets {
    pub(super) needed: ActiveSets,
    /// By layers ahead - 1, by layer.
    ahead: [Vec<Option<Vec<u8>>>; HORIZON_MAX],
}

impl AheadSets {
    /// Of a trace's first `tokens` tokens. Needed is what predictors of the layer itself name, where the trace has
    /// that, or else what is active.
    ///
    /// # Errors
    /// It cannot be read, or nothing was predicted ahead.
    pub fn of_trace(trace: &TraceReader, tokens: usize) -> Result<Self> {
        let mut needed = ActiveSets::of_trace(trace, tokens)?;
        for (layer, bits) in needed.layers.iter_mut().enumerate() {
            if let Some(predicted) = trace.predicted_bits(layer, 0)? {
                *bits = predicted;
            }
        }
        let of = |horizon: usize| -> Result<Vec<Option<Vec<u8>>>> {
            (0..trace.layers()).map(|layer| trace.predicted_bits(layer, horizon)).collect()
        };
        let ahead = [of(1)?, of(2)?];
        ensure!(
            ahead.iter().flatten().any(Option::is_some),
            "no predicted sets of layers ahead in it; record it with `lnp trace --predictor`, with predictors made \
             by `lnp predict --horizon 0,1,2`"
        );
        Ok(Self { needed, ahead })
    }

    pub(super) fn of(&self, layer: usize, horizon: usize) -> Option<&[u8]> {
        self.ahead[horizon - 1][layer].as_deref()
    }

    /// Recall, and bundles named for each that is needed.
    pub(super) fn judged(&self, layer: usize, horizon: usize) -> Option<(f64, f64)> {
        Some(shares(overlap(&self.needed.layers[layer], self.of(layer, horizon)?)))
    }

    /// The same of all layers together that were predicted from so far.
    pub(super) fn judged_all(&self, horizon: usize) -> Option<(f64, f64)> {
        let layers = 0..self.needed.layers.len();
        let counts = layers.filter_map(|layer| {
            Some(overlap(&self.needed.layers[layer], self.of(layer, horizon)?))
        });
        counts.reduce(|sum, of| [0, 1, 2].map(|at| sum[at] + of[at])).map(shares)
    }
}
