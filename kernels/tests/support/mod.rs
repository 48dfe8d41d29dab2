//! What the tests of the kernels share: every tier of this machine, weights in every type, and the
//! same sums in f64.
#![allow(dead_code)] // each test binary uses a part

pub(crate) mod rows;

use half::{bf16, f16};
use lnp_engine::sys::cpu;
use lnp_kernels::{Activation, CpuFeatures, Dtype, Kernel, KernelShape, Tier};

/// What this machine has; Miri, the baseline.
pub(crate) fn detected() -> CpuFeatures {
    if cfg!(miri) { CpuFeatures::NONE } else { cpu::detect() }
}

/// One kernel for each tier that this machine has for the shape, the lowest first.
pub(crate) fn kernels(shape: KernelShape) -> Vec<Kernel> {
    let with = |tier| Kernel::new(shape, detected().up_to(tier)).unwrap();
    Tier::ALL.into_iter().map(|tier| (tier, with(tier))).filter_map(own).collect()
}

/// A kernel, where it is of the tier asked for and not of a lower one.
fn own((tier, kernel): (Tier, Kernel)) -> Option<Kernel> {
    (kernel.tier() == tier).then_some(kernel)
}

pub(crate) fn shape(dtype: Dtype, hidden: usize, parts: usize) -> KernelShape {
    KernelShape { hidden, parts, dtype, activation: Activation::Relu }
}

/// Numbers that no short period of a loop repeats.
#[derive(Clone)]
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        // xorshift64*: any generator would do
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// -1 to 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn units(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.unit()).collect()
    }
}

/// Bytes as two digits each.
pub(crate) fn from_hex(hex: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(pair).collect()
}

/// Weights of any size as bytes of a type. For quantised types every number of the range occurs,
/// those that quantising never makes included.
pub(crate) fn weights(dtype: Dtype, count: usize, numbers: &mut Numbers) -> Vec<u8> {
    let blocks = count / 32;
    match dtype {
        Dtype::F32 => numbers.units(count).iter().flat_map(|v| v.to_le_bytes()).collect(),
        Dtype::F16 => {
            numbers.units(count).iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()
        }
        Dtype::Bf16 => {
            numbers.units(count).iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()
        }
        _ => {
            let mut bytes = Vec::new();
            for _ in 0..blocks {
                bytes.extend(f16::from_f32(numbers.unit() / 64.0).to_le_bytes());
                bytes.extend((2..dtype.block_bytes()).map(|_| numbers.bits() as u8));
            }
            bytes
        }
    }
}

/// The weights as the format defines them, in f64: written from `spec/lnp-v1.md`, section 10.1.
pub(crate) fn decode(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    let half = |bytes: &[u8]| f64::from(f16::from_le_bytes([bytes[0], bytes[1]]));
    match dtype {
        Dtype::F32 => bytes
            .chunks(4)
            .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
            .collect(),
        Dtype::F16 => bytes.chunks(2).map(half).collect(),
        Dtype::Bf16 => {
            bytes.chunks(2).map(|b| f64::from(bf16::from_le_bytes([b[0], b[1]]))).collect()
        }
        Dtype::Q8_0 => bytes
            .chunks(34)
            .flat_map(|block| block[2..].iter().map(move |q| half(block) * f64::from(*q as i8)))
            .collect(),
        _ => bytes
            .chunks(18)
            .flat_map(|block| {
                let weight = move |q: u8| half(block) * (f64::from(q) - 8.0);
                let low = block[2..].iter().map(move |byte| weight(byte & 15));
                low.chain(block[2..].iter().map(move |byte| weight(byte >> 4)))
            })
            .collect(),
    }
}

/// What a tier computes with instead of `x`: it quantises or rounds x, and so does the oracle.
pub(crate) fn as_taken(dtype: Dtype, tier: Tier, x: &[f32]) -> Vec<f64> {
    match (dtype, tier) {
        (_, Tier::Portable) => x.iter().map(|v| f64::from(*v)).collect(),
        (Dtype::Q8_0 | Dtype::Q4_0, _) => x.chunks(32).flat_map(quantised).collect(),
        (_, Tier::NeonFhm) => {
            let most = x.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            // any power of two that keeps the largest value in range
            let scale = 2.0f64.powi(f64::from(most).log2().floor() as i32 - 13);
            let round = |v: &f32| f64::from(f16::from_f64(f64::from(*v) / scale)) * scale;
            x.iter().map(round).collect()
        }
        _ => x.iter().map(|v| f64::from(*v)).collect(),
    }
}

/// A block as q8_0 with a scale in f32.
fn quantised(block: &[f32]) -> Vec<f64> {
    let most = block.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    if most == 0.0 {
        return vec![0.0; block.len()];
    }
    let (scale, inverse) = (most / 127.0, 127.0 / most);
    block.iter().map(|v| f64::from((v * inverse).round_ties_even()) * f64::from(scale)).collect()
}

/// Relative error of one product and its rounding into the sum, beyond the f32 sum's own.
pub(crate) fn input_error(dtype: Dtype, tier: Tier) -> f64 {
    match (dtype, tier) {
        // what two bf16 leave of an f32
        (Dtype::Bf16, Tier::Avx512Bf16) => 2f64.powi(-16),
        _ => 0.0,
    }
}

/// The dot product, and the sum of the absolute values of its terms.
pub(crate) fn dot(x: &[f64], w: &[f64]) -> (f64, f64) {
    x.iter().zip(w).fold((0.0, 0.0), |(sum, size), (x, w)| (sum + x * w, size + (x * w).abs()))
}

/// A bundle somewhere in memory, `misaligned` bytes off.
pub(crate) struct Placed {
    /// Ends with the bundle: the address sanitizer sees who reads on.
    memory: Box<[u8]>,
    begin: usize,
}

impl Placed {
    pub(crate) fn new(bytes: &[u8], misaligned: usize) -> Self {
        // 64 offsets from whatever the allocator gives are 64 alignments.
        let mut memory = vec![0xa5; misaligned + bytes.len()].into_boxed_slice();
        memory[misaligned..].copy_from_slice(bytes);
        Self { memory, begin: misaligned }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.begin..]
    }
}

/// The activation in f64 of a value that is off by at most `error`, and how much the result may be off.
/// No bound where the value is so close to a threshold that either side is right.
fn activated(activation: Activation, v: f64, error: f64) -> (f64, f64) {
    // What an f32 holds of it, and what of the exponential's last bits goes into it.
    let evaluated = |value: f64| (value, 1.2 * error + 2e-5 * value.abs() + 2e-38);
    match activation {
        Activation::Relu | Activation::Drelu => (v.max(0.0), error),
        Activation::Fatrelu { threshold } => {
            let threshold = f64::from(threshold);
            let value = if v <= threshold { 0.0 } else { v };
            (value, if (v - threshold).abs() <= error { f64::INFINITY } else { error })
        }
        Activation::Relu2 => {
            let v = v.max(0.0);
            (v * v, (2.0 * v + error) * error + v * v * f64::from(f32::EPSILON) + 2e-38)
        }
        Activation::Silu => evaluated(v / (1.0 + libm::exp(-v))),
        Activation::Gelu => evaluated(0.5 * v * libm::erfc(-v / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v * v * v);
            evaluated(v / (1.0 + libm::exp(-2.0 * u)))
        }
        Activation::GaussianTopk if v <= 0.0 && -v > error => (0.0, 0.0),
        Activation::GaussianTopk => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (v.max(0.0) + 0.044715 * v.powi(3));
            evaluated(v.max(0.0) / (1.0 + libm::exp(-2.0 * u)))
        }
        other => panic!("no oracle for {other:?}"),
    }
}

/// The coefficient in f64 and the largest error that it may have; no bound (infinite) where something on
/// the way there is more than an f32 holds, or so close to a threshold that either side is right.
pub(crate) fn expected(kernel: &Kernel, x: &[f32], bundle: &[u8], bias: f32) -> (f64, f64) {
    let shape = kernel.shape();
    let x = as_taken(shape.dtype, kernel.tier(), x);
    // n + 4 roundings, of twice 2^-24 each, on the sum of absolute values; and what the input has lost
    let roundings = (shape.hidden + 4) as f64 * f64::from(f32::EPSILON);
    let error = roundings + input_error(shape.dtype, kernel.tier());
    let part = |number: usize| {
        let bytes = shape.dtype.part_bytes(shape.hidden);
        let weights = decode(shape.dtype, &bundle[number * bytes..(number + 1) * bytes]);
        dot(&x, &weights)
    };
    let (first, size) = part(0);
    let bound = (size + f64::from(bias.abs())) * error;
    let (value, bound) = activated(shape.activation, first + f64::from(bias), bound);
    let (up, up_size) = if shape.parts == 2 { (1.0, 0.0) } else { part(1) };
    // cut, it is no further off
    let up = if shape.activation == Activation::Drelu { up.max(0.0) } else { up };
    let largest = (value.abs() + bound).max((value.abs() + bound) * (up.abs() + up_size));
    if largest.is_nan() || largest > f32::MAX.into() {
        return (value * up, f64::INFINITY);
    }
    (value * up, bound * up.abs() + (value.abs() + bound) * up_size * error)
}

/// Through memory that begins at an odd address.
pub(crate) fn coefficient(kernel: &Kernel, x: &[f32], bundle: &[u8], bias: f32) -> f32 {
    let mut memory = vec![0x77; kernel.input_bytes() + 1];
    let input = kernel.prepare(x, &mut memory[1..]).unwrap();
    kernel.coefficient(&input, bundle, bias, &[]).unwrap()
}
