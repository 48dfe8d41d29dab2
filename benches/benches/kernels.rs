//! The kernels at the speed of memory: coefficient and accumulate over the bundles of active sets,
//! next to a plain read of the same bytes in the same order, and to a dense product of the same type.

use std::hint::black_box;
use std::time::Duration;

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{DType, Device, Module, Tensor};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use lnp_engine::sys::cpu;
use lnp_kernels::{Activation, Dtype, Kernel, KernelShape, Tier};
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
/// Name, hidden size and parts of a layer.
const LAYERS: [(&str, usize, usize); 3] =
    [("opt-350m", 1024, 2), ("opt-6.7b", 4096, 2), ("llama-2-7b", 4096, 3)];
/// Shares of the bundles that are active.
const ACTIVE: [(&str, f64); 3] = [("3%", 0.03), ("10%", 0.10), ("25%", 0.25)];

fn kernels(criterion: &mut Criterion) {
    let memory = filled();
    for dtype in Dtype::ALL {
        for (name, hidden, parts) in LAYERS {
            let shape = KernelShape { hidden, parts, dtype, activation: Activation::Relu };
            let about = format!("{name}/{}", dtype.name());
            for (share_name, share) in ACTIVE {
                let bundles = active(&memory, &shape, share);
                let count = PASS_BYTES / bundle_bytes(&shape);
                let mut group = criterion.benchmark_group(format!("{about}/{share_name}"));
                compare(&mut group, shape, &bundles, count);
                group.finish();
            }
            let mut bundles = active(&memory, &shape, 0.25);
            let count = CACHED_BYTES / bundle_bytes(&shape);
            bundles.truncate(count);
            let mut group = criterion.benchmark_group(format!("{about}/cached"));
            compare(&mut group, shape, &bundles, count);
            group.finish();
        }
        dense(criterion, dtype);
    }
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
    shape: KernelShape,
    bundles: &[&[u8]],
    count: usize,
) {
    group.throughput(Throughput::Bytes((count * bundle_bytes(&shape)) as u64));
    let mut passes = bundles.chunks_exact(count).cycle();
    group.bench_function("read", |bencher| {
        bencher.iter(|| passes.next().map(|pass| pass.iter().map(|bundle| sum(bundle)).max()));
    });
    let x: Vec<f32> = (0..shape.hidden).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let mut y = vec![0.0; shape.hidden];
    for kernel in tiers(shape) {
        let mut memory = vec![0; kernel.input_bytes()];
        group.bench_function(kernel.tier().name(), |bencher| {
            bencher.iter(|| {
                y.fill(0.0);
                let input = kernel.prepare(&x, &mut memory).expect("lengths fit");
                let pass = passes.next().expect("a cycle");
                for (number, bundle) in pass.iter().enumerate() {
                    pass.get(number + 1).into_iter().for_each(|next| Kernel::prefetch(next));
                    // The bias puts every neuron above zero, so that no bundle is half read.
                    let coefficient = kernel.coefficient(&input, bundle, 1e6).expect("lengths fit");
                    kernel.accumulate(coefficient, bundle, &mut y).expect("lengths fit");
                }
                black_box(&mut y);
            });
        });
    }
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
/// in no cache.
fn dense(criterion: &mut Criterion, dtype: Dtype) {
    for hidden in [1024, 4096] {
        let Ok((multiply, bytes)) = dense_product(dtype, hidden) else {
            println!("candle has no product of {} here", dtype.name());
            return;
        };
        let mut group =
            criterion.benchmark_group(format!("hidden-{hidden}/{}/dense", dtype.name()));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function("candle", |bencher| bencher.iter(|| black_box(multiply())));
        group.finish();
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
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = kernels
}
criterion_main!(benches);
