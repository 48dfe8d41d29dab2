//! Packs of other weights than the model's are refused when they are opened, whatever part differs; the
//! same weights in other files are not.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{demo_model, disk_folder, fails, json, ok};
use lnp_format::Dtype;
use lnp_model::{Checkpoint, ModelConfig};
use lnp_pack::{BundleSource, CheckpointBundles, Recipe, write_pack};
use safetensors::SafeTensors;

/// A model's bundles with one part of each from the neuron's neighbour: as sound as the others, with
/// the provenance of the real ones.
struct Exchanged<'a> {
    bundles: CheckpointBundles<'a>,
    /// Where the part lies.
    part: std::ops::Range<usize>,
    /// Whose bundles are left as they are.
    spared_layers: std::ops::Range<u32>,
    layer: u32,
}

impl BundleSource for Exchanged<'_> {
    fn load_layer(&mut self, layer: u32) -> anyhow::Result<()> {
        self.layer = layer;
        self.bundles.load_layer(layer)
    }

    fn bundle(&mut self, neuron: u32, out: &mut [u8]) -> anyhow::Result<()> {
        self.bundles.bundle(neuron ^ 1, out)?;
        let other = out[self.part.clone()].to_vec();
        self.bundles.bundle(neuron, out)?;
        if !self.spared_layers.contains(&self.layer) {
            out[self.part.clone()].copy_from_slice(&other);
        }
        Ok(())
    }
}

#[test]
fn every_part_of_every_layer_is_looked_at() {
    let folder = disk_folder();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let model = demo_model();
    let text = path("text");
    std::fs::write(&text, "To be, or not to be").unwrap();
    ok(&["trace", "--model", model.to_str().unwrap(), "--text", &text, "-o", &path("trace")]);
    let checkpoint = Checkpoint::open(&model).unwrap();
    let config = ModelConfig::load(&checkpoint).unwrap();
    let (model, pack) = (model.to_str().unwrap(), path("x.lnp"));
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Q8_0, Dtype::Q4_0] {
        let recipe = Recipe::for_checkpoint(&checkpoint, &config, None, dtype).unwrap();
        let part_bytes = recipe.shape.part_bytes() as usize;
        for (part, tensor) in ["fc1", "fc2"].into_iter().enumerate() {
            for layer in [0, 3] {
                let bundles = CheckpointBundles::new(&checkpoint, &config, dtype).unwrap();
                let part = part * part_bytes..(part + 1) * part_bytes;
                let mut bundles = Exchanged { bundles, part, spared_layers: 0..layer, layer: 0 };
                write_pack(Path::new(&pack), &recipe, &mut bundles, &mut |_| ()).unwrap();
                ok(&["verify", &pack]);
                let expected = format!("layers.{layer}.{tensor}.weight, neuron ");
                let told = fails(&["run", &pack, "--model", model, "--prompt", "x", "--buffered"]);
                assert!(told.contains(&expected) && told.contains("other weights"), "{told}");
                let tokens = ["--tokens", &path("trace"), "--buffered"];
                let told = fails(&[&["perplexity", &pack, "--model", model], &tokens[..]].concat());
                assert!(told.contains(&expected) && told.contains("other weights"), "{told}");
                let told = fails(&["verify", &pack, "--model", model]);
                assert!(
                    told.contains(&format!("layer {layer}, slot 0: the weights are not")),
                    "{told}"
                );
            }
        }
    }
}

/// A model folder with the demo's tensors in two files and an index.
fn in_two_shards(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(demo_model().join(name), folder.join(name)).unwrap();
    }
    let bytes = std::fs::read(demo_model().join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut of_file = BTreeMap::new();
    for number in 0..2 {
        let name = format!("model-{}-of-2.safetensors", number + 1);
        let all = tensors.iter().enumerate();
        let part: Vec<_> = all.filter(|(at, _)| at % 2 == number).map(|(_, one)| one).collect();
        of_file.extend(part.iter().map(|(tensor, _)| ((*tensor).to_owned(), name.clone())));
        std::fs::write(folder.join(name), safetensors::serialize(part, None).unwrap()).unwrap();
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": of_file });
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn the_same_weights_in_other_files_are_the_same() {
    let folder = disk_folder();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (whole, shards, pack) = (demo_model(), path("shards"), path("x.lnp"));
    let whole = whole.to_str().unwrap();
    in_two_shards(Path::new(&shards));
    ok(&["pack", "--model", whole, "-o", &pack]);
    let run = |model: &str| {
        let told = ["--prompt", "ROMEO:\n", "-n", "16", "--ignore-eos", "--buffered"];
        json(&[&["run", &pack, "--model", model], &told[..]].concat())["token_ids"].clone()
    };
    assert_eq!(run(&shards), run(whole));
    let told = json(&["verify", &pack, "--model", &shards]);
    assert_eq!(told["bundles_equal_to_model"], 4 * 768);
    assert_eq!(told["same_files_as_packed"], false);
    assert!(ok(&["verify", &pack, "--model", &shards]).contains("whose files are others"));
    assert_eq!(json(&["verify", &pack, "--model", whole])["same_files_as_packed"], true);
    assert!(json(&["verify", &pack])["same_files_as_packed"].is_null());
}
