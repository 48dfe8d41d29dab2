//! `lnp probe`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use clap::ValueEnum;

use super::ReadArgs;
use super::byte_count::parse_length;
use lnp_common::files::{check_targets, write_text};
use lnp_common::interrupt;
use lnp_common::report::{bytes as told, print, print_json, progress, say};
use lnp_device::LawText;
use lnp_device::Machine;
use lnp_measure::probe::curve::curves;
use lnp_measure::probe::fit::misfits;
use lnp_measure::probe::full::{FULL, Full, FullOptions, QUICK, full};
use lnp_measure::probe::matrix::{Custom, DEPTH_MAX, READ_BYTES_MOST};
use lnp_measure::probe::{ProbeOptions, Probed, charts, create::create, csv::csv, table};
use lnp_measure::profile::Pattern;
use lnp_measure::profile::{DeviceProfile, Measured};
use lnp_measure::utc;

/// What a custom probe gives each point, seconds.
const CUSTOM_SECONDS: f64 = 2.0;

/// Measure a flash device: fit its law, and show latency and throughput
///
/// Reads only; never writes to a device. The law says what a batch of reads costs:
/// t = t0 + combine(a * reads, bytes / B). Beside it stand streams of reads by size (512 B to 4 MiB),
/// depth (1 to 64), pattern, range and back end. Ctrl-C ends it with what it has.
///
/// With --size, --depth, --range or --pattern, it measures all combinations of those and no law.
///
/// Example: lnp probe big.file --quick -o device.toml
#[derive(Debug, clap::Args)]
#[command(after_help = "More examples:
  lnp probe big.file --create 4G -o device.toml     make a file to probe, then probe it: 5 minutes
  lnp probe /dev/nvme0n1 -o device.toml --csv raw.csv --svg charts
  lnp probe big.file --size 4K,64K --depth 1,32 --range 64M,whole
  lnp replay model.lnp --traces T --device device.toml --curve")]
pub(super) struct Args {
    /// File or block device to read; better larger than 64 MiB
    #[arg(value_name = "FILE|DEVICE")]
    path: PathBuf,
    /// First make the file, with so many random bytes (4G); overwrites nothing
    #[arg(long, value_name = "BYTES", value_parser = parse_length)]
    create: Option<u64>,
    /// 20 seconds instead of 5 minutes: the law, its curve in six sizes, latency at depth 1
    #[arg(long)]
    quick: bool,
    /// For so many seconds; less than 20 do not show a limit of reads or bytes a second, less than 60
    /// not the whole matrix
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Reads in flight: of the batches that the law is fitted to
    #[arg(long, value_name = "N", default_value_t = lnp_engine::limits::QUEUE_DEPTH_DEFAULT)]
    queue_depth: u32,
    /// Only reads of these sizes: 4K,64K,1M
    #[arg(long, value_name = "BYTES", value_delimiter = ',', value_parser = parse_length)]
    size: Vec<u64>,
    /// Only with so many in flight: 1,8,32 [default then: the queue depth]
    #[arg(long, value_name = "N", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=DEPTH_MAX as i64))]
    depth: Vec<u32>,
    /// Only in the first so many bytes: 64M,1G,whole
    #[arg(long, value_name = "BYTES", value_delimiter = ',', value_parser = parse_range)]
    range: Vec<u64>,
    /// Only at places by chance, or one after the other
    #[arg(long, value_enum, value_delimiter = ',')]
    pattern: Vec<PatternArg>,
    /// Keep the reading thread on this core
    #[arg(long, value_name = "N")]
    core: Option<u32>,
    #[command(flatten)]
    read: ReadArgs,
    /// Go on through the page cache where the file system refuses direct reads
    #[arg(long)]
    buffered: bool,
    /// The device profile to write
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["size", "depth", "range", "pattern"])]
    output: Option<PathBuf>,
    /// The raw results to write: a line for each turn of each stream
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Folder for charts: throughput, latency by size, latency by depth
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// Take the law as it comes, on a busy machine too; else it is measured again, up to three times, until one
    /// is measured in peace or two agree
    #[arg(long)]
    once: bool,
    /// Print the profile as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PatternArg {
    /// At places by chance
    Random,
    /// One after the other
    Sequential,
}

impl From<PatternArg> for Pattern {
    fn from(pattern: PatternArg) -> Self {
        match pattern {
            PatternArg::Random => Self::Random,
            PatternArg::Sequential => Self::Sequential,
        }
    }
}

fn parse_range(text: &str) -> Result<u64> {
    if text == "whole" { Ok(u64::MAX) } else { parse_length(text) }
}

pub(super) fn run(args: &Args) -> Result<()> {
    let options = options(args)?;
    if let Some(create_bytes) = args.create {
        for file in [&args.output, &args.csv].into_iter().flatten() {
            ensure!(file != &args.path, "{}: is what is made; give another path", file.display());
        }
        make(&args.path, create_bytes)?;
    }
    let mut targets: Vec<PathBuf> = args.output.iter().chain(&args.csv).cloned().collect();
    if let Some(folder) = &args.svg {
        targets.extend(charts::files(folder)?);
    }
    check_targets(&targets, &[&args.path])?;
    if let Some(core) = args.core {
        pin(core)?;
    }
    // Ctrl-C ends the probe with what it has.
    interrupt::end_gracefully();
    let bar = progress("probing", 1000);
    let found = full(&args.path, &options, &mut |share| {
        bar.set_position((share * 1000.0) as u64);
        !interrupt::stopped()
    })?;
    bar.finish_and_clear();
    // First what was measured: it must not be lost with a file that cannot be written.
    let measured = measured(args, &options, &found);
    warn(args, &found);
    let printed = match &found.probed {
        Some(probed) => {
            let profile = profile(&found, probed, measured.clone());
            let printed =
                if args.json { print_json(&profile) } else { print(&table::profile(&profile)) };
            if let Some(output) = &args.output {
                profile.write(output)?;
            }
            printed
        }
        None if args.json => print_json(&serde_json::json!({
            "measured": measured, "machine": Machine::here(), "streams": found.streams,
        })),
        None => {
            let doubts = table::doubts(Some(&measured));
            print(
                &(table::head(&measured)
                    + &table::streams(&found.streams, args.queue_depth)
                    + &doubts),
            )
        }
    };
    if let Some(path) = &args.csv {
        let text = csv(&found.turns)?;
        write_text(path, &text)?;
    }
    if let Some(folder) = &args.svg
        && !found.streams.is_empty()
    {
        charts::write(folder, &found.streams, &measured)?;
    }
    printed
}

/// Where stdout is not for people, stderr tells what makes the figures doubtful.
fn warn(args: &Args, found: &Full) {
    if args.json {
        for warning in &found.warnings {
            say(&format!("lnp: warning: {warning}\n"));
        }
    }
}

fn options(args: &Args) -> Result<FullOptions> {
    ensure!(
        (1..=256).contains(&args.queue_depth),
        "--queue-depth {}: 1 to 256 is possible",
        args.queue_depth
    );
    let size = |bytes: &u64| {
        let known = u32::try_from(*bytes).ok().filter(|bytes| *bytes <= READ_BYTES_MOST);
        let most = told(f64::from(READ_BYTES_MOST));
        known.with_context(|| format!("--size {}: at most {most} is possible", told(*bytes as f64)))
    };
    let custom = Custom {
        read_bytes: args.size.iter().map(size).collect::<Result<_>>()?,
        depths: args.depth.clone(),
        ranges: args.range.clone(),
        patterns: args.pattern.iter().map(|pattern| (*pattern).into()).collect(),
    };
    let count = |list: usize| list.max(1) as f64;
    let points = count(args.size.len())
        * count(args.depth.len())
        * count(args.range.len())
        * count(args.pattern.len());
    let usual = match (args.quick, custom.is_empty()) {
        (true, _) => QUICK.as_secs_f64(),
        (false, true) => FULL.as_secs_f64(),
        (false, false) => (CUSTOM_SECONDS * points).min(FULL.as_secs_f64()),
    };
    let seconds = args.seconds.unwrap_or(usual);
    ensure!((0.1..=3600.0).contains(&seconds), "--seconds {seconds}: 0.1 to 3600 is possible");
    let probe = ProbeOptions {
        time: Duration::from_secs_f64(seconds),
        queue_depth: args.queue_depth,
        read: args.read.into(),
        buffered: args.buffered,
        // Other places each time: what was read before may lie in the device's memory, or the host's.
        seed: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64,
    };
    Ok(FullOptions { probe, custom, once: args.once })
}

fn make(path: &Path, file_bytes: u64) -> Result<()> {
    let bar = progress("writing", file_bytes);
    create(path, file_bytes, &mut |written| bar.set_position(written))?;
    bar.finish_and_clear();
    Ok(())
}

/// Keeps this thread on a core.
fn pin(core: u32) -> Result<()> {
    let wrong = || anyhow!("--core {core}: this process may not use such a core");
    let mut cores = rustix::thread::CpuSet::new();
    if core as usize >= rustix::thread::CpuSet::MAX_CPU {
        return Err(wrong());
    }
    cores.set(core as usize);
    rustix::thread::sched_setaffinity(None, &cores).map_err(|_| wrong())
}

fn measured(args: &Args, options: &FullOptions, found: &Full) -> Measured {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Measured {
        path: args.path.display().to_string(),
        file_bytes: found.bounds.file_bytes,
        queue_depth: options.probe.queue_depth,
        back_end: match &found.probed {
            Some(probed) => probed.back_end.clone(),
            None => found.bounds.back_end.name().to_owned(),
        },
        direct: found.direct,
        seconds: found.seconds,
        command: std::env::args_os()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" "),
        unix_time: now,
        date: utc(now),
        complete: found.complete,
        core: args.core,
        drift: found.drift,
        device_share: found.device_share,
        warnings: found.warnings.clone(),
        place: found.place.clone(),
    }
}

fn profile(found: &Full, probed: &Probed, measured: Measured) -> DeviceProfile {
    let fitted = if probed.fit.sustained { &probed.sustained } else { &probed.points };
    DeviceProfile {
        fit: Some(probed.fit),
        measured: Some(measured),
        machine: Some(Machine::here()),
        points: probed.points.clone(),
        sustained: probed.sustained.clone(),
        misfits: misfits(&probed.law, fitted),
        curves: curves(&found.streams, &probed.points, found.bounds.base().depth),
        streams: found.streams.clone(),
        ..DeviceProfile::of_law(LawText::from(&probed.law))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_may_be_the_whole() {
        assert_eq!(parse_range("whole").unwrap(), u64::MAX);
        assert_eq!(parse_range("64M").unwrap(), 64 << 20);
    }
}
