//! The rows of a comparison, and how they come from what was counted.

use std::path::PathBuf;

use anyhow::Result;
use lnp_engine::{Collapse, FetchStats};
use serde::Serialize;

use super::calibrate::Calibrated;
use super::options::{CacheState, ReplayOptions};
use super::record::{LongTurn, Record};
use lnp_common::report::quantile;
use lnp_device::LawText;
use lnp_pack::PackIndex;

/// The name of [`super::belady`] among the policies.
pub(super) const BELADY: &str = "belady";

/// Microseconds per token.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Times {
    /// Mean over the tokens.
    pub mean: f64,
    /// Median over the tokens.
    pub p50: f64,
    /// 99th percentile over the tokens.
    pub p99: f64,
}

impl Times {
    pub(super) fn of(mut times: Vec<f64>) -> Self {
        Self {
            mean: times.iter().sum::<f64>() / times.len().max(1) as f64,
            p50: quantile(&mut times, 0.5),
            p99: quantile(&mut times, 0.99),
        }
    }
}

/// What turns of seconds took, and how that compares with the law of the device profile.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sustained {
    /// Turns.
    pub turns: usize,
    /// Measured / predicted - 1, for the median of the turns.
    pub error: f64,
    /// (Longest - shortest turn) / median, per token; none of one turn.
    pub turn_spread: Option<f64>,
}

impl Sustained {
    fn of(turns: &[LongTurn], predicted_us: f64) -> Option<Self> {
        let of = |p| quantile(&mut turns.iter().map(LongTurn::us).collect::<Vec<_>>(), p);
        (!turns.is_empty() && predicted_us > 0.0).then(|| Self {
            turns: turns.len(),
            error: of(0.5) / predicted_us - 1.0,
            turn_spread: (turns.len() > 1).then(|| (of(1.0) - of(0.0)) / of(0.5).max(1e-9)),
        })
    }
}

/// A law that adaptive collapse believed, and from when on.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Belief {
    /// Seconds since the replay began, by the device's clock.
    pub seconds: f64,
    /// Batches of reads before it.
    pub batches: u64,
    /// The law: its gap and form are up to date, its single numbers may lag behind.
    pub law: LawText,
    /// Holes below this many bytes are read through under it.
    pub gap_bytes: u64,
}

/// One layer's part of a row.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LayerRow {
    /// Active bundles per token.
    pub active_bundles_per_token: f64,
    /// Reads per token.
    pub reads_per_token: f64,
    /// Bundles read per run of adjacent slots.
    pub bundles_per_run: f64,
}

/// One line of the comparison; the names are a contract.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was done, in short.
    pub strategy: String,
    /// Order of the pack.
    pub order: String,
    /// The pack file, or the links file where there is no pack.
    pub pack: PathBuf,
    /// Type of the bundles' weights, `placeholder` for none.
    pub dtype: String,
    /// Bytes of a bundle.
    pub bundle_bytes: u32,
    /// Placements of each layer, each batch read from the cheapest.
    pub placements: u32,
    /// Rule of access collapse.
    pub collapse: String,
    /// Times that there was nothing to do but wait for the device.
    pub waits_per_token: f64,
    /// Rule of the cache; `belady` for the best that any could do.
    pub cache_policy: String,
    /// Share of the bundles that it holds.
    pub cache_ratio: f64,
    /// `cold`: empty at the beginning; `warm`: everything was replayed once before.
    pub cache_state: CacheState,
    /// Reads in flight.
    pub queue_depth: u32,
    /// Tokens replayed.
    pub tokens: usize,
    /// Times that they were replayed.
    pub repeats: usize,
    /// Whether the time is the simulated device's or the law's, not a real one's.
    pub simulated: bool,
    /// Bundles asked for, cached or not: the active ones, or those that predictors name.
    pub active_bundles_per_token: f64,
    /// Share of the active bundles that was asked for, where that was what predictors name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    /// Bundles asked for of each active one, there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads_per_active: Option<f64>,
    /// Reads.
    pub reads_per_token: f64,
    /// Runs of adjacent slots among the bundles read.
    pub runs_per_token: f64,
    /// Holes that were read through.
    pub merges_per_token: f64,
    /// Bundles read per run.
    pub bundles_per_run: f64,
    /// Bytes read, block rounding and holes included.
    pub bytes_read_per_token: f64,
    /// Bytes of the active bundles that were read.
    pub useful_bytes_per_token: f64,
    /// Share of the active bundles found in the cache.
    pub hit_rate: f64,
    /// From submission to the last completion, summed over the layers; of turns of seconds, from the
    /// begin of a token to the begin of the next. Mean and percentiles are of the same tokens and times.
    pub io_us_per_token: Times,
    /// The same by the law.
    pub predicted_io_us_per_token: f64,
    /// The same by the law of this very replay; on a real device only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibrated: Option<Calibrated>,
    /// Turns of seconds, the middle one of which `io_us_per_token` is then of; only where turns were so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sustained: Option<Sustained>,
    /// What adaptive collapse believed: first what it was given, then each change; empty where nothing
    /// adapts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub beliefs: Vec<Belief>,
    /// Useful bytes over I/O time.
    pub effective_mib_s: f64,
    /// All bytes read over I/O time.
    pub device_mib_s: f64,
    /// All active bytes at the law's bandwidth.
    pub bound_io_us_per_token: f64,
    /// By layer of the model.
    pub layers: Vec<LayerRow>,
}

impl Row {
    /// Whether it is the best that any cache could do: computed, not measured.
    pub fn is_belady(&self) -> bool {
        self.cache_policy == BELADY
    }
}

/// What a row is of.
pub(super) struct Label {
    pub(super) strategy: String,
    pub(super) collapse: Collapse,
    pub(super) adapt: bool,
    pub(super) cache_policy: &'static str,
    pub(super) cache_ratio: f64,
    pub(super) cache_state: CacheState,
    pub(super) simulated: bool,
    pub(super) calibrated: Option<Calibrated>,
    /// Recall and reads for each active bundle, where predicted sets were read.
    pub(super) judged: Option<(f64, f64)>,
    pub(super) beliefs: Vec<Belief>,
}

/// The row of what was counted.
pub(super) fn row(
    record: &Record,
    label: Label,
    index: &PackIndex,
    options: &ReplayOptions,
) -> Result<Row> {
    let pack = index.pack()?;
    let tokens = record.tokens().max(1) as f64;
    let mut total = FetchStats::default();
    record.layers.iter().for_each(|stats| total.add(stats));
    let times = Times::of(record.times());
    let mean = times.mean;
    let mib_s = |bytes: u64| {
        if mean > 0.0 { bytes as f64 / tokens / mean * 1e6 / lnp_engine::law::MIB } else { 0.0 }
    };
    let stride = pack.shape().bundle_stride;
    let ratio = |over: u64, under: u64| over as f64 / under.max(1) as f64;
    Ok(Row {
        strategy: label.strategy,
        order: pack.provenance().order().to_owned(),
        pack: index.path().to_owned(),
        dtype: pack.shape().dtype.name().to_owned(),
        bundle_bytes: stride,
        placements: pack.placements(),
        collapse: if label.adapt { "adaptive" } else { label.collapse.name() }.to_owned(),
        waits_per_token: total.waits as f64 / tokens,
        merges_per_token: total.merges as f64 / tokens,
        cache_policy: label.cache_policy.to_owned(),
        cache_ratio: label.cache_ratio,
        cache_state: label.cache_state,
        queue_depth: options.queue_depth,
        tokens: record.tokens(),
        repeats: record.times_us.first().map_or(0, Vec::len),
        simulated: label.simulated,
        active_bundles_per_token: total.active as f64 / tokens,
        recall: label.judged.map(|(recall, _)| recall),
        reads_per_active: label.judged.map(|(_, reads)| reads),
        reads_per_token: total.reads as f64 / tokens,
        runs_per_token: total.runs as f64 / tokens,
        bundles_per_run: ratio(total.active - total.hits, total.runs),
        bytes_read_per_token: total.bytes_read as f64 / tokens,
        useful_bytes_per_token: total.useful_bytes as f64 / tokens,
        hit_rate: ratio(total.hits, total.active),
        predicted_io_us_per_token: record.predicted_us / tokens,
        calibrated: label.calibrated,
        beliefs: label.beliefs,
        sustained: Sustained::of(&record.turns, record.predicted_us / tokens),
        effective_mib_s: mib_s(total.useful_bytes),
        device_mib_s: mib_s(total.bytes_read),
        bound_io_us_per_token: options.law.transfer_us(total.active * u64::from(stride)) / tokens,
        layers: record
            .layers
            .iter()
            .map(|stats| LayerRow {
                active_bundles_per_token: stats.active as f64 / tokens,
                reads_per_token: stats.reads as f64 / tokens,
                bundles_per_run: ratio(stats.active - stats.hits, stats.runs),
            })
            .collect(),
        io_us_per_token: times,
    })
}
