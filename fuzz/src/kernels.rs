//! Any bits as a bundle and as a matrix of rows, in every number type, through every tier that this
//! machine has.
//!
//! Where all numbers are of a size that sums keep, against the sums in f64 that the kernels' tests
//! have. Whatever they are: a batch has the bits of single tokens, alignment and hints change nothing,
//! and what is not finite is not hidden.

mod rows;

use arbitrary::Arbitrary;
use lnp_kernels::{Activation, Dtype, Input, Kernel, KernelShape, TOKENS_MAX};

use crate::kernel_oracle::{Numbers, Placed, coefficient, decode, expected, kernels, weights};
use crate::pick;

/// A bundle and what it is multiplied with.
#[derive(Arbitrary, Debug)]
pub struct Case {
    dtype: u8,
    gated: bool,
    blocks: u8,
    misaligned: u8,
    activation: u8,
    threshold: f32,
    tokens: u8,
    bias: f32,
    scale: f32,
    seed: u64,
    /// Whether weights are of ordinary size, but for `bundle` at the beginning of each part.
    ordinary: bool,
    /// Values of the hidden state: the place, and what stands there.
    values: Vec<(u16, Value)>,
    bundle: Vec<u8>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Value {
    Any(f32),
    Small(i8),
    Zero,
    NegativeZero,
    Infinite(bool),
    NotANumber,
    Subnormal(u16),
    /// 2^e.
    Power(i8),
}

impl Value {
    fn of(self) -> f32 {
        match self {
            Self::Any(value) => value,
            Self::Small(value) => f32::from(value) / 16.0,
            Self::Zero => 0.0,
            Self::NegativeZero => -0.0,
            Self::Infinite(true) => f32::INFINITY,
            Self::Infinite(false) => f32::NEG_INFINITY,
            Self::NotANumber => f32::NAN,
            Self::Subnormal(bits) => f32::from_bits(bits.into()),
            Self::Power(exponent) => f32::from(exponent).exp2(),
        }
    }
}

/// Of a size that no tier takes for 0, and whose sums and products are far from overflow.
fn tame(value: f64) -> bool {
    value == 0.0 || (1e-9..1e7).contains(&value.abs())
}

/// As bits, all that is not a number being one.
fn same(value: f32) -> u32 {
    if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }
}

/// Runs every tier.
pub fn run(case: &Case) {
    let dtype = pick(&Dtype::ALL, case.dtype);
    let hidden = 32 * (usize::from(case.blocks % 20) + 1);
    let parts = if case.gated { 3 } else { 2 };
    let shape = KernelShape { hidden, parts, dtype, activation: activation(case) };
    let mut numbers = Numbers::new(case.seed);
    let bundle = bundle(case, &shape, &mut numbers);
    let xs: Vec<Vec<f32>> = (0..usize::from(case.tokens) % (TOKENS_MAX + 1))
        .map(|token| hidden_state(case, hidden, token, &mut numbers))
        .collect();
    let placed = Placed::new(&bundle, usize::from(case.misaligned % 64));
    for kernel in kernels(shape) {
        for x in &xs {
            check_coefficient(&kernel, x, &bundle, &placed, case.bias);
        }
        check_batch(&kernel, &xs, placed.bytes(), case.bias);
        check_sum(&kernel, &bundle, &placed, case, &mut numbers);
        check_lengths(&kernel, &bundle);
    }
    rows::run(case, hidden, &mut numbers);
}

fn activation(case: &Case) -> Activation {
    let threshold = case.threshold;
    let others = [
        Activation::Relu,
        Activation::Relu,
        Activation::Fatrelu { threshold },
        Activation::Relu2,
        Activation::Silu,
        Activation::Gelu,
        Activation::Drelu,
        Activation::GeluTanh,
        Activation::GaussianTopk,
    ];
    pick(&others, case.activation)
}

fn bundle(case: &Case, shape: &KernelShape, numbers: &mut Numbers) -> Vec<u8> {
    let part = shape.dtype.part_bytes(shape.hidden);
    let mut bundle = weights(shape.dtype, shape.parts * shape.hidden, numbers);
    if case.ordinary {
        for part in bundle.chunks_mut(part) {
            part.iter_mut().zip(&case.bundle).for_each(|(byte, given)| *byte = *given);
        }
    } else {
        for byte in &mut bundle {
            *byte = numbers.bits() as u8;
        }
        bundle.iter_mut().zip(&case.bundle).for_each(|(byte, given)| *byte = *given);
    }
    bundle
}

fn hidden_state(case: &Case, hidden: usize, token: usize, numbers: &mut Numbers) -> Vec<f32> {
    let mut x = numbers.units(hidden);
    for (place, value) in case.values.iter().take(64) {
        // The first token has all of them, each other leaves some out.
        if token == 0 || !(usize::from(*place) + token).is_multiple_of(3) {
            x[usize::from(*place) % hidden] = value.of();
        }
    }
    x
}

/// Whether NaN is stored. Of quantised types it is the scale: one that is infinite makes NaN of a
/// number 0 taken alone, but an infinity of its whole block, which is how integers are added.
fn has_nan(dtype: Dtype, part: &[u8]) -> bool {
    match dtype {
        Dtype::Q8_0 | Dtype::Q4_0 => part
            .chunks(dtype.block_bytes())
            .any(|block| half::f16::from_le_bytes([block[0], block[1]]).is_nan()),
        _ => decode(dtype, part).iter().any(|w| w.is_nan()),
    }
}

/// One token: against f64 where that is possible, and what is not finite is not hidden.
fn check_coefficient(kernel: &Kernel, x: &[f32], bundle: &[u8], placed: &Placed, bias: f32) {
    let (shape, name) = (kernel.shape(), kernel.tier().name());
    let part = shape.dtype.part_bytes(shape.hidden);
    let found = coefficient(kernel, x, placed.bytes(), bias);
    assert_eq!(same(found), same(coefficient(kernel, x, bundle, bias)), "alignment, {name}");
    let first = decode(shape.dtype, &bundle[..part]);
    let all = decode(shape.dtype, &bundle[..part * (shape.parts - 1)]);
    let is_nan =
        bias.is_nan() || x.iter().any(|v| v.is_nan()) || has_nan(shape.dtype, &bundle[..part]);
    if is_nan {
        assert!(found.is_nan(), "NaN becomes {found}, {name}");
    }
    let relu = shape.activation == Activation::Relu;
    let finite = x.iter().all(|v| v.is_finite()) && first.iter().all(|w| w.is_finite());
    if relu && !finite {
        assert!(!found.is_finite() || found == 0.0, "infinity becomes {found}, {name}");
    }
    let values = x.iter().map(|v| f64::from(*v)).chain([bias.into()]);
    let tame = values.chain(all).all(tame);
    if tame {
        let (expected, bound) = expected(kernel, x, bundle, bias);
        let off = (f64::from(found) - expected).abs();
        assert!(off <= bound + 1e-30, "{found} against {expected}, bound {bound}, {name}");
    }
    if !relu && shape.parts == 2 {
        // The same tier's sum, where relu shows it.
        let relu = KernelShape { activation: Activation::Relu, ..*shape };
        let relu = kernels(relu).into_iter().find(|other| other.tier() == kernel.tier());
        let sum = coefficient(&relu.expect("the tier is there"), x, bundle, bias);
        if sum > 0.0 {
            assert_eq!(same(found), same(shape.activation.apply(sum)), "{name}");
        }
    }
}

/// A batch has the bits of its tokens, with and without a bundle that is said to come later.
fn check_batch(kernel: &Kernel, xs: &[Vec<f32>], bundle: &[u8], bias: f32) {
    let mut memory = vec![vec![0; kernel.input_bytes()]; xs.len()];
    let inputs: Vec<Input<'_>> = xs
        .iter()
        .zip(&mut memory)
        .map(|(x, memory)| kernel.prepare(x, memory).expect("of the right length"))
        .collect();
    let single: Vec<u32> = inputs
        .iter()
        .map(|x| same(kernel.coefficient(x, bundle, bias, &[]).expect("of the right length")))
        .collect();
    for later in [&[][..], bundle, &bundle[1..]] {
        let mut out = vec![f32::NAN; xs.len()];
        kernel.coefficients(&inputs, bundle, bias, later, &mut out).expect("of the right length");
        let out: Vec<u32> = out.into_iter().map(same).collect();
        assert_eq!(out, single, "{}", kernel.tier().name());
    }
}

/// The down column, element by element.
fn check_sum(kernel: &Kernel, bundle: &[u8], placed: &Placed, case: &Case, numbers: &mut Numbers) {
    let (shape, name, scale) = (kernel.shape(), kernel.tier().name(), case.scale);
    let part = shape.dtype.part_bytes(shape.hidden);
    let down = decode(shape.dtype, &bundle[(shape.parts - 1) * part..]);
    let before = hidden_state(case, shape.hidden, 0, numbers);
    let sum = |bundle: &[u8], later: &[u8]| {
        let mut y = before.clone();
        kernel.accumulate(scale, bundle, later, &mut y).expect("of the right length");
        y
    };
    let y = sum(placed.bytes(), &[]);
    let again = sum(bundle, bundle);
    assert!(y.iter().zip(&again).all(|(a, b)| same(*a) == same(*b)), "alignment or hint, {name}");
    if scale == 0.0 {
        let unchanged = y.iter().zip(&before).all(|(y, before)| same(*y) == same(*before));
        assert!(unchanged, "a coefficient of 0 adds something, {name}");
        return;
    }
    if !(1e-9..1e27).contains(&scale.abs()) {
        return;
    }
    for ((y, before), w) in y.iter().zip(&before).zip(&down) {
        let (before, term) = (f64::from(*before), f64::from(scale) * w);
        let size = before.abs() + term.abs();
        if !size.is_finite() {
            assert!(!y.is_finite(), "{before} + {term} becomes {y}, {name}");
        } else if size < 1e38 {
            // three roundings at most; what is too small for an f32 has its steps
            let bound = 2.0 * size * f64::from(f32::EPSILON) + 1e-44;
            let off = (f64::from(*y) - (before + term)).abs();
            assert!(off <= bound, "{before} + {term} becomes {y}, {name}");
        }
    }
}

/// A bundle of another length is an error.
fn check_lengths(kernel: &Kernel, bundle: &[u8]) {
    let x = vec![0.0; kernel.shape().hidden];
    let mut memory = vec![0; kernel.input_bytes()];
    let input = kernel.prepare(&x, &mut memory).expect("of the right length");
    let mut y = x.clone();
    for wrong in [&bundle[1..], &[bundle, &[0]].concat()] {
        assert!(kernel.coefficient(&input, wrong, 0.0, &[]).is_err());
        assert!(kernel.accumulate(1.0, wrong, &[], &mut y).is_err());
    }
}
