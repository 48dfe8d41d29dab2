//! What reading and computing at the same time is worth: `replay --overlap`.
//!
//! The same tokens through the same pack in several modes, which take turns: I/O alone, computing
//! alone (the real kernels, from memory), both with bundles computed as they arrive, and that with
//! the next layer's reads begun before this layer is consumed (predicted from the trace itself, so
//! perfectly) and with a worker thread.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lnp_engine::engine::{Alone, Session, Workers};
use lnp_engine::queue::TimedQueue;
use lnp_engine::sys::{DirectFile, ReadOptions, cpu};
use lnp_engine::{Collapse, Config, Engine, EngineError, open_engine, required_bytes};
use lnp_format::Pack;
use lnp_kernels::dtype::BLOCK;
use lnp_kernels::{Activation, Dtype, Input, Kernel, KernelShape};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::Serialize;

use super::options::ReplayOptions;
use super::record::TURN_TOKENS;
use super::rows::Times;
use super::sets::ActiveSets;
use lnp_common::report::{quantile, table, thousands};
use lnp_device::Threads;
use lnp_device::memory;
use lnp_link::trace::active;
use lnp_pack::PackIndex;

/// What is done at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    IoAlone,
    ComputeAlone,
    Overlap { prefetch: bool, worker: bool },
}

const MODES: [(&str, Mode); 6] = [
    ("I/O alone", Mode::IoAlone),
    ("compute alone", Mode::ComputeAlone),
    ("overlap", Mode::Overlap { prefetch: false, worker: false }),
    ("overlap+prefetch", Mode::Overlap { prefetch: true, worker: false }),
    ("overlap+worker", Mode::Overlap { prefetch: false, worker: true }),
    ("overlap+prefetch+worker", Mode::Overlap { prefetch: true, worker: true }),
];

/// One pack in one mode.
#[derive(Debug, Clone, Serialize)]
pub struct OverlapRow {
    /// Order of the pack.
    pub order: String,
    /// Bytes of a bundle.
    pub bundle_bytes: u32,
    /// What is done at the same time.
    pub mode: String,
    /// Share of the bundles that the cache holds.
    pub cache_ratio: f64,
    /// Tokens.
    pub tokens: usize,
    /// Wall time over all layers.
    pub wall_us_per_token: Times,
    /// Of it, nothing to do but wait for the device.
    pub wait_us_per_token: f64,
    /// Wall time over that of I/O and computing one after the other.
    pub of_serial: f64,
}

/// Replays with every pack in every mode.
///
/// # Errors
/// Packs whose bundles no kernel can take, or a read that fails.
pub fn overlap(
    packs: &[PackIndex],
    files: &[DirectFile],
    sets: &ActiveSets,
    options: &ReplayOptions,
    read: ReadOptions,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<OverlapRow>> {
    let mut rows = Vec::new();
    for (number, (index, file)) in packs.iter().zip(files).enumerate() {
        let pack = index.pack()?;
        let bundles = pack.shape().bundles() as f64;
        let config = Config {
            collapse: Collapse::Law(options.law),
            cache_bundles: (bundles * cache_ratio(options)).round() as u32,
            queue_depth: options.queue_depth,
            prefetch_bytes: Config::staging_bytes_full(&pack).next_multiple_of(4096),
            ..Config::new(&pack)
        };
        let mut memory = memory::arena(required_bytes(&config, &pack)?)?;
        let mut engine = open_engine(file, pack, &config, &mut memory, read)
            .with_context(|| index.path().display().to_string())?;
        let mut told = |share: f64| progress((number as f64 + share) / packs.len().max(1) as f64);
        let times = turns(&mut engine, sets, options, &mut told)?;
        rows.extend(rows_of(&engine, &times, options, sets.tokens()));
    }
    Ok(rows)
}

/// Of each mode: wall times of each token in each repeat, and waits, microseconds.
struct Timed {
    wall_us: Vec<Vec<f64>>,
    wait_us: f64,
    waits_of: usize,
}

/// Lets all modes take turns, a block of tokens each; each repeat begins with an empty cache.
fn turns<'a, Q: TimedQueue<'a> + Send>(
    engine: &mut Engine<'a, Q>,
    sets: &ActiveSets,
    options: &ReplayOptions,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Timed>> {
    let mut compute = Compute::new(engine.pack())?;
    // This one and a worker.
    let threads = Threads::new(Some(2))?;
    let tokens = sets.tokens();
    let mut timed: Vec<Timed> = MODES
        .iter()
        .map(|_| Timed { wall_us: vec![Vec::new(); tokens], wait_us: 0.0, waits_of: 0 })
        .collect();
    let mut random = Xoshiro256PlusPlus::seed_from_u64(0);
    let mut order: Vec<usize> = (0..MODES.len()).collect();
    let blocks = tokens.div_ceil(TURN_TOKENS);
    for repeat in 0..options.repeats.max(1) {
        for block in 0..blocks {
            order.shuffle(&mut random);
            for mode in &order {
                // All modes share one engine: each turn begins with an empty cache.
                engine.clear_cache();
                for token in block * TURN_TOKENS..tokens.min((block + 1) * TURN_TOKENS) {
                    let (wall_us, wait_us) =
                        compute.token(engine, sets, token, (MODES[*mode].1, &threads))?;
                    timed[*mode].wall_us[token].push(wall_us);
                    timed[*mode].wait_us += wait_us;
                    timed[*mode].waits_of += 1;
                }
            }
            let done = repeat * blocks + block + 1;
            progress(done as f64 / (options.repeats.max(1) * blocks) as f64);
        }
    }
    Ok(timed)
}

fn rows_of<'a, Q: TimedQueue<'a>>(
    engine: &Engine<'a, Q>,
    timed: &[Timed],
    options: &ReplayOptions,
    tokens: usize,
) -> Vec<OverlapRow> {
    let medians: Vec<Vec<f64>> = timed
        .iter()
        .map(|timed| {
            timed.wall_us.iter().map(|repeats| quantile(&mut repeats.clone(), 0.5)).collect()
        })
        .collect();
    let mean = |times: &[f64]| times.iter().sum::<f64>() / times.len().max(1) as f64;
    let serial_us = mean(&medians[0]) + mean(&medians[1]);
    let pack = engine.pack();
    MODES
        .iter()
        .zip(timed)
        .zip(&medians)
        .map(|(((name, _), timed), times)| OverlapRow {
            order: pack.provenance().order().to_owned(),
            bundle_bytes: pack.shape().bundle_stride,
            mode: (*name).to_owned(),
            cache_ratio: cache_ratio(options),
            tokens,
            wait_us_per_token: timed.wait_us / timed.waits_of.max(1) as f64,
            of_serial: mean(times) / serial_us,
            wall_us_per_token: Times::of(times.clone()),
        })
        .collect()
}

/// The first of those to be compared.
fn cache_ratio(options: &ReplayOptions) -> f64 {
    options.caches.ratios.first().copied().unwrap_or(0.0)
}

/// The kernel and what it works on.
struct Compute {
    kernel: Kernel,
    x: Vec<f32>,
    /// What the kernel makes of `x`.
    input: Vec<u8>,
    y: Vec<f32>,
    /// Bundles in memory, for computing alone.
    resident: memory::ArenaMemory,
    stride: usize,
}

impl Compute {
    /// Placeholders are taken for f16 weights in two parts.
    fn new(pack: &Pack<'_>) -> Result<Self> {
        let shape = pack.shape();
        let stride = shape.bundle_stride as usize;
        let (parts, dtype) = match shape.dtype {
            lnp_format::Dtype::F32 => (shape.parts as usize, Dtype::F32),
            lnp_format::Dtype::F16 => (shape.parts as usize, Dtype::F16),
            lnp_format::Dtype::Bf16 => (shape.parts as usize, Dtype::Bf16),
            lnp_format::Dtype::Q8_0 => (shape.parts as usize, Dtype::Q8_0),
            lnp_format::Dtype::Q4_0 => (shape.parts as usize, Dtype::Q4_0),
            _ => (2, Dtype::F16),
        };
        let hidden = stride / parts / dtype.block_bytes() * BLOCK;
        ensure!(
            hidden > 0 && dtype.part_bytes(hidden) * parts == stride,
            "bundles of {stride} bytes are no weights that --overlap could compute with: use a size that \
             is a multiple of 128"
        );
        let kernel = Kernel::new(
            KernelShape { hidden, parts, dtype, activation: Activation::Relu },
            cpu::detect(),
        )?;
        let x = (0..hidden).map(|at| (at % 7) as f32 / 8.0 - 0.3).collect();
        let mut resident = memory::arena(stride * shape.neurons as usize)?;
        // numbers of an ordinary size, whatever their type
        resident.iter_mut().enumerate().for_each(|(at, byte)| *byte = 0x30 + (at % 8) as u8);
        let input = vec![0; kernel.input_bytes()];
        Ok(Self { kernel, x, input, y: vec![0.0; hidden], resident, stride })
    }

    /// Wall time and waits of a token in a mode, microseconds.
    fn token<'a, Q: TimedQueue<'a> + Send>(
        &mut self,
        engine: &mut Engine<'a, Q>,
        sets: &ActiveSets,
        token: usize,
        (mode, threads): (Mode, &Threads),
    ) -> Result<(f64, f64)> {
        let ids: Vec<Vec<u32>> =
            sets.layers.iter().map(|bits| active(bits, sets.neurons, token).collect()).collect();
        let copy = token % sets.copies(engine.pack())?;
        let first_layer = (copy * ids.len()) as u32;
        let begin = Instant::now();
        let mut wait_ns = 0;
        match mode {
            Mode::ComputeAlone => {
                for ids in &ids {
                    self.compute_resident(ids)?;
                }
            }
            Mode::IoAlone => {
                for (layer, ids) in (first_layer..).zip(&ids) {
                    wait_ns += engine.fetch(layer, ids, |_, _| Ok(()))?.wait_ns;
                }
            }
            Mode::Overlap { prefetch, worker } => engine.session(|session| -> Result<()> {
                let workers: &dyn Workers = if worker { threads } else { &Alone };
                if prefetch {
                    // What comes before the first layer is not timed here: it begins at once.
                    session.prefetch(first_layer, &ids[0])?;
                }
                for (number, (layer, now)) in (first_layer..).zip(&ids).enumerate() {
                    let next = prefetch.then(|| ids.get(number + 1)).flatten();
                    wait_ns += self.compute_layer(session, workers, layer, now, next)?;
                }
                Ok(())
            })?,
        }
        Ok((begin.elapsed().as_secs_f64() * 1e6, wait_ns as f64 / 1e3))
    }

    /// One layer through the engine; the next one's reads are begun first.
    fn compute_layer<'a, Q: TimedQueue<'a> + Send>(
        &mut self,
        session: &mut Session<'_, 'a, Q>,
        workers: &dyn Workers,
        layer: u32,
        ids: &[u32],
        next: Option<&Vec<u32>>,
    ) -> Result<u64> {
        if let Some(next) = next {
            session.prefetch(layer + 1, next)?;
        }
        let Self { kernel, x, input, y, .. } = self;
        let kernel = &*kernel;
        let input: Input<'_> = kernel.prepare(x, input)?;
        let arrive = |_, bundle: &[u8], later: &[u8]| {
            Ok(usual(kernel.coefficient(&input, bundle, 0.0, later)?))
        };
        let mut finish = |_, coefficient, bundle: &[u8], later: &[u8]| -> Result<(), EngineError> {
            Ok(kernel.accumulate(coefficient, bundle, later, y)?)
        };
        let stats = session.fetch(workers, layer, ids, arrive, &mut finish)?;
        Ok(stats.wait_ns)
    }

    fn compute_resident(&mut self, ids: &[u32]) -> Result<()> {
        let input = self.kernel.prepare(&self.x, &mut self.input)?;
        for id in ids {
            let begin = *id as usize * self.stride;
            let bundle = &self.resident[begin..begin + self.stride];
            let coefficient = usual(self.kernel.coefficient(&input, bundle, 0.0, &[])?);
            self.kernel.accumulate(coefficient, bundle, &[], &mut self.y)?;
        }
        Ok(())
    }
}

/// Placeholder bundles are no weights: whatever comes out, the down part is computed too.
fn usual(coefficient: f32) -> f32 {
    if coefficient.is_finite() && coefficient > 0.0 { coefficient.min(1.0) } else { 1e-3 }
}

/// The table for people.
pub fn render(rows: &[OverlapRow]) -> String {
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.order.clone(),
                row.mode.clone(),
                thousands(row.wall_us_per_token.mean),
                thousands(row.wall_us_per_token.p99),
                thousands(row.wait_us_per_token),
                format!("{:.2}", row.of_serial),
            ]
        })
        .collect();
    table(&["order", "mode", "wall us", "p99", "waiting us", "of serial"], &lines, 2)
}
