//! `lnp pack`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use lnp_format::Dtype;
use lnp_format::limits::BUNDLE_STRIDE_MAX;

use super::byte_count::ByteCount;
use super::model::{ModelArgs, parse_dense_type};
use super::thresholds::of_file;
use lnp_common::files::{check_room, check_target};
use lnp_common::report::{bytes, plain, print_json, progress, say, shown};
use lnp_link::Links;
use lnp_model::checkpoint::StoredType;
use lnp_model::{Checkpoint, DenseNumbers, DenseOptions, ModelConfig, Resident};
use lnp_pack::compare::{PartDeviation, rounding};
use lnp_pack::convert::same_type;
use lnp_pack::recipe::{ModelSize, PackLayout, PackedPredictor};
use lnp_pack::{
    BundleSource, CheckpointBundles, PackIndex, PlaceholderBundles, Recipe, go_on_writing, inspect,
    write_pack,
};
use lnp_predict::Predictors;
use lnp_predict::activity::provenance;
use lnp_predict::section::Section;

/// Write a model's FFN weights into a linked neuron pack
///
/// Example: lnp pack --model opt-relu --links links.safetensors --dtype f16 -o opt.lnp
/// Example: lnp pack --model opt-relu --links links.safetensors --predictors opt.predictors -o opt.lnp
/// Example: lnp pack --model opt-relu --predictors opt.predictors --resident q8_0 -o phone.lnp
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Links file that gives the order [default: the model's own order]
    #[arg(long, value_name = "FILE")]
    links: Option<PathBuf>,
    /// Predictors of what is active, of `lnp predict` for this model, to go into the pack
    #[arg(long, value_name = "FILE", conflicts_with = "placeholder_bundle")]
    predictors: Option<PathBuf>,
    /// Thresholds of this model, made by `lnp predict --activity`, to be told in the pack
    #[arg(long, value_name = "FILE", conflicts_with = "placeholder_bundle")]
    activity: Option<PathBuf>,
    /// Type of the weights: f32, f16, bf16, q8_0 or q4_0 (the last two as GGUF has them) [default: f16, or q8_0
    /// where the model's own are quantised]
    #[arg(long, value_name = "TYPE", value_parser = parse_dtype)]
    dtype: Option<Dtype>,
    /// The rest of the model too, in the pack: attention, embeddings, head and norms, as --dense-dtype of `lnp run` says, or as
    /// they are stored. `lnp run` then needs config.json and tokenizer.json, and no other weights
    #[arg(long, value_name = "TYPE", num_args = 0..=1, default_missing_value = "stored",
          value_parser = parse_dense_type, conflicts_with = "placeholder_bundle")]
    resident: Option<DenseNumbers>,
    /// No weights, but bundles of so many pseudo-random bytes (--dtype plays no role then): to load
    /// the device like a large model does; the pack says so inside
    #[arg(long, value_name = "BYTES")]
    placeholder_bundle: Option<ByteCount>,
    /// With --placeholder-bundle: tile the model's layers so many times
    #[arg(long, value_name = "N", default_value_t = 1, requires = "placeholder_bundle")]
    copies: u32,
    /// The pack to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print a description of the pack as JSON
    #[arg(long)]
    json: bool,
}

fn parse_dtype(name: &str) -> Result<Dtype> {
    match Dtype::from_name(name) {
        Some(Dtype::Placeholder) => bail!("use --placeholder-bundle BYTES"),
        Some(dtype) => Ok(dtype),
        None => bail!("must be f32, f16, bf16, q8_0 or q4_0"),
    }
}

pub(super) fn run(args: &Args) -> Result<()> {
    let links = args.links.as_deref().map(Links::read).transpose()?;
    let predictors = args.predictors.as_deref().map(Predictors::read).transpose()?;
    let checkpoint = args.model.open()?;
    let mut config = ModelConfig::load(&checkpoint)?;
    if let Some(path) = &args.activity {
        config.activity = Some(of_file(path, &checkpoint, &config)?);
    }
    let files = checkpoint.inputs();
    let inputs = files.iter().chain(&args.links).chain(&args.predictors).chain(&args.activity);
    let inputs: Vec<&Path> = inputs.map(PathBuf::as_path).collect();
    check_target(&args.output, &inputs)?;
    if let Some(links) = links.as_ref().filter(|links| links.model != checkpoint.name()) {
        say(&format!(
            "lnp: warning: the links are of model {}, the folder is {}: is that the same model?\n",
            plain(&links.model),
            plain(&checkpoint.name())
        ));
    }
    if let Some(bundle_bytes) = args.placeholder_bundle {
        let bundle_bytes = bundle_bytes.saturating_u32();
        write_placeholders(&args.output, links.as_ref(), &config, bundle_bytes, args.copies)?;
    } else {
        // Before all files are hashed: what is missing, and whether there is room.
        config.check_ffn(&checkpoint)?;
        let stored = checkpoint.dtype(&config.ffn_tensors(0).up)?;
        let usual = if stored.is_quantised() { Dtype::Q8_0 } else { Dtype::F16 };
        let dtype = args.dtype.unwrap_or(usual);
        let dense = |numbers| DenseOptions { numbers, ..DenseOptions::default() };
        let resident = args.resident.map(|numbers| Resident::of(&checkpoint, dense(numbers)));
        let resident = resident.transpose()?;
        let bundles = CheckpointBundles::new(&checkpoint, &config, dtype)?;
        let mut bundles = bundles.with_resident(resident.as_ref());
        let shape = Recipe::shape_of(&config, dtype);
        let slots = links.as_ref().map_or(shape.bundles(), Links::slots);
        check_room(&args.output, slots.saturating_mul(shape.bundle_stride.into()))?;
        let mut recipe = Recipe::for_checkpoint(&checkpoint, &config, links.as_ref(), dtype)?;
        recipe.resident_bytes = resident.as_ref().map_or(0, Resident::bytes);
        if let (Some(predictors), Some(path)) = (&predictors, &args.predictors) {
            add_predictors(&mut recipe, predictors, &checkpoint, &config)
                .with_context(|| path.display().to_string())?;
        }
        recipe.provenance.extend(config.activity.iter().flat_map(provenance));
        let rounded = match stored.is_quantised() {
            true => rounded(&checkpoint, &config, dtype)?,
            false => Vec::new(),
        };
        for (part, told) in &rounded {
            recipe.provenance.insert(format!("weights.{part}"), told.clone());
        }
        write_with_progress(&args.output, None, &recipe, &mut bundles)?;
        for (part, told) in &rounded {
            say(&format!("{part}: {told}\n"));
        }
        let has_predictors = checkpoint.powerinfer().is_some_and(|found| !found.ranks.is_empty());
        if has_predictors && args.predictors.is_none() {
            say(
                "the predictors in the model's file are left out: `lnp predict --from` takes them in\n",
            );
        }
    }
    if args.json {
        let index = PackIndex::open(&args.output)?;
        return print_json(&inspect::describe(&index.pack()?));
    }
    Ok(())
}

/// What becomes of the parts of a quantised model, in words: for people, and for the pack's provenance.
fn rounded(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    dtype: Dtype,
) -> Result<Vec<(&'static str, String)>> {
    let bar = progress("measuring what rounding costs", config.layers as u64);
    let error = rounding(checkpoint, config, dtype, &mut |layers| bar.set_position(layers))?;
    bar.finish_and_clear();
    let names = config.ffn_tensors(0);
    let names = names.gate.iter().chain([&names.up, &names.down]);
    let told = |(name, PartDeviation { part, deviation }): (&String, &PartDeviation)| {
        let stored: StoredType = checkpoint.dtype(name)?;
        let apart = *part != "down" || checkpoint.has_columns_as_rows(name);
        let told = if apart && same_type(stored, dtype) {
            format!("{dtype}, as in the model's file")
        } else {
            let percent = 100.0 * deviation.rms_relative;
            format!("{dtype}, rounded from {stored}: off by {percent:.3} % of their RMS")
        };
        Ok((*part, told))
    };
    names.zip(&error.parts).map(told).collect()
}

/// Takes a model's predictors into its pack.
fn add_predictors(
    recipe: &mut Recipe,
    predictors: &Predictors,
    checkpoint: &Checkpoint,
    config: &ModelConfig,
) -> Result<()> {
    predictors.check_model(checkpoint, config)?;
    let packed = predictors.sections()?.into_iter().map(|section| {
        let Section { layer, horizon, bytes } = section;
        PackedPredictor { layer, horizon, bytes }
    });
    recipe.predictors = packed.collect();
    recipe.provenance.extend(predictors.provenance());
    Ok(())
}

/// Writes a pack of placeholders.
pub(super) fn write_placeholders(
    output: &Path,
    links: Option<&Links>,
    config: &ModelConfig,
    bundle_bytes: u32,
    copies: u32,
) -> Result<PackLayout> {
    ensure!(
        (1..=BUNDLE_STRIDE_MAX).contains(&bundle_bytes) && copies > 0,
        "bundles of {bundle_bytes} bytes, {copies} copies: 1 to {BUNDLE_STRIDE_MAX} bytes and at \
         least one copy are possible"
    );
    let model = ModelSize::of_config(config);
    let recipe = Recipe::for_placeholders(links, model, bundle_bytes, copies)?;
    write_with_progress(output, None, &recipe, &mut PlaceholderBundles::default())
}

/// Writes a pack with a progress bar, and says on stderr what it is.
pub(super) fn write_with_progress(
    output: &Path,
    part: Option<&Path>,
    recipe: &Recipe,
    bundles: &mut dyn BundleSource,
) -> Result<PackLayout> {
    let shape = &recipe.shape;
    let placements = u64::from(recipe.placements());
    let all = recipe.bundle_bytes();
    let bar = progress("packing", all + recipe.resident_bytes);
    let mut progress = |written| bar.set_position(written);
    let layout = match part {
        Some(part) => go_on_writing(output, part, recipe, bundles, &mut progress)?,
        None => write_pack(output, recipe, bundles, &mut progress)?,
    };
    bar.finish_and_clear();
    say(&format!(
        "{}: {}, {} layers of {} bundles of {} ({}), {} order\n",
        shown(output),
        bytes(layout.bytes.file_bytes as f64),
        shape.layers,
        shape.neurons,
        bytes(shape.bundle_stride.into()),
        shape.dtype,
        recipe.provenance.get("order").map_or("unknown", String::as_str),
    ));
    if !recipe.predictors.is_empty() {
        let all: usize = recipe.predictors.iter().map(|predictor| predictor.bytes.len()).sum();
        say(&format!("of it {} predictors, {}\n", recipe.predictors.len(), bytes(all as f64)));
    }
    if recipe.resident_bytes > 0 {
        let resident = bytes(recipe.resident_bytes as f64);
        say(&format!("of it the rest of the model, {resident}\n"));
    }
    if placements > 1 {
        say(&format!(
            "{placements} placements of each layer take {} of flash where one takes {}\n",
            bytes(all as f64),
            bytes((all / placements) as f64),
        ));
    }
    Ok(layout)
}
