//! One page about a pack: what is in it, what its order does for reads and for the time that they take, what the device, the
//! cache and the predictors have to do with that. Simulated by a device law, so that the same pack, trace and law give
//! the same page.

mod baselines;
mod charts;
mod hits;
mod page;
mod sections;
mod tables;

use anyhow::{Context, Result};
use lnp_common::report::shown;
use lnp_device::LawText;
use lnp_engine::DeviceLaw;
use lnp_format::Pack;
use lnp_link::trace::TraceReader;
use lnp_link::{LayerActivity, Objective, Slots, price::Pricer};
use lnp_pack::PackIndex;
use lnp_pack::inspect::{Description, describe};
use serde::Serialize;

use crate::lengths::ReadLengths;
use crate::profile::DeviceProfile;
use crate::replay::{ActiveSets, Caches, ReplayOptions, Row, Rules, Target, replay};
use hits::HitsOverTokens;

/// The cache of the comparison: a share of the bundles.
const CACHE_RATIO: f64 = 0.05;
/// The caches that memory is weighed by.
const CACHE_RATIOS: [f64; 5] = [0.01, 0.02, 0.05, 0.1, 0.2];

/// What a page is made from.
pub struct Inputs<'a> {
    /// The packs that it is about: the first of them in every picture.
    pub packs: &'a [PackIndex],
    /// What is replayed: not a trace that the orders were made from.
    pub trace: &'a TraceReader,
    /// Its first tokens.
    pub tokens: usize,
    /// The device.
    pub law: DeviceLaw,
    /// Where the law is from.
    pub law_source: &'a str,
    /// The profile that the law is of, for its curve.
    pub profile: Option<&'a DeviceProfile>,
    /// Reads in flight.
    pub queue_depth: u32,
}

/// What a page says, in numbers.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The law that everything is simulated by.
    pub law: LawText,
    /// Where it is from.
    pub law_source: String,
    /// Holes below this many bytes are read through.
    pub gap_bytes: u64,
    /// The model, as the trace calls it.
    pub model: String,
    /// Tokens replayed.
    pub tokens: usize,
    /// Whether an order was made from this very trace: it looks better then than it is.
    pub same_trace: bool,
    /// SHA-256 of the trace.
    pub trace_sha256: String,
    /// Each pack: what `lnp inspect` says.
    pub packs: Vec<PackFacts>,
    /// Every strategy, as `lnp replay --simulate` has it.
    pub rows: Vec<Row>,
    /// The first pack with caches of several sizes.
    pub by_cache: Vec<Row>,
    /// Which share of the wanted bundles comes in reads of how many.
    pub read_lengths: Vec<Lengths>,
    /// Hits of several cache policies as they fill.
    pub hits: Vec<HitsOverTokens>,
    #[serde(skip)]
    maps: Option<Maps>,
    #[serde(skip)]
    curve: Vec<(f64, f64)>,
    #[serde(skip)]
    trace_told: String,
}

/// A pack.
#[derive(Debug, Serialize)]
pub struct PackFacts {
    /// Name of the file.
    pub file: String,
    /// Bytes of its index, which is in memory.
    pub index_bytes: usize,
    /// What is in it.
    pub description: Description,
}

/// How long the reads of an order are.
#[derive(Debug, Serialize)]
pub struct Lengths {
    /// The order.
    pub order: String,
    /// The least wanted bundles of a read, by powers of two, and the share of the wanted bundles in such, per cent.
    pub percents: Vec<(f64, f64)>,
}

/// Who is active with whom in a layer, in the model's order and in the first pack's.
#[derive(Debug)]
struct Maps {
    layer: usize,
    neurons: usize,
    before: Vec<f64>,
    after: Vec<f64>,
}

/// Makes a report; `progress` is told the share done.
///
/// # Errors
/// Packs and trace that do not belong together.
pub fn report(inputs: &Inputs<'_>, progress: &mut dyn FnMut(f64)) -> Result<Report> {
    let Inputs { packs, trace, law, .. } = *inputs;
    let sets = ActiveSets::of_trace(trace, inputs.tokens)?;
    let first = packs.first().context("no packs")?;
    let pack = first.pack()?;
    sets.copies(&pack).with_context(|| shown(first.path()))?;
    let mut all = baselines::baselines(packs, trace.layers())?;
    all.extend(packs.iter().map(PackIndex::clone));
    let options = |caches| ReplayOptions {
        law,
        caches,
        rules: Rules::default(),
        queue_depth: inputs.queue_depth,
        repeats: 1,
        turn: None,
        time_max: None,
        timeline_tokens: None,
    };
    let compared = options(Caches::default_of(CACHE_RATIO));
    let told = &mut |share: f64| progress(0.6 * share);
    let rows = replay(&all, &sets, &Target::Simulated, &compared, told)?.rows;
    let caches = Caches { ratios: CACHE_RATIOS.to_vec(), ..Caches::default_of(0.0) };
    let told = &mut |share: f64| progress(0.6 + 0.3 * share);
    let alone = std::slice::from_ref(first);
    let mut by_cache = replay(alone, &sets, &Target::Simulated, &options(caches), told)?.rows;
    by_cache.retain(|row| row.collapse != "off" && row.collapse != "whole");
    let read_lengths = all.iter().map(|index| lengths(index, &sets, law)).collect::<Result<_>>()?;
    let hits = hits::over_tokens(first, &sets, &compared, CACHE_RATIO)?;
    let made = Report {
        law: LawText::from(&law),
        law_source: inputs.law_source.to_owned(),
        gap_bytes: law.gap_bytes(),
        model: trace.model().unwrap_or("unknown model").to_owned(),
        tokens: sets.tokens(),
        same_trace: is_of(packs, &trace.sha256_hex()?)?,
        trace_sha256: trace.sha256_hex()?,
        packs: packs.iter().map(facts).collect::<Result<_>>()?,
        rows,
        by_cache,
        read_lengths,
        hits,
        maps: Some(maps(&pack, &sets)?),
        curve: curve(inputs),
        trace_told: told_of(trace),
    };
    progress(1.0);
    Ok(made)
}

fn facts(index: &PackIndex) -> Result<PackFacts> {
    let file = index.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (index_bytes, description) = (index.resident_bytes(), describe(&index.pack()?));
    Ok(PackFacts { file, index_bytes, description })
}

fn told_of(trace: &TraceReader) -> String {
    let synthetic = if trace.is_synthetic() { "SYNTHETIC " } else { "" };
    let corpus = trace.corpus().unwrap_or("unknown corpus");
    format!("{synthetic}{corpus}, which has {}", trace.tokens())
}

/// Whether one of the packs has its order from a trace.
fn is_of(packs: &[PackIndex], sha256: &str) -> Result<bool> {
    for index in packs {
        let pack = index.pack()?;
        let mut profile = pack.provenance().entries();
        if profile.any(|(key, value)| key.starts_with("profile.trace.") && value == sha256) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where the neurons of a layer stand, in each placement.
fn slots(pack: &Pack<'_>, layer: u32) -> Vec<Slots> {
    let views = (0..pack.placements()).filter_map(|placement| pack.placement(layer, placement));
    let ids = |view: &lnp_format::Layer<'_>| -> Vec<u32> {
        view.neuron_of_slot().iter().map(|id| id.get()).collect()
    };
    views.map(|view| Slots::of_order(&ids(&view), pack.shape().neurons as usize)).collect()
}

fn lengths(index: &PackIndex, sets: &ActiveSets, law: DeviceLaw) -> Result<Lengths> {
    let pack = index.pack()?;
    let objective = Objective { law, bundle_bytes: pack.shape().bundle_stride };
    let mut pricer = Pricer::new(&objective, pack.shape().slots as usize);
    let mut found = ReadLengths::default();
    for layer in 0..sets.layers() {
        let slots = slots(&pack, layer as u32);
        for token in 0..sets.tokens() {
            found.add(&mut pricer, &sets.active_ids(layer, token), &slots);
        }
    }
    let order = pack.provenance().order().to_owned();
    Ok(Lengths { order, percents: found.percents() })
}

/// Of the middle layer.
fn maps(pack: &Pack<'_>, sets: &ActiveSets) -> Result<Maps> {
    let (layer, neurons) = (sets.layers() / 2, pack.shape().neurons as usize);
    let activity = LayerActivity::from_bits(neurons, &[(sets.bits(layer), sets.tokens())])?;
    let side = charts::map_side(neurons);
    let model_order: Vec<u32> = (0..neurons as u32).collect();
    let placed = slots(pack, layer as u32);
    let shades = |slots: &[u32]| crate::study::pictures::shades(&activity, slots, side);
    let before = shades(&model_order);
    let after = placed.first().map_or_else(|| before.clone(), |placed| shades(placed.first()));
    Ok(Maps { layer, neurons, before, after })
}

/// The measured curve at the queue depth: bytes of a read and microseconds; empty where there is none.
fn curve(inputs: &Inputs<'_>) -> Vec<(f64, f64)> {
    let curves = inputs.profile.map_or(&[][..], |profile| &profile.curves);
    let Some(curve) = curves.iter().find(|curve| curve.depth == inputs.queue_depth) else {
        return Vec::new();
    };
    curve.read_bytes.iter().map(|bytes| f64::from(*bytes)).zip(curve.read_us.clone()).collect()
}
