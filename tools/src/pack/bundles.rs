//! Where the bytes of bundles come from: a checkpoint, or a generator of placeholders.

use anyhow::{Context, Result, bail, ensure};
use half::{bf16, f16};
use lnp_format::Dtype;
use safetensors::Dtype as StoredDtype;

use crate::model::{Checkpoint, ModelConfig};

/// Delivers the bundles of a layer, one neuron at a time.
pub trait BundleSource {
    /// Makes a layer ready; [`BundleSource::bundle`] is about it from now on.
    ///
    /// # Errors
    /// The layer's weights cannot be read.
    fn load_layer(&mut self, layer: u32) -> Result<()>;

    /// Writes a neuron's bundle, exactly `bundle_stride` bytes.
    ///
    /// # Errors
    /// There is no such neuron, or its weights do not fit the type.
    fn bundle(&mut self, neuron: u32, out: &mut [u8]) -> Result<()>;
}

/// The bundles of a Hugging Face checkpoint; one layer's FFN is in memory at a time.
pub struct CheckpointBundles<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a ModelConfig,
    dtype: Dtype,
    /// Each part of the layer, row-major `[neurons][hidden]`.
    parts: Vec<Matrix>,
}

/// Weights as they are stored.
struct Matrix {
    dtype: StoredDtype,
    bytes: Vec<u8>,
}

impl<'a> CheckpointBundles<'a> {
    /// Bundles of `dtype` (f32 or f16).
    ///
    /// # Errors
    /// A type that cannot be written yet.
    pub fn new(checkpoint: &'a Checkpoint, config: &'a ModelConfig, dtype: Dtype) -> Result<Self> {
        ensure!(
            matches!(dtype, Dtype::F32 | Dtype::F16),
            "bundles of type {dtype} cannot be written yet: use f32 or f16"
        );
        Ok(Self { checkpoint, config, dtype, parts: Vec::new() })
    }

    fn read(&self, name: &str, rows: usize, columns: usize) -> Result<Matrix> {
        let found = self.checkpoint.shape(name)?;
        ensure!(
            found == [rows, columns],
            "{name} has shape {found:?}, [{rows}, {columns}] expected"
        );
        let (dtype, bytes) = self.checkpoint.read_raw(name)?;
        Ok(Matrix { dtype, bytes })
    }
}

impl BundleSource for CheckpointBundles<'_> {
    fn load_layer(&mut self, layer: u32) -> Result<()> {
        let (neurons, hidden) = (self.config.neurons, self.config.hidden);
        let tensors = self.config.ffn_tensors(layer as usize);
        self.parts.clear();
        for name in tensors.gate.iter().chain([&tensors.up]) {
            self.parts.push(self.read(name, neurons, hidden)?);
        }
        let down = self.read(&tensors.down, hidden, neurons)?;
        self.parts
            .push(Matrix { bytes: transpose(&down.bytes, hidden, neurons), dtype: down.dtype });
        Ok(())
    }

    fn bundle(&mut self, neuron: u32, out: &mut [u8]) -> Result<()> {
        let part_bytes = self.dtype.part_bytes(self.config.hidden as u32) as usize;
        ensure!(out.len() == part_bytes * self.parts.len(), "a bundle has {} bytes", out.len());
        for (part, out) in self.parts.iter().zip(out.chunks_exact_mut(part_bytes)) {
            let row_bytes = part.bytes.len() / self.config.neurons;
            let begin = neuron as usize * row_bytes;
            let row = part.bytes.get(begin..begin + row_bytes).context("no such neuron")?;
            convert(part.dtype, row, self.dtype, out)
                .with_context(|| format!("neuron {neuron}"))?;
        }
        Ok(())
    }
}

/// Row-major `[rows][columns]` to `[columns][rows]`, in tiles so that both sides stay in the cache.
/// The size of an element follows from the length.
fn transpose(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    const TILE: usize = 32;
    let size = bytes.len() / (rows * columns).max(1);
    let mut out = vec![0; bytes.len()];
    for row_tile in (0..rows).step_by(TILE) {
        for column_tile in (0..columns).step_by(TILE) {
            for row in row_tile..(row_tile + TILE).min(rows) {
                for column in column_tile..(column_tile + TILE).min(columns) {
                    let from = (row * columns + column) * size;
                    let to = (column * rows + row) * size;
                    out[to..to + size].copy_from_slice(&bytes[from..from + size]);
                }
            }
        }
    }
    out
}

/// A row of weights, as f32.
fn decode(dtype: StoredDtype, row: &[u8]) -> Result<Vec<f32>> {
    Ok(match dtype {
        StoredDtype::F32 => row.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        StoredDtype::F16 => {
            row.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()
        }
        StoredDtype::BF16 => {
            row.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
        }
        other => bail!("weights of type {other:?}: F32, F16 or BF16 expected"),
    })
}

/// Weights from one type to another; f16 rounds to nearest even and refuses what becomes infinite.
pub(crate) fn convert(from: StoredDtype, row: &[u8], to: Dtype, out: &mut [u8]) -> Result<()> {
    let values = decode(from, row)?;
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        bail!("a weight is {value}: the checkpoint is damaged");
    }
    match to {
        Dtype::F32 => {
            for (out, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                *out = value.to_le_bytes();
            }
        }
        _ => {
            for (out, value) in out.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                let rounded = f16::from_f32(value);
                ensure!(rounded.is_finite(), "weight {value} is beyond f16: use --dtype f32");
                *out = rounded.to_le_bytes();
            }
        }
    }
    Ok(())
}

/// Bytes that only load the device: pseudo-random (so that no device can compress them), and
/// different for each bundle.
#[derive(Default)]
pub struct PlaceholderBundles {
    layer: u32,
}

impl BundleSource for PlaceholderBundles {
    fn load_layer(&mut self, layer: u32) -> Result<()> {
        self.layer = layer;
        Ok(())
    }

    fn bundle(&mut self, neuron: u32, out: &mut [u8]) -> Result<()> {
        // A Weyl sequence through one round of mixing: plain, quick, and nothing repeats.
        let mut state = u64::from(self.layer) << 32 | u64::from(neuron);
        state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6c6e_7020_7631_2e30;
        for chunk in out.chunks_mut(8) {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
            let bytes = (mixed ^ (mixed >> 32)).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposes() {
        let (rows, columns) = (37, 70);
        let bytes: Vec<u8> = (0..rows * columns).flat_map(|at| (at as u16).to_le_bytes()).collect();
        let out = transpose(&bytes, rows, columns);
        for row in 0..rows {
            for column in 0..columns {
                let at = 2 * (column * rows + row);
                let value = u16::from_le_bytes([out[at], out[at + 1]]);
                assert_eq!(value as usize, row * columns + column);
            }
        }
    }

    #[test]
    fn converts_and_refuses_overflow() {
        let row: Vec<u8> = [1.0f32, -0.5, 65504.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut out = [0; 6];
        convert(StoredDtype::F32, &row, Dtype::F16, &mut out).unwrap();
        assert_eq!(decode(StoredDtype::F16, &out).unwrap(), [1.0, -0.5, 65504.0]);
        let big = 70000.0f32.to_le_bytes();
        let error = convert(StoredDtype::F32, &big, Dtype::F16, &mut out[..2]).unwrap_err();
        assert!(error.to_string().contains("70000"));
    }

    #[test]
    fn placeholders_differ_and_repeat() {
        let mut source = PlaceholderBundles::default();
        let mut bundle = |layer, neuron| {
            source.load_layer(layer).unwrap();
            let mut out = vec![0; 100];
            source.bundle(neuron, &mut out).unwrap();
            out
        };
        assert_eq!(bundle(1, 2), bundle(1, 2));
        assert_ne!(bundle(1, 2), bundle(1, 3));
        assert_ne!(bundle(1, 2), bundle(2, 1));
    }
}
