//! The reference: plain loops over the bytes, one accumulator, no tricks.
//!
//! Runs wherever `core` does, and says what every other tier has to agree with.

use half::f16;

/// `sum of w[i] * x[i]`; `w` holds little-endian f32, `4 * x.len()` bytes.
pub fn dot_f32(x: &[f32], w: &[u8]) -> f32 {
    weights_f32(w).zip(x).fold(0.0, |sum, (w, x)| sum + w * x)
}

/// `sum of w[i] * x[i]`; `w` holds little-endian f16, `2 * x.len()` bytes.
pub fn dot_f16(x: &[f32], w: &[u8]) -> f32 {
    weights_f16(w).zip(x).fold(0.0, |sum, (w, x)| sum + w * x)
}

/// `y[i] += scale * w[i]`; `w` holds little-endian f32, `4 * y.len()` bytes.
pub fn add_scaled_f32(scale: f32, w: &[u8], y: &mut [f32]) {
    weights_f32(w).zip(y).for_each(|(w, y)| *y += scale * w);
}

/// `y[i] += scale * w[i]`; `w` holds little-endian f16, `2 * y.len()` bytes.
pub fn add_scaled_f16(scale: f32, w: &[u8], y: &mut [f32]) {
    weights_f16(w).zip(y).for_each(|(w, y)| *y += scale * w);
}

fn weights_f32(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

fn weights_f16(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32())
}
