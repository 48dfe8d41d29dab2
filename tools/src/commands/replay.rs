//! `lnp replay`.

mod report;
mod turns;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use lnp_engine::law::Curve;
use lnp_engine::sys::DirectFile;
use lnp_engine::{CachePolicy, DeviceLaw};

use super::ReadArgs;
use super::byte_count::{parse_bytes, parse_short_length};
use super::run::parse_ahead;
use super::timeline::TimelineArgs;
use lnp_common::report::{progress, say, shown};
use lnp_device::{LawText, open_direct};
use lnp_link::Links;
use lnp_link::trace::TraceReader;
use lnp_measure::probe::{ProbeOptions, probe};
use lnp_measure::profile::DeviceProfile;
use lnp_measure::replay::lookahead::{AheadSets, Mode, lookahead};
use lnp_measure::replay::{
    ActiveSets, Caches, ReplayOptions, Rules, Target, doubts, overlap::overlap, replay, sustained,
};
use lnp_pack::PackIndex;
use lnp_run::AheadChoice;
use report::Report;
use turns::Turns;

/// Replay recorded active sets against packs and compare the strategies
///
/// Reads from the device, around the page cache, with every strategy in turn; or, with --simulate,
/// from a simulated device that obeys the law, with packs or only links. The order of a pack comes
/// from its provenance; give one pack per order.
///
/// Example: lnp replay greedy.lnp --traces test.trace --simulate --predicted --ahead auto --compute-us 300
/// Example: lnp replay identity.lnp greedy.lnp --traces test.trace.safetensors --device d.toml
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The packs to compare, one per order
    #[arg(value_name = "PACK", required_unless_present = "links", conflicts_with = "links")]
    packs: Vec<PathBuf>,
    /// With --simulate: links files instead of packs
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "bundle_bytes", requires = "simulate")]
    links: Vec<PathBuf>,
    /// With --links: bytes of a bundle: 4K
    #[arg(long, value_name = "BYTES", requires = "links", value_parser = parse_short_length)]
    bundle_bytes: Option<u32>,
    /// Trace whose active sets are replayed; not one that the order was made from
    #[arg(long, value_name = "FILE")]
    traces: PathBuf,
    /// Share of the bundles that the cache holds, or several: 0.05,0.1,0.2; 0 for none
    #[arg(long, value_name = "R", value_delimiter = ',', default_value = "0.05")]
    cache_ratio: Vec<f64>,
    /// Compare cache policies, and the best possible one (Belady's): a list of lru, s3-fifo,
    /// linking-aligned, pinned, pinned+linking-aligned, decayed-frequency and none, or all
    #[arg(long, value_name = "NAMES")]
    cache_policies: Option<PolicyNames>,
    /// Show each cache cold and warm: after everything was replayed once
    #[arg(long)]
    warm: bool,
    /// Device profile with the law, made by lnp probe
    #[arg(long, value_name = "FILE", conflicts_with = "law")]
    device: Option<PathBuf>,
    /// The law itself: a_us=9.64,b_mib_s=2034,combine=sum
    #[arg(long, value_name = "LAW")]
    law: Option<LawText>,
    /// Show the published rule of collapse too: holes smaller than so many bytes are read through: 16K
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    gap: Option<u64>,
    /// Show collapse by the profile's measured curve at this queue depth too
    #[arg(long, requires = "device")]
    curve: bool,
    /// Show adaptive collapse too: the law is where the engine begins, and it learns the device's own
    #[arg(long)]
    adapt: bool,
    /// Then read and compute at the same time, in several ways, with the real kernels
    #[arg(long, conflicts_with = "simulate")]
    overlap: bool,
    /// Show collapse by the law for what predictors name too, as the trace has it (`lnp trace --predictor`)
    #[arg(long)]
    predicted: bool,
    /// Then read layers ahead by the predictions in the trace: none, 1, 2, and, with `auto`, as the law chooses
    #[arg(long, value_name = "auto|0|1|2", requires = "compute_us", value_parser = parse_ahead)]
    ahead: Option<AheadChoice>,
    /// With --ahead: microseconds that are computed before each layer
    #[arg(long, value_name = "US", requires = "ahead", value_parser = compute_us)]
    compute_us: Option<f64>,
    /// Simulate the device instead of reading
    #[arg(long)]
    simulate: bool,
    /// Only the first N tokens
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Replay everything so many times; a token's time is the median
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,
    /// Let each strategy read so many seconds without a pause, for a device that does not keep up its
    /// bursts; 0 for turns of 8 tokens [default: 2 where the profile says it is such a device, else 0]
    #[arg(long, value_name = "SECONDS", value_parser = turn_seconds, conflicts_with = "simulate")]
    turn: Option<f64>,
    /// With turns of seconds: begin no further round of turns that would end later; the first round of
    /// all strategies is always measured [default: 20]
    #[arg(long, value_name = "SECONDS", value_parser = turn_seconds, conflicts_with = "simulate")]
    seconds: Option<f64>,
    /// Reads in flight
    #[arg(long, value_name = "N", default_value_t = lnp_engine::limits::QUEUE_DEPTH_DEFAULT)]
    queue_depth: u32,
    #[command(flatten)]
    read: ReadArgs,
    /// Go on through the page cache where the file system refuses direct reads
    #[arg(long)]
    buffered: bool,
    #[command(flatten)]
    timeline: TimelineArgs,
    /// Print the rows as JSON
    #[arg(long)]
    json: bool,
}

fn compute_us(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(us) if (0.0..=1e6).contains(&us) => Ok(us),
        _ => Err("must be 0 to 1000000 microseconds".into()),
    }
}

fn turn_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be 0 to 3600 seconds".into()),
    }
}

/// The policies of `--cache-policies`, here and in `lnp study`.
#[derive(Debug, Clone)]
pub(super) struct PolicyNames(pub(super) Vec<CachePolicy>);

impl FromStr for PolicyNames {
    type Err = String;

    fn from_str(names: &str) -> Result<Self, String> {
        if names == "all" {
            return Ok(Self(CachePolicy::ALL.to_vec()));
        }
        let policy = |name: &str| {
            CachePolicy::from_name(name).ok_or_else(|| {
                format!("no cache policy `{name}`: there are {}, or all", known_policies())
            })
        };
        Ok(Self(names.split(',').map(policy).collect::<Result<_, _>>()?))
    }
}

fn known_policies() -> String {
    CachePolicy::ALL.map(CachePolicy::name).join(", ")
}

/// One policy, here and in `lnp link`.
pub(super) fn policy(name: &str) -> Result<CachePolicy, String> {
    CachePolicy::from_name(name)
        .ok_or_else(|| format!("no cache policy `{name}`: there are {}", known_policies()))
}

/// How long a pack is probed where no law is given.
const PROBE_TIME: Duration = Duration::from_secs(4);

pub(super) fn run(args: &Args) -> Result<()> {
    let inputs = args.packs.iter().chain(&args.links).chain([&args.traces]).chain(&args.device);
    args.timeline.check(&inputs.map(PathBuf::as_path).collect::<Vec<_>>())?;
    let trace = TraceReader::open(&args.traces)?;
    let packs = open_packs(args)?;
    warn_about_profiles(&packs, &trace)?;
    let tokens = args.tokens.unwrap_or(usize::MAX);
    let of_trace = || shown(&args.traces);
    let mut sets = ActiveSets::of_trace(&trace, tokens)?;
    if args.predicted {
        sets = sets.with_predicted(&trace).with_context(of_trace)?;
    }
    let ahead_sets = args.ahead.map(|_| AheadSets::of_trace(&trace, tokens).with_context(of_trace));
    let ahead_sets = ahead_sets.transpose()?;
    let files: Vec<DirectFile> = if args.simulate {
        Vec::new()
    } else {
        packs.iter().map(|pack| open_direct(pack.path(), args.buffered)).collect::<Result<_>>()?
    };
    let (law, law_source) = find_law(args, &packs)?;
    let target =
        if args.simulate { Target::Simulated } else { Target::Device(&files, args.read.into()) };
    let turns = Turns::of(args)?;
    let options = ReplayOptions {
        law,
        caches: caches(args),
        rules: Rules { gap_bytes: args.gap, curve: find_curve(args)?, adapt: args.adapt },
        queue_depth: args.queue_depth,
        repeats: args.repeats.into(),
        turn: turns.seconds(),
        time_max: turns
            .seconds()
            .map(|_| args.seconds.map_or(sustained::TIME_MAX, Duration::from_secs_f64)),
        timeline_tokens: args.timeline.tokens(),
    };
    turns.say();
    let bar = progress("replaying", 1000);
    let mut told = |share: f64| bar.set_position((share * 1000.0) as u64);
    let mut replayed = replay(&packs, &sets, &target, &options, &mut told)?;
    bar.finish_and_clear();
    let mut overlapped = Vec::new();
    if args.overlap {
        let bar = progress("overlapping", 1000);
        let mut told = |share: f64| bar.set_position((share * 1000.0) as u64);
        let read = args.read.into();
        overlapped = overlap(&packs, &files, &sets, &options, read, &mut told)?;
        bar.finish_and_clear();
    }
    let mut ahead = Vec::new();
    if let (Some(sets), Some(choice), Some(compute_us)) = (&ahead_sets, args.ahead, args.compute_us)
    {
        let bar = progress("reading ahead", 1000);
        let mut told = |share: f64| bar.set_position((share * 1000.0) as u64);
        let how = (&modes(choice)[..], compute_us);
        let (rows, timelines) = lookahead(&packs, sets, &target, &options, how, &mut told)?;
        ahead = rows;
        replayed.timelines.extend(timelines);
        bar.finish_and_clear();
    }
    args.timeline.write(&replayed.timelines)?;
    let replayed_tokens = replayed.rows.iter().map(|row| row.tokens).max().unwrap_or(0);
    if turns.seconds().is_some() && replayed_tokens < sets.tokens() {
        say(&format!(
            "lnp: a slow device: {replayed_tokens} of {} tokens are replayed, as many as the slowest \
             strategy reads in a turn\n",
            sets.tokens()
        ));
    }
    Report {
        args,
        trace: &trace,
        replayed: &replayed,
        overlapped: &overlapped,
        ahead: &ahead,
        law: &law,
        law_source: &law_source,
        turns: &turns,
        file: files.first(),
    }
    .print()
}

/// What is compared, not reading ahead first.
fn modes(choice: AheadChoice) -> Vec<Mode> {
    let all = [0, 1, 2].map(Mode::Layers);
    match choice {
        AheadChoice::Auto => all.into_iter().chain([Mode::Auto]).collect(),
        AheadChoice::Layers(0) => vec![all[0]],
        AheadChoice::Layers(layers) => vec![all[0], Mode::Layers(layers)],
    }
}

/// The bound is for comparisons: the usual table stays as it is.
fn caches(args: &Args) -> Caches {
    let several = args.cache_policies.is_some() || args.warm || args.cache_ratio.len() > 1;
    let default = || vec![CachePolicy::default()];
    Caches {
        policies: args.cache_policies.as_ref().map_or_else(default, |names| names.0.clone()),
        ratios: args.cache_ratio.clone(),
        warm: args.warm,
        belady: several,
    }
}

fn open_packs(args: &Args) -> Result<Vec<PackIndex>> {
    if args.links.is_empty() {
        return args.packs.iter().map(|path| PackIndex::open(path)).collect();
    }
    let bundle_bytes = args.bundle_bytes.context("--links needs --bundle-bytes")?;
    let index_of = |path: &PathBuf| -> Result<PackIndex> {
        PackIndex::of_links(path, &Links::read(path)?, bundle_bytes)
    };
    args.links.iter().map(index_of).collect()
}

/// An order judged on the trace that it was made from looks better than it is.
pub(super) fn warn_about_profiles(packs: &[PackIndex], trace: &TraceReader) -> Result<()> {
    for warning in doubts(packs, trace)? {
        say(&format!("lnp: warning: {warning}\n"));
    }
    Ok(())
}

/// The law, and where it comes from.
fn find_law(args: &Args, packs: &[PackIndex]) -> Result<(DeviceLaw, String)> {
    if let Some(law) = &args.law {
        return Ok((law.law()?, "--law".into()));
    }
    if let Some(device) = &args.device {
        return Ok((DeviceProfile::read(device)?.law.law()?, shown(device)));
    }
    if args.simulate {
        return Ok((
            LawText::ONEPLUS_12.law()?,
            "fitted to published times of a OnePlus 12, UFS 4.0".into(),
        ));
    }
    let pack = packs.first().context("no packs")?.path();
    let seconds = PROBE_TIME.as_secs();
    say(&format!("lnp: no --device: probing {} for {seconds} s\n", shown(pack)));
    let options = ProbeOptions {
        time: PROBE_TIME,
        queue_depth: args.queue_depth,
        read: args.read.into(),
        buffered: args.buffered,
        seed: 1,
    };
    let probed = probe(pack, &options, &mut |_| true)
        .context("no device law: give one with --device or --law")?;
    Ok((probed.law, format!("probed: {}", shown(pack))))
}

/// The curve of `--device` at the queue depth, where `--curve` asks for it.
fn find_curve(args: &Args) -> Result<Option<Curve>> {
    let Some(device) = args.device.as_ref().filter(|_| args.curve) else { return Ok(None) };
    let profile = DeviceProfile::read(device)?;
    let at_device = || format!("--curve: {}", device.display());
    Ok(Some(profile.curve(args.queue_depth).with_context(at_device)?))
}
