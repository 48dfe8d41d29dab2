//! Packs of every type of weights, of the demo model: what a bundle's bytes mean, read as the
//! specification says and not by the code that wrote them, is near the checkpoint's weights.

mod common;

use std::path::{Path, PathBuf};

use common::{demo_model, disk_folder, readers_agree};
use half::{bf16, f16};
use lnp_device::open_direct;
use lnp_engine::sys::BackEndChoice;
use lnp_engine::{Config, open_engine, required_bytes};
use lnp_format::Dtype;
use lnp_model::Model;
use lnp_pack::{CheckpointBundles, PackIndex, Recipe, write_pack};
use lnp_run::check::check_weights;

const TYPES: [Dtype; 5] = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Q8_0, Dtype::Q4_0];

fn pack(folder: &Path, model: &Model, dtype: Dtype) -> PathBuf {
    let path = folder.join(format!("{dtype}.lnp"));
    let recipe = Recipe::for_checkpoint(model.checkpoint(), model.config(), None, dtype).unwrap();
    let mut bundles = CheckpointBundles::new(model.checkpoint(), model.config(), dtype).unwrap();
    write_pack(&path, &recipe, &mut bundles, &mut |_| ()).unwrap();
    path
}

/// Weight `i` of a part, by section 10.1 of the specification.
fn weight(dtype: Dtype, part: &[u8], i: usize) -> f32 {
    let pair = |at: usize| [part[at], part[at + 1]];
    let j = i % 32;
    match dtype {
        Dtype::F32 => f32::from_le_bytes(part[4 * i..4 * i + 4].try_into().unwrap()),
        Dtype::F16 => f16::from_le_bytes(pair(2 * i)).to_f32(),
        Dtype::Bf16 => bf16::from_le_bytes(pair(2 * i)).to_f32(),
        Dtype::Q8_0 => {
            let block = i / 32 * 34;
            let d = f16::from_le_bytes(pair(block)).to_f32();
            d * f32::from(part[block + 2 + j] as i8)
        }
        Dtype::Q4_0 => {
            let block = i / 32 * 18;
            let d = f16::from_le_bytes(pair(block)).to_f32();
            let q = if j < 16 { part[block + 2 + j] & 15 } else { part[block + 2 + j - 16] >> 4 };
            d * (f32::from(q) - 8.0)
        }
        Dtype::Placeholder => unreachable!(),
    }
}

/// How far a weight may be off, by the largest of its block.
fn allowed(dtype: Dtype, weight: f32, largest: f32) -> f32 {
    match dtype {
        Dtype::Bf16 => weight.abs() / 256.0,
        // half a step, and the rounding of the scale to f16
        Dtype::Q8_0 => largest * (0.5 / 127.0 + 1.0 / 2048.0),
        // a whole step where the other end is cut
        Dtype::Q4_0 => largest * (1.0 / 8.0 + 1.0 / 2048.0),
        _ => 0.0,
    }
}

#[test]
fn bundles_hold_the_rows_and_columns_of_the_checkpoint() {
    let model = Model::load(&demo_model()).unwrap();
    let (config, folder) = (model.config(), disk_folder());
    let (neurons, hidden) = (config.neurons, config.hidden);
    for dtype in TYPES {
        let path = pack(folder.path(), &model, dtype);
        let file = std::fs::read(&path).unwrap();
        let index = PackIndex::open(&path).unwrap();
        let pack = index.pack().unwrap();
        let part_bytes = pack.shape().part_bytes() as usize;
        for (number, layer) in pack.layers().enumerate() {
            let tensors = config.ffn_tensors(number);
            let up = model.checkpoint().read_f32(&tensors.up).unwrap();
            let down = model.checkpoint().read_f32(&tensors.down).unwrap();
            let region = &file[layer.region_offset() as usize..];
            for neuron in 0..neurons {
                // without links, slots are in the model's order
                let bundle = &region[2 * part_bytes * neuron..][..2 * part_bytes];
                let row = up[neuron * hidden..][..hidden].to_vec();
                let column = (0..hidden).map(|i| down[i * neurons + neuron]).collect();
                for (part, expected) in bundle.chunks(part_bytes).zip([row, column]) {
                    for (i, x) in expected.iter().enumerate() {
                        let block = &expected[i / 32 * 32..][..32];
                        let largest = block.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
                        let found = weight(dtype, part, i);
                        assert!(
                            (found - x).abs() <= allowed(dtype, *x, largest),
                            "{dtype}, layer {number}, neuron {neuron}, {i}: {x} became {found}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_second_reader_agrees_on_every_type() {
    let model = Model::load(&demo_model()).unwrap();
    let folder = disk_folder();
    for dtype in TYPES {
        if !readers_agree(&pack(folder.path(), &model, dtype)) {
            return;
        }
    }
}

/// The glance of `lnp run` at the weights works for every type, and sees another bundle.
#[test]
fn a_run_knows_the_weights_of_every_type() {
    let model = Model::load(&demo_model()).unwrap();
    let folder = disk_folder();
    for dtype in TYPES {
        let path = pack(folder.path(), &model, dtype);
        let check = || {
            let index = PackIndex::open(&path).unwrap();
            let pack = index.pack().unwrap();
            let config = Config::new(&pack);
            let file = open_direct(&path, true).unwrap();
            let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
            let mut engine =
                open_engine(&file, pack, &config, &mut memory, BackEndChoice::Auto).unwrap();
            check_weights(&mut engine, model.checkpoint(), model.config())
        };
        check().unwrap();
        // the last byte of the up row of layer 0's neuron 0, which is looked at, and the first of its
        // down column
        let sound = std::fs::read(&path).unwrap();
        let index = PackIndex::open(&path).unwrap();
        let pack = index.pack().unwrap();
        let region = pack.layer(0).unwrap().region_offset() as usize;
        let part_end = region + pack.shape().part_bytes() as usize;
        for (at, tensor) in [(part_end - 1, "fc1"), (part_end, "fc2")] {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let told = check().unwrap_err().to_string();
            assert!(
                told.contains(&format!("layers.0.{tensor}.weight, neuron 0")),
                "{dtype}: {told}"
            );
        }
    }
}
