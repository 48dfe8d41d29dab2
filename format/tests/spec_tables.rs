//! `spec/lnp-v1.md` and the code say the same: field tables, codes, limits, constants, example.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::assemble;
use lnp_format::checksum::crc32;
use lnp_format::codes::{
    FIRST_BULK_KIND, INCOMPAT_COPIES, INCOMPAT_KNOWN, INCOMPAT_LAYER_ACTIVATIONS,
    INCOMPAT_PLACEHOLDER, WHOLE_PACK,
};
use lnp_format::layout::{
    MAGIC, PREDICTOR_REDUCE_BIAS, PREDICTOR_RELU_BETWEEN, PREDICTOR_STRENGTH_SCALES,
    SIDE_DOWN_NORM, SIDE_NEURON_BIAS, SIDE_OUTPUT_BIAS, SIDE_UP_BIAS, STRUCTS, SectionEntry,
    VERSION_MAJOR, VERSION_MINOR,
};
use lnp_format::provenance::REQUIRED_KEYS;
use lnp_format::{
    Activation, Dtype, Pack, PredictorKind, PredictorNumbers, SectionKind, Shape, limits, write,
};
use zerocopy::IntoBytes;

const SPEC: &str = include_str!("../../spec/lnp-v1.md");
const LIMITS_SOURCE: &str = include_str!("../src/limits.rs");

/// Every limit of the crate; `every_limit_is_listed_here` keeps the list complete.
const LIMITS: &[(&str, u64)] = &[
    ("SUPERBLOCK_BYTES", limits::SUPERBLOCK_BYTES as u64),
    ("BLOCK_BYTES_MIN", limits::BLOCK_BYTES_MIN as u64),
    ("BLOCK_BYTES_MAX", limits::BLOCK_BYTES_MAX as u64),
    ("SECTIONS_MAX", limits::SECTIONS_MAX as u64),
    ("LAYERS_MAX", limits::LAYERS_MAX as u64),
    ("NEURONS_MAX", limits::NEURONS_MAX as u64),
    ("BUNDLES_MAX", limits::BUNDLES_MAX),
    ("HIDDEN_MAX", limits::HIDDEN_MAX as u64),
    ("HIDDEN_MULTIPLE", limits::HIDDEN_MULTIPLE as u64),
    ("BUNDLE_STRIDE_MAX", limits::BUNDLE_STRIDE_MAX as u64),
    ("INDEX_BYTES_MAX", limits::INDEX_BYTES_MAX),
    ("FILE_BYTES_MAX", limits::FILE_BYTES_MAX),
    ("PROVENANCE_BYTES_MAX", limits::PROVENANCE_BYTES_MAX),
    ("POINTS_MAX", limits::POINTS_MAX as u64),
];

type Row = Vec<&'static str>;

/// The cells of a line `| a | b |`; `None` for any other line.
fn cells(line: &'static str) -> Option<Row> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// The rows of the table after the line `<!-- marker -->`, its head checked and left out.
fn table(marker: &str, head: &str) -> Vec<Row> {
    let marker = format!("<!-- {marker} -->");
    assert_eq!(SPEC.lines().filter(|line| *line == marker).count(), 1, "{marker} once");
    let mut lines = SPEC.lines().skip_while(|line| *line != marker).skip(1);
    assert_eq!(lines.next(), Some(head), "head of the table after {marker}");
    let columns = head.matches('|').count() - 1;
    assert_eq!(lines.next().unwrap(), format!("|{}", "---|".repeat(columns)), "{marker}");
    let rows: Vec<Row> = lines.map_while(cells).collect();
    assert!(rows.iter().all(|row| row.len() == columns), "{marker}: {columns} cells a row");
    rows
}

/// What stands in markers that begin with `kind: `.
fn markers(kind: &str) -> BTreeSet<&'static str> {
    let begin = format!("<!-- {kind}: ");
    SPEC.lines().filter_map(|l| l.strip_prefix(begin.as_str())?.strip_suffix(" -->")).collect()
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

/// Size of a type by its name: a scalar, or `u8[n]`.
fn type_bytes(name: &str) -> u64 {
    match name {
        "u16" => 2,
        "u32" | "f32" => 4,
        "u64" => 8,
        _ => number(
            name.strip_prefix("u8[").and_then(|n| n.strip_suffix(']')).expect("a known type"),
        ),
    }
}

#[test]
fn structs_are_those_of_the_spec() {
    let names = STRUCTS.iter().map(|(name, size, _)| format!("{name} {size}"));
    assert_eq!(
        markers("struct").iter().map(ToString::to_string).collect::<BTreeSet<_>>(),
        names.collect()
    );
    for (name, size, fields) in STRUCTS {
        let rows =
            table(&format!("struct: {name} {size}"), "| offset | bytes | type | field | rule |");
        let stated: Vec<_> =
            rows.iter().map(|row| (row[3], number(row[0]), number(row[1]))).collect();
        let coded: Vec<_> =
            fields.iter().map(|f| (f.name, f.offset as u64, f.bytes as u64)).collect();
        assert_eq!(stated, coded, "fields of {name}");
        let mut end = 0;
        for row in &rows {
            assert_eq!(number(row[0]), end, "{name}.{} follows the field before", row[3]);
            assert_eq!(type_bytes(row[2]), number(row[1]), "type of {name}.{}", row[3]);
            assert!(!row[4].is_empty(), "rule of {name}.{}", row[3]);
            end += number(row[1]);
        }
        assert_eq!(end, *size as u64, "{name} ends with its last field");
    }
}

#[test]
fn codes_are_those_of_the_spec() {
    let tables = [
        ("section_kind", SectionKind::TABLE),
        ("dtype", Dtype::TABLE),
        ("activation", Activation::TABLE),
        ("predictor_kind", PredictorKind::TABLE),
        ("predictor_numbers", PredictorNumbers::TABLE),
    ];
    assert_eq!(markers("codes"), tables.iter().map(|(name, _)| *name).collect());
    for (name, coded) in tables {
        let rows = table(&format!("codes: {name}"), "| code | name | meaning |");
        let stated: Vec<_> = rows.iter().map(|row| (number(row[0]) as u32, row[1])).collect();
        assert_eq!(stated, coded, "{name}");
    }
}

#[test]
fn limits_are_those_of_the_spec() {
    let rows = table("limits", "| limit | value | meaning |");
    let stated: Vec<_> = rows.iter().map(|row| (row[0], number(row[1]))).collect();
    assert_eq!(stated, LIMITS);
}

#[test]
fn every_limit_is_listed_here() {
    let coded: Vec<_> = LIMITS_SOURCE
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split_once(':'))
        .map(|(name, _)| name)
        .collect();
    let listed: Vec<_> = LIMITS.iter().map(|(name, _)| *name).collect();
    assert_eq!(coded, listed);
}

#[test]
fn constants_and_bits_are_those_of_the_spec() {
    let rows = table("constants", "| name | value | meaning |");
    let stated: Vec<_> = rows.iter().map(|row| (row[0], number(row[1]))).collect();
    let coded = [
        ("FIRST_BULK_KIND", u64::from(FIRST_BULK_KIND)),
        ("WHOLE_PACK", u64::from(WHOLE_PACK)),
        ("VERSION_MAJOR", u64::from(VERSION_MAJOR)),
        ("VERSION_MINOR", u64::from(VERSION_MINOR)),
    ];
    assert_eq!(stated, coded);

    let bits = |field: &str| -> Vec<(u64, &str)> {
        let rows = table(&format!("bits: {field}"), "| bit | name | meaning |");
        rows.iter().map(|row| (1 << number(row[0]), row[1])).collect()
    };
    let side = [
        (u64::from(SIDE_NEURON_BIAS), "neuron_bias"),
        (u64::from(SIDE_OUTPUT_BIAS), "output_bias"),
        (u64::from(SIDE_UP_BIAS), "up_bias"),
        (u64::from(SIDE_DOWN_NORM), "down_norm"),
    ];
    assert_eq!(bits("arrays"), side);
    let flags = [
        (u64::from(PREDICTOR_RELU_BETWEEN), "relu_between"),
        (u64::from(PREDICTOR_REDUCE_BIAS), "reduce_bias"),
        (u64::from(PREDICTOR_STRENGTH_SCALES), "strength_scales"),
    ];
    assert_eq!(bits("predictor_flags"), flags);
    assert_eq!(bits("feature_compat"), []);
    let known = [
        (INCOMPAT_PLACEHOLDER, "placeholder"),
        (INCOMPAT_LAYER_ACTIVATIONS, "layer_activations"),
        (INCOMPAT_COPIES, "copies"),
    ];
    assert_eq!(bits("feature_incompat"), known);
    assert_eq!(INCOMPAT_KNOWN, known.iter().map(|(bit, _)| bit).sum());
}

#[test]
fn magic_and_checksum_are_those_of_the_spec() {
    let magic: Vec<_> = MAGIC.iter().map(|byte| format!("{byte:02x}")).collect();
    let rows = table("struct: superblock 4096", "| offset | bytes | type | field | rule |");
    assert_eq!(rows[0][3..5], ["magic", &format!("`{}`", magic.join(" "))]);

    let value = |bytes: &[u8]| format!("{:08x}", crc32(bytes));
    assert_eq!(value(b"123456789"), "cbf43926");
    assert!(SPEC.contains(&format!("| of the nine bytes `123456789` | {} |", value(b"123456789"))));
    assert!(SPEC.contains(&format!("| of no bytes | {} |", value(b""))));
}

#[test]
fn encodings_are_those_of_the_spec() {
    // The table of section 10.1: `hidden * a` or `hidden / 32 * a`.
    for (dtype, per_part) in [
        (Dtype::F32, "hidden * 4"),
        (Dtype::F16, "hidden * 2"),
        (Dtype::Bf16, "hidden * 2"),
        (Dtype::Q8_0, "hidden / 32 * 34"),
        (Dtype::Q4_0, "hidden / 32 * 18"),
    ] {
        assert!(SPEC.contains(&format!("| {dtype} | `{per_part}` | ")), "{dtype}");
        let factor = number(per_part.rsplit(' ').next().unwrap());
        let unit = if per_part.contains('/') { 32 } else { 1 };
        for hidden in [32, 4096, limits::HIDDEN_MAX] {
            assert_eq!(u64::from(dtype.part_bytes(hidden)), u64::from(hidden) / unit * factor);
        }
    }
    assert!(SPEC.contains("| placeholder | 0 | there is none |"));
    assert_eq!(Dtype::Placeholder.part_bytes(4096), 0);
    // Rows of a predictor: as a part of the same type, or `2 + 4 * K` bytes a block.
    assert!(SPEC.contains("a block is `2 + 4 * K` bytes"));
    for (numbers, of_block) in [
        (PredictorNumbers::F32, u64::from(Dtype::F32.part_bytes(32))),
        (PredictorNumbers::F16, u64::from(Dtype::F16.part_bytes(32))),
        (PredictorNumbers::Q8_0, u64::from(Dtype::Q8_0.part_bytes(32))),
        (PredictorNumbers::Bits1, 2 + 4),
        (PredictorNumbers::Bits2, 2 + 4 * 2),
        (PredictorNumbers::Bits4, 2 + 4 * 4),
        (PredictorNumbers::Bits8, 2 + 4 * 8),
    ] {
        assert_eq!(numbers.row_bytes(96), 3 * of_block, "{numbers}");
    }
    // `36 + 12n + 4k` bytes of a link index
    assert!(SPEC.contains("`36 + 12n + 4k`"));
    for (n, k) in [(1, 1), (3, 2), (limits::NEURONS_MAX, 1000)] {
        assert_eq!(write::link_index_bytes(n, k), 36 + 12 * u64::from(n) + 4 * u64::from(k));
    }
    // with copies `36 + 4n + 12s + 4k`
    assert!(SPEC.contains("`36 + 4n + 12s + 4k`"));
    for (n, s, k) in [(1_u32, 3_u32, 1_u32), (3, 3, 2), (4, limits::NEURONS_MAX, 1000)] {
        let [n64, s64, k64] = [n, s, k].map(u64::from);
        let expected = 36 + 4 * n64 + 12 * s64 + 4 * k64;
        assert_eq!(write::link_index_bytes_with_copies(n, s, k), expected);
    }
}

#[test]
fn required_keys_are_those_of_the_spec() {
    let rows = table("provenance keys", "| key | required | value |");
    let required: Vec<_> = rows.iter().filter(|row| row[1] == "yes").map(|row| row[0]).collect();
    assert_eq!(required, REQUIRED_KEYS);
    assert!(rows.iter().all(|row| matches!(row[1], "yes" | "no")));
}

/// The numbered rules are R1, R2, ... without gaps, each once, and so are V and W.
#[test]
fn rules_are_numbered_without_gaps() {
    for (letter, count) in [('R', 53), ('V', 3), ('W', 8)] {
        let ids: Vec<_> = SPEC
            .lines()
            .filter_map(|line| line.split_once(". **").map(|(_, rest)| rest))
            .filter_map(|rest| rest.strip_prefix(letter)?.split_once("**"))
            .map(|(id, _)| number(id))
            .collect();
        assert_eq!(ids, (1..=count).collect::<Vec<_>>(), "{letter}");
    }
}

/// Weight `i` of the up and of the down part of the example's neuron `n`.
fn example_weights(n: u32) -> [Vec<f32>; 2] {
    let n = n as f32;
    [
        (0..32).map(|i| (i % 4) as f32 + n - 1.0).collect(),
        (0..32).map(|i| i as f32 - 8.0 * n).collect(),
    ]
}

fn example_bundle(n: u32) -> Vec<u8> {
    example_weights(n).concat().iter().flat_map(|weight| weight.to_le_bytes()).collect()
}

const EXAMPLE_ORDER: [u32; 3] = [2, 0, 1];
const EXAMPLE_NEURON_BIAS: [f32; 3] = [0.5, -1000.0, 0.25];

/// The pack of the spec's example, put together as its text says.
fn example() -> Vec<u8> {
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let shape = Shape {
        layers: 1,
        neurons: 3,
        hidden: 32,
        parts: 2,
        activation: Activation::Relu,
        activation_threshold: 0.0,
        dtype: Dtype::F32,
        bundle_stride: 256,
        slots: 3,
    };
    let mut link_index = write::link_index_header(3, 2, 10, 0).as_bytes().to_vec();
    for array in [&[1, 2, 0], &EXAMPLE_ORDER, &[0, 2, 3], &[9, 7, 2]] {
        link_index.extend(words(array));
    }
    let arrays = SIDE_NEURON_BIAS | SIDE_OUTPUT_BIAS;
    let mut side_data = write::side_data_header(arrays, 0.0, None).as_bytes().to_vec();
    let output_bias = (0..32).map(|i| i as f32 / 4.0);
    side_data.extend(
        EXAMPLE_NEURON_BIAS.into_iter().chain(output_bias).flat_map(|bias| bias.to_le_bytes()),
    );
    let sums = EXAMPLE_ORDER.map(|n| crc32(&example_bundle(n)));
    let section = |kind, layer, body: Vec<u8>| -> (SectionEntry, Vec<u8>) {
        (write::entry(kind, layer, 0, body.len() as u64), body)
    };
    let sections = vec![
        section(SectionKind::ModelShape, WHOLE_PACK, shape.to_disk().as_bytes().to_vec()),
        section(SectionKind::Provenance, WHOLE_PACK, b"order=example\ntool=by hand\n".to_vec()),
        section(SectionKind::LinkIndex, 0, link_index),
        section(SectionKind::SideData, 0, side_data),
        section(SectionKind::BundleChecksums, 0, words(&sums)),
        section(SectionKind::BundleRegion, 0, EXAMPLE_ORDER.map(example_bundle).concat()),
    ];
    assemble(sections, 512, 0)
}

#[test]
fn the_example_has_the_bytes_of_the_spec() {
    let file = example();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let rows =
        table("example: sections", "| kind | layer | placement | offset | bytes | section_crc |");
    let found: Vec<_> = pack
        .sections()
        .iter()
        .map(|e| {
            let [kind, layer, placement] = [e.kind, e.layer, e.placement].map(|field| field.get());
            let (offset, bytes, crc) = (e.offset.get(), e.bytes.get(), e.section_crc.get());
            format!("{kind} {layer} {placement} {offset} {bytes} {crc:08x}")
        })
        .collect();
    assert_eq!(rows.iter().map(|row| row.join(" ")).collect::<Vec<_>>(), found);

    let superblock = pack.superblock();
    let mut values = BTreeMap::from([
        ("index_bytes".to_owned(), superblock.index_bytes.to_string()),
        ("file_bytes".to_owned(), superblock.file_bytes.to_string()),
        ("section_table_crc".to_owned(), format!("{:08x}", superblock.section_table_crc.get())),
        ("superblock_crc".to_owned(), format!("{:08x}", superblock.superblock_crc.get())),
        ("CRC-32 of the whole file".to_owned(), format!("{:08x}", crc32(&file))),
    ]);
    for n in 0..3 {
        let what = format!("CRC-32 of the bundle of neuron {n}");
        values.insert(what, format!("{:08x}", crc32(&example_bundle(n))));
    }
    let stated = table("example: values", "| what | value |");
    let stated = stated.iter().map(|row| (row[0].to_owned(), row[1].to_owned())).collect();
    assert_eq!(values, stated);
}

/// The outputs that the example states, from the formulas of section 10.2.
#[test]
fn the_example_computes_what_the_spec_says() {
    let x: Vec<f32> = (0..32).map(|i| (i % 3) as f32).collect();
    let mut y: Vec<f32> = (0..32).map(|i| i as f32 / 4.0).collect();
    let mut coefficients = Vec::new();
    for (n, bias) in (0..).zip(EXAMPLE_NEURON_BIAS) {
        let [up, down] = example_weights(n);
        let dot: f32 = up.iter().zip(&x).map(|(w, x)| w * x).sum();
        let coefficient = (dot + bias).max(0.0);
        coefficients.push(coefficient);
        y.iter_mut().zip(down).for_each(|(y, w)| *y += coefficient * w);
    }
    let [c0, c1, c2] = coefficients[..] else { panic!("three neurons") };
    let spec = SPEC.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(spec.contains(&format!("`c(0)` = {c0}, `c(1)` = {c1} ")));
    assert!(spec.contains(&format!(
        "`c(2)` = {c2}, and `y[0]` = {}, `y[1]` = {}, `y[31]` = {}.",
        y[0], y[1], y[31]
    )));
}
