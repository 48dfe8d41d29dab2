//! What the tests of this folder share: small traces as plain bools, and naive counts.

use proptest::prelude::*;

use super::coactivation::LayerActivity;

/// A trace as `[token][neuron]`, and where to cut it into two.
#[derive(Debug, Clone)]
pub(crate) struct SmallTrace {
    pub(crate) neurons: usize,
    pub(crate) tokens: Vec<Vec<bool>>,
    pub(crate) cut: usize,
}

impl SmallTrace {
    pub(crate) fn bits(&self) -> Vec<u8> {
        self.tokens.iter().flat_map(|token| pack(token)).collect()
    }

    pub(crate) fn activity(&self) -> LayerActivity {
        let bits = self.bits();
        let (first, second) = bits.split_at(self.cut * self.neurons.div_ceil(8));
        let traces = [(first, self.cut), (second, self.tokens.len() - self.cut)];
        LayerActivity::from_bits(self.neurons, &traces).unwrap()
    }

    /// Tokens in which all of `neurons` are active.
    pub(crate) fn count(&self, neurons: &[usize]) -> u32 {
        self.tokens.iter().filter(|token| neurons.iter().all(|&neuron| token[neuron])).count()
            as u32
    }
}

/// The bits of one token, bit k of byte j = neuron 8j + k.
pub(crate) fn pack(token: &[bool]) -> Vec<u8> {
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
    token.chunks(8).map(byte).collect()
}

/// Small traces from all but empty to dense; few tokens, so that many counts tie.
pub(crate) fn small_traces() -> impl Strategy<Value = SmallTrace> {
    (1usize..40, 0usize..90, 1u32..100).prop_flat_map(|(neurons, tokens, percent)| {
        let bit = prop::bool::weighted(f64::from(percent) / 100.0);
        let token = prop::collection::vec(bit, neurons);
        (prop::collection::vec(token, tokens), 0..=tokens)
            .prop_map(move |(tokens, cut)| SmallTrace { neurons, tokens, cut })
    })
}
