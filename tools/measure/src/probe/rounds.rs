//! Streams in turns: every kind once a round, in a new random order each.

use std::time::Duration;

use anyhow::Result;
use lnp_engine::arena::{Arena, Staging, StagingMemory};
use lnp_engine::limits::STAGING_ALIGN;
use lnp_engine::sys::{BackEnd, BackEndChoice, DeviceQueue, DirectFile, ReadOptions};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::kernel::{Counters, cpu_ns};
use super::matrix::{BYTES_IN_FLIGHT_MAX, DEPTH_MAX};
use super::stream::{LatencyHistogram, Length, Meters, Visit, latencies, visit};
use crate::profile::{Stream, StreamBackEnd, StreamKind};
use lnp_common::report::quantile;
use lnp_device::memory;

/// Room for the slots of the staging area.
const SLOTS_BYTES: usize = 1 << 16;
/// Most rounds.
const ROUNDS_MAX: u32 = 5;
/// A turn is no shorter, as long as there is one for each kind.
const TURN_LEAST: Duration = Duration::from_millis(40);
/// The begin of a turn that does not count: an eighth of it, but no more.
const LEAD_IN_MOST: Duration = Duration::from_millis(30);
/// A quantile is told where so many reads lie beyond it.
const READS_BEYOND: f64 = 10.0;

/// One turn of one kind: a row of the raw results.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn {
    /// Which turn of all, from 0.
    pub number: usize,
    /// Which round, from 0.
    pub round: u32,
    /// What was read.
    pub kind: StreamKind,
    /// What came of it.
    pub visit: Visit,
    /// Latency, microseconds: median, 99th and 99.9th percentile, whatever they are worth.
    pub latency_us: [f64; 3],
}

/// Turns of one kind, taken together.
struct Tally {
    kind: StreamKind,
    latencies: LatencyHistogram,
    visits: Vec<Visit>,
}

impl Tally {
    fn stream(&self) -> Option<Stream> {
        if self.visits.is_empty() {
            return None;
        }
        let rate = |visit: &Visit| visit.reads as f64 / visit.seconds;
        let mut rates: Vec<f64> = self.visits.iter().map(rate).collect();
        let sum = |of: fn(&Visit) -> f64| self.visits.iter().map(of).sum::<f64>();
        let reads = self.visits.iter().map(|visit| visit.reads).sum::<u64>();
        let asked = sum(|visit| visit.asked_bytes as f64);
        let device: Option<u64> = self.visits.iter().map(|visit| visit.device_bytes).sum();
        let median = quantile(&mut rates, 0.5);
        let told = |p: f64| {
            let enough = (1.0 - p) * reads as f64 >= READS_BEYOND;
            enough.then(|| microseconds(&self.latencies, p))
        };
        Some(Stream {
            kind: self.kind,
            turns: self.visits.len(),
            reads,
            reads_per_s: median,
            reads_per_s_least: rates[0],
            reads_per_s_most: rates[rates.len() - 1],
            mib_s: median * f64::from(self.kind.read_bytes) / lnp_engine::law::MIB,
            latency_us_p50: microseconds(&self.latencies, 0.5),
            latency_us_p99: told(0.99),
            latency_us_p999: told(0.999),
            cpu_us_per_read: sum(|visit| visit.cpu_seconds) * 1e6 / reads.max(1) as f64,
            device_share: device.map(|bytes| bytes as f64 / asked.max(1.0)),
        })
    }
}

fn microseconds(latencies: &LatencyHistogram, p: f64) -> f64 {
    latencies.value_at_quantile(p) as f64 / 1e3
}

/// What streams are made with.
pub(super) struct Streamer {
    /// None where only pread is to be had.
    uring: Option<DeviceQueue<'static>>,
    pread: DeviceQueue<'static>,
    staging: Staging<'static>,
    random: Xoshiro256PlusPlus,
    /// `major:minor` of the device.
    number: Option<String>,
}

impl Streamer {
    /// Opens the queues on a file.
    ///
    /// # Errors
    /// No memory, or no io_uring where that was asked for.
    pub(super) fn over(
        file: &'static DirectFile,
        read: ReadOptions,
        number: Option<String>,
        seed: u64,
    ) -> Result<Self> {
        let bytes = BYTES_IN_FLIGHT_MAX as usize;
        // The queues may outlive any borrow, so their memory is never given back: once per probe.
        let memory = Box::leak(Box::new(memory::arena(bytes + 2 * STAGING_ALIGN + SLOTS_BYTES)?));
        let mut memory: &'static mut [u8] = memory;
        let staging_memory = StagingMemory::of(&mut memory);
        let mut arena = Arena::new(memory);
        let area = arena.take_bytes(bytes, STAGING_ALIGN)?;
        let staging = Staging::new(&mut arena, area, DEPTH_MAX as usize)?;
        let queue = DeviceQueue::open(file, staging_memory, DEPTH_MAX, read)?;
        let pread = DeviceQueue::open(file, staging_memory, 1, BackEndChoice::Pread)?;
        let uring = matches!(queue.back_end(), BackEnd::Uring { .. }).then_some(queue);
        let random = Xoshiro256PlusPlus::seed_from_u64(seed);
        Ok(Self { uring, pread, staging, random, number })
    }

    /// Whether there is io_uring.
    pub(super) fn has_uring(&self) -> bool {
        self.uring.is_some()
    }

    fn visit(
        &mut self,
        kind: StreamKind,
        length: Length,
        found: &mut LatencyHistogram,
    ) -> Result<Visit> {
        let number = self.number.clone();
        let counters = || Counters::now(number.as_deref());
        let meters = Meters { cpu_ns: &cpu_ns, counters: &counters };
        let queue = match (kind.back_end, &mut self.uring) {
            (StreamBackEnd::Uring, Some(uring)) => uring,
            _ => &mut self.pread,
        };
        visit(queue, &mut self.staging, kind, length, (&mut self.random, &meters), found)
    }

    /// One kind alone, for so long.
    ///
    /// # Errors
    /// A read that fails.
    pub(super) fn alone(&mut self, kind: StreamKind, time: Duration) -> Result<Option<Stream>> {
        let mut tally = Tally { kind, latencies: latencies()?, visits: Vec::new() };
        let visit = self.visit(kind, length(time), &mut tally.latencies)?;
        tally.visits.push(visit);
        Ok(tally.stream())
    }

    /// All kinds in turns for so long, in up to five rounds, each in a new random order; ends where
    /// `go_on`, which is told the share done, says false.
    ///
    /// # Errors
    /// A read that fails.
    pub(super) fn in_turns(
        &mut self,
        kinds: &[StreamKind],
        time: Duration,
        go_on: &mut dyn FnMut(f64) -> bool,
    ) -> Result<(Vec<Stream>, Vec<Turn>)> {
        let mut tallies = Vec::with_capacity(kinds.len());
        for kind in kinds {
            tallies.push(Tally { kind: *kind, latencies: latencies()?, visits: Vec::new() });
        }
        let rounds = rounds(kinds.len(), time);
        let all = kinds.len() * rounds as usize;
        let length = length(time / all.max(1) as u32);
        let mut order: Vec<usize> = (0..kinds.len()).collect();
        let mut turns = Vec::with_capacity(all);
        'rounds: for round in 0..rounds {
            order.shuffle(&mut self.random);
            for at in &order {
                if !go_on(turns.len() as f64 / all as f64) {
                    break 'rounds;
                }
                let tally = &mut tallies[*at];
                let mut found = latencies()?;
                let visit = self.visit(tally.kind, length, &mut found)?;
                let latency_us = [0.5, 0.99, 0.999].map(|p| microseconds(&found, p));
                let number = turns.len();
                turns.push(Turn { number, round, kind: tally.kind, visit, latency_us });
                tally.latencies.add(&found)?;
                tally.visits.push(visit);
            }
        }
        Ok((tallies.iter().filter_map(Tally::stream).collect(), turns))
    }
}

/// As many as there is time for.
fn rounds(kinds: usize, time: Duration) -> u32 {
    let turns = time.as_secs_f64() / TURN_LEAST.as_secs_f64();
    ((turns / kinds.max(1) as f64) as u32).clamp(1, ROUNDS_MAX)
}

fn length(turn: Duration) -> Length {
    let lead_in = (turn / 8).min(LEAD_IN_MOST);
    let nanoseconds = |time: Duration| time.as_nanos() as u64;
    Length { lead_in_ns: nanoseconds(lead_in), time_ns: nanoseconds(turn - lead_in) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Pattern;

    fn visit_of(reads: u64, seconds: f64) -> Visit {
        let asked_bytes = reads * 4096;
        Visit {
            reads,
            seconds,
            cpu_seconds: 1e-6,
            asked_bytes,
            device_bytes: Some(asked_bytes / 2),
        }
    }

    #[test]
    fn turns_taken_together() {
        let kind = StreamKind {
            pattern: Pattern::Random,
            read_bytes: 4096,
            depth: 2,
            range_bytes: 1 << 20,
            back_end: StreamBackEnd::Pread,
        };
        let mut tally = Tally { kind, latencies: latencies().unwrap(), visits: Vec::new() };
        assert_eq!(tally.stream(), None);
        tally.visits = vec![visit_of(1000, 1.0), visit_of(200, 0.1), visit_of(300, 1.0)];
        for us in 1..=1500_u64 {
            tally.latencies.record(us * 1000).unwrap();
        }
        let stream = tally.stream().unwrap();
        assert_eq!((stream.turns, stream.reads), (3, 1500));
        let rates = (stream.reads_per_s_least, stream.reads_per_s, stream.reads_per_s_most);
        assert_eq!(rates, (300.0, 1000.0, 2000.0));
        assert_eq!(stream.device_share, Some(0.5));
        assert!((stream.latency_us_p50 - 750.0).abs() < 2.0);
        // 15 reads lie beyond the one, 1.5 beyond the other
        assert!((stream.latency_us_p99.unwrap() - 1485.0).abs() < 2.0);
        assert_eq!(stream.latency_us_p999, None);
    }

    #[test]
    fn rounds_fill_the_time() {
        assert_eq!(rounds(130, Duration::from_secs(238)), 5);
        assert_eq!(rounds(14, Duration::from_secs(3)), 5);
        assert_eq!(rounds(14, Duration::from_millis(1500)), 2);
        assert_eq!(rounds(14, Duration::from_millis(50)), 1);
    }
}
