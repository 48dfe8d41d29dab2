//! A rotation of the hidden state, so that what is meant for a few coordinates is seen in all of them.

use crate::random::{Purpose, named, stream};
use rand_xoshiro::rand_core::Rng;

/// An orthogonal matrix: signs times Hadamard matrices, as large as the largest power of two that divides the width.
/// Applying it costs width times the logarithm of that, and each entry can be told by itself.
///
/// Coordinate j lies in block j mod blocks, so that the first coordinates are spread over all blocks.
pub(crate) struct Rotation {
    signs: Vec<f32>,
    block: usize,
    scale: f32,
}

impl Rotation {
    pub(crate) fn new(width: usize, seed: u64) -> Self {
        let block = 1 << width.trailing_zeros();
        let mut random = stream(seed, Purpose::Rotation, [named("hidden"), width as u64]);
        let signs =
            (0..width).map(|_| if random.next_u64() >> 63 == 0 { 1.0 } else { -1.0 }).collect();
        Self { signs, block, scale: 1.0 / (block as f32).sqrt() }
    }

    pub(crate) fn width(&self) -> usize {
        self.signs.len()
    }

    fn blocks(&self) -> usize {
        self.width() / self.block
    }

    /// Turns a vector; `out` is as long.
    pub(crate) fn apply(&self, vector: &[f32], out: &mut [f32]) {
        let blocks = self.blocks();
        for (number, block) in out.chunks_exact_mut(self.block).enumerate() {
            for (place, value) in block.iter_mut().enumerate() {
                *value = vector[place * blocks + number];
            }
            hadamard(block);
        }
        for (value, sign) in out.iter_mut().zip(&self.signs) {
            *value *= sign * self.scale;
        }
    }

    /// The entries of a row at the first coordinates, which `out` is filled with.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        let blocks = self.blocks();
        let (number, place) = (row / self.block, row % self.block);
        for (coordinate, entry) in out.iter_mut().enumerate() {
            *entry = if coordinate % blocks != number {
                0.0
            } else if (place & (coordinate / blocks)).count_ones().is_multiple_of(2) {
                self.signs[row] * self.scale
            } else {
                -self.signs[row] * self.scale
            };
        }
    }
}

/// The Walsh-Hadamard transform of a power of two of numbers, not scaled.
fn hadamard(values: &mut [f32]) {
    let mut half = 1;
    while half < values.len() {
        for pair in values.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_an_orthogonal_matrix() {
        for width in [8, 24] {
            let rotation = Rotation::new(width, 3);
            let columns: Vec<Vec<f32>> = (0..width)
                .map(|at| {
                    let (mut unit, mut out) = (vec![0.0; width], vec![0.0; width]);
                    unit[at] = 1.0;
                    rotation.apply(&unit, &mut out);
                    out
                })
                .collect();
            for (i, one) in columns.iter().enumerate() {
                for (j, other) in columns.iter().enumerate() {
                    let dot: f32 = one.iter().zip(other).map(|(a, b)| a * b).sum();
                    assert!((dot - f32::from(u8::from(i == j))).abs() < 1e-6, "{i} {j} {dot}");
                }
            }
            let mut row = vec![0.0; width];
            for number in 0..width {
                rotation.row(number, &mut row);
                let told = columns.iter().map(|column| column[number]);
                assert!(row.iter().copied().eq(told), "{width}: row {number}");
            }
        }
    }
}
