//! What the engine's telemetry and its checking of checksums cost: the CPU time of the same fetches with
//! and without, taking turns, on a simulated device that takes no time of its own (the pack lies in
//! memory); beside the time that the device law says the reads take.
//!
//!     cargo run --release -p lnp-benches --example costs -- PACK TRACE

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use lnp_device::LawText;
use lnp_engine::queue::Clock;
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::{Collapse, Config, Engine, EngineError, FetchStats, required_bytes};
use lnp_link::trace::{TraceReader, active};
use lnp_pack::PackIndex;

const TOKENS: usize = 512;
const ROUNDS: usize = 31;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pack, trace] = &arguments[..] else {
        return Err("usage: costs PACK TRACE".into());
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

    let file = std::fs::read(pack)?;
    let pack = index.pack()?;
    let plain = Config { collapse: Collapse::Law(law), telemetry: false, ..Config::new(&pack) };
    let configs =
        [plain, Config { telemetry: true, ..plain }, Config { verify_reads: true, ..plain }];
    let mut memory = [vec![], vec![], vec![]];
    let mut engines = Vec::new();
    for (config, memory) in configs.iter().zip(&mut memory) {
        memory.resize(required_bytes(config, &pack)?, 0);
        engines.push(Engine::open(pack, config, memory, |_| {
            let image = Image::Bytes(&file);
            Ok::<_, EngineError>(SimulatedQueue::new(image, law, config.queue_depth, 1))
        })?);
    }
    let mut times_us = [const { Vec::new() }; 3];
    let mut read = FetchStats::default();
    for round in 0..ROUNDS {
        for turn in 0..engines.len() {
            let which = (round + turn) % engines.len();
            let begin = Instant::now();
            for sets in &sets {
                for (layer, ids) in (0..).zip(sets) {
                    read.add(&engines[which].fetch(layer, ids, |_, _| Ok(()))?);
                }
            }
            times_us[which].push(begin.elapsed().as_secs_f64() * 1e6 / sets.len() as f64);
        }
    }
    let device_us = engines[0].queue().now_ns() as f64 / 1e3 / (ROUNDS * sets.len()) as f64;
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let [plain_us, telemetry_us, verified_us] = times_us.each_mut().map(median);
    let share = |us: f64| 100.0 * (us - plain_us) / device_us;
    let bundles = read.useful_bytes as f64 / f64::from(pack.shape().bundle_stride);
    let bundles = bundles / (3 * ROUNDS * sets.len()) as f64;
    println!(
        "engine's own time per token, copying from memory included: {plain_us:.1} us; \
         with telemetry {telemetry_us:.1} us; with verify_reads {verified_us:.1} us"
    );
    println!(
        "of the {device_us:.0} us that the device takes by the default law (a 9.64 us, B 2,034 MiB/s): telemetry {:.2} %, \
         verify_reads {:.2} % ({:.2} us for each of {bundles:.0} bundles of {} bytes)",
        share(telemetry_us),
        share(verified_us),
        (verified_us - plain_us) / bundles,
        pack.shape().bundle_stride
    );
    println!("(the simulated clock costs nothing; a real one about 25 ns a read more)");
    Ok(())
}
