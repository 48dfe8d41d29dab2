//! The hidden state in the form that a kernel computes with.
//!
//! Most kernels multiply the f32 values as they are. Those with integer or half-precision dot
//! products need them converted, once for all bundles of a layer.

use crate::dtype::BLOCK;

/// Blocks of a step of the integer kernels: the prepared form is padded with zeros to whole steps.
pub(crate) const STEP: usize = 4;

/// What a hidden state is turned into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Nothing: f32 values.
    Values,
    /// 8-bit blocks: f32 scales, i32 sums of the numbers of each block, then the numbers, each
    /// array for whole steps of [`STEP`] blocks. As GGUF's Q8_0, but that the scale stays in f32.
    Q8,
    /// The same, but of each step the first 16 numbers of its blocks stand before the second.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    Q8Interleaved,
    /// bf16 numbers, and bf16 numbers of what those leave; two arrays.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    Bf16Twice,
    /// An f32 scale, a power of two, then f16 numbers.
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
    F16Scaled,
}

impl Form {
    /// Bytes for `hidden` values, a multiple of 32.
    pub(crate) const fn bytes(self, hidden: usize) -> usize {
        match self {
            Self::Values => 0,
            Self::Q8 | Self::Q8Interleaved => (hidden / BLOCK).next_multiple_of(STEP) * (8 + BLOCK),
            Self::Bf16Twice => 4 * hidden,
            Self::F16Scaled => 4 + 2 * hidden,
        }
    }
}

/// A hidden state, prepared by [`crate::Kernel::prepare`] or [`crate::Rows::prepare`] for what has the same
/// number type and tier.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// A multiple of 32 of them.
    pub(crate) values: &'a [f32],
    pub(crate) form: Form,
    /// `form.bytes(values.len())` bytes, at any alignment.
    pub(crate) prepared: &'a [u8],
    /// What products with the first part are made less by, before the activation.
    pub(crate) cutoff: f32,
}

/// The arrays of [`Form::Q8`].
#[derive(Clone, Copy)]
pub(crate) struct Blocks<'a> {
    /// f32, one a block.
    pub(crate) scales: &'a [[u8; 4 * STEP]],
    /// i32, one a block.
    pub(crate) sums: &'a [[u8; 4 * STEP]],
    /// i8, 32 a block.
    pub(crate) numbers: &'a [[u8; BLOCK * STEP]],
}

impl Default for Input<'_> {
    /// No values: what an array is filled with before the inputs are known.
    fn default() -> Self {
        Self { values: &[], form: Form::Values, prepared: &[], cutoff: 0.0 }
    }
}

impl<'a> Input<'a> {
    /// The same with a cutoff: what products with the first part of a bundle are made less by, before the
    /// activation. For [`crate::Activation::GaussianTopk`], whose cutoff goes by all neurons of the layer.
    pub const fn cut(self, cutoff: f32) -> Self {
        Self { cutoff, ..self }
    }

    /// The 8-bit blocks in steps of [`STEP`]; none where the form is another.
    pub(crate) fn blocks(&self) -> Blocks<'a> {
        let is_blocks = matches!(self.form, Form::Q8 | Form::Q8Interleaved);
        let found = if is_blocks { self.prepared } else { &[] };
        let steps = found.len() / (STEP * (8 + BLOCK));
        let (scales, rest) = found.split_at(steps * 4 * STEP);
        let (sums, numbers) = rest.split_at(steps * 4 * STEP);
        Blocks {
            scales: scales.as_chunks().0,
            sums: sums.as_chunks().0,
            numbers: numbers.as_chunks().0,
        }
    }
}

/// Fills `out`, [`Form::Q8`], from `values`.
///
/// A block with an infinity or NaN has scale NaN, so that whatever it is multiplied with is NaN.
pub(crate) fn quantise(values: &[f32], out: &mut [u8]) {
    let blocks = out.len() / (8 + BLOCK);
    out.fill(0);
    let (scales, rest) = out.split_at_mut(4 * blocks);
    let (sums, numbers) = rest.split_at_mut(4 * blocks);
    let places = scales.as_chunks_mut::<4>().0.iter_mut().zip(sums.as_chunks_mut::<4>().0);
    let places = places.zip(numbers.as_chunks_mut::<BLOCK>().0);
    for (values, ((scale, sum), numbers)) in values.as_chunks::<BLOCK>().0.iter().zip(places) {
        let (block_scale, block) = quantise_block(values);
        *scale = block_scale.to_le_bytes();
        *numbers = block.map(i8::cast_unsigned);
        *sum = block.iter().map(|number| i32::from(*number)).sum::<i32>().to_le_bytes();
    }
}

/// Turns [`Form::Q8`] into [`Form::Q8Interleaved`].
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) fn interleave(prepared: &mut [u8]) {
    let steps = prepared.len() / (STEP * (8 + BLOCK));
    let numbers = &mut prepared[steps * STEP * 8..];
    for step in numbers.as_chunks_mut::<{ STEP * BLOCK }>().0 {
        let before = *step;
        let halves = before.as_chunks::<{ BLOCK / 2 }>().0;
        for (block, pair) in halves.as_chunks::<2>().0.iter().enumerate() {
            for (half, numbers) in pair.iter().enumerate() {
                let begin = (half * STEP + block) * BLOCK / 2;
                step[begin..begin + BLOCK / 2].copy_from_slice(numbers);
            }
        }
    }
}

/// The scale and the numbers of a block: `scale = max |v| / 127`, `v / scale` rounded to nearest.
pub(crate) fn quantise_block(values: &[f32; BLOCK]) -> (f32, [i8; BLOCK]) {
    // 1.5 * 2^23: added to a number below 2^22 it leaves the nearest integer in the low bits (ties
    // to even), without the checks of a cast.
    const ROUND: f32 = 12_582_912.0;
    // As bits NaN is the largest.
    let most = values.iter().map(|v| v.abs().to_bits()).fold(0, u32::max);
    let most = f32::from_bits(most);
    if !most.is_finite() {
        return (f32::NAN, [0; BLOCK]);
    }
    let scale = most / 127.0;
    let inverse = 127.0 / most;
    if !inverse.is_finite() {
        // Zero, or so small that its products are nothing.
        return (0.0, [0; BLOCK]);
    }
    (scale, values.map(|v| (v * inverse + ROUND).to_bits() as i8))
}

/// Fills `out`, [`Form::Bf16Twice`], from `values`: `v = first + second` but for 2^-16 of it.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) fn split_bf16(values: &[f32], out: &mut [u8]) {
    let (first, second) = out.split_at_mut(2 * values.len());
    let places = first.as_chunks_mut::<2>().0.iter_mut().zip(second.as_chunks_mut::<2>().0);
    for (v, (first, second)) in values.iter().zip(places) {
        // Cut, not rounded: NaN and infinity stay what they are, or make what is left NaN.
        let upper = v.to_bits() & 0xffff_0000;
        let rest = (v - f32::from_bits(upper)).to_bits();
        let nearest = rest.wrapping_add(0x7fff + ((rest >> 16) & 1));
        *first = ((upper >> 16) as u16).to_le_bytes();
        *second = ((nearest >> 16) as u16).to_le_bytes();
    }
}
