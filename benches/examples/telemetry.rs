//! What the engine's telemetry costs: the CPU time of the same fetches with and without it, taking
//! turns, on a simulated device that takes no time of its own; beside the time that the device law says
//! the reads take.
//!
//!     cargo run --release -p lnp-benches --example telemetry -- PACK TRACE

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use lnp::device::LawText;
use lnp::pack::PackIndex;
use lnp::trace::{TraceReader, active};
use lnp_engine::queue::Clock;
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::{Collapse, Config, Engine, EngineError, required_bytes};

const TOKENS: usize = 512;
const ROUNDS: usize = 31;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pack, trace] = &arguments[..] else {
        return Err("usage: telemetry PACK TRACE".into());
    };
    let index = PackIndex::open(Path::new(pack))?;
    let trace = TraceReader::open(Path::new(trace))?;
    let law = LawText::ONEPLUS_12.law()?;
    let layers: Vec<Vec<u8>> =
        (0..trace.layers()).map(|layer| trace.layer_bits(layer)).collect::<Result<_, _>>()?;
    let sets: Vec<Vec<Vec<u32>>> = (0..trace.tokens().min(TOKENS))
        .map(|token| {
            layers.iter().map(|bits| active(bits, trace.neurons(), token).collect()).collect()
        })
        .collect();

    let configs = [false, true].map(|telemetry| -> Result<Config, Box<dyn Error>> {
        let pack = index.pack()?;
        Ok(Config { collapse: Collapse::Law(law), telemetry, ..Config::new(&pack) })
    });
    let [off, on] = configs;
    let configs = [off?, on?];
    let mut memory = [
        vec![0; required_bytes(&configs[0], &index.pack()?)?],
        vec![0; required_bytes(&configs[1], &index.pack()?)?],
    ];
    let mut engines = Vec::new();
    for (config, memory) in configs.iter().zip(&mut memory) {
        engines.push(Engine::open(index.pack()?, config, memory, |_| {
            let image = Image::Opaque(index.file_bytes());
            Ok::<_, EngineError>(SimulatedQueue::new(image, law, config.queue_depth, 1))
        })?);
    }
    let mut times_us = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let begin = Instant::now();
            for sets in &sets {
                for (layer, ids) in (0..).zip(sets) {
                    engines[which].fetch(layer, ids, |_, _| Ok(()))?;
                }
            }
            times_us[which].push(begin.elapsed().as_secs_f64() * 1e6 / sets.len() as f64);
        }
    }
    let device_us = engines[1].queue().now_ns() as f64 / 1e3 / (ROUNDS * sets.len()) as f64;
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let [without, with] = times_us.each_mut().map(median);
    println!(
        "engine's own time per token: {without:.1} us without telemetry, {with:.1} us with it\n\
         that is {:.2} % of the {device_us:.0} us that the device takes by the law of OnePlus 12",
        100.0 * (with - without) / device_us
    );
    println!("(the simulated clock costs nothing; a real one about 25 ns a read more)");
    Ok(())
}
