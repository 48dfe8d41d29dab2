//! The active sets that are replayed.

use anyhow::{Context, Result, ensure};
use lnp_format::Pack;
use lnp_link::trace::{TraceReader, active};

/// The active sets to replay.
pub struct ActiveSets {
    /// Bits of each layer.
    pub(super) layers: Vec<Vec<u8>>,
    /// The same of what predictors named, where that is replayed too.
    pub(super) predicted: Option<Vec<Vec<u8>>>,
    pub(super) neurons: usize,
    pub(super) tokens: usize,
}

impl ActiveSets {
    /// The first `tokens` tokens of a trace.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn of_trace(trace: &TraceReader, tokens: usize) -> Result<Self> {
        let layers =
            (0..trace.layers()).map(|layer| trace.layer_bits(layer)).collect::<Result<_>>()?;
        Ok(Self::new(layers, trace.neurons(), trace.tokens().min(tokens)))
    }

    /// The same with what predictors named, as the trace has it.
    ///
    /// # Errors
    /// It has not, for every layer.
    pub fn with_predicted(self, trace: &TraceReader) -> Result<Self> {
        let layer = |layer| {
            let bits = trace.predicted_bits(layer, 0)?;
            bits.context("no predicted sets in it; record it with `lnp trace --predictor`")
        };
        let predicted = (0..trace.layers()).map(layer).collect::<Result<_>>()?;
        Ok(Self { predicted: Some(predicted), ..self })
    }

    /// The active sets in memory: per layer one row of ceil(neurons / 8) bytes a token.
    pub fn new(layers: Vec<Vec<u8>>, neurons: usize, tokens: usize) -> Self {
        Self { layers, predicted: None, neurons, tokens }
    }

    /// Tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Ids, ascending, of what is active of a layer in a token.
    pub fn active_ids(&self, layer: usize, token: usize) -> Vec<u32> {
        active(&self.layers[layer], self.neurons, token).collect()
    }

    /// The bits of a layer, of the tokens that are replayed.
    pub(crate) fn bits(&self, layer: usize) -> &[u8] {
        &self.layers[layer][..self.tokens * self.neurons.div_ceil(8)]
    }

    /// What is asked for of each layer: what predictors named, where there is that, or what is active.
    pub(super) fn asked(&self, predicted: bool) -> &[Vec<u8>] {
        self.predicted.as_ref().filter(|_| predicted).unwrap_or(&self.layers)
    }

    /// Of the predicted sets of the first `tokens` tokens, recall and bundles read for each active one.
    pub(super) fn judged(&self, tokens: usize) -> Option<(f64, f64)> {
        let bytes = tokens * self.neurons.div_ceil(8);
        let pairs = self.layers.iter().zip(self.predicted.as_ref()?);
        let counts = pairs.map(|(bits, named)| overlap(&bits[..bytes], &named[..bytes]));
        Some(shares(counts.fold([0; 3], |sum, of| [0, 1, 2].map(|at| sum[at] + of[at]))))
    }

    /// Active neurons of a layer, over the first `tokens` tokens.
    pub(super) fn active_of(&self, layer: usize, tokens: usize) -> u64 {
        let bits = &self.layers[layer][..tokens * self.neurons.div_ceil(8)];
        bits.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    /// How many copies of the model's layers a pack holds; successive tokens use successive copies.
    pub(crate) fn copies(&self, pack: &Pack<'_>) -> Result<usize> {
        let shape = pack.shape();
        let layers = self.layers.len();
        ensure!(
            shape.neurons as usize == self.neurons
                && (shape.layers as usize).is_multiple_of(layers),
            "the trace is of {layers} layers of {} neurons, the pack has {} of {}: they do not belong \
             together",
            self.neurons,
            shape.layers,
            shape.neurons
        );
        Ok(shape.layers as usize / layers)
    }
}

/// How many are active, named, and both.
pub(super) fn overlap(active: &[u8], named: &[u8]) -> [u64; 3] {
    let ones = |byte: u8| u64::from(byte.count_ones());
    active.iter().zip(named).fold([0; 3], |[a, b, both], (active, named)| {
        [a + ones(*active), b + ones(*named), both + ones(active & named)]
    })
}

/// Of such counts, the share of the active ones that is named, and how many are named for each.
pub(super) fn shares([active, named, both]: [u64; 3]) -> (f64, f64) {
    let active = active.max(1) as f64;
    (both as f64 / active, named as f64 / active)
}
