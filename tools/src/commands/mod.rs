//! The command line: one file a command.
//!
//! Results go to stdout, everything else to stderr. Exit code 0 where all went well, 1 with one
//! line on stderr where not, 2 for wrong usage.

mod byte_count;
mod completions;
mod demo;
#[cfg(test)]
mod documented;
mod inspect;
mod link;
mod man;
mod model;
mod pack;
mod perplexity;
mod predict;
mod probe;
mod relink;
mod replay;
mod report;
mod run;
mod study;
mod synth;
mod thresholds;
mod timeline;
mod trace;
mod verify;

use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use lnp_engine::limits::BATCH_TOKENS_MAX;
use lnp_engine::sys::{BackEnd, BackEndChoice, Polling, ReadOptions, RingKind, cpu};
use lnp_kernels::{CpuFeatures, Tier};

use lnp_common::report::{ReaderGone, plain, say};
use lnp_device::{Threads, start_threads};

/// Linked neuron packs: sparse language models read from flash.
///
/// lnp learns which FFN neurons of a ReLU-sparse model fire together, links them into chains, and
/// writes their weights in that order into a pack, so that the active ones can be read in few, long
/// reads. Try `lnp demo` first.
#[derive(Debug, Parser)]
#[command(name = "lnp", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Trace(trace::Args),
    Link(link::Args),
    Predict(predict::Args),
    Pack(pack::Args),
    Relink(relink::Args),
    Inspect(inspect::Args),
    Verify(verify::Args),
    Probe(probe::Args),
    Replay(replay::Args),
    Report(report::Args),
    Run(run::Args),
    Perplexity(perplexity::Args),
    Synth(synth::Args),
    Study(study::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// How reads reach the device.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum BackEndArg {
    /// io_uring, or pread where there is none
    #[default]
    Auto,
    /// io_uring or an error
    Uring,
    /// io_uring over the ring that C programs get, or an error: to compare
    OwnRing,
    /// pread, one read at a time
    Pread,
}

/// Who looks for work instead of being woken for it.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum PollingArg {
    /// Nobody: the device interrupts
    #[default]
    None,
    /// lnp asks the device for completions, where its driver has poll queues
    Completion,
    /// A thread of the kernel takes submissions, and a core
    Submission,
}

/// How reads reach the device: the options of all commands that read.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct ReadArgs {
    /// How reads reach the device
    #[arg(long, value_enum, default_value_t)]
    back_end: BackEndArg,
    /// Who polls, under io_uring
    #[arg(long, value_enum, default_value_t)]
    polling: PollingArg,
}

impl From<ReadArgs> for ReadOptions {
    fn from(args: ReadArgs) -> Self {
        let back_end = match args.back_end {
            BackEndArg::Auto => BackEndChoice::Auto,
            BackEndArg::Uring => BackEndChoice::Uring,
            BackEndArg::OwnRing => BackEndChoice::UringOver(RingKind::Own),
            BackEndArg::Pread => BackEndChoice::Pread,
        };
        let polling = match args.polling {
            PollingArg::None => Polling::None,
            PollingArg::Completion => Polling::Completion,
            PollingArg::Submission => Polling::Submission,
        };
        Self { back_end, polling }
    }
}

/// Which kernels compute: the options of all commands that do.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct KernelArgs {
    /// Portable kernels only
    #[arg(long, conflicts_with = "tier")]
    portable: bool,
    /// Kernels of this tier at most, to compare: for example avx2 or neon [default: the best]
    #[arg(long, value_name = "TIER", value_parser = parse_tier)]
    tier: Option<Tier>,
    /// Tokens of a prompt that share their reads, 1 to 256; the bits do not depend on it
    #[arg(long, value_name = "N", default_value_t = BATCH_TOKENS_MAX as u16,
          value_parser = clap::value_parser!(u16).range(1..=BATCH_TOKENS_MAX as i64))]
    batch: u16,
    /// Threads that compute, the one that reads among them; the bits do not depend on it [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl KernelArgs {
    /// The threads that compute.
    fn start_threads(self) -> anyhow::Result<Threads> {
        Threads::new(self.threads).context("--threads")
    }

    /// What the kernels may use.
    fn features(self) -> anyhow::Result<CpuFeatures> {
        let features = cpu::detect();
        let Some(tier) = (if self.portable { Some(Tier::Portable) } else { self.tier }) else {
            return Ok(features);
        };
        let has = Tier::ALL.into_iter().filter(|tier| features.allows(*tier));
        ensure!(
            features.allows(tier),
            "--tier {}: this CPU has {}",
            tier.name(),
            has.map(Tier::name).collect::<Vec<_>>().join(", ")
        );
        Ok(features.up_to(tier))
    }
}

fn parse_tier(name: &str) -> anyhow::Result<Tier> {
    let names = Tier::ALL.map(Tier::name).join(", ");
    Tier::from_name(name).with_context(|| format!("must be one of {names}"))
}

/// Says where reads do not go the way that was hoped for.
fn say_back_end(back_end: &BackEnd) {
    if !back_end.is_whole() {
        say(&format!("lnp: reading with {back_end}\n"));
    }
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    lnp_common::interrupt::catch_signals();
    let command = Cli::parse().command;
    let result = threads().and_then(|()| run(command));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<ReaderGone>() => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever names from files are in it.
            say(&format!("lnp: {}\n", plain(&format!("{error:#}"))));
            ExitCode::FAILURE
        }
    }
}

/// Starts the threads that compute, as many as `RAYON_NUM_THREADS` says or there are processors; where they cannot be
/// had, this one is all.
fn threads() -> anyhow::Result<()> {
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|count| count.parse().ok());
    let count = asked
        .filter(|&count| count > 0)
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let pool = rayon::ThreadPoolBuilder::new();
    let built = match start_threads(count) {
        Ok(started) => pool.num_threads(count).spawn_handler(started).build_global(),
        Err(_) => pool.num_threads(1).use_current_thread().build_global(),
    };
    built.context("no thread can be made")
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo(args) => demo::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Link(args) => link::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Pack(args) => pack::run(&args),
        Command::Relink(args) => relink::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),
        Command::Synth(args) => synth::run(&args),
        Command::Study(args) => study::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}
