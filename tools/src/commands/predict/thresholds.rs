//! `lnp predict --activity`: thresholds for activations that are zero nowhere.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use lnp_common::files::check_target;
use lnp_common::report::{plain, print, print_json, progress, say, shown, table, thousands};
use lnp_link::trace::TraceReader;
use lnp_model::perplexity::Windows;
use lnp_model::{Activity, Model};
use lnp_predict::activity::{ActivityFile, JUDGE_EVERY, Judged, judge, learn};

use super::super::trace::tokenize;
use super::Args;

/// Positions restart every so many tokens of a text.
const WINDOW: usize = 256;

/// Tokens in whole windows, and the name of their text.
struct Text {
    name: String,
    ids: Vec<u32>,
    window: usize,
}

pub(super) fn run(args: &Args, share: f64) -> Result<()> {
    let model = Model::of(args.model.open()?)?;
    let of_model = model.checkpoint().inputs();
    let inputs = args.traces.iter().chain(&args.text).chain(&of_model);
    check_target(&args.output, &inputs.map(PathBuf::as_path).collect::<Vec<_>>())?;
    let texts = texts(args, &model)?;
    let window = texts.iter().map(|text| text.window).min().unwrap_or(WINDOW);
    let (fit, held) = split(&texts, window, args.rows as usize);
    ensure!(
        !held.is_empty(),
        "too little text: {} tokens, at least {} are needed",
        thousands(fit.len() as f64),
        thousands((JUDGE_EVERY * window) as f64)
    );
    let (fit, held) = (Windows::new(&model, fit, window)?, Windows::new(&model, held, window)?);

    let bar = progress("running", (fit.tokens() + 2 * held.tokens()) as u64);
    let activity =
        learn(&model, &fit, share, args.measure, &mut |fed| bar.set_position(fed as u64))
            .with_context(|| args.model.path.display().to_string())?;
    let fed = &mut |more| bar.set_position((fit.tokens() + more) as u64);
    let judged = judge(&model, &held, &activity, fed)?;
    bar.finish_and_clear();

    let made = ActivityFile {
        model: model.checkpoint().name(),
        sources: model.checkpoint().sources()?,
        activity,
        tokens: fit.tokens(),
        texts: texts.iter().map(|text| plain(&text.name)).collect(),
    };
    made.write(&args.output)?;
    summarise(args, &made, &judged, held.tokens())
}

fn texts(args: &Args, model: &Model) -> Result<Vec<Text>> {
    let mut texts = Vec::new();
    for path in &args.text {
        let window = WINDOW.min(model.config().max_positions);
        texts.push(Text { name: name(path), ids: tokenize(&args.model.path, path)?, window });
    }
    for path in &args.traces {
        let trace = TraceReader::open(path)?;
        let ids = trace.token_ids()?.with_context(|| {
            format!("{}: the trace carries no token_ids; use --text", path.display())
        })?;
        texts.push(Text { name: name(path), ids, window: trace.window() });
    }
    Ok(texts)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Tokens to learn from and to judge by, in whole windows: at most so many in all, of each text its share.
fn split(texts: &[Text], window: usize, most: usize) -> (Vec<u32>, Vec<u32>) {
    let (mut fit, mut held) = (Vec::new(), Vec::new());
    let each = most / texts.len().max(1) / window;
    let windows = texts.iter().flat_map(|text| text.ids.chunks_exact(window).take(each.max(1)));
    for (number, ids) in windows.enumerate() {
        if number % JUDGE_EVERY == JUDGE_EVERY - 1 { &mut held } else { &mut fit }.extend(ids);
    }
    (fit, held)
}

fn summarise(args: &Args, made: &ActivityFile, judged: &Judged, held: usize) -> Result<()> {
    let Activity { share, measure, thresholds } = &made.activity;
    let mean = judged.active_share.iter().sum::<f64>() / judged.active_share.len().max(1) as f64;
    let over_dense = (judged.active.nats - judged.dense.nats).exp();
    if args.json {
        return print_json(&serde_json::json!({
            "activity": args.output, "model": made.model, "share": share,
            "measure": measure.to_string(), "thresholds": thresholds, "tokens": made.tokens,
            "texts": made.texts, "held_out": {
                "tokens": held, "active_share": mean, "active_share_by_layer": judged.active_share,
                "perplexity_dense": judged.dense.perplexity(),
                "perplexity": judged.active.perplexity(), "perplexity_over_dense": over_dense,
            },
        }));
    }
    let lines: Vec<Vec<String>> = thresholds
        .iter()
        .zip(&judged.active_share)
        .enumerate()
        .map(|(layer, (threshold, active))| {
            let active = format!("{:.2} %", 100.0 * active);
            vec![layer.to_string(), format!("{threshold:.5}"), active]
        })
        .collect();
    print(&table(&["layer", "threshold", "active"], &lines, 0))?;
    say(&format!(
        "{}: {measure} above thresholds of {} tokens; on {} tokens apart {:.1} % active and perplexity {:.3}, \
         {:+.2} % over the dense model's {:.3}\n",
        shown(&args.output),
        thousands(made.tokens as f64),
        thousands(held as f64),
        100.0 * mean,
        judged.active.perplexity(),
        100.0 * (over_dense - 1.0),
        judged.dense.perplexity(),
    ));
    Ok(())
}
