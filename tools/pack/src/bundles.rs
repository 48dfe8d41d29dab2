//! Where the bytes of bundles come from: a checkpoint, or a generator of placeholders.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use lnp_format::Dtype;

use super::convert::{convert, decode_stored};
use lnp_model::checkpoint::StoredType;
use lnp_model::{Checkpoint, ModelConfig, Resident};

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

    /// The checksum of a neuron's bundle, where that is known without it: what an earlier start has written is known by it.
    fn checksum(&self, _neuron: u32) -> Option<u32> {
        None
    }

    /// Writes the model's other weights, as many bytes as the recipe says.
    ///
    /// # Errors
    /// They cannot be read or written.
    fn write_resident(&mut self, _out: &mut dyn Write) -> Result<()> {
        Ok(())
    }
}

/// The bundles of a Hugging Face checkpoint; one layer's FFN is in memory at a time.
pub struct CheckpointBundles<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a ModelConfig,
    dtype: Dtype,
    /// Each part of the layer, row-major `[neurons][hidden]`.
    parts: Vec<Matrix>,
    resident: Option<&'a Resident>,
}

/// Weights as they are stored.
struct Matrix {
    /// Of the tensor, for errors.
    name: String,
    dtype: StoredType,
    bytes: Vec<u8>,
}

impl<'a> CheckpointBundles<'a> {
    /// Bundles of `dtype`.
    ///
    /// # Errors
    /// Placeholders, which are not made from weights; weights that are missing or of another shape.
    pub fn new(checkpoint: &'a Checkpoint, config: &'a ModelConfig, dtype: Dtype) -> Result<Self> {
        ensure!(dtype != Dtype::Placeholder, "placeholders are not made from weights");
        config.check_ffn(checkpoint)?;
        Ok(Self { checkpoint, config, dtype, parts: Vec::new(), resident: None })
    }

    /// The same, with the model's other weights.
    #[must_use]
    pub fn with_resident(self, resident: Option<&'a Resident>) -> Self {
        Self { resident, ..self }
    }

    fn read(&self, name: &str) -> Result<Matrix> {
        let (dtype, bytes) = self.checkpoint.read_raw(name)?;
        Ok(Matrix { name: name.to_owned(), dtype, bytes })
    }

    /// A neuron's weights in one part of the bundle, as the checkpoint has them, in f32.
    ///
    /// # Errors
    /// There is no such part or neuron, or the checkpoint's type is no type of weights.
    pub fn weights(&self, part: usize, neuron: u32) -> Result<Vec<f32>> {
        let part = self.parts.get(part).context("no such part")?;
        decode_stored(part.dtype, part.row(neuron, self.config.neurons)?)
    }
}

impl Matrix {
    /// A neuron's weights, as stored.
    fn row(&self, neuron: u32, neurons: usize) -> Result<&[u8]> {
        let row_bytes = self.bytes.len() / neurons;
        let begin = neuron as usize * row_bytes;
        self.bytes.get(begin..begin + row_bytes).context("no such neuron")
    }
}

impl BundleSource for CheckpointBundles<'_> {
    fn load_layer(&mut self, layer: u32) -> Result<()> {
        let tensors = self.config.ffn_tensors(layer as usize);
        self.parts.clear();
        for name in tensors.gate.iter().chain([&tensors.up]) {
            self.parts.push(self.read(name)?);
        }
        let name = tensors.down;
        let (dtype, bytes) = self.checkpoint.read_columns_raw(&name, 0..self.config.neurons)?;
        self.parts.push(Matrix { name, dtype, bytes });
        Ok(())
    }

    fn bundle(&mut self, neuron: u32, out: &mut [u8]) -> Result<()> {
        let part_bytes = self.dtype.part_bytes(self.config.hidden as u32) as usize;
        ensure!(out.len() == part_bytes * self.parts.len(), "a bundle has {} bytes", out.len());
        for (part, out) in self.parts.iter().zip(out.chunks_exact_mut(part_bytes)) {
            let row = part.row(neuron, self.config.neurons)?;
            convert(part.dtype, row, self.dtype, out)
                .with_context(|| format!("{}, neuron {neuron}", part.name))?;
        }
        Ok(())
    }

    fn write_resident(&mut self, out: &mut dyn Write) -> Result<()> {
        self.resident.map_or(Ok(()), |resident| resident.write(self.checkpoint, out))
    }
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
