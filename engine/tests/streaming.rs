//! Where a stream of the whole layer is faster than any choice of reads, the engine streams.

#[path = "../../format/tests/common/mod.rs"]
mod common;
mod support;

use common::Recipe;
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::{
    Collapse, Combine, Config, DeviceLaw, Engine, EngineError, FetchStats, required_bytes,
};
use lnp_format::Pack;
use support::Dice;

const NEURONS: u32 = 2048;

/// One fetch of a random set of so many bundles in a thousand on the simulated device.
fn fetch(file: &[u8], law: DeviceLaw, collapse: Collapse, per_mille: u32) -> FetchStats {
    let pack = Pack::parse(file, file.len() as u64).unwrap();
    let mut dice = Dice::new(7);
    let active: Vec<u32> = (0..NEURONS).filter(|_| dice.below(1000) < per_mille).collect();
    let staging_bytes = Config::staging_bytes_full(&pack);
    let config = Config { collapse, staging_bytes, ..Config::new(&pack) };
    let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
    let device = SimulatedQueue::new(Image::Bytes(file), law, config.queue_depth, 5);
    let opened = |_| Ok::<_, EngineError>(device);
    let mut engine = Engine::open(pack, &config, &mut memory, opened).unwrap();
    engine.fetch(0, &active, |_, _| Ok(())).unwrap()
}

#[test]
fn as_more_is_active_single_reads_turn_into_a_stream() {
    let file = Recipe::placeholder(1, NEURONS, 4096).build();
    for combine in [Combine::Sum, Combine::Max] {
        let law = DeviceLaw::new(0.0, 9.64, 2034.0, combine).unwrap();
        let mut streams = Vec::new();
        for per_mille in [5, 20, 50, 100, 200, 300, 400, 500, 700, 900, 1000] {
            let ours = fetch(&file, law, Collapse::Law(law), per_mille);
            let dense = fetch(&file, law, Collapse::Whole, per_mille);
            let single = fetch(&file, law, Collapse::Off, per_mille);
            assert!(ours.io_ns <= dense.io_ns, "{combine:?} {per_mille}: {ours:?} {dense:?}");
            assert!(ours.io_ns <= single.io_ns, "{combine:?} {per_mille}: {ours:?} {single:?}");
            // as long reads as the stream's, but for what can be left out between two of them
            let all = ours.bytes_read * 100 >= dense.bytes_read * 98;
            streams.push(all && ours.reads <= dense.reads + 1);
        }
        // a few reads here and there at first, at last the stream and nothing else; one switch
        assert!(!streams[0] && streams[streams.len() - 1], "{combine:?}: {streams:?}");
        assert!(streams.is_sorted(), "{combine:?}: {streams:?}");
        // before everything is active; where the larger rules, holes are never worth their bytes then
        assert_eq!(streams[streams.len() - 3], combine == Combine::Sum, "{streams:?}");
    }
}
