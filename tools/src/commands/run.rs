//! `lnp run`.

mod predictor;
mod sampling;
mod strategy;
mod stream;
mod summary;
mod turns;

use std::path::PathBuf;
use std::slice;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use lnp_engine::limits::RECORD_SPAN_TOKENS_MAX;
use lnp_engine::recorder::{Recorder, RecorderConfig};
use lnp_engine::{Collapse, EngineError};

pub(super) use predictor::parse_ahead;
use predictor::{Quality, Source, parse_quality};
use sampling::SamplingArgs;
use strategy::Strategy;
use stream::Stream;
use summary::{Made, Memory, Summary, engine_facts};
use turns::Turns;

use super::byte_count::ByteCount;
use super::model::{DenseArgs, ModelArgs, parse_kv_type};
use super::perplexity::parse_share;
use super::thresholds::of_file_or_packs;
use super::timeline::TimelineArgs;
use super::{KernelArgs, ReadArgs, say_back_end};
use lnp_common::files::check_target;
use lnp_common::report::{bytes, say};
use lnp_device::memory_bytes;
use lnp_measure::profile::DeviceProfile;
use lnp_model::{Checkpoint, KvOptions, KvType, Model, ModelConfig, Text, Tokenizer};
use lnp_pack::PackIndex;
use lnp_run::compute::{CACHE_RATIO_USUAL, ComputeOptions, ComputePack, GAP_BYTES_USUAL};
use lnp_run::stored::Stored;
use lnp_run::{
    AheadChoice, Leaving, MemoryPlan, PROGRAM_BYTES_MORE, ReadAhead, SparseFfn, write_recorded,
};

/// Generate text, reading the FFN weights from a pack
///
/// Attention, embeddings and norms are in memory: those of the model, or those in the pack (`lnp pack --resident`). Which neurons are active is told by the predictors in the pack, or
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
    /// To compare: read every layer as a whole (dense), or what is active from a pack in this order, and no other [default:
    /// what is active, whatever the order]
    #[arg(long, value_name = "NAME", value_enum)]
    strategy: Option<Strategy>,
    /// Read so many layers ahead by predictors: those of `lnp predict --horizon`, or, one layer ahead, each layer's own on
    /// the input of the layer before; `auto`: those for which it takes less time, by the law and by what is measured
    /// meanwhile. The text is the same
    #[arg(long, value_name = "auto|0|1|2", default_value = "auto", value_parser = parse_ahead)]
    ahead: AheadChoice,
    /// Lossy: of the squared strength of a layer's neurons, as predictors estimate it, leave this share unread where that
    /// saves most device time; not of a prompt, whose tokens share their reads. 0.002 to 0.02 are usual
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    leave_out: Option<f64>,
    /// Most memory that everything may take, the program and its tokenizer too (800M): what is left beside attention,
    /// embeddings, predictors, keys and values is the engine's, most of it cache. Told before anything is loaded
    #[arg(long, value_name = "BYTES", conflicts_with = "cache_ratio")]
    memory: Option<ByteCount>,
    /// Type in which keys and values are held: f32 or f16
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = parse_kv_type)]
    kv_dtype: KvType,
    /// Most tokens of a text, prompt and all replies: memory for their keys and values is set aside [default: what the prompt
    /// and -n ask for; of a chat what the model can]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    context: Option<u32>,
    /// Write which neurons were active as a trace for `lnp relink --seen`; no text and no token ids are in it. It is kept
    /// in memory until the end
    #[arg(long, value_name = "FILE", conflicts_with = "strategy")]
    record: Option<PathBuf>,
    /// Most tokens whose active neurons are recorded: of a longer text a sample, and counts of all. Each takes an eighth
    /// of a byte of memory for each neuron of the model
    #[arg(long, value_name = "N", default_value_t = 2048, requires = "record",
        value_parser = clap::value_parser!(u32).range(1..=RECORD_SPAN_TOKENS_MAX as i64))]
    record_tokens: u32,
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
    #[command(flatten)]
    timeline: TimelineArgs,
    /// Print {prompt_ids, token_ids, text, ...} as JSON; an end-of-text token that was stopped at is the
    /// last of token_ids, and not in the text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
}

impl Args {
    /// What is to be recorded of a text of at most so many tokens, if anything.
    fn recorder_config(&self, tokens: usize) -> Option<RecorderConfig> {
        let most = self.record_tokens.min(u32::try_from(tokens).unwrap_or(u32::MAX)).max(1);
        self.record.as_ref().map(|_| RecorderConfig::new(most))
    }
}

pub(super) fn run(args: &Args) -> Result<()> {
    if args.chat && args.json && args.prompt.is_none() {
        bail!("--json tells of one reply: give the question with --prompt");
    }
    if let Some(path) = &args.record {
        check_target(path, &[&args.pack])?;
    }
    let begin = Instant::now();
    let inputs =
        [Some(&args.pack), Some(&args.model.path), args.predictors.as_ref(), args.device.as_ref()];
    args.timeline.check(&inputs.into_iter().flatten().map(PathBuf::as_path).collect::<Vec<_>>())?;
    let mut sampler = args.sampling.sampler()?;
    let index = PackIndex::open(&args.pack)?;
    let (checkpoint, dense) = checkpoint(args, &index)?;
    let config = ModelConfig::load(&checkpoint)?;
    let packs = slice::from_ref(&index);
    let activity = of_file_or_packs(&checkpoint, &config, args.activity.as_deref(), packs)?;
    let config = config.with_activity(activity.clone())?;
    let tokenizer = Tokenizer::load(&args.model.path)?;
    let mut turns = Turns::of(args, &config, &tokenizer)?;
    let most =
        args.context.map_or(config.max_positions, |most| config.max_positions.min(most as usize));
    let (prompt, tokens) = turns.sizes(args.count, most);
    let kv = KvOptions { dtype: args.kv_dtype, tokens };
    let strategy = Strategy::chosen(args.strategy, &index.pack()?)?;
    let source = match strategy {
        Strategy::Dense => Source::every(args)?,
        _ => Source::of(args, (&checkpoint, &config), &index.pack()?)?,
    };

    // All that memory goes to, before what takes it is loaded.
    let options = ComputeOptions {
        ahead: source.ahead(),
        batch: usize::from(args.kernels.batch).min(prompt).max(1),
        ..options(args)?
    };
    let dense = dense.options(options.features);
    let mut memory = source.memory(options.features)?;
    let recorder_config = args.recorder_config(tokens);
    let shape = *index.pack()?.shape();
    let recorder_bytes = match &recorder_config {
        Some(config) => Recorder::required_bytes(&shape, config)?,
        None => 0,
    };
    let plan = MemoryPlan {
        program: (memory_bytes() as usize).saturating_sub(index.resident_bytes())
            + PROGRAM_BYTES_MORE,
        index: index.resident_bytes(),
        model: Model::bytes_needed(&checkpoint, dense)?,
        predictor: source.bytes_needed(&checkpoint, &config)? + memory.len() + recorder_bytes,
        keys_and_values: config.kv_bytes(kv),
        scratch: config.scratch_bytes(prompt, source.exact()),
        engine: 0,
    };
    let left = |limit: ByteCount| {
        plan.left_for_arena(limit.saturating_usize(), ComputePack::bytes_min(&index, &options)?)
    };
    let options = ComputeOptions { memory: args.memory.map(left).transpose()?, ..options };
    let mut pack = ComputePack::open(&index, &config, options)?;
    let (engine_config, arena_bytes) = (*pack.config(), pack.arena_bytes());
    let plan = MemoryPlan { engine: pack.bytes(), ..plan };
    if args.memory.is_some() {
        say(&format!("memory {}: {}\n", bytes(plan.total() as f64), plan.in_words()));
    }

    let model = Model::held(checkpoint, dense)?.with_activity(activity)?;
    let of_model = (model.checkpoint(), model.config());
    let predictor = source.predictor(of_model, options.features, &mut memory)?;
    if let (Some(_), false) = (args.leave_out, predictor.tells_strengths) {
        bail!(
            "--leave-out: what tells the active set here tells no strengths; make predictors with `lnp predict` and \
             use them (no --quality exact)"
        );
    }
    let (mut engine, ffn) = pack.engine(&model)?;
    let back_end = engine.queue().inner().back_end().clone();
    say_back_end(&back_end);

    let loaded_s = begin.elapsed().as_secs_f64();
    let eos: &[u32] = if args.ignore_eos { &[] } else { &model.config().eos_token_ids };
    let tier = ffn.tier().name();
    let kernels = format!("{tier} {}", engine.pack().shape().dtype);
    let threads = args.kernels.start_threads()?;
    let mut recorder_memory = vec![0; recorder_bytes];
    let recorder = recorder_config
        .map(|config| Recorder::new(&shape, &config, &mut recorder_memory))
        .transpose()?;
    let mut leaving_memory = args.leave_out.map(|_| Leaving::memory(&shape)).unwrap_or_default();
    let leaving = args.leave_out.map(|share| {
        Leaving::new(&shape, &engine_config.collapse, share, false, &mut leaving_memory)
    });
    let leaving = leaving.transpose()?;
    // One session for the whole generation, on one of the threads that compute.
    let made = threads.run(|| {
        engine.session(|session| {
            let mut sparse = SparseFfn::new(session, ffn, &*predictor.predict, &threads)
                .timed(args.timeline.tokens());
            if engine_config.prefetch_bytes > 0 {
                let layers = model.config().layers;
                sparse =
                    sparse.reading_ahead(ReadAhead::new(args.ahead, layers, predictor.quality));
            }
            if let Some(leaving) = leaving {
                sparse = sparse.leaving_out(leaving);
            }
            sparse = sparse.recording(recorder);
            let (mut text, mut made) = (Text::with(&model, kv), Made::default());
            while let Some(ids) = turns.next()? {
                let mut stream = Stream::new(tokenizer.decoder(false), eos, &args.stop, args.json);
                let count = turns.count(args.count, ids.len(), most);
                ensure!(
                    ids.len().saturating_add(count) <= most + 1 || args.context.is_none(),
                    "--context {most} is too small: the text has {} tokens and {count} are to follow",
                    ids.len()
                );
                let take = &mut |token| stream.take(token);
                let generated = text.go_on(&model, &mut sparse, &ids, count, &mut sampler, take)?;
                let told = stream.end()?;
                turns.replied(&told.text);
                made.add(ids, generated, told);
            }
            let ahead = sparse.ahead().map(ReadAhead::horizons);
            let left_out = sparse.leaving().map(Leaving::left_out);
            if let (Some(recorder), Some(path)) = (sparse.recorder(), &args.record) {
                write_recorded(path, recorder, &model, &predictor.told)?;
            }
            let facts = (*sparse.stats(), sparse.active_bundles(), *sparse.alone());
            args.timeline.write(&sparse.timeline().into_iter().collect::<Vec<_>>())?;
            Ok((made, facts, ahead, left_out))
        })
    });
    let (made, (stats, active_bundles, generated), ahead, left_out) =
        made.map_err(|error: anyhow::Error| match error.downcast_ref::<EngineError>() {
            Some(_) => error.context(index.path().display().to_string()),
            None => error,
        })?;
    let summary = Summary {
        args,
        strategy: strategy.name(),
        resident: !model.checkpoint().has_ffn(),
        memory: Memory {
            plan,
            model: model.resident_bytes(),
            predictor: predictor.predict.resident_bytes(),
            arena: arena_bytes,
            staging: engine_config.staging_bytes,
            state: made.state_bytes,
        },
        made,
        stats,
        active_bundles,
        generated,
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
            &engine_config,
            tier,
            &back_end,
            (&summary.memory, &summary.told_active),
        ));
    }
    summary.print();
    Ok(())
}

/// The weights besides the FFN, and how they are held: those in the pack, where it has some, and nothing is asked for that
/// needs the model's own.
fn checkpoint(args: &Args, index: &PackIndex) -> Result<(Checkpoint, DenseArgs)> {
    let pack = index.pack()?;
    let asked = args.dense.is_asked()
        || args.predictors.is_some()
        || args.activity.is_some()
        || args.quality == Some(Quality::Exact)
        || Stored::of_pack(&pack).is_none();
    match pack.resident().filter(|_| !asked) {
        Some((offset, bytes)) => {
            let checkpoint = args.model.open_of_pack(index.path(), offset, bytes)?;
            Ok((checkpoint, args.dense.or_stored()))
        }
        None => Ok((args.model.open()?, args.dense)),
    }
}

fn options(args: &Args) -> Result<ComputeOptions> {
    Ok(ComputeOptions {
        collapse: collapse(args)?,
        queue_depth: args.queue_depth,
        verify_reads: args.verify_reads,
        memory: None,
        cache_ratio: args.cache_ratio,
        features: args.kernels.features()?,
        batch: args.kernels.batch.into(),
        ahead: false,
        read: args.read.into(),
        buffered: args.buffered,
        logged: args.timeline.tokens().is_some(),
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
