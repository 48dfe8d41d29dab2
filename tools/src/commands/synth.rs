//! `lnp synth`: traces and models that are made up.

mod check;
mod models;
mod traces;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ArgGroup;
use lnp_synth::shapes::{SHAPES, Shape, shape_named};

/// Make a synthetic trace of any shape with the statistics of real ones, or a synthetic model
///
/// --traces: to plan for models larger than those at hand: link the trace, replay it. The table says
/// how well it matches: the real layers, synthetic ones of the same shape, the same learned from half
/// of the neurons only (what widening costs), and what was written. Numbers are means over layers;
/// orders are made from half of the windows and tried on the other half.
///
/// --model: a model folder of a real model's shape and files, its weights drawn so that the neurons are
/// active as those of real ReLU models are: to measure what it would cost where it cannot be had. It
/// speaks made-up words. --check says how well its traces match those of the real models.
///
/// Neither is a recording of any model: metadata, corpus and every table made from it say synthetic.
///
/// Example: lnp synth --traces a.trace --layers 32 --neurons 16384 --active 0.03 -o big.trace
/// Example: lnp synth --model opt-6.7b -o synthetic-opt-6.7b
/// Example: lnp synth --check test.trace
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
#[command(group(ArgGroup::new("what").args(["traces", "model", "check"]).required(true)))]
pub(super) struct Args {
    /// Real traces to learn a trace from; several are taken together
    #[arg(long, value_name = "FILE", num_args = 1.., requires_all = ["layers", "neurons", "output"])]
    traces: Vec<PathBuf>,
    /// Make a model of this shape: opt-125m, opt-350m, opt-1.3b, opt-6.7b, llama-2-7b, mistral-7b and others; an unknown
    /// name lists them
    #[arg(long, value_name = "NAME", value_parser = shape, requires = "output")]
    model: Option<&'static Shape>,
    /// Tell the statistics of a trace, beside those of the real models
    #[arg(long, value_name = "TRACE")]
    check: Option<PathBuf>,
    /// Layers of the synthetic trace; each is like the real layer at the same relative depth. Of a model: only so many, the
    /// first ones [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    layers: Option<u32>,
    /// Neurons a layer of the trace
    #[arg(long, value_name = "N", requires = "traces", value_parser = clap::value_parser!(u32).range(1..))]
    neurons: Option<u32>,
    /// Mean share of the neurons that are active [default: as in the real traces; of a model: as published of it]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    active: Option<f64>,
    /// Tokens of the trace to make
    #[arg(long, value_name = "N", default_value_t = 20_000, conflicts_with_all = ["model", "check"],
          value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Type of the model's weights
    #[arg(long, value_name = "TYPE", value_enum, default_value_t, requires = "model")]
    dtype: WeightTypeName,
    /// The same seed makes the same neurons, and with all else the same, the same files
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// profile or test: of the same neurons, from every other window of the real traces each, to
    /// make an order from one and judge it on the other [default: from all windows]
    #[arg(long, value_name = "NAME", value_enum, requires = "traces")]
    split: Option<SplitName>,
    /// Only write the trace: do not measure how well it matches
    #[arg(long, requires = "traces")]
    unmeasured: bool,
    /// The trace, or the model folder, to write
    #[arg(short, long, value_name = "PATH", conflicts_with = "check")]
    output: Option<PathBuf>,
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

/// The values of `--dtype`.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum WeightTypeName {
    #[default]
    F16,
    Bf16,
    F32,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("must be a share above 0 and below 1".into()),
    }
}

fn shape(name: &str) -> Result<&'static Shape> {
    let names: Vec<&str> = SHAPES.iter().map(|shape| shape.name).collect();
    shape_named(name).with_context(|| format!("no such shape; there are: {}", names.join(", ")))
}

pub(super) fn run(args: &Args) -> Result<()> {
    if let Some(trace) = &args.check {
        return check::run(trace, args.json);
    }
    // clap asks for it, and below for the others
    let output = args.output.as_deref().unwrap_or(Path::new(""));
    if let Some(shape) = args.model {
        return models::run(args, shape, output);
    }
    let [layers, neurons] = [args.layers, args.neurons].map(Option::unwrap_or_default);
    traces::run(&traces::Wanted { args, layers, neurons, output })
}
