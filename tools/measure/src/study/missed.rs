//! What a cache leaves to be read.

use anyhow::Result;
use lnp_engine::CachePolicy;
use lnp_engine::cache::Read;
use lnp_link::missed::Batch;

use super::inputs::Test;

/// What each token of a test reads of each layer.
pub struct Missed {
    layers: usize,
    /// Where each batch begins in `ids`, token by token, layer by layer; then the end.
    begin: Vec<usize>,
    ids: Vec<u32>,
}

impl Missed {
    fn new(layers: usize) -> Self {
        Self { layers, begin: vec![0], ids: Vec::new() }
    }

    fn push(&mut self, ids: impl Iterator<Item = u32>) {
        self.ids.extend(ids);
        self.begin.push(self.ids.len());
    }

    /// Ids, ascending, that a token reads of a layer.
    pub fn batch(&self, token: usize, layer: usize) -> &[u32] {
        let at = token * self.layers + layer;
        &self.ids[self.begin[at]..self.begin[at + 1]]
    }

    /// What is active and not `resident` (by layer and neuron).
    pub fn but(test: &Test, resident: &[Vec<bool>]) -> Self {
        let mut missed = Self::new(test.layers.len());
        for token in 0..test.tokens {
            for (layer, resident) in resident.iter().enumerate() {
                missed.push(test.active(layer, token).filter(|id| !resident[*id as usize]));
            }
        }
        missed
    }

    /// What is left of each step, a layer of a token, by number of the bundle: layer times neurons plus id.
    pub fn of_steps(layers: usize, neurons: usize, steps: &[Vec<u32>]) -> Self {
        let mut missed = Self::new(layers);
        for step in steps {
            missed.push(step.iter().map(|bundle| bundle % neurons.max(1) as u32));
        }
        missed
    }

    /// What a cache that does not ask in which runs bundles are read leaves, warm.
    ///
    /// # Errors
    /// Those of [`through_cache`].
    pub fn by_cache(test: &Test, policy: CachePolicy, cells: usize) -> Result<Self> {
        let mut missed = Self::new(test.layers.len());
        through_cache(test, policy, cells, &[], |batch, _| {
            if batch.warm {
                missed.push(batch.missed.iter().copied());
            }
        })?;
        Ok(missed)
    }
}

/// Takes all tokens through a cache twice, as [`lnp_link::missed::through_cache`].
///
/// # Errors
/// The engine refuses such a cache.
pub fn through_cache(
    test: &Test,
    policy: CachePolicy,
    cells: usize,
    active_counts: &[Vec<u32>],
    read: impl FnMut(&Batch<'_>, &mut [Read]),
) -> Result<()> {
    let passes = [test.layers.as_slice(); 2];
    lnp_link::missed::through_cache(test.neurons, passes, (policy, cells), active_counts, read)
}
