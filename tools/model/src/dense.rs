//! The whole FFN in memory: the baseline, and the source of traces.

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Module, Tensor};

use super::activation::Activation;
use super::checkpoint::Checkpoint;
use super::config::ModelConfig;
use super::dense_type::DenseOptions;
use super::inputs::forward_windows;
use super::loader::{Loader, Norm};
use super::matrix::Matrix;
use super::predictor::{check_numbers, token_rows};
use super::{FeedForward, Model};

/// The FFN weights of all layers, multiplied densely. Can record which neurons were active.
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
    gate: Option<Matrix>,
    up: Matrix,
    down: Matrix,
    sub_norm: Option<Norm>,
    activation: Activation,
    /// What |activation| is to be above [1, neurons], where thresholds decide: else it is set to zero.
    limits: Option<Tensor>,
}

impl DenseFfn {
    /// Loads the FFN weights of every layer, in f32.
    ///
    /// # Errors
    /// A missing tensor, one of another shape, or a failed read.
    pub fn load(checkpoint: &Checkpoint, config: &ModelConfig) -> Result<Self> {
        Self::held(checkpoint, config, DenseOptions::in_f32())
    }

    /// The same, held as the caller says: without loss a checkpoint in f16 takes half the memory, and long windows
    /// little more time.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn held(
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        options: DenseOptions,
    ) -> Result<Self> {
        let (neurons, hidden) = (config.neurons, config.hidden);
        let mut loader = Loader::new(checkpoint, options);
        let mut layers = Vec::new();
        for layer in 0..config.layers {
            let names = config.ffn_tensors(layer);
            let gate_bias = names.gate_bias.as_deref();
            let mut rows = |name: &str, bias| loader.matrix(name, bias, neurons, hidden);
            layers.push(Layer {
                gate: names.gate.map(|gate| rows(&gate, gate_bias)).transpose()?,
                up: rows(&names.up, names.up_bias.as_deref())?,
                down: loader.matrix(&names.down, names.down_bias.as_deref(), hidden, neurons)?,
                sub_norm: match names.sub_norm.as_deref() {
                    Some(name) => Some(loader.rms_norm(name, neurons, config.norm_eps)?),
                    None => None,
                },
                activation: config.activation_of(layer),
                limits: match &config.activity {
                    Some(activity) => {
                        let limits = activity.limits(checkpoint, config, layer)?;
                        Some(Tensor::from_vec(limits, (1, neurons), &Device::Cpu)?)
                    }
                    None => None,
                },
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

    /// Computes as [`FeedForward::forward`] does, but leaves out the neurons that `choose` leaves out: it gets the
    /// activations, row-major `[tokens][neurons]` and zero where a neuron is not active, and sets to
    /// zero what is not to be computed.
    ///
    /// # Errors
    /// As [`FeedForward::forward`].
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
    /// An activation that makes no neuron inactive, no token, a window of 0 or beyond the model's context,
    /// or a failed forward pass.
    pub fn record(
        &mut self,
        model: &Model,
        token_ids: &[u32],
        window: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<u8>>> {
        model.config().check_active(model.checkpoint())?;
        self.start_recording();
        forward_windows(model, self, token_ids, window, progress)?;
        Ok(self.take_recording())
    }
}

impl FeedForward for DenseFfn {
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
        let active = self.forward_some(layer, x, y, None)?;
        if let Some(bits) = self.recorded.as_mut().and_then(|layers| layers.get_mut(layer)) {
            append_bits(&active, self.layers[layer].has_zeros(), bits)?;
        }
        Ok(())
    }
}

impl Layer {
    /// Whether there is anything that makes a neuron inactive.
    fn has_zeros(&self) -> bool {
        self.limits.is_some() || self.activation.cut().is_ok()
    }

    /// The activated products with the deciding rows [tokens, neurons]: zero where a neuron is not
    /// active, if the activation has zeros or there are thresholds.
    fn active(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let active = self.activated(x)?;
        let Some(limits) = &self.limits else { return Ok(active) };
        active.abs()?.broadcast_gt(limits)?.where_cond(&active, &active.zeros_like()?)
    }

    fn activated(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let Some(gate) = &self.gate else { return self.activation.activated(&self.up.forward(x)?) };
        let active = self.activation.activated(&gate.forward(x)?)?;
        if self.activation != Activation::Drelu {
            return Ok(active);
        }
        self.up.forward(x)?.gt(0.0)?.where_cond(&active, &active.zeros_like()?)
    }

    /// The output [tokens, hidden] of these activations.
    fn output(&self, x: &Tensor, active: &Tensor) -> candle_core::Result<Tensor> {
        let mut active = active.clone();
        if self.gate.is_some() {
            active = (active * self.activation.activated_up(self.up.forward(x)?)?)?;
        }
        if let Some(norm) = &self.sub_norm {
            active = norm.forward(&active)?;
        }
        self.down.forward(&active)
    }
}

/// Appends one row of bits per token: set where the activation is not zero; all of a layer without zeros, where one
/// that comes out is of rounding.
fn append_bits(active: &Tensor, zeros: bool, bits: &mut Vec<u8>) -> Result<()> {
    let neurons = active.dim(1)?;
    let values = active.flatten_all()?.to_vec1::<f32>()?;
    for token in values.chunks_exact(neurons) {
        bits.extend(token.chunks(8).map(|eight| {
            let bit = |(k, &value): (usize, &f32)| u8::from(value != 0.0 || !zeros) << k;
            eight.iter().enumerate().map(bit).sum::<u8>()
        }));
    }
    Ok(())
}
