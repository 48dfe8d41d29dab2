//! What predictors are to be made: of which kind, how large, for what; and what making them takes.

use anyhow::{Result, ensure};
use lnp_model::ModelConfig;

use crate::linear::{OVERSAMPLED, WHOLE_MAX};
use crate::numbers::Numbers;
use crate::points::QUALITIES;
use crate::ranks::share_out;
use crate::train::{BATCH, COPIES};

/// What predictors are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Two factors of a low-rank map, fitted to the inputs that occur.
    LowRank,
    /// The deciding rows in so many bits, and a scale for each 32 of them.
    Rows(u8),
    /// The deciding rows as they are.
    Exact,
}

/// How large low-rank predictors may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Size {
    /// All layers' together: a share of the FFN's bytes in f16. Ranks are shared out over the layers where
    /// they save most reads.
    Share(f64),
    /// The same rank for every layer.
    Rank(usize),
}

/// What is to be made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What they are made of; layers ahead are always of low rank.
    pub kind: Kind,
    /// How large they may be, at each horizon.
    pub size: Size,
    /// How the factors' numbers are stored: f16 or q8_0.
    pub numbers: Numbers,
    /// The recall that ranks are shared out for, and at which the ways to set thresholds are compared.
    pub recall: f64,
    /// How many layers ahead, each once.
    pub horizons: Vec<usize>,
    /// Steps of training that low-rank factors are refined by; 0 for none.
    pub train: usize,
}

impl Settings {
    /// Checks that a model can have such predictors.
    ///
    /// # Errors
    /// What is not possible, by the name of its option.
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        for horizon in &self.horizons {
            ensure!(
                *horizon < config.layers,
                "--horizon {horizon}: the model has {} layers, none is so far ahead",
                config.layers
            );
            Ranks::of(config, self, *horizon)?;
        }
        Ok(())
    }

    /// About the length of the file.
    pub fn bytes(&self, config: &ModelConfig) -> u64 {
        let (neurons, hidden) = (config.neurons as u64, config.hidden as u64);
        let layer = match self.size {
            _ if self.kind != Kind::LowRank => 2 * neurons * hidden,
            Size::Rank(rank) => 2 * rank as u64 * (neurons + hidden),
            Size::Share(share) => (share * ffn_bytes(config) as f64) as u64 / config.layers as u64,
        };
        let points = 2 * neurons * QUALITIES.len() as u64;
        (layer + points) * (config.layers * self.horizons.len()) as u64
    }
}

/// About the bytes that [`fit`](crate::fit()) takes: at any rate, and for each row of the sample.
pub fn memory_of_fit(config: &ModelConfig, settings: &Settings) -> (u64, u64) {
    let (neurons, hidden) = (config.neurons as u64, config.hidden as u64);
    let widest = settings.horizons.iter().filter_map(|at| Ranks::of(config, settings, *at).ok());
    let rank = widest.map(|ranks| ranks.most as u64).max().unwrap_or(0);
    // a layer's weights in f32, once more in f64 where it is not wide; products with a basis; square matrices;
    // the factors of all layers wait for their ranks
    let wide = hidden as usize > WHOLE_MAX;
    let weights = neurons * hidden * (4 * config.parts() as u64 + if wide { 0 } else { 8 });
    let basis = if wide { rank + OVERSAMPLED as u64 } else { hidden };
    let fixed = weights
        + 3 * 8 * (neurons + hidden) * basis
        + 4 * 8 * hidden * hidden
        + 2 * (neurons + hidden) * rank * config.layers as u64;
    // inputs of all layers in f16; those of a layer and its target in f32 and f64; for a sixth of the rows,
    // twice, scores and strengths and as much again while they are compared
    let ahead = 1 + u64::from(settings.horizons.iter().any(|horizon| *horizon > 0));
    let row = 2 * hidden * config.layers as u64 + ahead * 12 * hidden + 6 * neurons;
    if settings.train == 0 {
        return (fixed, row);
    }
    // factors, their gradients, moments and steps; a batch; the bits of the rows
    let factors = 8 * 4 * (neurons + hidden) * rank;
    let (fixed, row) = (fixed + factors + (4 * COPIES * BATCH) as u64 * neurons, row + neurons);
    (fixed, row)
}

/// Ranks up to so many times the mean are tried for a layer.
const RANK_TIMES_MAX: usize = 3;

/// Bytes of a model's FFN in f16.
pub fn ffn_bytes(config: &ModelConfig) -> usize {
    2 * config.parts() * config.layers * config.neurons * config.hidden
}

/// Ranks are multiples of this.
pub fn rank_step(numbers: Numbers) -> usize {
    numbers.columns_step().max(8)
}

/// Which ranks are possible.
pub(crate) struct Ranks {
    pub(crate) step: usize,
    /// The largest that a layer may get.
    pub(crate) most: usize,
    /// Units of `step` for all layers together, where they are shared out.
    pub(crate) share: Option<usize>,
    /// Whether there is room to tell strengths.
    pub(crate) strengths: bool,
}

impl Ranks {
    pub(crate) fn of(config: &ModelConfig, settings: &Settings, horizon: usize) -> Result<Self> {
        let (hidden, neurons) = (config.hidden, config.neurons);
        let step = rank_step(settings.numbers);
        let share = match settings.size {
            Size::Rank(rank) => {
                ensure!(
                    (1..=hidden).contains(&rank) && rank.is_multiple_of(step),
                    "--rank {rank}: multiples of {step} up to {hidden} are possible"
                );
                return Ok(Self { step, most: rank, share: None, strengths: horizon == 0 });
            }
            Size::Share(share) => share,
        };
        let layers = config.layers - horizon;
        let numbers = settings.numbers;
        let unit = step * numbers.row_bytes(hidden) + neurons * numbers.row_bytes(step);
        let offsets = 2 * neurons * layers;
        let budget = (share * ffn_bytes(config) as f64) as usize;
        let units = |lists: usize| budget.saturating_sub(lists * offsets) / unit;
        // What tells strengths takes as much as offsets: of the layer itself, where that leaves a rank for each.
        let rows = matches!(settings.kind, Kind::Rows(_) | Kind::Exact);
        let strengths = horizon == 0 && (rows || units(2) >= layers);
        let units = units(if strengths { 2 } else { 1 });
        let needed = (offsets + unit * layers) as f64 / ffn_bytes(config) as f64;
        ensure!(
            units >= layers || rows,
            "--bytes {share}: at least {needed:.4} of the FFN is needed for rank {step} in every layer"
        );
        let most = (RANK_TIMES_MAX * units).div_ceil(layers).max(1) * step;
        Ok(Self { step, most: most.min(hidden / step * step), share: Some(units), strengths })
    }

    /// The rank of each layer, or nothing where all have the largest.
    pub(crate) fn choose(&self, costs: &[Vec<f64>]) -> Result<Vec<usize>> {
        let Some(units) = self.share.filter(|_| !costs.is_empty()) else { return Ok(Vec::new()) };
        // no more than all layers can take
        let units = units.min(costs.iter().map(Vec::len).sum());
        let choices = share_out(costs, units).unwrap_or_default();
        Ok(choices.into_iter().map(|choice| (choice + 1) * self.step).collect())
    }
}
