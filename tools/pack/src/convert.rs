//! Weights from the types of a checkpoint to those of a pack, and back to f32.
//!
//! The blocks of q8_0 and q4_0 are, byte for byte, those of GGUF's reference (`quantize_row_q8_0_ref`
//! and `quantize_row_q4_0_ref` of ggml), so that an error of a pack is that of files people know.

use anyhow::{Context, Result, bail, ensure};
use half::{bf16, f16};
use lnp_format::Dtype;
use lnp_model::checkpoint::{StoredType, to_f32};

/// Weights that share a scale.
const BLOCK: usize = 32;
const Q8_0_BYTES: usize = 2 + BLOCK;
const Q4_0_BYTES: usize = 2 + BLOCK / 2;

/// Weights of one part, from the checkpoint's type to the pack's: as they stand where the types are the same,
/// else rounded to nearest even.
///
/// # Errors
/// A weight that is not finite, or that the pack's type cannot hold; a length that does not fit.
pub fn convert(from: StoredType, row: &[u8], to: Dtype, out: &mut [u8]) -> Result<()> {
    let values = decode_stored(from, row)?;
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        bail!("a weight is {value}: the checkpoint is damaged");
    }
    // Rounding blocks anew would not always give the same blocks.
    if same_type(from, to) && row.len() == out.len() {
        out.copy_from_slice(row);
        return Ok(());
    }
    encode(&values, to, out)
}

/// Whether a checkpoint's type is the pack's, byte for byte.
pub fn same_type(from: StoredType, to: Dtype) -> bool {
    matches!(
        (from, to),
        (StoredType::F32, Dtype::F32)
            | (StoredType::F16, Dtype::F16)
            | (StoredType::Bf16, Dtype::Bf16)
            | (StoredType::Q8_0, Dtype::Q8_0)
            | (StoredType::Q4_0, Dtype::Q4_0)
    )
}

/// A row of a checkpoint's weights, as f32: see [`to_f32`].
///
/// # Errors
/// A type that is no type of weights.
pub fn decode_stored(dtype: StoredType, row: &[u8]) -> Result<Vec<f32>> {
    to_f32(dtype, row)
        .with_context(|| format!("weights of type {dtype}: F64, F32, F16 or BF16 expected"))
}

/// A part of a bundle, as f32: what the bytes mean by the format, exactly for f32, f16 and bf16, and
/// with the one rounding of scale times number for the others.
///
/// # Errors
/// A placeholder, which means nothing.
pub fn decode(dtype: Dtype, part: &[u8]) -> Result<Vec<f32>> {
    Ok(match dtype {
        Dtype::F32 => part.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => part.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::Bf16 => {
            part.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
        }
        Dtype::Q8_0 => part.as_chunks().0.iter().flat_map(decode_q8_0).collect(),
        Dtype::Q4_0 => part.as_chunks().0.iter().flat_map(decode_q4_0).collect(),
        Dtype::Placeholder => bail!("placeholders hold no weights"),
    })
}

/// Finite weights to the bytes of a part.
fn encode(values: &[f32], dtype: Dtype, out: &mut [u8]) -> Result<()> {
    let expected = dtype.part_bytes(values.len() as u32) as usize;
    ensure!(out.len() == expected, "{} weights of {dtype} take {expected} bytes", values.len());
    match dtype {
        Dtype::F32 => {
            for (out, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
                *out = value.to_le_bytes();
            }
        }
        Dtype::F16 => {
            for (out, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
                let rounded = f16::from_f32(*value);
                ensure!(
                    rounded.is_finite(),
                    "weight {value} is beyond f16: use --dtype bf16 or f32"
                );
                *out = rounded.to_le_bytes();
            }
        }
        Dtype::Bf16 => {
            for (out, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
                let rounded = bf16::from_f32(*value);
                ensure!(rounded.is_finite(), "weight {value} is beyond bf16: use --dtype f32");
                *out = rounded.to_le_bytes();
            }
        }
        Dtype::Q8_0 => {
            for (out, block) in out.as_chunks_mut().0.iter_mut().zip(values.as_chunks().0) {
                encode_q8_0(block, out)?;
            }
        }
        Dtype::Q4_0 => {
            for (out, block) in out.as_chunks_mut().0.iter_mut().zip(values.as_chunks().0) {
                encode_q4_0(block, out)?;
            }
        }
        Dtype::Placeholder => bail!("placeholders hold no weights"),
    }
    Ok(())
}

/// The first weight that is farthest from zero.
fn farthest(block: &[f32; BLOCK]) -> f32 {
    block.iter().fold(block[0], |most, value| if value.abs() > most.abs() { *value } else { most })
}

/// The scale in its two bytes, and the factor that brings weights to whole numbers. GGUF takes the
/// factor from the scale before it is rounded to f16.
fn scale_and_factor(scale: f32, farthest: f32, dtype: Dtype) -> Result<([u8; 2], f32)> {
    let rounded = f16::from_f32(scale);
    ensure!(
        rounded.is_finite(),
        "weight {farthest} is too large for {dtype}, whose scales are f16: use --dtype bf16 or f32"
    );
    // A scale so close to zero that its inverse overflows is stored as zero, and GGUF does not say
    // which numbers go with it. Zeros, then.
    let factor = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    Ok((rounded.to_le_bytes(), if factor.is_finite() { factor } else { 0.0 }))
}

/// The weight farthest from zero becomes 127 or -127; ties go away from zero.
fn encode_q8_0(block: &[f32; BLOCK], out: &mut [u8; Q8_0_BYTES]) -> Result<()> {
    let most = farthest(block);
    let (scale, factor) = scale_and_factor(most.abs() / 127.0, most, Dtype::Q8_0)?;
    out[..2].copy_from_slice(&scale);
    for (out, value) in out[2..].iter_mut().zip(block) {
        *out = ((value * factor).round() as i8).cast_unsigned();
    }
    Ok(())
}

/// The weight farthest from zero becomes -8, whatever its sign: the scale takes the sign. One as far
/// on the other side would be 8 and is cut to 7. Rounded by adding a half and cutting off.
fn encode_q4_0(block: &[f32; BLOCK], out: &mut [u8; Q4_0_BYTES]) -> Result<()> {
    let most = farthest(block);
    let (scale, factor) = scale_and_factor(most / -8.0, most, Dtype::Q4_0)?;
    out[..2].copy_from_slice(&scale);
    let nibble = |value: f32| ((value * factor + 8.5) as u8).min(15);
    let (low, high) = block.split_at(BLOCK / 2);
    for (out, (low, high)) in out[2..].iter_mut().zip(low.iter().zip(high)) {
        *out = nibble(*low) | nibble(*high) << 4;
    }
    Ok(())
}

fn decode_q8_0(block: &[u8; Q8_0_BYTES]) -> [f32; BLOCK] {
    let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
    std::array::from_fn(|at| scale * f32::from(block[2 + at].cast_signed()))
}

fn decode_q4_0(block: &[u8; Q4_0_BYTES]) -> [f32; BLOCK] {
    let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
    std::array::from_fn(|at| {
        let pair = block[2 + at % (BLOCK / 2)];
        let number = if at < BLOCK / 2 { pair & 15 } else { pair >> 4 };
        scale * (f32::from(number) - 8.0)
    })
}
