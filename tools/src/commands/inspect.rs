//! `lnp inspect`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;

use lnp_common::report::{bytes, plain, print, print_json, table, thousands};
use lnp_model::gguf::inspect as gguf;
use lnp_model::gguf::powerinfer::PowerInfer;
use lnp_pack::PackIndex;
use lnp_pack::inspect::{Description, LayerDescription, PredictorDescription, describe};

/// The quality whose operating point the table shows.
const QUALITY_SHOWN: f64 = 0.99;

/// Say what a pack holds: shape, sections, links per layer, predictors, provenance; of a GGUF file, what is in it
/// and whether lnp can use it
///
/// Example: lnp inspect opt.lnp
/// Example: lnp inspect model.gguf
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pack, or a GGUF file
    #[arg(value_name = "FILE")]
    pack: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    if let Some(description) = gguf::describe(&args.pack)? {
        if args.json {
            return print_json(&description);
        }
        return print(&render_gguf(&description)?);
    }
    let index = PackIndex::open(&args.pack)?;
    let description = describe(&index.pack()?);
    if args.json {
        return print_json(&description);
    }
    print(&render(&description)?)
}

fn render(pack: &Description) -> Result<String> {
    let shape = &pack.shape;
    let mut out = String::new();
    writeln!(out, "linked neuron pack, version {}.{}", pack.version[0], pack.version[1])?;
    writeln!(
        out,
        "{}, of it {} index; blocks of {} bytes; {} sections",
        bytes(pack.file_bytes as f64),
        bytes(pack.index_bytes as f64),
        pack.block_bytes,
        pack.sections.len()
    )?;
    writeln!(
        out,
        "{} layers of {} neurons, hidden size {}, {} parts, {}, {}: bundles of {} bytes\n",
        shape.layers,
        thousands(shape.neurons.into()),
        thousands(shape.hidden.into()),
        shape.parts,
        shape.activation,
        shape.dtype,
        thousands(shape.bundle_stride.into())
    )?;
    if let Some(resident) = pack.sections.iter().find(|at| at.kind == "resident") {
        writeln!(out, "with the rest of the model, {}\n", bytes(resident.bytes as f64))?;
    }
    for (layers, activation) in other_activations(pack) {
        writeln!(out, "{activation} instead in {layers}\n")?;
    }
    if pack.placements > 1 {
        let placements = pack.placements;
        writeln!(
            out,
            "{placements} placements of each layer: {placements} times the bundles; below, the first\n"
        )?;
    }
    let slots: u64 = pack.layers.iter().map(|layer| u64::from(layer.slots)).sum();
    let neurons = u64::from(shape.layers) * u64::from(shape.neurons);
    if slots > neurons {
        let (copies, flash) = (thousands((slots - neurons) as f64), slots as f64 / neurons as f64);
        writeln!(out, "{copies} copies of bundles: {flash:.2} times the flash\n")?;
    }
    let rows: Vec<Vec<String>> = pack
        .layers
        .iter()
        .map(|layer| {
            let possible = layer.profile_tokens as f64 * f64::from(shape.neurons);
            vec![
                layer.layer.to_string(),
                thousands(layer.links.into()),
                thousands(layer.longest_link.into()),
                thousands(layer.single_links.into()),
                thousands(layer.model_order_pairs.into()),
                format!("{:.2} %", 100.0 * layer.profile_active as f64 / possible.max(1.0)),
                thousands(layer.never_active.into()),
                layer.region_offset.to_string(),
            ]
        })
        .collect();
    let head =
        ["layer", "links", "longest", "single", "as in model", "active", "never active", "offset"];
    out += &table(&head, &rows, 0);
    out += &render_predictors(pack);
    out += "\nprovenance\n";
    for (key, value) in &pack.provenance {
        writeln!(out, "  {key} = {value}")?;
    }
    Ok(out)
}

/// The layers that have another activation than the model shape, stretch by stretch, and what it is.
fn other_activations(pack: &Description) -> Vec<(String, &str)> {
    let shape = (pack.shape.activation, pack.shape.activation_threshold_bits);
    let told = |layer: &LayerDescription| (layer.activation, layer.activation_threshold_bits);
    let alike = pack.layers.chunk_by(|one, next| told(one) == told(next));
    let others = alike.filter(|layers| told(&layers[0]) != shape);
    let stretch = |layers: &[LayerDescription]| match layers {
        [only] => format!("layer {}", only.layer),
        layers => format!("layers {} to {}", layers[0].layer, layers[layers.len() - 1].layer),
    };
    others.map(|layers| (stretch(layers), layers[0].activation)).collect()
}

/// A table of the predictors at the operating point of a usual quality; nothing where there are none.
fn render_predictors(pack: &Description) -> String {
    let shape = &pack.shape;
    let ffn_bytes = 2.0
        * [shape.layers, shape.neurons, shape.hidden, shape.parts]
            .map(f64::from)
            .iter()
            .product::<f64>();
    let horizons: BTreeSet<u32> = pack.predictors.iter().map(|at| at.horizon).collect();
    let mut out = String::new();
    for horizon in horizons {
        let of_horizon = || pack.predictors.iter().filter(|at| at.horizon == horizon);
        let all: u64 = of_horizon().map(|at| at.bytes).sum();
        let ahead = match horizon {
            0 => String::new(),
            1 => ", a layer ahead".into(),
            layers => format!(", {layers} layers ahead"),
        };
        out += &format!(
            "\npredictors{ahead}: {}, {:.2} % of the FFN in f16; at quality {QUALITY_SHOWN}:\n",
            bytes(all as f64),
            100.0 * all as f64 / ffn_bytes
        );
        let rows: Vec<Vec<String>> = of_horizon().map(predictor_row).collect();
        let head = [
            "layer",
            "kind",
            "numbers",
            "rank",
            "thresholds",
            "bytes",
            "points",
            "recall",
            "reads/active",
        ];
        out += &table(&head, &rows, 0);
    }
    out
}

fn predictor_row(predictor: &PredictorDescription) -> Vec<String> {
    let points = &predictor.points;
    let point = points.iter().find(|point| point.quality >= QUALITY_SHOWN).or(points.last());
    let (recall, reads) = point.map_or((0.0, 0.0), |at| (at.recall, at.reads_per_active));
    vec![
        predictor.layer.to_string(),
        predictor.kind.to_owned(),
        predictor.numbers.to_owned(),
        predictor.rank.to_string(),
        predictor.thresholds.to_owned(),
        thousands(predictor.bytes as f64),
        points.len().to_string(),
        format!("{recall:.4}"),
        format!("{reads:.3}"),
    ]
}

/// What a file of PowerInfer's has beside the weights.
fn powerinfer(found: &PowerInfer) -> String {
    let PowerInfer { threshold, ranks } = found;
    let range = (ranks.iter().min(), ranks.iter().max());
    let (Some(least), Some(most)) = range else { return "no predictors".into() };
    let ranks = if least == most { least.to_string() } else { format!("{least} to {most}") };
    format!(
        "predictors of rank {ranks}, ReLU between, threshold {threshold}: `lnp predict --from` takes them in"
    )
}

/// Metadata, tensors by type, and whether and how the model can be used.
fn render_gguf(file: &gguf::Description) -> Result<String> {
    let mut out = String::new();
    let all: u64 = file.files.iter().map(|file| file.bytes).sum();
    let count = file.files.len();
    let parts = if count > 1 { format!(" in {count} files") } else { String::new() };
    let kind = if file.is_powerinfer { "GGUF of PowerInfer" } else { "GGUF" };
    writeln!(out, "{kind}, version {}, {}{parts}\n", file.version, bytes(all as f64))?;
    match &file.model {
        Some(model) => {
            let gated = if model.gated { "a gate" } else { "no gate" };
            writeln!(
                out,
                "a model of family {}: {} layers of {} neurons, hidden size {}, {gated}, {}, FFN in {}",
                model.family,
                model.layers,
                thousands(model.neurons as f64),
                thousands(model.hidden as f64),
                model.activation,
                model.ffn_types.join(", ")
            )?;
            if let Some(found) = &model.powerinfer {
                writeln!(out, "{}", powerinfer(found))?;
            }
            if !model.sparse {
                writeln!(
                    out,
                    "{} leaves no neuron at zero: `lnp predict --activity` makes thresholds; if the model's activation is another, say \
                     it with --activation",
                    model.activation
                )?;
            }
        }
        None => {
            let error = file.model_error.as_deref().unwrap_or_default();
            writeln!(out, "the model cannot be used: {}", plain(error))?;
        }
    }
    match &file.tokenizer {
        Some(tokenizer) => writeln!(
            out,
            "tokenizer {}{}, {} tokens\n",
            tokenizer.model,
            tokenizer.pre.as_ref().map_or(String::new(), |pre| format!(" ({pre})")),
            thousands(tokenizer.tokens as f64)
        )?,
        None => {
            let error = file.tokenizer_error.as_deref().unwrap_or_default();
            writeln!(out, "the tokenizer cannot be used: {}\n", plain(error))?;
        }
    }
    let rows: Vec<Vec<String>> = file
        .types
        .iter()
        .map(|of| {
            let readable = if of.readable { "yes" } else { "no" };
            vec![
                of.name.clone(),
                of.tensors.to_string(),
                thousands(of.bytes as f64),
                readable.into(),
            ]
        })
        .collect();
    out += &table(&["type", "tensors", "bytes", "read as weights"], &rows, 1);
    out += "\nmetadata\n";
    for (key, value) in &file.metadata {
        writeln!(out, "  {} = {}", plain(key), plain(value))?;
    }
    Ok(out)
}
