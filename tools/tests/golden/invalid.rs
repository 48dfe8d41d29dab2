//! The packs that break a rule of the specification each, and as far as can be no other.

use lnp_format::checksum::crc32;
use lnp_format::codes::WHOLE_PACK;
use lnp_format::layout::{SectionEntry, Superblock};
use lnp_format::{Dtype, Pack, PredictorNumbers, SectionKind};
use zerocopy::IntoBytes;
use zerocopy::byteorder::{U16, U32, U64};

use super::{plain, with_resident};
use crate::recipe::predictor::{POINTS_AT, PredictorRecipe};
use crate::recipe::{Recipe, with_section, with_superblock, with_table};

/// An invalid pack: file name, the rule of the spec that it breaks, what is wrong, its bytes.
pub(crate) type Broken = (&'static str, &'static str, &'static str, Vec<u8>);

/// One layer of three neurons: the table's entries are the shape, the provenance, the link index, the
/// side data, the checksums and the region, which ends within a block.
fn small() -> Recipe {
    Recipe::small(1, 3)
}

/// The small pack under another provenance.
fn told(provenance: &'static str) -> Vec<u8> {
    let mut recipe = small();
    recipe.provenance = provenance;
    recipe.build()
}

fn sealed(change: impl FnOnce(&mut Superblock)) -> Vec<u8> {
    with_superblock(&small().build(), change)
}

fn table(change: impl FnOnce(&mut [SectionEntry])) -> Vec<u8> {
    with_table(&small().build(), change)
}

/// The small pack with a word of a section changed.
fn word(kind: SectionKind, at: usize, value: u32) -> Vec<u8> {
    with_section(&small().build(), kind, |body| put(body, at, value))
}

fn put(body: &mut [u8], at: usize, value: u32) {
    body[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// The small pack with a section of another length in the same blocks; what it grows by is zero.
fn resized(kind: SectionKind, bytes: usize) -> Vec<u8> {
    let mut file = small().build();
    let sections = Pack::parse(&file, file.len() as u64).unwrap().sections().to_vec();
    let at = sections.iter().position(|entry| entry.kind.get() == kind.code()).unwrap();
    let (begin, old) = (sections[at].offset.get() as usize, sections[at].bytes.get() as usize);
    assert_eq!(bytes.div_ceil(512), old.div_ceil(512));
    file[begin + bytes.min(old)..begin + old].fill(0);
    let crc = crc32(&file[begin..begin + bytes]);
    with_table(&file, |table| {
        table[at].bytes = U64::new(bytes as u64);
        table[at].section_crc = U32::new(crc);
    })
}

/// The small pack with one byte changed and no checksum fitted.
fn damaged(at: usize) -> Vec<u8> {
    let mut file = small().build();
    file[at] ^= 1;
    file
}

/// File offset of an entry of the small pack's table.
fn begin(entry: usize) -> usize {
    let file = small().build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    pack.sections()[entry].offset.get() as usize
}

pub(crate) fn invalid() -> Vec<Broken> {
    [
        superblocks(),
        places(),
        model_shapes(),
        provenances(),
        link_indexes(),
        side_data(),
        bundles(),
        predictors(),
        copies(),
    ]
    .concat()
}

fn superblocks() -> Vec<Broken> {
    let file = plain();
    let changed = |at: usize, value: u8| {
        let mut file = file.clone();
        file[at] = value;
        file
    };
    let truncated = file[..file.len() - 512].to_vec();
    let longer = [&file[..], &[0; 512]].concat();
    let future = with_superblock(&file, |s| s.feature_incompat = U64::new(1 << 5));
    let version = with_superblock(&file, |s| s.version_major = U16::new(2));
    let block = sealed(|s| s.block_bytes = U32::new(768));
    let index = sealed(|s| s.index_bytes = U64::new(s.index_bytes.get() + 1));
    let sections = sealed(|s| s.section_count = U32::new(u32::MAX));
    let reserved = sealed(|s| s.as_mut_bytes()[4091] = 1);
    vec![
        ("no-superblock.lnp", "R1", "a byte short of a superblock", file[..4095].to_vec()),
        ("not-a-pack.lnp", "R2", "the magic is that of another format", changed(1, b'G')),
        ("version-2.lnp", "R3", "a major version to come", version),
        ("damaged-superblock.lnp", "R4", "one byte of the superblock changed", changed(32, 1)),
        ("unknown-feature.lnp", "R5", "an incompatible feature bit to come", future),
        ("block-of-768.lnp", "R6", "a block that is no power of two", block),
        ("truncated.lnp", "R7", "the last block is missing", truncated),
        ("trailing-block.lnp", "R7", "a block too many", longer),
        ("index-within-a-block.lnp", "R8", "an index that ends within a block", index),
        ("sections-without-end.lnp", "R9", "2^32 - 1 sections claimed", sections),
        ("superblock-reserved.lnp", "R10", "a reserved byte is not zero", reserved),
    ]
}

fn places() -> Vec<Broken> {
    let file = plain();
    let long_table = sealed(|s| s.section_count = U32::new(1000));
    let table_crc = sealed(|s| s.section_table_crc = U32::new(!s.section_table_crc.get()));
    let twice = table(|table| table[1].kind = table[0].kind);
    let reserved = table(|table| table[3].as_mut_bytes()[47] = 1);
    let overlap = with_table(&file, |table| table[9].offset = table[8].offset);
    let beyond = with_table(&file, |table| table[9].bytes = U64::new(u64::MAX - 4096));
    let index = sealed(|s| s.index_bytes = U64::new(s.index_bytes.get() + 512));
    let longer = with_superblock(&[&file[..], &[0; 512]].concat(), |s| {
        s.file_bytes = U64::new(s.file_bytes.get() + 512);
    });
    let mut padding = file.clone();
    padding[4096 + 48 * 10 + 3] = 1;
    let another_layer = table(|table| table[3].layer = U32::new(1));
    let another_placement = table(|table| table[3].placement = U32::new(1));
    let unknown_kind = table(|table| table[4].kind = U32::new(6));
    vec![
        (
            "table-beyond-the-index.lnp",
            "R11",
            "more sections than the index has room for",
            long_table,
        ),
        ("damaged-table.lnp", "R12", "the section table's checksum is another", table_crc),
        ("two-model-shapes.lnp", "R13", "two entries of one kind, layer and placement", twice),
        ("entry-reserved.lnp", "R14", "a reserved byte of an entry is not zero", reserved),
        ("overlapping-sections.lnp", "R15", "one region lies over another", overlap),
        ("section-beyond-the-end.lnp", "R16", "a length that wraps around", beyond),
        ("index-too-long.lnp", "R17", "an index that reaches into the bundles", index),
        ("file-too-long.lnp", "R18", "a block after the last section, and counted", longer),
        ("padding.lnp", "R19", "a padding byte that is not zero", padding),
        (
            "damaged-link-index.lnp",
            "R20",
            "one bit of an index section changed",
            damaged(begin(2) + 68),
        ),
        ("side-data-of-no-layer.lnp", "R21", "side data of layer 1 of 1", another_layer),
        ("side-data-of-a-placement.lnp", "R21", "side data of placement 1", another_placement),
        ("resident-of-a-layer.lnp", "R21", "resident weights of layer 0", with_resident(0, 0)),
        (
            "resident-of-a-placement.lnp",
            "R21",
            "resident weights of placement 1",
            with_resident(WHOLE_PACK, 1),
        ),
        ("no-bundle-checksums.lnp", "R22", "no bundle checksums, but a kind to come", unknown_kind),
    ]
}

fn model_shapes() -> Vec<Broken> {
    use SectionKind::ModelShape;
    let recipe = |change: fn(&mut Recipe)| {
        let mut recipe = small();
        change(&mut recipe);
        recipe.build()
    };
    let wide = with_section(&plain(), ModelShape, |body| put(body, 4, u32::MAX));
    let hidden = word(ModelShape, 8, 33);
    let parts = recipe(|recipe| {
        recipe.shape.parts = 4;
        recipe.shape.bundle_stride = 512;
    });
    let threshold = recipe(|recipe| recipe.shape.activation_threshold = 1.0);
    let placeholders = recipe(|recipe| {
        recipe.shape.dtype = Dtype::Placeholder;
    });
    let without_bit = with_superblock(&placeholders, |s| s.feature_incompat = U64::new(0));
    let with_bit = sealed(|s| s.feature_incompat = U64::new(1));
    let part_bytes = with_section(&placeholders, ModelShape, |body| put(body, 28, 1));
    let stride = recipe(|recipe| recipe.shape.bundle_stride = 512);
    vec![
        ("model-shape-65.lnp", "R23", "a model shape of 65 bytes", resized(ModelShape, 65)),
        ("neurons-overflow.lnp", "R24", "2^32 - 1 neurons claimed", wide),
        ("hidden-33.lnp", "R24", "a hidden size that is not a multiple of 32", hidden),
        ("four-parts.lnp", "R25", "bundles of four parts", parts),
        ("unknown-activation.lnp", "R26", "an activation to come", word(ModelShape, 16, 99)),
        ("relu-threshold.lnp", "R26", "a threshold with relu", threshold),
        ("unknown-dtype.lnp", "R27", "a number type to come", word(ModelShape, 24, 99)),
        ("placeholder-without-bit.lnp", "R28", "placeholders, feature bit not set", without_bit),
        ("weights-with-bit.lnp", "R28", "weights, and the feature bit of placeholders", with_bit),
        ("part-bytes.lnp", "R29", "parts of one byte in a placeholder", part_bytes),
        ("bundle-stride.lnp", "R30", "bundles of twice the length of their parts", stride),
        (
            "model-shape-reserved.lnp",
            "R31",
            "a reserved byte is not zero",
            word(ModelShape, 60, 1 << 24),
        ),
    ]
}

fn provenances() -> Vec<Broken> {
    use SectionKind::Provenance;
    let text = |text: &[u8]| {
        with_section(&told("order=test\ntool=test\n"), Provenance, |body| {
            body.copy_from_slice(text)
        })
    };
    vec![
        ("provenance-empty.lnp", "R32", "provenance without a byte", told("")),
        (
            "provenance-utf8.lnp",
            "R33",
            "a byte that is not UTF-8",
            text(b"order=test\ntool=t\xffst\n"),
        ),
        ("provenance-no-end.lnp", "R33", "a last line without LF", told("order=test\ntool=test")),
        ("provenance-no-value.lnp", "R34", "a line without =", text(b"order=test\ntool+test\n")),
        ("provenance-control.lnp", "R34", "a tab in a value", text(b"order=test\ntool=t\tst\n")),
        (
            "provenance-order.lnp",
            "R35",
            "provenance keys that do not ascend",
            text(b"tool=test\norder=test\n"),
        ),
        (
            "provenance-no-tool.lnp",
            "R36",
            "the key tool is missing",
            text(b"order=test\ntoom=test\n"),
        ),
    ]
}

fn link_indexes() -> Vec<Broken> {
    use SectionKind::LinkIndex;
    // header 32, then slot_of_neuron, neuron_of_slot (at 44), link_begin (at 56), active_count (at 68)
    let other_shape = with_section(&small().build(), LinkIndex, |body| {
        // two neurons and five links take as many bytes as three and two
        put(body, 0, 2);
        put(body, 4, 5);
    });
    let not_inverse = with_section(&small().build(), LinkIndex, |body| {
        let first: [u8; 4] = body[32..36].try_into().unwrap();
        body.copy_within(36..40, 32);
        body[36..40].copy_from_slice(&first);
    });
    vec![
        ("link-index-length.lnp", "R37", "a link index of a word too many", resized(LinkIndex, 84)),
        (
            "link-index-neurons.lnp",
            "R38",
            "a link index of two neurons in a layer of three",
            other_shape,
        ),
        ("link-index-reserved.lnp", "R39", "a reserved byte is not zero", word(LinkIndex, 28, 1)),
        ("not-a-permutation.lnp", "R40", "two slots hold the same neuron", {
            with_section(&small().build(), LinkIndex, |body| body.copy_within(44..48, 48))
        }),
        ("not-an-inverse.lnp", "R40", "two permutations, neither the other's inverse", not_inverse),
        (
            "links-not-ascending.lnp",
            "R41",
            "a link that begins where the one before does",
            word(LinkIndex, 60, 0),
        ),
        ("links-from-1.lnp", "R41", "no link begins at slot 0", word(LinkIndex, 56, 1)),
        (
            "links-beyond-the-layer.lnp",
            "R41",
            "the last link ends beyond the layer",
            word(LinkIndex, 64, 4),
        ),
        (
            "active-count.lnp",
            "R42",
            "active in more tokens than were profiled",
            word(LinkIndex, 72, 101),
        ),
    ]
}

fn side_data() -> Vec<Broken> {
    use SectionKind::SideData;
    let bytes = 16 + 4 * (3 + 32);
    vec![
        ("side-data-arrays.lnp", "R43", "an array to come", word(SideData, 0, 19)),
        ("side-data-up-bias.lnp", "R43", "a bias of up rows, of two parts", word(SideData, 0, 7)),
        ("side-data-eps.lnp", "R44", "an epsilon without a norm", word(SideData, 4, 1)),
        (
            "side-data-activation.lnp",
            "R44",
            "a layer's activation without its feature bit",
            word(SideData, 8, 3),
        ),
        ("side-data-threshold.lnp", "R44", "a threshold of no activation", word(SideData, 12, 1)),
        ("side-data-length.lnp", "R45", "a word after the arrays", resized(SideData, bytes + 4)),
        ("side-data-short.lnp", "R45", "shorter than its header", resized(SideData, 8)),
    ]
}

fn bundles() -> Vec<Broken> {
    use SectionKind::{BundleChecksums, BundleRegion};
    let section_crc = table(|table| table[5].section_crc = U32::new(!table[5].section_crc.get()));
    let bundle_crc = word(BundleChecksums, 4, 0);
    vec![
        ("checksums-length.lnp", "R46", "a checksum too many", resized(BundleChecksums, 16)),
        ("region-length.lnp", "R47", "a region of a byte too many", resized(BundleRegion, 769)),
        (
            "damaged-bundle.lnp",
            "V1",
            "one bit of a bundle flipped: only a full check finds it",
            damaged(begin(5) + 300),
        ),
        ("region-checksum.lnp", "V1", "the region's checksum is another", section_crc),
        ("bundle-checksum.lnp", "V2", "a bundle's checksum is another", bundle_crc),
        (
            "padding-of-bundles.lnp",
            "V3",
            "padding after the bundles that is not zero",
            damaged(begin(5) + 1000),
        ),
    ]
}

/// The small pack with a predictor of low rank.
fn predicting() -> Recipe {
    let mut recipe = small();
    recipe.predictors = vec![(0, 0, low_rank().build())];
    recipe
}

fn low_rank() -> PredictorRecipe {
    PredictorRecipe::low_rank(PredictorNumbers::Q8_0, 3, 32, 32)
}

fn predictors() -> Vec<Broken> {
    let file = predicting().build();
    let word = |at: usize, value: u32| {
        with_section(&file, SectionKind::Predictor, |body| put(body, at, value))
    };
    let entry = |change: fn(&mut SectionEntry)| {
        with_table(&file, |table| {
            let own = |entry: &&mut SectionEntry| entry.kind.get() == SectionKind::Predictor.code();
            change(table.iter_mut().find(own).unwrap());
        })
    };
    let mut short = small();
    short.predictors = vec![(0, 0, low_rank().build()[..63].to_vec())];
    let mut placeholder = predicting();
    placeholder.shape.dtype = Dtype::Placeholder;
    let rows = PredictorRecipe { rank: 32, ..PredictorRecipe::rows(PredictorNumbers::F16, 3, 32) };
    let mut ranked = small();
    ranked.predictors = vec![(0, 0, rows.build())];
    vec![
        (
            "predictor-of-layer-1.lnp",
            "R48",
            "a predictor of a layer that there is not",
            entry(|e| e.layer = U32::new(1)),
        ),
        (
            "predictor-ahead-of-all.lnp",
            "R48",
            "a predictor of layer 0 from the layer before it",
            entry(|e| e.placement = U32::new(1)),
        ),
        (
            "predictor-of-placeholders.lnp",
            "R48",
            "a predictor of placeholders",
            placeholder.build(),
        ),
        ("predictor-short.lnp", "R49", "a predictor shorter than its header", short.build()),
        ("predictor-length.lnp", "R49", "matrices of another rank than the header's", word(16, 64)),
        ("predictor-reserved.lnp", "R50", "a reserved byte of a predictor's header", word(60, 1)),
        (
            "point-reserved.lnp",
            "R50",
            "a reserved byte of an operating point",
            word(POINTS_AT + 20, 1),
        ),
        ("predictor-neurons.lnp", "R51", "a predictor of another number of neurons", word(8, 4)),
        ("predictor-rank-33.lnp", "R51", "a rank that is no multiple of 32", word(16, 33)),
        ("predictor-rows-of-a-rank.lnp", "R51", "rows that have a rank", ranked.build()),
        ("predictor-offsets.lnp", "R51", "more lists of offsets than points", word(28, 3)),
        (
            "point-quality.lnp",
            "R52",
            "operating points that do not ascend",
            word(POINTS_AT, 1.0_f32.to_bits()),
        ),
        (
            "point-threshold.lnp",
            "R52",
            "a threshold that is no number",
            word(POINTS_AT + 4, f32::NAN.to_bits()),
        ),
        (
            "point-recall.lnp",
            "R52",
            "more than everything found",
            word(POINTS_AT + 8, 1.5_f32.to_bits()),
        ),
    ]
}

/// One layer of six neurons in nine slots, of which neuron 0 has 0, 4 and 7.
fn copies() -> Vec<Broken> {
    use SectionKind::{BundleChecksums, LinkIndex, ModelShape};
    let recipe = Recipe::small(1, 6).with_copies();
    let file = recipe.build();
    let slots_of = |id: u32| (0..).zip(&recipe.orders[0]).filter(move |(_, own)| **own == id);
    let of_0: Vec<u32> = slots_of(0).map(|(slot, _)| slot).collect();
    let [first, second, third] = of_0[..] else { panic!("three slots: {of_0:?}") };
    let word =
        |kind, at: u32, value| with_section(&file, kind, |body| put(body, at as usize, value));
    // header 32, slot_of_neuron of 6, neuron_of_slot of 9, link_begin of 3, active_count of 9
    let next_at = 32 + 4 * (6 + 9 + 3 + 9);
    vec![
        ("copies-shape-slots.lnp", "R24", "fewer slots than neurons", word(ModelShape, 36, 5)),
        (
            "copies-without-bit.lnp",
            "R24",
            "more slots than neurons, feature bit not set",
            with_superblock(&file, |s| s.feature_incompat = U64::new(0)),
        ),
        (
            "copies-slots-beyond.lnp",
            "R38",
            "more slots than the model shape says",
            word(ModelShape, 36, 8),
        ),
        (
            "copies-slot-lost.lnp",
            "R40",
            "a slot that its neuron does not lead to",
            word(LinkIndex, next_at + 4 * first, third),
        ),
        (
            "copies-descending.lnp",
            "R40",
            "slots of a neuron that lead back",
            word(LinkIndex, next_at + 4 * third, second),
        ),
        (
            "copies-other-neuron.lnp",
            "R40",
            "a neuron that leads to a slot of another",
            word(LinkIndex, 32 + 4, second),
        ),
        (
            "copies-differ.lnp",
            "R53",
            "two slots of a neuron with different bundles",
            with_section(&file, BundleChecksums, |body| body[4 * third as usize] ^= 1),
        ),
    ]
}
