//! `lnp run`.

mod predictor;
mod sampling;
mod stream;
mod summary;
mod turns;

use std::path::PathBuf;
use std::slice;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use lnp_engine::{Collapse, EngineError};

pub(super) use predictor::parse_ahead;
use predictor::{Quality, Source, parse_quality};
use sampling::SamplingArgs;
use stream::Stream;
use summary::{Made, Memory, Summary, engine_facts};
use turns::Turns;

use super::byte_count::ByteCount;
use super::model::{DenseArgs, ModelArgs};
use super::perplexity::parse_share;
use super::thresholds::with_activity;
use super::{KernelArgs, ReadArgs, say_back_end};
use lnp_measure::profile::DeviceProfile;
use lnp_model::{Text, Tokenizer};
use lnp_pack::PackIndex;
use lnp_run::compute::{CACHE_RATIO_USUAL, ComputeOptions, ComputePack, GAP_BYTES_USUAL};
use lnp_run::{AheadChoice, Leaving, ReadAhead, SparseFfn};

/// Generate text, reading the FFN weights from a pack
///
/// Attention, embeddings and norms are in memory. Which neurons are active is told by the predictors in the pack, or
/// those of --predictors, made by `lnp predict`; or it is computed exactly, from gate weights, or up where there is no
/// gate, that are in memory too. Where the predictors know layers ahead (`lnp predict --horizon 0,1,2`), these are read while the ones before are computed.
/// The text ends at the model's end-of-text token (generation_config.json, else config.json), or after
/// -n tokens.
///
/// Example: lnp run opt.lnp --model opt-relu --prompt "Once upon a time" -n 40 --predictors opt.predictors
///
/// Example: lnp run tuned.lnp --model tuned-relu --chat --temperature 0.7 --top-p 0.9
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pack with the model's FFN
    #[arg(value_name = "PACK")]
    pack: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    dense: DenseArgs,
    /// Text to continue; the model's bos token is put first, unless it begins with it
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, required_unless_present = "chat")]
    prompt: Option<String>,
    /// Ask the model by its chat template: the --prompt, or, without one, line by line from stdin until its end; what
    /// was said stays in memory between the lines
    #[arg(long, conflicts_with = "no_bos")]
    chat: bool,
    /// What a chat begins with: how the model shall be
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, requires = "chat")]
    system: Option<String>,
    /// Put no bos token before the prompt
    #[arg(long)]
    no_bos: bool,
    /// Tokens to generate; of a chat, most tokens of a reply [default: 64; of a chat 1024, or what the context holds]
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<usize>,
    /// End at this text, which is not printed; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = parse_stop)]
    stop: Vec<String>,
    /// Go on past the model's end-of-text token, which is printed then
    #[arg(long)]
    ignore_eos: bool,
    /// What it does anyway, for scripts that say so
    #[arg(long, hide = true, conflicts_with = "ignore_eos")]
    stop_at_eos: bool,
    /// Predictors of this model, made by `lnp predict`, in place of those in the pack: what they name is read, and
    /// nothing else
    #[arg(long, value_name = "FILE")]
    predictors: Option<PathBuf>,
    /// Thresholds of this model, made by `lnp predict --activity`, in place of those that the pack tells of
    #[arg(long, value_name = "FILE")]
    activity: Option<PathBuf>,
    /// How much of what is active the predictors shall name: `exact` for all, computed, or the recall of an operating
    /// point [default: the one that they were made for; exact where there are none]
    #[arg(long, value_name = "exact|R", value_parser = parse_quality)]
    quality: Option<Quality>,
    /// Read so many layers ahead by --predictors; `auto`: those for which it takes less time, by the law and by what is
    /// measured meanwhile. The text is the same
    #[arg(long, value_name = "auto|0|1|2", default_value = "auto", value_parser = parse_ahead)]
    ahead: AheadChoice,
    /// Lossy: of the squared strength of a layer's neurons, as predictors estimate it, leave this share unread where that
    /// saves most device time; not of a prompt, whose tokens share their reads. 0.002 to 0.02 are usual
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    leave_out: Option<f64>,
    /// Bytes of the engine's arena: staging area and cache (64M)
    #[arg(long, value_name = "BYTES", conflicts_with = "cache_ratio")]
    memory: Option<ByteCount>,
    /// Share of the bundles that the cache holds
    #[arg(long, value_name = "R", default_value_t = CACHE_RATIO_USUAL)]
    cache_ratio: f64,
    /// Device profile whose law decides which reads are merged
    #[arg(long, value_name = "FILE", conflicts_with = "gap")]
    device: Option<PathBuf>,
    /// Merge by the profile's measured curve at this queue depth instead of its law
    #[arg(long, requires = "device")]
    curve: bool,
    /// Merge across holes smaller than so many bytes [default: the law of --device, or 16K]
    #[arg(long, value_name = "BYTES")]
    gap: Option<ByteCount>,
    /// Reads in flight
    #[arg(long, value_name = "N", default_value_t = lnp_engine::limits::QUEUE_DEPTH_DEFAULT)]
    queue_depth: u32,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    kernels: KernelArgs,
    /// Check every bundle read against its checksum
    #[arg(long)]
    verify_reads: bool,
    /// Go on through the page cache where the file system refuses direct reads
    #[arg(long)]
    buffered: bool,
    /// Print {prompt_ids, token_ids, text, ...} as JSON; an end-of-text token that was stopped at is the
    /// last of token_ids, and not in the text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
}

pub(super) fn run(args: &Args) -> Result<()> {
    if args.chat && args.json && args.prompt.is_none() {
        bail!("--json tells of one reply: give the question with --prompt");
    }
    let begin = Instant::now();
    let mut sampler = args.sampling.sampler()?;
    let index = PackIndex::open(&args.pack)?;
    // Before the model, which takes longer to load.
    let tokenizer = Tokenizer::load(&args.model.path)?;
    let model = args.dense.load(args.model.open()?, args.kernels.features()?)?;
    let model = with_activity(model, args.activity.as_deref(), slice::from_ref(&index))?;
    let options = options(args)?;
    let source = Source::of(args, &model, &index.pack()?)?;
    let mut memory = source.memory(options.features)?;
    let predictor = source.predictor(&model, options.features, &mut memory)?;
    if let (Some(_), false) = (args.leave_out, predictor.tells_strengths) {
        bail!(
            "--leave-out: what tells the active set here tells no strengths; make predictors with `lnp predict` and \
             use them (no --quality exact)"
        );
    }
    let options = ComputeOptions { ahead: predictor.ahead, ..options };
    let mut pack = ComputePack::open(&index, &model, options)?;
    let (config, arena_bytes) = (*pack.config(), pack.arena_bytes());
    let (mut engine, ffn) = pack.engine(&model)?;
    let back_end = engine.queue().back_end().clone();
    say_back_end(&back_end);

    let mut turns = Turns::of(args, &model, &tokenizer)?;
    let loaded_s = begin.elapsed().as_secs_f64();
    let eos: &[u32] = if args.ignore_eos { &[] } else { &model.config().eos_token_ids };
    let tier = ffn.tier().name();
    let kernels = format!("{tier} {}", engine.pack().shape().dtype);
    let threads = args.kernels.start_threads()?;
    let shape = *engine.pack().shape();
    let mut leaving_memory = args.leave_out.map(|_| Leaving::memory(&shape)).unwrap_or_default();
    let leaving = args
        .leave_out
        .map(|share| Leaving::new(&shape, &config.collapse, share, false, &mut leaving_memory));
    let leaving = leaving.transpose()?;
    // One session for the whole generation, on one of the threads that compute.
    let made = threads.run(|| {
        engine.session(|session| {
            let mut sparse = SparseFfn::new(session, ffn, &*predictor.predict, &threads);
            if config.prefetch_bytes > 0 {
                let layers = model.config().layers;
                sparse =
                    sparse.reading_ahead(ReadAhead::new(args.ahead, layers, predictor.quality));
            }
            if let Some(leaving) = leaving {
                sparse = sparse.leaving_out(leaving);
            }
            let (mut text, mut made) = (Text::new(&model), Made::default());
            while let Some(ids) = turns.next()? {
                let mut stream = Stream::new(tokenizer.decoder(false), eos, &args.stop, args.json);
                let count = turns.count(args.count, ids.len(), model.config().max_positions);
                let take = &mut |token| stream.take(token);
                let generated = text.go_on(&model, &mut sparse, &ids, count, &mut sampler, take)?;
                let told = stream.end()?;
                turns.replied(&told.text);
                made.add(ids, generated, told);
            }
            let ahead = sparse.ahead().map(ReadAhead::horizons);
            let left_out = sparse.leaving().map(Leaving::left_out);
            Ok((made, *sparse.stats(), sparse.active_bundles(), ahead, left_out))
        })
    });
    let (made, stats, active_bundles, ahead, left_out) =
        made.map_err(|error: anyhow::Error| match error.downcast_ref::<EngineError>() {
            Some(_) => error.context(index.path().display().to_string()),
            None => error,
        })?;
    let summary = Summary {
        args,
        memory: Memory {
            model: model.resident_bytes(),
            predictor: predictor.predict.resident_bytes(),
            arena: arena_bytes,
            staging: config.staging_bytes,
            state: made.state_bytes,
        },
        made,
        stats,
        active_bundles,
        ahead: ahead.unwrap_or_default(),
        left_out,
        told_active: predictor.told,
        recall: predictor.predict.recall(),
        predictor_bytes_share: predictor.bytes_share,
        kernels,
        threads: threads.count(),
        loaded_s,
        synthetic: model.checkpoint().synthetic().is_some(),
    };
    if args.json {
        return summary.print_json(&engine_facts(
            &config,
            tier,
            &back_end,
            (&summary.memory, &summary.told_active),
        ));
    }
    summary.print();
    Ok(())
}

fn options(args: &Args) -> Result<ComputeOptions> {
    Ok(ComputeOptions {
        collapse: collapse(args)?,
        queue_depth: args.queue_depth,
        verify_reads: args.verify_reads,
        memory: args.memory.map(ByteCount::saturating_usize),
        cache_ratio: args.cache_ratio,
        features: args.kernels.features()?,
        batch: args.kernels.batch.into(),
        ahead: false,
        read: args.read.into(),
        buffered: args.buffered,
    })
}

fn collapse(args: &Args) -> Result<Collapse> {
    Ok(match (&args.device, args.gap) {
        (Some(device), _) if args.curve => {
            let curve = DeviceProfile::read(device)?.curve(args.queue_depth);
            Collapse::Curve(curve.with_context(|| format!("--curve: {}", device.display()))?)
        }
        (Some(device), _) => Collapse::Law(DeviceProfile::read(device)?.law.law()?),
        (None, Some(ByteCount(0))) => Collapse::Off,
        (None, gap) => Collapse::Gap { bytes: gap.map_or(GAP_BYTES_USUAL, |gap| gap.0) },
    })
}

/// A text of `--stop`.
fn parse_stop(text: &str) -> Result<String> {
    ensure!(!text.is_empty(), "an empty text is everywhere: give at least one character");
    Ok(text.to_owned())
}
