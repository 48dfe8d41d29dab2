//! `lnp synth`.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use lnp_common::files::{check_room, check_target};
use lnp_common::report::{plain, print, print_json, progress, say, shown, table, thousands};
use lnp_link::Profile;
use lnp_link::synth::compare::{Compared, compare};
use lnp_link::synth::statistics::{NAMES, Statistics, TracedLayer, mean};
use lnp_link::synth::{LayerFit, Split, SynthShape, Synthesis};

/// Make a synthetic trace of any shape with the statistics of real ones
///
/// To plan for models larger than those at hand: link it, replay it. It is no recording of any
/// model: its metadata, its corpus and every table made from it say synthetic. The table says how
/// well it matches: the real layers, synthetic ones of the same shape, the same learned from half of
/// the neurons only (what widening costs), and what was written. Numbers are means over layers;
/// orders are made from half of the windows and tried on the other half.
///
/// Example: lnp synth --traces a.trace --layers 32 --neurons 16384 --active 0.03 -o big.trace
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// Real traces to learn from; several are taken together
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    traces: Vec<PathBuf>,
    /// Layers of the synthetic model; each is like the real layer at the same relative depth
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    layers: u32,
    /// Neurons a layer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    neurons: u32,
    /// Mean share of the neurons that are active [default: as in the real traces]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    active: Option<f64>,
    /// Tokens to make
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// The same seed makes the same neurons, and with all else the same, the same file
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// profile or test: of the same neurons, from every other window of the real traces each, to
    /// make an order from one and judge it on the other [default: from all windows]
    #[arg(long, value_name = "NAME", value_enum)]
    split: Option<SplitName>,
    /// Only write the trace: do not measure how well it matches
    #[arg(long)]
    unmeasured: bool,
    /// The trace to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print the statistics as JSON
    #[arg(long)]
    json: bool,
}

/// The values of `--split`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SplitName {
    Profile,
    Test,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("must be a share above 0 and below 1".into()),
    }
}

pub(super) fn run(args: &Args) -> Result<()> {
    let inputs: Vec<&Path> = args.traces.iter().map(PathBuf::as_path).collect();
    check_target(&args.output, &inputs)?;
    let real = Profile::open(&args.traces)?;
    ensure!(!real.is_synthetic(), "a trace of --traces is synthetic itself: learn from real ones");
    let shape = SynthShape {
        layers: args.layers as usize,
        neurons: args.neurons as usize,
        tokens: args.tokens as usize,
        active: args.active,
    };
    check_room(&args.output, shape.trace_bytes()?)?;
    let split = match args.split {
        None => Split::All,
        Some(SplitName::Profile) => Split::Profile,
        Some(SplitName::Test) => Split::Test,
    };
    let synthesis = Synthesis::new(&real, shape, args.seed)?;
    let bar = progress("writing", shape.layers as u64);
    let written = synthesis.write(&args.output, split, |layer, bits| {
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
    report(args, &real, &written, &compared)
}

fn report(
    args: &Args,
    real: &Profile,
    written: &[(LayerFit, Statistics)],
    compared: &[Compared],
) -> Result<()> {
    let column =
        |of: &dyn Fn(&Compared) -> Statistics| mean(&compared.iter().map(of).collect::<Vec<_>>());
    let columns = [
        ("real", column(&|layer| layer.real)),
        ("synthetic_same_shape", column(&|layer| layer.same_shape)),
        ("synthetic_from_half", column(&|layer| layer.from_half)),
        ("synthetic_written", mean(&written.iter().map(|(_, told)| *told).collect::<Vec<_>>())),
    ];
    if args.json {
        return print_json(&as_json(args, real, written, compared, &columns));
    }
    let (layers, neurons) = (thousands(args.layers.into()), thousands(args.neurons.into()));
    let tokens = thousands(args.tokens.into());
    say(&format!(
        "{}: synthetic, {layers} layers of {neurons} neurons, {tokens} tokens, like {} on {}\n",
        shown(&args.output),
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
    args: &Args,
    real: &Profile,
    written: &[(LayerFit, Statistics)],
    compared: &[Compared],
    columns: &[(&str, Statistics)],
) -> serde_json::Value {
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
        "trace": args.output, "synthetic": true, "model": real.model(), "traces": real.sources,
        "corpora": real.corpora(), "layers": args.layers, "neurons": args.neurons,
        "tokens": args.tokens, "active": args.active, "seed": args.seed,
        "mean_over_layers": means, "by_real_layer": by_real_layer, "by_written_layer": layers,
    })
}
