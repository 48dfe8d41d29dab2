//! `lnp link`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::device::DeviceProfile;
use crate::files::check_target;
use crate::links::{LayerActivity, Links, Order, TraceSource, link_layers, stats::LinkStatistics};
use crate::report::{plain, print_json, progress, say, table, thousands};
use crate::trace::TraceReader;

/// Learn from traces in which order to lay out each layer's neurons
///
/// Example: lnp link --traces profile.trace.safetensors -o links.safetensors
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Traces to learn from; several are taken together
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    traces: Vec<PathBuf>,
    /// identity, random, frequency or greedy
    #[arg(long, value_name = "NAME", default_value = "greedy")]
    order: Order,
    /// Seed of the random order
    #[arg(long, default_value_t = Order::SEED_DEFAULT)]
    seed: u64,
    /// Device profile for orders that weigh device time (none of today's does)
    #[arg(long, value_name = "FILE")]
    device: Option<PathBuf>,
    /// The links file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print link statistics as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    if let Some(device) = &args.device {
        DeviceProfile::read(device)?;
    }
    let inputs: Vec<&Path> = args.traces.iter().map(PathBuf::as_path).collect();
    check_target(&args.output, &inputs)?;
    let order = match args.order {
        Order::Random { .. } => Order::Random { seed: args.seed },
        other => other,
    };
    let links = link_traces(&args.traces, order)?;
    links.write(&args.output)?;
    summarise(&links, &args.output, args.json)
}

/// Links traces of one model, layers in parallel, with a progress bar.
pub(super) fn link_traces(paths: &[PathBuf], order: Order) -> Result<Links> {
    let traces: Vec<TraceReader> =
        paths.iter().map(|path| TraceReader::open(path)).collect::<Result<_>>()?;
    let first = traces.first().context("no traces")?;
    for (path, trace) in paths.iter().zip(&traces) {
        ensure!(
            (trace.layers(), trace.neurons()) == (first.layers(), first.neurons()),
            "{}: {} layers of {} neurons, {} has {} of {}: link one model's traces at a time",
            path.display(),
            trace.layers(),
            trace.neurons(),
            paths[0].display(),
            first.layers(),
            first.neurons()
        );
        ensure!(
            trace.model() == first.model(),
            "{}: a trace of model {}, {} is of {}: link one model's traces at a time",
            path.display(),
            trace.model().unwrap_or("unknown"),
            paths[0].display(),
            first.model().unwrap_or("unknown")
        );
    }
    let bar = progress("linking", first.layers() as u64);
    let activity_of = |layer| {
        let bits: Vec<Vec<u8>> =
            traces.iter().map(|trace| trace.layer_bits(layer)).collect::<Result<_>>()?;
        let slices: Vec<(&[u8], usize)> = bits
            .iter()
            .zip(&traces)
            .map(|(bits, trace)| (bits.as_slice(), trace.tokens()))
            .collect();
        LayerActivity::from_bits(first.neurons(), &slices)
    };
    let layers = link_layers(order, first.layers(), activity_of, |_| bar.inc(1))?;
    bar.finish_and_clear();
    Ok(Links {
        order,
        neurons: first.neurons(),
        profile_tokens: traces.iter().map(|trace| trace.tokens() as u64).sum(),
        corpora: traces.iter().map(corpus_of).collect(),
        model: first.model().unwrap_or("unknown").to_owned(),
        traces: paths.iter().map(|path| TraceSource::of_file(path)).collect::<Result<_>>()?,
        tool: Links::this_tool(),
        layers,
    })
}

fn corpus_of(trace: &TraceReader) -> String {
    match trace.corpus() {
        Some(corpus) if !corpus.is_empty() => corpus.replace(',', " "),
        _ => "unknown".to_owned(),
    }
}

fn summarise(links: &Links, output: &Path, json: bool) -> Result<()> {
    let statistics: Vec<LinkStatistics> = links.layers.iter().map(LinkStatistics::of).collect();
    if json {
        let layers: Vec<_> = statistics
            .iter()
            .map(|s| {
                serde_json::json!({
                    "links": s.links, "longest": s.longest, "median": s.median, "mean": s.mean,
                    "singles": s.singles,
                })
            })
            .collect();
        return print_json(&serde_json::json!({
            "links": output, "order": links.order.name(), "model": links.model,
            "corpora": links.corpora, "profile_tokens": links.profile_tokens,
            "neurons": links.neurons, "layers": layers,
        }));
    }
    let rows: Vec<Vec<String>> = statistics
        .iter()
        .enumerate()
        .map(|(layer, s)| {
            vec![
                layer.to_string(),
                thousands(s.links as f64),
                thousands(s.longest.into()),
                format!("{:.1}", s.mean),
                thousands(s.singles as f64),
            ]
        })
        .collect();
    say(&table(&["layer", "links", "longest", "mean", "single neurons"], &rows, 0));
    say(&format!(
        "{}: {} order from {} tokens of {}\n",
        output.display(),
        links.order,
        thousands(links.profile_tokens as f64),
        plain(&links.corpora.join(", "))
    ));
    Ok(())
}
