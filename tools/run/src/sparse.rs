//! The FFN of a model, joined to the engine that reads its bundles.

use anyhow::Result;
use lnp_engine::FetchStats;
use lnp_engine::engine::{Session, Workers};
use lnp_engine::ffn::Ffn;
use lnp_engine::queue::TimedQueue;
use lnp_kernels::TOKENS_MAX;
use lnp_model::ExactPredictor;

/// The FFN of a model, sparse, from a pack: computes the active set exactly from resident weights,
/// fetches its bundles and computes from them, all in one session.
pub struct SparseFfn<'e, 's, 'a, Q: TimedQueue<'a>> {
    session: &'e mut Session<'s, 'a, Q>,
    ffn: Ffn<'e>,
    predictor: &'e ExactPredictor,
    workers: &'e dyn Workers,
    active: Vec<Vec<u32>>,
    stats: FetchStats,
    active_bundles: u64,
}

impl<'e, 's, 'a, Q: TimedQueue<'a> + Send> SparseFfn<'e, 's, 'a, Q> {
    /// Joins engine, kernels and predictor; `workers` compute while this thread reads.
    pub fn new(
        session: &'e mut Session<'s, 'a, Q>,
        ffn: Ffn<'e>,
        predictor: &'e ExactPredictor,
        workers: &'e dyn Workers,
    ) -> Self {
        let stats = FetchStats::default();
        Self { session, ffn, predictor, workers, active: Vec::new(), stats, active_bundles: 0 }
    }

    /// What was fetched so far; what several tokens of a prompt have in common counts once.
    pub fn stats(&self) -> &FetchStats {
        &self.stats
    }

    /// The sum of the sizes of all active sets so far.
    pub fn active_bundles(&self) -> u64 {
        self.active_bundles
    }
}

impl<'a, Q: TimedQueue<'a> + Send> lnp_model::Ffn for SparseFfn<'_, '_, 'a, Q> {
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
        self.predictor.active(layer, x, &mut self.active)?;
        self.active_bundles += self.active.iter().map(|active| active.len() as u64).sum::<u64>();
        let hidden = x.len() / self.active.len().max(1);
        let tokens = self.ffn.tokens_max();
        let batches = x.chunks(tokens * hidden).zip(y.chunks_mut(tokens * hidden));
        for ((x, y), active) in batches.zip(self.active.chunks(tokens)) {
            let mut sets = [&[][..]; TOKENS_MAX];
            for (set, active) in sets.iter_mut().zip(active) {
                *set = active;
            }
            let sets = &sets[..active.len()];
            let stats =
                self.ffn.forward_in(self.session, self.workers, layer as u32, x, sets, y)?;
            self.stats.add(&stats);
        }
        Ok(())
    }
}
