//! The algorithm, once: the dot product and the scaled sum over any register of f32 lanes.
//!
//! An instruction set brings a [`Vector`] and, for each number type, how 32 numbers become f32
//! ([`Load`]); `#[target_feature]` shells make functions of the two.

use super::Ahead;
use crate::dtype::{BLOCK, Dtype};
use crate::numbers::bits_block_bytes;

/// A register of f32 lanes.
pub(super) trait Vector: Copy {
    /// Lanes of a register; divides 32.
    const LANES: usize;
    /// The registers of 32 values.
    type Block: Copy + AsRef<[Self]> + AsMut<[Self]>;

    // Each of these needs the instruction set of the implementing type; the pointers need no
    // alignment.

    /// # Safety
    /// The instruction set is there.
    unsafe fn zeros() -> Self::Block;
    /// # Safety
    /// The instruction set is there.
    unsafe fn splat(value: f32) -> Self;
    /// # Safety
    /// The instruction set is there, and `LANES` values can be read at `from`.
    unsafe fn load(from: *const f32) -> Self;
    /// # Safety
    /// The instruction set is there, and `LANES` values can be written at `to`.
    unsafe fn store(self, to: *mut f32);
    /// `self * factor + sum`, rounded once.
    ///
    /// # Safety
    /// The instruction set is there.
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self;
    /// The sum of all lanes, always in the same order.
    ///
    /// # Safety
    /// The instruction set is there.
    unsafe fn sum(blocks: [Self::Block; 2]) -> f32;
    /// An f16 as f32.
    ///
    /// # Safety
    /// The instruction set is there.
    unsafe fn widen(half: u16) -> f32;
}

/// How a block of 32 weights of a number type is stored.
pub(super) trait Stored {
    /// Bytes of the block.
    const BLOCK_BYTES: usize;
    /// Bytes of the f16 scale that it begins with; 0 or 2.
    const SCALE_BYTES: usize;
}

/// Stored as numbers, without a scale.
pub(super) struct F32;
/// See [`F32`].
pub(super) struct F16;
/// See [`F32`].
pub(super) struct Bf16;
/// Stored as a scale and bytes.
pub(super) struct Q8;
/// Stored as a scale and halves of bytes.
pub(super) struct Q4;
/// Stored as a scale and codes of K bits.
pub(super) struct Bits<const K: usize>;

impl Stored for F32 {
    const BLOCK_BYTES: usize = Dtype::F32.block_bytes();
    const SCALE_BYTES: usize = 0;
}
impl Stored for F16 {
    const BLOCK_BYTES: usize = Dtype::F16.block_bytes();
    const SCALE_BYTES: usize = 0;
}
impl Stored for Bf16 {
    const BLOCK_BYTES: usize = Dtype::Bf16.block_bytes();
    const SCALE_BYTES: usize = 0;
}
impl Stored for Q8 {
    const BLOCK_BYTES: usize = Dtype::Q8_0.block_bytes();
    const SCALE_BYTES: usize = 2;
}
impl Stored for Q4 {
    const BLOCK_BYTES: usize = Dtype::Q4_0.block_bytes();
    const SCALE_BYTES: usize = 2;
}
impl<const K: usize> Stored for Bits<K> {
    const BLOCK_BYTES: usize = bits_block_bytes(K);
    const SCALE_BYTES: usize = 2;
}

/// How 32 numbers become f32.
pub(super) trait Load<V: Vector>: Stored {
    /// # Safety
    /// The instruction set of `V` and what the implementing type needs beyond it are there, and
    /// `BLOCK_BYTES - SCALE_BYTES` bytes can be read at `numbers`, which needs no alignment.
    unsafe fn load(numbers: *const u8) -> V::Block;
}

/// `sum of w[i] * x[i]`, for types without scales.
///
/// # Safety
/// The instruction set of `V` and what `W` needs beyond it are there. (Lengths are safe: what is not in
/// both is left out.)
#[inline(always)]
pub(super) unsafe fn dot<V: Vector, W: Load<V>>(x: &[f32], w: &[u8], ahead: Ahead) -> f32 {
    const { assert!(W::SCALE_BYTES == 0, "a type with scales") };
    // Two blocks of sums, because one does not hide how long a multiplication takes.
    // SAFETY: it needs the instruction set alone, which this function asks of its caller.
    let zeros = unsafe { V::zeros() };
    let mut sums = [zeros; 2];
    let x = x.as_chunks::<BLOCK>().0;
    for (x, w) in x.chunks_exact(2).zip(w.chunks_exact(2 * W::BLOCK_BYTES)) {
        ahead.ask(w.as_ptr(), 2 * W::BLOCK_BYTES);
        let (w_first, w_second) = w.split_at(W::BLOCK_BYTES);
        // SAFETY: the instruction set is there, as this function asks of its caller; the slice is cut to
        // a block, and the scale is none, as asserted above.
        unsafe { add_products::<V, W>(&mut sums[0], &x[0], w_first) };
        // SAFETY: the instruction set is there, as this function asks of its caller; of two blocks the
        // slice is what follows the first, and the scale is none, as asserted above.
        unsafe { add_products::<V, W>(&mut sums[1], &x[1], w_second) };
    }
    let blocks = x.len().min(w.len() / W::BLOCK_BYTES);
    if blocks % 2 == 1 {
        let w = &w[(blocks - 1) * W::BLOCK_BYTES..blocks * W::BLOCK_BYTES];
        // SAFETY: the instruction set is there, as this function asks of its caller; the slice is cut to
        // a block, and the scale is none, as asserted above.
        unsafe { add_products::<V, W>(&mut sums[0], &x[blocks - 1], w) };
    }
    // SAFETY: it needs the instruction set alone, which this function asks of its caller.
    unsafe { V::sum(sums) }
}

/// `out[i] = row i . x`, for types without scales.
///
/// # Safety
/// As [`dot`].
#[inline(always)]
pub(super) unsafe fn rows<V: Vector, W: Load<V>>(
    x: &[f32],
    rows: &[u8],
    out: &mut [f32],
    ahead: Ahead,
) {
    let row_bytes = x.len() / BLOCK * W::BLOCK_BYTES;
    for (row, out) in rows.chunks_exact(row_bytes.max(1)).zip(out) {
        // SAFETY: the instruction set is there, as this function asks of its caller; any lengths will do.
        *out = unsafe { dot::<V, W>(x, row, ahead) };
    }
}

/// Adds the products of one block.
///
/// # Safety
/// The instruction set of `V` is there; `w` holds `W::BLOCK_BYTES` bytes, `SCALE_BYTES` is 0.
#[inline(always)]
unsafe fn add_products<V: Vector, W: Load<V>>(sums: &mut V::Block, x: &[f32; BLOCK], w: &[u8]) {
    // SAFETY: the instruction set is there and the slice holds a block, all of it numbers, as this
    // function asks of its caller.
    let w = unsafe { W::load(w.as_ptr()) };
    let registers = sums.as_mut().iter_mut().zip(w.as_ref()).zip(x.chunks_exact(V::LANES));
    for ((sum, w), x) in registers {
        // SAFETY: the instruction set is there, as this function asks; the chunk holds `LANES` values.
        let x = unsafe { V::load(x.as_ptr()) };
        // SAFETY: it needs the instruction set alone, which this function asks of its caller.
        *sum = unsafe { V::mul_add(*w, x, *sum) };
    }
}

/// `y[i] += scale * w[i]`, where a block's own scale is multiplied with `scale` first.
///
/// # Safety
/// The instruction set of `V` and what `W` needs beyond it are there. (Lengths are safe: what is not in
/// both is left out.)
#[inline(always)]
pub(super) unsafe fn add_scaled<V: Vector, W: Load<V>>(
    scale: f32,
    w: &[u8],
    y: &mut [f32],
    ahead: Ahead,
) {
    for (y, w) in y.as_chunks_mut::<BLOCK>().0.iter_mut().zip(w.chunks_exact(W::BLOCK_BYTES)) {
        ahead.ask(w.as_ptr(), W::BLOCK_BYTES);
        let mut factor = scale;
        if let Some((half, _)) = w.split_first_chunk().filter(|_| W::SCALE_BYTES == 2) {
            // SAFETY: it needs the instruction set alone, which this function asks of its caller.
            factor *= unsafe { V::widen(u16::from_le_bytes(*half)) };
        }
        // SAFETY: it needs the instruction set alone, which this function asks of its caller.
        let factor = unsafe { V::splat(factor) };
        // SAFETY: the instruction set is there, as this function asks; `w` is a whole block, whose numbers
        // begin after the scale.
        let weights = unsafe { W::load(w[W::SCALE_BYTES..].as_ptr()) };
        for (w, y) in weights.as_ref().iter().zip(y.chunks_exact_mut(V::LANES)) {
            // SAFETY: the instruction set is there, as this function asks; the chunk holds `LANES` values.
            let sum = unsafe { V::load(y.as_ptr()) };
            // SAFETY: it needs the instruction set alone, which this function asks of its caller.
            let sum = unsafe { V::mul_add(factor, *w, sum) };
            // SAFETY: the instruction set is there, as this function asks; the chunk holds `LANES` values
            // and is ours to write.
            unsafe { V::store(sum, y.as_mut_ptr()) };
        }
    }
}
