//! Turns on a made-up device that is held back, in time that only it moves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lnp_engine::queue::{Clock, Completion, Read, ReadError, ReadQueue};
use lnp_engine::{Collapse, Combine, DeviceLaw, Engine, EngineError, required_bytes};
use rand::{RngExt, SeedableRng};

use super::*;
use crate::replay::options::{Caches, Rules};
use crate::replay::record::Record;
use crate::replay::rows::Times;
use crate::replay::strategy::Strategy;
use lnp_device::memory;
use lnp_pack::recipe::ModelSize;
use lnp_pack::{PackIndex, Recipe};

const READS_PER_S: u64 = 20_000;
const SLICE_NS: u64 = 100_000_000;
const LAYERS: usize = 2;
const NEURONS: usize = 512;
const TOKENS: usize = 40;

/// Each tenth of a second has its reads, 12 us each; then nothing until the next. All that read share it.
#[derive(Default)]
struct Limit {
    now_ns: AtomicU64,
    slice: AtomicU64,
    spent: AtomicU64,
}

impl Limit {
    fn read(&self) {
        let [mut now, mut slice, mut spent] =
            [&self.now_ns, &self.slice, &self.spent].map(|of| of.load(Ordering::Relaxed));
        if now / SLICE_NS > slice {
            (slice, spent) = (now / SLICE_NS, 0);
        }
        if spent == READS_PER_S / 10 {
            (slice, spent) = (slice + 1, 0);
            now = slice * SLICE_NS;
        }
        self.now_ns.store(now + 12_000, Ordering::Relaxed);
        self.slice.store(slice, Ordering::Relaxed);
        self.spent.store(spent + 1, Ordering::Relaxed);
    }
}

struct Held<'a> {
    limit: Arc<Limit>,
    queue: VecDeque<Read<'a>>,
}

impl Clock for Held<'_> {
    fn now_ns(&self) -> u64 {
        self.limit.now_ns.load(Ordering::Relaxed)
    }
}

impl<'a> ReadQueue<'a> for Held<'a> {
    fn depth(&self) -> u32 {
        32
    }
    fn in_flight(&self) -> u32 {
        self.queue.len() as u32
    }
    fn reads_in_background(&self) -> bool {
        false
    }
    fn end_batch(&mut self) {}
    fn submit(&mut self, read: Read<'a>) -> Result<(), ReadError> {
        self.queue.push_back(read);
        Ok(())
    }
    fn flush(&mut self) {}
    fn poll(&mut self) -> Option<Completion> {
        None
    }
    fn wait(&mut self) -> Option<Completion> {
        let read = self.queue.pop_front()?;
        self.limit.read();
        Some(Completion::of(read, Ok(())))
    }
}

/// A tenth of the neurons, by chance.
fn sets() -> ActiveSets {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
    let mut layer = || -> Vec<u8> {
        let mut bits = vec![0; TOKENS * NEURONS / 8];
        for _ in 0..TOKENS * NEURONS / 10 {
            bits[random.random_range(0..TOKENS * NEURONS / 8)] |= 1 << random.random_range(0..8);
        }
        bits
    };
    ActiveSets::new((0..LAYERS).map(|_| layer()).collect(), NEURONS, TOKENS)
}

fn strategy(name: &str, collapse: Collapse) -> Strategy {
    Strategy { name: name.into(), collapse, adapt: false, predicted: false, cache: None }
}

/// Replays on the made-up device, with and without holes read through, so that turns before each other
/// leave different debts; gives the tokens and the records.
fn compete_of(repeats: usize, turn: Duration, time_max: Option<Duration>) -> (usize, Vec<Record>) {
    let law = DeviceLaw::new(0.0, 1e6 / READS_PER_S as f64, 1e6, Combine::Max).unwrap();
    let options = ReplayOptions {
        law,
        caches: Caches::default_of(0.0),
        rules: Rules::default(),
        queue_depth: 32,
        repeats,
        turn: Some(turn),
        time_max,
        timeline_tokens: None,
    };
    let sets = sets();
    let model = ModelSize { layers: LAYERS as u32, neurons: NEURONS as u32, hidden: 64, parts: 2 };
    let layout = Recipe::for_placeholders(None, model, 4096, 1).unwrap().layout().unwrap();
    let index = PackIndex::in_memory("m".into(), layout.index, layout.bytes.file_bytes);
    let pack = index.pack().unwrap();
    let limit = Arc::new(Limit::default());
    let strategies =
        [strategy("off", Collapse::Off), strategy("gap", Collapse::Gap { bytes: 32768 })];
    let configs = strategies.each_ref().map(|strategy| strategy.config(&pack, 32));
    let mut memories = configs
        .each_ref()
        .map(|config| memory::arena(required_bytes(config, &pack).unwrap()).unwrap());
    let mut contestants: Vec<_> = strategies
        .iter()
        .zip(&configs)
        .zip(&mut memories)
        .map(|((strategy, config), memory)| {
            let queue = Held { limit: limit.clone(), queue: VecDeque::new() };
            let engine = Engine::open(index.pack().unwrap(), config, memory, |_| {
                Ok::<_, EngineError>(queue)
            });
            Contestant::new(strategy, &index, engine.unwrap(), &sets).unwrap()
        })
        .collect();
    let now = || Duration::from_nanos(limit.now_ns.load(Ordering::Relaxed));
    let mut told = 0.0;
    let mut progress = |share| told = share;
    let tokens = compete(&mut contestants, &sets, &options, turn, &now, &mut progress).unwrap();
    assert_eq!(told, 1.0);
    (tokens, contestants.iter_mut().map(|of| of.record(CacheState::Cold).clone()).collect())
}

#[test]
fn long_turns_show_the_limit_that_bursts_hide() {
    let (tokens, records) = compete_of(3, TURN, None);
    assert_eq!(tokens, TOKENS);
    for record in records {
        let predicted = record.predicted_us / TOKENS as f64;
        assert_eq!(record.turns.len(), 3);
        for us in record.turns.iter().map(LongTurn::us) {
            assert!((us / predicted - 1.0).abs() < 0.05, "{us} {predicted}");
        }
        // The token in the middle is read within a burst: it knows nothing of the limit.
        let mut tokens: Vec<f64> = record.times_us.concat();
        assert!(lnp_common::report::quantile(&mut tokens, 0.5) < 0.5 * predicted);
    }
}

#[test]
fn mean_and_percentiles_are_of_one_turn() {
    for record in compete_of(3, TURN, None).1 {
        let mut turns: Vec<f64> = record.turns.iter().map(LongTurn::us).collect();
        turns.sort_by(f64::total_cmp);
        let mut tokens_us = record.times();
        let times = Times::of(tokens_us.clone());
        assert!((times.mean - turns[1]).abs() < 1e-9 * turns[1], "{times:?} {turns:?}");
        // The times are those of single tokens, begin to end: they fill the turn, in whole passes.
        assert!(tokens_us.len().is_multiple_of(TOKENS));
        let sum: f64 = tokens_us.iter().sum();
        assert!(sum >= TURN.as_secs_f64() * 1e6, "{sum}");
        // A few tokens wait for the next burst, which the tail shows and the middle does not.
        tokens_us.sort_by(f64::total_cmp);
        assert!(times.p50 < times.mean && times.mean < times.p99, "{times:?}");
        assert_eq!(times.p99, tokens_us[(tokens_us.len() * 99).div_ceil(100) - 1]);
    }
}

#[test]
fn the_time_is_bounded() {
    // Two rounds would take more than 7 s: two contestants, 2.2 s a turn.
    for record in compete_of(100, TURN, Some(Duration::from_secs(7))).1 {
        assert_eq!(record.turns.len(), 1);
    }
    // A turn that is shorter than a pass replays fewer tokens, the same of all.
    let (tokens, records) = compete_of(1, Duration::from_millis(50), None);
    assert!((1..TOKENS).contains(&tokens), "{tokens}");
    assert!(records.iter().all(|record| record.tokens() == tokens));
}
