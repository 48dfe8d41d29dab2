//! The strategies that a replay compares.

use lnp_engine::limits::STAGING_BYTES_MAX;
use lnp_engine::{CachePolicy, Collapse, Config};
use lnp_format::Pack;

use super::options::{CacheChoice, ReplayOptions};

/// One way of reading a pack.
#[derive(Debug, Clone)]
pub struct Strategy {
    /// Its name in the table.
    pub name: String,
    /// When neighbouring reads are merged.
    pub collapse: Collapse,
    /// Whether the law is learned on line.
    pub adapt: bool,
    /// Whether it reads what predictors name in place of what is active.
    pub predicted: bool,
    /// Its cache, if there is one.
    pub cache: Option<CacheChoice>,
}

impl Strategy {
    /// Whether it reads everything, whatever is active.
    pub fn is_dense(&self) -> bool {
        self.collapse == Collapse::Whole
    }

    /// Its engine settings.
    pub fn config(&self, pack: &Pack<'_>, queue_depth: u32) -> Config {
        Config {
            collapse: self.collapse,
            adapt: self.adapt,
            cache_bundles: self.cache.map_or(0, |cache| cache.cells(pack)),
            cache_policy: self.cache.map_or(CachePolicy::None, |cache| cache.policy),
            staging_bytes: Config::staging_bytes_full(pack).min(STAGING_BYTES_MAX),
            queue_depth,
            ..Config::new(pack)
        }
    }
}

/// What the plain strategy on a pack of some order is called: in model order `bundle`, in greedy
/// order `linked`; other orders go by their own names.
pub(super) fn base_name(order: &str) -> &str {
    match order {
        "identity" => "bundle",
        "greedy" => "linked",
        other => other,
    }
}

/// The strategies for a pack of some order: plain, with collapse, with collapse and each cache; and,
/// where asked for, `dense`.
pub fn strategies(order: &str, options: &ReplayOptions, dense: bool) -> Vec<Strategy> {
    let base = base_name(order);
    let law = Collapse::Law(options.law);
    let strategy =
        |name, collapse| Strategy { name, collapse, adapt: false, predicted: false, cache: None };
    let mut all = Vec::new();
    if dense {
        all.push(strategy("dense".into(), Collapse::Whole));
    }
    all.push(strategy(base.into(), Collapse::Off));
    all.push(strategy(format!("{base}+collapse"), law));
    if let Some(bytes) = options.rules.gap_bytes {
        all.push(strategy(format!("{base}+gap"), Collapse::Gap { bytes }));
    }
    if let Some(curve) = options.rules.curve {
        all.push(strategy(format!("{base}+curve"), Collapse::Curve(curve)));
    }
    if options.rules.adapt {
        all.push(Strategy { adapt: true, ..strategy(format!("{base}+adaptive"), law) });
    }
    all.extend(options.caches.choices().map(|choice| Strategy {
        name: format!("{base}+collapse+{}", options.caches.name(&choice)),
        collapse: law,
        adapt: false,
        predicted: false,
        cache: Some(choice),
    }));
    all
}

/// Of some strategies those that collapse by the law, asking for what is predicted.
pub(super) fn predicted(all: &[Strategy]) -> Vec<Strategy> {
    let by_law = |of: &&Strategy| matches!(of.collapse, Collapse::Law(_)) && !of.adapt;
    let predicted = |of: &Strategy| Strategy {
        name: format!("{}+predicted", of.name),
        predicted: true,
        ..of.clone()
    };
    all.iter().filter(by_law).map(predicted).collect()
}
