//! Memory: what engine and kernels are given, within what the user allows.

use anyhow::{Result, ensure};
use lnp_common::report::bytes;
use lnp_engine::ffn::Ffn;
use lnp_engine::limits::STAGING_ALIGN;
use lnp_engine::{Config, required_bytes};
use lnp_format::Pack;
use lnp_kernels::CpuFeatures;

/// Memory for [`Ffn::new`], for batches of `tokens_max` tokens.
///
/// # Errors
/// As [`Ffn::required_bytes`].
pub fn ffn_memory(pack: &Pack<'_>, features: CpuFeatures, tokens_max: usize) -> Result<Vec<u8>> {
    Ok(vec![0; Ffn::required_bytes(pack.shape(), features, tokens_max)?])
}

/// Staging area of a whole layer, at most so much.
const STAGING_BYTES_USUAL: usize = 64 << 20;

/// Bytes of each of the two staging areas for reading ahead: a whole layer's, as far as they take no more than a
/// quarter of what a limit leaves; 0 where that is too little.
///
/// # Errors
/// Settings that break a rule.
pub fn prefetch_bytes(pack: &Pack<'_>, base: &Config, memory: Option<usize>) -> Result<usize> {
    let (least, full) = (Config::staging_bytes_min(pack), Config::staging_bytes_full(pack));
    let usual = full.min(STAGING_BYTES_USUAL).max(least).next_multiple_of(STAGING_ALIGN);
    let Some(memory) = memory else { return Ok(usual) };
    let staged = Config { staging_bytes: least, cache_bundles: 0, ..*base };
    let left = memory.saturating_sub(required_bytes(&staged, pack)?);
    let bytes = usual.min(left / 8) / STAGING_ALIGN * STAGING_ALIGN;
    // The areas keep books of their own.
    let all = required_bytes(&Config { prefetch_bytes: bytes, ..staged }, pack)?;
    Ok(if bytes >= least && all <= memory { bytes } else { 0 })
}

/// Engine settings for so much memory: the staging area first, the rest is cache. Without a limit,
/// a staging area for a whole layer (at most 64 MiB) and a cache of `cache_ratio` of the bundles.
///
/// # Errors
/// A limit that is too small, or a ratio that is not one.
pub fn fit_memory(
    pack: &Pack<'_>,
    base: Config,
    memory: Option<usize>,
    cache_ratio: f64,
) -> Result<Config> {
    let (least, full) = (Config::staging_bytes_min(pack), Config::staging_bytes_full(pack));
    let bundles = pack.shape().bundles() as u32;
    let usual = full.min(STAGING_BYTES_USUAL).max(least);
    let with = |staging_bytes, cache_bundles| Config { staging_bytes, cache_bundles, ..base };
    let Some(memory) = memory else {
        ensure!(
            (0.0..=1.0).contains(&cache_ratio),
            "a cache ratio of {cache_ratio}: 0 to 1 is possible"
        );
        return Ok(with(usual, (f64::from(bundles) * cache_ratio).round() as u32));
    };
    let needed = required_bytes(&with(least, 0), pack)?;
    ensure!(
        needed <= memory,
        "--memory {memory} is too small: at least {needed} bytes ({}) are needed",
        bytes(needed as f64)
    );
    // Half of what is left for staging, the rest for the cache; what the cache leaves goes back.
    let staging = usual.min(least + (memory - needed) / 2);
    let (mut fits, mut too_many) = (0, bundles + 1);
    while fits + 1 < too_many {
        let middle = fits + (too_many - fits) / 2;
        let enough = required_bytes(&with(staging, middle), pack)? <= memory;
        if enough { fits = middle } else { too_many = middle }
    }
    let left = memory - required_bytes(&with(staging, fits), pack)?;
    let more = with(usual.min(staging + left), fits);
    // What follows the staging area is aligned: the last bytes may be one too many.
    if required_bytes(&more, pack)? <= memory { Ok(more) } else { Ok(with(staging, fits)) }
}
