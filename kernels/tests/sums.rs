//! Weighted sums of rows, in every tier, against the same sums in f64.

mod support;

use lnp_kernels::{CpuFeatures, Dtype, KernelError, Numbers, Sums, Tier};
use support::rows::{decode, matrix};
use support::{Numbers as Random, Placed, detected};

/// One for each tier that this machine has for the type.
fn tiers(dtype: Dtype, columns: usize) -> Vec<Sums> {
    let with = |tier| Sums::new(dtype, columns, detected().up_to(tier)).unwrap();
    let all = Tier::ALL.into_iter().map(|tier| (tier, with(tier)));
    all.filter(|(tier, sums)| sums.tier() == *tier).map(|(_, sums)| sums).collect()
}

#[test]
fn sums_agree_with_f64() {
    let mut random = Random::new(31);
    let (most, alignments) = if cfg!(miri) { (3, 1) } else { (40, 8) };
    for numbers in Numbers::ALL {
        let Some(dtype) = Dtype::ALL.into_iter().find(|dtype| dtype.name() == numbers.name())
        else {
            continue;
        };
        for (blocks, count) in [(1, 0), (1, 1), (2, most), (4, 3), (5, 2)] {
            let columns = 32 * blocks;
            for misaligned in 0..alignments {
                let bytes = matrix(numbers, count * columns, &mut random);
                let placed = Placed::new(&bytes, misaligned);
                let (scales, begin) = (random.units(count), random.units(columns));
                let decoded = decode(numbers, &bytes);
                for sums in tiers(dtype, columns) {
                    let mut y = begin.clone();
                    sums.add(&scales, placed.bytes(), &mut y).unwrap();
                    for (at, (found, begin)) in y.iter().zip(&begin).enumerate() {
                        let terms = (0..count)
                            .map(|row| f64::from(scales[row]) * decoded[row * columns + at]);
                        let (mut sum, mut size) = (f64::from(*begin), f64::from(begin.abs()));
                        for term in terms {
                            (sum, size) = (sum + term, size + term.abs());
                        }
                        // Each addition rounds once or twice, relative to what has been added up so far.
                        let bound = 2.0 * (count + 1) as f64 * f64::from(f32::EPSILON) * size;
                        let (name, tier) = (numbers.name(), sums.tier().name());
                        assert!(
                            (f64::from(*found) - sum).abs() <= bound + 1e-30,
                            "{name} {tier}: {found} against {sum}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn wrong_shapes_and_lengths_are_errors() {
    for found in [0, 8, 33, 1 << 62] {
        let error = Sums::new(Dtype::F16, found, CpuFeatures::NONE).unwrap_err();
        assert_eq!(error, KernelError::Columns { found });
    }
    for sums in tiers(Dtype::F16, 64) {
        let mut y = [1.0; 64];
        assert!(sums.add(&[2.0; 3], &[0; 3 * 128 - 1], &mut y).is_err());
        assert!(sums.add(&[2.0; 2], &[0; 3 * 128], &mut y).is_err());
        assert!(sums.add(&[2.0; 3], &[0; 3 * 128], &mut y[..63]).is_err());
        assert_eq!(sums.add(&[], &[], &mut y), Ok(()));
        assert_eq!(y, [1.0; 64]);
    }
}
