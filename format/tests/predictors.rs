//! Predictors in a pack: read back as they were written, refused where they break a rule, skipped where they
//! are of a kind to come.

mod common;

use common::predictor::{POINTS_AT, PredictorRecipe};
use common::{Recipe, with_last, with_section, with_table};
use lnp_format::layout::SectionEntry;
use lnp_format::{
    FormatError, Pack, Predictor, PredictorBody, PredictorKind, PredictorNumbers, SectionKind,
};
use zerocopy::byteorder::U32;

const NUMBERS: [PredictorNumbers; 7] = [
    PredictorNumbers::F32,
    PredictorNumbers::F16,
    PredictorNumbers::Q8_0,
    PredictorNumbers::Bits1,
    PredictorNumbers::Bits2,
    PredictorNumbers::Bits4,
    PredictorNumbers::Bits8,
];

fn parse(file: &[u8]) -> Result<Pack<'_>, FormatError> {
    Pack::parse(file, file.len() as u64)
}

/// A pack of one layer, five neurons wide, with this predictor.
fn one(predictor: &PredictorRecipe) -> Vec<u8> {
    let mut recipe = Recipe::small(1, 5);
    recipe.shape.hidden = predictor.hidden;
    recipe.shape.bundle_stride = 8 * predictor.hidden;
    recipe.predictors = vec![(0, 0, predictor.build())];
    recipe.build()
}

#[test]
fn every_kind_is_read_back() {
    for numbers in NUMBERS {
        for (hidden, rank) in [(32, 0), (96, 0), (32, 32), (96, 64)] {
            for by_neuron in [false, true] {
                let mut recipe = match rank {
                    0 => PredictorRecipe::rows(numbers, 5, hidden),
                    _ => PredictorRecipe::low_rank(numbers, 5, hidden, rank),
                };
                (recipe.points, recipe.by_neuron) = (3, by_neuron);
                (recipe.relu_between, recipe.reduce_bias) = (rank > 0, rank == 64);
                recipe.strength_scales = hidden == 96;
                read_back(&recipe);
            }
        }
    }
}

fn read_back(recipe: &PredictorRecipe) {
    let (file, written) = (one(recipe), recipe.build());
    let pack = parse(&file).unwrap();
    let predictor = pack.predictor(0, 0).unwrap();
    assert_eq!(predictor.numbers(), recipe.numbers);
    assert_eq!(predictor.relu_between(), recipe.relu_between);
    assert_eq!(predictor.by_neuron(), recipe.by_neuron);
    let qualities: Vec<f32> = predictor.points().iter().map(|point| point.quality.get()).collect();
    assert_eq!(qualities, [1.0 / 3.0, 2.0 / 3.0, 1.0]);
    for (quality, point) in [(0.0, 0), (0.5, 1), (0.75, 2), (1.0, 2), (2.0, 2), (f32::NAN, 2)] {
        assert_eq!(predictor.point_of(quality), point, "{quality}");
    }
    // by the section's own account of where its arrays are
    let (neurons, row) = (5, |columns: u32| recipe.numbers.row_bytes(columns.into()) as usize);
    let lists = if recipe.by_neuron { 3 } else { 1 };
    let mut at = POINTS_AT + 3 * 32;
    for point in 0..4 {
        let list = if recipe.by_neuron { point } else { 0 };
        let expected = &written[at + 2 * neurons * list..];
        let found: Vec<u8> =
            predictor.offsets(point).iter().flat_map(|offset| offset.get().to_le_bytes()).collect();
        let there = list < lists;
        assert_eq!(found, expected[..if there { 2 * neurons } else { 0 }], "point {point}");
    }
    at += 2 * neurons * lists;
    let scales = if recipe.strength_scales { neurons } else { 0 };
    let expected = &written[at..at + 2 * scales];
    let found: Vec<u8> =
        predictor.strength_scales().iter().flat_map(|scale| scale.get().to_le_bytes()).collect();
    assert_eq!(found, expected);
    at += 2 * scales;
    let bytes = predictor.bytes() as usize;
    match predictor.body() {
        PredictorBody::Rows(rows) => {
            assert_eq!(recipe.kind, PredictorKind::Rows);
            assert_eq!(rows, &written[at..]);
            assert_eq!(rows.len(), neurons * row(recipe.hidden));
            assert_eq!(bytes, rows.len() + 2 * neurons + 2 * scales);
        }
        PredictorBody::LowRank { rank, reduce, expand, reduce_bias } => {
            assert_eq!(rank, recipe.rank);
            let biases = if recipe.reduce_bias { rank as usize } else { 0 };
            let told = (0..biases).map(|at| at as f32 / 4.0);
            assert!(told.eq(reduce_bias.iter().map(|bias| bias.get())));
            at += 4 * biases;
            let reduce_bytes = rank as usize * row(recipe.hidden);
            assert_eq!(reduce, &written[at..at + reduce_bytes]);
            assert_eq!(expand, &written[at + reduce_bytes..]);
            assert_eq!(expand.len(), neurons * row(rank));
            let lists = 2 * neurons + 2 * scales;
            assert_eq!(bytes, reduce_bytes + expand.len() + 4 * biases + lists);
        }
    }
}

#[test]
fn layers_and_horizons_are_told_apart() {
    let file = Recipe::small(5, 7).with_predictors().build();
    let pack = parse(&file).unwrap();
    let told: Vec<_> = pack.predictors().map(|(layer, horizon, _)| (layer, horizon)).collect();
    assert_eq!(told, [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (4, 0), (4, 1)]);
    assert!(pack.predictor(0, 1).is_none());
    assert!(pack.predictor(5, 0).is_none());
    assert!(matches!(pack.predictor(1, 0).unwrap().body(), PredictorBody::Rows(_)));
    assert!(matches!(pack.predictor(1, 1).unwrap().body(), PredictorBody::LowRank { .. }));
    assert_eq!(pack.predictor(3, 0).unwrap().numbers(), PredictorNumbers::F32);
}

#[test]
fn broken_rules_are_named() {
    let low_rank = PredictorRecipe::low_rank(PredictorNumbers::Q8_0, 5, 32, 32);
    let field = |file: &[u8]| match parse(file) {
        Err(FormatError::Field { field, .. }) => field,
        Err(FormatError::NotZero { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let file = one(&low_rank);
    let put = |at: usize, value: u32| {
        with_section(&file, SectionKind::Predictor, |body| {
            body[at..at + 4].copy_from_slice(&value.to_le_bytes());
        })
    };
    for (at, value, name) in [
        (8, 6, "neurons"),
        (12, 64, "hidden"),
        (16, 0, "rank"),
        (16, 33, "rank"),
        (16, 64, "predictor"),
        (16, 1 << 21, "rank"),
        (20, 2, "predictor"),
        (20, 4, "predictor"),
        (24, 0, "points"),
        (24, 65, "points"),
        (24, 1, "predictor"),
        (28, 0, "offsets"),
        (28, 3, "offsets"),
        (28, 2, "predictor"),
        (60, 1, "predictor_header.reserved"),
        (POINTS_AT, f32::NAN.to_bits(), "quality"),
        (POINTS_AT, (-1.0_f32).to_bits(), "quality"),
        (POINTS_AT, 1.0_f32.to_bits(), "quality"), // the next one is no higher
        (POINTS_AT + 4, f32::INFINITY.to_bits(), "threshold"),
        (POINTS_AT + 8, 1.5_f32.to_bits(), "recall"),
        (POINTS_AT + 12, (-1.0_f32).to_bits(), "reads_per_active"),
        (POINTS_AT + 12, f32::INFINITY.to_bits(), "reads_per_active"),
        (POINTS_AT + 16, f32::NAN.to_bits(), "share_kept"),
        (POINTS_AT + 28, 1 << 24, "operating_point.reserved"),
    ] {
        assert_eq!(field(&put(at, value)), name, "{value:#x} at {at}");
    }
    // standing by itself as well
    let (shape, mut section) = (*parse(&file).unwrap().shape(), low_rank.build());
    let alone = Predictor::of_section(&section, &shape).unwrap().unwrap();
    assert_eq!(alone.bytes(), parse(&file).unwrap().predictor(0, 0).unwrap().bytes());
    assert!(Predictor::of_section(&section[..100], &shape).is_err());
    section[0] = 9;
    assert!(Predictor::of_section(&section, &shape).unwrap().is_none());
    // a layer that there is not, a horizon before the first layer
    let table = |change: fn(&mut SectionEntry)| {
        with_table(&file, |table| {
            let predictor = |e: &&mut SectionEntry| e.kind.get() == SectionKind::Predictor.code();
            change(table.iter_mut().find(predictor).unwrap());
        })
    };
    assert_eq!(field(&table(|entry| entry.layer = U32::new(1))), "layer");
    assert_eq!(field(&table(|entry| entry.placement = U32::new(1))), "placement");

    let rows = one(&PredictorRecipe::rows(PredictorNumbers::Bits4, 5, 32));
    for (at, value, name) in [(16, 32, "rank"), (20, 1, "flags"), (20, 4, "predictor")] {
        let broken = with_section(&rows, SectionKind::Predictor, |body| body[at] = value);
        assert_eq!(field(&broken), name);
    }
    let mut placeholder = Recipe::placeholder(1, 5, 100);
    placeholder.predictors = vec![(0, 0, low_rank.build())];
    assert_eq!(field(&placeholder.build()), "kind");
    // shorter than its header
    let mut short = Recipe::small(1, 5);
    short.predictors = vec![(0, 0, low_rank.build()[..63].to_vec())];
    assert_eq!(field(&short.build()), "predictor");
}

/// What a later version may add is no reason to refuse the pack, whatever the rest of the section holds.
#[test]
fn predictors_of_kinds_to_come_are_skipped() {
    let file = Recipe::small(2, 5).with_predictors().build();
    for (at, value) in [(0, 3_u8), (4, 3), (4, 19), (20, 8)] {
        let later = with_last(&file, SectionKind::Predictor, |body| {
            body[at] = value;
            body[8..16].fill(0x77);
            body[63] = 1;
        });
        let pack = parse(&later).unwrap();
        assert!(pack.predictor(1, 1).is_none(), "{value} at {at}");
        assert!(pack.predictor(1, 0).is_some());
        assert_eq!(pack.predictors().count(), 2);
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let mut file = Recipe::small(2, 3).with_predictors().build();
    let index_bytes = parse(&file).unwrap().superblock().index_bytes.get() as usize;
    for bit in (0..index_bytes * 8).step_by(if cfg!(miri) { 9973 } else { 1 }) {
        file[bit / 8] ^= 1 << (bit % 8);
        assert!(parse(&file).is_err(), "bit {bit} flipped, nobody noticed");
        file[bit / 8] ^= 1 << (bit % 8);
    }
}
