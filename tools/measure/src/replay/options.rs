//! What a replay compares, and how: caches, rules of collapse, turns.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lnp_engine::law::Curve;
use lnp_engine::{CachePolicy, DeviceLaw};
use lnp_format::Pack;
use serde::Serialize;

/// Settings of a replay.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// The law that plans are made and times predicted with.
    pub law: DeviceLaw,
    /// The caches to compare.
    pub caches: Caches,
    /// Rules of collapse beside the law's.
    pub rules: Rules,
    /// Reads in flight.
    pub queue_depth: u32,
    /// Times that everything is replayed; a token's time is the median.
    pub repeats: usize,
    /// Turns at least so long, for a real device that does not keep up its bursts ([`super::sustained`]);
    /// `None`: of a few tokens.
    pub turn: Option<Duration>,
    /// Ends the replay early, after whole turns of all strategies.
    pub time_max: Option<Duration>,
    /// Tokens that are replayed once more afterwards, each read of which is recorded.
    pub timeline_tokens: Option<usize>,
}

/// How full a cache is at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheState {
    /// Empty.
    Cold,
    /// Everything was replayed once before.
    Warm,
}

impl CacheState {
    /// Its name in tables; JSON has the same.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

/// The cache policy of a name.
///
/// # Errors
/// There is none of that name; the message says which there are.
pub fn policy_named(name: &str) -> Result<CachePolicy> {
    let known = || CachePolicy::ALL.map(CachePolicy::name).join(", ");
    CachePolicy::from_name(name)
        .with_context(|| format!("no cache policy `{name}`: there are {}", known()))
}

/// One cache.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheChoice {
    /// What it keeps.
    pub policy: CachePolicy,
    /// Share of the bundles that it holds.
    pub ratio: f64,
}

impl CacheChoice {
    /// Bundles that it holds of a pack.
    pub fn cells(&self, pack: &Pack<'_>) -> u32 {
        cells(pack, self.ratio)
    }
}

/// Bundles that a share of a pack's is.
pub(super) fn cells(pack: &Pack<'_>, ratio: f64) -> u32 {
    (pack.shape().bundles() as f64 * ratio).round() as u32
}

/// The caches that a replay compares: each policy at each ratio.
#[derive(Debug, Clone)]
pub struct Caches {
    /// The policies; [`CachePolicy::None`] adds nothing to the strategies without a cache.
    pub policies: Vec<CachePolicy>,
    /// Shares of the bundles; 0 adds nothing either.
    pub ratios: Vec<f64>,
    /// Whether each is shown warm too.
    pub warm: bool,
    /// Whether the best that any cache could do is computed.
    pub belady: bool,
}

impl Caches {
    /// The engine's default policy, cold.
    pub fn default_of(ratio: f64) -> Self {
        let policies = vec![CachePolicy::default()];
        Self { policies, ratios: vec![ratio], warm: false, belady: false }
    }

    /// The states that rows are made of.
    pub fn states(&self) -> &'static [CacheState] {
        if self.warm { &[CacheState::Cold, CacheState::Warm] } else { &[CacheState::Cold] }
    }

    /// Refuses what cannot be, and what would be shown twice under one name.
    pub(super) fn check(&self) -> Result<()> {
        for (at, ratio) in self.ratios.iter().enumerate() {
            ensure!((0.0..=1.0).contains(ratio), "a cache ratio of {ratio}: 0 to 1 is possible");
            ensure!(!self.ratios[..at].contains(ratio), "a cache ratio of {ratio} is given twice");
        }
        for (at, policy) in self.policies.iter().enumerate() {
            let twice = self.policies[..at].contains(policy);
            ensure!(!twice, "cache policy {} is given twice", policy.name());
        }
        Ok(())
    }

    /// Ratios that make a cache.
    pub(super) fn ratios_above_0(&self) -> impl Iterator<Item = f64> + '_ {
        self.ratios.iter().copied().filter(|ratio| *ratio > 0.0)
    }

    pub(super) fn choices(&self) -> impl Iterator<Item = CacheChoice> + '_ {
        self.ratios_above_0().flat_map(|ratio| {
            let policies = self.policies.iter().filter(|policy| **policy != CachePolicy::None);
            policies.map(move |policy| CacheChoice { policy: *policy, ratio })
        })
    }

    /// Its part of a strategy's name: `cache`, or the policy where several are compared; and the
    /// ratio, where several are.
    pub(super) fn name(&self, choice: &CacheChoice) -> String {
        let policies = self.policies.iter().filter(|policy| **policy != CachePolicy::None);
        let policy = if policies.count() > 1 { choice.policy.name() } else { "cache" };
        format!("{policy}{}", self.ratio_name(choice.ratio))
    }

    /// ` 5 %`, where several ratios are compared.
    pub(super) fn ratio_name(&self, ratio: f64) -> String {
        let percent = (ratio * 1e8).round() / 1e6;
        if self.ratios_above_0().count() > 1 { format!(" {percent} %") } else { String::new() }
    }

    /// The name of a row: that of its strategy, and the cache's state where both are shown.
    pub(super) fn in_state(&self, name: &str, cached: bool, state: CacheState) -> String {
        match cached && self.warm {
            true => format!("{name} {}", state.name()),
            false => name.to_owned(),
        }
    }
}

/// Rules of collapse that are compared beside that of the law.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// The published rule: holes smaller than so many bytes.
    pub gap_bytes: Option<u64>,
    /// A measured curve of the device, at the queue depth of the replay.
    pub curve: Option<Curve>,
    /// The law is where the engine begins; it learns the device's own.
    pub adapt: bool,
}
