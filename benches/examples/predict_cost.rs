//! What evaluating a layer's predictor takes beside the I/O time that it decides about: measured by the engine's own
//! evaluation, on matrices that come from memory, against the device law, at every shape of the publication.
//!
//!     cargo run --release -p lnp-benches --example predict_cost
//!
//! Predictors are of low rank in q8_0, the rank a sixteenth of the width (in steps of 32); their numbers are made up,
//! which changes nothing of what computing them takes. The I/O time is that of the active bundles of one layer in f16 by
//! OnePlus 12's law, in as many reads as the publication's order makes of them (3.12 bundles a read with two parts,
//! 6.62 with three).

use std::error::Error;
use std::time::Instant;

use lnp_device::LawText;
use lnp_engine::predictors::Predictors;
use lnp_engine::sys::cpu;
use lnp_format::layout::OperatingPoint;
use lnp_format::{Activation, Dtype, Predictor, PredictorKind, PredictorNumbers, Shape, write};
use zerocopy::byteorder::F32;
use zerocopy::{FromZeros, IntoBytes};

/// Model, layers, neurons, hidden size, parts, share of neurons active per token, bundles a read.
const MODELS: [(&str, u32, u32, u32, u32, f64, f64); 7] = [
    ("OPT-350M", 24, 4096, 1024, 2, 0.095, 3.12),
    ("OPT-1.3B", 24, 8192, 2048, 2, 0.037, 3.12),
    ("OPT-6.7B", 32, 16384, 4096, 2, 0.032, 3.12),
    ("Llama-2-7B (ProSparse)", 32, 11008, 4096, 3, 0.237, 6.62),
    ("Mistral-7B (TurboSparse)", 32, 14336, 4096, 3, 0.235, 6.62),
    ("MobiLlama-1B", 22, 5632, 2048, 3, 0.30, 6.62),
    ("Phi-2-2.7B", 32, 10240, 2560, 2, 0.20, 3.12),
];
/// Predictors that take turns are at least so many bytes together: none is in a cache when its turn comes.
const TURNS_BYTES: usize = 512 << 20;
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let law = LawText::ONEPLUS_12.law()?;
    println!(
        "model,rank,predictor_bytes,share_of_ffn_f16,evaluate_us_per_layer,io_us_per_layer,ratio"
    );
    for (model, layers, neurons, hidden, parts, active, bundles_per_read) in MODELS {
        let rank = (hidden / 16).next_multiple_of(32);
        let shape = Shape {
            layers,
            neurons,
            hidden,
            parts,
            activation: Activation::Relu,
            activation_threshold: 0.0,
            dtype: Dtype::F16,
            bundle_stride: parts * Dtype::F16.part_bytes(hidden),
            slots: neurons,
        };
        let one = section(&shape, rank);
        let sections = vec![one.clone(); TURNS_BYTES / one.len() + 1];
        let evaluate_us = evaluate(&shape, rank, &sections)?;
        let bundles = f64::from(neurons) * active;
        let bytes = bundles * f64::from(shape.bundle_stride);
        let io_us = law.time_us((bundles / bundles_per_read) as u64, bytes as u64);
        let ffn_bytes = 2.0 * f64::from(parts) * f64::from(neurons) * f64::from(hidden);
        println!(
            "{model},{rank},{},{:.4},{evaluate_us:.0},{io_us:.0},{:.3}",
            one.len(),
            one.len() as f64 / ffn_bytes,
            evaluate_us / io_us
        );
    }
    Ok(())
}

/// A predictor's section, its numbers pseudo-random.
fn section(shape: &Shape, rank: u32) -> Vec<u8> {
    let (kind, numbers) = (PredictorKind::LowRank, PredictorNumbers::Q8_0);
    let of = (shape.neurons, shape.hidden, rank);
    let mut bytes = write::predictor_header((kind, numbers), of, (1, 1)).as_bytes().to_vec();
    let point = OperatingPoint { quality: F32::new(1.0), ..OperatingPoint::new_zeroed() };
    bytes.extend(point.as_bytes());
    bytes.extend(std::iter::repeat_n(0, 2 * shape.neurons as usize));
    let mut state = 1_u64;
    for _ in 0..(rank * shape.hidden + shape.neurons * rank) / 32 {
        bytes.extend(0x1c00_u16.to_le_bytes());
        for _ in 0..4 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.extend((state ^ (state >> 29)).to_le_bytes());
        }
    }
    bytes
}

/// Microseconds for one layer and token: the median of some rounds over all sections.
fn evaluate(shape: &Shape, rank: u32, sections: &[Vec<u8>]) -> Result<f64, Box<dyn Error>> {
    let features = cpu::detect();
    let mut memory = vec![0; Predictors::required_bytes(shape, rank, features, 1)?];
    let mut predictors = Predictors::new(shape, rank, features, 1, &mut memory)?;
    let x: Vec<f32> = (0..shape.hidden).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let mut named = 0;
    let mut round = || -> Result<f64, Box<dyn Error>> {
        let begin = Instant::now();
        for section in sections {
            let predictor = Predictor::of_section(section, shape)?.ok_or("an unknown kind")?;
            named += predictors.predict_by(&predictor, 1.0, &x)?.sets()[0].len();
        }
        Ok(begin.elapsed().as_secs_f64() * 1e6 / sections.len() as f64)
    };
    let mut times = (0..ROUNDS).map(|_| round()).collect::<Result<Vec<f64>, _>>()?;
    times.sort_by(f64::total_cmp);
    assert!(named > 0, "nothing was named");
    Ok(times[ROUNDS / 2])
}
