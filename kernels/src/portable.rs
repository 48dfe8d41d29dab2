//! The reference: plain loops over the bytes, one accumulator, no tricks.
//!
//! Runs wherever `core` does, and says what every other tier has to agree with.

use half::{bf16, f16};

use crate::dtype::{BLOCK, Dtype};
use crate::numbers::Numbers;

/// `sum of w[i] * x[i]`; `w` holds `x.len()` weights, a multiple of 32.
pub fn dot(dtype: Dtype, x: &[f32], w: &[u8]) -> f32 {
    sum_of_products(x, w, dtype.block_bytes(), |block| decode(dtype, block))
}

/// `out[i] = row i . x`; `rows` holds as many rows as `out` has places, of `x.len()` numbers each, a
/// multiple of 32.
pub fn multiply(numbers: Numbers, x: &[f32], rows: &[u8], out: &mut [f32]) {
    let rows = rows.chunks_exact(numbers.row_bytes(x.len()).max(1));
    for (row, out) in rows.zip(out) {
        let decode = |block: &[u8]| decode_numbers(numbers, block);
        *out = sum_of_products(x, row, numbers.block_bytes(), decode);
    }
}

/// Of blocks of so many bytes.
fn sum_of_products(
    x: &[f32],
    w: &[u8],
    block_bytes: usize,
    decode: impl Fn(&[u8]) -> [f32; BLOCK],
) -> f32 {
    let blocks = w.chunks_exact(block_bytes.max(1)).zip(x.as_chunks::<BLOCK>().0);
    blocks.fold(0.0, |sum, (block, x)| {
        let weights = decode(block);
        weights.iter().zip(x).fold(sum, |sum, (w, x)| sum + w * x)
    })
}

/// `y[i] += scale * w[i]`; `w` holds `y.len()` weights, a multiple of 32.
pub fn add_scaled(dtype: Dtype, scale: f32, w: &[u8], y: &mut [f32]) {
    for (block, y) in w.chunks_exact(dtype.block_bytes()).zip(y.as_chunks_mut::<BLOCK>().0) {
        let weights = decode(dtype, block);
        weights.iter().zip(y).for_each(|(w, y)| *y += scale * w);
    }
}

/// The weights of one block; what is missing in `block` is 0.
pub fn decode(dtype: Dtype, block: &[u8]) -> [f32; BLOCK] {
    let mut weights = [0.0; BLOCK];
    match dtype {
        Dtype::F32 => {
            let bytes = block.as_chunks::<4>().0;
            weights.iter_mut().zip(bytes).for_each(|(w, b)| *w = f32::from_le_bytes(*b));
        }
        Dtype::F16 => {
            let bytes = block.as_chunks::<2>().0;
            weights.iter_mut().zip(bytes).for_each(|(w, b)| *w = f16::from_le_bytes(*b).to_f32());
        }
        Dtype::Bf16 => {
            let bytes = block.as_chunks::<2>().0;
            weights.iter_mut().zip(bytes).for_each(|(w, b)| *w = bf16::from_le_bytes(*b).to_f32());
        }
        Dtype::Q8_0 => {
            let Some((scale, numbers)) = block.split_first_chunk() else { return weights };
            let scale = f16::from_le_bytes(*scale).to_f32();
            let numbers = numbers.iter().map(|number| f32::from(number.cast_signed()));
            weights.iter_mut().zip(numbers).for_each(|(w, number)| *w = scale * number);
        }
        Dtype::Q4_0 => {
            let Some((scale, numbers)) = block.split_first_chunk() else { return weights };
            let scale = f16::from_le_bytes(*scale).to_f32();
            let (low, high) = weights.split_at_mut(BLOCK / 2);
            for ((low, high), byte) in low.iter_mut().zip(high).zip(numbers) {
                *low = scale * (f32::from(byte & 15) - 8.0);
                *high = scale * (f32::from(byte >> 4) - 8.0);
            }
        }
    }
    weights
}

/// The numbers of one block of a row; what is missing in `block` is 0.
pub fn decode_numbers(numbers: Numbers, block: &[u8]) -> [f32; BLOCK] {
    match numbers {
        Numbers::F32 => decode(Dtype::F32, block),
        Numbers::F16 => decode(Dtype::F16, block),
        Numbers::Bf16 => decode(Dtype::Bf16, block),
        Numbers::Q8_0 => decode(Dtype::Q8_0, block),
        Numbers::Q4_0 => decode(Dtype::Q4_0, block),
        Numbers::Bits1 => decode_bits::<1>(block),
        Numbers::Bits2 => decode_bits::<2>(block),
        Numbers::Bits4 => decode_bits::<4>(block),
        Numbers::Bits8 => decode_bits::<8>(block),
    }
}

/// Of codes of K bits, where K divides 8.
fn decode_bits<const K: usize>(block: &[u8]) -> [f32; BLOCK] {
    let mut weights = [0.0; BLOCK];
    let Some((scale, codes)) = block.split_first_chunk() else { return weights };
    let scale = f16::from_le_bytes(*scale).to_f32();
    let top = u8::MAX >> (8 - K);
    for (weights, byte) in weights.chunks_mut(8 / K).zip(codes) {
        for (at, weight) in weights.iter_mut().enumerate() {
            let code = (byte >> (at * K)) & top;
            // 2 c + 1 - 2^K
            *weight = scale * (2.0 * f32::from(code) - f32::from(top));
        }
    }
    weights
}
