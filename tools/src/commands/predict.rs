//! `lnp predict`.

mod thresholds;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::byte_count::{ByteCount, above_0};
use super::model::ModelArgs;
use lnp_common::files::{check_room, check_target};
use lnp_common::report::{bytes, print, print_json, progress, say, shown, table, thousands};
use lnp_link::TraceSource;
use lnp_model::ModelConfig;
use lnp_model::activity::Measure;
use lnp_predict::fit::steps;
use lnp_predict::numbers::Numbers;
use lnp_predict::points::Point;
use lnp_predict::predictor::Predictor;
use lnp_predict::settings::{ffn_bytes, memory_of_fit};
use lnp_predict::{Import, Kind, Made, Others, Predictors, Sample, Settings, Size, fit, import};

/// Make predictors of activity: which neurons to read, known from few bytes
///
/// low-rank: two thin matrices, fitted to the FFN inputs of the traces; rows:K: the deciding rows in
/// K bits (1, 2, 4 or 8); exact: the rows as they are. Each layer gets a table of operating points,
/// so that one file serves every quality. Where a trace carries no inputs (`lnp trace --inputs`),
/// the model is run over its tokens.
///
/// --from takes in what others trained, `fc1.weight` [rank, hidden] and `fc2.weight` [neurons, rank],
/// with `.bias` or not: a folder of model_0.pt or model_0.safetensors and so on, one safetensors
/// file with names such as 0.fc1.weight, or a GGUF file of PowerInfer's with the predictors in it.
///
/// --activity is for SiLU and GELU, which are zero nowhere: it makes no predictors, but thresholds that leave
/// the given share of the neurons active (lossy: the cost in perplexity is printed), for --activity of
/// trace, pack, perplexity and run. Traces serve by their token_ids.
///
/// Example: lnp predict --model opt-relu --traces profile.trace -o opt.predictors
/// Example: lnp predict --model relu-llama --traces a.trace --from others --between relu -o p
/// Example: lnp predict --model m.powerinfer.gguf --traces a.trace --from m.powerinfer.gguf -o p
/// Example: lnp predict --model opt-relu --traces a.trace b.trace --bytes 0.04 --horizon 0,1 -o p
/// Example: lnp predict --model smol --text profile.txt --activity 0.5 -o smol.activity
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Traces to learn from; several are taken together
    #[arg(long, value_name = "FILE", required_unless_present = "text", num_args = 1..)]
    traces: Vec<PathBuf>,
    /// Make thresholds that leave this share of the neurons active
    #[arg(long, value_name = "SHARE", value_parser = parse_share,
          conflicts_with_all = ["kind", "bytes", "rank", "horizon", "train", "from"])]
    activity: Option<f64>,
    /// What thresholds are compared with: magnitude (of the activation) or strength (times the norm of the
    /// down column)
    #[arg(long, value_name = "WHAT", default_value_t = Measure::Magnitude, requires = "activity")]
    measure: Measure,
    /// Texts to learn thresholds from, in place of traces
    #[arg(long, value_name = "FILE", requires = "activity", conflicts_with = "traces", num_args = 1..)]
    text: Vec<PathBuf>,
    /// low-rank, rows:1, rows:2, rows:4, rows:8 or exact
    #[arg(long, value_name = "KIND", default_value = "low-rank", value_parser = parse_kind)]
    kind: Kind,
    /// Bytes of all layers' low-rank predictors, as a share of the FFN in f16; ranks are shared out
    /// over the layers where they save most reads [default: 0.06]. What `run --leave-out` needs, 2 bytes a neuron, is
    /// among them, unless that leaves no rank
    #[arg(long, value_name = "SHARE", value_parser = parse_share, conflicts_with = "rank")]
    bytes: Option<f64>,
    /// The same rank for every layer
    #[arg(long, value_name = "R")]
    rank: Option<usize>,
    /// Refine low-rank predictors by so many steps of gradient descent; each layer keeps what reads less
    #[arg(long, value_name = "STEPS", default_value_t = 0)]
    train: u32,
    /// Predictors that others trained, to be taken in: a folder, a safetensors file, or a GGUF file of PowerInfer's
    #[arg(long, value_name = "PATH",
          conflicts_with_all = ["kind", "bytes", "rank", "horizon", "train"])]
    from: Option<PathBuf>,
    /// What stands between their two matrices, which they do not tell: none (Deja Vu, SVDP) or
    /// relu (PowerInfer) [default: none; relu with a GGUF file]
    #[arg(long, value_name = "WHAT", value_parser = parse_between, requires = "from")]
    between: Option<Between>,
    /// What they take: ffn (the input of the FFN, after its norm) or residual (before the norm, as
    /// PowerInfer's do) [default: ffn; residual with a GGUF file]
    #[arg(long, value_name = "WHAT", value_parser = parse_input, requires = "from")]
    input: Option<Input>,
    /// Operating points: ours (set on the traces, one for each quality) or theirs (their own threshold
    /// alone, measured on the traces)
    #[arg(long, value_name = "WHOSE", default_value = "ours", value_parser = parse_thresholds,
          requires = "from")]
    thresholds: Thresholds,
    /// How the numbers of a low-rank predictor are stored: q8_0 or f16 [default: q8_0; f16 from a GGUF
    /// file]
    #[arg(long, value_name = "TYPE", value_parser = parse_numbers)]
    numbers: Option<Numbers>,
    /// The recall that ranks are shared out for, and at which ways to set thresholds are compared
    #[arg(long, value_name = "R", default_value_t = 0.99, value_parser = parse_share)]
    recall: f64,
    /// How many layers ahead to predict, 0 for the layer itself; several apart by commas, each takes
    /// its --bytes
    #[arg(long, value_name = "LAYERS", default_value = "0", value_delimiter = ',',
          value_parser = clap::value_parser!(u8).range(0..=HORIZON_MAX))]
    horizon: Vec<u8>,
    /// Tokens to learn from, at most; those of the traces are thinned evenly
    #[arg(long, value_name = "N", default_value_t = ROWS_DEFAULT,
          value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
    /// Bytes that learning may take beside the model: fewer --rows are taken where it has to be
    #[arg(long, value_name = "BYTES", default_value_t = MEMORY_DEFAULT, value_parser = above_0)]
    memory: ByteCount,
    /// The predictors file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print what came out as JSON
    #[arg(long)]
    json: bool,
}

/// Farthest that can be asked for.
const HORIZON_MAX: i64 = 8;
const ROWS_DEFAULT: u32 = 24_576;
const MEMORY_DEFAULT: ByteCount = ByteCount(3 << 30);
/// Share of the FFN's bytes, unless a size is given.
const SHARE_DEFAULT: f64 = 0.06;

fn parse_kind(text: &str) -> Result<Kind> {
    Ok(match text {
        "low-rank" => Kind::LowRank,
        "rows:1" => Kind::Rows(1),
        "rows:2" => Kind::Rows(2),
        "rows:4" => Kind::Rows(4),
        "rows:8" => Kind::Rows(8),
        "exact" => Kind::Exact,
        _ => anyhow::bail!("must be low-rank, rows:1, rows:2, rows:4, rows:8 or exact"),
    })
}

fn parse_numbers(text: &str) -> Result<Numbers> {
    match text {
        "q8_0" => Ok(Numbers::Q8_0),
        "f16" => Ok(Numbers::F16),
        _ => anyhow::bail!("must be q8_0 or f16"),
    }
}

fn parse_share(text: &str) -> Result<f64> {
    let share: f64 = text.parse().context("not a number")?;
    ensure!(share > 0.0 && share < 1.0, "must be a share above 0 and below 1");
    Ok(share)
}

/// What stands between others' matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    Nothing,
    Relu,
}

fn parse_between(text: &str) -> Result<Between> {
    match text {
        "none" => Ok(Between::Nothing),
        "relu" => Ok(Between::Relu),
        _ => anyhow::bail!("must be none or relu"),
    }
}

/// What others' predictors take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Ffn,
    Residual,
}

fn parse_input(text: &str) -> Result<Input> {
    match text {
        "ffn" => Ok(Input::Ffn),
        "residual" => Ok(Input::Residual),
        _ => anyhow::bail!("must be ffn or residual"),
    }
}

/// Whose operating points others' predictors get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thresholds {
    Ours,
    Theirs,
}

fn parse_thresholds(text: &str) -> Result<Thresholds> {
    match text {
        "ours" => Ok(Thresholds::Ours),
        "theirs" => Ok(Thresholds::Theirs),
        _ => anyhow::bail!("must be ours or theirs"),
    }
}

/// How others' are to be taken: what is not said is what PowerInfer's own file means.
fn how(args: &Args, others: &Others) -> Import {
    let usual = others.is_powerinfer();
    Import {
        relu: args.between.map_or(usual, |between| between == Between::Relu),
        residual: args.input.map_or(usual, |input| input == Input::Residual),
        theirs: args.thresholds == Thresholds::Theirs,
        numbers: numbers(args, Some(others)),
        recall: args.recall,
    }
}

fn numbers(args: &Args, others: Option<&Others>) -> Numbers {
    let of_file = others.is_some_and(Others::is_powerinfer);
    args.numbers.unwrap_or(if of_file { Numbers::F16 } else { Numbers::Q8_0 })
}

pub(super) fn run(args: &Args) -> Result<()> {
    if let Some(share) = args.activity {
        return thresholds::run(args, share);
    }
    let checkpoint = args.model.open()?;
    let config = &ModelConfig::load(&checkpoint)?;
    config.check_ffn(&checkpoint)?;
    let others = args.from.as_deref().map(Others::open).transpose()?;
    let of_others = others.as_ref().map_or(Vec::new(), |others| others.files(config.layers));
    let of_model = checkpoint.inputs();
    let inputs = args.traces.iter().chain(&of_model).chain(&of_others);
    check_target(&args.output, &inputs.map(PathBuf::as_path).collect::<Vec<_>>())?;
    let settings = settings(args, config, others.as_ref())?;
    check_room(&args.output, settings.bytes(config))?;
    let rows = rows_within(args, config, &settings)?;

    let bar = progress("running", 0);
    let sample = Sample::of_traces(&checkpoint, config, &args.traces, rows, &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    let made = match &others {
        None => {
            let bar = progress("fitting", steps(config, &settings) as u64);
            let made = fit(&checkpoint, config, &sample, &settings, &|| bar.inc(1))?;
            bar.finish_and_clear();
            made
        }
        Some(others) => {
            let bar = progress("setting thresholds", config.layers as u64);
            let how = how(args, others);
            let made = import(others, &how, &checkpoint, config, &sample, &|| bar.inc(1))?;
            bar.finish_and_clear();
            made
        }
    };
    let traces =
        args.traces.iter().map(|path| TraceSource::of_file(path)).collect::<Result<_>>()?;
    let predictors = Predictors {
        model: checkpoint.name(),
        layers: config.layers,
        neurons: config.neurons,
        hidden: config.hidden,
        sources: checkpoint.sources()?,
        ffn_bytes: ffn_bytes(config),
        recall: quality(args, &made),
        rows: sample.rows(),
        traces,
        predictors: made.iter().map(|made| made.predictor.clone()).collect(),
    };
    predictors.write(&args.output)?;
    summarise(&predictors, &made, args)
}

/// What predictors are made for: what was asked for, or what others' own threshold came to.
fn quality(args: &Args, made: &[Made]) -> f64 {
    let only = made.first().map(|made| made.predictor.points());
    let only = only.filter(|_| args.thresholds == Thresholds::Theirs);
    only.map_or(args.recall, |points| points[0].quality.into())
}

/// What was asked for, checked.
fn settings(args: &Args, config: &ModelConfig, others: Option<&Others>) -> Result<Settings> {
    let mut horizons: Vec<usize> = args.horizon.iter().copied().map(usize::from).collect();
    horizons.sort_unstable();
    horizons.dedup();
    let (kind, numbers, recall, train) =
        (args.kind, numbers(args, others), args.recall, args.train as usize);
    let of = |size| Settings { kind, size, numbers, recall, horizons, train };
    let Some(others) = others else {
        ensure!(
            train == 0 || kind == Kind::LowRank,
            "--train refines low-rank predictors: leave --kind or --train out"
        );
        let share = Size::Share(args.bytes.unwrap_or(SHARE_DEFAULT));
        let settings = of(args.rank.map_or(share, Size::Rank));
        settings.check(config)?;
        return Ok(settings);
    };
    let (ranks, step) = (others.ranks(config)?, numbers.columns_step());
    let padded = ranks.iter().filter(|rank| !rank.is_multiple_of(step)).count();
    if padded > 0 {
        let of = format!("{padded} of {} layers", ranks.len());
        say(&format!("lnp: ranks of {of} are padded with zeros to multiples of {step}\n"));
    }
    let widest = ranks.into_iter().max().unwrap_or(1);
    Ok(of(Size::Rank(widest.next_multiple_of(step))))
}

/// As many rows as the memory allows.
fn rows_within(args: &Args, config: &ModelConfig, settings: &Settings) -> Result<usize> {
    let (fixed, row) = memory_of_fit(config, settings);
    let least = fixed + row * u64::from(args.rows.min(ROWS_USEFUL));
    ensure!(
        args.memory.0 >= least,
        "--memory {}: at least {} are needed for this model",
        args.memory,
        bytes(least as f64)
    );
    let most = (args.memory.0 - fixed) / row.max(1);
    let rows = most.min(args.rows.into());
    if rows < args.rows.into() {
        say(&format!("lnp: warning: at most {rows} tokens to learn from, by --memory\n"));
    }
    Ok(rows as usize)
}

/// Fewer than so many are not worth beginning with.
const ROWS_USEFUL: u32 = 1024;

/// One predictor at the operating point that was asked for; the names are a contract.
#[derive(Debug, Serialize)]
struct Row<'a> {
    layer: usize,
    horizon: usize,
    kind: String,
    rank: Option<usize>,
    thresholds: &'static str,
    bytes: usize,
    /// At the quality asked for.
    recall: f32,
    reads_per_active: f32,
    share_kept: f32,
    /// Of training: bundles read over those of the start at the same loss of strength; kept below 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    trained_reads_over_start: Option<f64>,
    /// Of others': what their own threshold comes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    at_theirs: Option<Point>,
    points: &'a [Point],
}

fn row(made: &Made, quality: f64) -> Row<'_> {
    let predictor = &made.predictor;
    let points = predictor.points();
    let point = &points[predictor.point_of(quality)];
    Row {
        layer: predictor.layer,
        horizon: predictor.horizon,
        kind: predictor.body().to_string(),
        rank: predictor.body().rank(),
        thresholds: if predictor.by_neuron() { "neuron" } else { "layer" },
        bytes: predictor.bytes(),
        recall: point.recall,
        reads_per_active: point.reads_per_active,
        share_kept: point.share_kept,
        trained_reads_over_start: made.trained,
        at_theirs: made.at_theirs,
        points,
    }
}

fn summarise(predictors: &Predictors, made: &[Made], args: &Args) -> Result<()> {
    let rows: Vec<Row<'_>> = made.iter().map(|made| row(made, predictors.recall)).collect();
    if args.json {
        let horizons: Vec<usize> = args.horizon.iter().copied().map(usize::from).collect();
        let shares: Vec<f64> = horizons.iter().map(|h| predictors.bytes_share(*h)).collect();
        return print_json(&serde_json::json!({
            "predictors": args.output, "model": predictors.model, "quality": predictors.recall,
            "rows": predictors.rows, "horizons": horizons, "predictor_bytes_share": shares,
            "layers": rows,
        }));
    }
    let (mut head, lines) = (HEAD.to_vec(), rows.iter().map(line));
    let mut lines: Vec<Vec<String>> = lines.collect();
    for (line, row) in lines.iter_mut().zip(&rows) {
        line.extend(row.trained_reads_over_start.map(trained));
        line.extend(
            row.at_theirs.iter().flat_map(|at| {
                [format!("{:.4}", at.recall), format!("{:.3}", at.reads_per_active)]
            }),
        );
    }
    if args.train > 0 {
        head.push("training");
    }
    if args.from.is_some() {
        head.extend(["their recall", "their reads"]);
    }
    print(&table(&head, &lines, 2))?;
    let all: usize = predictors.predictors.iter().map(Predictor::bytes).sum();
    say(&format!(
        "{}: {} in memory, {:.2} % of the FFN in f16; judged on tokens apart of {} at quality {}\n",
        shown(&args.output),
        bytes(all as f64),
        100.0 * all as f64 / predictors.ffn_bytes.max(1) as f64,
        thousands(predictors.rows as f64),
        predictors.recall as f32,
    ));
    Ok(())
}

const HEAD: [&str; 9] = [
    "kind",
    "thresholds",
    "layer",
    "ahead",
    "rank",
    "bytes",
    "recall",
    "reads/active",
    "share kept",
];

/// What training came to.
fn trained(over: f64) -> String {
    format!("{:+.1} %{}", 100.0 * (over - 1.0), if over < 1.0 { "" } else { ": not kept" })
}

fn line(row: &Row<'_>) -> Vec<String> {
    vec![
        row.kind.clone(),
        row.thresholds.into(),
        row.layer.to_string(),
        row.horizon.to_string(),
        row.rank.map_or("-".into(), |rank| rank.to_string()),
        thousands(row.bytes as f64),
        format!("{:.4}", row.recall),
        format!("{:.3}", row.reads_per_active),
        format!("{:.4}", row.share_kept),
    ]
}
