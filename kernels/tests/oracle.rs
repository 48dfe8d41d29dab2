//! Every tier against the same sums in f64, at every alignment.

use half::f16;
use lnp_kernels::{Activation, CpuFeatures, Dtype, Kernel, KernelError, KernelShape, Tier};
use proptest::prelude::*;

/// All feature sets that this machine can test, lowest tier first.
fn feature_sets() -> Vec<CpuFeatures> {
    let mut sets = vec![CpuFeatures::NONE];
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2")
        && std::is_x86_feature_detected!("fma")
        && std::is_x86_feature_detected!("f16c")
    {
        // SAFETY: the three features were detected on the line above.
        sets.push(unsafe { CpuFeatures::NONE.with_avx2_fma_f16c() });
    }
    sets
}

fn encode(dtype: Dtype, weights: &[f32]) -> Vec<u8> {
    match dtype {
        Dtype::F32 => weights.iter().flat_map(|w| w.to_le_bytes()).collect(),
        _ => weights.iter().flat_map(|w| f16::from_f32(*w).to_le_bytes()).collect(),
    }
}

fn decode(dtype: Dtype, w: f32) -> f64 {
    if dtype == Dtype::F32 { w.into() } else { f16::from_f32(w).to_f64() }
}

/// The neuron's coefficient and the sums of absolute values that bound its rounding, in f64.
fn oracle(shape: &KernelShape, x: &[f32], weights: &[f32], bias: f32) -> (f64, f64) {
    let dot = |part: usize| -> (f64, f64) {
        let part = &weights[part * shape.hidden..(part + 1) * shape.hidden];
        part.iter().zip(x).fold((0.0, 0.0), |(sum, size), (w, x)| {
            let term = decode(shape.dtype, *w) * f64::from(*x);
            (sum + term, size + term.abs())
        })
    };
    let (first, size) = dot(0);
    let activated = (first + f64::from(bias)).max(0.0);
    if shape.parts == 2 {
        return (activated, size + f64::from(bias.abs()));
    }
    let (up, up_size) = dot(1);
    (activated * up, (size + f64::from(bias.abs())) * up_size.max(1.0) * 2.0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn tiers_agree_with_f64(
        blocks in 1usize..8,
        parts in 2usize..=3,
        half in any::<bool>(),
        misalign in 0usize..16,
        bias in -1.0f32..1.0,
        seed in prop::collection::vec(-1.0f32..1.0, 7 * 32 * 4 + 7 * 32),
    ) {
        let hidden = blocks * 32;
        let dtype = if half { Dtype::F16 } else { Dtype::F32 };
        let shape = KernelShape { hidden, parts, dtype, activation: Activation::Relu };
        let x = &seed[..hidden];
        let weights: Vec<f32> = seed[hidden..hidden + parts * hidden].to_vec();
        let mut bytes = vec![0xa5; misalign];
        bytes.extend(encode(dtype, &weights));
        let bundle = &bytes[misalign..];
        let (expected, size) = oracle(&shape, x, &weights, bias);
        for features in feature_sets() {
            let kernel = Kernel::new(shape, features).unwrap();
            let found = kernel.coefficient(x, bundle, bias).unwrap();
            // n + 1 roundings of relative size 2^-24 each, on the sum of absolute values
            let bound = (hidden + 4) as f64 * size * f64::from(f32::EPSILON);
            prop_assert!((f64::from(found) - expected).abs() <= bound + 1e-30,
                "{:?}: {found} against {expected}, bound {bound}", kernel.tier());

            let mut y: Vec<f32> = x.iter().rev().copied().collect();
            let before = y.clone();
            kernel.accumulate(found, bundle, &mut y).unwrap();
            for i in 0..hidden {
                let w = decode(dtype, weights[(parts - 1) * hidden + i]);
                let exact = f64::from(before[i]) + f64::from(found) * w;
                let size = f64::from(before[i].abs()) + (f64::from(found) * w).abs();
                prop_assert!((f64::from(y[i]) - exact).abs() <= 2.0 * size * f64::from(f32::EPSILON) + 1e-30);
            }
        }
    }
}

#[test]
fn the_best_tier_is_taken_and_a_lower_one_can_be_forced() {
    let shape =
        KernelShape { hidden: 32, parts: 2, dtype: Dtype::F32, activation: Activation::Relu };
    assert_eq!(Kernel::new(shape, CpuFeatures::NONE).unwrap().tier(), Tier::Portable);
    if let Some(features) = feature_sets().get(1) {
        assert_eq!(Kernel::new(shape, *features).unwrap().tier(), Tier::Avx2);
    }
}

#[test]
fn wrong_shapes_and_lengths_are_errors() {
    let shape =
        KernelShape { hidden: 32, parts: 2, dtype: Dtype::F16, activation: Activation::Relu };
    let with =
        |hidden, parts| Kernel::new(KernelShape { hidden, parts, ..shape }, CpuFeatures::NONE);
    assert_eq!(with(33, 2).unwrap_err(), KernelError::Hidden { found: 33 });
    assert_eq!(with(0, 2).unwrap_err(), KernelError::Hidden { found: 0 });
    assert_eq!(with(1 << 62, 2).unwrap_err(), KernelError::Hidden { found: 1 << 62 });
    assert_eq!(with(32, 4).unwrap_err(), KernelError::Parts { found: 4 });
    let kernel = Kernel::new(shape, CpuFeatures::NONE).unwrap();
    assert!(kernel.coefficient(&[0.0; 32], &[0; 127], 0.0).is_err());
    assert!(kernel.coefficient(&[0.0; 31], &[0; 128], 0.0).is_err());
    assert!(kernel.accumulate(1.0, &[0; 128], &mut [0.0; 64]).is_err());
    assert_eq!(kernel.coefficient(&[0.0; 32], &[0; 128], 1.5), Ok(1.5));
}
