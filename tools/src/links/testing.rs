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

/// A generator of made-up bits that needs no crate: SplitMix64.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// A made-up trace with about `percent` of the neurons active, for timing: each bit on its own, or
/// every token's neurons from a few of 256 `clustered` sets, as real layers are.
pub(crate) fn large_trace(
    neurons: usize,
    tokens: usize,
    percent: usize,
    clustered: bool,
) -> Vec<u8> {
    const CLUSTERS: usize = 256;
    let mut noise = Noise(1);
    let mut bits = vec![0u8; tokens * neurons.div_ceil(8)];
    for row in bits.chunks_exact_mut(neurons.div_ceil(8)) {
        let mut cluster = 0;
        for drawn in 0..neurons * percent / 100 {
            if drawn % (neurons / CLUSTERS) == 0 {
                cluster = noise.below(CLUSTERS);
            }
            // A cluster's neurons lie scattered over the layer.
            let neuron = match clustered {
                true => cluster + CLUSTERS * noise.below(neurons / CLUSTERS),
                false => noise.below(neurons),
            };
            row[neuron / 8] |= 1 << (neuron % 8);
        }
    }
    bits
}
