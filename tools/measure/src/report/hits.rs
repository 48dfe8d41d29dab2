//! What caches hit as they fill, token by token.

use anyhow::Result;
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::{CachePolicy, Collapse, Engine, EngineError, FetchStats, required_bytes};
use lnp_pack::PackIndex;
use serde::Serialize;

use crate::replay::options::CacheChoice;
use crate::replay::{ActiveSets, ReplayOptions, Strategy};
use lnp_device::memory;

/// Points of a line.
const POINTS: usize = 32;
/// The default first.
const POLICIES: [CachePolicy; 5] = [
    CachePolicy::DecayedFrequency,
    CachePolicy::Pinned,
    CachePolicy::Lru,
    CachePolicy::S3Fifo,
    CachePolicy::LinkingAligned,
];

/// What a cache hits.
#[derive(Debug, Serialize)]
pub struct HitsOverTokens {
    /// Its policy.
    pub policy: String,
    /// Tokens up to each point, and the share of the active bundles between it and the one before that were in the cache.
    pub hit_rates: Vec<(usize, f64)>,
}

/// Every policy, from an empty cache on.
///
/// # Errors
/// The engine refuses such a cache.
pub(super) fn over_tokens(
    index: &PackIndex,
    sets: &ActiveSets,
    options: &ReplayOptions,
    ratio: f64,
) -> Result<Vec<HitsOverTokens>> {
    let pack = index.pack()?;
    let copies = sets.copies(&pack)?;
    let step = sets.tokens().div_ceil(POINTS).max(1);
    let of_policy = |policy: CachePolicy| -> Result<HitsOverTokens> {
        let strategy = Strategy {
            name: String::new(),
            collapse: Collapse::Law(options.law),
            adapt: false,
            predicted: false,
            cache: Some(CacheChoice { policy, ratio }),
        };
        let config = strategy.config(&pack, options.queue_depth);
        let mut memory = memory::arena(required_bytes(&config, &pack)?)?;
        let image = Image::Opaque(index.file_bytes());
        let mut engine = Engine::open(pack, &config, &mut memory, |_| {
            let device = SimulatedQueue::new(image, options.law, options.queue_depth, 0);
            Ok::<_, EngineError>(device)
        })?;
        let (mut hit_rates, mut sum) = (Vec::new(), FetchStats::default());
        for token in 0..sets.tokens() {
            for layer in 0..sets.layers() {
                let placed = token % copies * sets.layers() + layer;
                let ids = sets.active_ids(layer, token);
                sum.add(&engine.fetch(placed as u32, &ids, |_, _| Ok(()))?);
            }
            if (token + 1).is_multiple_of(step) || token + 1 == sets.tokens() {
                hit_rates.push((token + 1, sum.hits as f64 / sum.active.max(1) as f64));
                sum = FetchStats::default();
            }
        }
        Ok(HitsOverTokens { policy: policy.name().to_owned(), hit_rates })
    };
    POLICIES.into_iter().map(of_policy).collect()
}
