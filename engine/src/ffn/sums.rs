//! What comes before and after what neurons add up to: biases, and a norm over the coefficients.

use lnp_format::{Layer, Shape};
use lnp_kernels::{Bias, inverse_rms};
use zerocopy::byteorder::{F32, LE};

/// The output bias; zeros where a norm comes first, which does not concern it.
pub(super) fn start_with_bias(layer: &Layer<'_>, y: &mut [f32]) {
    y.fill(0.0);
    if layer.down_norm().is_none() {
        add_bias(layer, y);
    }
}

pub(super) fn add_bias(layer: &Layer<'_>, y: &mut [f32]) {
    for (y, bias) in y.iter_mut().zip(layer.output_bias()) {
        *y += bias.get();
    }
}

pub(super) fn bias(layer: &Layer<'_>, neuron: u32) -> Bias {
    let of = |list: &[F32<LE>]| list.get(neuron as usize).map_or(0.0, |bias| bias.get());
    Bias { first: of(layer.neuron_bias()), up: of(layer.up_bias()) }
}

/// A norm over the coefficients of each token, where the layer has one. It is a factor of the whole sum, so that what is
/// added up needs only its weights, and the factor comes last.
pub(super) struct Norms<'a> {
    weights: &'a [F32<LE>],
    eps: f32,
    /// Sums of the squares of the coefficients, by token.
    squares: &'a mut [f64],
}

impl<'a> Norms<'a> {
    pub(super) fn of(layer: &Layer<'a>, squares: &'a mut [f64]) -> Self {
        let (weights, eps) = layer.down_norm().unwrap_or_default();
        Self { weights, eps, squares }
    }

    /// What is to be added of a neuron's down column; its coefficient where there is no norm.
    pub(super) fn share(&mut self, token: usize, neuron: u32, coefficient: f32) -> f32 {
        let Some(weight) = self.weights.get(neuron as usize) else { return coefficient };
        if let Some(squares) = self.squares.get_mut(token) {
            *squares += f64::from(coefficient) * f64::from(coefficient);
        }
        coefficient * weight.get()
    }

    /// Makes the sums of all tokens outputs.
    pub(super) fn finish(&self, layer: &Layer<'_>, shape: &Shape, y: &mut [f32]) {
        if self.weights.is_empty() {
            return;
        }
        let tokens = y.chunks_exact_mut((shape.hidden as usize).max(1));
        for (y, squares) in tokens.zip(&*self.squares) {
            let factor = inverse_rms(*squares, shape.neurons, self.eps);
            y.iter_mut().for_each(|y| *y = (f64::from(*y) * factor) as f32);
            add_bias(layer, y);
        }
    }
}
