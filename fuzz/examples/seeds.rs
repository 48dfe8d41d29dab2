//! Writes the seeds that are made: of `pack_bytes`, small packs, one for each thing that packs may differ
//! in; of `readers`, a file of each kind. Those of the other targets are what a run of the fuzzer kept.
//!
//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds` writes the same bytes each time.

#[allow(dead_code)] // of it, what makes files
#[path = "../readers/made.rs"]
mod made;

use std::path::Path;

use lnp_format::codes::INCOMPAT_PLACEHOLDER;
use lnp_format::layout::{LinkIndexHeader, SIDE_OUTPUT_BIAS, SectionEntry};
use lnp_format::{Activation, Dtype, Pack, SectionKind, Shape, write};
use lnp_fuzz::packs::{Recipe, assemble};
use made::Bytes;
use zerocopy::{FromBytes, IntoBytes};

fn main() {
    for (target, seeds) in [("pack_bytes", seeds()), ("readers", readers())] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
        for (name, bytes) in seeds {
            std::fs::write(folder.join(name), bytes).expect("the seeds' folder can be written");
        }
    }
}

/// The first byte of each says how the target reads the rest: see `readers/made.rs`.
fn readers() -> Vec<(&'static str, Vec<u8>)> {
    // Layers, neurons and so on.
    let shape = [2, 11, 4, 3, 0, 5];
    let (trace, links) =
        (made::trace(&mut Bytes::new(&shape)), made::links(&mut Bytes::new(&shape)));
    let raw = |kind: u8, file: &[u8]| [&[kind], file].concat();
    // The header without its length, then a zero byte, then the data.
    let framed = |kind: u8, file: Vec<u8>| {
        let header = u64::from_le_bytes(file[..8].try_into().expect("eight bytes")) as usize;
        [&[kind], &file[8..8 + header], &[0], &file[8 + header..]].concat()
    };
    let published = include_bytes!("../../devices/oneplus-12.toml");
    vec![
        ("trace", raw(0, &trace.bytes())),
        ("links", raw(1, &links.bytes())),
        ("profile_published", raw(2, published)),
        ("profile_measured", raw(2, MEASURED.as_bytes())),
        ("law", raw(3, b"t0_us=3,a_us=9.64,b_mib_s=2034,combine=sum")),
        ("trace_framed", framed(4, trace.bytes())),
        ("links_framed", framed(5, links.bytes())),
        ("trace_made", [&[6][..], &shape].concat()),
        ("links_made", [&[7][..], &shape].concat()),
        ("trace_edited", [&[6][..], &shape, &[0, 40, 0, 4, 4, 2, 0, 255]].concat()),
        ("model_opt", vec![0xff, 0b0000_0100, 0, 6, 3, 9]),
        ("model_llama", vec![0xff, 0b0011_0101, 1, 6, 3, 9]),
        ("model_edited", vec![0xff, 0b0101_1001, 1, 6, 3, 9, 0, 3, 0, 11, 31, 3, 0, 9, 0, 14, 130]),
        ("predictors_made", vec![0xfd, 2, 5, 0, 0b1_0110, 3, 4, 2]),
        ("predictors_rows", vec![0xfd, 1, 9, 4, 0b10_1001, 9, 0, 1]),
        ("predictors_few_bits", vec![0xfd, 1, 7, 3, 0, 9, 8, 0]),
        ("predictors_edited", vec![0xfd, 1, 5, 1, 6, 3, 4, 2, 0, 30, 0, 0, 2, 9, 0, 14, 131]),
        (
            "predictors_framed",
            framed(0xfc, made::predictors(&mut Bytes::new(&[1, 4, 0, 6, 2, 2, 1])).bytes()),
        ),
        ("seen", vec![0xfb, 1, 30, 0, 70, 0, 37]),
        ("seen_counted", vec![0xfb, 1, 30, 0, 70, 0x10, 37]),
        ("seen_counted_edited", vec![0xfb, 1, 11, 0, 9, 0x11, 5, 4, 9, 0, 255, 0, 11, 0, 14, 130]),
        ("seen_too_little", vec![0xfb, 1, 11, 254, 9, 0, 5]),
        ("seen_edited", vec![0xfb, 1, 11, 0, 9, 0, 5, 4, 9, 0, 255, 0, 11, 0, 14, 130]),
        ("resident_opt", vec![0xfa, 0b0000_0100, 0, 6, 3, 9]),
        ("resident_edited", vec![0xfa, 0b0011_0101, 1, 6, 3, 9, 3, 0, 40, 0, 11, 31]),
        ("links_edited", [&[7][..], &shape, &[1, 9, 0, 9, 5, 130]].concat()),
    ]
}

/// A profile with a table of each kind.
const MEASURED: &str = r#"[law]
t0_us = 12.5
a_us = 9.0
b_mib_s = 2048.0
combine = "max"

[fit]
error_median = 0.02
error_p90 = 0.1
other_combine_error_median = 0.2
sustained = false

[measured]
path = "/x"
file_bytes = 1073741824
queue_depth = 32
back_end = "io_uring"
direct = true
seconds = 10.0
command = "lnp probe"
unix_time = 1700000000
warnings = ["hot"]

[measured.place]
number = "254:0"
name = "vda"
file_system = "ext4"

[machine]
cpu = "some"
cores = 2
memory_bytes = 25276510208
kernel = "6.1"
arch = "x86_64"
kernel_tier = "avx512"

[[points]]
read_bytes = 4096
reads = 32
batches = 100
batch_us_median = 300.0
batch_us_p10 = 290.0
batch_us_p90 = 330.0

[[misfits]]
read_bytes = 4096
reads = 1
error = 0.3

[[curves]]
depth = 32
t0_us = 5.0
read_bytes = [4096, 8192, 65536]
read_us = [10.0, 12.0, 40.0]

[[streams]]
pattern = "random"
read_bytes = 4096
depth = 1
range_bytes = 1073741824
back_end = "io_uring"
turns = 2
reads = 3628
reads_per_s = 16207.25
reads_per_s_least = 16207.25
reads_per_s_most = 18099.5
mib_s = 63.25
latency_us_p50 = 40.5
latency_us_p99 = 77.0
cpu_us_per_read = 17.25
device_share = 1.0
"#;

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
    assemble(sections, 512, 0)
}

/// A placeholder pack whose profile has as many tokens as its most active slot.
fn with_tight_counts(file: &[u8]) -> Vec<u8> {
    let mut sections = sections(file);
    let kind = SectionKind::LinkIndex.code();
    for (_, body) in sections.iter_mut().filter(|(entry, _)| entry.kind.get() == kind) {
        let (header, _) = LinkIndexHeader::mut_from_prefix(body).expect("has one");
        header.profile_tokens.set(4);
    }
    assemble(sections, 512, INCOMPAT_PLACEHOLDER)
}

/// A pack whose side data has the second array without the first.
fn with_output_bias_only() -> Vec<u8> {
    let mut sections = sections(&Recipe::small(1, 3).build());
    let side = SectionKind::SideData.code();
    let (entry, body) = sections.iter_mut().find(|(e, _)| e.kind.get() == side).expect("has one");
    *body = write::side_data_header(SIDE_OUTPUT_BIAS, 0.0, None).as_bytes().to_vec();
    body.extend((0..32).flat_map(|value| (value as f32).to_le_bytes()));
    entry.bytes.set(body.len() as u64);
    assemble(sections, 512, 0)
}
