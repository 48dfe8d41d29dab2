//! `lnp trace`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::model::ModelArgs;
use super::perplexity::parse_quality;
use super::thresholds::of_file;
use lnp_common::files::{check_room, check_target, read_stream, sha256_hex};
use lnp_common::report::{print_json, progress, say, shown, thousands};
use lnp_link::inputs::InputRows;
use lnp_link::trace::{TraceData, TraceReader, write_trace};
use lnp_model::{DenseFfn, DenseOptions, Model, ModelConfig, Tokenizer};
use lnp_predict::Predictors;
use lnp_run::{Further, PredictedBy, record_with};

/// Positions restart every so many tokens, unless the model's context is shorter.
const WINDOW_USUAL: usize = 256;
/// Longest text, bytes; the trace of a longer one would not fit into memory.
const TEXT_BYTES_MAX: u64 = 1 << 28;

/// Run a model over text and record which FFN neurons are active
///
/// Example: lnp trace --model opt-relu --text profile.txt -o profile.trace.safetensors
/// Example: lnp trace --model opt-relu --text profile.txt --inputs 8192 -o profile.trace
/// Example: lnp trace --model opt-relu --text test.txt --split test --predictor opt.predictors -o test.trace
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to run the model over
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "token_ids",
        conflicts_with = "token_ids"
    )]
    text: Option<PathBuf>,
    /// Run over the token_ids that another trace carries, in its windows
    #[arg(long, value_name = "TRACE")]
    token_ids: Option<PathBuf>,
    /// Positions restart every so many tokens [default: 256, or the model's context]
    #[arg(long, value_name = "N")]
    window: Option<usize>,
    /// At most so many tokens
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Also keep the FFN inputs of so many tokens, for `lnp predict`: f16, of every layer
    #[arg(long, value_name = "ROWS", default_value_t = 0)]
    inputs: usize,
    /// Also keep what these predictors of the model would read, made by `lnp predict`: what `lnp replay --predicted` and
    /// `--ahead` replay
    #[arg(long, value_name = "FILE")]
    predictor: Option<PathBuf>,
    /// How much of what is active --predictor shall name: the recall of an operating point [default: the one that they
    /// were made for]
    #[arg(long, value_name = "R", requires = "predictor", value_parser = parse_quality)]
    quality: Option<f64>,
    /// Thresholds of this model, made by `lnp predict --activity`: for activations that are zero nowhere
    #[arg(long, value_name = "FILE")]
    activity: Option<PathBuf>,
    /// Name of the text's corpus [default: the text's file name]
    #[arg(long)]
    corpus: Option<String>,
    /// What the trace is for: profile or test
    #[arg(long, default_value = "profile")]
    split: String,
    /// The trace to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print a summary as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let checkpoint = args.model.open()?;
    let of_model = checkpoint.inputs();
    let given =
        args.text.iter().chain(&args.token_ids).chain(&args.predictor).chain(&args.activity);
    let inputs: Vec<&Path> = given.chain(&of_model).map(PathBuf::as_path).collect();
    check_target(&args.output, &inputs)?;
    let predictors = args.predictor.as_deref().map(read_predictors).transpose()?;
    // What is wrong with text or tokenizer is told before the model is loaded, which may take long.
    let (mut ids, source_window, source_corpus) = token_ids(args)?;
    let config = ModelConfig::load(&checkpoint)?;
    let activity = args.activity.as_deref().map(|path| of_file(path, &checkpoint, &config));
    let activity = activity.transpose()?;
    let model = match activity {
        Some(activity) => Model::of(checkpoint)?.with_activity(Some(activity))?,
        None => {
            config.check_active(&checkpoint)?;
            Model::of(checkpoint)?
        }
    };
    if let (Some(path), Some((predictors, _))) = (&args.predictor, &predictors) {
        let named = || path.display().to_string();
        predictors.check_model(model.checkpoint(), model.config()).with_context(named)?;
    }
    ids.truncate(args.tokens.unwrap_or(usize::MAX));
    let most = model.config().max_positions;
    let window = args.window.or(source_window).unwrap_or(WINDOW_USUAL.min(most));
    ensure!((1..=most).contains(&window), "a window of {window}: the model's context is {most}");
    let config = model.config();
    let sets = config.layers + predictors.as_ref().map_or(0, |(found, _)| found.predictors.len());
    let trace_bytes = (ids.len() * (4 + sets * config.neurons.div_ceil(8))) as u64;
    let rows = args.inputs.min(ids.len());
    let inputs_bytes = InputRows::bytes(rows, config.layers, config.hidden);
    check_room(&args.output, trace_bytes.saturating_add(inputs_bytes))?;
    let corpus = args.corpus.clone().unwrap_or(source_corpus);
    let predicted = predictors.as_ref().map(|(predictors, sha256)| {
        let quality = args.quality.unwrap_or(predictors.recall);
        PredictedBy { predictors, sha256, quality }
    });
    let further = Further { inputs: args.inputs, predicted };
    let mut data = trace_tokens(&model, &ids, window, further, corpus)?;
    data.split = args.split.clone();
    write_trace(&args.output, &data)?;
    summarise(&data, &args.output, args.json)
}

/// Predictors, and the hash of their file.
fn read_predictors(path: &Path) -> Result<(Predictors, String)> {
    Ok((Predictors::read(path)?, sha256_hex(path)?))
}

/// Records a trace with a progress bar; its split is for the caller to say.
pub(super) fn trace_tokens(
    model: &Model,
    ids: &[u32],
    window: usize,
    further: Further<'_>,
    corpus: String,
) -> Result<TraceData> {
    ensure!(!ids.is_empty(), "no token is left to trace: --tokens must be above 0");
    let mut dense = DenseFfn::held(model.checkpoint(), model.config(), DenseOptions::default())?;
    let bar = progress("tracing", ids.len() as u64);
    let progress = &mut |done| bar.set_position(done as u64);
    let mut data = record_with(model, &mut dense, ids, window, further, progress)?;
    bar.finish_and_clear();
    data.corpus = corpus;
    Ok(data)
}

/// The tokens to trace, the window they come with, and the name of their corpus.
fn token_ids(args: &Args) -> Result<(Vec<u32>, Option<usize>, String)> {
    if let Some(path) = &args.token_ids {
        let trace = TraceReader::open(path)?;
        let ids = trace.token_ids()?.with_context(|| {
            format!("{}: the trace carries no token_ids; use --text", path.display())
        })?;
        let corpus = trace.corpus().unwrap_or("unknown").to_owned();
        return Ok((ids, Some(trace.window()), corpus));
    }
    let path = args.text.as_deref().context("--text or --token-ids is needed")?;
    Ok((tokenize(&args.model.path, path)?, None, stem(path)))
}

/// The tokens of a text file.
pub(super) fn tokenize(model: &Path, path: &Path) -> Result<Vec<u32>> {
    let text = read_stream(path, TEXT_BYTES_MAX)?;
    let ids = Tokenizer::load(model)?.encode(&text)?;
    ensure!(!ids.is_empty(), "{}: there is no text in it", path.display());
    Ok(ids)
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or("text".into(), |stem| stem.to_string_lossy().into_owned())
}

fn summarise(data: &TraceData, output: &Path, json: bool) -> Result<()> {
    let bits = (data.tokens * data.neurons) as f64;
    let ones = |layer: &Vec<u8>| layer.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
    let shares: Vec<f64> = data.layers.iter().map(|layer| ones(layer) as f64 / bits).collect();
    let share = shares.iter().sum::<f64>() / shares.len() as f64;
    if json {
        return print_json(&serde_json::json!({
            "trace": output, "model": data.model, "synthetic": data.synthetic.is_some(), "corpus": data.corpus, "split": data.split,
            "layers": data.layers.len(), "neurons": data.neurons, "tokens": data.tokens,
            "window": data.window, "input_rows": data.inputs.as_ref().map_or(0, |inputs| inputs.rows.len()),
            "active_share": share, "active_share_by_layer": shares,
            "predicted": data.predicted.as_ref().map(|predicted| serde_json::json!({
                "predictors_sha256": predicted.predictors, "quality": predicted.quality,
                "sets": predicted.layers.len(),
            })),
        }));
    }
    say(&format!(
        "{}: {} tokens in windows of {}, {} layers of {} neurons, {:.1} % active (by layer: {})\n",
        shown(output),
        thousands(data.tokens as f64),
        data.window,
        data.layers.len(),
        thousands(data.neurons as f64),
        100.0 * share,
        shares.iter().map(|s| format!("{:.1}", 100.0 * s)).collect::<Vec<_>>().join(" "),
    ));
    Ok(())
}
