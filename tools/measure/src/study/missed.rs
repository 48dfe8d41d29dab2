//! What a cache leaves to be read.

use anyhow::Result;
use lnp_engine::CachePolicy;
use lnp_engine::arena::{Arena, ArenaSize};
use lnp_engine::cache::{Cache, Read};

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

/// What is read of a layer for a token.
pub struct Batch<'a> {
    /// The layer.
    pub layer: usize,
    /// The token.
    pub token: usize,
    /// Whether the cache has seen all tokens once before.
    pub warm: bool,
    /// Ids, ascending, of what is not in the cache.
    pub missed: &'a [u32],
}

/// Takes all tokens through a cache twice, token by token and layer by layer, as the engine does. `read`
/// is called with each batch, and fills in how each missed bundle is read.
/// `active_counts` say what a policy that pins has for its hot set.
///
/// # Errors
/// The engine refuses such a cache.
pub fn through_cache(
    test: &Test,
    policy: CachePolicy,
    cells: usize,
    active_counts: &[Vec<u32>],
    mut read: impl FnMut(&Batch<'_>, &mut [Read]),
) -> Result<()> {
    let bundles = test.layers.len() * test.neurons;
    let mut size = ArenaSize::default();
    Cache::size(&mut size, bundles, cells, policy);
    let mut memory = vec![0; size.bytes()];
    let mut cache = Cache::new(&mut Arena::new(&mut memory), bundles, cells, policy)?;
    cache.pin((0..).zip(active_counts.iter().flatten().copied()));
    let alone = Read { run_bundles: 1, read_bundles: 1 };
    let (mut missed, mut reads) = (Vec::new(), Vec::new());
    for warm in [false, true] {
        for token in 0..test.tokens {
            for layer in 0..test.layers.len() {
                let bundle_of = |id: u32| (layer * test.neurons) as u32 + id;
                missed.clear();
                // A hit changes no cell, so that one pass does for looking and for counting.
                let misses = |id: &u32| cache.hit(bundle_of(*id)).is_none();
                missed.extend(test.active(layer, token).filter(misses));
                reads.clear();
                reads.resize(missed.len(), alone);
                read(&Batch { layer, token, warm, missed: &missed }, &mut reads);
                for (id, read) in missed.iter().zip(&reads) {
                    cache.admit_read(bundle_of(*id), *read);
                }
            }
        }
    }
    Ok(())
}
