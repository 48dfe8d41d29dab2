//! `lnp verify`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use lnp_common::report::{bytes, print, print_json, progress, shown, table, thousands};
use lnp_engine::sys::cpu;
use lnp_model::{Activation, Checkpoint, ExactPredictor, ModelConfig};
use lnp_pack::PackIndex;
use lnp_pack::compare::WeightError;
use lnp_pack::verify::{Verified, verify_file};
use lnp_predict::Sample;
use lnp_run::judge::{Judged, judge};
use lnp_run::stored::Stored;

/// Tokens to judge predictors by, where nothing else is said.
const ROWS_USUAL: usize = 2048;

/// Check every byte of a pack: checksums, indexes, padding
///
/// Example: lnp verify opt.lnp --model opt-relu
/// Example: lnp verify opt.lnp --model opt-relu --traces test.trace.safetensors
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pack
    #[arg(value_name = "PACK")]
    pack: PathBuf,
    /// Also check that every bundle's weights are those of this model, and tell how far rounding to the
    /// pack's type took them
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// With --model: its activation, where `lnp pack` was told it
    #[arg(long, value_name = "NAME", requires = "model")]
    activation: Option<Activation>,
    /// Also judge the pack's predictors: what they find of what is active on these traces, which carry FFN inputs
    /// (`lnp trace --inputs`) or token_ids to run the model over
    #[arg(long, value_name = "TRACE", num_args = 1.., requires = "model")]
    traces: Vec<PathBuf>,
    /// With --traces: judge by so many tokens
    #[arg(long, value_name = "ROWS", default_value_t = ROWS_USUAL, requires = "traces")]
    rows: usize,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let bar = progress("verifying", std::fs::metadata(&args.pack).map_or(0, |facts| facts.len()));
    let model = args.model.as_deref().map(Checkpoint::open).transpose()?;
    let model = model.map(|model| model.with_activation(args.activation));
    let verified = verify_file(&args.pack, model.as_ref(), &mut |done| bar.set_position(done))?;
    bar.finish_and_clear();
    let judged = match &model {
        Some(model) if !args.traces.is_empty() => Some(judge_predictors(args, model)?),
        _ => None,
    };
    if args.json {
        return print_json(&Report { verified: &verified, predictors: judged.as_deref() });
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
    ))?;
    judged.map_or(Ok(()), |judged| print(&render(&judged)))
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Report<'r> {
    #[serde(flatten)]
    verified: &'r Verified,
    /// What the pack's predictors found, by horizon and quality; none where that was not asked for.
    predictors: Option<&'r [Judged]>,
}

/// Judges the pack's predictors by the model.
fn judge_predictors(args: &Args, checkpoint: &Checkpoint) -> Result<Vec<Judged>> {
    let index = PackIndex::open(&args.pack)?;
    let pack = index.pack()?;
    let stored = Stored::of_pack(&pack).with_context(|| {
        format!(
            "{}: the pack has no predictor for each layer; give it some with `lnp predict` and `lnp pack --predictors`",
            args.pack.display()
        )
    })?;
    let config = ModelConfig::load(checkpoint)?;
    let bar = progress("running the model", 0);
    let sample =
        Sample::of_traces(checkpoint, &config, &args.traces, args.rows, &mut |done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        })?;
    bar.finish_and_clear();
    let exact = ExactPredictor::load(checkpoint, &config)?;
    judge(&stored, &exact, &sample, cpu::detect())
}

/// A table for each horizon.
fn render(judged: &[Judged]) -> String {
    let rows: Vec<Vec<String>> = judged
        .iter()
        .map(|row| {
            vec![
                row.horizon.to_string(),
                format!("{}", row.quality as f32),
                row.layers.to_string(),
                format!("{:.4}", row.recall),
                format!("{:.4}", row.recall_told),
                format!("{:.3}", row.reads_per_active),
                format!("{:.3}", row.reads_per_active_told),
            ]
        })
        .collect();
    let head = ["ahead", "quality", "layers", "recall", "told", "reads/active", "told"];
    format!(
        "\npredictors, on this text and as the pack tells of its profile:\n{}",
        table(&head, &rows, 0)
    )
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
