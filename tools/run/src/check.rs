//! Whether a pack belongs to a model.

use anyhow::{Result, anyhow, ensure};
use lnp_engine::Engine;
use lnp_engine::queue::ReadQueue;
use lnp_format::Shape;
use lnp_model::{Checkpoint, ModelConfig};
use lnp_pack::Recipe;
use lnp_pack::convert::convert;

/// Checks that a pack is of a model's shape.
///
/// # Errors
/// One line that says what differs.
pub fn check_shape(shape: &Shape, config: &ModelConfig) -> Result<()> {
    let packed = [shape.layers, shape.neurons, shape.hidden, shape.parts].map(|n| n as usize);
    let model = [config.layers, config.neurons, config.hidden, config.parts()];
    ensure!(
        packed == model,
        "the pack has layers, neurons, hidden, parts {packed:?}, the model {model:?}: they do not \
         belong together"
    );
    Recipe::check_activation(shape, config)
}

/// Checks that a pack is of a model's weights, as far as a glance tells: the lengths of the files
/// that it was made from, the biases, and one up row of each layer, which `engine` reads.
/// (`lnp verify --model` compares everything.)
///
/// # Errors
/// One line that says what differs.
pub fn check_weights<'a, Q: ReadQueue<'a> + Send>(
    engine: &mut Engine<'a, Q>,
    checkpoint: &Checkpoint,
    config: &ModelConfig,
) -> Result<()> {
    let pack = *engine.pack();
    let other = |what: String| {
        anyhow!(
            "{what}: the pack was made from other weights: pack the model again, or name its model"
        )
    };
    for (number, path) in checkpoint.paths().iter().enumerate() {
        let stored = pack.provenance().value(&format!("source.{number}.bytes"));
        let found = std::fs::metadata(path)?.len().to_string();
        if stored.is_some_and(|stored| stored != found) {
            return Err(other(path.display().to_string()));
        }
    }
    let part_bytes = pack.shape().part_bytes() as usize;
    let mut expected = vec![0; part_bytes];
    for (number, layer) in (0..).zip(pack.layers()) {
        let tensors = config.ffn_tensors(number as usize);
        for (name, values) in
            [(&tensors.up_bias, layer.neuron_bias()), (&tensors.down_bias, layer.output_bias())]
        {
            let Some(name) = name else { continue };
            let stored = values.iter().map(|value| value.get().to_bits());
            let found = checkpoint.read_f32(name)?;
            if !stored.eq(found.iter().map(|value| value.to_bits())) {
                return Err(other(name.clone()));
            }
        }
        // A different neuron in each layer.
        let neuron = (number * 7919) % pack.shape().neurons;
        let rows = neuron as usize..neuron as usize + 1;
        let (stored_as, row) = checkpoint.read_rows_raw(&tensors.up, rows)?;
        convert(stored_as, &row, pack.shape().dtype, &mut expected)?;
        let mut equal = false;
        engine.fetch(number, &[neuron], |_, bundle| {
            // the up row is the last part but one
            let begin = bundle.len() - 2 * part_bytes;
            equal = bundle[begin..begin + part_bytes] == expected;
            Ok(())
        })?;
        if !equal {
            return Err(other(format!("layer {number}, neuron {neuron}")));
        }
    }
    engine.clear_cache();
    Ok(())
}
