//! Whether a pack is of a model's weights, by samples: cheap enough for every open. (`lnp verify --model`
//! compares everything.)
//!
//! Tensors are compared and not files: the same weights may come in other shards.

use anyhow::{Context, Result, anyhow, bail};
use lnp_engine::Engine;
use lnp_engine::queue::TimedQueue;
use lnp_format::{Layer, Shape};

use lnp_model::checkpoint::standing_alone;
use lnp_model::{Checkpoint, FfnTensors, ModelConfig};
use lnp_pack::convert::convert;

/// Bundles of each layer that are compared.
const NEURONS_SAMPLED: u32 = 4;
/// Weights of a down column that are compared: what shares a scale in any type. A column of the
/// checkpoint's matrix lies in as many places as it has weights; these rows lie in one.
const DOWN_ROWS: usize = 32;
/// A prime: other neurons and other rows in each layer.
const STEP: usize = 7919;

/// Checks that a pack is of a model's weights: the biases, and of some bundles of every layer, which
/// `engine` reads, every part: gate and up rows whole, of the down column a block.
///
/// # Errors
/// One line that says what differs.
pub fn check_weights<'a, Q: TimedQueue<'a> + Send>(
    engine: &mut Engine<'a, Q>,
    checkpoint: &Checkpoint,
    config: &ModelConfig,
) -> Result<()> {
    config.check_ffn(checkpoint)?;
    let pack = *engine.pack();
    for (number, layer) in (0..).zip(pack.layers()) {
        let tensors = config.ffn_tensors(number as usize);
        check_biases(&layer, checkpoint, &tensors)?;
        let sample = Sample::read(number, pack.shape(), checkpoint, &tensors)?;
        let mut differs = None;
        engine.fetch(number, &sample.neurons, |neuron, bundle| {
            if differs.is_none() {
                differs = sample.difference(neuron, bundle).map(|tensor| (neuron, tensor));
            }
            Ok(())
        })?;
        if let Some((neuron, tensor)) = differs {
            return Err(other(&format!("{tensor}, neuron {neuron}")));
        }
    }
    engine.clear_cache();
    Ok(())
}

fn other(what: &str) -> anyhow::Error {
    anyhow!("{what}: the pack was made from other weights: pack the model again, or name its model")
}

fn check_biases(layer: &Layer<'_>, checkpoint: &Checkpoint, tensors: &FfnTensors) -> Result<()> {
    for (name, values) in [
        (tensors.neuron_bias(), layer.neuron_bias()),
        (tensors.down_bias.as_ref(), layer.output_bias()),
        (tensors.gated_up_bias(), layer.up_bias()),
        (tensors.sub_norm.as_ref(), layer.down_norm().unwrap_or_default().0),
    ] {
        let Some(name) = name else { continue };
        let stored = values.iter().map(|value| value.get().to_bits());
        let found = checkpoint.read_f32(name)?;
        if !stored.eq(found.iter().map(|value| value.to_bits())) {
            return Err(other(name));
        }
    }
    Ok(())
}

/// Pieces of some bundles of a layer, as the checkpoint has them.
struct Sample<'t> {
    /// Ascending.
    neurons: Vec<u32>,
    pieces: Vec<Piece<'t>>,
}

/// A piece of every bundle of the sample.
struct Piece<'t> {
    /// The tensor that it comes from.
    tensor: &'t str,
    /// Where in a bundle it begins, bytes.
    begin: usize,
    /// Its bytes, one entry for each neuron.
    expected: Vec<Vec<u8>>,
}

impl<'t> Sample<'t> {
    fn read(
        layer: u32,
        shape: &Shape,
        checkpoint: &Checkpoint,
        tensors: &'t FfnTensors,
    ) -> Result<Self> {
        let neurons = sampled(layer, shape.neurons);
        let part_bytes = shape.part_bytes() as usize;
        let mut pieces = Vec::new();
        let columns_are_rows = checkpoint.has_columns_as_rows(&tensors.down);
        let whole = tensors.gate.iter().chain([&tensors.up]);
        let whole = whole.chain(Some(&tensors.down).filter(|_| columns_are_rows));
        for (part, tensor) in whole.enumerate() {
            let mut expected = vec![vec![0; part_bytes]; neurons.len()];
            for (neuron, expected) in neurons.iter().zip(&mut expected) {
                let one = *neuron as usize..*neuron as usize + 1;
                let (stored_as, row) = match tensor == &tensors.down {
                    true => checkpoint.read_columns_raw(tensor, one)?,
                    false => checkpoint.read_rows_raw(tensor, one)?,
                };
                convert(stored_as, &row, shape.dtype, expected)?;
            }
            pieces.push(Piece { tensor, begin: part * part_bytes, expected });
        }
        if !columns_are_rows {
            pieces.push(Self::block_of_down(layer, shape, checkpoint, tensors, &neurons)?);
        }
        if pieces.len() != shape.parts as usize {
            bail!("no such part");
        }
        Ok(Self { neurons, pieces })
    }

    /// A block of each down column.
    fn block_of_down(
        layer: u32,
        shape: &Shape,
        checkpoint: &Checkpoint,
        tensors: &'t FfnTensors,
        neurons: &[u32],
    ) -> Result<Piece<'t>> {
        // The hidden size is a multiple of the block.
        let blocks = shape.hidden as usize / DOWN_ROWS;
        let block = layer as usize * STEP % blocks.max(1);
        let block_bytes = shape.dtype.part_bytes(DOWN_ROWS as u32) as usize;
        let before = (shape.parts as usize).saturating_sub(1) * shape.part_bytes() as usize;
        let begin = before + block * block_bytes;
        let rows = block * DOWN_ROWS..(block + 1) * DOWN_ROWS;
        let (stored_as, rows) = checkpoint.read_rows_raw(&tensors.down, rows)?;
        let (stored_as, rows) = standing_alone(stored_as, rows)
            .with_context(|| format!("{}: not a type of weights", tensors.down))?;
        let mut expected = vec![vec![0; block_bytes]; neurons.len()];
        for (neuron, expected) in neurons.iter().zip(&mut expected) {
            let column = column(&rows, shape.neurons as usize, *neuron as usize);
            convert(stored_as, &column, shape.dtype, expected)?;
        }
        Ok(Piece { tensor: &tensors.down, begin, expected })
    }

    /// The first tensor of which a bundle has other weights.
    fn difference(&self, neuron: u32, bundle: &[u8]) -> Option<&'t str> {
        let at = self.neurons.binary_search(&neuron).ok()?;
        let differs = |piece: &&Piece<'_>| {
            let expected = &piece.expected[at];
            bundle.get(piece.begin..piece.begin + expected.len()) != Some(expected)
        };
        self.pieces.iter().find(differs).map(|piece| piece.tensor)
    }
}

/// Some neurons of a layer, ascending: one of each stretch of equal length.
fn sampled(layer: u32, neurons: u32) -> Vec<u32> {
    let count = NEURONS_SAMPLED.min(neurons);
    let stretch = neurons / count.max(1);
    let within = (layer as usize * STEP % stretch.max(1) as usize) as u32;
    (0..count).map(|number| number * stretch + within).collect()
}

/// A column of rows of so many columns; the size of an element follows from the length.
fn column(rows: &[u8], columns: usize, column: usize) -> Vec<u8> {
    let size = rows.len() / (DOWN_ROWS * columns).max(1);
    rows.chunks_exact(size * columns)
        .flat_map(|row| &row[column * size..(column + 1) * size])
        .copied()
        .collect()
}
