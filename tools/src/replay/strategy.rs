//! The strategies that a replay compares.

use lnp_engine::limits::STAGING_BYTES_MAX;
use lnp_engine::{Collapse, Config, DeviceLaw};
use lnp_format::Pack;

use super::ReplayOptions;

/// One way of reading a pack.
#[derive(Debug, Clone)]
pub struct Strategy {
    /// Its name in the table.
    pub name: String,
    /// When neighbouring reads are merged.
    pub collapse: Collapse,
    /// Whether there is a cache.
    pub cached: bool,
}

impl Strategy {
    /// Whether it reads everything, whatever is active.
    pub fn is_dense(&self) -> bool {
        self.collapse == Collapse::Whole
    }

    /// Its engine settings.
    pub fn config(&self, pack: &Pack<'_>, options: &ReplayOptions) -> Config {
        let bundles = pack.shape().bundles() as f64;
        let cells = if self.cached { (bundles * options.cache_ratio).round() as u32 } else { 0 };
        Config {
            collapse: self.collapse,
            cache_bundles: cells,
            staging_bytes: Config::staging_bytes_full(pack).min(STAGING_BYTES_MAX),
            queue_depth: options.queue_depth,
            ..Config::new(pack)
        }
    }
}

/// The strategies for a pack of some order: plain, with collapse, with collapse and cache; and,
/// where asked for, `dense`. In model order the plain one is called `bundle`, in greedy order
/// `linked`; other orders go by their own names.
pub fn strategies(order: &str, law: &DeviceLaw, cache_ratio: f64, dense: bool) -> Vec<Strategy> {
    let base = match order {
        "identity" => "bundle",
        "greedy" => "linked",
        other => other,
    };
    let strategy = |suffix: &str, collapse, cached| Strategy {
        name: format!("{base}{suffix}"),
        collapse,
        cached,
    };
    let mut all = Vec::new();
    if dense {
        all.push(Strategy { name: "dense".into(), collapse: Collapse::Whole, cached: false });
    }
    all.push(strategy("", Collapse::Off, false));
    all.push(strategy("+collapse", Collapse::Law(*law), false));
    if cache_ratio > 0.0 {
        all.push(strategy("+collapse+cache", Collapse::Law(*law), true));
    }
    all
}
