//! Reads told one by one: the log agrees with what the engine counts, whatever is read ahead, merged, cached or given up.

#[path = "../../format/tests/common/mod.rs"]
mod common;

use common::Recipe;
use lnp_engine::engine::{ActiveSet, Alone, Whereabouts};
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::queue::{Logged, ReadLog, ReadNote};
use lnp_engine::{
    Collapse, Combine, Config, DeviceLaw, Engine, EngineError, FetchStats, required_bytes,
};
use lnp_format::Pack;

const LAYERS: u32 = 3;
const NEURONS: u32 = 80;

/// Some neurons, others each time.
fn some(seed: u32, of: u32) -> Vec<u32> {
    (0..NEURONS).filter(|neuron| (neuron * 7 + seed * 13) % 11 < of).collect()
}

#[test]
fn the_log_tells_what_the_engine_counts() {
    let recipe = Recipe::placeholder(LAYERS, NEURONS, 3000);
    let file = recipe.build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let law = DeviceLaw::new(20.0, 9.64, 2034.0, Combine::Sum).unwrap();
    for collapse in [Collapse::Off, Collapse::Law(law), Collapse::Whole] {
        let prefetch_bytes = Config::staging_bytes_full(&pack).next_multiple_of(4096);
        let (cache_bundles, queue_depth) = (30, 4);
        let config =
            Config { prefetch_bytes, collapse, cache_bundles, queue_depth, ..Config::new(&pack) };
        let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
        let mut notes = vec![ReadNote::default(); 4096];
        let mut engine = Engine::open(pack, &config, &mut memory, |_| {
            let device = SimulatedQueue::new(Image::Bytes(&file), law, queue_depth, 5);
            Ok::<_, EngineError>(Logged::new(
                device.polled(300_000),
                Some(ReadLog::new(&mut notes)),
            ))
        })
        .unwrap();
        engine.fetch(0, &some(0, 3), |_, _| Ok(())).unwrap();
        engine.read_log().unwrap().take(|_| panic!("it is not switched on"));
        engine.read_log().unwrap().switch(true);

        let (mut stats, mut found) = (FetchStats::default(), FetchStats::default());
        engine.session(|session| {
            for token in 0..12 {
                for layer in 0..LAYERS {
                    let active = some(token + layer, 4);
                    let set = ActiveSet::new(&active, NEURONS).unwrap();
                    session.begin(layer, set).unwrap();
                    for id in &active {
                        match session.engine().whereabouts(layer, *id) {
                            Whereabouts::Cached => found.hits += 1,
                            Whereabouts::Prefetched => found.prefetched += 1,
                            Whereabouts::Device => found.useful_bytes += 3000,
                        }
                    }
                    let of =
                        session.finish(&Alone, layer, set, |_, _, _| Ok(0.0), &mut |_, _, _, _| {
                            Ok(())
                        });
                    stats.add(&of.unwrap());
                    if layer + 1 < LAYERS {
                        // Half of it is right.
                        session.prefetch(layer + 1, &some(token + layer + 1, 2)).unwrap();
                    }
                    let layer_end = session.engine().queue().inner();
                    let now_ns = lnp_engine::queue::Clock::now_ns(layer_end);
                    session.read_log().unwrap().take(|note| {
                        assert!(note.submitted_ns <= note.arrived_ns && note.arrived_ns <= now_ns);
                        let bytes = u64::from(note.bytes);
                        match note.is_ahead() {
                            true => {
                                (found.ahead_reads, found.ahead_bytes) =
                                    (found.ahead_reads + 1, found.ahead_bytes + bytes)
                            }
                            false => {
                                (found.reads, found.bytes_read) =
                                    (found.reads + 1, found.bytes_read + bytes)
                            }
                        }
                    });
                }
            }
        });
        engine.read_log().unwrap().take(|_| panic!("all was taken"));
        found.useful_bytes += 3000 * found.prefetched;
        let of = |stats: &FetchStats| {
            let FetchStats { hits, prefetched, useful_bytes, .. } = *stats;
            let FetchStats { reads, bytes_read, ahead_reads, ahead_bytes, .. } = *stats;
            [hits, prefetched, useful_bytes, reads, bytes_read, ahead_reads, ahead_bytes]
        };
        assert_eq!(of(&found), of(&stats), "{collapse:?}");
        assert!(stats.ahead_reads > 0 && stats.hits > 0);
        assert_eq!(engine.read_log().unwrap().lost(), 0);
    }
}

/// What there is no room for is counted, and nothing else happens.
#[test]
fn a_small_log_says_what_it_lost() {
    let recipe = Recipe::placeholder(LAYERS, NEURONS, 3000);
    let file = recipe.build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let law = DeviceLaw::new(20.0, 9.64, 2034.0, Combine::Sum).unwrap();
    let config = Config { collapse: Collapse::Off, ..Config::new(&pack) };
    let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
    let mut notes = [ReadNote::default(); 3];
    let mut engine = Engine::open(pack, &config, &mut memory, |_| {
        let device = SimulatedQueue::new(Image::Bytes(&file), law, 32, 5);
        Ok::<_, EngineError>(Logged::new(device, Some(ReadLog::new(&mut notes))))
    })
    .unwrap();
    engine.read_log().unwrap().switch(true);
    let active: Vec<u32> = (0..NEURONS).step_by(8).collect();
    let stats = engine.fetch(1, &active, |_, _| Ok(())).unwrap();
    let log = engine.read_log().unwrap();
    let mut taken = 0;
    log.take(|_| taken += 1);
    assert_eq!((taken, log.lost()), (3, stats.reads - 3));
}
