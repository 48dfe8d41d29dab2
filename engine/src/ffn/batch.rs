//! Several tokens that share the bundles that are fetched.

use lnp_kernels::{Bias, Input, Kernel, KernelError, TOKENS_MAX};

use super::sums::Norms;
use crate::error::EngineError;
use crate::sync::{AtomicU32, Ordering};

/// The hidden states of a batch in the kernel's form.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'b> {
    pub(super) kernel: Kernel,
    pub(super) x: &'b [f32],
    pub(super) prepared: &'b [u8],
    pub(super) cutoffs: &'b [f32],
}

impl<'b> Inputs<'b> {
    pub(super) fn of(&self, token: usize) -> Result<Input<'b>, KernelError> {
        let (hidden, bytes) = (self.kernel.shape().hidden, self.kernel.input_bytes());
        // What is not there has the wrong length, which is an error there.
        let x = self.x.get(token * hidden..(token + 1) * hidden).unwrap_or_default();
        let prepared = self.prepared.get(token * bytes..).unwrap_or_default();
        let cutoff = self.cutoffs.get(token).copied().unwrap_or_default();
        Ok(self.kernel.prepared(x, prepared)?.cut(cutoff))
    }
}

/// What the tokens of a batch are computed from.
pub(super) struct Batch<'b> {
    pub(super) inputs: Inputs<'b>,
    pub(super) tokens: usize,
    pub(super) masks: &'b [u8],
    pub(super) mask_bytes: usize,
    pub(super) coefficients: &'b [AtomicU32],
}

impl Batch<'_> {
    /// Computes a neuron's coefficients for the tokens that it is active for.
    pub(super) fn arrive(
        &self,
        neuron: u32,
        bundle: &[u8],
        later: &[u8],
        bias: Bias,
    ) -> Result<f32, EngineError> {
        let mut tokens = self.tokens(neuron);
        loop {
            // As many at a time as the kernels take.
            let mut inputs = [Input::default(); TOKENS_MAX];
            let mut group = [0; TOKENS_MAX];
            let mut count = 0;
            for ((input, own), token) in inputs.iter_mut().zip(&mut group).zip(&mut tokens) {
                (*input, *own) = (self.inputs.of(token)?, token);
                count += 1;
            }
            if count == 0 {
                return Ok(0.0);
            }
            let mut out = [0.0; TOKENS_MAX];
            let (inputs, out) = (&inputs[..count], &mut out[..count]);
            self.inputs.kernel.coefficients(inputs, bundle, bias, later, out)?;
            for (token, value) in group.iter().zip(out) {
                // The engine publishes this with what it stores for the neuron itself.
                self.place(neuron, *token).store(value.to_bits(), Ordering::Relaxed);
            }
        }
    }

    /// Adds the neuron's share to the output of each of these tokens; whether there was any.
    pub(super) fn finish(
        &self,
        neuron: u32,
        bundle: &[u8],
        later: &[u8],
        norms: &mut Norms<'_>,
        y: &mut [f32],
    ) -> Result<bool, EngineError> {
        let mut any = false;
        for token in self.tokens(neuron) {
            let value = f32::from_bits(self.place(neuron, token).load(Ordering::Relaxed));
            any |= value != 0.0;
            let hidden = self.inputs.kernel.shape().hidden;
            let y = &mut y[token * hidden..(token + 1) * hidden];
            let share = norms.share(token, neuron, value);
            self.inputs.kernel.accumulate(share, bundle, later, y)?;
        }
        Ok(any)
    }

    /// The tokens that a neuron is active for.
    fn tokens(&self, neuron: u32) -> impl Iterator<Item = usize> {
        let begin = neuron as usize * self.mask_bytes;
        let mask = self.masks.get(begin..begin + self.mask_bytes);
        let mask = mask.unwrap_or_default();
        (0..self.tokens).filter(move |token| {
            mask.get(token / 8).is_some_and(|bits| bits >> (token % 8) & 1 != 0)
        })
    }

    fn place(&self, neuron: u32, token: usize) -> &AtomicU32 {
        // By the tokens that there are: few of them keep to little of the memory.
        &self.coefficients[neuron as usize * self.tokens + token]
    }
}
