//! A whole probe: batches for the law, streams for everything else, and the first point once more at
//! the end.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lnp_engine::sys::DirectFile;

use super::honesty::{warnings_after, warnings_before};
use super::kernel::{Counters, waited_ns};
use super::matrix::{Bounds, Custom};
use super::rounds::{Streamer, Turn};
use super::settle::{Beside, Settled, TRIES_MAX, settle};
use super::{ProbeOptions, Probed, check_size, probe};
use crate::profile::ProbedPlace;
use crate::profile::Stream;
use crate::profile::{StreamBackEnd, StreamKind};
use lnp_common::report::bytes;
use lnp_device::open_direct;

/// Share of the time that batches get in a quick probe.
const BATCH_SHARE_QUICK: f64 = 0.8;
/// The same in a full one.
const BATCH_SHARE_FULL: f64 = 0.2;
/// A probe of so long leaves batches the time to show a limit of the device: they get no less.
pub const QUICK: Duration = Duration::from_secs(20);
/// A full one.
pub const FULL: Duration = Duration::from_secs(300);
/// From here on all of the matrix is measured.
const FULL_LEAST: Duration = Duration::from_secs(60);
/// Share of a probe's time that the first point gets at the begin, and again at the end; at most
/// [`BASE_MOST`] each.
const BASE_SHARE: f64 = 0.02;
const BASE_MOST: Duration = Duration::from_secs(2);

/// What a whole probe is to do.
#[derive(Debug, Clone)]
pub struct FullOptions {
    /// How, and for how long altogether.
    pub probe: ProbeOptions,
    /// These streams only, and no batches.
    pub custom: Custom,
    /// Takes the first law, however busy the machine is.
    pub once: bool,
}

/// What a whole probe found.
#[derive(Debug)]
pub struct Full {
    /// The law and its batches; none of a custom probe.
    pub probed: Option<Probed>,
    /// What streams did.
    pub streams: Vec<Stream>,
    /// Each turn of each.
    pub turns: Vec<Turn>,
    /// How much faster the first point was at the end; none where it was stopped.
    pub drift: Option<f64>,
    /// Bytes that the device read by the kernel's count, over those that streams asked for.
    pub device_share: Option<f64>,
    /// What makes these figures doubtful.
    pub warnings: Vec<String>,
    /// Device and file system.
    pub place: ProbedPlace,
    /// Whether nobody stopped it.
    pub complete: bool,
    /// What was read, and how.
    pub bounds: Bounds,
    /// Whether the page cache was out of the way.
    pub direct: bool,
    /// Seconds of measuring.
    pub seconds: f64,
}

/// What batches get of a probe's time.
pub(super) fn batch_time(time: Duration) -> Duration {
    let quick = time.min(QUICK).mul_f64(BATCH_SHARE_QUICK);
    quick.max(time.mul_f64(BATCH_SHARE_FULL))
}

fn base_time(time: Duration) -> Duration {
    time.mul_f64(BASE_SHARE).min(BASE_MOST)
}

/// What is known before anything is measured.
struct Opened {
    file: &'static DirectFile,
    place: ProbedPlace,
    warnings: Vec<String>,
    streamer: Streamer,
    bounds: Bounds,
    kinds: Vec<StreamKind>,
}

fn open(path: &Path, options: &FullOptions) -> Result<Opened> {
    let file: &'static DirectFile = Box::leak(Box::new(open_direct(path, options.probe.buffered)?));
    if options.custom.is_empty() {
        check_size(path, file.bytes())?;
    }
    let place = ProbedPlace::of(path);
    let warnings = warnings_before(path, &place, (file.bytes(), file.is_direct()))?;
    let read = options.probe.read;
    let streamer = Streamer::over(file, read, place.number.clone(), options.probe.seed)?;
    let bounds = Bounds {
        file_bytes: file.bytes(),
        align: if file.is_direct() { file.align() } else { 1 },
        queue_depth: options.probe.queue_depth,
        back_end: match streamer.has_uring() {
            true => StreamBackEnd::Uring,
            false => StreamBackEnd::Pread,
        },
    };
    let kinds = match options.custom.is_empty() {
        false => options.custom.kinds(&bounds),
        true if options.probe.time < FULL_LEAST => bounds.quick(),
        true => bounds.full(),
    };
    ensure!(
        !kinds.is_empty(),
        "{}: none of these reads is possible: they must be multiples of {} bytes, fit into the file \
         ({}), and be at most {} in flight",
        path.display(),
        bounds.align,
        bytes(bounds.file_bytes as f64),
        bytes(super::matrix::BYTES_IN_FLIGHT_MAX as f64)
    );
    Ok(Opened { file, place, warnings, streamer, bounds, kinds })
}

/// Probes a file or block device, read-only. `progress` is told the share done; where it says false,
/// the probe ends with what it has.
///
/// # Errors
/// The file cannot be read, is too small or sparse, there was no time for anything, or the machine was too
/// busy for a law.
pub fn full(
    path: &Path,
    options: &FullOptions,
    progress: &mut dyn FnMut(f64) -> bool,
) -> Result<Full> {
    let time = options.probe.time;
    let Opened { file, place, mut warnings, mut streamer, bounds, kinds } = open(path, options)?;
    let (begin, waited_begin_ns) = (Instant::now(), waited_ns());
    let stopped = Cell::new(false);
    let mut go_on = |share: f64| {
        stopped.set(stopped.get() || !progress(share.min(1.0)));
        !stopped.get()
    };
    // What went into measuring the law again comes on top of the time.
    let mut again = Duration::ZERO;
    let spent = |again: Duration| begin.elapsed().saturating_sub(again);
    let share_of_time = |again| spent(again).as_secs_f64() / time.as_secs_f64();
    let at_path = || path.display().to_string();
    let base = bounds.base();
    let first = match go_on(0.0) && u64::from(base.read_bytes) <= bounds.file_bytes {
        true => streamer.alone(base, base_time(time)).with_context(at_path)?,
        false => None,
    };
    let probed = match options.custom.is_empty() {
        false => None,
        true => {
            let until = share_of_time(Duration::ZERO) + BATCH_SHARE_QUICK;
            let mut go_on = || go_on(share_of_time(Duration::ZERO).min(until));
            let law_begin = Instant::now();
            let settled = law(path, options, &place, &mut go_on, &|| stopped.get())?;
            again = law_begin.elapsed().mul_f64(1.0 - 1.0 / settled.tries.max(1) as f64);
            warnings.extend(settled.warning);
            Some(settled.probed)
        }
    };
    let left = time.saturating_sub(spent(again) + base_time(time));
    let (streams, turns) = streamer
        .in_turns(&kinds, left, &mut |_| go_on(share_of_time(again)))
        .with_context(at_path)?;
    let last = match &first {
        Some(_) if go_on(share_of_time(again)) => streamer.alone(base, base_time(time))?,
        _ => None,
    };
    let drift = first.zip(last).map(|(first, last)| last.reads_per_s / first.reads_per_s - 1.0);
    let device_share = share_of(&turns);
    let waited = waited_begin_ns.zip(waited_ns());
    let waited = waited.map(|(begin_ns, end_ns)| {
        end_ns.saturating_sub(begin_ns) as f64 / begin.elapsed().as_nanos() as f64
    });
    warnings.extend(warnings_after(device_share, drift, waited));
    if stopped.get() {
        warnings.push("stopped before the end: not all was measured".to_owned());
    }
    ensure!(probed.is_some() || !streams.is_empty(), "stopped before anything was measured");
    Ok(Full {
        probed,
        streams,
        turns,
        drift,
        device_share,
        warnings,
        place,
        complete: !stopped.get(),
        bounds,
        direct: file.is_direct(),
        seconds: begin.elapsed().as_secs_f64(),
    })
}

/// The law, measured again where the machine was busy.
fn law(
    path: &Path,
    options: &FullOptions,
    place: &ProbedPlace,
    go_on: &mut dyn FnMut() -> bool,
    stopped: &dyn Fn() -> bool,
) -> Result<Settled> {
    let batches = ProbeOptions { time: batch_time(options.probe.time), ..options.probe };
    let counters = || Counters::now(place.number.as_deref());
    let mut tries = 0;
    let mut measure = || -> Result<(Probed, Beside)> {
        let (begin, waited_begin_ns, before) = (Instant::now(), waited_ns(), counters());
        // Other places each time.
        let batches = ProbeOptions { seed: batches.seed.wrapping_add(tries), ..batches };
        tries += 1;
        let probed = probe(path, &batches, &mut |_| go_on())?;
        let waited = waited_begin_ns.zip(waited_ns()).map(|(begin_ns, end_ns)| {
            end_ns.saturating_sub(begin_ns) as f64 / begin.elapsed().as_nanos() as f64
        });
        Ok((probed, Beside { waited, others: counters().others_since(&before) }))
    };
    let tries_max = if options.once { 1 } else { TRIES_MAX };
    settle(tries_max, &mut measure, stopped).with_context(|| path.display().to_string())
}

/// Of all turns together.
fn share_of(turns: &[Turn]) -> Option<f64> {
    let asked: u64 = turns.iter().map(|turn| turn.visit.asked_bytes).sum();
    let device: Option<u64> = turns.iter().map(|turn| turn.visit.device_bytes).sum();
    device.filter(|_| asked > 0).map(|device| device as f64 / asked as f64)
}
