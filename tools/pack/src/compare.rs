//! Sets a pack against the checkpoint that it was made from: every bundle has to be exactly what the
//! weights convert to, and how far that is from the weights is measured.

use std::io::{Read, Seek, SeekFrom};

use anyhow::{Result, anyhow, ensure};
use lnp_format::{Dtype, Layer, Pack, Shape};
use serde::Serialize;

use super::bundles::{BundleSource, CheckpointBundles};
use super::convert::decode;
use super::open::read_index;
use super::recipe::Recipe;
use lnp_model::{Checkpoint, ModelConfig};

/// How far weights are from the checkpoint's.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize)]
pub struct Deviation {
    /// Root mean square of the differences over that of the checkpoint's weights; 0: all are exact.
    pub rms_relative: f64,
    /// The largest difference of a weight.
    pub max_abs: f64,
}

/// How far one part's weights are from the checkpoint's, over all layers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartDeviation {
    /// `gate`, `up` or `down`.
    pub part: &'static str,
    /// How far.
    #[serde(flatten)]
    pub deviation: Deviation,
}

/// What the pack's type costs: its weights against the checkpoint's, both in f32.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightError {
    /// Over all weights.
    #[serde(flatten)]
    pub overall: Deviation,
    /// Of each part, in the order of a bundle.
    pub parts: Vec<PartDeviation>,
}

/// What came of comparing with a checkpoint all of whose weights the pack has.
pub(super) struct Compared {
    /// Bundles that are what its weights convert to: all.
    pub(super) bundles: u64,
    /// How far they are from it.
    pub(super) error: WeightError,
    /// Whether its files are those that the pack was made from; the same weights may lie in others.
    pub(super) same_files: bool,
}

/// Compares every bundle and the biases with a checkpoint, and the hashes of its files.
pub(super) fn compare_with_model(
    input: &mut (impl Read + Seek),
    file_bytes: u64,
    checkpoint: &Checkpoint,
) -> Result<Compared> {
    input.seek(SeekFrom::Start(0))?;
    let index = read_index(input, file_bytes)?;
    let pack = Pack::parse(&index, file_bytes)?;
    let shape = pack.shape();
    ensure!(
        shape.dtype != Dtype::Placeholder,
        "the pack holds placeholders: there are no weights to compare"
    );
    let config = ModelConfig::load(checkpoint)?;
    Recipe::check_pack(&pack, &config)?;
    let compared = compare_layers(input, &pack, checkpoint, &config);
    let other_file = other_file(&pack, checkpoint)?;
    let same_files = other_file.is_none();
    match (compared, other_file) {
        (Ok(error), _) => Ok(Compared { bundles: shape.bundles(), error, same_files }),
        // Other weights in another file: the file is what is to be looked at.
        (Err(error), Some(other_file)) => Err(error.context(other_file)),
        (Err(error), None) => Err(error),
    }
}

/// Compares the bundles and biases of every layer.
fn compare_layers(
    input: &mut (impl Read + Seek),
    pack: &Pack<'_>,
    checkpoint: &Checkpoint,
    config: &ModelConfig,
) -> Result<WeightError> {
    let shape = pack.shape();
    let mut bundles = CheckpointBundles::new(checkpoint, config, shape.dtype)?;
    let mut sums = vec![Sums::default(); shape.parts as usize];
    for (number, layer) in (0..).zip(pack.layers()) {
        bundles.load_layer(number)?;
        input.seek(SeekFrom::Start(layer.region_offset()))?;
        compare_bundles(input, shape, number, &layer, &mut bundles, &mut sums)?;
        let tensors = config.ffn_tensors(number as usize);
        for (name, values) in [
            (tensors.neuron_bias(), layer.neuron_bias()),
            (tensors.down_bias.as_ref(), layer.output_bias()),
            (tensors.gated_up_bias(), layer.up_bias()),
            (tensors.sub_norm.as_ref(), layer.down_norm().unwrap_or_default().0),
        ] {
            let expected = name.map_or(Ok(Vec::new()), |name| checkpoint.read_f32(name))?;
            let equal = expected.len() == values.len()
                && expected.iter().zip(values).all(|(a, b)| a.to_bits() == b.get().to_bits());
            ensure!(
                equal,
                "layer {number}: its biases, or the weights of a norm, are not those of the model"
            );
        }
    }
    Ok(weight_error(&sums))
}

/// What a type costs the weights of a checkpoint, all of them: `progress` is told the layers that are done.
///
/// # Errors
/// Weights that are missing or of another shape, or that the type cannot hold.
pub fn rounding(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    dtype: Dtype,
    progress: &mut dyn FnMut(u64),
) -> Result<WeightError> {
    let mut bundles = CheckpointBundles::new(checkpoint, config, dtype)?;
    let part_bytes = dtype.part_bytes(config.hidden as u32) as usize;
    let mut bundle = vec![0; part_bytes * config.parts()];
    let mut sums = vec![Sums::default(); config.parts()];
    for layer in 0..config.layers as u32 {
        bundles.load_layer(layer)?;
        for neuron in 0..config.neurons as u32 {
            bundles.bundle(neuron, &mut bundle)?;
            let parts = bundle.chunks_exact(part_bytes);
            for ((part, bytes), sums) in parts.enumerate().zip(&mut sums) {
                sums.add(&bundles.weights(part, neuron)?, &decode(dtype, bytes)?);
            }
        }
        progress(u64::from(layer) + 1);
    }
    Ok(weight_error(&sums))
}

/// The first file of a checkpoint that is none of those that a pack was made from, in words.
fn other_file(pack: &Pack<'_>, checkpoint: &Checkpoint) -> Result<Option<anyhow::Error>> {
    for (number, source) in checkpoint.sources()?.into_iter().enumerate() {
        let stored = pack.provenance().value(&format!("source.{number}.sha256"));
        if stored != Some(&source.sha256_hex) {
            return Ok(Some(anyhow!(
                "{}: SHA-256 is {}, the pack was made from {}",
                source.file_name,
                source.sha256_hex,
                stored.unwrap_or("no such file")
            )));
        }
    }
    Ok(None)
}

/// Compares the bundles of a layer, read from where its region begins.
fn compare_bundles(
    input: &mut impl Read,
    shape: &Shape,
    number: u32,
    layer: &Layer<'_>,
    bundles: &mut CheckpointBundles<'_>,
    sums: &mut [Sums],
) -> Result<()> {
    let stride = shape.bundle_stride as usize;
    let (mut expected, mut found) = (vec![0; stride], vec![0; stride]);
    for (slot, neuron) in layer.neuron_of_slot().iter().enumerate() {
        input.read_exact(&mut found)?;
        bundles.bundle(neuron.get(), &mut expected)?;
        ensure!(
            found == expected,
            "layer {number}, slot {slot}: the weights are not those of the model's neuron {neuron}"
        );
        let parts = found.chunks_exact(shape.part_bytes() as usize);
        for ((part, bytes), sums) in parts.enumerate().zip(sums.iter_mut()) {
            let weights = bundles.weights(part, neuron.get())?;
            sums.add(&weights, &decode(shape.dtype, bytes)?);
        }
    }
    Ok(())
}

/// What a [`Deviation`] is made from.
#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    squares: f64,
    difference_squares: f64,
    max_abs: f64,
}

impl Sums {
    fn add(&mut self, weights: &[f32], packed: &[f32]) {
        for (weight, packed) in weights.iter().zip(packed) {
            let (weight, packed) = (f64::from(*weight), f64::from(*packed));
            let difference = (weight - packed).abs();
            self.squares += weight * weight;
            self.difference_squares += difference * difference;
            self.max_abs = self.max_abs.max(difference);
        }
    }

    fn join(self, other: &Self) -> Self {
        Self {
            squares: self.squares + other.squares,
            difference_squares: self.difference_squares + other.difference_squares,
            max_abs: self.max_abs.max(other.max_abs),
        }
    }

    fn deviation(&self) -> Deviation {
        // weights that are all zero are exact in every type
        let ratio = if self.squares == 0.0 { 0.0 } else { self.difference_squares / self.squares };
        Deviation { rms_relative: ratio.sqrt(), max_abs: self.max_abs }
    }
}

/// The deviations of all parts, and of everything.
fn weight_error(sums: &[Sums]) -> WeightError {
    // up and down are there always, a gate goes before them
    const PARTS: [&str; 3] = ["gate", "up", "down"];
    let names = &PARTS[PARTS.len() - sums.len()..];
    let parts = names.iter().zip(sums);
    WeightError {
        overall: sums.iter().fold(Sums::default(), Sums::join).deviation(),
        parts: parts
            .map(|(part, sums)| PartDeviation { part, deviation: sums.deviation() })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_by_hand() {
        let mut sums = [Sums::default(); 3];
        sums[0].add(&[3.0, -4.0], &[3.0, -4.0]);
        sums[1].add(&[0.0, 0.0], &[0.0, 0.0]);
        // differences 0.5 and 1 where the weights are 3 and 4
        sums[2].add(&[3.0], &[2.5]);
        sums[2].add(&[-4.0], &[-3.0]);
        let error = weight_error(&sums);
        let told: Vec<_> = error.parts.iter().map(|part| (part.part, part.deviation)).collect();
        let down = Deviation { rms_relative: (1.25_f64 / 25.0).sqrt(), max_abs: 1.0 };
        let exact = Deviation::default();
        assert_eq!(told, [("gate", exact), ("up", exact), ("down", down)]);
        assert_eq!(error.overall.rms_relative, (1.25_f64 / 50.0).sqrt());
        assert_eq!(error.overall.max_abs, 1.0);
        assert_eq!(weight_error(&sums[..2]).parts[0].part, "up");
    }
}
