//! `lnp verify`.

use std::path::PathBuf;

use anyhow::Result;

use lnp_common::report::{bytes, print, print_json, progress, shown, thousands};
use lnp_pack::compare::WeightError;
use lnp_pack::verify::verify_file;

/// Check every byte of a pack: checksums, indexes, padding
///
/// Example: lnp verify opt.lnp --model opt-relu
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pack
    #[arg(value_name = "PACK")]
    pack: PathBuf,
    /// Also check that every bundle's weights are those of this model folder, and tell how far
    /// rounding to the pack's type took them
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let bar = progress("verifying", std::fs::metadata(&args.pack).map_or(0, |facts| facts.len()));
    let verified =
        verify_file(&args.pack, args.model.as_deref(), &mut |done| bar.set_position(done))?;
    bar.finish_and_clear();
    if args.json {
        return print_json(&verified);
    }
    let model = verified.bundles_equal_to_model.map_or(String::new(), |bundles| {
        let files = match verified.same_files_as_packed {
            Some(false) => ", whose files are others than it was packed from",
            _ => "",
        };
        format!(", {} bundles match the model's weights{files}", thousands(bundles as f64))
    });
    let error = verified.weight_error.as_ref().map_or(String::new(), describe);
    print(&format!(
        "{}: sound: {} sections, {} bundles, {}{model}\n{error}",
        shown(&args.pack),
        verified.sections,
        thousands(verified.bundles as f64),
        bytes(verified.bytes as f64),
    ))
}

/// One line about how far the pack's weights are from the checkpoint's.
fn describe(error: &WeightError) -> String {
    if error.overall.max_abs == 0.0 {
        return "weight error: 0, every weight is exactly the checkpoint's\n".into();
    }
    let percent = |ratio: f64| format!("{:.3} %", 100.0 * ratio);
    let parts: Vec<String> = error
        .parts
        .iter()
        .map(|part| format!("{} {}", part.part, percent(part.deviation.rms_relative)))
        .collect();
    format!(
        "weight error: {} of the weights' RMS ({:.1} dB), at most {:.2e}; {}\n",
        percent(error.overall.rms_relative),
        20.0 * error.overall.rms_relative.log10(),
        error.overall.max_abs,
        parts.join(", "),
    )
}
