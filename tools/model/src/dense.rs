//! The whole FFN in memory: the baseline, and the source of traces.

use anyhow::{Context, Result, ensure};
use candle_core::{Module, Tensor};
use candle_nn::Linear;

use super::activation::Activation;
use super::checkpoint::Checkpoint;
use super::config::ModelConfig;
use super::loader::{Loader, Norm};
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
    sub_norm: Option<Norm>,
    activation: Activation,
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
            let gate_bias = names.gate_bias.as_deref();
            let mut rows = |name: &str, bias| loader.linear(name, bias, neurons, hidden);
            layers.push(Layer {
                gate: names.gate.map(|gate| rows(&gate, gate_bias)).transpose()?,
                up: rows(&names.up, names.up_bias.as_deref())?,
                down: loader.linear(&names.down, names.down_bias.as_deref(), hidden, neurons)?,
                sub_norm: match names.sub_norm.as_deref() {
                    Some(name) => Some(loader.rms_norm(name, neurons, config.norm_eps)?),
                    None => None,
                },
                activation: config.activation,
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
    /// An activation that makes no neuron inactive, no token, a window of 0 or beyond the model's context,
    /// or a failed forward pass.
    pub fn record(
        &mut self,
        model: &Model,
        token_ids: &[u32],
        window: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<u8>>> {
        model.config().active_above(model.checkpoint())?;
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
        let (deciding, out) = weights.forward(&x)?;
        y.copy_from_slice(&out.flatten_all()?.to_vec1::<f32>()?);
        check_numbers(y).with_context(|| format!("layer {layer}"))?;
        if let Some(bits) = self.recorded.as_mut().and_then(|layers| layers.get_mut(layer)) {
            append_bits(&deciding, weights.activation.cut()?, bits)?;
        }
        Ok(())
    }
}

impl Layer {
    /// What decides which neurons are active [tokens, neurons], and the output [tokens, hidden].
    fn forward(&self, x: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
        let up = self.up.forward(x)?;
        let (first, up) = match &self.gate {
            None => (up, None),
            Some(gate) => (gate.forward(x)?, Some(up)),
        };
        let mut active = self.activation.apply(&first, up.as_ref())?;
        if let Some(norm) = &self.sub_norm {
            active = norm.forward(&active)?;
        }
        let out = self.down.forward(&active)?;
        Ok((self.activation.deciding(first, up.as_ref())?, out))
    }
}

/// Appends one row of bits per token: set where what decides is above the cut.
fn append_bits(deciding: &Tensor, cut: f32, bits: &mut Vec<u8>) -> Result<()> {
    let neurons = deciding.dim(1)?;
    let values = deciding.flatten_all()?.to_vec1::<f32>()?;
    for token in values.chunks_exact(neurons) {
        bits.extend(token.chunks(8).map(|eight| {
            let bit = |(k, &value): (usize, &f32)| u8::from(value > cut) << k;
            eight.iter().enumerate().map(bit).sum::<u8>()
        }));
    }
    Ok(())
}
