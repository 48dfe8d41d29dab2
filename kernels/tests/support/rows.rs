//! The same for matrices of rows.

use half::f16;
use lnp_kernels::{Dtype, Input, Numbers, Rows, Tier};

use super::{Numbers as Random, as_taken, detected, dot};

/// One for each tier that this machine has for the type, the lowest first.
pub(crate) fn tiers(numbers: Numbers, columns: usize) -> Vec<Rows> {
    let with = |tier| Rows::new(numbers, columns, detected().up_to(tier)).unwrap();
    let all = Tier::ALL.into_iter().map(|tier| (tier, with(tier)));
    all.filter(|(tier, rows)| rows.tier() == *tier).map(|(_, rows)| rows).collect()
}

/// The type of bundles that has the same numbers, if one has.
fn dtype(numbers: Numbers) -> Option<Dtype> {
    match numbers {
        Numbers::F32 => Some(Dtype::F32),
        Numbers::F16 => Some(Dtype::F16),
        Numbers::Bf16 => Some(Dtype::Bf16),
        Numbers::Q8_0 => Some(Dtype::Q8_0),
        Numbers::Q4_0 => Some(Dtype::Q4_0),
        _ => None,
    }
}

/// Bits of a code.
pub(crate) fn code_bits(numbers: Numbers) -> usize {
    numbers.name().strip_prefix("bits:").unwrap().parse().unwrap()
}

/// Numbers of a matrix as bytes; every code occurs.
pub(crate) fn matrix(numbers: Numbers, count: usize, random: &mut Random) -> Vec<u8> {
    if let Some(dtype) = dtype(numbers) {
        return super::weights(dtype, count, random);
    }
    let code_bytes = 4 * code_bits(numbers);
    let block = |_| {
        let scale = f16::from_f32(random.unit() / 64.0).to_le_bytes();
        let codes: Vec<u8> = (0..code_bytes).map(|_| random.bits() as u8).collect();
        [&scale[..], &codes].concat()
    };
    (0..count / 32).flat_map(block).collect()
}

/// A matrix's numbers in f64, written from the definition: codes are read bit by bit.
pub(crate) fn decode(numbers: Numbers, bytes: &[u8]) -> Vec<f64> {
    if let Some(dtype) = dtype(numbers) {
        return super::decode(dtype, bytes);
    }
    let bits = code_bits(numbers);
    let mut decoded = Vec::new();
    for block in bytes.chunks(2 + 4 * bits) {
        let scale = f64::from(f16::from_le_bytes([block[0], block[1]]));
        let bit = |at: usize| i32::from(block[2 + at / 8] >> (at % 8) & 1);
        for number in 0..32 {
            let code: i32 = (0..bits).map(|at| bit(number * bits + at) << at).sum();
            decoded.push(f64::from(2 * code + 1 - (1 << bits)) * scale);
        }
    }
    decoded
}

/// Each product in f64, and the largest error that it may have.
pub(crate) fn expected(rows: &Rows, x: &[f32], matrix: &[u8]) -> Vec<(f64, f64)> {
    // few bits take x as q8_0 does
    let x = as_taken(dtype(rows.numbers()).unwrap_or(Dtype::Q8_0), rows.tier(), x);
    // n + 4 roundings, of twice 2^-24 each, on the sum of absolute values
    let roundings = (rows.columns() + 4) as f64 * f64::from(f32::EPSILON);
    let product = |row: &[u8]| {
        let (sum, size) = dot(&x, &decode(rows.numbers(), row));
        (sum, size * roundings)
    };
    matrix.chunks(rows.row_bytes()).map(product).collect()
}

/// Through memory that begins at an odd address.
pub(crate) fn multiply(rows: &Rows, x: &[f32], matrix: &[u8]) -> Vec<f32> {
    let mut memory = vec![0x77; rows.input_bytes() + 1];
    let input = rows.prepare(x, &mut memory[1..]).unwrap();
    let mut out = vec![f32::NAN; matrix.len() / rows.row_bytes()];
    rows.multiply(&input, matrix, &mut out).unwrap();
    out
}

/// For each vector the products with all rows.
pub(crate) fn multiply_batch(rows: &Rows, xs: &[Vec<f32>], matrix: &[u8]) -> Vec<f32> {
    let mut memory = vec![vec![0; rows.input_bytes()]; xs.len()];
    let prepared = xs.iter().zip(&mut memory).map(|(x, memory)| rows.prepare(x, memory).unwrap());
    let inputs: Vec<Input<'_>> = prepared.collect();
    let mut out = vec![f32::NAN; xs.len() * (matrix.len() / rows.row_bytes())];
    rows.multiply_batch(&inputs, matrix, &mut out).unwrap();
    out
}
