//! What the pack's predictors name is what section 9.2 of the specification says, computed here from the section's
//! bytes in f64; and an FFN that asks them does what one does that is told the sets.

#[path = "../../format/tests/common/mod.rs"]
mod common;
mod support;

use common::Recipe;
use common::predictor::{POINTS_AT, PredictorRecipe};
use half::f16;
use lnp_engine::engine::Alone;
use lnp_engine::ffn::Ffn;
use lnp_engine::predictors::{Predictors, rank_bound, rank_max};
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::{Combine, Config, DeviceLaw, Engine, EngineError, required_bytes};
use lnp_format::{Pack, PredictorKind, PredictorNumbers};
use lnp_kernels::{CpuFeatures, TOKENS_MAX};
use support::Dice;

const NEURONS: u32 = 70;
const HIDDEN: u32 = 96;

/// A reader of sections that knows nothing but the specification's text.
struct Oracle {
    recipe: PredictorRecipe,
    bytes: Vec<u8>,
}

impl Oracle {
    fn new(recipe: PredictorRecipe) -> Self {
        Self { recipe, bytes: recipe.build() }
    }

    fn f32_at(&self, at: usize) -> f64 {
        f32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap()).into()
    }

    fn f16_at(&self, at: usize) -> f64 {
        f16::from_le_bytes(self.bytes[at..at + 2].try_into().unwrap()).to_f64()
    }

    /// Number `i` of the row that begins at a byte.
    fn number(&self, row: usize, i: usize) -> f64 {
        let block = |bytes: usize| row + i / 32 * bytes;
        let code = |bits: usize| {
            let block = block(2 + 4 * bits);
            let (byte, shift) = (block + 2 + i % 32 * bits / 8, i % 32 * bits % 8);
            let code = u32::from(self.bytes[byte] >> shift) & ((1 << bits) - 1);
            self.f16_at(block) * (2.0 * f64::from(code) + 1.0 - f64::from(1 << bits))
        };
        match self.recipe.numbers {
            PredictorNumbers::F32 => self.f32_at(row + 4 * i),
            PredictorNumbers::F16 => self.f16_at(row + 2 * i),
            PredictorNumbers::Q8_0 => {
                let number = self.bytes[block(34) + 2 + i % 32].cast_signed();
                self.f16_at(block(34)) * f64::from(number)
            }
            PredictorNumbers::Bits1 => code(1),
            PredictorNumbers::Bits2 => code(2),
            PredictorNumbers::Bits4 => code(4),
            PredictorNumbers::Bits8 => code(8),
        }
    }

    /// Products with a matrix at a byte, and how large their sums are in magnitudes.
    fn times(&self, at: usize, rows: usize, x: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let row_bytes = self.recipe.numbers.row_bytes(x.len() as u64) as usize;
        let product = |row: usize| {
            let begin = at + row * row_bytes;
            x.iter().enumerate().fold((0.0, 0.0), |(sum, size), (i, (value, of_value))| {
                let weight = self.number(begin, i);
                (sum + weight * value, size + weight.abs() * of_value)
            })
        };
        (0..rows).map(product).collect()
    }

    /// Where the scales of strength are, where there are any.
    fn scales_at(&self) -> usize {
        let recipe = &self.recipe;
        let lists = if recipe.by_neuron { recipe.points } else { 1 };
        POINTS_AT + 32 * recipe.points as usize + 2 * (recipe.neurons * lists) as usize
    }

    /// What a neuron's strength is estimated as, and what rounding may do to it, from its margin at a point.
    fn strength(&self, neuron: u32, point: usize, (margin, size): (f64, f64)) -> (f64, f64) {
        let threshold = self.f32_at(POINTS_AT + 32 * point + 4);
        let scale = self.f16_at(self.scales_at() + 2 * neuron as usize);
        ((margin + threshold).max(0.0) * scale, 0.02 * size * scale + 1e-6)
    }

    /// Scores at an operating point less its threshold, each with the size of what was added up.
    fn margins(&self, x: &[f32], point: usize) -> Vec<(f64, f64)> {
        let recipe = &self.recipe;
        let (neurons, rank, points) =
            (recipe.neurons as usize, recipe.rank as usize, recipe.points as usize);
        let offsets = POINTS_AT + 32 * points;
        let bias = self.scales_at() + if recipe.strength_scales { 2 * neurons } else { 0 };
        let first = bias + if recipe.reduce_bias { 4 * rank } else { 0 };
        let x: Vec<(f64, f64)> =
            x.iter().map(|value| (f64::from(*value), f64::from(value.abs()))).collect();
        let scores = match recipe.kind {
            PredictorKind::Rows => self.times(first, neurons, &x),
            PredictorKind::LowRank => {
                let mut between = self.times(first, rank, &x);
                for (at, (value, size)) in between.iter_mut().enumerate() {
                    if recipe.reduce_bias {
                        let added = self.f32_at(bias + 4 * at);
                        (*value, *size) = (*value + added, *size + added.abs());
                    }
                    if recipe.relu_between {
                        *value = value.max(0.0);
                    }
                }
                let second = first + rank * recipe.numbers.row_bytes(recipe.hidden.into()) as usize;
                self.times(second, neurons, &between)
            }
        };
        let threshold = self.f32_at(POINTS_AT + 32 * point + 4);
        let list = offsets + 2 * neurons * if recipe.by_neuron { point } else { 0 };
        let scores = scores.into_iter().enumerate();
        scores
            .map(|(n, (score, size))| (score + self.f16_at(list + 2 * n) - threshold, size))
            .collect()
    }
}

fn recipes() -> impl Iterator<Item = PredictorRecipe> {
    let numbers = [
        PredictorNumbers::F32,
        PredictorNumbers::F16,
        PredictorNumbers::Q8_0,
        PredictorNumbers::Bits1,
        PredictorNumbers::Bits2,
        PredictorNumbers::Bits4,
        PredictorNumbers::Bits8,
    ];
    numbers.into_iter().flat_map(|numbers| {
        let low_rank = PredictorRecipe::low_rank(numbers, NEURONS, HIDDEN, 64);
        [
            low_rank,
            PredictorRecipe { relu_between: true, by_neuron: true, points: 3, ..low_rank },
            PredictorRecipe {
                relu_between: true,
                reduce_bias: true,
                strength_scales: true,
                ..low_rank
            },
            PredictorRecipe {
                points: 5,
                strength_scales: true,
                ..PredictorRecipe::rows(numbers, NEURONS, HIDDEN)
            },
        ]
    })
}

fn pack_with(predictors: Vec<(u32, u32, Vec<u8>)>) -> Vec<u8> {
    let mut recipe = Recipe::small(2, NEURONS);
    recipe.shape.hidden = HIDDEN;
    recipe.shape.bundle_stride = 8 * HIDDEN;
    recipe.predictors = predictors;
    recipe.build()
}

fn memory(pack: &Pack<'_>, features: CpuFeatures, tokens: usize) -> Vec<u8> {
    let needed = Predictors::required_bytes(pack.shape(), rank_max(pack), features, tokens);
    vec![0x5a; needed.unwrap()]
}

#[test]
fn what_is_named_is_what_the_specification_says() {
    let features = lnp_engine::sys::cpu::detect();
    let mut dice = Dice::new(9);
    let (mut sure, mut named) = (0_u64, 0_u64);
    for recipe in recipes() {
        let oracle = Oracle::new(recipe);
        let file = pack_with(vec![(1, 1, oracle.bytes.clone())]);
        let pack = Pack::parse(&file, file.len() as u64).unwrap();
        let mut own = memory(&pack, features, TOKENS_MAX);
        let mut predictors =
            Predictors::new(pack.shape(), rank_max(&pack), features, TOKENS_MAX, &mut own).unwrap();
        for tokens in 1..=TOKENS_MAX {
            let values = HIDDEN as usize * tokens;
            let x: Vec<f32> =
                (0..values).map(|_| dice.below(2000) as f32 / 20_000.0 - 0.05).collect();
            let point = dice.below(recipe.points) as usize;
            let quality = (point + 1) as f32 / recipe.points as f32;
            let predicted = predictors.predict(&pack, (1, 1), quality, &x).unwrap();
            assert_eq!(predicted.sets().len(), tokens);
            let strengths: Vec<&[f32]> = match recipe.strength_scales {
                true => predicted.strengths().to_vec(),
                false => vec![&[][..]; tokens],
            };
            let told = predicted.sets().iter().zip(strengths);
            for ((set, strengths), x) in told.zip(x.chunks(HIDDEN as usize)) {
                assert!(set.is_sorted_by(|a, b| a < b));
                named += set.len() as u64;
                assert!(!recipe.strength_scales || strengths.len() == set.len());
                let margins = oracle.margins(x, point);
                for (neuron, strength) in set.iter().zip(strengths) {
                    let margin = margins[*neuron as usize];
                    let (expected, tolerance) = oracle.strength(*neuron, point, margin);
                    assert!((f64::from(*strength) - expected).abs() <= tolerance, "{neuron}");
                }
                for (neuron, (margin, size)) in (0..).zip(margins) {
                    // what rounding inputs to 8 bits, or sums to f32, may do
                    if margin.abs() > 0.02 * size {
                        assert_eq!(set.contains(&neuron), margin > 0.0, "{:?}", recipe.numbers);
                        sure += 1;
                    }
                }
            }
        }
    }
    let all = 28 * 36 * u64::from(NEURONS);
    assert!(sure > all / 2 && named > all / 10 && named < all * 9 / 10, "{sure} {named} of {all}");
}

#[test]
fn an_ffn_that_asks_does_what_one_does_that_is_told() {
    let features = lnp_engine::sys::cpu::detect();
    let low_rank = PredictorRecipe::low_rank(PredictorNumbers::Q8_0, NEURONS, HIDDEN, 32);
    let rows = PredictorRecipe::rows(PredictorNumbers::Bits4, NEURONS, HIDDEN);
    let file = pack_with(vec![(0, 0, low_rank.build()), (1, 0, rows.build())]);
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let law = DeviceLaw::new(10.0, 9.64, 2034.0, Combine::Sum).unwrap();
    let config = Config { cache_bundles: 20, ..Config::new(&pack) };
    let mut arena = vec![0; required_bytes(&config, &pack).unwrap()];
    let device = SimulatedQueue::new(Image::Bytes(&file), law, 8, 1);
    let mut engine =
        Engine::open(pack, &config, &mut arena, |_| Ok::<_, EngineError>(device)).unwrap();
    let needed = Ffn::required_bytes(pack.shape(), features, TOKENS_MAX).unwrap();
    let mut ffn_memory = vec![0; needed];
    let mut ffn = Ffn::new(pack.shape(), features, TOKENS_MAX, &mut ffn_memory).unwrap();
    let mut own = memory(&pack, features, 3);
    let mut predictors =
        Predictors::new(pack.shape(), rank_max(&pack), features, 3, &mut own).unwrap();
    let mut dice = Dice::new(2);
    for round in 0..20_usize {
        let (layer, tokens) = (round as u32 % 2, round % 3 + 1);
        let x: Vec<f32> =
            (0..tokens * HIDDEN as usize).map(|_| dice.below(2000) as f32 / 1e4 - 0.1).collect();
        let sets: Vec<Vec<u32>> = predictors
            .predict(&pack, (layer, 0), 0.5, &x)
            .unwrap()
            .sets()
            .iter()
            .map(|set| set.to_vec())
            .collect();
        let told: Vec<&[u32]> = sets.iter().map(Vec::as_slice).collect();
        let (mut y, mut expected) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
        engine.session(|session| {
            let by = (&mut predictors, 0.5);
            ffn.forward_predicted(session, &Alone, by, layer, &x, &mut y).unwrap();
            ffn.forward_in(session, &Alone, layer, &x, &told, &mut expected).unwrap();
        });
        assert!(y.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

#[test]
fn what_cannot_be_is_an_error() {
    let features = lnp_engine::sys::cpu::detect();
    let recipe = PredictorRecipe::low_rank(PredictorNumbers::F16, NEURONS, HIDDEN, 64);
    let file = pack_with(vec![(1, 0, recipe.build())]);
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    assert_eq!(rank_max(&pack), 64);
    let index_bytes = pack.superblock().index_bytes.get();
    assert!(rank_bound(pack.shape(), index_bytes) >= 64);
    let mut own = memory(&pack, features, 2);
    let short = own.len() - 1;
    assert!(matches!(
        Predictors::new(pack.shape(), 64, features, 2, &mut own[..short]),
        Err(EngineError::ArenaTooSmall { .. })
    ));
    for tokens in [0, TOKENS_MAX + 1] {
        let found = Predictors::required_bytes(pack.shape(), 64, features, tokens);
        assert!(matches!(found, Err(EngineError::Config { field: "tokens_max", .. })));
    }
    let mut predictors = Predictors::new(pack.shape(), 64, features, 2, &mut own).unwrap();
    for (layer, horizon) in [(0, 0), (1, 1), (7, 0)] {
        let found = predictors.predict(&pack, (layer, horizon), 1.0, &[0.0; 96]).unwrap_err();
        assert_eq!(found, EngineError::NoPredictor { layer, horizon });
    }
    for values in [0, 95, 97, 3 * 96] {
        let found = predictors.predict(&pack, (1, 0), 1.0, &vec![0.0; values]);
        assert!(matches!(found, Err(EngineError::Kernel(_))), "{values}");
    }
    // one that was made for less
    let mut own = memory(&pack, features, 2);
    let mut lower = Predictors::new(pack.shape(), 32, features, 2, &mut own).unwrap();
    let found = lower.predict(&pack, (1, 0), 1.0, &[0.0; 96]).unwrap_err();
    assert_eq!(found, EngineError::OtherShape);
    // nothing is above a threshold that is not a number's to reach
    assert!(predictors.predict(&pack, (1, 0), 1.0, &[f32::NAN; 96]).unwrap().sets()[0].is_empty());
}

/// What is sized before the index is read has room for every rank that an index of this length can hold.
#[test]
fn no_rank_is_above_the_bound() {
    for numbers in [PredictorNumbers::Bits1, PredictorNumbers::F32] {
        for rank in [32, 320] {
            let recipe = PredictorRecipe::low_rank(numbers, 5, 32, rank);
            let mut small = Recipe::small(1, 5);
            small.predictors = vec![(0, 0, recipe.build())];
            let file = small.build();
            let pack = Pack::parse(&file, file.len() as u64).unwrap();
            let bound = rank_bound(pack.shape(), pack.superblock().index_bytes.get());
            assert!(rank_max(&pack) == rank && bound >= rank, "{bound} of {rank}");
        }
    }
}
