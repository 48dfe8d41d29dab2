//! Batches of random reads of one size, drained at the end, as the engine makes them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lnp_engine::arena::{Arena, Staging, StagingMemory};
use lnp_engine::limits::STAGING_ALIGN;
use lnp_engine::queue::{Clock, Read, ReadQueue, turn};
use lnp_engine::sys::{DeviceQueue, DirectFile};
use rand::RngExt;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::ProbeOptions;
use crate::profile::Point;
use lnp_common::report::quantile;
use lnp_device::memory;

/// Sizes of the reads, bytes.
pub(super) const READ_BYTES: [u32; 7] =
    [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Reads of a batch.
pub(super) const BATCH_READS: [u32; 6] = [1, 8, 32, 64, 128, 256];
/// Most bytes of a batch.
const BATCH_BYTES_MAX: u64 = 16 << 20;
/// Room for the slots of the staging area.
const SLOTS_BYTES: usize = 1 << 16;

/// All kinds of batches, in rounds, each in a new random order. However little time there is, one round
/// is measured.
pub(super) fn in_turns(
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
            if !go_on() || (begin.elapsed() >= time && rounds > 1) {
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
pub(super) struct Prober {
    pub(super) queue: DeviceQueue<'static>,
    staging: Staging<'static>,
    file_bytes: u64,
    pub(super) random: Xoshiro256PlusPlus,
}

impl Prober {
    pub(super) fn over(file: &'static DirectFile, options: &ProbeOptions) -> Result<Self> {
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
    pub(super) fn batch_us(&mut self, read_bytes: u32, reads: u32) -> Result<f64> {
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
        let (mut list, mut result) = (list.into_iter(), Ok(()));
        let begin_ns = queue.now_ns();
        while turn(
            queue,
            &mut list,
            |list| list.next().map(Ok),
            |_, completion| {
                result = result.and(completion.result);
            },
        )? {}
        queue.end_batch();
        let us = (queue.now_ns() - begin_ns) as f64 / 1e3;
        Ok(result.map(|()| us)?)
    }
}
