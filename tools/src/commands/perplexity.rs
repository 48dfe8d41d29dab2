//! `lnp perplexity`.

use std::iter;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use serde::Serialize;

use super::model::{DenseArgs, ModelArgs};
use super::thresholds::with_activity;
use super::{KernelArgs, ReadArgs, say_back_end};
use lnp_common::report::{plain, print, print_json, progress, say, shown, table, thousands};
use lnp_device::{Machine, Threads};
use lnp_engine::Collapse;
use lnp_engine::engine::LeftOut;
use lnp_link::trace::TraceReader;
use lnp_measure::profile::DeviceProfile;
use lnp_model::perplexity::{Loss, Windows, loss};
use lnp_model::{Activity, DenseFfn, ExactPredictor, FeedForward, Model};
use lnp_pack::PackIndex;
use lnp_predict::ffn::Reads;
use lnp_predict::{PredictedFfn, Predictors};
use lnp_run::compute::{CACHE_RATIO_USUAL, ComputeOptions, ComputePack};
use lnp_run::counting::Counting;
use lnp_run::stored::{Stored, StoredPredictors};
use lnp_run::{Leaving, Predict, SparseFfn};

/// Tell what a pack's number type or a predictor costs: how well the model predicts text with it
///
/// The first row is the model itself, computed densely in f32; then comes each pack, read and
/// computed as `lnp run` does, and each quality of predictors, computed in f32 from the neurons that
/// they predict. With --quality a pack is judged by the predictors in it as well, computed as `lnp run`
/// does, and with --leave-out once more for each share that may be left unread; cached bundles are those that a cache
/// of --cache-ratio holds when some 256 tokens begin. reads/active counts bundles read for each active one. Loss is the mean negative log-likelihood in nats of each token but
/// the first of its window, given those before it; perplexity is exp(loss).
///
/// A model of SiLU or GELU is judged as it is, and by the thresholds of --activity or of the packs.
///
/// Example: lnp perplexity f32.lnp f16.lnp --model opt-relu --tokens test.trace.safetensors
/// Example: lnp perplexity --predictors p --quality .95,.99 --model opt-relu --tokens test.trace
/// Example: lnp perplexity f16.lnp --quality .95,.99 --model opt-relu --tokens test.trace
/// Example: lnp perplexity f16.lnp --quality .99 --leave-out .005 --model opt-relu --tokens test.trace
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// The packs to judge, all of this model
    #[arg(value_name = "PACK", required_unless_present_any = ["predictors", "activity"])]
    packs: Vec<PathBuf>,
    /// Predictors to judge, of this model
    #[arg(long, value_name = "FILE", requires = "quality")]
    predictors: Option<PathBuf>,
    /// Operating points to judge, of --predictors and of those in the packs: recalls, apart by commas; each is the next
    /// that they have
    #[arg(long, value_name = "R", value_delimiter = ',', value_parser = parse_quality)]
    quality: Vec<f64>,
    /// Lossy: of the squared strength of a layer's neurons leave these shares unread where that saves most device time,
    /// by the predictors in the packs
    #[arg(long, value_name = "SHARE", value_delimiter = ',', value_parser = parse_share, requires = "quality", conflicts_with = "predictors")]
    leave_out: Vec<f64>,
    /// Device profile whose law --leave-out goes by [default: 16K are worth a read]
    #[arg(long, value_name = "FILE", requires = "leave_out")]
    device: Option<PathBuf>,
    /// Thresholds of this model, made by `lnp predict --activity` [default: those that the packs tell of]
    #[arg(long, value_name = "FILE")]
    activity: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    dense: DenseArgs,
    /// Traces that carry token_ids: the text to predict
    #[arg(long, value_name = "TRACE", required = true, num_args = 1..)]
    tokens: Vec<PathBuf>,
    /// Tokens of a window; each begins at position 0 with no text before it [default: the trace's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    window: Option<u32>,
    /// Only the first so many tokens of each trace
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    limit: Option<u32>,
    /// Share of the bundles that the cache holds; the results are the same, 1 is fastest
    #[arg(long, value_name = "R", default_value_t = CACHE_RATIO_USUAL)]
    cache_ratio: f64,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    kernels: KernelArgs,
    /// Go on through the page cache where the file system refuses direct reads
    #[arg(long)]
    buffered: bool,
    /// Print the rows as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn parse_quality(text: &str) -> Result<f64> {
    let quality: f64 = text.parse().context("not a number")?;
    ensure!(quality > 0.0 && quality <= 1.0, "must be a share above 0 and at most 1");
    Ok(quality)
}

/// `--leave-out`, here and in `lnp run`.
pub(super) fn parse_share(text: &str) -> Result<f64> {
    let share: f64 = text.parse().context("not a number")?;
    ensure!(share > 0.0 && share < 1.0, "must be a share above 0 and below 1");
    Ok(share)
}

/// A text to be predicted.
struct Text {
    file: PathBuf,
    corpus: String,
    split: Option<String>,
    windows: Windows,
}

/// One line of the comparison; the names are a contract.
#[derive(Debug, Serialize)]
struct Row {
    /// `dense f32`, or the name of the pack's or the predictors' file.
    what: String,
    /// The pack; none where the model itself is judged.
    pack: Option<PathBuf>,
    /// The predictors, and what was had of them; none where none were used.
    #[serde(flatten)]
    predicted: Option<Predicted>,
    /// Type of the FFN's weights.
    dtype: &'static str,
    /// Tier of the kernels; none where they are not used.
    kernel_tier: Option<&'static str>,
    corpus: String,
    split: Option<String>,
    tokens_file: PathBuf,
    window: usize,
    tokens_predicted: usize,
    /// Nats per predicted token.
    loss: f64,
    perplexity: f64,
    /// 1 where nothing is lost.
    perplexity_over_dense: f64,
    seconds: f64,
}

/// What predictors did at an operating point; the names are a contract.
#[derive(Debug, Clone, Serialize)]
struct Predicted {
    /// Their file; none where they are in the pack.
    predictors: Option<PathBuf>,
    quality: f64,
    /// Bundles read for each active one.
    reads_per_active: f64,
    /// Share of the active neurons that were read.
    recall: f64,
    /// Bytes of the predictors in memory, as a share of the FFN in f16.
    predictor_bytes_share: f64,
    /// Where bundles were left out for their device time; these are no reads, and recall is that before.
    left_out: Option<Unread>,
}

/// What was left out; the names are a contract.
#[derive(Debug, Clone, Serialize)]
struct Unread {
    /// Of the squared strength, what might be lost.
    share: f64,
    /// What was, as predictors estimate it.
    lost_share: f64,
    bundles_per_token: f64,
}

/// What is judged.
struct Subject {
    what: String,
    pack: Option<PathBuf>,
    dtype: &'static str,
    kernel_tier: Option<&'static str>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let indexes: Vec<PackIndex> =
        args.packs.iter().map(|path| PackIndex::open(path)).collect::<Result<_>>()?;
    let predictors = args.predictors.as_deref().map(Predictors::read).transpose()?;
    let model = args.dense.load(args.model.open()?, args.kernels.features()?)?;
    if let (Some(predictors), Some(path)) = (&predictors, &args.predictors) {
        predictors
            .check_model(model.checkpoint(), model.config())
            .with_context(|| path.display().to_string())?;
    }
    // What is judged against it is told which neurons are active.
    let whole = model.config().clone();
    let model = with_activity(model, args.activity.as_deref(), &indexes)?;
    let texts: Vec<Text> =
        args.tokens.iter().map(|path| text(path, &model, args)).collect::<Result<_>>()?;
    let options = ComputeOptions {
        features: args.kernels.features()?,
        batch: args.kernels.batch.into(),
        cache_ratio: args.cache_ratio,
        read: args.read.into(),
        buffered: args.buffered,
        ..ComputeOptions::default()
    };
    let options = match &args.device {
        Some(device) => {
            let law = DeviceProfile::read(device)?.law.law()?;
            ComputeOptions { collapse: Collapse::Law(law), ..options }
        }
        None => options,
    };
    // What is wrong with a pack is told before the first is judged, which may take long.
    let of_packs = args.predictors.is_none() && !args.quality.is_empty();
    for index in &indexes {
        if of_packs {
            let tells = stored_in(index)?.tells_strengths() || args.leave_out.is_empty();
            ensure!(
                tells,
                "{}: --leave-out, but the predictors in the pack tell no strengths: make them with `lnp predict`",
                index.path().display()
            );
        }
        let mut pack = ComputePack::open(index, model.config(), options)?;
        say_back_end(pack.engine(&model)?.0.queue().inner().back_end());
    }

    let tokens: usize = texts.iter().map(|text| text.windows.tokens()).sum();
    let of_quality = 1 + args.leave_out.len();
    let of_each = if of_packs { 1 + args.quality.len() * of_quality } else { 1 };
    let of_file = if of_packs { 0 } else { args.quality.len() };
    let thresholds = usize::from(model.config().activity.is_some());
    let subjects = 1 + thresholds + indexes.len() * of_each + of_file;
    let bar = progress("predicting", (tokens * subjects) as u64);
    let mut rows = Vec::new();
    let dense = Subject {
        what: "dense f32".into(),
        pack: None,
        dtype: lnp_format::Dtype::F32.name(),
        kernel_tier: None,
    };
    let mut ffn = DenseFfn::load(model.checkpoint(), &whole)?;
    for (number, text) in texts.iter().enumerate() {
        rows.push(judge(&dense, &model, &mut ffn, text, rows.get(number), &bar)?);
    }
    if let Some(Activity { share, measure, .. }) = &model.config().activity {
        let subject = Subject { what: format!("{measure} {share}, f32"), ..dense };
        ffn = DenseFfn::load(model.checkpoint(), model.config())?;
        for (number, text) in texts.iter().enumerate() {
            rows.push(judge(&subject, &model, &mut ffn, text, rows.get(number), &bar)?);
        }
    }
    if let (Some(predictors), Some(path)) = (&predictors, &args.predictors) {
        judge_predictors(args, (predictors, path), &model, &mut ffn, &texts, &bar, &mut rows)?;
    }
    drop(ffn);
    let predictor = ExactPredictor::load(model.checkpoint(), model.config())?;
    let threads = args.kernels.start_threads()?;
    for index in &indexes {
        let by = |predict: &dyn Predict, share: Option<f64>, text: &Text, dense: Option<&Row>| {
            judge_pack((index, predict, share), &model, options, &threads, (text, dense), &bar)
                .with_context(|| index.path().display().to_string())
        };
        for (number, text) in texts.iter().enumerate() {
            rows.push(by(&predictor, None, text, rows.get(number))?.0);
        }
        for quality in args.quality.iter().copied().filter(|_| of_packs) {
            let stored = stored_in(index)?;
            let mut memory = stored.memory(options.features)?;
            let own = StoredPredictors::new(&stored, quality, options.features, &mut memory)?;
            let shares = args.leave_out.iter().copied().map(Some);
            for share in iter::once(None).chain(shares) {
                for (number, text) in texts.iter().enumerate() {
                    let counting = Counting::new(&own, &predictor);
                    let (mut row, left_out) = by(&counting, share, text, rows.get(number))?;
                    let reads = counting.reads();
                    let unread = share.map(|share| Unread {
                        share,
                        lost_share: left_out.lost_share(),
                        bundles_per_token: left_out.bundles as f64 / text.windows.tokens() as f64,
                    });
                    let read = reads.read - left_out.bundles.min(reads.read);
                    row.predicted = Some(Predicted {
                        predictors: None,
                        quality,
                        reads_per_active: Reads { read, ..reads }.per_active(),
                        recall: reads.recall(),
                        predictor_bytes_share: stored.bytes_share(0),
                        left_out: unread,
                    });
                    rows.push(row);
                }
            }
        }
    }
    bar.finish_and_clear();
    report(args, &model, by_text(rows, texts.len()))
}

/// The predictors in a pack.
fn stored_in(index: &PackIndex) -> Result<Stored<'_>> {
    Stored::of_pack(&index.pack()?).with_context(|| {
        format!(
            "{}: --quality, but the pack has no predictor for each layer: give it some with `lnp pack --predictors`, or \
             name --predictors here",
            index.path().display()
        )
    })
}

/// A row of a pack for a text, read as it is told what is active; and what was left out, where a share may be.
fn judge_pack(
    (index, predict, share): (&PackIndex, &dyn Predict, Option<f64>),
    model: &Model,
    options: ComputeOptions,
    threads: &Threads,
    (text, dense): (&Text, Option<&Row>),
    bar: &ProgressBar,
) -> Result<(Row, LeftOut)> {
    let mut pack = ComputePack::open(index, model.config(), options)?;
    let (mut engine, ffn) = pack.engine(model)?;
    let subject = Subject {
        what: file_name(index.path()),
        pack: Some(index.path().to_owned()),
        dtype: index.pack()?.shape().dtype.name(),
        kernel_tier: Some(ffn.tier().name()),
    };
    let shape = *engine.pack().shape();
    let mut memory = share.map(|_| Leaving::memory(&shape)).unwrap_or_default();
    // Tokens are judged as if each came alone.
    let leaving = match share {
        Some(share) => Some(Leaving::new(&shape, &options.collapse, share, true, &mut memory)?),
        None => None,
    };
    threads.run(|| {
        engine.session(|session| {
            let mut sparse = SparseFfn::new(session, ffn, predict, threads);
            if let Some(leaving) = leaving {
                sparse = sparse.leaving_out(leaving);
            }
            let row = judge(&subject, model, &mut sparse, text, dense, bar)?;
            Ok((row, sparse.leaving().map(Leaving::left_out).unwrap_or_default()))
        })
    })
}

/// Reads a text, as far as it is asked for.
fn text(path: &Path, model: &Model, args: &Args) -> Result<Text> {
    let trace = TraceReader::open(path)?;
    let file = shown(path);
    let mut ids = trace.token_ids()?.with_context(|| {
        format!("{file}: the trace carries no token_ids; record it again with `lnp trace`")
    })?;
    ids.truncate(args.limit.map_or(usize::MAX, |limit| limit as usize));
    let window = args.window.map_or(trace.window(), |window| window as usize);
    let windows = Windows::new(model, ids, window).with_context(|| file.clone())?;
    if let Some(traced) = trace.model()
        && traced != model.checkpoint().name()
    {
        let (traced, model) = (plain(traced), plain(&model.checkpoint().name()));
        say(&format!("lnp: warning: {file} has tokens of model {traced}, this is {model}\n"));
    }
    Ok(Text {
        file: path.to_owned(),
        corpus: trace.corpus().unwrap_or("unknown").to_owned(),
        split: trace.split().map(str::to_owned),
        windows,
    })
}

/// Appends a row for each quality and text.
fn judge_predictors(
    args: &Args,
    (predictors, path): (&Predictors, &Path),
    model: &Model,
    dense: &mut DenseFfn,
    texts: &[Text],
    bar: &ProgressBar,
    rows: &mut Vec<Row>,
) -> Result<()> {
    for quality in args.quality.iter().copied() {
        let subject = Subject {
            what: file_name(path),
            pack: None,
            dtype: lnp_format::Dtype::F32.name(),
            kernel_tier: None,
        };
        for (number, text) in texts.iter().enumerate() {
            let mut ffn = PredictedFfn::new(dense, predictors, quality)
                .with_context(|| path.display().to_string())?;
            let mut row = judge(&subject, model, &mut ffn, text, rows.get(number), bar)?;
            row.predicted = Some(Predicted {
                predictors: Some(path.to_owned()),
                quality,
                reads_per_active: ffn.reads().per_active(),
                recall: ffn.reads().recall(),
                predictor_bytes_share: predictors.bytes_share(0),
                left_out: None,
            });
            rows.push(row);
        }
    }
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A row for a text, compared with the first subject's.
fn judge(
    subject: &Subject,
    model: &Model,
    ffn: &mut dyn FeedForward,
    text: &Text,
    dense: Option<&Row>,
    bar: &ProgressBar,
) -> Result<Row> {
    let (begin, before) = (Instant::now(), bar.position());
    let told = &mut |fed: usize| bar.set_position(before + fed as u64);
    let found: Loss = loss(model, ffn, &text.windows, told)?;
    let dense = dense.map_or(found.nats, |row| row.loss);
    Ok(Row {
        what: subject.what.clone(),
        pack: subject.pack.clone(),
        predicted: None,
        dtype: subject.dtype,
        kernel_tier: subject.kernel_tier,
        corpus: text.corpus.clone(),
        split: text.split.clone(),
        tokens_file: text.file.clone(),
        window: text.windows.window(),
        tokens_predicted: found.predicted,
        loss: found.nats,
        perplexity: found.perplexity(),
        // not by dividing perplexities, which may be too large
        perplexity_over_dense: (found.nats - dense).exp(),
        seconds: begin.elapsed().as_secs_f64(),
    })
}

/// Rows come subject by subject; they are read text by text.
fn by_text(rows: Vec<Row>, texts: usize) -> Vec<Row> {
    let mut numbered: Vec<(usize, Row)> = rows.into_iter().enumerate().collect();
    numbered.sort_by_key(|(number, _)| number % texts);
    numbered.into_iter().map(|(_, row)| row).collect()
}

fn report(args: &Args, model: &Model, rows: Vec<Row>) -> Result<()> {
    if args.json {
        let first = rows.first().map(|row| row.window);
        // one for all of them, or none: each row has its own
        let window = first.filter(|first| rows.iter().all(|row| row.window == *first));
        return print_json(&serde_json::json!({
            "machine": Machine::here(),
            "model": model.checkpoint().name(),
            "window": window,
            "rows": rows,
        }));
    }
    let mut head =
        vec!["what", "dtype", "kernels", "corpus", "predicted", "loss", "perplexity", "over dense"];
    if !args.quality.is_empty() {
        head.extend(["quality", "reads/active", "recall", "bytes"]);
    }
    if !args.leave_out.is_empty() {
        head.extend(["left out up to", "lost"]);
    }
    let lines: Vec<Vec<String>> = rows.iter().map(|row| line(row, head.len())).collect();
    print(&table(&head, &lines, 4))
}

/// A line of so many columns.
fn line(row: &Row, columns: usize) -> Vec<String> {
    // the sum makes a -0 a 0
    let percent = (1e4 * (row.perplexity_over_dense - 1.0)).round() / 1e2 + 0.0;
    let is_dense = row.pack.is_none() && row.predicted.is_none();
    let mut line = vec![
        plain(&row.what),
        row.dtype.into(),
        row.kernel_tier.unwrap_or("-").into(),
        plain(&row.corpus),
        thousands(row.tokens_predicted as f64),
        format!("{:.4}", row.loss),
        format!("{:.3}", row.perplexity),
        if is_dense { "-".into() } else { format!("{percent:+.2} %") },
    ];
    if let Some(predicted) = &row.predicted {
        line.extend([
            predicted.quality.to_string(),
            format!("{:.3}", predicted.reads_per_active),
            format!("{:.4}", predicted.recall),
            format!("{:.2} %", 100.0 * predicted.predictor_bytes_share),
        ]);
        line.extend(predicted.left_out.iter().flat_map(|unread| {
            [unread.share, unread.lost_share].map(|share| format!("{:.2} %", 100.0 * share))
        }));
    }
    line.resize(columns, "-".into());
    line
}
