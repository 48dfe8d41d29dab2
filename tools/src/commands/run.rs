//! `lnp run`.

mod predictor;

use std::path::PathBuf;
use std::slice;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use lnp_engine::engine::LeftOut;
use lnp_engine::sys::BackEnd;
use lnp_engine::{Collapse, Config, EngineError, FetchStats};

pub(super) use predictor::parse_ahead;
use predictor::{Quality, Source, parse_quality};

use super::byte_count::ByteCount;
use super::model::ModelArgs;
use super::perplexity::parse_share;
use super::thresholds::with_activity;
use super::{KernelArgs, ReadArgs, say_back_end};
use lnp_common::report::{bytes, print_json, say};
use lnp_device::peak_memory_bytes;
use lnp_measure::profile::DeviceProfile;
use lnp_model::{Decoder, Generated, Model, Sampler, Tokenizer, generate, prompt_ids};
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
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pack with the model's FFN
    #[arg(value_name = "PACK")]
    pack: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// Text to continue; the model's bos token is put first, unless it begins with it
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: String,
    /// Put no bos token before the prompt
    #[arg(long)]
    no_bos: bool,
    /// Tokens to generate
    #[arg(short = 'n', long, value_name = "N", default_value_t = 64)]
    count: usize,
    /// Go on past the model's end-of-text token, which is printed then
    #[arg(long)]
    ignore_eos: bool,
    /// What it does anyway, for scripts that say so
    #[arg(long, hide = true, conflicts_with = "ignore_eos")]
    stop_at_eos: bool,
    /// 0 for the most likely token, above 0 for chance
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Seed of chance
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
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
}

pub(super) fn run(args: &Args) -> Result<()> {
    let begin = Instant::now();
    let index = PackIndex::open(&args.pack)?;
    // Before the model, which takes longer to load.
    let tokenizer = Tokenizer::load(&args.model.path)?;
    let model = Model::of(args.model.open()?)?;
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

    let prompt_ids =
        prompt_ids(&args.model.path, model.config(), &tokenizer, &args.prompt, args.no_bos)?;
    let mut sampler = Sampler::new(args.temperature, args.seed)?;
    let loaded_s = begin.elapsed().as_secs_f64();
    let eos: &[u32] = if args.ignore_eos { &[] } else { &model.config().eos_token_ids };
    let mut stream = Stream::new(tokenizer.decoder(false), eos, args.json);
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
            let take = &mut |token| stream.take(token);
            let generated =
                generate(&model, &mut sparse, &prompt_ids, args.count, &mut sampler, take)?;
            let ahead = sparse.ahead().map(ReadAhead::horizons);
            let left_out = sparse.leaving().map(Leaving::left_out);
            Ok((generated, *sparse.stats(), sparse.active_bundles(), ahead, left_out))
        })
    });
    let (generated, stats, active_bundles, ahead, left_out) =
        made.map_err(|error: anyhow::Error| match error.downcast_ref::<EngineError>() {
            Some(_) => error.context(index.path().display().to_string()),
            None => error,
        })?;
    let told = stream.end()?;
    let summary = Summary {
        args,
        prompt_ids,
        memory: Memory {
            model: model.resident_bytes(),
            predictor: predictor.predict.resident_bytes(),
            arena: arena_bytes,
            staging: config.staging_bytes,
            state: generated.state_bytes,
        },
        generated,
        told,
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

/// Text as it comes, on stdout; not with `--json`, whose text comes whole.
struct Stream<'a> {
    decoder: Decoder<'a>,
    /// Tokens that end the text.
    eos: &'a [u32],
    json: bool,
    begin: Instant,
    told: Told,
}

/// What a [`Stream`] told.
#[derive(Default)]
struct Told {
    text: String,
    /// Whether a token ended it.
    at_eos: bool,
    /// When the first token was there, seconds after the prompt was given; none came: `seconds`.
    first_token_s: Option<f64>,
    /// In all.
    seconds: f64,
}

impl<'a> Stream<'a> {
    fn new(decoder: Decoder<'a>, eos: &'a [u32], json: bool) -> Self {
        Self { decoder, eos, json, begin: Instant::now(), told: Told::default() }
    }

    /// Takes a token; false where it ends the text.
    fn take(&mut self, token: u32) -> Result<bool> {
        self.told.first_token_s.get_or_insert_with(|| self.begin.elapsed().as_secs_f64());
        if self.eos.contains(&token) {
            self.told.at_eos = true;
            return Ok(false);
        }
        let piece = self.decoder.push(token)?;
        self.told.text += &piece;
        if self.json { Ok(()) } else { lnp_common::report::print(&piece) }?;
        Ok(true)
    }

    fn end(self) -> Result<Told> {
        let mut told = self.told;
        let rest = self.decoder.finish()?;
        if !self.json {
            lnp_common::report::print(&(rest.clone() + "\n"))?;
        }
        told.text += &rest;
        told.seconds = self.begin.elapsed().as_secs_f64();
        Ok(told)
    }
}

fn engine_facts(
    config: &Config,
    kernel_tier: &str,
    back_end: &BackEnd,
    (memory, told_active): (&Memory, &str),
) -> serde_json::Value {
    serde_json::json!({
        "back_end": back_end.name(), "reads_through": back_end.to_string(), "kernel_tier": kernel_tier,
        "collapse": config.collapse.name(), "cache_bundles": config.cache_bundles,
        "staging_bytes": config.staging_bytes, "queue_depth": config.queue_depth,
        "active_set": told_active,
        "predictor_resident_bytes": memory.predictor, "model_resident_bytes": memory.model,
        "arena_bytes": memory.arena, "attention_state_bytes": memory.state,
    })
}

/// What memory went to, bytes.
struct Memory {
    /// Attention, embeddings, norms.
    model: usize,
    /// Rows that tell which neurons are active.
    predictor: usize,
    /// Of the engine.
    arena: usize,
    /// Of it, what reads go to; the rest is cache.
    staging: usize,
    /// Keys and values.
    state: usize,
}

impl Memory {
    fn in_words(&self) -> String {
        let of = |count: usize| bytes(count as f64);
        format!(
            "peak memory {}: attention and embeddings {}, what tells who is active {}, the \
             engine's arena {} ({} of it staging, the rest cache), keys and values {}",
            bytes(peak_memory_bytes() as f64),
            of(self.model),
            of(self.predictor),
            of(self.arena),
            of(self.staging),
            of(self.state),
        )
    }
}

/// What came of a run.
struct Summary<'a> {
    args: &'a Args,
    prompt_ids: Vec<u32>,
    generated: Generated,
    told: Told,
    stats: FetchStats,
    active_bundles: u64,
    /// Of each layer, how many layers ahead it was read at last; empty where there was no reading ahead.
    ahead: Vec<usize>,
    /// Where bundles may be left out.
    left_out: Option<LeftOut>,
    /// Who tells which neurons are active.
    told_active: String,
    /// Share of the active neurons that are told, by the profile that predictors were made from.
    recall: f64,
    predictor_bytes_share: f64,
    kernels: String,
    threads: usize,
    loaded_s: f64,
    memory: Memory,
}

impl Summary<'_> {
    /// Tokens that went through the model.
    fn fed(&self) -> f64 {
        self.generated.fed.max(1) as f64
    }

    fn prompt_s(&self) -> f64 {
        self.told.first_token_s.unwrap_or(self.told.seconds)
    }

    /// Of the tokens after the first; none where there are none.
    fn tokens_per_s(&self) -> Option<f64> {
        let after_first = self.generated.tokens.len().checked_sub(1).filter(|count| *count > 0)?;
        Some(after_first as f64 / (self.told.seconds - self.prompt_s()).max(1e-9))
    }

    /// Bundles fetched for each whose coefficient was not 0.
    fn reads_per_active(&self) -> f64 {
        let useful = self.stats.active - self.stats.in_vain;
        self.stats.active as f64 / useful.max(1) as f64
    }

    fn per_token(&self, count: u64) -> f64 {
        count as f64 / self.fed()
    }

    /// What was read ahead, where anything was.
    fn told_ahead(&self) -> String {
        let layers = self.ahead.iter().filter(|horizon| **horizon > 0).count();
        if self.stats.ahead_reads == 0 {
            return String::new();
        }
        format!(
            "; {layers} of {} layers read ahead, {:.1} reads per token",
            self.ahead.len(),
            self.per_token(self.stats.ahead_reads)
        )
    }

    /// What was left out, where anything may be.
    fn told_left_out(&self) -> String {
        let Some(left_out) = self.left_out.filter(|left_out| left_out.sets > 0) else {
            return String::new();
        };
        format!(
            "; left out {:.1} bundles of a layer and token, {:.2} % of the squared strength as estimated",
            left_out.bundles as f64 / left_out.sets as f64,
            100.0 * left_out.lost_share(),
        )
    }

    fn hit_rate(&self) -> f64 {
        self.stats.hits as f64 / self.stats.active.max(1) as f64
    }

    fn print(&self) {
        let count = self.generated.tokens.len();
        let end = if self.told.at_eos { ", the last of them end of text" } else { "" };
        let rate =
            self.tokens_per_s().map_or(String::new(), |rate| format!("{rate:.1} tokens/s, "));
        say(&format!(
            "{rate}{count} tokens{end} after a prompt of {}; per token {:.0} active bundles, {:.1} \
             reads, {}, I/O {:.0} us; {:.1} % hits; kernels {} on {} {}; active sets {}, {:.3} \
             fetched for each that was active{}{}; {}\n",
            self.prompt_ids.len(),
            self.active_bundles as f64 / self.fed(),
            self.per_token(self.stats.reads + self.stats.ahead_reads),
            bytes(self.per_token(self.stats.bytes_read + self.stats.ahead_bytes)),
            self.stats.io_ns as f64 / 1e3 / self.fed(),
            100.0 * self.hit_rate(),
            self.kernels,
            self.threads,
            if self.threads == 1 { "thread" } else { "threads" },
            self.told_active,
            self.reads_per_active(),
            self.told_ahead(),
            self.told_left_out(),
            self.memory.in_words(),
        ));
    }

    fn print_json(&self, engine: &serde_json::Value) -> Result<()> {
        print_json(&serde_json::json!({
            "prompt_ids": self.prompt_ids, "token_ids": self.generated.tokens, "text": self.told.text,
            "finish_reason": if self.told.at_eos { "eos_token" } else { "length" },
            "pack": self.args.pack, "model": self.args.model.path,
            "load_s": self.loaded_s, "prompt_s": self.prompt_s(), "total_s": self.told.seconds,
            "tokens_per_s": self.tokens_per_s(),
            "active_bundles_per_token": self.active_bundles as f64 / self.fed(),
            "reads_per_token": self.per_token(self.stats.reads + self.stats.ahead_reads),
            "bytes_read_per_token": self.per_token(self.stats.bytes_read + self.stats.ahead_bytes),
            "ahead": {
                "layers": self.ahead,
                "reads_per_token": self.per_token(self.stats.ahead_reads),
                "bytes_read_per_token": self.per_token(self.stats.ahead_bytes),
                "used_bundles_per_token": self.per_token(self.stats.prefetched),
            },
            "left_out": self.left_out.map(|left_out| serde_json::json!({
                "share": self.args.leave_out, "lost_share": left_out.lost_share(),
                "bundles_per_set": left_out.bundles as f64 / left_out.sets.max(1) as f64,
            })),
            "useful_bytes_per_token": self.stats.useful_bytes as f64 / self.fed(),
            "io_us_per_token": { "mean": self.stats.io_ns as f64 / 1e3 / self.fed() },
            "reads_per_active": self.reads_per_active(), "recall": self.recall,
            "predictor_bytes_share": self.predictor_bytes_share,
            "hit_rate": self.hit_rate(), "threads": self.threads,
            "peak_memory_bytes": peak_memory_bytes(),
            "engine": engine,
        }))
    }
}
