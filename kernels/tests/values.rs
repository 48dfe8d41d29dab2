//! Values at the edges: denormal, infinite, not a number; and the tiers that this machine must have.

mod support;

use std::collections::BTreeSet;

use lnp_engine::sys::cpu;
use lnp_kernels::{Activation, Bias, CpuFeatures, Dtype, Kernel, KernelShape, Tier};
use support::{Numbers, kernels, shape, weights};

const HIDDEN: usize = 32 * 7;

fn coefficient(kernel: &Kernel, x: &[f32], bundle: &[u8]) -> f32 {
    let mut memory = vec![0; kernel.input_bytes()];
    let input = kernel.prepare(x, &mut memory).unwrap();
    kernel.coefficient(&input, bundle, 0.0, &[]).unwrap()
}

#[test]
fn what_is_not_finite_is_not_hidden() {
    let mut numbers = Numbers::new(5);
    for dtype in Dtype::ALL {
        let bundle = weights(dtype, 2 * HIDDEN, &mut numbers);
        for kernel in kernels(shape(dtype, HIDDEN, 2)) {
            for value in [f32::NAN, -f32::NAN, f32::from_bits(0x7fff_ffff), f32::INFINITY] {
                for at in [0, 31, 32, 100, HIDDEN - 1] {
                    let mut x = numbers.units(HIDDEN);
                    x[at] = value;
                    let found = coefficient(&kernel, &x, &bundle);
                    // relu cuts -inf to 0, as it should
                    let cut = value.is_infinite() && found == 0.0;
                    assert!(!found.is_finite() || cut, "{} {found}", kernel.tier().name());
                }
            }
        }
    }
}

#[test]
fn weights_that_are_not_finite_are_not_hidden() {
    let mut numbers = Numbers::new(6);
    let nan = |dtype| match dtype {
        Dtype::F32 => f32::NAN.to_le_bytes().to_vec(),
        Dtype::Bf16 => 0x7fc0_u16.to_le_bytes().to_vec(),
        // for quantised types the scale of the first block
        _ => 0x7e00_u16.to_le_bytes().to_vec(),
    };
    for dtype in Dtype::ALL {
        let mut bundle = weights(dtype, 2 * HIDDEN, &mut numbers);
        let nan = nan(dtype);
        bundle[..nan.len()].copy_from_slice(&nan);
        let down = dtype.part_bytes(HIDDEN);
        bundle[down..down + nan.len()].copy_from_slice(&nan);
        for kernel in kernels(shape(dtype, HIDDEN, 2)) {
            let x = numbers.units(HIDDEN);
            assert!(coefficient(&kernel, &x, &bundle).is_nan(), "{}", kernel.tier().name());
            let mut y = [0.0; HIDDEN];
            kernel.accumulate(1.0, &bundle, &[], &mut y).unwrap();
            assert!(y[0].is_nan() && y[32..].iter().all(|y| !y.is_nan()));
            // a coefficient of zero adds nothing, whatever the column holds
            let mut y = [1.0; HIDDEN];
            kernel.accumulate(0.0, &bundle, &[], &mut y).unwrap();
            assert_eq!(y, [1.0; HIDDEN]);
        }
    }
}

#[test]
fn a_gate_at_zero_leaves_the_up_part_unread() {
    for dtype in Dtype::ALL {
        let shape = shape(dtype, HIDDEN, 3);
        let part = dtype.part_bytes(HIDDEN);
        // gate 0, up and down all ones bits: NaN in every type with NaN
        let mut bundle = vec![0xff; 3 * part];
        bundle[..part].fill(0);
        for kernel in kernels(shape) {
            assert_eq!(coefficient(&kernel, &[1.0; HIDDEN], &bundle), 0.0);
        }
    }
}

/// Denormal weights count, but for dot products of bf16; tiny inputs may count as nothing where the
/// input is converted.
#[test]
fn denormals() {
    let half_least = 1_u16.to_le_bytes();
    for kernel in kernels(shape(Dtype::F16, HIDDEN, 2)) {
        let bundle: Vec<u8> = half_least.into_iter().cycle().take(4 * HIDDEN).collect();
        let found = coefficient(&kernel, &[1.0; HIDDEN], &bundle);
        assert_eq!(found, HIDDEN as f32 * 2f32.powi(-24), "{}", kernel.tier().name());
        let mut y = [0.0; HIDDEN];
        kernel.accumulate(0.5, &bundle, &[], &mut y).unwrap();
        assert_eq!(y, [2f32.powi(-25); HIDDEN]);
    }
    for kernel in kernels(shape(Dtype::Bf16, HIDDEN, 2)) {
        let bundle: Vec<u8> = half_least.into_iter().cycle().take(4 * HIDDEN).collect();
        let least = f32::from_bits(1 << 16);
        let found = coefficient(&kernel, &[1.0; HIDDEN], &bundle);
        // its dot products take denormal weights for 0
        let expected = if kernel.tier() == Tier::Avx512Bf16 { 0.0 } else { HIDDEN as f32 * least };
        assert_eq!(found, expected, "{}", kernel.tier().name());
        let mut y = [0.0; HIDDEN];
        kernel.accumulate(1.0, &bundle, &[], &mut y).unwrap();
        assert_eq!(y, [least; HIDDEN]);
    }
    let least = f32::from_bits(1);
    for kernel in kernels(shape(Dtype::F32, HIDDEN, 2)) {
        let bundle: Vec<u8> = (0..2 * HIDDEN).flat_map(|_| least.to_le_bytes()).collect();
        let found = coefficient(&kernel, &[1.0; HIDDEN], &bundle);
        assert_eq!(found, HIDDEN as f32 * least, "{}", kernel.tier().name());
    }
    let mut numbers = Numbers::new(7);
    for dtype in Dtype::ALL {
        let bundle = weights(dtype, 2 * HIDDEN, &mut numbers);
        for kernel in kernels(shape(dtype, HIDDEN, 2)) {
            for value in [least, f32::MIN_POSITIVE, 1e-37, 0.0] {
                let found = coefficient(&kernel, &[value; HIDDEN], &bundle);
                assert!((0.0..=2.0 * HIDDEN as f32 * value).contains(&found), "{found}");
            }
        }
    }
}

/// Large inputs: where f16 or bytes stand for them, their scale does not overflow.
#[test]
fn large_inputs_stay_finite() {
    let mut numbers = Numbers::new(8);
    for dtype in Dtype::ALL {
        let bundle = weights(dtype, 2 * HIDDEN, &mut numbers);
        for kernel in kernels(shape(dtype, HIDDEN, 2)) {
            let x = numbers.units(HIDDEN);
            let large: Vec<f32> = x.iter().map(|v| v * 2f32.powi(100)).collect();
            let (small, large) =
                (coefficient(&kernel, &x, &bundle), coefficient(&kernel, &large, &bundle));
            assert!(large.is_finite());
            let off = (large * 2f32.powi(-100) - small).abs();
            assert!(off <= 1e-3 * (1.0 + small.abs()), "{}", kernel.tier().name());
        }
    }
}

#[test]
fn activations() {
    let mut numbers = Numbers::new(9);
    for activation in [
        Activation::Relu,
        Activation::Fatrelu { threshold: 0.3 },
        Activation::Relu2,
        Activation::Silu,
        Activation::Gelu,
        Activation::Drelu,
        Activation::GeluTanh,
        Activation::GaussianTopk,
    ] {
        for parts in [2, 3] {
            let shape = KernelShape { activation, ..shape(Dtype::F32, HIDDEN, parts) };
            let bundle = weights(Dtype::F32, parts * HIDDEN, &mut numbers);
            let x = numbers.units(HIDDEN);
            let dot = |part: usize| {
                let bytes = &bundle[part * 4 * HIDDEN..(part + 1) * 4 * HIDDEN];
                lnp_kernels::portable::dot(Dtype::F32, &x, bytes)
            };
            let first = activation.apply(dot(0));
            let expected = if parts == 2 { first } else { first * activation.apply_up(dot(1)) };
            for kernel in kernels(shape) {
                let found = coefficient(&kernel, &x, &bundle);
                assert!((found - expected).abs() <= 1e-4 * (1.0 + expected.abs()));
            }
        }
    }
}

/// CI says through `LNP_EXPECT_TIERS` which tiers the machine has, so that none falls back unseen.
#[test]
fn every_tier_that_the_machine_has_is_tested() {
    let all = Dtype::ALL.into_iter().flat_map(|dtype| kernels(shape(dtype, 32, 2)));
    let found: BTreeSet<&str> = all.map(|kernel| kernel.tier().name()).collect();
    let line = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(" ");
    println!("tiers tested: {}", line(&found));
    for dtype in Dtype::ALL {
        let names: Vec<_> =
            kernels(shape(dtype, 32, 2)).iter().map(|kernel| kernel.tier().name()).collect();
        println!("{}: {}", dtype.name(), names.join(" "));
    }
    if let Ok(expected) = std::env::var("LNP_EXPECT_TIERS") {
        let expected: BTreeSet<&str> = expected.split_whitespace().collect();
        assert_eq!(line(&found), line(&expected), "LNP_EXPECT_TIERS");
    }
}

#[test]
fn the_best_tier_is_taken_and_a_lower_one_can_be_forced() {
    for dtype in Dtype::ALL {
        let best = Kernel::new(shape(dtype, 32, 2), cpu::detect()).unwrap().tier();
        let all = kernels(shape(dtype, 32, 2));
        assert_eq!(Some(best), all.last().map(Kernel::tier));
        assert_eq!(all[0].tier(), Tier::Portable);
        let portable = Kernel::new(shape(dtype, 32, 2), CpuFeatures::NONE).unwrap();
        assert_eq!(portable.tier(), Tier::Portable);
    }
}

/// A bias of the up part is added to its product, and makes no difference to the rest; in batches too.
#[test]
fn up_parts_have_biases_of_their_own() {
    let weight = |part: f32| (0..HIDDEN).map(move |i| if i % 2 == 0 { part } else { -part / 2.0 });
    let bundle: Vec<u8> =
        [0.25, 0.5, 1.0].into_iter().flat_map(weight).flat_map(f32::to_le_bytes).collect();
    for kernel in kernels(shape(Dtype::F32, HIDDEN, 3)) {
        let x = [1.0; HIDDEN];
        let mut memory = vec![0; kernel.input_bytes()];
        let input = kernel.prepare(&x, &mut memory).unwrap();
        // products of powers of two: exact in every order
        let (gate, up) = (0.25 * 0.25 * HIDDEN as f32, 0.5 * 0.25 * HIDDEN as f32);
        for bias in [0.0, 1.5, -8.0, -up] {
            let bias = Bias { first: 0.5, up: bias };
            let found = kernel.coefficient(&input, &bundle, bias, &[]).unwrap();
            assert_eq!(found, (gate + 0.5) * (up + bias.up), "{}", kernel.tier().name());
            let mut three = [0.0; 3];
            kernel.coefficients(&[input; 3], &bundle, bias, &[], &mut three).unwrap();
            assert_eq!(three, [found; 3], "{}", kernel.tier().name());
        }
    }
}
