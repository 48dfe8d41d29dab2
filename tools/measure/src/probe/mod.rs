//! Measures a flash device and fits its law.
//!
//! What the law is fitted to is what the engine does: batches of random reads of one size, drained at
//! the end ([`fit`]). Kinds of batches are interleaved in a new random order each round, so that a
//! device that drifts (heat, neighbours) drifts for all of them alike. A longer probe then sustains some
//! of them (`sustained`), for a device that does not keep up what it does in bursts.
//!
//! Beside it stands the [`matrix`]: streams of reads that are always so many in flight, by size, depth,
//! pattern, range and back end ([`stream`]), from which come the measured [`curve`] of each depth,
//! latencies and CPU time. [`full`] runs all of it, the batches again where the machine was busy
//! (`settle`); [`honesty`] looks for what would make it a lie.

mod batches;
pub mod charts;
pub mod create;
pub mod csv;
pub mod curve;
pub mod fit;
pub mod full;
pub mod honesty;
mod kernel;
pub mod matrix;
pub mod place;
pub mod rounds;
mod settle;
pub mod stream;
mod sustained;
pub mod table;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lnp_engine::DeviceLaw;
use lnp_engine::sys::{DirectFile, ReadOptions};

use lnp_common::report::bytes;
use lnp_device::open_direct;

use crate::profile::{Fit, Point};
use batches::{Prober, READ_BYTES, in_turns};
pub use fit::fit_law;
pub(crate) use fit::least_squares;
pub use settle::TRIES_MAX;
pub use sustained::over_turns;

/// A file smaller than this may be answered from the device's own memory.
pub const FILE_BYTES_USUAL: u64 = 64 << 20;

/// What batches are to be made.
#[derive(Debug, Clone, Copy)]
pub struct ProbeOptions {
    /// For how long.
    pub time: Duration,
    /// Reads in flight.
    pub queue_depth: u32,
    /// How reads reach the device.
    pub read: ReadOptions,
    /// Goes on through the page cache where there are no direct reads.
    pub buffered: bool,
    /// Seed of offsets and order.
    pub seed: u64,
}

/// What batches told.
#[derive(Debug)]
pub struct Probed {
    /// The law that fits best.
    pub law: DeviceLaw,
    /// How well.
    pub fit: Fit,
    /// The measurements of all kinds of batches in turns.
    pub points: Vec<Point>,
    /// Those of some kinds without a pause; none in a short probe.
    pub sustained: Vec<Point>,
    /// Length of the file, bytes.
    pub file_bytes: u64,
    /// The back end in use.
    pub back_end: String,
    /// Whether the page cache was out of the way.
    pub direct: bool,
    /// Seconds of measuring.
    pub seconds: f64,
}

/// Batches alone, which the law is fitted to, on a file or block device, read-only. `progress` is told
/// the share done; where it says false, the probe ends with what it has.
///
/// # Errors
/// The file cannot be read, is too small, or there was no time for a single round.
pub fn probe(
    path: &Path,
    options: &ProbeOptions,
    progress: &mut dyn FnMut(f64) -> bool,
) -> Result<Probed> {
    let file: &'static DirectFile = Box::leak(Box::new(open_direct(path, options.buffered)?));
    let file_bytes = file.bytes();
    check_size(path, file_bytes)?;
    honesty::refuse_holes(path)?;
    let mut prober = Prober::over(file, options)?;
    let begin = Instant::now();
    let rounds = sustained::rounds(options.time);
    let turns = options.time.saturating_sub(sustained::time(rounds));
    let mut stopped = false;
    let mut go_on = || {
        let share = begin.elapsed().as_secs_f64() / options.time.as_secs_f64();
        stopped |= !progress(share.min(1.0));
        !stopped
    };
    let at_path = || path.display().to_string();
    let points = in_turns(&mut prober, turns, &mut go_on).with_context(at_path)?;
    ensure!(points.len() >= 6, "there was no time to measure anything: give the probe longer");
    let sustained = sustained::measure(&mut prober, rounds, &mut go_on).with_context(at_path)?;
    let held_back = sustained::is_held_back(&points, &sustained);
    let (law, fit) = fit_law(if held_back { &sustained } else { &points })?;
    Ok(Probed {
        law,
        fit: Fit { sustained: held_back, ..fit },
        points,
        sustained,
        file_bytes,
        back_end: prober.queue.back_end().name().to_owned(),
        direct: file.is_direct(),
        seconds: begin.elapsed().as_secs_f64(),
    })
}

/// Refuses a file that is too small for batches.
fn check_size(path: &Path, file_bytes: u64) -> Result<()> {
    let least = u64::from(READ_BYTES[READ_BYTES.len() - 1]) * 4;
    ensure!(
        file_bytes >= least,
        "{}: {} are too few to probe: use a file of at least {}, better {}",
        path.display(),
        bytes(file_bytes as f64),
        bytes(least as f64),
        bytes(FILE_BYTES_USUAL as f64)
    );
    Ok(())
}
