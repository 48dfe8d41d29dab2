//! What takes time. Python's lock is given back meanwhile, and Ctrl-C is heard afterwards.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, ensure};
use lnp_common::files::{check_room, check_target};
use lnp_engine::CachePolicy;
use lnp_link::choose::{chosen_by, compare, contenders};
use lnp_link::trace::{TraceData, TraceReader};
use lnp_link::{Linking, Links, Objective, Order, PIN_DEFAULT, Profile};
use lnp_measure::replay::options::policy_named;
use lnp_measure::replay::{ActiveSets, Caches, ReplayOptions, Rules, Target, doubts};
use lnp_pack::PackIndex;
use pyo3::prelude::*;

use crate::law::DeviceLaw;
use crate::told;

/// Writes a trace; `layers` has the rows of each layer, ceil(neurons / 8) bytes a token.
#[pyfunction]
#[pyo3(signature = (path, layers, *, neurons, tokens, window, model, corpus, split, active, token_ids=None))]
#[expect(clippy::too_many_arguments, reason = "named ones, of a function for Python")]
pub(crate) fn write_trace(
    py: Python<'_>,
    path: PathBuf,
    layers: Vec<Vec<u8>>,
    neurons: usize,
    tokens: usize,
    window: usize,
    model: String,
    corpus: String,
    split: String,
    active: String,
    token_ids: Option<Vec<i64>>,
) -> PyResult<()> {
    let id = |id| {
        u32::try_from(id).map_err(|_| told(anyhow!("token id {id}: 0 to 2^31 - 1 are possible")))
    };
    let token_ids =
        token_ids.map(|ids| ids.into_iter().map(id).collect::<PyResult<_>>()).transpose()?;
    let data = TraceData {
        model,
        corpus,
        split,
        active,
        neurons,
        tokens,
        window,
        token_ids,
        inputs: None,
        predicted: None,
        synthetic: None,
        layers,
    };
    py.detach(|| lnp_link::trace::write_trace(&path, &data)).map_err(told)
}

/// Links traces into a links file.
#[pyfunction]
#[pyo3(signature = (traces, output, *, order, seed, pin, law, bundle_bytes, memory))]
#[expect(clippy::too_many_arguments, reason = "named ones, of a function for Python")]
pub(crate) fn link(
    py: Python<'_>,
    traces: Vec<PathBuf>,
    output: PathBuf,
    order: &str,
    seed: u64,
    pin: Option<f64>,
    law: Option<DeviceLaw>,
    bundle_bytes: u32,
    memory: u64,
) -> PyResult<()> {
    let law = law.map_or_else(DeviceLaw::usual, Ok)?.law();
    py.detach(|| {
        let objective = Objective { law, bundle_bytes };
        let order = match order {
            "best" => None,
            name => Some(match name.parse()? {
                Order::Random { .. } => Order::Random { seed },
                order => order,
            }),
        };
        let pin = pin.unwrap_or(order.map_or(PIN_DEFAULT, Order::pin_default));
        ensure!((0.0..=1.0).contains(&pin), "pin is {pin}: must be a share from 0 to 1");
        ensure!(bundle_bytes > 0, "bundle_bytes is 0: must be above");
        check_target(&output, &traces.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
        let profile = Profile::open(&traces)?.with_memory(memory);
        let least = profile.memory_min();
        ensure!(
            memory >= least || !order.is_none_or(Order::counts_pairs),
            "memory is {memory}: at least {least} bytes are needed for layers of {} neurons",
            profile.neurons()
        );
        let flash = order.map_or(1.0, Order::flash);
        check_room(&output, Links::file_bytes(profile.layers(), profile.neurons(), flash))?;
        let linking = match order {
            Some(order) => Linking { order, objective, pin },
            None => {
                let compared = compare(&profile, &contenders(objective, pin), pin, &|_| ())?;
                compared.first().context("no order to choose from")?.linking
            }
        };
        let mut links = linking.links(&profile, |_| ())?;
        if order.is_none() {
            links.notes.extend([chosen_by(pin)]);
        }
        links.write(&output)
    })
    .map_err(told)
}

/// Checks every byte of a pack.
#[pyfunction]
pub(crate) fn verify(py: Python<'_>, path: PathBuf) -> PyResult<()> {
    py.detach(|| lnp_pack::verify::verify_file(&path, None, &mut |_| ())).map_err(told)?;
    Ok(())
}

/// Replays a trace on the simulated device; rows as JSON, and what makes them doubtful.
#[pyfunction]
#[pyo3(signature = (trace, *, packs, links, bundle_bytes, law, cache_ratio, cache_policies, warm, gap, adapt,
                    predicted, tokens, repeats, queue_depth))]
#[expect(clippy::too_many_arguments, reason = "named ones, of a function for Python")]
pub(crate) fn replay(
    py: Python<'_>,
    trace: PathBuf,
    packs: Vec<PathBuf>,
    links: Vec<PathBuf>,
    bundle_bytes: Option<u32>,
    law: Option<DeviceLaw>,
    cache_ratio: Vec<f64>,
    cache_policies: Option<Vec<String>>,
    warm: bool,
    gap: Option<u64>,
    adapt: bool,
    predicted: bool,
    tokens: Option<usize>,
    repeats: u16,
    queue_depth: u32,
) -> PyResult<(String, Vec<String>)> {
    let law = law.map_or_else(DeviceLaw::usual, Ok)?.law();
    py.detach(|| {
        let several = cache_policies.is_some() || warm || cache_ratio.len() > 1;
        let caches = Caches {
            policies: policies(cache_policies)?,
            ratios: cache_ratio,
            warm,
            belady: several,
        };
        ensure!(repeats > 0, "repeats is 0: at least 1 is needed");
        let reader = TraceReader::open(&trace)?;
        let packs = open(&packs, &links, bundle_bytes)?;
        let mut sets = ActiveSets::of_trace(&reader, tokens.unwrap_or(usize::MAX))?;
        if predicted {
            sets = sets.with_predicted(&reader).with_context(|| trace.display().to_string())?;
        }
        let options = ReplayOptions {
            law,
            caches,
            rules: Rules { gap_bytes: gap, curve: None, adapt },
            queue_depth,
            repeats: repeats.into(),
            turn: None,
            time_max: None,
            timeline_tokens: None,
        };
        let replayed =
            lnp_measure::replay::replay(&packs, &sets, &Target::Simulated, &options, &mut |_| ())?;
        Ok((serde_json::to_string(&replayed.rows)?, doubts(&packs, &reader)?))
    })
    .map_err(told)
}

/// The indexes of packs, and of those that links would make.
fn open(packs: &[PathBuf], links: &[PathBuf], bundle_bytes: Option<u32>) -> Result<Vec<PackIndex>> {
    let mut indexes: Vec<PackIndex> =
        packs.iter().map(|path| PackIndex::open(path)).collect::<Result<_>>()?;
    for path in links {
        let bundle_bytes =
            bundle_bytes.context("links need bundle_bytes: the bytes of a bundle")?;
        indexes.push(PackIndex::of_links(path, &Links::read(path)?, bundle_bytes)?);
    }
    Ok(indexes)
}

fn policies(names: Option<Vec<String>>) -> Result<Vec<CachePolicy>> {
    let Some(names) = names else { return Ok(vec![CachePolicy::default()]) };
    names.iter().map(|name| policy_named(name)).collect()
}
