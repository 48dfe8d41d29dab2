//! Matrices of rows, in every tier: against the same sums in f64, and against blocks made by hand.

mod support;

use lnp_kernels::{CpuFeatures, KernelError, Numbers, Rows, TOKENS_MAX, Tier};
use serde_json::Value;
use support::rows::{decode, expected, matrix, multiply, multiply_batch, tiers};
use support::{Numbers as Random, Placed, detected, from_hex};

/// Blocks of a row: around every step of a loop, and a long one.
const BLOCKS: &[usize] =
    if cfg!(miri) { &[1, 3] } else { &[1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 32] };
/// Offsets from what the allocator gives.
const ALIGNMENTS: usize = if cfg!(miri) { 1 } else { 64 };

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn products_agree_with_f64() {
    let mut random = Random::new(21);
    let mut compared = 0;
    for numbers in Numbers::ALL {
        for &blocks in BLOCKS {
            let columns = 32 * blocks;
            for misaligned in 0..ALIGNMENTS {
                let bytes = matrix(numbers, (1 + misaligned % 6) * columns, &mut random);
                let (x, placed) = (random.units(columns), Placed::new(&bytes, misaligned));
                for rows in tiers(numbers, columns) {
                    let found = multiply(&rows, &x, placed.bytes());
                    for (found, (expected, bound)) in found.iter().zip(expected(&rows, &x, &bytes))
                    {
                        assert!(
                            (f64::from(*found) - expected).abs() <= bound + 1e-30,
                            "{} {}: {found} against {expected}, bound {bound}, {blocks} blocks",
                            numbers.name(),
                            rows.tier().name(),
                        );
                        compared += 1;
                    }
                }
            }
        }
    }
    println!("{compared} products");
}

#[test]
fn a_batch_has_the_bits_of_single_vectors() {
    let mut random = Random::new(22);
    // blocks and rows: none, one, and around what a batch takes together
    let shapes: &[(usize, usize)] = if cfg!(miri) {
        &[(1, 0), (2, 3)]
    } else {
        &[(1, 0), (1, 1), (5, 7), (1, 300), (8, 61), (256, 3)]
    };
    let tokens_max = if cfg!(miri) { 2 } else { TOKENS_MAX };
    for numbers in Numbers::ALL {
        for &(blocks, count) in shapes {
            let columns = 32 * blocks;
            let bytes = matrix(numbers, count * columns, &mut random);
            let xs: Vec<_> = (0..tokens_max).map(|_| random.units(columns)).collect();
            for rows in tiers(numbers, columns) {
                let single: Vec<f32> = xs.iter().flat_map(|x| multiply(&rows, x, &bytes)).collect();
                for tokens in 0..=tokens_max {
                    let found = multiply_batch(&rows, &xs[..tokens], &bytes);
                    assert_eq!(bits(&found), bits(&single[..tokens * count]));
                }
            }
        }
    }
}

/// Rows are multiplied together: each has the bits that it has alone, whatever follows it.
#[test]
fn a_row_does_not_depend_on_the_others() {
    let mut random = Random::new(23);
    for numbers in Numbers::ALL {
        for &blocks in BLOCKS {
            let columns = 32 * blocks;
            let bytes = matrix(numbers, 3 * columns, &mut random);
            let x = random.units(columns);
            for rows in tiers(numbers, columns) {
                let row = rows.row_bytes();
                let mut damaged = bytes.clone();
                // NaN in every type that has one
                damaged[row..2 * row].fill(0xff);
                let alone = bytes.chunks(row).flat_map(|row| multiply(&rows, &x, row));
                let alone = bits(&alone.collect::<Vec<_>>());
                assert_eq!(bits(&multiply(&rows, &x, &bytes)), alone);
                let found = multiply(&rows, &x, &damaged);
                assert!(found[1].is_nan(), "{} {}", numbers.name(), rows.tier().name());
                assert_eq!([found[0].to_bits(), found[2].to_bits()], [alone[0], alone[2]]);
            }
        }
    }
}

#[test]
fn what_is_not_finite_is_not_hidden() {
    let mut random = Random::new(24);
    let columns = if cfg!(miri) { 64 } else { 32 * 7 };
    for numbers in Numbers::ALL {
        let mut bytes = matrix(numbers, 2 * columns, &mut random);
        for rows in tiers(numbers, columns) {
            for value in [f32::NAN, -f32::NAN, f32::from_bits(0x7fff_ffff), f32::INFINITY] {
                for at in [0, 31, 32, columns / 2, columns - 1] {
                    let mut x = random.units(columns);
                    x[at] = value;
                    let found = multiply(&rows, &x, &bytes);
                    assert!(found.iter().all(|y| !y.is_finite()), "{}", rows.tier().name());
                    assert!(value.is_infinite() || found.iter().all(|y| y.is_nan()));
                }
            }
        }
        // a scale, where there is one
        let infinite = match numbers {
            Numbers::F32 => f32::INFINITY.to_le_bytes().to_vec(),
            Numbers::Bf16 => 0x7f80_u16.to_le_bytes().to_vec(),
            _ => 0x7c00_u16.to_le_bytes().to_vec(),
        };
        bytes[..infinite.len()].copy_from_slice(&infinite);
        for rows in tiers(numbers, columns) {
            let found = multiply(&rows, &random.units(columns), &bytes);
            assert!(!found[0].is_finite() && found[1].is_finite(), "{}", rows.tier().name());
        }
    }
}

#[test]
fn wrong_shapes_and_lengths_are_errors() {
    for found in [0, 8, 33, 1 << 62] {
        let error = Rows::new(Numbers::Bits4, found, CpuFeatures::NONE).unwrap_err();
        assert_eq!(error, KernelError::Columns { found });
    }
    for numbers in Numbers::ALL {
        for rows in tiers(numbers, 64) {
            let bytes = vec![0; 3 * rows.row_bytes()];
            let mut memory = vec![0; rows.input_bytes()];
            assert!(rows.prepare(&[0.0; 32], &mut memory).is_err());
            if let Some(most) = rows.input_bytes().checked_sub(1) {
                assert!(rows.prepare(&[0.0; 64], &mut memory[..most]).is_err());
            }
            let input = rows.prepare(&[0.0; 64], &mut memory).unwrap();
            let mut out = [1.0; 7];
            assert!(rows.multiply(&input, &bytes[1..], &mut out[..3]).is_err());
            assert!(rows.multiply(&input, &bytes, &mut out[..2]).is_err());
            assert!(rows.multiply(&input, &bytes, &mut out[..4]).is_err());
            let batch = [input; 2];
            assert!(rows.multiply_batch(&batch, &bytes[1..], &mut out[..6]).is_err());
            assert!(rows.multiply_batch(&batch, &bytes, &mut out[..5]).is_err());
            assert!(rows.multiply_batch(&batch, &bytes, &mut out).is_err());
            assert_eq!(out, [1.0; 7]);
            assert_eq!(rows.multiply_batch(&batch, &bytes, &mut out[..6]), Ok(()));
            assert_eq!(rows.multiply_batch(&[], &bytes, &mut []), Ok(()));
            assert_eq!(rows.multiply_batch(&batch, &[], &mut []), Ok(()));
            assert_eq!(rows.multiply(&input, &[], &mut []), Ok(()));
            let other = Rows::new(numbers, 32, CpuFeatures::NONE).unwrap();
            assert!(other.multiply(&input, &[], &mut []).is_err());
            // an input of another form
            for other in Numbers::ALL.into_iter().flat_map(|numbers| tiers(numbers, 64)) {
                let bytes = vec![0; other.row_bytes()];
                let found = other.multiply(&input, &bytes, &mut out[..1]);
                let both = other.multiply_batch(&[input], &bytes, &mut out[1..2]);
                assert!(matches!(found, Ok(()) | Err(KernelError::Input)), "{found:?}");
                assert_eq!(found, both);
            }
        }
    }
}

/// Blocks of codes as `vectors/make_bits.py` writes and reads them. A vector of one 127 and zeros is taken
/// as it is by every tier, so that each product is exact but for its last rounding.
#[test]
fn every_tier_reads_codes_as_they_are_defined() {
    let vectors: Value = serde_json::from_str(include_str!("vectors/bits.json")).unwrap();
    let blocks = vectors["blocks"].as_array().unwrap();
    assert!(blocks.len() >= 20);
    for block in blocks.iter().take(if cfg!(miri) { 6 } else { usize::MAX }) {
        let name = block["numbers"].as_str().unwrap();
        let numbers = Numbers::ALL.into_iter().find(|numbers| numbers.name() == name).unwrap();
        let bytes = from_hex(block["bytes"].as_str().unwrap());
        assert_eq!(bytes.len(), numbers.row_bytes(32));
        let values = block["values_bits"].as_array().unwrap().iter();
        let values = values.map(|bits| f32::from_bits(bits.as_u64().unwrap() as u32));
        let values: Vec<f64> = values.map(f64::from).collect();
        assert_eq!(decode(numbers, &bytes), values, "{name}");
        for rows in tiers(numbers, 32) {
            for (at, value) in values.iter().enumerate() {
                let mut x = [0.0; 32];
                x[at] = 127.0;
                let found = multiply(&rows, &x, &bytes);
                assert_eq!(found, [(127.0 * value) as f32], "{name} {}", rows.tier().name());
            }
        }
    }
}

#[test]
fn the_best_tier_is_taken_and_a_lower_one_can_be_forced() {
    for numbers in Numbers::ALL {
        let all = tiers(numbers, 32);
        let names: Vec<_> = all.iter().map(|rows| rows.tier().name()).collect();
        println!("{}: {}", numbers.name(), names.join(" "));
        let best = Rows::new(numbers, 32, detected()).unwrap().tier();
        assert_eq!(Some(best), all.last().map(Rows::tier));
        assert_eq!(all[0].tier(), Tier::Portable);
        let portable = Rows::new(numbers, 32, CpuFeatures::NONE).unwrap();
        assert_eq!(portable.tier(), Tier::Portable);
        assert_eq!(portable.row_bytes(), numbers.block_bytes());
    }
}
