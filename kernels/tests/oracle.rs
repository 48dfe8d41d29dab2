//! Every tier against the same sums in f64: all types, all lengths of the last step, all alignments.

mod support;

use lnp_kernels::{Activation, Dtype, Input, Kernel, KernelError, KernelShape, TOKENS_MAX};
use support::{Numbers, Placed, coefficient, decode, dot, expected, kernels, shape, weights};

/// Blocks of a part: around every step of a loop, and a long one.
const BLOCKS: [usize; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 32];

#[test]
fn coefficients_agree_with_f64() {
    let mut numbers = Numbers::new(1);
    let mut compared = 0;
    for dtype in Dtype::ALL {
        for (case, blocks) in BLOCKS.into_iter().enumerate() {
            let hidden = 32 * blocks;
            for parts in [2, 3] {
                let bundle = weights(dtype, parts * hidden, &mut numbers);
                for misaligned in 0..64 {
                    let x = numbers.units(hidden);
                    let bias = if case % 2 == 0 { 0.0 } else { numbers.unit() };
                    let placed = Placed::new(&bundle, misaligned);
                    for kernel in kernels(shape(dtype, hidden, parts)) {
                        let found = coefficient(&kernel, &x, placed.bytes(), bias);
                        let (expected, bound) = expected(&kernel, &x, &bundle, bias);
                        assert!(
                            (f64::from(found) - expected).abs() <= bound + 1e-30,
                            "{} {}: {found} against {expected}, bound {bound}, {blocks} blocks",
                            dtype.name(),
                            kernel.tier().name(),
                        );
                        compared += 1;
                    }
                }
            }
        }
    }
    println!("{compared} coefficients");
}

/// The others than relu, between the first part and down or up.
#[test]
fn every_activation_agrees_with_f64() {
    let activations = [
        Activation::Fatrelu { threshold: 0.5 },
        Activation::Relu2,
        Activation::Silu,
        Activation::Gelu,
        Activation::Drelu,
        Activation::GeluTanh,
        Activation::GaussianTopk,
    ];
    let mut numbers = Numbers::new(12);
    let (mut compared, mut undecided, mut negative) = (0, 0, 0);
    for dtype in Dtype::ALL {
        for (activation, parts) in activations.into_iter().flat_map(|a| [(a, 2), (a, 3)]) {
            for blocks in [1, 4, 13] {
                let shape = KernelShape { activation, ..shape(dtype, 32 * blocks, parts) };
                for _ in 0..20 {
                    let bundle = weights(dtype, parts * shape.hidden, &mut numbers);
                    let (x, bias) = (numbers.units(shape.hidden), numbers.unit());
                    for kernel in kernels(shape) {
                        let found = coefficient(&kernel, &x, &bundle, bias);
                        let (expected, bound) = expected(&kernel, &x, &bundle, bias);
                        assert!(
                            (f64::from(found) - expected).abs() <= bound + 1e-30,
                            "{activation:?} {} {}: {found} against {expected}, bound {bound}",
                            dtype.name(),
                            kernel.tier().name(),
                        );
                        compared += 1;
                        undecided += u32::from(bound.is_infinite());
                        negative += u32::from(found < 0.0);
                    }
                }
            }
        }
    }
    assert!(undecided * 20 < compared && negative * 10 > compared);
    println!("{compared} coefficients, {negative} of them negative, {undecided} at a threshold");
}

#[test]
fn sums_agree_with_f64() {
    let mut numbers = Numbers::new(2);
    for dtype in Dtype::ALL {
        for blocks in BLOCKS {
            let hidden = 32 * blocks;
            let bundle = weights(dtype, 2 * hidden, &mut numbers);
            let down = decode(dtype, &bundle[dtype.part_bytes(hidden)..]);
            for misaligned in 0..64 {
                let placed = Placed::new(&bundle, misaligned);
                let (before, scale) = (numbers.units(hidden), numbers.unit());
                for kernel in kernels(shape(dtype, hidden, 2)) {
                    let mut y = before.clone();
                    kernel.accumulate(scale, placed.bytes(), &[], &mut y).unwrap();
                    for ((y, before), w) in y.iter().zip(&before).zip(&down) {
                        let (before, term) = (f64::from(*before), f64::from(scale) * w);
                        let size = before.abs() + term.abs();
                        // scale times scale, times number, and the sum: three roundings at most
                        let bound = 2.0 * size * f64::from(f32::EPSILON);
                        assert!(
                            (f64::from(*y) - (before + term)).abs() <= bound,
                            "{} {}",
                            dtype.name(),
                            kernel.tier().name()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_batch_has_the_bits_of_single_tokens() {
    let mut numbers = Numbers::new(3);
    for dtype in Dtype::ALL {
        for blocks in BLOCKS {
            let hidden = 32 * blocks;
            for parts in [2, 3] {
                let bundle = weights(dtype, parts * hidden, &mut numbers);
                let xs: Vec<_> = (0..TOKENS_MAX).map(|_| numbers.units(hidden)).collect();
                for kernel in kernels(shape(dtype, hidden, parts)) {
                    let mut memory = vec![vec![0; kernel.input_bytes()]; TOKENS_MAX];
                    let inputs: Vec<Input<'_>> = xs
                        .iter()
                        .zip(&mut memory)
                        .map(|(x, memory)| kernel.prepare(x, memory).unwrap())
                        .collect();
                    let single: Vec<u32> = inputs
                        .iter()
                        .map(|x| kernel.coefficient(x, &bundle, 0.25, &[]).unwrap().to_bits())
                        .collect();
                    for tokens in 0..=TOKENS_MAX {
                        let mut out = vec![f32::NAN; tokens];
                        kernel
                            .coefficients(&inputs[..tokens], &bundle, 0.25, &[], &mut out)
                            .unwrap();
                        let out: Vec<u32> = out.iter().map(|value| value.to_bits()).collect();
                        assert_eq!(
                            out,
                            single[..tokens],
                            "{} {}",
                            dtype.name(),
                            kernel.tier().name()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_later_bundle_changes_nothing() {
    let mut numbers = Numbers::new(9);
    for dtype in Dtype::ALL {
        // longer and shorter than what loops ask ahead
        for hidden in [32, 96, 8192] {
            for parts in [2, 3] {
                let bundle = weights(dtype, parts * hidden, &mut numbers).into_boxed_slice();
                let other = weights(dtype, parts * hidden, &mut numbers).into_boxed_slice();
                let x = numbers.units(hidden);
                for kernel in kernels(shape(dtype, hidden, parts)) {
                    let mut memory = vec![0; kernel.input_bytes()];
                    let input = kernel.prepare(&x, &mut memory).unwrap();
                    let results = [&[][..], &other, &other[1..]].map(|later| {
                        let mut y = x.clone();
                        let found = kernel.coefficient(&input, &bundle, 1.0, later).unwrap();
                        kernel.accumulate(found, &bundle, later, &mut y).unwrap();
                        let mut two = [0.0; 2];
                        kernel.coefficients(&[input; 2], &bundle, 1.0, later, &mut two).unwrap();
                        assert_eq!(two.map(f32::to_bits), [found.to_bits(); 2]);
                        (found.to_bits(), y.iter().map(|v| v.to_bits()).collect::<Vec<_>>())
                    });
                    assert!(results.iter().all(|found| *found == results[0]));
                }
            }
        }
    }
}

/// What quantising or rounding the input costs, beside the bound that the tiers keep to with it.
#[test]
fn the_error_of_the_input_is_small() {
    let mut numbers = Numbers::new(4);
    let hidden = 4096;
    for dtype in Dtype::ALL {
        let bundles: Vec<_> = (0..50).map(|_| weights(dtype, 2 * hidden, &mut numbers)).collect();
        for kernel in kernels(shape(dtype, hidden, 2)) {
            // of the size that the dot product of random signs has
            let (mut error, mut size) = (0.0, 0.0);
            for bundle in &bundles {
                let x = numbers.units(hidden);
                let wide: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
                let weights = decode(dtype, &bundle[..dtype.part_bytes(hidden)]);
                let exact = dot(&wide, &weights).0;
                // far enough from zero that relu cuts nothing
                let bias = 1e3;
                let found = f64::from(coefficient(&kernel, &x, bundle, bias)) - f64::from(bias);
                let squares = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>();
                error += (found - exact).powi(2);
                size += squares(&wide) * squares(&weights) / hidden as f64;
            }
            let relative = (error / size).sqrt();
            println!("{} {}: {relative:.1e}", dtype.name(), kernel.tier().name());
            assert!(relative < 0.01, "{} {}", dtype.name(), kernel.tier().name());
        }
    }
}

#[test]
fn wrong_shapes_and_lengths_are_errors() {
    let features = lnp_kernels::CpuFeatures::NONE;
    let with = |hidden, parts| Kernel::new(shape(Dtype::F16, hidden, parts), features);
    assert_eq!(with(33, 2).unwrap_err(), KernelError::Hidden { found: 33 });
    assert_eq!(with(0, 2).unwrap_err(), KernelError::Hidden { found: 0 });
    assert_eq!(with(1 << 62, 2).unwrap_err(), KernelError::Hidden { found: 1 << 62 });
    assert_eq!(with(32, 4).unwrap_err(), KernelError::Parts { found: 4 });
    for dtype in Dtype::ALL {
        for kernel in kernels(shape(dtype, 32, 2)) {
            let bundle = vec![0; kernel.bundle_bytes()];
            let mut memory = vec![0; kernel.input_bytes()];
            assert!(kernel.prepare(&[0.0; 31], &mut memory).is_err());
            if let Some(most) = kernel.input_bytes().checked_sub(1) {
                assert!(kernel.prepare(&[0.0; 32], &mut memory[..most]).is_err());
            }
            let input = kernel.prepare(&[0.0; 32], &mut memory).unwrap();
            assert!(kernel.coefficient(&input, &bundle[1..], 0.0, &[]).is_err());
            assert!(kernel.coefficients(&[input], &bundle, 0.0, &[], &mut [0.0; 2]).is_err());
            assert!(kernel.accumulate(1.0, &bundle, &[], &mut [0.0; 64]).is_err());
            assert!(kernel.accumulate(1.0, &bundle[1..], &[], &mut [0.0; 32]).is_err());
            assert_eq!(kernel.coefficient(&input, &bundle, 1.5, &[]), Ok(1.5));
            let other = Kernel::new(shape(dtype, 64, 2), features).unwrap();
            assert!(other.coefficient(&input, &bundle, 0.0, &[]).is_err());
            // an input of another form
            for other in Dtype::ALL.into_iter().flat_map(|dtype| kernels(shape(dtype, 32, 2))) {
                let bundle = vec![0; other.bundle_bytes()];
                let found = other.coefficient(&input, &bundle, 0.0, &[]);
                assert!(matches!(found, Ok(0.0) | Err(KernelError::Input)), "{found:?}");
            }
        }
    }
}
