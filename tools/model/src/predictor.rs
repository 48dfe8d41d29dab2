//! Which neurons are active: exactly, by computing the pre-activations from resident rows.
//!
//! A trained predictor would hold far less than these rows; the exact one makes results
//! independent of any predictor's quality.

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Module, Tensor};
use candle_nn::Linear;

use super::activation::Activation;
use super::checkpoint::Checkpoint;
use super::config::ModelConfig;
use super::loader::Loader;

/// The rows that decide activity (gate, where there is one, else up; both with dReLU) of all layers, held
/// as f32.
pub struct ExactPredictor {
    layers: Vec<Layer>,
    activation: Activation,
    cut: f32,
    hidden: usize,
    resident_bytes: usize,
}

struct Layer {
    first: Linear,
    /// The up rows, where they decide too.
    up: Option<Linear>,
    /// What |activation| is to be above, by neuron, where thresholds decide.
    limits: Option<Vec<f32>>,
}

impl ExactPredictor {
    /// Loads the deciding rows and their biases.
    ///
    /// # Errors
    /// An activation that makes no neuron inactive; a missing tensor, one of another shape, or a failed
    /// read.
    pub fn load(checkpoint: &Checkpoint, config: &ModelConfig) -> Result<Self> {
        let (activation, hidden) = (config.activation, config.hidden);
        let activity = config.activity.as_ref();
        let cut = if activity.is_some() { 0.0 } else { config.active_above(checkpoint)? };
        let mut loader = Loader::new(checkpoint);
        let layers = (0..config.layers)
            .map(|layer| {
                let names = config.ffn_tensors(layer);
                let bias = names.neuron_bias().map(String::as_str);
                let mut rows = |name: &str, bias| loader.linear(name, bias, config.neurons, hidden);
                let both = activation == Activation::Drelu && names.gate.is_some();
                Ok(Layer {
                    first: rows(names.deciding(), bias)?,
                    up: both.then(|| rows(&names.up, names.up_bias.as_deref())).transpose()?,
                    limits: match activity {
                        Some(activity) => Some(activity.limits(checkpoint, config, layer)?),
                        None => None,
                    },
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers, activation, cut, hidden, resident_bytes: loader.bytes() })
    }

    /// Bytes of the rows and biases held.
    pub fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// Fills `out` with one list per token of `x` (row-major `[tokens][hidden]`, normalised): the
    /// ids, ascending, of the neurons whose pre-activation is above the activation's cut, or whose
    /// activation is above its threshold.
    ///
    /// Deterministic: the same `x` gives the same ids on the same machine, whatever the number of
    /// threads. A token fed alone and the same token fed among others may differ in neurons whose
    /// pre-activation is at the cut but for rounding.
    ///
    /// # Errors
    /// No such layer, or an `x` that is not whole tokens.
    pub fn active(&self, layer: usize, x: &[f32], out: &mut Vec<Vec<u32>>) -> Result<()> {
        let count = self.layers.len();
        let rows = self.layers.get(layer).with_context(|| format!("layer {layer} of {count}"))?;
        let x = token_rows(x, self.hidden)?;
        let up = rows.up.as_ref().map(|up| up.forward(&x)).transpose()?;
        let first = rows.first.forward(&x)?;
        let deciding = match &rows.limits {
            Some(_) => self.activation.activated(&first)?,
            None => self.activation.deciding(first, up.as_ref())?,
        };
        let neurons = deciding.dim(1)?;
        let pre = deciding.flatten_all()?.to_vec1::<f32>()?;
        check_numbers(&pre).with_context(|| format!("layer {layer}"))?;
        out.resize_with(x.dim(0)?, Vec::new);
        for (ids, pre) in out.iter_mut().zip(pre.chunks_exact(neurons)) {
            ids.clear();
            let all = (0u32..).zip(pre);
            match &rows.limits {
                None => ids.extend(all.filter(|&(_, &pre)| pre > self.cut).map(|(id, _)| id)),
                Some(limits) => {
                    let above = all.zip(limits).filter(|((_, pre), limit)| pre.abs() > **limit);
                    ids.extend(above.map(|((id, _), _)| id));
                }
            }
        }
        Ok(())
    }
}

/// Refuses values that are not numbers: a comparison with them would hide them.
pub(super) fn check_numbers(values: &[f32]) -> Result<()> {
    ensure!(
        !values.iter().any(|value| value.is_nan()),
        "an activation is not a number: is the checkpoint damaged?"
    );
    Ok(())
}

/// A flat row-major slice as a tensor [tokens, hidden].
pub(super) fn token_rows(x: &[f32], hidden: usize) -> Result<Tensor> {
    ensure!(
        !x.is_empty() && x.len().is_multiple_of(hidden),
        "FFN input of {} values is not whole tokens of {hidden}",
        x.len()
    );
    Ok(Tensor::from_slice(x, (x.len() / hidden, hidden), &Device::Cpu)?)
}
