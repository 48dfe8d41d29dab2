//! What is written is read back; what is damaged, cut or made up is refused and never panics.

mod common;

use common::{Recipe, assemble, with_last, with_section, with_superblock, with_table};
use lnp_format::checksum::crc32;
use lnp_format::layout::{SectionEntry, Superblock};
use lnp_format::read::check_superblock;
use lnp_format::{Activation, FormatError, Pack, SectionKind, write};
use proptest::prelude::*;
use zerocopy::byteorder::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

fn parse(file: &[u8]) -> Result<Pack<'_>, FormatError> {
    Pack::parse(file, file.len() as u64)
}

#[test]
fn what_is_written_is_read_back() {
    let recipe = Recipe::small(3, 12);
    let file = recipe.build();
    let pack = parse(&file).unwrap();
    assert_eq!(*pack.shape(), recipe.shape);
    assert_eq!(pack.provenance().order(), "test");
    assert_eq!(pack.layers().count(), 3);
    assert!(pack.layer(3).is_none());
    for (number, layer) in (0..).zip(pack.layers()) {
        for (slot, neuron) in layer.neuron_of_slot().iter().enumerate() {
            assert_eq!(neuron.get(), recipe.orders[number as usize][slot]);
            assert_eq!(layer.slot_of_neuron()[neuron.get() as usize].get(), slot as u32);
            let begin = layer.region_offset() as usize + slot * 256;
            assert_eq!(file[begin..begin + 256], recipe.bundle(number, neuron.get()));
            assert_eq!(layer.bundle_checksums()[slot].get(), crc32(&file[begin..begin + 256]));
        }
        assert_eq!(layer.links(), 2);
        assert_eq!(layer.profile_tokens(), 100);
        assert_eq!(layer.neuron_bias().len(), 12);
        assert_eq!(layer.output_bias()[0].get(), 12.0 / 8.0 + number as f32);
        assert_eq!(layer.region_offset() % 512, 0);
    }
}

#[test]
fn the_index_alone_is_enough() {
    let file = Recipe::small(2, 8).build();
    let index_bytes = parse(&file).unwrap().superblock().index_bytes.get() as usize;
    assert!(index_bytes < file.len());
    assert!(Pack::parse(&file[..index_bytes], file.len() as u64).is_ok());
    assert!(matches!(
        Pack::parse(&file[..index_bytes - 1], file.len() as u64),
        Err(FormatError::Truncated { what: "index", .. })
    ));
}

#[test]
fn every_flipped_bit_of_the_index_is_found() {
    let mut file = Recipe::small(2, 6).build();
    let index_bytes = parse(&file).unwrap().superblock().index_bytes.get() as usize;
    for bit in 0..index_bytes * 8 {
        file[bit / 8] ^= 1 << (bit % 8);
        assert!(parse(&file).is_err(), "bit {bit} flipped, nobody noticed");
        file[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn truncated_at_every_byte() {
    let file = Recipe::small(2, 6).build();
    for length in 0..file.len() {
        assert!(parse(&file[..length]).is_err(), "cut to {length} bytes, nobody noticed");
    }
}

/// A million neurons in a layer, a quarter of a million sections in a table: what took the square of
/// either would keep this test for hours, or minutes at least.
#[cfg_attr(miri, ignore)]
#[test]
fn large_indexes_take_no_square() {
    for (layers, neurons) in [(1, 1 << 20), (1 << 16, 2)] {
        let mut recipe = Recipe::placeholder(layers, neurons, 1);
        (recipe.biases, recipe.block_bytes) = (layers > 1, 512);
        let file = recipe.build();
        let pack = parse(&file).unwrap();
        let (mut layers_found, mut slots) = (0, 0);
        for (number, layer) in (0..).zip(pack.layers()) {
            for neuron in 0..neurons {
                let slot = layer.slot_of_neuron()[neuron as usize].get();
                assert_eq!(recipe.orders[number][slot as usize], neuron);
                slots += 1;
            }
            layers_found += 1;
        }
        assert_eq!((layers_found, slots), (layers, u64::from(layers) * u64::from(neurons)));
    }
}

#[test]
fn unknown_index_and_bulk_sections_are_skipped() {
    let file = Recipe::small(1, 4).build();
    let pack = parse(&file).unwrap();
    let body = |e: &SectionEntry| {
        file[e.offset.get() as usize..(e.offset.get() + e.bytes.get()) as usize].to_vec()
    };
    let mut sections: Vec<_> = pack.sections().iter().map(|e| (*e, body(e))).collect();
    let unknown = |kind: u32, bytes: usize| {
        let mut entry = write::entry(SectionKind::Provenance, 9, 7, bytes as u64);
        entry.kind = U32::new(kind);
        (entry, vec![0x5a; bytes])
    };
    sections.insert(5, unknown(77, 1000));
    sections.push(unknown(300, 5000));
    // a second placement of layer 0, which a reader of this version does not look at
    let mut second = sections[2].clone();
    second.0.placement = U32::new(1);
    sections.insert(3, second);
    let file = assemble(sections, 512, 0);
    let pack = parse(&file).unwrap();
    assert_eq!(pack.layer(0).unwrap().links(), 2);
    // it has no checksums and no region: nothing to be read from
    assert_eq!(pack.placements(), 1);
}

#[test]
fn placements_are_found_where_every_layer_has_them_whole() {
    let recipe = Recipe::small(3, 7).with_replicas(2);
    let file = recipe.build();
    let pack = parse(&file).unwrap();
    assert_eq!(pack.placements(), 3);
    for layer in 0..3 {
        let all = core::iter::once(&recipe.orders).chain(&recipe.replicas);
        for (placement, orders) in (0..).zip(all) {
            let view = pack.placement(layer, placement).unwrap();
            for (slot, neuron) in orders[layer as usize].iter().enumerate() {
                assert_eq!(view.neuron_of_slot()[slot].get(), *neuron);
                let bundle = recipe.bundle(layer, *neuron);
                let at = view.region_offset() as usize + slot * bundle.len();
                assert_eq!(file[at..at + bundle.len()], bundle);
            }
            assert_eq!(view.output_bias()[0].get(), 7.0 / 8.0 + layer as f32);
        }
        assert!(pack.placement(layer, 3).is_none());
    }
    assert!(pack.placement(3, 0).is_none());
}

#[test]
fn a_placement_that_breaks_a_rule_is_not_used_and_no_reason_to_refuse_the_pack() {
    let file = Recipe::small(2, 6).with_replicas(2).build();
    let placements = |file: &[u8]| parse(file).unwrap().placements();
    assert_eq!(placements(&file), 3);
    // a neuron in two slots; links that begin at 1; a count beyond the profile
    for (at, value) in [(32 + 24, 9_u8), (32 + 48, 1), (32 + 48 + 12 + 1, 9)] {
        let broken = with_last(&file, SectionKind::LinkIndex, |body| body[at] = value);
        assert_eq!(placements(&broken), 2, "byte {at}");
    }
    // a bundle that is another than in the first placement
    let broken = with_last(&file, SectionKind::BundleChecksums, |body| body[5] ^= 1);
    assert_eq!(placements(&broken), 2);
}

#[test]
fn broken_rules_are_named() {
    let file = Recipe::small(2, 6).build();
    let field = |file: Vec<u8>| match parse(&file) {
        Err(FormatError::Field { field, .. }) => field,
        Err(FormatError::Missing { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let sealed = |change: fn(&mut Superblock)| with_superblock(&file, change);
    assert_eq!(field(sealed(|s| s.block_bytes = U32::new(768))), "block_bytes");
    assert_eq!(field(sealed(|s| s.index_bytes = s.file_bytes)), "index_bytes");
    assert_eq!(field(sealed(|s| s.section_count = U32::new(u32::MAX))), "section_count");
    assert!(matches!(
        parse(&sealed(|s| s.version_major = U16::new(2))),
        Err(FormatError::Version { found: 2 })
    ));
    assert!(matches!(
        parse(&sealed(|s| s.feature_incompat = U64::new(1 << 40))),
        Err(FormatError::Features { .. })
    ));
    assert!(parse(&sealed(|s| s.feature_compat = U64::new(1 << 40))).is_ok());
    assert!(parse(&sealed(|s| s.version_minor = U16::new(9))).is_ok());
    // a placeholder bit over real weights
    assert_eq!(field(sealed(|s| s.feature_incompat = U64::new(1))), "dtype");

    let table = |change: fn(&mut [SectionEntry])| with_table(&file, change);
    let swapped = table(|t| (t[2].layer, t[3].layer) = (t[3].layer, t[2].layer));
    assert_eq!(field(swapped), "kind");
    assert_eq!(field(table(|t| t[1].offset = U64::new(u64::MAX - 10))), "offset");
    assert_eq!(field(table(|t| t[9].bytes = U64::new(u64::MAX))), "bytes");
    assert_eq!(field(table(|t| t[2].layer = U32::new(0xffff_fff0))), "kind");
    assert_eq!(field(table(|t| t[9].layer = U32::new(5))), "layer");
    assert_eq!(field(table(|t| t[7].placement = U32::new(1))), "bundle_checksums");

    let index = |at: usize, value: u32| {
        with_section(&file, SectionKind::LinkIndex, |body| {
            body[at..at + 4].copy_from_slice(&value.to_le_bytes());
        })
    };
    assert_eq!(field(index(0, 7)), "link_index"); // neurons: the arrays no longer fit
    assert_eq!(field(index(32 + 24, 3)), "neuron_of_slot");
    assert_eq!(field(index(32 + 24, u32::MAX)), "neuron_of_slot");
    assert_eq!(field(index(32 + 48, 1)), "link_begin");
    assert_eq!(field(index(32 + 52, 0)), "link_begin");
    assert_eq!(field(index(32 + 56, 5)), "link_begin");
    assert_eq!(field(index(32 + 60, 101)), "active_count");
    let text = with_section(&file, SectionKind::Provenance, |body| body[0] = b'z');
    assert_eq!(field(text), "provenance");
}

#[test]
fn copies_are_read_back() {
    for recipe in [Recipe::small(3, 12), Recipe::small(2, 7).with_replicas(1), Recipe::small(1, 1)]
    {
        let recipe = recipe.with_copies();
        let file = recipe.build();
        let pack = parse(&file).unwrap();
        assert_eq!(*pack.shape(), recipe.shape);
        assert_eq!(pack.placements() as usize, 1 + recipe.replicas.len());
        for (placement, orders) in
            (0..).zip(std::iter::once(&recipe.orders).chain(&recipe.replicas))
        {
            for (layer, order) in (0..).zip(orders) {
                let view = pack.placement(layer, placement).unwrap();
                assert_eq!(view.slots() as usize, order.len());
                for neuron in 0..recipe.shape.neurons {
                    let slots: Vec<u32> = view.slots_of(neuron).collect();
                    let held = (0..).zip(order).filter(|(_, id)| **id == neuron);
                    assert_eq!(slots, held.map(|(slot, _)| slot).collect::<Vec<u32>>());
                    assert_eq!(view.slot_of_neuron()[neuron as usize].get(), slots[0]);
                    assert_eq!(view.checksum(neuron), Some(crc32(&recipe.bundle(layer, neuron))));
                    for slot in slots {
                        let at = (view.region_offset() + u64::from(slot) * 256) as usize;
                        assert_eq!(file[at..at + 256], recipe.bundle(layer, neuron));
                    }
                }
                assert_eq!(view.slots_of(recipe.shape.neurons).count(), 0);
            }
        }
    }
}

#[test]
fn broken_rules_of_copies_are_named() {
    // neurons 0 to 5; 0 and 3 have a second slot, 0 a third: 9 slots
    let recipe = Recipe::small(1, 6).with_copies();
    let (order, file) = (&recipe.orders[0], recipe.build());
    let (n, s, links) = (6, order.len(), 3);
    assert_eq!(s, 9);
    let field = |file: Vec<u8>| match parse(&file) {
        Err(FormatError::Field { field, .. }) => field,
        Err(FormatError::Missing { what, .. } | FormatError::NotZero { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let index = |word: usize, value: u32| {
        with_section(&file, SectionKind::LinkIndex, |body| {
            body[4 * word..4 * word + 4].copy_from_slice(&value.to_le_bytes());
        })
    };
    let (slots_at, header) = (4, 8);
    let (ids_at, counts_at) = (header + n, header + n + s + links);
    let nexts_at = counts_at + s;
    assert_eq!(field(index(slots_at, 8)), "link_index"); // the arrays no longer fit
    assert_eq!(field(index(slots_at + 1, 1)), "link_index_header.reserved");
    let slots_of = |id: u32| -> Vec<usize> { (0..s).filter(|slot| order[*slot] == id).collect() };
    let (of_0, of_1) = (slots_of(0), slots_of(1));
    assert_eq!((of_0.len(), of_1.len()), (3, 1));
    // begins at its second slot: the first is visited by no walk
    assert_eq!(field(index(header, of_0[1] as u32)), "neuron_of_slot");
    assert_eq!(field(index(header, of_1[0] as u32)), "slot_of_neuron");
    assert_eq!(field(index(header, s as u32)), "slot_of_neuron");
    assert_eq!(field(index(ids_at + of_0[1], 1)), "next_slot");
    assert_eq!(field(index(nexts_at + of_0[0], of_0[0] as u32)), "next_slot");
    assert_eq!(field(index(nexts_at + of_0[1], of_0[0].max(1) as u32)), "next_slot");
    assert_eq!(field(index(nexts_at + of_0[0], of_0[2] as u32)), "neuron_of_slot");
    assert_eq!(field(index(nexts_at + of_0[0], u32::MAX)), "next_slot");
    assert_eq!(field(index(nexts_at + of_1[0], of_0[2] as u32)), "next_slot");
    assert_eq!(field(index(ids_at + s + links - 1, 6)), "link_begin");
    assert_eq!(field(index(counts_at + s - 1, 101)), "active_count");
    let sums = with_section(&file, SectionKind::BundleChecksums, |b| b[4 * of_0[2]] ^= 1);
    assert_eq!(field(sums), "bundle_checksums");
    let shape = |value: u32| {
        with_section(&file, SectionKind::ModelShape, |body| {
            body[36..40].copy_from_slice(&value.to_le_bytes());
        })
    };
    assert_eq!(field(shape(5)), "slots");
    assert_eq!(field(shape(8)), "slots");
    assert_eq!(field(shape(0)), "slots");
    assert_eq!(field(shape(1 << 25)), "slots");
    assert!(parse(&shape(10)).is_ok());
    let without_bit = with_superblock(&file, |s| s.feature_incompat = U64::new(0));
    assert_eq!(field(without_bit), "slots");
    let with_bit = |file: &[u8]| with_superblock(file, |s| s.feature_incompat = U64::new(4));
    assert_eq!(field(with_bit(&Recipe::small(1, 6).build())), "slots");
    // of a further placement: it is not used
    let file = Recipe::small(2, 6).with_replicas(1).with_copies().build();
    let broken = with_last(&file, SectionKind::LinkIndex, |body| body[4 * nexts_at] ^= 1);
    assert_eq!(parse(&file).unwrap().placements(), 2);
    assert_eq!(parse(&broken).unwrap().placements(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 400 }))]
    /// Bytes changed anywhere in the index, all checksums made to fit: an error or a valid pack,
    /// never a panic, and what comes out is a permutation whatever went in.
    #[test]
    fn mutated_packs_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        copies in any::<bool>(),
    ) {
        let recipe = Recipe::small(2, 6).with_predictors();
        let recipe = if copies { recipe.with_copies() } else { recipe };
        let mut file = recipe.build();
        let index_bytes = parse(&file).unwrap().superblock().index_bytes.get() as usize;
        for (at, value) in &changes {
            file[at.index(index_bytes)] = *value;
        }
        let count = Superblock::ref_from_prefix(&file).unwrap().0.section_count.get().min(15) as usize;
        let entries = <[SectionEntry]>::ref_from_bytes(&file[4096..4096 + 48 * count]).unwrap().to_vec();
        for (number, entry) in entries.iter().enumerate() {
            let begin = entry.offset.get() as usize;
            if let Some(body) = begin.checked_add(entry.bytes.get() as usize).and_then(|end| file.get(begin..end)) {
                let crc = crc32(body);
                file[4096 + 48 * number + 12..][..4].copy_from_slice(&crc.to_le_bytes());
            }
        }
        let crc = crc32(&file[4096..4096 + 48 * count]);
        let file = with_superblock(&file, |s| s.section_table_crc = U32::new(crc));
        if let Ok(pack) = parse(&file) {
            for layer in pack.layers() {
                for (slot, neuron) in layer.neuron_of_slot().iter().enumerate() {
                    prop_assert!(layer.slots_of(neuron.get()).any(|own| own as usize == slot));
                }
                let slots = (0..pack.shape().neurons).flat_map(|id| layer.slots_of(id));
                prop_assert_eq!(slots.count(), layer.slots() as usize);
            }
            for (layer, horizon, predictor) in pack.predictors() {
                prop_assert!(layer < pack.shape().layers && horizon <= layer);
                prop_assert_eq!(predictor.offsets(0).len(), pack.shape().neurons as usize);
            }
        }
        let _ = check_superblock(&file[..cut.index(file.len())], file.len() as u64);
    }
}

#[test]
fn errors_read_as_one_clear_line() {
    let file = Recipe::small(1, 4).build();
    assert_eq!(
        parse(b"GGUF").unwrap_err().to_string(),
        "superblock at byte 0 needs 4096 bytes, only 4 are there"
    );
    let mut other = file.clone();
    other[..4].copy_from_slice(b"GGUF");
    assert!(parse(&other).unwrap_err().to_string().starts_with("not a linked neuron pack"));
    let mut damaged = file.clone();
    damaged[100] = 1;
    assert!(parse(&damaged).unwrap_err().to_string().contains("checksum of superblock at byte 0"));
    assert!(file.as_bytes().len() > 4096);
}

/// The field that is refused where a word of the first side data is another.
fn field(file: &[u8], at: usize, value: u32) -> &'static str {
    let broken = with_section(file, SectionKind::SideData, |body| {
        body[at..at + 4].copy_from_slice(&value.to_le_bytes());
    });
    match parse(&broken) {
        Err(FormatError::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn side_data_of_every_kind_is_read_back_and_its_rules_are_named() {
    let mut recipe = Recipe::small(2, 7);
    (recipe.shape.parts, recipe.shape.bundle_stride) = (3, 384);
    recipe.up_bias_and_norm = true;
    let file = recipe.build();
    let pack = parse(&file).unwrap();
    for (number, layer) in (0..).zip(pack.layers()) {
        let value = |at: usize| at as f32 / 8.0 + number as f32;
        let is = |found: &[zerocopy::byteorder::F32<zerocopy::byteorder::LE>],
                  first: usize,
                  count| {
            found.len() == count && (first..).zip(found).all(|(at, found)| found.get() == value(at))
        };
        assert!(is(layer.neuron_bias(), 0, 7));
        assert!(is(layer.output_bias(), 7, 32));
        assert!(is(layer.up_bias(), 39, 7));
        let (weights, eps) = layer.down_norm().unwrap();
        assert!(is(weights, 46, 7) && eps == 0.5);
    }
    let plain = Recipe::small(1, 7).build();
    assert!(parse(&plain).unwrap().layer(0).unwrap().down_norm().is_none());
    assert_eq!(field(&file, 0, 31), "arrays");
    // of two parts there are no biases of up rows of their own; and no epsilon without a norm
    assert_eq!(field(&plain, 0, 7), "arrays");
    assert_eq!(field(&plain, 4, 1), "norm_eps");
    assert_eq!(field(&file, 4, f32::NAN.to_bits()), "norm_eps");
    assert_eq!(field(&file, 4, (-1.0_f32).to_bits()), "norm_eps");
    assert_eq!(field(&file, 0, 7), "norm_eps");
}

#[test]
fn layers_may_have_activations_of_their_own() {
    let topk = (Activation::GaussianTopk, 1.5);
    let own = Some(topk);
    for biases in [true, false] {
        let mut recipe = Recipe::small(3, 7);
        (recipe.biases, recipe.activations) = (biases, vec![own, None]);
        let file = recipe.build();
        let pack = parse(&file).unwrap();
        let found: Vec<_> = pack.layers().map(|layer| layer.activation()).collect();
        let relu = (Activation::Relu, 0.0);
        assert_eq!(found, [topk, relu, relu]);
    }
    let mut recipe = Recipe::small(1, 7);
    let plain = recipe.build();
    recipe.activations = vec![own];
    let file = recipe.build();
    assert_eq!(field(&file, 8, 99), "activation");
    // relu has no threshold, and none is none
    assert_eq!(field(&file, 8, Activation::Relu.code()), "activation_threshold");
    assert_eq!(field(&file, 8, 0), "activation_threshold");
    assert_eq!(field(&file, 12, f32::INFINITY.to_bits()), "activation_threshold");
    // without the feature bit there is no such thing
    assert_eq!(field(&plain, 8, Activation::Relu2.code()), "activation");
    let without = with_superblock(&file, |superblock| superblock.feature_incompat.set(0));
    assert!(parse(&without).is_err());
}
