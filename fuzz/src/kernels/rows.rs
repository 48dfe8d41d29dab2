//! The same bits as a matrix of rows.

use half::f16;
use lnp_kernels::{Input, Numbers as Stored, Rows};

use super::{Case, hidden_state, same, tame};
use crate::kernel_oracle::rows::{decode, expected, matrix, multiply, multiply_batch, tiers};
use crate::kernel_oracle::{Numbers, Placed};
use crate::pick;

/// Through every tier that this machine has.
pub(super) fn run(case: &Case, columns: usize, numbers: &mut Numbers) {
    // what is left of the fields that choose a bundle's type and the tokens
    let stored = pick(&Stored::ALL, case.dtype / 5);
    let count = usize::from(case.tokens >> 4) % 11;
    let bytes = filled(case, stored, count * columns, numbers);
    let placed = Placed::new(&bytes, usize::from(case.misaligned % 64));
    let xs: Vec<Vec<f32>> = (0..1 + usize::from(case.tokens) % 3)
        .map(|token| hidden_state(case, columns, token, numbers))
        .collect();
    for rows in tiers(stored, columns) {
        let mut single = Vec::new();
        for x in &xs {
            let found = multiply(&rows, x, placed.bytes());
            check(&rows, x, &bytes, &found);
            single.extend(found.into_iter().map(same));
        }
        let batch = multiply_batch(&rows, &xs, &bytes).into_iter().map(same);
        assert!(batch.eq(single.iter().copied()), "batch or alignment, {}", rows.tier().name());
        check_lengths(&rows, &bytes, count);
    }
}

fn filled(case: &Case, stored: Stored, count: usize, numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = matrix(stored, count, numbers);
    if !case.ordinary {
        bytes.iter_mut().for_each(|byte| *byte = numbers.bits() as u8);
    }
    bytes.iter_mut().zip(&case.bundle).for_each(|(byte, given)| *byte = *given);
    bytes
}

/// Against f64 where that is possible, each row as it is alone, and what is not finite is not hidden.
fn check(rows: &Rows, x: &[f32], bytes: &[u8], found: &[f32]) {
    let name = rows.tier().name();
    let expected = expected(rows, x, bytes);
    assert_eq!(found.len(), expected.len());
    let all = bytes.chunks(rows.row_bytes()).zip(found).zip(expected);
    for ((row, found), (expected, bound)) in all {
        assert_eq!(same(*found), same(multiply(rows, x, row)[0]), "a row alone, {name}");
        let weights = decode(rows.numbers(), row);
        if x.iter().any(|v| v.is_nan()) || has_nan(rows.numbers(), row) {
            assert!(found.is_nan(), "NaN becomes {found}, {name}");
        }
        if !(x.iter().all(|v| v.is_finite()) && weights.iter().all(|w| w.is_finite())) {
            assert!(!found.is_finite(), "infinity becomes {found}, {name}");
        }
        if x.iter().map(|v| f64::from(*v)).chain(weights).all(tame) {
            let off = (f64::from(*found) - expected).abs();
            assert!(off <= bound + 1e-30, "{found} against {expected}, bound {bound}, {name}");
        }
    }
}

/// Whether NaN is stored: as a scale, where there is one (see [`super::has_nan`]).
fn has_nan(stored: Stored, row: &[u8]) -> bool {
    match stored {
        Stored::F32 | Stored::F16 => decode(stored, row).iter().any(|w| w.is_nan()),
        _ => row
            .chunks(stored.block_bytes())
            .any(|block| f16::from_le_bytes([block[0], block[1]]).is_nan()),
    }
}

/// A matrix of another length is an error.
fn check_lengths(rows: &Rows, bytes: &[u8], count: usize) {
    let x = vec![0.0; rows.columns()];
    let mut memory = vec![0; rows.input_bytes()];
    let input: Input<'_> = rows.prepare(&x, &mut memory).expect("of the right length");
    let mut out = vec![0.0; count + 1];
    for (wrong, count) in [(&[bytes, &[0]].concat()[..], count), (bytes, count + 1)] {
        assert!(rows.multiply(&input, wrong, &mut out[..count]).is_err());
        assert!(rows.multiply_batch(&[input], wrong, &mut out[..count]).is_err());
    }
}
