//! `lnp synth --check`.

use std::path::Path;

use anyhow::{Context, Result};
use rayon::prelude::*;

use lnp_common::report::{print, print_json, progress, table};
use lnp_link::synth::sample_stream;
use lnp_link::synth::statistics::{NAMES, Statistics, TracedLayer, mean};
use lnp_link::trace::TraceReader;

/// The same of the traces of the two real models, `alpaca.profile.safetensors` of 12,288 tokens each: means over their
/// 6 layers, by `lnp synth --check`.
#[rustfmt::skip]
const REAL: [(&str, [f64; NAMES.len()]); 2] = [
    ("opt-relu-small", [
        0.0731, 0.0438, 0.1097,
        0.0047, 0.0177, 0.0472, 0.1035, 0.1793, 0.3436,
        0.0582, 0.8092, 3.9237, 10.0865,
        0.4554, 0.1859, 0.3800, 0.5761,
        0.2563, 0.2076, 1.0970, 2.2579, 2.0461,
    ]),
    ("llama-relu-small", [
        0.1385, 0.0833, 0.2021,
        0.0381, 0.0589, 0.1059, 0.1807, 0.2816, 0.5664,
        0.3847, 1.2322, 3.3607, 7.2198,
        0.4446, 0.1094, 0.3274, 0.5001,
        0.3780, 0.3158, 1.2098, 2.2767, 1.8664,
    ]),
];

pub(super) fn run(path: &Path, json: bool) -> Result<()> {
    let trace = TraceReader::open(path)?;
    let bar = progress("measuring", trace.layers() as u64);
    let layers: Vec<Result<Statistics>> = (0..trace.layers())
        .into_par_iter()
        .map(|layer| {
            let bits = trace.layer_bits(layer)?;
            let of = TracedLayer { bits: &bits, neurons: trace.neurons(), window: trace.window() };
            let statistics = of.statistics_with_runs(sample_stream(0, layer));
            bar.inc(1);
            statistics.with_context(|| path.display().to_string())
        })
        .collect();
    bar.finish_and_clear();
    let layers: Vec<Statistics> = layers.into_iter().collect::<Result<_>>()?;
    let all = mean(&layers);
    if json {
        let named = |values: &Statistics| -> serde_json::Map<String, serde_json::Value> {
            NAMES
                .iter()
                .zip(values)
                .map(|(name, value)| ((*name).to_owned(), (*value).into()))
                .collect()
        };
        let real: serde_json::Map<String, serde_json::Value> = REAL
            .iter()
            .map(|(model, values)| ((*model).to_owned(), named(&values.map(Some)).into()))
            .collect();
        return print_json(&serde_json::json!({
            "trace": path, "model": trace.model(), "synthetic": trace.is_synthetic(), "tokens": trace.tokens(),
            "mean_over_layers": named(&all), "layers": layers.iter().map(named).collect::<Vec<_>>(), "real": real,
        }));
    }
    let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.4}"));
    let rows: Vec<Vec<String>> = NAMES
        .iter()
        .enumerate()
        .map(|(place, name)| {
            let real = REAL.iter().map(|(_, values)| number(Some(values[place])));
            let found = std::iter::once(number(all[place]));
            std::iter::once((*name).to_owned()).chain(real).chain(found).collect()
        })
        .collect();
    let head = ["mean over layers", REAL[0].0, REAL[1].0, trace.model().unwrap_or("this trace")];
    print(&table(&head, &rows, 1))
}
