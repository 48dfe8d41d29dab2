//! Layers asked for by the pack's own predictors, from hidden states alone, with read-ahead and without.

use lnp_engine::Engine;
use lnp_engine::ffn::Ffn;
use lnp_engine::predictors::{Predictors, rank_max};
use lnp_kernels::CpuFeatures;

use super::support::Threads;
use super::{Device, Run};

impl<'a> Run<'a> {
    /// A token through some layers: each predicted, and the next one read ahead by what its predictor of a layer ahead
    /// says. What the predictors name is computed with the bits of an engine that is told the same set.
    pub(super) fn by_predictors(&mut self, engine: &mut Engine<'a, Device<'a>>) {
        let (shape, rank) = (*self.pack.shape(), rank_max(&self.pack));
        let none = CpuFeatures::NONE;
        let bytes = Predictors::required_bytes(&shape, rank, none, 1).unwrap();
        let mut memory = vec![0; bytes];
        let mut predictors = Predictors::new(&shape, rank, none, 1, &mut memory).unwrap();
        let mut ffn_memory = [0; 32 << 10];
        let mut ffn = Ffn::new(&shape, none, 1, &mut ffn_memory).unwrap();
        let workers = Threads(self.setup.threads);
        engine.session(|session| {
            for layer in self.dice.below(shape.layers)..shape.layers {
                let quality = self.dice.below(1001) as f32 / 1000.0;
                let x: Vec<f32> =
                    (0..32).map(|_| self.dice.below(4000) as f32 / 1000.0 - 2.0).collect();
                if layer + 1 < shape.layers && self.dice.one_in(2) {
                    let horizon = self.dice.below(2);
                    let ahead = predictors.predict(&self.pack, (layer + 1, horizon), quality, &x);
                    let named = ahead.unwrap().sets()[0].to_vec();
                    self.prefetch_all(session, layer + 1, &named);
                    self.outcome.predicted_ahead += 1;
                }
                let predicted = predictors.predict(&self.pack, (layer, 0), quality, &x);
                let sets = [predicted.unwrap().sets()[0].to_vec()];
                let before = *session.engine().queue().counts();
                let (by, mut y) = ((&mut predictors, quality), [0.0; 32]);
                let result = ffn.forward_predicted(session, &workers, by, layer, &x, &mut y);
                let right = result.is_ok();
                self.note(session, before, result, sets[0].len());
                if right {
                    self.outcome.predicted += 1;
                    self.compare_outputs(&mut ffn, layer, &sets, &x, &y);
                }
            }
        });
    }
}
