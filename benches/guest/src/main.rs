//! Instructions of the kernels per bundle, counted by an emulator whose clock they drive.
//!
//! `benches/instructions` boots a machine with this program as its init, under qemu's
//! `-icount shift=0`: an instruction takes one nanosecond of the guest's time, whatever it does.
//! Elsewhere it runs too, and its numbers are nanoseconds.

use std::hint::black_box;
use std::time::Instant;

use lnp_kernels::{Activation, Dtype, Kernel, KernelShape, Numbers, Rows, Tier};

/// Name, hidden size and parts of a layer, as in `benches/kernels.rs`.
const LAYERS: [(&str, usize, usize); 3] =
    [("opt-350m", 1024, 2), ("opt-6.7b", 4096, 2), ("llama-2-7b", 4096, 3)];

/// The two matrices of a low-rank predictor of OPT-6.7B, and how long their rows are.
const MATRICES: [(&str, usize); 2] = [("reduce", 4096), ("expand", 256)];

/// A sample takes this much at least: the guest's clock ticks every 16 instructions or so.
const SAMPLE_NS: u64 = 250_000;
/// The timer interrupts a sample now and then (250 Hz), and the fewest of many is taken.
const SAMPLES: usize = 16;

fn main() {
    println!("# features: {}", features());
    println!(
        "layer,dtype,what,bundle_bytes,prepare,coefficient,coefficient_of_two,accumulate,bundle,\
         per_weight"
    );
    for (name, hidden, parts) in LAYERS {
        for dtype in Dtype::ALL {
            let shape = KernelShape { hidden, parts, dtype, activation: Activation::Relu };
            for kernel in tiers(shape) {
                let Counts { prepare, coefficient, coefficient_of_two, accumulate } =
                    count(&kernel);
                let both = coefficient + accumulate;
                println!(
                    "{name},{},{},{},{prepare:.0},{coefficient:.0},{coefficient_of_two:.0},\
                     {accumulate:.0},{both:.0},{:.3}",
                    dtype.name(),
                    kernel.tier().name(),
                    kernel.bundle_bytes(),
                    both / (parts * hidden) as f64,
                );
            }
        }
    }
    println!("matrix,numbers,what,row_bytes,prepare,row,per_number");
    for (name, columns) in MATRICES {
        for numbers in Numbers::ALL {
            for rows in rows_of(numbers, columns) {
                let (prepare, row) = count_rows(&rows);
                println!(
                    "{name},{},{},{},{prepare:.0},{row:.0},{:.3}",
                    numbers.name(),
                    rows.tier().name(),
                    rows.row_bytes(),
                    row / columns as f64,
                );
            }
        }
    }
    println!("# done");
}

/// The same for matrices of rows.
fn rows_of(numbers: Numbers, columns: usize) -> Vec<Rows> {
    let features = lnp_engine::sys::cpu::detect();
    let with = |tier| Rows::new(numbers, columns, features.up_to(tier)).expect("whole blocks");
    let all = Tier::ALL.into_iter().map(|tier| (tier, with(tier)));
    all.filter(|(tier, rows)| rows.tier() == *tier).map(|(_, rows)| rows).collect()
}

/// Instructions to prepare a vector, and for each of the rows that it is multiplied with.
fn count_rows(rows: &Rows) -> (f64, f64) {
    const COUNT: usize = 64;
    let matrix = random_bytes(COUNT * rows.row_bytes());
    let x: Vec<f32> = (0..rows.columns()).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let mut memory = vec![0; rows.input_bytes()];
    let prepare = per_call(|| {
        black_box(rows.prepare(black_box(&x), black_box(&mut memory))).expect("lengths fit");
    });
    let input = rows.prepare(&x, &mut memory).expect("lengths fit");
    let mut out = [0.0; COUNT];
    let all = per_call(|| {
        let done = rows.multiply(black_box(&input), black_box(&matrix), &mut out);
        done.expect("lengths fit");
        black_box(&mut out);
    });
    (prepare, all / COUNT as f64)
}

/// One kernel for each tier that this machine has, the lowest first.
fn tiers(shape: KernelShape) -> Vec<Kernel> {
    let features = lnp_engine::sys::cpu::detect();
    let with = |tier| Kernel::new(shape, features.up_to(tier)).expect("a valid shape");
    let all = Tier::ALL.into_iter().map(|tier| (tier, with(tier)));
    all.filter(|(tier, kernel)| kernel.tier() == *tier).map(|(_, kernel)| kernel).collect()
}

/// Instructions for one bundle, which is in the cache.
struct Counts {
    /// Of `prepare`, which is called once for all bundles of a layer.
    prepare: f64,
    coefficient: f64,
    /// Of `coefficients` for two tokens, for each of them.
    coefficient_of_two: f64,
    accumulate: f64,
}

fn count(kernel: &Kernel) -> Counts {
    let bundle = bundle(kernel);
    let hidden = kernel.shape().hidden;
    let x: Vec<f32> = (0..hidden).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let mut y = vec![0.0; hidden];
    let mut memory = vec![0; kernel.input_bytes()];
    let prepare = per_call(|| {
        black_box(kernel.prepare(black_box(&x), black_box(&mut memory))).expect("lengths fit");
    });
    let input = kernel.prepare(&x, &mut memory).expect("lengths fit");
    // The bias puts every neuron above zero, so that no bundle is half read.
    let coefficient = per_call(|| {
        let found = kernel.coefficient(black_box(&input), black_box(&bundle), black_box(1e6), &[]);
        black_box(found).expect("lengths fit");
    });
    let coefficients = per_call(|| {
        let mut out = [0.0; 2];
        let inputs = black_box([input, input]);
        let done = kernel.coefficients(&inputs, black_box(&bundle), black_box(1e6), &[], &mut out);
        done.expect("lengths fit");
        black_box(out);
    });
    // A small scale: no sum runs into infinity.
    let accumulate = per_call(|| {
        let done = kernel.accumulate(black_box(1e-3), black_box(&bundle), &[], &mut y);
        done.expect("lengths fit");
        black_box(&mut y);
    });
    Counts { prepare, coefficient, coefficient_of_two: coefficients / 2.0, accumulate }
}

/// What one call takes: the fewest of twice as many calls, less the fewest of so many, so that
/// what a sample costs beside its calls falls out.
fn per_call(mut call: impl FnMut()) -> f64 {
    let mut calls = 1;
    while sample(calls, &mut call) < SAMPLE_NS {
        calls *= 2;
    }
    let mut fewest = |calls| (0..SAMPLES).map(|_| sample(calls, &mut call)).min().unwrap_or(0);
    let (once, twice) = (fewest(calls), fewest(2 * calls));
    (twice as f64 - once as f64) / f64::from(calls)
}

fn sample(calls: u32, call: &mut impl FnMut()) -> u64 {
    let begin = Instant::now();
    for _ in 0..calls {
        call();
    }
    begin.elapsed().as_nanos() as u64
}

/// Any two bytes are an ordinary number as f16 and bf16, any four as f32: none is denormal, infinite
/// or NaN.
fn bundle(kernel: &Kernel) -> Vec<u8> {
    random_bytes(kernel.bundle_bytes())
}

fn random_bytes(count: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut random = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u16
    };
    (0..count / 2).flat_map(|_| (random() & 0x9fff | 0x2000).to_le_bytes()).collect()
}

/// What the CPU has of what kernels look for.
fn features() -> String {
    let mut found = Vec::new();
    #[cfg(target_arch = "aarch64")]
    {
        macro_rules! look_for {
            ($($name:tt)*) => {
                $(if std::arch::is_aarch64_feature_detected!($name) { found.push($name); })*
            };
        }
        look_for!("neon" "fp16" "fhm" "dotprod" "i8mm" "bf16");
    }
    if found.is_empty() {
        found.push("not told");
    }
    found.join(" ")
}
