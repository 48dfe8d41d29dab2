//! The weights of a layer that matter to a predictor: those that decide what is active, and those that
//! say what leaving a neuron out costs.

use anyhow::{Result, ensure};
use lnp_model::activity::down_squared;
use lnp_model::{Activation, Checkpoint, ModelConfig};

use crate::linear::{product, view};

/// How strong a neuron is for a token: what leaving it out costs. Below zero where it is not active.
pub(crate) const INACTIVE: f32 = -1.0;

/// Tokens whose strengths are held at once where only their sign is asked for.
const TOKENS_AT_ONCE: usize = 1024;

/// Weights of one layer.
pub(crate) struct LayerWeights {
    pub(crate) neurons: usize,
    pub(crate) hidden: usize,
    /// Rows that decide: gate, else up; [neurons, hidden].
    pub(crate) rows: Vec<f32>,
    /// Their bias; zeros where there is none.
    pub(crate) bias: Vec<f32>,
    /// Up rows of a gated FFN.
    up: Option<Vec<f32>>,
    /// |down column|^2 of each neuron.
    down_squared: Vec<f32>,
    activation: Activation,
    /// A neuron is active where its pre-activation is above, with dReLU that of its up row too.
    threshold: f32,
}

impl LayerWeights {
    /// # Errors
    /// A missing tensor, one of another shape, or a failed read.
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        layer: usize,
    ) -> Result<Self> {
        config.check_alike()?;
        let (neurons, hidden) = (config.neurons, config.hidden);
        let names = config.ffn_tensors(layer);
        let read = |name: &str, length: usize| -> Result<Vec<f32>> {
            let values = checkpoint.read_f32(name)?;
            let found = values.len();
            let description = checkpoint.description();
            ensure!(found == length, "{name} has {found} values, {description} makes it {length}");
            Ok(values)
        };
        let gated = names.gate.is_some();
        let bias = match names.neuron_bias() {
            Some(name) => read(name, neurons)?,
            None => vec![0.0; neurons],
        };
        let up = gated.then(|| read(&names.up, neurons * hidden)).transpose()?;
        let down = read(&names.down, hidden * neurons)?;
        let down_squared = down_squared(&down, neurons);
        let threshold = config.active_above(checkpoint)?;
        let rows = read(names.deciding(), neurons * hidden)?;
        let activation = config.activation;
        Ok(Self { neurons, hidden, rows, bias, up, down_squared, activation, threshold })
    }

    /// The strength of every neuron for some inputs, row-major `[tokens][neurons]`: (coefficient times
    /// |down column|)^2, or [`INACTIVE`].
    pub(crate) fn strengths(&self, x: &[f32]) -> Vec<f32> {
        let mut strengths = self.pre_activations(x);
        let up = self.up.as_ref().map(|up| self.times(x, up));
        let mut up = up.as_deref().map(|up| up.chunks(self.neurons));
        for token in strengths.chunks_mut(self.neurons) {
            let up = up.as_mut().and_then(Iterator::next);
            for (neuron, value) in token.iter_mut().enumerate() {
                let up = up.map_or(1.0, |up| up[neuron]);
                let squared = self.activation == Activation::Relu2;
                let coefficient = if squared { *value * *value } else { *value } * up;
                let both = self.activation != Activation::Drelu || up > 0.0;
                let active = *value > self.threshold && both;
                *value = if active {
                    coefficient * coefficient * self.down_squared[neuron]
                } else {
                    INACTIVE
                };
            }
        }
        strengths
    }

    /// |down column|^2 of each neuron.
    pub(crate) fn down_squared(&self) -> &[f32] {
        &self.down_squared
    }

    /// Which neurons are active, row-major `[tokens][neurons]`.
    pub(crate) fn active(&self, x: &[f32]) -> Vec<bool> {
        // strengths take four times the bytes: those of some tokens at a time
        let some = x.chunks((TOKENS_AT_ONCE * self.hidden).max(1));
        some.flat_map(|x| self.strengths(x)).map(|strength| strength > INACTIVE).collect()
    }

    /// What the deciding rows make of some inputs, bias included.
    pub(crate) fn pre_activations(&self, x: &[f32]) -> Vec<f32> {
        let mut pre = self.times(x, &self.rows);
        for token in pre.chunks_mut(self.neurons) {
            token.iter_mut().zip(&self.bias).for_each(|(value, bias)| *value += bias);
        }
        pre
    }

    fn times(&self, x: &[f32], rows: &[f32]) -> Vec<f32> {
        product(view(x, self.hidden), view(rows, self.hidden).transpose())
    }

    /// rows mean + bias: the mean of the pre-activations, and with no mean the bias. Less the activation's
    /// threshold: what is left is active above zero.
    pub(crate) fn level(&self, mean: &[f64]) -> Vec<f64> {
        let row = |(row, bias): (&[f32], &f32)| {
            let along: f64 = row.iter().zip(mean).map(|(a, b)| f64::from(*a) * b).sum();
            along + f64::from(*bias) - f64::from(self.threshold)
        };
        self.rows.chunks(self.hidden).zip(&self.bias).map(row).collect()
    }
}
