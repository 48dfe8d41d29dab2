//! The golden packs of `spec/golden/`: small packs, valid and not, that any reader can be tested
//! with. This test makes them anew and compares; `LNP_BLESS=1` writes them instead.

mod common;
#[path = "golden/invalid.rs"]
mod invalid;
#[path = "../../format/tests/common/mod.rs"]
mod recipe;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use common::{readers_agree, second_reader};
use invalid::invalid;
use lnp_format::checksum::crc32;
use lnp_format::codes::WHOLE_PACK;
use lnp_format::layout::{SectionEntry, Superblock};
use lnp_format::{Activation, Dtype, Pack, SectionKind, Shape, write};
use lnp_pack::inspect::describe;
use lnp_pack::verify::verify;
use recipe::{Recipe, assemble, with_last, with_superblock};
use serde_json::json;
use zerocopy::byteorder::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/golden")
}

/// A valid pack: its file name, what it is there for, its bytes.
type Golden = (&'static str, &'static str, Vec<u8>);

fn plain() -> Vec<u8> {
    Recipe::small(2, 8).build()
}

fn valid() -> Vec<Golden> {
    let gated = Shape {
        layers: 1,
        neurons: 12,
        hidden: 64,
        parts: 3,
        activation: Activation::Fatrelu,
        activation_threshold: 0.25,
        dtype: Dtype::F16,
        bundle_stride: 384,
        slots: 12,
    };
    let orders = vec![(0..12).map(|slot| slot * 5 % 12).collect()];
    let gated = Recipe {
        shape: gated,
        block_bytes: 1024,
        orders,
        replicas: Vec::new(),
        biases: false,
        up_bias_and_norm: false,
        activations: Vec::new(),
        predictors: Vec::new(),
        provenance: "model=gated\nmodel.family=llama\norder=test\ntool=golden\n",
    };
    let mut placeholder = Recipe::small(4, 6);
    placeholder.shape.dtype = Dtype::Placeholder;
    placeholder.shape.bundle_stride = 100;
    placeholder.biases = false;
    placeholder.provenance = "order=test\nplaceholder.copies=2\ntool=golden\n";
    let three = Recipe::small(2, 8).with_replicas(2).build();
    let mut side_data = Recipe::small(2, 6);
    (side_data.shape.parts, side_data.shape.bundle_stride) = (3, 384);
    side_data.up_bias_and_norm = true;
    let mut mixed = Recipe::small(3, 6);
    (mixed.shape.parts, mixed.shape.bundle_stride, mixed.biases) = (3, 384, false);
    mixed.shape.activation = Activation::GeluTanh;
    mixed.activations =
        vec![Some((Activation::GaussianTopk, 1.5)), Some((Activation::Fatrelu, 0.25))];
    vec![
        ("f32-biases.lnp", "two layers of f32, two parts, both biases, blocks of 512", plain()),
        (
            "f16-gated.lnp",
            "one layer of f16, three parts, fatrelu, no side data, blocks of 1,024",
            gated.build(),
        ),
        (
            "side-data.lnp",
            "biases of gate, up and output, and a norm before the down columns",
            side_data.build(),
        ),
        (
            "layer-activations.lnp",
            "three layers of gaussian_topk, fatrelu and, as the model shape says, gelu_tanh",
            mixed.build(),
        ),
        (
            "placeholder.lnp",
            "placeholders of 100 bytes, a model of two layers tiled twice; nothing to compute from",
            placeholder.build(),
        ),
        (
            "optional.lnp",
            "what a reader skips: unknown sections, a second placement, a compatible feature, a \
             later minor version",
            optional(),
        ),
        (
            "placements.lnp",
            "three placements; the last of layer 1 names other bundles, so two can be read from",
            with_last(&three, SectionKind::BundleChecksums, |body| body[3] ^= 0x80),
        ),
        (
            "copies.lnp",
            "two placements in which every third neuron has a second slot and some a third",
            Recipe::small(2, 9).with_replicas(1).with_copies().build(),
        ),
        (
            "resident.lnp",
            "the model's other weights, a safetensors file of two tensors, one of them in blocks",
            with_resident(WHOLE_PACK, 0),
        ),
        (
            "predictors.lnp",
            "predictors of four layers: low rank and rows, of four number types, some a layer ahead",
            Recipe::small(4, 8).with_predictors().build(),
        ),
        (
            "predictors-later.lnp",
            "a predictor of a kind to come, which is skipped whatever it holds",
            with_last(
                &Recipe::small(2, 4).with_predictors().build(),
                SectionKind::Predictor,
                |body| {
                    (body[0], body[8]) = (3, 77);
                },
            ),
        ),
    ]
}

/// The plain pack with resident weights that belong to such a layer and placement.
pub(crate) fn with_resident(layer: u32, placement: u32) -> Vec<u8> {
    let file = plain();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let body = |e: &SectionEntry| {
        file[e.offset.get() as usize..(e.offset.get() + e.bytes.get()) as usize].to_vec()
    };
    let mut sections: Vec<_> = pack.sections().iter().map(|e| (*e, body(e))).collect();
    let header = r#"{"__metadata__":{"stored.head":"Q8_0"},"head":{"dtype":"U8","shape":[2,34],"data_offsets":[8,76]},"norm":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let padded = header.len().next_multiple_of(8);
    let mut resident = (padded as u64).to_le_bytes().to_vec();
    resident.extend(format!("{header:padded$}").bytes());
    resident.extend((0..76).map(|at| 3 * at as u8));
    let entry = write::entry(SectionKind::Resident, layer, placement, resident.len() as u64);
    sections.push((entry, resident));
    assemble(sections, 512, 0)
}

/// The plain pack with everything in it that a reader of version 1.0 does not know.
fn optional() -> Vec<u8> {
    let file = plain();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let body = |e: &SectionEntry| {
        file[e.offset.get() as usize..(e.offset.get() + e.bytes.get()) as usize].to_vec()
    };
    let mut sections: Vec<_> = pack.sections().iter().map(|e| (*e, body(e))).collect();
    let unknown = |kind: u32, bytes: usize| {
        let mut entry = write::entry(SectionKind::Provenance, 9, 7, bytes as u64);
        entry.kind = U32::new(kind);
        (entry, (0..bytes).map(|at| at as u8).collect::<Vec<u8>>())
    };
    for kind in [SectionKind::LinkIndex, SectionKind::BundleChecksums, SectionKind::BundleRegion] {
        let at = sections.iter().position(|(e, _)| e.kind.get() == kind.code()).unwrap();
        let mut second = sections[at].clone();
        second.0.placement = U32::new(1);
        sections.insert(at + 1, second);
    }
    sections.push(unknown(300, 700));
    let bulk = sections.iter().position(|(e, _)| e.kind.get() >= 256).unwrap();
    sections.insert(bulk, unknown(77, 600));
    with_superblock(&assemble(sections, 512, 0), |superblock| {
        superblock.feature_compat = U64::new(1 << 63);
        superblock.version_minor = U16::new(3);
    })
}

fn check(bytes: &[u8]) -> Result<(), String> {
    verify(&mut Cursor::new(bytes), bytes.len() as u64, &mut |_| ())
        .map(|_| ())
        .map_err(|error| format!("{error:#}"))
}

#[test]
fn golden_packs_are_what_the_writer_writes() {
    let bless = std::env::var_os("LNP_BLESS").is_some();
    let folder = folder();
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut told = json!({ "valid": {}, "invalid": {} });
    for (name, what, bytes) in valid() {
        check(&bytes).unwrap();
        let pack = Pack::parse(&bytes, bytes.len() as u64).unwrap();
        told["valid"][name] = json!({ "what": what, "inspect": describe(&pack) });
        files.insert(name.into(), bytes);
    }
    for (name, rule, what, bytes) in invalid() {
        let error = check(&bytes).expect_err(name);
        told["invalid"][name] = json!({ "what": what, "rule": rule, "error": error });
        files.insert(format!("invalid/{name}"), bytes);
    }
    let json = serde_json::to_string_pretty(&told).unwrap() + "\n";
    files.insert("golden.json".into(), json.into_bytes());
    if bless {
        std::fs::create_dir_all(folder.join("invalid")).unwrap();
        for (name, bytes) in &files {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
    for (name, bytes) in &files {
        let stored = std::fs::read(folder.join(name)).unwrap_or_default();
        assert!(
            stored == *bytes,
            "{name} is not what the writer writes now; LNP_BLESS=1 rewrites it"
        );
    }
}

#[test]
fn every_rule_has_a_pack_that_breaks_it() {
    let broken: Vec<_> = invalid().into_iter().map(|(_, rule, ..)| rule).collect();
    let rules =
        (1..=53).map(|rule| format!("R{rule}")).chain((1..=3).map(|rule| format!("V{rule}")));
    for rule in rules {
        assert!(broken.contains(&&*rule), "{rule}");
    }
}

#[test]
fn every_single_flipped_bit_is_found() {
    let mut file = plain();
    check(&file).unwrap();
    for bit in 0..file.len() * 8 {
        file[bit / 8] ^= 1 << (bit % 8);
        assert!(check(&file).is_err(), "bit {bit} flipped, nobody noticed");
        file[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn cut_at_every_byte_and_spliced_packs_are_refused() {
    let file = plain();
    for length in 0..file.len() {
        assert!(check(&file[..length]).is_err(), "cut to {length} bytes");
    }
    // same layout, other weights: the first half of one, the second half of the other
    let other = {
        let mut recipe = Recipe::small(2, 8);
        recipe.orders.swap(0, 1);
        recipe.build()
    };
    assert_eq!(other.len(), file.len());
    for cut in (1..file.len()).filter(|cut| file[*cut..] != other[*cut..]) {
        let spliced = [&file[..cut], &other[cut..]].concat();
        if spliced != file && spliced != other {
            assert!(check(&spliced).is_err(), "spliced at {cut}");
        }
    }
}

#[test]
fn the_second_reader_agrees_on_golden_packs() {
    for (name, _, _) in valid() {
        if !readers_agree(&folder().join(name)) {
            return;
        }
    }
    for (name, rule, _, _) in invalid() {
        let output = second_reader(&folder().join("invalid").join(name)).unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{name}: {told}");
        let rule_told = told.split(": ").find(|word| {
            word.starts_with(['R', 'V']) && word[1..].bytes().all(|byte| byte.is_ascii_digit())
        });
        let rule_told = rule_told.unwrap_or_else(|| panic!("{name}: no rule in {told}"));
        assert_eq!(rule_told, rule, "{name}: {told}");
    }
}

#[test]
fn the_second_reader_agrees_on_packs_of_real_models() {
    use lnp_link::{LayerActivity, Links, Order, TraceSource, link_layers};
    use lnp_model::Model;
    use lnp_pack::{CheckpointBundles, write_pack};
    let Some(models) = common::models() else { return };
    let disk = common::disk_folder();
    for name in common::MODELS {
        let dir = models.join(name);
        let model = Model::load(&dir).unwrap();
        let trace_path = dir.join("traces/alpaca.profile.safetensors");
        let trace = lnp_link::trace::TraceReader::open(&trace_path).unwrap();
        let activity = |layer| {
            LayerActivity::from_bits(
                trace.neurons(),
                &[(&trace.layer_bits(layer)?, trace.tokens())],
            )
        };
        let links = Links {
            order: Order::Greedy,
            neurons: trace.neurons(),
            profile_tokens: trace.tokens() as u64,
            corpora: vec!["alpaca".into()],
            model: name.into(),
            traces: vec![TraceSource::of_file(&trace_path).unwrap()],
            tool: Links::this_tool(),
            notes: Default::default(),
            layers: link_layers(Order::Greedy, trace.layers(), activity, |_| ()).unwrap(),
        };
        for dtype in [Dtype::F32, Dtype::F16] {
            let (checkpoint, config) = (model.checkpoint(), model.config());
            let recipe =
                lnp_pack::Recipe::for_checkpoint(checkpoint, config, Some(&links), dtype).unwrap();
            let mut bundles = CheckpointBundles::new(checkpoint, config, dtype).unwrap();
            let path = disk.path().join(format!("{name}-{dtype}.lnp"));
            write_pack(&path, &recipe, &mut bundles, &mut |_| ()).unwrap();
            if !readers_agree(&path) {
                return;
            }
        }
    }
}

/// What the goldens are made with is used as the writers of packs do.
#[test]
fn golden_superblocks_are_sealed() {
    for (name, _, bytes) in valid() {
        let (superblock, _) = Superblock::ref_from_prefix(&bytes).unwrap();
        let sealed = crc32(&superblock.as_bytes()[..4092]);
        assert_eq!(superblock.superblock_crc.get(), sealed, "{name}");
    }
}
