//! The active sets that are replayed.

use anyhow::{Result, ensure};
use lnp_format::Pack;
use lnp_link::trace::TraceReader;

/// The active sets to replay.
pub struct ActiveSets {
    /// Bits of each layer.
    pub(super) layers: Vec<Vec<u8>>,
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
        Ok(Self { layers, neurons: trace.neurons(), tokens: trace.tokens().min(tokens) })
    }

    /// The active sets in memory: per layer one row of ceil(neurons / 8) bytes a token.
    pub fn new(layers: Vec<Vec<u8>>, neurons: usize, tokens: usize) -> Self {
        Self { layers, neurons, tokens }
    }

    /// Tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Active neurons of a layer, over the first `tokens` tokens.
    pub(super) fn active_of(&self, layer: usize, tokens: usize) -> u64 {
        let bits = &self.layers[layer][..tokens * self.neurons.div_ceil(8)];
        bits.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    /// How many copies of the model's layers a pack holds; successive tokens use successive copies.
    pub(super) fn copies(&self, pack: &Pack<'_>) -> Result<usize> {
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
