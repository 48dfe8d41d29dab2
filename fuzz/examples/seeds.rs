//! Writes the seeds of `pack_bytes`: small packs, one for each thing that packs may differ in.
//!
//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds` writes the same bytes each time.

use std::path::Path;

use lnp_format::layout::{LinkIndexHeader, SIDE_OUTPUT_BIAS, SectionEntry};
use lnp_format::{Activation, Dtype, Pack, SectionKind, Shape, write};
use lnp_fuzz::packs::{Recipe, assemble};
use zerocopy::{FromBytes, IntoBytes};

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/pack_bytes");
    for (name, bytes) in seeds() {
        std::fs::write(folder.join(name), bytes).expect("the seeds' folder can be written");
    }
}

/// A recipe whose bundles have their exact size.
fn recipe(layers: u32, neurons: u32, change: impl FnOnce(&mut Shape)) -> Recipe {
    let mut recipe = Recipe::small(layers, neurons);
    change(&mut recipe.shape);
    if recipe.shape.dtype != Dtype::Placeholder {
        recipe.shape.bundle_stride = recipe.shape.parts * recipe.shape.part_bytes();
    }
    recipe
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let one = Recipe::small(1, 1).build();
    let two = Recipe::small(2, 5).build();
    let gated = recipe(1, 9, |shape| {
        (shape.parts, shape.dtype, shape.activation) = (3, Dtype::F16, Activation::Silu);
    });
    let mut quantised = recipe(1, 12, |shape| {
        (shape.dtype, shape.activation) = (Dtype::Q4_0, Activation::Fatrelu);
        shape.activation_threshold = 0.01;
    });
    quantised.biases = false;
    let mut placeholder = recipe(2, 7, |shape| {
        // Three end one byte into a block.
        (shape.dtype, shape.bundle_stride) = (Dtype::Placeholder, 171);
    });
    placeholder.provenance = "neurons.real=5\norder=greedy\nsource.sha256=00\ntool=lnp\n";
    // The index of a larger file: its 3 MiB of bundles are not there.
    let mut large = recipe(1, 64, |shape| {
        (shape.dtype, shape.bundle_stride) = (Dtype::Placeholder, 48 << 10);
    });
    large.block_bytes = 1024;
    vec![
        ("one_neuron", one.clone()),
        ("two_layers", two),
        ("gated_f16", gated.build()),
        ("q4_0_without_biases", quantised.build()),
        ("placeholder", with_tight_counts(&placeholder.build())),
        ("index_only", index_of(large.build())),
        ("unknown_section", with_unknown_section(&one)),
        ("output_bias_only", with_output_bias_only()),
    ]
}

/// The first bytes of a pack, up to its bundles.
fn index_of(mut file: Vec<u8>) -> Vec<u8> {
    let length = Pack::parse(&file, file.len() as u64).expect("valid").superblock().index_bytes;
    file.truncate(length.get() as usize);
    file
}

/// The sections of a pack, to be assembled anew.
fn sections(file: &[u8]) -> Vec<(SectionEntry, Vec<u8>)> {
    let pack = Pack::parse(file, file.len() as u64).expect("valid");
    let body = |begin: u64, bytes: u64| file[begin as usize..(begin + bytes) as usize].to_vec();
    pack.sections().iter().map(|e| (*e, body(e.offset.get(), e.bytes.get()))).collect()
}

/// A pack with a section of a kind that this version does not know, as a later one may write.
fn with_unknown_section(file: &[u8]) -> Vec<u8> {
    let mut sections = sections(file);
    let at = sections.partition_point(|(entry, _)| entry.kind.get() < 77);
    let mut entry = write::entry(SectionKind::Provenance, 3, 4, 8);
    entry.kind.set(77);
    sections.insert(at, (entry, b"whatever".to_vec()));
    assemble(sections, 512, false)
}

/// A placeholder pack whose profile has as many tokens as its most active slot.
fn with_tight_counts(file: &[u8]) -> Vec<u8> {
    let mut sections = sections(file);
    let kind = SectionKind::LinkIndex.code();
    for (_, body) in sections.iter_mut().filter(|(entry, _)| entry.kind.get() == kind) {
        let (header, _) = LinkIndexHeader::mut_from_prefix(body).expect("has one");
        header.profile_tokens.set(4);
    }
    assemble(sections, 512, true)
}

/// A pack whose side data has the second array without the first.
fn with_output_bias_only() -> Vec<u8> {
    let mut sections = sections(&Recipe::small(1, 3).build());
    let side = SectionKind::SideData.code();
    let (entry, body) = sections.iter_mut().find(|(e, _)| e.kind.get() == side).expect("has one");
    *body = write::side_data_header(SIDE_OUTPUT_BIAS).as_bytes().to_vec();
    body.extend((0..32).flat_map(|value| (value as f32).to_le_bytes()));
    entry.bytes.set(body.len() as u64);
    assemble(sections, 512, false)
}
