//! Synthetic traces: of any shape, with the statistics of real ones, to plan for models larger than
//! those at hand.
//!
//! Every synthetic neuron has a real one as its *template*, and every synthetic token a real one as
//! its source. A neuron fires with a probability that mixes its template's bit at the source token
//! with the bits of the template's *kin* (the neurons that fire most like it); given the source
//! token, neurons are drawn independently. So pairs keep the structure of real pairs, tokens come in
//! whole real windows and keep their order, and how much is mixed says how alike two neurons of one
//! template are. `docs/synth.md` says why, and how well it holds.
//!
//! Reading order: [`kin`] (who fires like whom), [`activity`] (the real bits at another activity),
//! [`population`] (the mixture, fitted), [`draw`] (bits of a layer), [`mod@file`] (the trace);
//! [`statistics`] and [`compare`] measure how well it matches.
#![forbid(unsafe_code)]

pub mod activity;
pub mod compare;
pub mod draw;
pub mod file;
pub mod kin;
pub mod population;
pub mod statistics;

use std::path::Path;

use anyhow::{Result, ensure};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use crate::{LAYERS_MAX, NEURONS_MAX, Part, Profile};
use activity::Rescale;
use draw::Plan;
use file::SyntheticTrace;
use population::Population;

/// What is to be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SynthShape {
    /// Layers, 1 to [`LAYERS_MAX`].
    pub layers: usize,
    /// Neurons a layer, 1 to [`NEURONS_MAX`].
    pub neurons: usize,
    /// Tokens, at least 1.
    pub tokens: usize,
    /// Mean share of neurons active, above 0 and below 1; `None`: as in the real traces.
    pub active: Option<f64>,
}

impl SynthShape {
    /// Bytes of the bits of a trace of this shape.
    ///
    /// # Errors
    /// A shape that is not possible.
    pub fn trace_bytes(&self) -> Result<u64> {
        self.check()?;
        // at most 2^32 * 2^12 * 2^17
        Ok(self.tokens as u64 * self.layers as u64 * self.neurons.div_ceil(8) as u64)
    }

    fn check(&self) -> Result<()> {
        for (what, value, most) in [
            ("layers", self.layers, LAYERS_MAX),
            ("neurons", self.neurons, NEURONS_MAX),
            ("tokens", self.tokens, u32::MAX as usize),
        ] {
            ensure!((1..=most).contains(&value), "{value} {what}: 1 to {most} are possible");
        }
        if let Some(active) = self.active {
            ensure!(active > 0.0 && active < 1.0, "--active {active}: must be above 0 and below 1");
        }
        Ok(())
    }

    /// The real layer that a synthetic one is like: both scaled to 0..=1, the nearest.
    pub fn real_layer(&self, layer: usize, real_layers: usize) -> usize {
        let (last, real_last) = (self.layers.saturating_sub(1), real_layers.saturating_sub(1));
        if last == 0 { 0 } else { (2 * layer * real_last + last) / (2 * last) }
    }
}

/// What the draws of a stream are for: streams of different purposes never meet.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Rescale,
    Templates,
    Tokens,
    Profile,
    Test,
    Sample,
}

/// The stream of a purpose and a layer: jumps of 2^192 and of 2^128 draws.
fn stream(seed: u64, purpose: Purpose, layer: usize) -> Xoshiro256PlusPlus {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..=purpose as usize).for_each(|_| random.long_jump());
    (0..layer).for_each(|_| random.jump());
    random
}

/// The stream that the statistics of a layer sample by.
pub fn sample_stream(seed: u64, layer: usize) -> Xoshiro256PlusPlus {
    stream(seed, Purpose::Sample, layer)
}

/// A number below `end`, by the high half of a draw times `end`; drawn here and not by `rand`, whose
/// ways may change between versions. The bias is under `end` / 2^64.
fn below(random: &mut Xoshiro256PlusPlus, end: usize) -> usize {
    ((u128::from(random.next_u64()) * end as u128) >> 64) as usize
}

/// Fisher-Yates.
fn shuffle<T>(random: &mut Xoshiro256PlusPlus, items: &mut [T]) {
    for place in (1..items.len()).rev() {
        items.swap(place, below(random, place + 1));
    }
}

/// Which of the real windows a trace is made from. The neurons are the same for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// All windows; the trace says `profile`.
    All,
    /// Every other window: to make an order from.
    Profile,
    /// The other ones: to judge the order on.
    Test,
}

impl Split {
    fn name(self) -> &'static str {
        if self == Self::Test { "test" } else { "profile" }
    }

    fn has(self, window: usize) -> bool {
        match self {
            Self::All => true,
            Self::Profile => window.is_multiple_of(2),
            Self::Test => !window.is_multiple_of(2),
        }
    }
}

/// A maker of synthetic traces, learned from real ones.
pub struct Synthesis<'a> {
    real: &'a Profile,
    shape: SynthShape,
    seed: u64,
    rescale: Rescale,
}

/// What is known of a layer before its bits are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerFit {
    /// The real layer that it is like.
    pub real_layer: usize,
    /// The mixture: share of a neuron's firing that comes from its template's kin.
    pub mix: f64,
}

impl<'a> Synthesis<'a> {
    /// Learns what has to be known of all layers: how far activity is rescaled.
    ///
    /// # Errors
    /// A shape out of range, a real trace that cannot be read, or an activity that cannot be reached.
    pub fn new(real: &'a Profile, shape: SynthShape, seed: u64) -> Result<Self> {
        shape.check()?;
        let mut synthesis = Self { real, shape, seed, rescale: Rescale::NONE };
        if let Some(active) = shape.active {
            let counts: Vec<Result<Vec<u32>>> = (0..shape.layers)
                .into_par_iter()
                .map(|layer| {
                    let real_layer = shape.real_layer(layer, real.layers());
                    Ok(real.activity(real_layer, Part::All)?.active_count().to_vec())
                })
                .collect();
            let counts: Vec<Vec<u32>> = counts.into_iter().collect::<Result<_>>()?;
            synthesis.rescale = Rescale::to_mean(&counts, real.tokens(), active)?;
        }
        Ok(synthesis)
    }

    /// The bits of a synthetic layer, a row a token.
    ///
    /// # Errors
    /// A real trace cannot be read.
    pub fn layer(&self, layer: usize, split: Split) -> Result<(Vec<u8>, LayerFit)> {
        let real_layer = self.shape.real_layer(layer, self.real.layers());
        let mut bits = self.real.bits(real_layer, Part::All)?.concat();
        let real_neurons = self.real.neurons();
        // One stream a real layer: two layers that are like it see it rescaled in the same way.
        let random = stream(self.seed, Purpose::Rescale, real_layer);
        self.rescale.apply(&mut bits, real_neurons, random)?;
        let population = Population::fit(&bits, real_neurons, self.shape.neurons)?;
        let plan = self.plan(layer, split)?;
        let drawn = plan.draw(&population, &bits);
        Ok((drawn, LayerFit { real_layer, mix: population.mix() }))
    }

    fn plan(&self, layer: usize, split: Split) -> Result<Plan> {
        let purpose = if split == Split::Test { Purpose::Test } else { Purpose::Profile };
        Ok(Plan {
            template: draw::templates(
                self.real.neurons(),
                self.shape.neurons,
                stream(self.seed, Purpose::Templates, layer),
            ),
            tokens: self.source_tokens(split)?,
            random: stream(self.seed, purpose, layer),
        })
    }

    /// The same for all layers: what one token does in two layers belongs together.
    fn source_tokens(&self, split: Split) -> Result<Vec<u32>> {
        let random = stream(self.seed, Purpose::Tokens, usize::from(split == Split::Test));
        draw::source_tokens(&self.real.windows(), split, self.shape.tokens, random)
    }

    /// Writes the trace. `look` sees the bits of every layer, in any order and in parallel; what it
    /// makes of them comes back by layer.
    ///
    /// # Errors
    /// A real trace cannot be read, the file cannot be written, or those of `look`.
    pub fn write<T: Send>(
        &self,
        path: &Path,
        split: Split,
        look: impl Fn(usize, &[u8]) -> Result<T> + Sync,
    ) -> Result<Vec<(LayerFit, T)>> {
        let SynthShape { layers, neurons, tokens, .. } = self.shape;
        let trace = SyntheticTrace {
            model: format!("synthetic({})", self.real.model()),
            corpus: format!("synthetic({})", self.real.corpora().join("+")),
            split: split.name().into(),
            how: self.how()?,
            layers,
            neurons,
            tokens,
            window: self.real.window(),
        };
        let mut seen = Vec::new();
        let draw = |layer| -> Result<_> {
            let (bits, fit) = self.layer(layer, split)?;
            let seen = look(layer, &bits)?;
            Ok((bits, (fit, seen)))
        };
        trace.write(path, |out| {
            // As many layers in memory as are drawn at once.
            let at_once = rayon::current_num_threads().max(1);
            for first in (0..layers).step_by(at_once) {
                let group = (first..(first + at_once).min(layers)).into_par_iter();
                let drawn: Vec<Result<_>> = group.map(draw).collect();
                for drawn in drawn {
                    let (bits, told) = drawn?;
                    out.write_all(&bits)?;
                    seen.push(told);
                }
            }
            Ok(())
        })?;
        Ok(seen)
    }

    /// The stream that a layer's statistics sample by.
    pub fn sample_stream(&self, layer: usize) -> Xoshiro256PlusPlus {
        sample_stream(self.seed, layer)
    }

    /// The metadata entry that tells a synthetic trace, JSON.
    fn how(&self) -> Result<String> {
        Ok(serde_json::to_string(&serde_json::json!({
            "tool": crate::Links::this_tool(), "model": self.real.model(),
            "traces": self.real.sources, "active": self.shape.active, "seed": self.seed,
        }))?)
    }
}

#[cfg(test)]
mod tests;
