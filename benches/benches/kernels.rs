//! The kernels at the speed of memory: coefficient and accumulate over bundles that are in no cache,
//! next to a plain read of the same bytes in the same order.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use lnp_kernels::{Activation, CpuFeatures, Dtype, Kernel, KernelShape};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Bytes of all bundles: well beyond the last cache of a server.
const WORKING_SET_BYTES: usize = 256 << 20;
/// Bytes of one iteration: the next so many in the order. All others pass before any comes again.
const PASS_BYTES: usize = 16 << 20;
/// Name, hidden size and parts of a layer.
const LAYERS: [(&str, usize, usize); 3] =
    [("opt-350m", 1024, 2), ("opt-6.7b", 4096, 2), ("llama-2-7b", 4096, 3)];
const DTYPES: [(&str, Dtype); 2] = [("f32", Dtype::F32), ("f16", Dtype::F16)];

fn kernels(criterion: &mut Criterion) {
    let mut memory = vec![0; WORKING_SET_BYTES];
    for (dtype_name, dtype) in DTYPES {
        fill(&mut memory, dtype);
        for (name, hidden, parts) in LAYERS {
            let shape = KernelShape { hidden, parts, dtype, activation: Activation::Relu };
            let mut group = criterion.benchmark_group(format!("{name}/{dtype_name}"));
            layer(&mut group, &memory, shape);
            group.finish();
        }
    }
}

/// One layer's shape on every tier, and the plain read.
fn layer(group: &mut BenchmarkGroup<'_, WallTime>, memory: &[u8], shape: KernelShape) {
    let bundle_bytes = shape.parts * shape.hidden * shape.dtype.bytes();
    let mut bundles: Vec<&[u8]> = memory.chunks_exact(bundle_bytes).collect();
    bundles.shuffle(&mut Xoshiro256PlusPlus::seed_from_u64(1));
    let count = PASS_BYTES / bundle_bytes;
    group.throughput(Throughput::Bytes((count * bundle_bytes) as u64));

    let mut passes = bundles.chunks_exact(count).cycle();
    group.bench_function("read", |bencher| {
        bencher.iter(|| passes.next().map(|pass| pass.iter().map(|bundle| sum(bundle)).max()));
    });
    let x: Vec<f32> = (0..shape.hidden).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let mut y = vec![0.0; shape.hidden];
    for kernel in tiers(shape) {
        group.bench_function(kernel.tier().name(), |bencher| {
            bencher.iter(|| {
                y.fill(0.0);
                for bundle in passes.next().into_iter().flatten() {
                    // The bias puts every neuron above zero, so that no bundle is half read.
                    let coefficient = kernel.coefficient(&x, bundle, 1e6).expect("lengths fit");
                    kernel.accumulate(coefficient, bundle, &mut y).expect("lengths fit");
                }
                black_box(&mut y);
            });
        });
    }
}

/// One kernel for each tier that this machine has, the lowest first.
fn tiers(shape: KernelShape) -> Vec<Kernel> {
    let mut kernels: Vec<Kernel> = [CpuFeatures::NONE, lnp_engine::sys::cpu::detect()]
        .into_iter()
        .map(|features| Kernel::new(shape, features).expect("a valid shape"))
        .collect();
    kernels.dedup_by_key(|kernel| kernel.tier());
    kernels
}

/// The plain read: sum of all words.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    words.fold(0, u64::wrapping_add)
}

/// Random weights of 2^-7 to 2 in size, so that none is denormal, infinite or NaN.
fn fill(memory: &mut [u8], dtype: Dtype) {
    Xoshiro256PlusPlus::seed_from_u64(2).fill_bytes(memory);
    // What is random stays: sign, mantissa and the low bits of the exponent.
    match dtype {
        Dtype::F32 => {
            for weight in memory.as_chunks_mut::<4>().0 {
                let random = u32::from_le_bytes(*weight);
                *weight = (random & 0x83ff_ffff | 120 << 23).to_le_bytes();
            }
        }
        _ => {
            for weight in memory.as_chunks_mut::<2>().0 {
                let random = u16::from_le_bytes(*weight);
                *weight = (random & 0x9fff | 8 << 10).to_le_bytes();
            }
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = kernels
}
criterion_main!(benches);
