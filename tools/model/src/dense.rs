//! The whole FFN in memory: the baseline, and the source of traces.

use anyhow::{Context, Result, ensure};
use candle_core::{Module, Tensor};
use candle_nn::Linear;

use super::checkpoint::Checkpoint;
use super::config::ModelConfig;
use super::inputs::forward_windows;
use super::loader::Loader;
use super::predictor::{check_numbers, token_rows};
use super::{Ffn, Model};

/// The FFN weights of all layers as f32, multiplied densely. Can record which neurons were active.
pub struct DenseFfn {
    layers: Vec<Layer>,
    hidden: usize,
    resident_bytes: usize,
    /// Per layer, the rows recorded so far; None while not recording.
    recorded: Option<Vec<Vec<u8>>>,
}

/// Sets to zero, of activations row-major `[tokens][neurons]`, those that are not to be computed.
type Choose<'a> = &'a mut dyn FnMut(&mut [f32]);

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

    /// Computes as [`Ffn::forward`] does, but leaves out the neurons that `choose` leaves out: it gets the
    /// activations, row-major `[tokens][neurons]` and above zero where a neuron is active, and sets to
    /// zero what is not to be computed.
    ///
    /// # Errors
    /// As [`Ffn::forward`].
    pub fn forward_chosen(
        &mut self,
        layer: usize,
        x: &[f32],
        y: &mut [f32],
        choose: &mut dyn FnMut(&mut [f32]),
    ) -> Result<()> {
        self.forward_some(layer, x, y, Some(choose)).map(|_| ())
    }

    /// Fills `y`; returns the activations [tokens, neurons] that it was computed from.
    fn forward_some(
        &self,
        layer: usize,
        x: &[f32],
        y: &mut [f32],
        choose: Option<Choose<'_>>,
    ) -> Result<Tensor> {
        let count = self.layers.len();
        let weights =
            self.layers.get(layer).with_context(|| format!("layer {layer} of {count}"))?;
        ensure!(x.len() == y.len(), "FFN input of {} values, output of {}", x.len(), y.len());
        let x = token_rows(x, self.hidden)?;
        let mut active = weights.active(&x)?;
        if let Some(choose) = choose {
            let mut values = active.flatten_all()?.to_vec1::<f32>()?;
            choose(&mut values);
            active = Tensor::from_vec(values, active.shape(), active.device())?;
        }
        let out = weights.output(&x, &active)?;
        y.copy_from_slice(&out.flatten_all()?.to_vec1::<f32>()?);
        check_numbers(y).with_context(|| format!("layer {layer}"))?;
        Ok(active)
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
        self.start_recording();
        forward_windows(model, self, token_ids, window, progress)?;
        Ok(self.take_recording())
    }
}

impl Ffn for DenseFfn {
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
        let active = self.forward_some(layer, x, y, None)?;
        if let Some(bits) = self.recorded.as_mut().and_then(|layers| layers.get_mut(layer)) {
            append_bits(&active, bits)?;
        }
        Ok(())
    }
}

impl Layer {
    /// relu(pre-activation) [tokens, neurons].
    fn active(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.gate.as_ref().unwrap_or(&self.up).forward(x)?.relu()
    }

    /// The output [tokens, hidden] of these activations.
    fn output(&self, x: &Tensor, active: &Tensor) -> candle_core::Result<Tensor> {
        match &self.gate {
            None => self.down.forward(active),
            Some(_) => self.down.forward(&(active * self.up.forward(x)?)?),
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
