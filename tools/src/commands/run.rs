//! `lnp run`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lnp_engine::sys::BackEnd;
use lnp_engine::{Collapse, Config, EngineError, FetchStats};

use super::{KernelArgs, ReadArgs, say_back_end};
use lnp_common::report::{bytes, print_json, say};
use lnp_device::peak_memory_bytes;
use lnp_measure::profile::DeviceProfile;
use lnp_model::{ExactPredictor, Generated, Model, Sampler, Tokenizer, generate};
use lnp_pack::PackIndex;
use lnp_run::SparseFfn;
use lnp_run::compute::{CACHE_RATIO_USUAL, ComputeOptions, ComputePack, GAP_BYTES_USUAL};

/// Generate text, reading the FFN weights from a pack
///
/// Attention, embeddings and norms are in memory. Which neurons are active is computed exactly,
/// from up (OPT) or gate (Llama) weights that are in memory too: predictors are still to come.
///
/// Example: lnp run opt.lnp --model opt-relu --prompt "Once upon a time" -n 40
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pack with the model's FFN
    #[arg(value_name = "PACK")]
    pack: PathBuf,
    /// Hugging Face model folder (config.json, *.safetensors, tokenizer.json)
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Text to continue; the model's bos token is put first
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: String,
    /// Tokens to generate
    #[arg(short = 'n', long, value_name = "N", default_value_t = 64)]
    count: usize,
    /// End at the model's end-of-text token
    #[arg(long)]
    stop_at_eos: bool,
    /// 0 for the most likely token, above 0 for chance
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Seed of chance
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Bytes of the engine's arena: staging area and cache
    #[arg(long, value_name = "BYTES", conflicts_with = "cache_ratio")]
    memory: Option<usize>,
    /// Share of the bundles that the cache holds
    #[arg(long, value_name = "R", default_value_t = CACHE_RATIO_USUAL)]
    cache_ratio: f64,
    /// Device profile whose law decides which reads are merged
    #[arg(long, value_name = "FILE", conflicts_with = "gap")]
    device: Option<PathBuf>,
    /// Merge by the profile's measured curve at this queue depth instead of its law
    #[arg(long, requires = "device")]
    curve: bool,
    /// Merge across holes smaller than so many bytes [default: the law of --device, or 16384]
    #[arg(long, value_name = "BYTES")]
    gap: Option<u64>,
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
    /// Print {prompt_ids, token_ids, text, ...} as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let begin = Instant::now();
    let index = PackIndex::open(&args.pack)?;
    let model = Model::load(&args.model)?;
    let options = ComputeOptions {
        collapse: collapse(args)?,
        queue_depth: args.queue_depth,
        verify_reads: args.verify_reads,
        memory: args.memory,
        cache_ratio: args.cache_ratio,
        features: args.kernels.features()?,
        batch: args.kernels.batch.into(),
        read: args.read.into(),
        buffered: args.buffered,
    };
    let mut pack = ComputePack::open(&index, &model, options)?;
    let tokenizer = Tokenizer::load(&args.model)?;
    let predictor = ExactPredictor::load(model.checkpoint(), model.config())?;
    let config = *pack.config();
    let (mut engine, ffn) = pack.engine(&model)?;
    let back_end = engine.queue().back_end().clone();
    say_back_end(&back_end);

    let mut prompt_ids: Vec<u32> = model.config().bos_token_id.into_iter().collect();
    prompt_ids.extend(tokenizer.encode(&args.prompt)?);
    ensure!(
        !prompt_ids.is_empty(),
        "an empty prompt, and the model has no bos token: give some text with --prompt"
    );
    let mut sampler = Sampler::new(args.temperature, args.seed)?;
    let mut decoder = tokenizer.decoder(false);
    let mut text = String::new();
    let loaded_s = begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    let mut first_token_s = None;
    let tier = ffn.tier().name();
    let kernels = format!("{tier} {}", engine.pack().shape().dtype);
    let mut sparse = SparseFfn::new(&mut engine, ffn, &predictor);
    let generated =
        generate(&model, &mut sparse, &prompt_ids, args.count, &mut sampler, &mut |token| {
            first_token_s.get_or_insert_with(|| begin.elapsed().as_secs_f64());
            let piece = decoder.push(token)?;
            stream(&piece, args.json)?;
            text += &piece;
            Ok(!(args.stop_at_eos && model.config().eos_token_ids.contains(&token)))
        })
        .map_err(|error| match error.downcast_ref::<EngineError>() {
            Some(_) => error.context(index.path().display().to_string()),
            None => error,
        })?;
    let rest = decoder.finish()?;
    stream(&(rest.clone() + "\n"), args.json)?;
    text += &rest;
    let seconds = begin.elapsed().as_secs_f64();
    let summary = Summary {
        args,
        prompt_ids,
        generated,
        text,
        stats: *sparse.stats(),
        active_bundles: sparse.active_bundles(),
        kernels,
        loaded_s,
        first_token_s: first_token_s.unwrap_or(seconds),
        seconds,
    };
    if args.json {
        return summary.print_json(&engine_facts(&config, tier, &back_end, &predictor, &model));
    }
    summary.print();
    Ok(())
}

fn collapse(args: &Args) -> Result<Collapse> {
    Ok(match (&args.device, args.gap) {
        (Some(device), _) if args.curve => {
            let curve = DeviceProfile::read(device)?.curve(args.queue_depth);
            Collapse::Curve(curve.with_context(|| format!("--curve: {}", device.display()))?)
        }
        (Some(device), _) => Collapse::Law(DeviceProfile::read(device)?.law.law()?),
        (None, Some(0)) => Collapse::Off,
        (None, gap) => Collapse::Gap { bytes: gap.unwrap_or(GAP_BYTES_USUAL) },
    })
}

/// Writes text as it comes; not with `--json`, whose text comes whole.
fn stream(piece: &str, json: bool) -> Result<()> {
    if json {
        return Ok(());
    }
    lnp_common::report::print(piece)
}

fn engine_facts(
    config: &Config,
    kernel_tier: &str,
    back_end: &BackEnd,
    predictor: &ExactPredictor,
    model: &Model,
) -> serde_json::Value {
    serde_json::json!({
        "back_end": back_end.name(), "reads_through": back_end.to_string(), "kernel_tier": kernel_tier,
        "collapse": config.collapse.name(), "cache_bundles": config.cache_bundles,
        "staging_bytes": config.staging_bytes, "queue_depth": config.queue_depth,
        "active_set": "exact, from resident weights",
        "predictor_resident_bytes": predictor.resident_bytes(),
        "model_resident_bytes": model.resident_bytes(),
    })
}

/// What came of a run.
struct Summary<'a> {
    args: &'a Args,
    prompt_ids: Vec<u32>,
    generated: Generated,
    text: String,
    stats: FetchStats,
    active_bundles: u64,
    kernels: String,
    loaded_s: f64,
    first_token_s: f64,
    seconds: f64,
}

impl Summary<'_> {
    /// Tokens that went through the model.
    fn fed(&self) -> f64 {
        self.generated.fed.max(1) as f64
    }

    fn tokens_per_s(&self) -> f64 {
        let after_first = self.generated.tokens.len().saturating_sub(1) as f64;
        after_first / (self.seconds - self.first_token_s).max(1e-9)
    }

    fn hit_rate(&self) -> f64 {
        self.stats.hits as f64 / self.stats.active.max(1) as f64
    }

    fn print(&self) {
        say(&format!(
            "{:.1} tokens/s after a prompt of {}; per token {:.0} active bundles, {:.1} reads, {}, \
             I/O {:.0} us; {:.1} % hits; kernels {}; peak memory {}; active sets computed exactly (no \
             predictor)\n",
            self.tokens_per_s(),
            self.prompt_ids.len(),
            self.active_bundles as f64 / self.fed(),
            self.stats.reads as f64 / self.fed(),
            bytes(self.stats.bytes_read as f64 / self.fed()),
            self.stats.io_ns as f64 / 1e3 / self.fed(),
            100.0 * self.hit_rate(),
            self.kernels,
            bytes(peak_memory_bytes() as f64),
        ));
    }

    fn print_json(&self, engine: &serde_json::Value) -> Result<()> {
        print_json(&serde_json::json!({
            "prompt_ids": self.prompt_ids, "token_ids": self.generated.tokens, "text": self.text,
            "pack": self.args.pack, "model": self.args.model,
            "load_s": self.loaded_s, "prompt_s": self.first_token_s, "total_s": self.seconds,
            "tokens_per_s": self.tokens_per_s(),
            "active_bundles_per_token": self.active_bundles as f64 / self.fed(),
            "reads_per_token": self.stats.reads as f64 / self.fed(),
            "bytes_read_per_token": self.stats.bytes_read as f64 / self.fed(),
            "useful_bytes_per_token": self.stats.useful_bytes as f64 / self.fed(),
            "io_us_per_token": { "mean": self.stats.io_ns as f64 / 1e3 / self.fed() },
            "hit_rate": self.hit_rate(),
            "peak_memory_bytes": peak_memory_bytes(),
            "engine": engine,
        }))
    }
}
