//! Layers with activations of their own, against a plain f64 evaluation of section 10.2 of the specification.

#[path = "../../format/tests/common/mod.rs"]
mod common;
mod support;

use common::Recipe;
use lnp_engine::engine::Alone;
use lnp_engine::ffn::Ffn;
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::{Combine, Config, DeviceLaw, Engine, EngineError, required_bytes};
use lnp_format::{Activation, Pack};
use support::Dice;

const NEURONS: u32 = 60;
const HIDDEN: usize = 32;
const DEVIATIONS: f32 = 0.75;
const TOKENS: usize = 3;

fn recipe() -> Recipe {
    let mut recipe = Recipe::small(3, NEURONS);
    (recipe.shape.parts, recipe.shape.bundle_stride) = (3, 3 * 4 * HIDDEN as u32);
    recipe.shape.activation = Activation::GeluTanh;
    recipe.activations =
        vec![Some((Activation::GaussianTopk, DEVIATIONS)), Some((Activation::Fatrelu, 0.5))];
    recipe
}

/// The products of all neurons with a token, gate then up, and the down columns.
fn neurons(recipe: &Recipe, layer: u32, x: &[f32]) -> Vec<(f64, f64, Vec<f64>)> {
    let one = |neuron: u32| {
        let bundle = recipe.bundle(layer, neuron);
        let weights = bundle.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let weights: Vec<f64> = weights.map(f64::from).collect();
        let dot = |part: usize| -> f64 {
            let row = &weights[part * HIDDEN..(part + 1) * HIDDEN];
            row.iter().zip(x).map(|(weight, x)| weight * f64::from(*x)).sum()
        };
        // the recipe's bias of a neuron
        let bias = f64::from(neuron) / 8.0 + f64::from(layer);
        (dot(0) + bias, dot(1), weights[2 * HIDDEN..].to_vec())
    };
    (0..NEURONS).map(one).collect()
}

fn gelu_tanh(v: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v.powi(3));
    0.5 * v * (1.0 + inner.tanh())
}

/// A token's cutoff, what is active, and the layer's output.
fn expected(recipe: &Recipe, layer: u32, x: &[f32]) -> (f64, Vec<u32>, Vec<f64>) {
    let all = neurons(recipe, layer, x);
    let count = f64::from(NEURONS);
    let mean = all.iter().map(|(v, ..)| v).sum::<f64>() / count;
    let variance = all.iter().map(|(v, ..)| (v - mean).powi(2)).sum::<f64>() / count;
    let cutoff = mean + f64::from(DEVIATIONS) * variance.sqrt();
    let activated = |v: f64| match layer {
        0 => gelu_tanh((v - cutoff).max(0.0)),
        1 => f64::from(u8::from(v > 0.5)) * v,
        _ => gelu_tanh(v),
    };
    let output_bias = |at: usize| (f64::from(NEURONS) + at as f64) / 8.0 + f64::from(layer);
    let mut y: Vec<f64> = (0..HIDDEN).map(output_bias).collect();
    let mut active = Vec::new();
    for ((v, up, down), neuron) in all.iter().zip(0..) {
        let share = activated(*v) * up;
        y.iter_mut().zip(down).for_each(|(y, down)| *y += share * down);
        if activated(*v) != 0.0 {
            active.push(neuron);
        }
    }
    (cutoff, active, y)
}

#[test]
fn each_layer_computes_its_own() {
    let recipe = recipe();
    let file = recipe.build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let config = Config::new(&pack);
    let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
    let law = DeviceLaw::new(10.0, 9.64, 2034.0, Combine::Sum).unwrap();
    let device = SimulatedQueue::new(Image::Bytes(&file), law, 8, 1);
    let mut engine =
        Engine::open(pack, &config, &mut memory, |_| Ok::<_, EngineError>(device)).unwrap();
    let features = lnp_engine::sys::cpu::detect();
    let mut ffn_memory = vec![0; Ffn::required_bytes(pack.shape(), features, TOKENS).unwrap()];
    let mut ffn = Ffn::new(pack.shape(), features, TOKENS, &mut ffn_memory).unwrap();
    let mut dice = Dice::new(7);
    for layer in 0..3 {
        for tokens in 1..=TOKENS {
            let x: Vec<f32> =
                (0..HIDDEN * tokens).map(|_| dice.below(2000) as f32 / 1000.0 - 1.0).collect();
            let told: Vec<_> = x.chunks(HIDDEN).map(|x| expected(&recipe, layer, x)).collect();
            let sets: Vec<&[u32]> = told.iter().map(|(_, active, _)| &active[..]).collect();
            let cutoffs: Vec<f32> = told.iter().map(|(cutoff, ..)| *cutoff as f32).collect();
            if layer == 0 {
                let all = NEURONS as usize;
                assert!(sets.iter().all(|set| (1..all / 2).contains(&set.len())), "{sets:?}");
            }
            let mut y = vec![f32::NAN; x.len()];
            engine.session(|session| {
                ffn.begin(session, layer, &sets).unwrap();
                if layer == 0 {
                    let without = ffn.finish(session, &Alone, layer, &x, &mut y);
                    assert_eq!(without.err(), Some(EngineError::NoCutoffs { layer }));
                    assert!(ffn.cut(&cutoffs[1..]).is_err());
                    ffn.cut(&cutoffs).unwrap();
                }
                ffn.finish(session, &Alone, layer, &x, &mut y).unwrap();
            });
            for (y, (_, _, expected)) in y.chunks(HIDDEN).zip(&told) {
                let largest = expected.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
                for (found, expected) in y.iter().zip(expected) {
                    let off = (f64::from(*found) - expected).abs();
                    assert!(off <= 1e-4 * largest, "layer {layer}: {found} for {expected}");
                }
            }
        }
    }
}
