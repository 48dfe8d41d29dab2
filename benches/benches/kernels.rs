//! The kernels at the speed of memory: coefficient and accumulate over the bundles of active sets, and the
//! matrices of predictors, next to a plain read of as many bytes in the same order, and to a dense product
//! of the same type.

use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{DType, Device, Module, Tensor};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use lnp_engine::limits::{FINISH_BATCH, LOOKAHEAD_BYTES};
use lnp_engine::sys::cpu;
use lnp_kernels::{Activation, Dtype, Kernel, KernelShape, Numbers, Rows, Tier};
use memmap2::{Advice, MmapMut};
use rand::{Rng, RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Bytes that bundles are taken from: 3 % of it is still beyond the last cache of a server's core.
const MEMORY_BYTES: usize = 2 << 30;
/// Bytes of active bundles of one iteration. All others pass before any comes again.
const PASS_BYTES: usize = 8 << 20;
/// Bytes of bundles that are visited again and again, for what the second cache holds.
const CACHED_BYTES: usize = 384 << 10;
/// Bytes of the matrix of the dense product.
const DENSE_BYTES: usize = 128 << 20;
/// Samples of a benchmark.
const SAMPLES: usize = 10;
/// Name, hidden size and parts of a layer.
const LAYERS: [(&str, usize, usize); 3] =
    [("opt-350m", 1024, 2), ("opt-6.7b", 4096, 2), ("llama-2-7b", 4096, 3)];
/// Name, rows and columns of a predictor's matrices: a low rank, a lower one.
const MATRICES: [(&str, usize, usize); 3] =
    [("reduce", 256, 4096), ("expand", 16384, 256), ("narrow", 16384, 64)];
/// Shares of the bundles that are active.
const ACTIVE: [(&str, f64); 4] = [("3%", 0.03), ("10%", 0.10), ("25%", 0.25), ("100%", 1.0)];

fn kernels(criterion: &mut Criterion) {
    let memory = filled();
    for dtype in Dtype::ALL {
        for (name, hidden, parts) in LAYERS {
            let shape = KernelShape { hidden, parts, dtype, activation: Activation::Relu };
            let about = format!("{name}/{}", dtype.name());
            for (share_name, share) in ACTIVE {
                let bundles = active(&memory, &shape, share);
                let count = PASS_BYTES / bundle_bytes(&shape);
                let about = format!("{about}/{share_name}");
                let mut group = criterion.benchmark_group(&about);
                compare(&mut group, about, shape, &bundles, count);
                group.finish();
            }
            let mut bundles = active(&memory, &shape, 0.25);
            let count = CACHED_BYTES / bundle_bytes(&shape);
            bundles.truncate(count);
            let about = format!("{about}/cached");
            let mut group = criterion.benchmark_group(&about);
            compare(&mut group, about, shape, &bundles, count);
            group.finish();
        }
        dense(criterion, dtype, &memory);
    }
    for (name, count, columns) in MATRICES {
        for numbers in Numbers::ALL {
            let about = format!("{name}-{count}x{columns}/{}/matrix", numbers.name());
            matrices(criterion, &about, (numbers, count, columns), &memory);
        }
    }
}

/// Matrices of one shape, one after the other, on every tier; the plain read takes turns.
fn matrices(
    criterion: &mut Criterion,
    about: &str,
    (numbers, count, columns): (Numbers, usize, usize),
    memory: &[u8],
) {
    let bytes = count * numbers.row_bytes(columns);
    let mut group = criterion.benchmark_group(about);
    group.throughput(Throughput::Bytes(bytes as u64));
    let mut all = memory.chunks_exact(bytes).cycle();
    let mut next = || all.next().expect("a cycle");
    let x: Vec<f32> = (0..columns).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let mut out = vec![0.0; count];
    for tier in Tier::ALL {
        let rows = Rows::new(numbers, columns, cpu::detect().up_to(tier)).expect("a valid shape");
        if rows.tier() != tier {
            continue;
        }
        let mut memory = vec![0; rows.input_bytes()];
        let mut samples = Vec::new();
        group.bench_function(tier.name(), |bencher| {
            bencher.iter_custom(|rounds| {
                let (mut measured, mut read) = (Duration::ZERO, Duration::ZERO);
                for _ in 0..rounds {
                    measured += timed(|| {
                        let input = rows.prepare(&x, &mut memory).expect("lengths fit");
                        rows.multiply(&input, next(), &mut out).expect("lengths fit");
                        black_box(&mut out);
                    });
                    read += timed(|| {
                        black_box(sum(next()));
                    });
                }
                samples.push(Sample { measured, read, rounds });
                measured
            });
        });
        note(about, tier.name(), bytes, &samples);
    }
    group.finish();
}

fn bundle_bytes(shape: &KernelShape) -> usize {
    shape.parts * shape.dtype.part_bytes(shape.hidden)
}

/// The bundles of active sets, in ascending order, as they lie side by side in memory.
fn active<'m>(memory: &'m [u8], shape: &KernelShape, share: f64) -> Vec<&'m [u8]> {
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(1);
    let bundles = memory.chunks_exact(bundle_bytes(shape));
    bundles.filter(|_| chance.random_bool(share)).collect()
}

/// One layer's shape on every tier, and the plain read; `count` bundles an iteration.
fn compare(
    group: &mut BenchmarkGroup<'_, WallTime>,
    about: String,
    shape: KernelShape,
    bundles: &[&[u8]],
    count: usize,
) {
    group.throughput(Throughput::Bytes((count * bundle_bytes(&shape)) as u64));
    let mut passes = bundles.chunks_exact(count).cycle();
    let mut pass = || passes.next().expect("a cycle");
    let x: Vec<f32> = (0..shape.hidden).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let mut y = vec![0.0; shape.hidden];
    for kernel in tiers(shape) {
        let mut memory = vec![0; kernel.input_bytes()];
        let mut samples = Vec::new();
        group.bench_function(kernel.tier().name(), |bencher| {
            bencher.iter_custom(|rounds| {
                let (mut measured, mut read) = (Duration::ZERO, Duration::ZERO);
                for _ in 0..rounds {
                    // The memory of a shared machine is not as fast from one second to the next, so the
                    // plain read takes turns with each kernel.
                    measured += timed(|| compute(&kernel, pass(), &x, &mut memory, &mut y));
                    read += timed(|| {
                        black_box(pass().iter().map(|bundle| sum(bundle)).max());
                    });
                }
                samples.push(Sample { measured, read, rounds });
                measured
            });
        });
        note(&about, kernel.tier().name(), count * bundle_bytes(&shape), &samples);
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

/// The share of an FFN that some bundles make.
fn compute(kernel: &Kernel, bundles: &[&[u8]], x: &[f32], memory: &mut [u8], y: &mut [f32]) {
    y.fill(0.0);
    let input = kernel.prepare(x, memory).expect("lengths fit");
    let lookahead = LOOKAHEAD_BYTES.div_ceil(kernel.bundle_bytes());
    let later = |number: usize| bundles.get(number + lookahead).copied().unwrap_or_default();
    let mut coefficients = [0.0; FINISH_BATCH];
    // Some coefficients, then their sums: as the engine does.
    for (group, begin) in bundles.chunks(FINISH_BATCH).zip((0..).step_by(FINISH_BATCH)) {
        for ((number, bundle), coefficient) in (begin..).zip(group).zip(&mut coefficients) {
            // The bias puts every neuron above zero, so that no bundle is half read.
            let found = kernel.coefficient(&input, bundle, 1e6, later(number));
            *coefficient = found.expect("lengths fit");
        }
        for ((number, bundle), coefficient) in (begin..).zip(group).zip(&coefficients) {
            let done = kernel.accumulate(*coefficient, bundle, later(number), y);
            done.expect("lengths fit");
        }
    }
    black_box(y);
}

/// Times of what is measured and of the plain read that took turns with it, in so many rounds.
struct Sample {
    measured: Duration,
    read: Duration,
    rounds: u64,
}

/// Appends a row to the file `LNP_SAMPLES`: the samples' median speed, that of the plain read, and the
/// median, least and most of their ratios.
fn note(about: &str, what: &str, pass_bytes: usize, samples: &[Sample]) {
    let Some(path) = std::env::var_os("LNP_SAMPLES") else { return };
    // The first ones only warm up; none at all where this was not chosen on the command line.
    let samples = &samples[samples.len().saturating_sub(SAMPLES)..];
    if samples.is_empty() {
        return;
    }
    let sorted = |of: &dyn Fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let gib_s = |time: Duration, rounds: u64| {
        (pass_bytes as u64 * rounds) as f64 / (1 << 30) as f64 / time.as_secs_f64()
    };
    let median = |values: &[f64]| values[values.len() / 2];
    let measured = sorted(&|sample| gib_s(sample.measured, sample.rounds));
    let read = sorted(&|sample| gib_s(sample.read, sample.rounds));
    let ratio = sorted(&|sample| sample.read.as_secs_f64() / sample.measured.as_secs_f64());
    let line = format!(
        "{},{what},{pass_bytes},{:.2},{:.2},{:.3},{:.3},{:.3}\n",
        about.replace('/', ","),
        median(&measured),
        median(&read),
        median(&ratio),
        ratio[0],
        ratio[ratio.len() - 1],
    );
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("LNP_SAMPLES can be written");
}

/// One kernel for each tier that this machine has, the lowest first.
fn tiers(shape: KernelShape) -> Vec<Kernel> {
    let with = |tier| Kernel::new(shape, cpu::detect().up_to(tier)).expect("a valid shape");
    let all = Tier::ALL.into_iter().map(|tier| (tier, with(tier)));
    all.filter(|(tier, kernel)| kernel.tier() == *tier).map(|(_, kernel)| kernel).collect()
}

/// The plain read: sum of all words.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    words.fold(0, u64::wrapping_add)
}

/// Memory in huge pages, as the engine's arena should be. Every two bytes are an ordinary number as
/// f16 and bf16 (and every four as f32): neither denormal nor infinite nor NaN.
fn filled() -> MmapMut {
    let mut memory = MmapMut::map_anon(MEMORY_BYTES).expect("2 GiB of memory");
    // Refused where huge pages are turned off: then the numbers are lower, for all alike.
    let _ = memory.advise(Advice::HugePage);
    Xoshiro256PlusPlus::seed_from_u64(2).fill_bytes(&mut memory);
    for half in memory.as_chunks_mut::<2>().0 {
        // What is random stays: sign, mantissa and the low bits of the exponent.
        *half = (u16::from_le_bytes(*half) & 0x9fff | 0x2000).to_le_bytes();
    }
    memory
}

/// candle's product of a matrix with a vector, both of the same type, on one thread; the matrix is
/// in no cache. The plain read is of as many bytes of `memory`.
fn dense(criterion: &mut Criterion, dtype: Dtype, memory: &[u8]) {
    for hidden in [1024, 4096] {
        let Ok((multiply, bytes)) = dense_product(dtype, hidden) else {
            println!("candle has no product of {} here", dtype.name());
            return;
        };
        let about = format!("hidden-{hidden}/{}/dense", dtype.name());
        let mut group = criterion.benchmark_group(&about);
        group.throughput(Throughput::Bytes(bytes as u64));
        let mut samples = Vec::new();
        group.bench_function("candle", |bencher| {
            bencher.iter_custom(|rounds| {
                let (mut measured, mut read) = (Duration::ZERO, Duration::ZERO);
                for _ in 0..rounds {
                    measured += timed(|| drop(black_box(multiply())));
                    read += timed(|| {
                        black_box(sum(&memory[..bytes]));
                    });
                }
                samples.push(Sample { measured, read, rounds });
                measured
            });
        });
        group.finish();
        note(&about, "candle", bytes, &samples);
    }
}

/// The product as a function, and the bytes of its matrix.
fn dense_product(
    dtype: Dtype,
    hidden: usize,
) -> candle_core::Result<(Box<dyn Fn() -> Tensor>, usize)> {
    let rows = DENSE_BYTES / dtype.part_bytes(hidden);
    let cpu = Device::Cpu;
    let weights = Tensor::rand(-1.0f32, 1.0, (rows, hidden), &cpu)?;
    let x = Tensor::rand(-1.0f32, 1.0, (1, hidden), &cpu)?;
    let quantised = match dtype {
        Dtype::Q8_0 => Some(GgmlDType::Q8_0),
        Dtype::Q4_0 => Some(GgmlDType::Q4_0),
        _ => None,
    };
    let bytes = rows * dtype.part_bytes(hidden);
    if let Some(to) = quantised {
        let matrix = QMatMul::from_qtensor(QTensor::quantize(&weights, to)?)?;
        return Ok((Box::new(move || matrix.forward(&x).expect("shapes fit")), bytes));
    }
    let to = match dtype {
        Dtype::F16 => DType::F16,
        Dtype::Bf16 => DType::BF16,
        _ => DType::F32,
    };
    let (matrix, x) = (weights.to_dtype(to)?.t()?, x.to_dtype(to)?);
    x.matmul(&matrix)?;
    Ok((Box::new(move || x.matmul(&matrix).expect("shapes fit")), bytes))
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(SAMPLES)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = kernels
}
criterion_main!(benches);
