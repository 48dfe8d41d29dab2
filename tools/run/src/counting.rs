//! What predictors name, counted against what is exactly active.

use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use lnp_model::ExactPredictor;
use lnp_predict::ffn::Reads;

use crate::predict::{Needed, Predict};

/// Passes on what predictors name, and counts it.
pub struct Counting<'p> {
    predict: &'p dyn Predict,
    exact: &'p ExactPredictor,
    counted: Mutex<(Reads, Vec<Vec<u32>>)>,
}

impl<'p> Counting<'p> {
    /// Counts what `predict` names by `exact`.
    pub fn new(predict: &'p dyn Predict, exact: &'p ExactPredictor) -> Self {
        Self { predict, exact, counted: Mutex::new((Reads::default(), Vec::new())) }
    }

    /// What was named so far.
    pub fn reads(&self) -> Reads {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Predict for Counting<'_> {
    fn active(&self, layer: usize, x: &[f32], out: &mut Needed) -> Result<()> {
        self.predict.active(layer, x, out)?;
        self.count(layer, x, &out.sets)
    }

    fn recall(&self) -> f64 {
        self.reads().recall()
    }

    fn resident_bytes(&self) -> usize {
        self.predict.resident_bytes() + self.exact.resident_bytes()
    }
}

impl Counting<'_> {
    fn count(&self, layer: usize, x: &[f32], named: &[Vec<u32>]) -> Result<()> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let (reads, active) = &mut *counted;
        self.exact.active(layer, x, active)?;
        active.iter().zip(named).for_each(|(active, named)| reads.count(active, named));
        Ok(())
    }
}
