//! Which neurons are active: exactly, by computing the pre-activations from resident rows.
//!
//! A trained predictor would hold far less than these rows; the exact one makes results
//! independent of any predictor's quality.

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Module, Tensor};
use candle_nn::Linear;

use super::checkpoint::Checkpoint;
use super::config::ModelConfig;
use super::loader::Loader;

/// The rows that decide activity (up for OPT, gate for Llama) of all layers, held as f32.
pub struct ExactPredictor {
    layers: Vec<Linear>,
    hidden: usize,
    resident_bytes: usize,
}

impl ExactPredictor {
    /// Loads the deciding rows and their biases.
    ///
    /// # Errors
    /// A missing tensor, one of another shape, or a failed read.
    pub fn load(checkpoint: &Checkpoint, config: &ModelConfig) -> Result<Self> {
        let mut loader = Loader::new(checkpoint);
        let layers = (0..config.layers)
            .map(|layer| {
                let names = config.ffn_tensors(layer);
                // The bias belongs to the up rows, which decide only where there is no gate.
                let bias = names.up_bias.as_deref().filter(|_| names.gate.is_none());
                loader.linear(names.deciding(), bias, config.neurons, config.hidden)
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers, hidden: config.hidden, resident_bytes: loader.bytes() })
    }

    /// Bytes of the rows and biases held.
    pub fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// Fills `out` with one list per token of `x` (row-major `[tokens][hidden]`, normalised): the
    /// ids, ascending, of the neurons whose pre-activation is above zero.
    ///
    /// Deterministic: the same `x` gives the same ids on the same machine, whatever the number of
    /// threads. A token fed alone and the same token fed among others may differ in neurons whose
    /// pre-activation is zero but for rounding, whose output is as small.
    ///
    /// # Errors
    /// No such layer, or an `x` that is not whole tokens.
    pub fn active(&self, layer: usize, x: &[f32], out: &mut Vec<Vec<u32>>) -> Result<()> {
        let count = self.layers.len();
        let rows = self.layers.get(layer).with_context(|| format!("layer {layer} of {count}"))?;
        let x = token_rows(x, self.hidden)?;
        let neurons = rows.weight().dim(0)?;
        let pre = rows.forward(&x)?.flatten_all()?.to_vec1::<f32>()?;
        check_numbers(&pre).with_context(|| format!("layer {layer}"))?;
        out.resize_with(x.dim(0)?, Vec::new);
        for (ids, pre) in out.iter_mut().zip(pre.chunks_exact(neurons)) {
            ids.clear();
            ids.extend((0u32..).zip(pre).filter(|&(_, &pre)| pre > 0.0).map(|(id, _)| id));
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
