//! `lnp probe`.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::ReadArgs;
use crate::device::{DeviceProfile, LawText, Measured, Point};
use crate::files::check_target;
use crate::interrupt;
use crate::probe::{FILE_BYTES_USUAL, ProbeOptions, Probed, over_turns, probe};
use crate::report::{Machine, bytes, print, print_json, progress, table, thousands};

/// Measure a flash device and fit its law
///
/// Reads only. The law says what a batch of reads costs: t = t0 + combine(a * reads, bytes / B).
///
/// Example: lnp probe big.file --quick -o device.toml
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File or block device to read; better larger than 64 MiB
    #[arg(value_name = "FILE|DEVICE")]
    path: PathBuf,
    /// 20 seconds instead of 60; today's only difference
    #[arg(long)]
    quick: bool,
    /// For so many seconds; less than 20 do not show a limit of reads or bytes a second
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Reads in flight
    #[arg(long, value_name = "N", default_value_t = lnp_engine::limits::QUEUE_DEPTH_DEFAULT)]
    queue_depth: u32,
    #[command(flatten)]
    read: ReadArgs,
    /// Go on through the page cache where the file system refuses direct reads
    #[arg(long)]
    buffered: bool,
    /// The device profile to write
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the profile as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let seconds = args.seconds.unwrap_or(if args.quick { 20.0 } else { 60.0 });
    anyhow::ensure!(
        (0.1..=3600.0).contains(&seconds),
        "--seconds {seconds}: 0.1 to 3600 is possible"
    );
    anyhow::ensure!(
        (1..=256).contains(&args.queue_depth),
        "--queue-depth {}: 1 to 256 is possible",
        args.queue_depth
    );
    let options = ProbeOptions {
        time: Duration::from_secs_f64(seconds),
        queue_depth: args.queue_depth,
        read: args.read.into(),
        buffered: args.buffered,
        seed: 1,
    };
    if let Some(output) = &args.output {
        check_target(output, &[&args.path])?;
    }
    // Ctrl-C ends the probe with what it has.
    interrupt::end_gracefully();
    let bar = progress("probing", 1000);
    let probed = probe(&args.path, &options, &mut |share| {
        bar.set_position((share * 1000.0) as u64);
        !interrupt::stopped()
    })?;
    bar.finish_and_clear();
    let profile = profile(args, &probed);
    // First what was measured: it must not be lost with a file that cannot be written.
    let printed = if args.json { print_json(&profile) } else { print(&render(&profile)) };
    if let Some(output) = &args.output {
        profile.write(output)?;
    }
    printed
}

fn profile(args: &Args, probed: &Probed) -> DeviceProfile {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    DeviceProfile {
        law: LawText::from(&probed.law),
        fit: Some(probed.fit),
        measured: Some(Measured {
            path: args.path.display().to_string(),
            file_bytes: probed.file_bytes,
            queue_depth: args.queue_depth,
            back_end: probed.back_end.clone(),
            direct: probed.direct,
            seconds: probed.seconds,
            command: std::env::args().collect::<Vec<_>>().join(" "),
            unix_time: now.as_secs(),
        }),
        machine: Some(Machine::here()),
        points: probed.points.clone(),
        sustained: probed.sustained.clone(),
    }
}

fn render(profile: &DeviceProfile) -> String {
    let mut out = String::new();
    if let Some(measured) = &profile.measured {
        out += &format!(
            "{}: {}, {} of {}, queue depth {}, {:.0} s\n",
            measured.path,
            measured.back_end,
            if measured.direct { "direct reads" } else { "BUFFERED reads (page cache!)" },
            bytes(measured.file_bytes as f64),
            measured.queue_depth,
            measured.seconds
        );
        if measured.file_bytes < FILE_BYTES_USUAL {
            out += "  a small file: the device may have answered from its own memory\n";
        }
    }
    out += &points_table(&profile.points);
    if let Some(most) = over_turns(&profile.points, &profile.sustained).reduce(f64::max) {
        out += &format!("without pauses (up to {most:.2} times as long as in turns):\n");
        out += &points_table(&profile.sustained);
    }
    if profile.fit.is_some_and(|fit| fit.sustained) {
        out += "held back: the device does not keep up its bursts; the law is that of reads without pauses\n";
    }
    out + &law_line(profile)
}

fn points_table(points: &[Point]) -> String {
    let rows: Vec<Vec<String>> = points
        .iter()
        .map(|point| {
            let us = point.batch_us_median;
            let batch_bytes = f64::from(point.reads) * f64::from(point.read_bytes);
            vec![
                bytes(point.read_bytes.into()),
                point.reads.to_string(),
                thousands(us),
                thousands(point.batch_us_p10),
                thousands(point.batch_us_p90),
                thousands(f64::from(point.reads) / us * 1e6),
                thousands(batch_bytes / us * 1e6 / lnp_engine::law::MIB),
            ]
        })
        .collect();
    let head = ["read", "reads", "batch us", "p10", "p90", "reads/s", "MiB/s"];
    table(&head, &rows, 0)
}

/// The law in one line, with how well it fits.
pub(super) fn law_line(profile: &DeviceProfile) -> String {
    let law = &profile.law;
    let gap = law.law().map_or(0, |law| law.gap_bytes());
    let combine = format!("{:?}", law.combine).to_lowercase();
    let fit = profile.fit.map_or(String::new(), |fit| {
        format!(
            "; error {:.0} % median, {:.0} % p90 (other form: {:.0} %)",
            100.0 * fit.error_median,
            100.0 * fit.error_p90,
            100.0 * fit.other_combine_error_median
        )
    });
    format!(
        "device law: t0 {:.0} us, a {:.2} us, B {:.0} MiB/s, {combine}; break-even gap {}{fit}\n",
        law.t0_us,
        law.a_us,
        law.b_mib_s,
        bytes(gap as f64)
    )
}
