//! The FFN of a model, joined to the engine that reads its bundles.

use anyhow::Result;
use lnp_engine::engine::Alone;
use lnp_engine::ffn::Ffn;
use lnp_engine::queue::ReadQueue;
use lnp_engine::{Engine, FetchStats};
use lnp_model::ExactPredictor;

/// The FFN of a model, sparse, from a pack: computes the active set exactly from resident weights,
/// fetches its bundles and computes from them.
pub struct SparseFfn<'e, 'a, Q> {
    engine: &'e mut Engine<'a, Q>,
    ffn: Ffn<'e>,
    predictor: &'e ExactPredictor,
    active: Vec<Vec<u32>>,
    stats: FetchStats,
    active_bundles: u64,
}

impl<'e, 'a, Q: ReadQueue<'a> + Send> SparseFfn<'e, 'a, Q> {
    /// Joins engine, kernels and predictor.
    pub fn new(engine: &'e mut Engine<'a, Q>, ffn: Ffn<'e>, predictor: &'e ExactPredictor) -> Self {
        let stats = FetchStats::default();
        Self { engine, ffn, predictor, active: Vec::new(), stats, active_bundles: 0 }
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

impl<'a, Q: ReadQueue<'a> + Send> lnp_model::Ffn for SparseFfn<'_, 'a, Q> {
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
        self.predictor.active(layer, x, &mut self.active)?;
        self.active_bundles += self.active.iter().map(|active| active.len() as u64).sum::<u64>();
        let sets: Vec<&[u32]> = self.active.iter().map(Vec::as_slice).collect();
        let hidden = x.len() / sets.len().max(1);
        let tokens = self.ffn.tokens_max();
        let batches = x.chunks(tokens * hidden).zip(y.chunks_mut(tokens * hidden));
        for ((x, y), active) in batches.zip(sets.chunks(tokens)) {
            let stats = self.engine.session(|session| {
                self.ffn.forward_batch(session, &Alone, layer as u32, x, active, y)
            })?;
            self.stats.add(&stats);
        }
        Ok(())
    }
}
