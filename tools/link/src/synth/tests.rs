//! Against naive counts over plain bools, and against what the model promises.

use std::collections::HashSet;

use proptest::prelude::*;

use super::draw::{source_tokens, templates};
use super::kin::{KIN, Kin, PARTNERS};
use super::population::ONE;
use super::statistics::{NAMES, TracedLayer};
use super::*;
use crate::LayerActivity;
use crate::testing::{SmallTrace, small_traces};

fn random(seed: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(seed)
}

/// Tokens of topics: neurons of a topic fire together mostly, some more often than others.
fn topics(neurons: usize, tokens: usize, seed: u64) -> SmallTrace {
    let mut random = random(seed);
    let mut topic = 0;
    let token = |_| {
        if below(&mut random, 4) == 0 {
            topic = below(&mut random, 8);
        }
        (0..neurons)
            .map(|neuron| {
                let often = (3 + neuron % 5) * if neuron % 8 == topic { 100 } else { 5 };
                below(&mut random, 1000) < often
            })
            .collect()
    };
    SmallTrace { neurons, tokens: (0..tokens).map(token).collect(), cut: 0 }
}

fn naive_jaccard(trace: &SmallTrace, i: usize, j: usize) -> f64 {
    let both = f64::from(trace.count(&[i, j]));
    let either = f64::from(trace.count(&[i]) + trace.count(&[j])) - both;
    if both > 0.0 { both / either } else { 0.0 }
}

/// The mean index with the best `partners` of a neuron, weighted by firings, among those that `may`
/// be partners.
fn naive_strength(trace: &SmallTrace, partners: usize, may: impl Fn(usize, usize) -> bool) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    for i in 0..trace.neurons {
        let others = (0..trace.neurons).filter(|&j| j != i && may(i, j));
        let mut best: Vec<f64> = others.map(|j| naive_jaccard(trace, i, j)).collect();
        best.sort_by(|a, b| b.total_cmp(a));
        let mean = best.iter().take(partners).sum::<f64>() / partners as f64;
        sum += mean * f64::from(trace.count(&[i]));
        total += f64::from(trace.count(&[i]));
    }
    sum / total.max(1.0)
}

fn value(statistics: &statistics::Statistics, name: &str) -> f64 {
    statistics[NAMES.iter().position(|known| *known == name).unwrap()].unwrap()
}

proptest! {
    #[test]
    fn kin_are_the_best_partners(trace in small_traces()) {
        let kin = Kin::of(&trace.activity());
        for i in 0..trace.neurons {
            let mut all: Vec<f64> =
                (0..trace.neurons).filter(|&j| j != i).map(|j| naive_jaccard(&trace, i, j)).collect();
            all.retain(|index| *index > 0.0);
            all.sort_by(|a, b| b.total_cmp(a));
            all.truncate(KIN);
            prop_assert_eq!(kin.best[i].len(), all.len());
            for ((other, index), expected) in kin.best[i].iter().zip(all) {
                prop_assert!((f64::from(*index) - expected).abs() < 1e-6);
                prop_assert!((naive_jaccard(&trace, i, *other as usize) - expected).abs() < 1e-6);
            }
        }
        let strength = naive_strength(&trace, PARTNERS, |_, _| true);
        prop_assert!((kin.strength - strength).abs() < 1e-6);
        let half = naive_strength(&trace, PARTNERS, |i, j| i % 2 == j % 2);
        prop_assert!((kin.growth_per_doubling - (strength - half)).abs() < 1e-6);
    }

    #[test]
    fn statistics_are_what_plain_counting_gives(trace in small_traces(), window in 1usize..20) {
        prop_assume!(!trace.tokens.is_empty());
        let bits = trace.bits();
        let layer = TracedLayer { bits: &bits, neurons: trace.neurons, window };
        let told = layer.statistics(random(1)).unwrap();
        let tokens = trace.tokens.len();
        let active: usize = trace.tokens.iter().flatten().filter(|bit| **bit).count();
        let share = active as f64 / (tokens * trace.neurons) as f64;
        prop_assert!((value(&told, "active_share_mean") - share).abs() < 1e-9);
        let (mut both, mut all) = (0, 0);
        for token in (1..tokens).filter(|token| token % window != 0) {
            for neuron in 0..trace.neurons {
                all += usize::from(trace.tokens[token][neuron]);
                both += usize::from(trace.tokens[token][neuron] && trace.tokens[token - 1][neuron]);
            }
        }
        let overlap = if all == 0 { 0.0 } else { both as f64 / all as f64 };
        prop_assert!((value(&told, "overlap_1") - overlap).abs() < 1e-9);
        let strength = naive_strength(&trace, 1, |_, _| true);
        prop_assert!((value(&told, "best_partner_mean") - strength).abs() < 1e-9);
        let mut counts: Vec<u32> = (0..trace.neurons).map(|neuron| trace.count(&[neuron])).collect();
        counts.sort_unstable();
        let median = f64::from(counts[trace.neurons.div_ceil(2) - 1]) / tokens as f64;
        prop_assert!((value(&told, "frequency_p50") - median).abs() < 1e-9);
    }

    /// Each neuron fires as often as its odds say; less often means in some of the same tokens, more
    /// often in all of them and others.
    #[test]
    fn rescaled_bits_have_the_rescaled_frequency(trace in small_traces(), mean in 0.05f64..0.6) {
        let counts: Vec<u32> = (0..trace.neurons).map(|neuron| trace.count(&[neuron])).collect();
        let tokens = trace.tokens.len();
        prop_assume!(tokens > 0);
        let Ok(rescale) = Rescale::to_mean(std::slice::from_ref(&counts), tokens as u64, mean) else {
            return Ok(());
        };
        let before = trace.bits();
        let mut bits = before.clone();
        rescale.apply(&mut bits, trace.neurons, random(3)).unwrap();
        let fires = |bits: &[u8], token: usize, neuron: usize| {
            bits[token * trace.neurons.div_ceil(8) + neuron / 8] >> (neuron % 8) & 1 == 1
        };
        let mut sum = 0.0;
        for (neuron, &count) in counts.iter().enumerate() {
            let p = f64::from(count) / tokens as f64;
            sum += rescale.frequency(p);
            let now = (0..tokens).filter(|&token| fires(&bits, token, neuron)).count();
            prop_assert_eq!(now, (rescale.frequency(p) * tokens as f64).round() as usize);
            let (small, large) = if now <= count as usize {
                (&bits, &before)
            } else {
                (&before, &bits)
            };
            for token in 0..tokens {
                prop_assert!(fires(large, token, neuron) || !fires(small, token, neuron));
            }
        }
        prop_assert!((sum / trace.neurons as f64 - mean).abs() < mean * 2e-3);
    }

    #[test]
    fn templates_are_used_equally_often(real in 1usize..50, width in 1usize..200, seed: u64) {
        let drawn = templates(real, width, random(seed));
        prop_assert_eq!(drawn.len(), width);
        for template in 0..real as u32 {
            let used = drawn.iter().filter(|other| **other == template).count();
            prop_assert!(used == width / real || used == width / real + 1);
        }
    }

    /// Tokens come in whole windows, and none of the profile's is one of the test's.
    #[test]
    fn splits_share_no_window(windows in 2usize..9, window in 1usize..7, tokens in 1usize..100) {
        let all: Vec<_> = (0..windows).map(|at| at * window..(at + 1) * window).collect();
        let of = |split| source_tokens(&all, split, tokens, random(7)).unwrap();
        let sets = [Split::Profile, Split::Test].map(|split| {
            let source = of(split);
            assert_eq!(source.len(), tokens);
            for chunk in source.chunks(window) {
                assert_eq!(chunk[0] as usize % window, 0);
                assert!(chunk.windows(2).all(|pair| pair[1] == pair[0] + 1));
            }
            source.into_iter().collect::<HashSet<u32>>()
        });
        prop_assert!(sets[0].is_disjoint(&sets[1]));
    }
}

/// Chances are what the model says of them, computed from bools; and of many neurons of one template
/// that share fires.
#[test]
fn neurons_fire_with_the_chance_that_the_model_states() {
    let trace = topics(40, 400, 1);
    let (bits, copies) = (trace.bits(), 3000);
    let population = Population::fit(&bits, 40, 40 * copies).unwrap();
    let m = population.mix();
    assert!(m > 0.1 && m < 1.0, "{m}");
    let kin = Kin::of(&trace.activity());
    let template = templates(40, 40 * copies, random(2));
    let plan = Plan { template: template.clone(), tokens: vec![17], random: random(3) };
    let drawn = plan.draw(&population, &bits);
    let (mut shares, mut chances) = (vec![0.0; 40], vec![0; 40]);
    population.chances(&bits, 17, &mut shares, &mut chances);
    for (neuron, &chance) in chances.iter().enumerate() {
        let of_kin = |(other, index): &(u32, f32)| {
            f64::from(*index) * f64::from(u8::from(trace.tokens[17][*other as usize]))
        };
        let weight = |(other, index): &(u32, f32)| {
            f64::from(*index) * f64::from(trace.count(&[*other as usize]))
        };
        let best = &kin.best[neuron];
        let scale = f64::from(trace.count(&[neuron])) / best.iter().map(weight).sum::<f64>();
        let share = (best.iter().map(of_kin).sum::<f64>() * scale).min(1.0);
        let own = f64::from(u8::from(trace.tokens[17][neuron]));
        let q = (1.0 - m) * own + m * share;
        assert!((f64::from(chance) / f64::from(ONE) - q).abs() < 1e-4, "{neuron}");

        let children = (0..template.len()).filter(|child| template[*child] as usize == neuron);
        let firing = children.filter(|child| drawn[child / 8] >> (child % 8) & 1 == 1).count();
        let sigma = (q * (1.0 - q) / copies as f64).sqrt();
        assert!((firing as f64 / copies as f64 - q).abs() < 5.0 * sigma + 1e-4, "{neuron}");
    }
}

/// Frequencies, the strength of pairs and the overlap of a layer four times as wide are as promised.
#[test]
fn a_wider_layer_is_like_the_real_one() {
    let trace = topics(96, 24_000, 5);
    let bits = trace.bits();
    let population = Population::fit(&bits, 96, 384).unwrap();
    let tokens = (0..24_000).collect();
    let plan = Plan { template: templates(96, 384, random(8)), tokens, random: random(9) };
    let drawn = plan.draw(&population, &bits);
    let of = |bits: &[u8], neurons| {
        TracedLayer { bits, neurons, window: 24_000 }.statistics(random(4)).unwrap()
    };
    let (real, wide) = (of(&bits, 96), of(&drawn, 384));
    let near = |name: &str, expected: f64, within: f64| {
        let found = value(&wide, name);
        assert!((found - expected).abs() < within * expected, "{name}: {found}, not {expected}");
    };
    for name in
        ["active_share_mean", "frequency_p10", "frequency_p50", "frequency_p90", "overlap_1"]
    {
        near(name, value(&real, name), 0.05);
    }
    // Here neurons are independent given the topic. Copies share the noise of their kin's share, which
    // no mixture takes away: pairs come out too strong, by less than in the worst real layer.
    let real = Kin::of(&trace.activity());
    let wide = LayerActivity::from_bits(384, &[(&drawn, 24_000)]).unwrap();
    let wanted = real.strength + 2.0 * real.growth_per_doubling;
    let found = Kin::of(&wide).strength;
    assert!((found - wanted).abs() < 0.25 * wanted, "{found}, not {wanted}");
}

#[test]
fn layers_are_like_those_at_their_depth() {
    let of = |layers: usize, real: usize| -> Vec<usize> {
        let shape = SynthShape { layers, neurons: 1, tokens: 1, active: None };
        (0..layers).map(|layer| shape.real_layer(layer, real)).collect()
    };
    assert_eq!(of(6, 6), [0, 1, 2, 3, 4, 5]);
    assert_eq!(of(1, 6), [0]);
    assert_eq!(of(3, 1), [0, 0, 0]);
    assert_eq!(of(2, 6), [0, 5]);
    assert_eq!(of(11, 6), [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
}

#[test]
fn what_never_fires_cannot_be_made_to() {
    let error = Rescale::to_mean(&[vec![0, 0, 0, 5]], 10, 0.5).unwrap_err().to_string();
    assert!(error.contains("at most 0.250"), "{error}");
}
