//! `lnp synth --model`.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::{Args, WeightTypeName};
use lnp_common::folders::check_new_folder;
use lnp_common::report::{bytes, print_json, progress, say, shown, thousands};
use lnp_synth::shapes::Shape;
use lnp_synth::{Recipe, WeightType};

pub(super) fn run(args: &Args, shape: &'static Shape, output: &Path) -> Result<()> {
    let mut recipe = Recipe::of(shape);
    recipe.layers = args.layers.map_or(recipe.layers, |layers| layers as usize);
    recipe.active = args.active.unwrap_or(recipe.active);
    recipe.seed = args.seed;
    recipe.weights = match args.dtype {
        WeightTypeName::F16 => WeightType::F16,
        WeightTypeName::Bf16 => WeightType::Bf16,
        WeightTypeName::F32 => WeightType::F32,
    };
    check_new_folder(output, recipe.bytes())?;
    let begin = Instant::now();
    let bar = progress("writing", recipe.bytes());
    recipe.write(output, &|written| bar.inc(written))?;
    bar.finish_and_clear();
    let seconds = begin.elapsed().as_secs_f64();
    let shares: Vec<f64> = (0..recipe.layers).map(|layer| recipe.share_of_layer(layer)).collect();
    if args.json {
        return print_json(&serde_json::json!({
            "model": output, "synthetic": true, "shape": shape.name, "layers": recipe.layers,
            "neurons": shape.neurons, "hidden": shape.hidden, "parameters": recipe.parameters(),
            "bytes": recipe.bytes(), "seed": recipe.seed, "active_share": recipe.active,
            "active_share_by_layer": shares, "seconds": seconds,
        }));
    }
    let last = shares.len() - 1;
    say(&format!(
        "{}: synthetic, the shape of {}, {} parameters, {}, {} of {} layers of {} neurons, drawn for {:.1} % active (layer 0 \
         {:.1} %, layer {last} {:.1} %); {seconds:.1} s, {}/s\n",
        shown(output),
        shape.name,
        thousands(recipe.parameters() as f64),
        bytes(recipe.bytes() as f64),
        recipe.layers,
        shape.layers,
        thousands(shape.neurons as f64),
        100.0 * recipe.active,
        100.0 * shares[0],
        100.0 * shares[last],
        bytes(recipe.bytes() as f64 / seconds),
    ));
    Ok(())
}
