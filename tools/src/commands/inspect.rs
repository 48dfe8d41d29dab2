//! `lnp inspect`.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;

use lnp_common::report::{bytes, print, print_json, table, thousands};
use lnp_pack::PackIndex;
use lnp_pack::inspect::{Description, describe};

/// Say what a pack holds: shape, sections, links per layer, provenance
///
/// Example: lnp inspect opt.lnp
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pack
    #[arg(value_name = "PACK")]
    pack: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
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
    if pack.placements > 1 {
        let placements = pack.placements;
        writeln!(
            out,
            "{placements} placements of each layer: {placements} times the bundles; below, the first\n"
        )?;
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
    out += "\nprovenance\n";
    for (key, value) in &pack.provenance {
        writeln!(out, "  {key} = {value}")?;
    }
    Ok(out)
}
