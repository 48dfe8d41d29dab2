//! The whole FFN in memory: the baseline, and the source of traces.

use anyhow::{Context, Result, ensure};
use candle_core::{Module, Tensor};
use candle_nn::Linear;

use super::checkpoint::Checkpoint;
use super::config::ModelConfig;
use super::loader::Loader;
use super::predictor::{check_numbers, token_rows};
use super::{Ffn, Model, PIECE_TOKENS};

/// The FFN weights of all layers as f32, multiplied densely. Can record which neurons were active.
pub struct DenseFfn {
    layers: Vec<Layer>,
    hidden: usize,
    resident_bytes: usize,
    /// Per layer, the rows recorded so far; None while not recording.
    recorded: Option<Vec<Vec<u8>>>,
}

struct Layer {
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
}

impl DenseFfn {
    /// Loads the FFN weights of every layer.
    ///
    /// # Errors
    /// A missing tensor, one of another shape, or a failed read.
    pub fn load(checkpoint: &Checkpoint, config: &ModelConfig) -> Result<Self> {
        let (neurons, hidden) = (config.neurons, config.hidden);
        let mut loader = Loader::new(checkpoint);
        let mut layers = Vec::new();
        for layer in 0..config.layers {
            let names = config.ffn_tensors(layer);
            let gate = names.gate.as_deref();
            layers.push(Layer {
                gate: gate.map(|gate| loader.linear(gate, None, neurons, hidden)).transpose()?,
                up: loader.linear(&names.up, names.up_bias.as_deref(), neurons, hidden)?,
                down: loader.linear(&names.down, names.down_bias.as_deref(), hidden, neurons)?,
            });
        }
        Ok(Self { layers, hidden, resident_bytes: loader.bytes(), recorded: None })
    }

    /// Bytes of the weights held.
    pub fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// From now on, appends the active bits of every token to the record of its layer. Drops what
    /// an earlier recording left.
    pub fn start_recording(&mut self) {
        self.recorded = Some(vec![Vec::new(); self.layers.len()]);
    }

    /// Ends recording. Per layer one row of ceil(neurons / 8) bytes per token, bit k of byte j =
    /// neuron 8j + k; empty if nothing was being recorded.
    pub fn take_recording(&mut self) -> Vec<Vec<u8>> {
        self.recorded.take().unwrap_or_default()
    }

    /// Runs the model over the tokens, in windows that each start at position 0 with nothing cached,
    /// and records which neurons are active, as [`Self::take_recording`] gives it. `progress` is told
    /// the number of tokens done so far.
    ///
    /// # Errors
    /// No token, a window of 0 or beyond the model's context, or a failed forward pass.
    pub fn record(
        &mut self,
        model: &Model,
        token_ids: &[u32],
        window: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<u8>>> {
        let limit = model.config().max_positions;
        ensure!(
            (1..=limit).contains(&window),
            "window of {window} tokens: the model takes 1 to {limit}"
        );
        ensure!(!token_ids.is_empty(), "no token to trace: the text is empty");
        self.start_recording();
        let mut done = 0;
        for tokens in token_ids.chunks(window) {
            let mut state = model.new_state();
            for piece in tokens.chunks(PIECE_TOKENS) {
                model.forward_hidden(&mut state, piece, self)?;
                done += piece.len();
                progress(done);
            }
        }
        Ok(self.take_recording())
    }
}

impl Ffn for DenseFfn {
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
        let count = self.layers.len();
        let weights =
            self.layers.get(layer).with_context(|| format!("layer {layer} of {count}"))?;
        ensure!(x.len() == y.len(), "FFN input of {} values, output of {}", x.len(), y.len());
        let x = token_rows(x, self.hidden)?;
        let (active, out) = weights.forward(&x)?;
        y.copy_from_slice(&out.flatten_all()?.to_vec1::<f32>()?);
        check_numbers(y).with_context(|| format!("layer {layer}"))?;
        if let Some(bits) = self.recorded.as_mut().and_then(|layers| layers.get_mut(layer)) {
            append_bits(&active, bits)?;
        }
        Ok(())
    }
}

impl Layer {
    /// relu(pre-activation) [tokens, neurons] and the output [tokens, hidden].
    fn forward(&self, x: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
        match &self.gate {
            None => {
                let active = self.up.forward(x)?.relu()?;
                let out = self.down.forward(&active)?;
                Ok((active, out))
            }
            Some(gate) => {
                let active = gate.forward(x)?.relu()?;
                let out = self.down.forward(&(&active * self.up.forward(x)?)?)?;
                Ok((active, out))
            }
        }
    }
}

/// Appends one row of bits per token: set where the activation is above zero.
fn append_bits(active: &Tensor, bits: &mut Vec<u8>) -> Result<()> {
    let neurons = active.dim(1)?;
    let values = active.flatten_all()?.to_vec1::<f32>()?;
    for token in values.chunks_exact(neurons) {
        bits.extend(token.chunks(8).map(|eight| {
            let bit = |(k, &value): (usize, &f32)| u8::from(value > 0.0) << k;
            eight.iter().enumerate().map(bit).sum::<u8>()
        }));
    }
    Ok(())
}
