//! From where on a neuron counts as active, of activations that are zero nowhere (SiLU, GELU): a threshold for each layer,
//! learned from a profile. What is below it is left out, which costs accuracy.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use crate::{Checkpoint, ModelConfig};

/// What a threshold is compared with, of a neuron and token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// |activation|: of the gate, where there is one (CATS).
    Magnitude,
    /// The same times the norm of the down column: what leaving the neuron out costs, but for the up row of a gated FFN.
    Strength,
}

impl Measure {
    const ALL: [Self; 2] = [Self::Magnitude, Self::Strength];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Magnitude => "magnitude",
            Self::Strength => "strength",
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Measure {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|measure| measure.name() == name);
        found.context("must be magnitude or strength")
    }
}

/// Thresholds of a model's layers.
#[derive(Debug, Clone, PartialEq)]
pub struct Activity {
    /// The share of the neurons that they were learned for.
    pub share: f64,
    /// What they are compared with.
    pub measure: Measure,
    /// By layer; a neuron is active where its measure is above.
    pub thresholds: Vec<f32>,
}

impl Activity {
    /// Checks that a model's neurons can be told apart by these.
    ///
    /// # Errors
    /// Another number of layers, a threshold that is none, or an activation that has zeros of its own.
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        let mut all = (0..config.layers).map(|layer| config.activation_of(layer));
        if let Some(own) = all.find(|own| own.cut().is_ok()) {
            bail!(
                "activation `{}` has zeros of its own: which neurons are active needs no thresholds",
                own.name()
            );
        }
        let (found, layers) = (self.thresholds.len(), config.layers);
        ensure!(found == layers, "thresholds of {found} layers, the model has {layers}");
        let sound = |threshold: &f32| threshold.is_finite() && *threshold >= 0.0;
        ensure!(self.thresholds.iter().all(sound), "a threshold is negative or no number");
        Ok(())
    }

    /// What |activation| of each neuron of a layer has to be above.
    ///
    /// # Errors
    /// Down columns that cannot be read, where these count.
    pub(crate) fn limits(
        &self,
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        layer: usize,
    ) -> Result<Vec<f32>> {
        let threshold = *self.thresholds.get(layer).context("a layer without a threshold")?;
        Ok(match self.measure {
            Measure::Magnitude => vec![threshold; config.neurons],
            Measure::Strength => {
                let norms = down_norms(checkpoint, config, layer)?;
                // by a column of zeros nothing is lost
                norms.into_iter().map(|norm| threshold / norm).collect()
            }
        })
    }
}

/// The norm of each down column of a layer.
///
/// # Errors
/// A missing tensor, or a failed read.
pub fn down_norms(checkpoint: &Checkpoint, config: &ModelConfig, layer: usize) -> Result<Vec<f32>> {
    let down = checkpoint.read_f32(&config.ffn_tensors(layer).down)?;
    Ok(down_squared(&down, config.neurons).into_iter().map(f32::sqrt).collect())
}

/// |down column|^2 of each neuron, of a matrix `[hidden, neurons]`.
pub fn down_squared(down: &[f32], neurons: usize) -> Vec<f32> {
    let mut squares = vec![0.0; neurons];
    for row in down.chunks(neurons.max(1)) {
        squares.iter_mut().zip(row).for_each(|(sum, weight)| *sum += weight * weight);
    }
    squares
}
