//! What is counted over a replay.

use lnp_common::report::quantile;
use lnp_engine::FetchStats;

/// Tokens of a short turn.
pub const TURN_TOKENS: usize = 8;

/// Reads and bytes of a batch.
pub(super) type Batch = (u32, u32);

/// A turn that was seconds long: of each token, begin to end of it, microseconds. They fill the turn.
#[derive(Clone, Default)]
pub(super) struct LongTurn {
    pub(super) tokens_us: Vec<f64>,
}

impl LongTurn {
    /// Microseconds per token.
    pub(super) fn us(&self) -> f64 {
        self.tokens_us.iter().sum::<f64>() / self.tokens_us.len().max(1) as f64
    }
}

/// What was counted over a replay.
#[derive(Clone, Default)]
pub(super) struct Record {
    /// Sums by layer of the model, first repeat only (the others do the same).
    pub(super) layers: Vec<FetchStats>,
    /// The law's time, first repeat only.
    pub(super) predicted_us: f64,
    /// Of each token that was replayed, its batches, first repeat only.
    pub(super) batches: Vec<Vec<Batch>>,
    /// Of each token that was replayed, the time of each repeat, microseconds.
    pub(super) times_us: Vec<Vec<f64>>,
    /// Turns that were seconds long; none where turns were short.
    pub(super) turns: Vec<LongTurn>,
}

impl Record {
    pub(super) fn new(layers: usize) -> Self {
        Self { layers: vec![FetchStats::default(); layers], ..Self::default() }
    }

    pub(super) fn tokens(&self) -> usize {
        self.times_us.len()
    }

    /// Times of tokens, microseconds, that mean and percentiles are of: all from one measurement. Of
    /// short turns the median of each token's repeats; of long ones all tokens of the middle turn.
    pub(super) fn times(&self) -> Vec<f64> {
        let median = quantile(&mut self.turns.iter().map(LongTurn::us).collect::<Vec<_>>(), 0.5);
        if let Some(turn) = self.turns.iter().find(|turn| turn.us() == median) {
            return turn.tokens_us.clone();
        }
        self.times_us.iter().map(|repeats| quantile(&mut repeats.clone(), 0.5)).collect()
    }
}
