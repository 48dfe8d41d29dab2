//! How well synthetic layers match real ones, at the real shape.

use anyhow::Result;
use rayon::prelude::*;

use super::draw::{self, Plan};
use super::population::Population;
use super::statistics::{Statistics, TracedLayer};
use super::{Purpose, Split, SynthShape, Synthesis, stream};
use crate::{Part, Profile};

/// One real layer and what was made to be like it.
#[derive(Debug, Clone, Copy)]
pub struct Compared {
    /// The real one.
    pub real: Statistics,
    /// A synthetic one of the same shape, learned from all of its neurons.
    pub same_shape: Statistics,
    /// A synthetic one of the same shape, learned from every other neuron only: what widening costs.
    pub from_half: Statistics,
}

/// Compares every real layer with synthetic ones of its shape; `progress` is told of each layer done.
///
/// # Errors
/// A real trace cannot be read.
pub fn compare(real: &Profile, seed: u64, progress: impl Fn() + Sync) -> Result<Vec<Compared>> {
    let shape = SynthShape {
        layers: real.layers(),
        neurons: real.neurons(),
        tokens: real.tokens() as usize,
        active: None,
    };
    let synthesis = Synthesis::new(real, shape, seed)?;
    let compared: Vec<Result<Compared>> = (0..shape.layers)
        .into_par_iter()
        .map(|layer| {
            let statistics = |bits: &[u8]| {
                let layer_of = TracedLayer { bits, neurons: shape.neurons, window: real.window() };
                layer_of.statistics_with_runs(stream(seed, Purpose::Sample, layer))
            };
            let bits = real.bits(layer, Part::All)?.concat();
            let compared = Compared {
                real: statistics(&bits)?,
                same_shape: statistics(&synthesis.layer(layer, Split::All)?.0)?,
                from_half: statistics(&widened_half(&synthesis, layer, &bits)?)?,
            };
            progress();
            Ok(compared)
        })
        .collect();
    compared.into_iter().collect()
}

/// A layer of all neurons made from those with an even id.
fn widened_half(synthesis: &Synthesis<'_>, layer: usize, bits: &[u8]) -> Result<Vec<u8>> {
    let neurons = synthesis.shape.neurons;
    let half = neurons.div_ceil(2);
    let even = even_neurons(bits, neurons);
    let population = Population::fit(&even, half, neurons)?;
    let templates = stream(synthesis.seed, Purpose::Templates, layer);
    let plan = Plan {
        template: draw::templates(half, neurons, templates),
        ..synthesis.plan(layer, Split::All)?
    };
    Ok(plan.draw(&population, &even))
}

/// The bits of the neurons with an even id, a row a token.
fn even_neurons(bits: &[u8], neurons: usize) -> Vec<u8> {
    let row_bytes = neurons.div_ceil(2).div_ceil(8);
    let mut even = Vec::with_capacity(bits.len().div_ceil(2));
    for row in bits.chunks_exact(neurons.div_ceil(8)) {
        let at = even.len();
        even.resize(at + row_bytes, 0);
        for neuron in (0..neurons).step_by(2) {
            even[at + neuron / 16] |= (row[neuron / 8] >> (neuron % 8) & 1) << (neuron / 2 % 8);
        }
    }
    even
}
