//! `lnp synth --traces`.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::{Args, SplitName};
use lnp_common::files::{check_room, check_target};
use lnp_common::report::{plain, print, print_json, progress, say, shown, table, thousands};
use lnp_link::Profile;
use lnp_link::synth::compare::{Compared, compare};
use lnp_link::synth::statistics::{NAMES, Statistics, TracedLayer, mean};
use lnp_link::synth::{LayerFit, Split, SynthShape, Synthesis};

/// What is to be made, where from and where to.
pub(super) struct Wanted<'a> {
    pub(super) args: &'a Args,
    pub(super) layers: u32,
    pub(super) neurons: u32,
    pub(super) output: &'a Path,
}

pub(super) fn run(wanted: &Wanted<'_>) -> Result<()> {
    let (args, output) = (wanted.args, wanted.output);
    let inputs: Vec<&Path> = args.traces.iter().map(PathBuf::as_path).collect();
    check_target(output, &inputs)?;
    let real = Profile::open(&args.traces)?;
    ensure!(!real.is_synthetic(), "a trace of --traces is synthetic itself: learn from real ones");
    let shape = SynthShape {
        layers: wanted.layers as usize,
        neurons: wanted.neurons as usize,
        tokens: args.tokens as usize,
        active: args.active,
    };
    check_room(output, shape.trace_bytes()?)?;
    let split = match args.split {
        None => Split::All,
        Some(SplitName::Profile) => Split::Profile,
        Some(SplitName::Test) => Split::Test,
    };
    let synthesis = Synthesis::new(&real, shape, args.seed)?;
    let bar = progress("writing", shape.layers as u64);
    let written = synthesis.write(output, split, |layer, bits| {
        let layer_of = TracedLayer { bits, neurons: shape.neurons, window: real.window() };
        let statistics = if args.unmeasured {
            [None; NAMES.len()]
        } else {
            layer_of.statistics(synthesis.sample_stream(layer))?
        };
        bar.inc(1);
        Ok(statistics)
    })?;
    bar.finish_and_clear();
    let mut compared = Vec::new();
    if !args.unmeasured {
        let bar = progress("comparing", real.layers() as u64);
        compared = compare(&real, args.seed, || bar.inc(1))?;
        bar.finish_and_clear();
    }
    report(wanted, &real, &written, &compared)
}

fn report(
    wanted: &Wanted<'_>,
    real: &Profile,
    written: &[(LayerFit, Statistics)],
    compared: &[Compared],
) -> Result<()> {
    let args = wanted.args;
    let column =
        |of: &dyn Fn(&Compared) -> Statistics| mean(&compared.iter().map(of).collect::<Vec<_>>());
    let columns = [
        ("real", column(&|layer| layer.real)),
        ("synthetic_same_shape", column(&|layer| layer.same_shape)),
        ("synthetic_from_half", column(&|layer| layer.from_half)),
        ("synthetic_written", mean(&written.iter().map(|(_, told)| *told).collect::<Vec<_>>())),
    ];
    if args.json {
        return print_json(&as_json(wanted, real, written, compared, &columns));
    }
    let (layers, neurons) = (thousands(wanted.layers.into()), thousands(wanted.neurons.into()));
    let tokens = thousands(args.tokens.into());
    say(&format!(
        "{}: synthetic, {layers} layers of {neurons} neurons, {tokens} tokens, like {} on {}\n",
        shown(wanted.output),
        plain(real.model()),
        plain(&real.corpora().join(", "))
    ));
    if args.unmeasured {
        return Ok(());
    }
    let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.4}"));
    let row = |(place, name): (usize, &&str)| {
        let values = columns.iter().map(|(_, statistics)| number(statistics[place]));
        std::iter::once((*name).to_owned()).chain(values).collect()
    };
    let rows: Vec<Vec<String>> = NAMES.iter().enumerate().map(row).collect();
    let head = ["mean over layers", "real", "synthetic", "from half", "synthetic, written"];
    print(&table(&head, &rows, 1))
}

fn as_json(
    wanted: &Wanted<'_>,
    real: &Profile,
    written: &[(LayerFit, Statistics)],
    compared: &[Compared],
    columns: &[(&str, Statistics)],
) -> serde_json::Value {
    let args = wanted.args;
    let named = |statistics: &Statistics| -> serde_json::Map<String, serde_json::Value> {
        let entries = NAMES.iter().zip(statistics);
        entries.map(|(name, value)| ((*name).to_owned(), (*value).into())).collect()
    };
    let means: serde_json::Map<_, _> = columns
        .iter()
        .map(|(name, statistics)| ((*name).to_owned(), named(statistics).into()))
        .collect();
    let by_real_layer: Vec<_> = compared
        .iter()
        .map(|layer| {
            serde_json::json!({
                "real": named(&layer.real), "synthetic_same_shape": named(&layer.same_shape),
                "synthetic_from_half": named(&layer.from_half),
            })
        })
        .collect();
    let layers: Vec<_> = written
        .iter()
        .map(|(fit, statistics)| {
            serde_json::json!({
                "real_layer": fit.real_layer, "mix": fit.mix, "statistics": named(statistics),
            })
        })
        .collect();
    serde_json::json!({
        "trace": wanted.output, "synthetic": true, "model": real.model(), "traces": real.sources,
        "corpora": real.corpora(), "layers": wanted.layers, "neurons": wanted.neurons,
        "tokens": args.tokens, "active": args.active, "seed": args.seed,
        "mean_over_layers": means, "by_real_layer": by_real_layer, "by_written_layer": layers,
    })
}
