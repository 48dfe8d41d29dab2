//! Measures a flash device and fits its law.
//!
//! What is measured is what the engine does: batches of random reads of one size, drained at the
//! end. Kinds of batches are interleaved in a new random order each round, so that a device that
//! drifts (heat, neighbours) drifts for all of them alike. A longer probe then sustains some of them
//! (`sustained`), for a device that does not keep up what it does in bursts.

mod sustained;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lnp_engine::arena::{Arena, Staging, StagingMemory};
use lnp_engine::limits::STAGING_ALIGN;
use lnp_engine::queue::{Clock, Read, ReadQueue};
use lnp_engine::sys::{DeviceQueue, DirectFile, ReadOptions};
use lnp_engine::{Combine, DeviceLaw};
use rand::RngExt;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::device::{Fit, Point, open_direct};
use crate::memory;
use crate::report::quantile;
pub use sustained::over_turns;

/// Sizes of the reads of a quick probe, bytes.
const READ_BYTES: [u32; 7] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Reads of a batch.
const BATCH_READS: [u32; 6] = [1, 8, 32, 64, 128, 256];
/// Most bytes of a batch.
const BATCH_BYTES_MAX: u64 = 16 << 20;
/// Room for the slots of the staging area.
const SLOTS_BYTES: usize = 1 << 16;
/// A file smaller than this may be answered from the device's own memory.
pub const FILE_BYTES_USUAL: u64 = 64 << 20;

/// What a probe is to do.
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

/// What a probe found.
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

/// Probes a file or block device, read-only. `progress` is told the share done; where it says
/// false, the probe ends with what it has.
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
    let least = u64::from(READ_BYTES[READ_BYTES.len() - 1]) * 4;
    ensure!(
        file_bytes >= least,
        "{}: {file_bytes} bytes are too few to probe: use a file of at least {least}, better {}",
        path.display(),
        FILE_BYTES_USUAL
    );
    let facts = std::fs::metadata(path)?;
    ensure!(
        !facts.is_file() || facts.blocks() * 512 >= facts.len() / 2,
        "{}: a sparse file, most of it holes that no device is asked for: use one with contents",
        path.display()
    );
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

/// All kinds of batches, in rounds, each in a new random order.
fn in_turns(
    prober: &mut Prober,
    time: Duration,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Vec<Point>> {
    let mut kinds: Vec<(u32, u32, Vec<f64>)> = Vec::new();
    for read_bytes in READ_BYTES {
        for reads in BATCH_READS {
            if u64::from(read_bytes) * u64::from(reads) <= BATCH_BYTES_MAX {
                kinds.push((read_bytes, reads, Vec::new()));
            }
        }
    }
    let begin = Instant::now();
    let mut order: Vec<usize> = (0..kinds.len()).collect();
    let mut rounds = 0;
    'time: loop {
        order.shuffle(&mut prober.random);
        for at in &order {
            if !go_on() || (begin.elapsed() >= time && rounds > 0) {
                break 'time;
            }
            let (read_bytes, reads, times) = &mut kinds[*at];
            let us = prober.batch_us(*read_bytes, *reads)?;
            // the first round warms up
            if rounds > 0 {
                times.push(us);
            }
        }
        rounds += 1;
    }
    let measured = kinds.into_iter().filter(|(_, _, times)| !times.is_empty());
    let points = measured.map(|(read_bytes, reads, mut times)| Point {
        read_bytes,
        reads,
        batches: times.len(),
        batch_us_median: quantile(&mut times, 0.5),
        batch_us_p10: quantile(&mut times, 0.1),
        batch_us_p90: quantile(&mut times, 0.9),
    });
    Ok(points.collect())
}

/// What batches are made with.
struct Prober {
    queue: DeviceQueue<'static>,
    staging: Staging<'static>,
    file_bytes: u64,
    random: Xoshiro256PlusPlus,
}

impl Prober {
    fn over(file: &'static DirectFile, options: &ProbeOptions) -> Result<Self> {
        // The queue may outlive any borrow, so its memory is never given back: once per probe.
        let memory = Box::leak(Box::new(memory::arena(
            BATCH_BYTES_MAX as usize + 2 * STAGING_ALIGN + SLOTS_BYTES,
        )?));
        let mut memory: &'static mut [u8] = memory;
        let staging_memory = StagingMemory::of(&mut memory);
        let mut arena = Arena::new(memory);
        let staging = arena.take_bytes(BATCH_BYTES_MAX as usize, STAGING_ALIGN)?;
        let most = BATCH_READS[BATCH_READS.len() - 1] as usize;
        let staging = Staging::new(&mut arena, staging, most)?;
        let queue = DeviceQueue::open(file, staging_memory, options.queue_depth, options.read)?;
        let random = Xoshiro256PlusPlus::seed_from_u64(options.seed);
        Ok(Self { queue, staging, file_bytes: file.bytes(), random })
    }

    /// One batch at random offsets; returns its time, microseconds.
    fn batch_us(&mut self, read_bytes: u32, reads: u32) -> Result<f64> {
        let Self { queue, staging, file_bytes, random } = self;
        let places = (*file_bytes - u64::from(read_bytes)) / 4096 + 1;
        ensure!(
            staging.lay_out((0..reads).map(|_| read_bytes.into())),
            "a batch beyond its memory"
        );
        let list: Vec<Read<'static>> = (0..reads)
            .filter_map(|tag| {
                let file_offset = random.random_range(0..places) * 4096;
                Some(Read { file_offset, lease: staging.lease(tag as usize)?, tag })
            })
            .collect();
        let begin_ns = queue.now_ns();
        for read in list {
            if queue.in_flight() == queue.depth()
                && let Some(completion) = queue.wait()
            {
                completion.result?;
            }
            queue.submit(read)?;
        }
        queue.drain()?;
        Ok((queue.now_ns() - begin_ns) as f64 / 1e3)
    }
}

/// The law, sum or max, with the smaller median error.
///
/// # Errors
/// Measurements that no law describes.
pub fn fit_law(points: &[Point]) -> Result<(DeviceLaw, Fit)> {
    let mut found = Vec::new();
    for combine in [Combine::Sum, Combine::Max] {
        let law = fit_combine(points, combine)?;
        let mut errors: Vec<f64> = points.iter().map(|point| error_of(&law, point).abs()).collect();
        found.push((law, quantile(&mut errors, 0.5), quantile(&mut errors, 0.9)));
    }
    found.sort_by(|a, b| (a.1 + a.2).total_cmp(&(b.1 + b.2)));
    let (law, error_median, error_p90) = found[0];
    Ok((
        law,
        Fit { error_median, error_p90, other_combine_error_median: found[1].1, sustained: false },
    ))
}

/// Predicted over measured, minus 1.
fn error_of(law: &DeviceLaw, point: &Point) -> f64 {
    let bytes = u64::from(point.reads) * u64::from(point.read_bytes);
    law.time_us(point.reads.into(), bytes) / point.batch_us_median - 1.0
}

/// Least squares of the relative error. Under *max*, each point is bound by operations or by bytes;
/// which one, and the law, are found in turns.
fn fit_combine(points: &[Point], combine: Combine) -> Result<DeviceLaw> {
    let mut law: Option<DeviceLaw> = None;
    for _ in 0..40 {
        let mut rows = Vec::with_capacity(points.len());
        for point in points {
            let bytes = u64::from(point.reads) * u64::from(point.read_bytes);
            let (reads, mib) = (f64::from(point.reads), bytes as f64 / lnp_engine::law::MIB);
            let terms = match (combine, &law) {
                (Combine::Sum, _) => [1.0, reads, mib],
                (Combine::Max, None) if point.read_bytes <= 16 << 10 => [1.0, reads, 0.0],
                (Combine::Max, None) => [1.0, 0.0, mib],
                (Combine::Max, Some(law)) if law.a_us() * reads >= law.transfer_us(bytes) => {
                    [1.0, reads, 0.0]
                }
                (Combine::Max, Some(_)) => [1.0, 0.0, mib],
            };
            rows.push(terms.map(|term| term / point.batch_us_median));
        }
        let [t0_us, a_us, us_per_mib] = least_squares(&rows, &vec![1.0; rows.len()]);
        let b_mib_s = 1e6 / us_per_mib.max(1e-3);
        let next = DeviceLaw::new(t0_us.clamp(0.0, 1e6), a_us.clamp(0.0, 1e6), b_mib_s, combine)?;
        if law == Some(next) {
            break;
        }
        law = Some(next);
    }
    law.context("nothing was measured")
}

/// Solves `rows * x = 1` in the weighted least squares with `x >= 0`, by coordinate descent: three unknowns,
/// a convex problem, a few thousand cheap steps.
pub(crate) fn least_squares(rows: &[[f64; 3]], weights: &[f64]) -> [f64; 3] {
    let weighted = || rows.iter().zip(weights);
    let dot = |i: usize, j: usize| weighted().map(|(row, w)| w * row[i] * row[j]).sum::<f64>();
    let gram = [0, 1, 2].map(|i| [0, 1, 2].map(|j| dot(i, j)));
    let target = [0, 1, 2].map(|i| weighted().map(|(row, w)| w * row[i]).sum::<f64>());
    let mut x = [0.0; 3];
    for _ in 0..20_000 {
        let mut change: f64 = 0.0;
        for i in 0..3 {
            if gram[i][i] == 0.0 {
                continue;
            }
            let rest: f64 = (0..3).filter(|j| *j != i).map(|j| gram[i][j] * x[j]).sum();
            let next = ((target[i] - rest) / gram[i][i]).max(0.0);
            change = change.max((next - x[i]).abs() / next.max(1e-9));
            x[i] = next;
        }
        if change < 1e-9 {
            break;
        }
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points_of(law: &DeviceLaw, noise: f64) -> Vec<Point> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(5);
        let mut points = Vec::new();
        for read_bytes in READ_BYTES {
            for reads in BATCH_READS {
                let bytes = u64::from(read_bytes) * u64::from(reads);
                let us = law.time_us(reads.into(), bytes)
                    * (1.0 + noise * random.random_range(-1.0..1.0));
                points.push(Point {
                    read_bytes,
                    reads,
                    batches: 1,
                    batch_us_median: us,
                    batch_us_p10: us,
                    batch_us_p90: us,
                });
            }
        }
        points
    }

    #[test]
    fn finds_the_law_that_made_the_points() {
        for combine in [Combine::Sum, Combine::Max] {
            for (t0, a, b) in [(80.0, 9.64, 2034.0), (10.0, 50.0, 950.0), (100.0, 11.0, 1500.0)] {
                let law = DeviceLaw::new(t0, a, b, combine).unwrap();
                let (found, fit) = fit_law(&points_of(&law, 0.03)).unwrap();
                assert_eq!(found.combine(), combine, "{law:?}: {found:?} {fit:?}");
                assert!((found.a_us() / a - 1.0).abs() < 0.05, "{law:?}: {found:?}");
                assert!((found.b_mib_s() / b - 1.0).abs() < 0.05, "{law:?}: {found:?}");
                assert!(fit.error_median < 0.03);
            }
        }
    }
}
