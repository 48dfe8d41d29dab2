//! Sessions: prefetching, workers, and callers whose code fails or unwinds in the middle.

#[path = "../../format/tests/common/mod.rs"]
mod common;
mod support;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use common::Recipe;
use lnp_engine::engine::{ActiveSet, Session, Workers};
use lnp_engine::queue::simulated::{Faults, Image, SimulatedQueue, Switch};
use lnp_engine::queue::{Clock, Completion, Read, ReadError, ReadFailure, ReadQueue, TimedQueue};
use lnp_engine::{
    Collapse, Combine, Config, DeviceLaw, Engine, EngineError, FetchStats, required_bytes,
};
use lnp_format::Pack;
use support::Threads;

fn law() -> DeviceLaw {
    DeviceLaw::new(20.0, 9.64, 2034.0, Combine::Sum).unwrap()
}

/// An engine with a second staging area over `recipe`, for `body`.
fn with_engine<R>(
    recipe: &Recipe,
    change: impl FnOnce(&mut Config),
    polled: u32,
    body: impl for<'a> FnOnce(&mut Engine<'a, SimulatedQueue<'a>>) -> R,
) -> R {
    let file = recipe.build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let prefetch_bytes = Config::staging_bytes_full(&pack).next_multiple_of(4096);
    let mut config = Config { prefetch_bytes, ..Config::new(&pack) };
    change(&mut config);
    let mut memory = vec![0xcc; required_bytes(&config, &pack).unwrap()];
    let device = SimulatedQueue::new(Image::Bytes(&file), law(), config.queue_depth, 5);
    let opened = |_| Ok::<_, EngineError>(device.polled(polled));
    let mut engine = Engine::open(pack, &config, &mut memory, opened).unwrap();
    let result = body(&mut engine);
    assert!(engine.is_idle());
    result
}

/// Fetches on the way of the workers, and compares each bundle with the recipe.
fn fetch<'a, Q: TimedQueue<'a> + Send>(
    session: &mut Session<'_, 'a, Q>,
    workers: &dyn Workers,
    recipe: &Recipe,
    layer: u32,
    active: &[u32],
) -> FetchStats {
    let mut seen = Vec::new();
    let mut finish = |neuron, coefficient: f32, bundle: &[u8], _: &[u8]| {
        assert_eq!(bundle, recipe.bundle(layer, neuron), "layer {layer}, neuron {neuron}");
        assert_eq!(coefficient, neuron as f32);
        seen.push(neuron);
        Ok(())
    };
    let arrive = |neuron: u32, _: &[u8], _: &[u8]| Ok(neuron as f32);
    let stats = session.fetch(workers, layer, active, arrive, &mut finish).unwrap();
    assert_eq!(seen, active);
    stats
}

/// What is prefetched arrives while another layer is computed, and may be needed in several rounds.
#[test]
fn what_is_prefetched_serves_after_other_layers_and_in_every_round() {
    let recipe = Recipe::placeholder(2, 60, 5000);
    let everything: Vec<u32> = (0..60).collect();
    for (polled, collapse) in [(1_000_000, Collapse::Off), (0, Collapse::Off), (0, Collapse::Whole)]
    {
        for staging in [1, 4] {
            let change = |config: &mut Config| {
                config.collapse = collapse;
                config.queue_depth = 4;
                if collapse == Collapse::Off {
                    config.staging_bytes /= staging;
                }
            };
            with_engine(&recipe, change, polled, |engine| {
                engine.session(|session| {
                    for workers in [Threads(0), Threads(1)] {
                        session.prefetch(1, &everything[..40]).unwrap();
                        fetch(session, &workers, &recipe, 0, &everything);
                        let stats = fetch(session, &workers, &recipe, 1, &everything);
                        assert!(stats.prefetched > 0);
                    }
                });
            });
        }
    }
}

/// While something else is computed, as much is read as is gone on with, and never more than the queue takes.
#[test]
fn going_on_reads_all_that_was_prefetched_and_what_was_begun() {
    let recipe = Recipe::placeholder(2, 60, 4096);
    let (everything, alternate): (Vec<u32>, Vec<u32>) =
        ((0..60).collect(), (0..60).step_by(2).collect());
    let change = |config: &mut Config| {
        (config.queue_depth, config.collapse) = (4, Collapse::Off);
    };
    for turns in [0, 1, 3, 1000] {
        let stats = with_engine(&recipe, change, 1_000_000, |engine| {
            engine.session(|session| {
                session.prefetch(1, &alternate).unwrap();
                for _ in 0..turns {
                    session.go_on();
                    assert!(session.engine().queue().in_flight() <= 4);
                }
                fetch(session, &Threads(0), &recipe, 1, &alternate)
            })
        });
        // A prefetch leaves a quarter of the queue free.
        assert_eq!(stats.ahead_reads, 30.min(3 * (turns + 1)), "{turns}");
        assert_eq!(stats.ahead_reads + stats.reads, 30);
    }
    with_engine(&recipe, change, 1_000_000, |engine| {
        engine.session(|session| {
            let ids = ActiveSet::new(&everything, 60).unwrap();
            session.begin(0, ids).unwrap();
            for _ in 0..1000 {
                session.go_on();
            }
            // All of it is there: there is nothing to wait for.
            assert_eq!(session.engine().queue().in_flight(), 0);
            let mut finish = |_, _, _: &[u8], _: &[u8]| Ok(());
            let arrive = |_: u32, _: &[u8], _: &[u8]| Ok(1.0);
            let stats = session.finish(&Threads(0), 0, ids, arrive, &mut finish).unwrap();
            assert_eq!((stats.active, stats.waits), (60, 0));
        });
    });
}

/// Polling may take the last read in flight before the next one is submitted.
#[test]
fn a_queue_of_one_place_is_enough_for_prefetching() {
    let recipe = Recipe::small(2, 40);
    let active: Vec<u32> = (0..40).step_by(7).collect();
    for polled in [100_000, 500_000, 1_000_000] {
        with_engine(
            &recipe,
            |config| config.queue_depth = 1,
            polled,
            |engine| {
                for _ in 0..50 {
                    engine.session(|session| {
                        session.prefetch(1, &active).unwrap();
                        // What was prefetched is for nobody, and still in flight.
                        fetch(session, &Threads(0), &recipe, 1, &[]);
                        fetch(session, &Threads(0), &recipe, 0, &active);
                        session.prefetch(1, &active).unwrap();
                        fetch(session, &Threads(0), &recipe, 0, &active);
                        fetch(session, &Threads(0), &recipe, 1, &active);
                    });
                }
            },
        );
    }
}

/// A device whose first attempts fail.
struct FirstFails<'a> {
    inner: SimulatedQueue<'a>,
    switch: &'a Switch,
    failing: u32,
}

impl Clock for FirstFails<'_> {
    fn now_ns(&self) -> u64 {
        self.inner.now_ns()
    }
}

impl<'a> ReadQueue<'a> for FirstFails<'a> {
    fn depth(&self) -> u32 {
        self.inner.depth()
    }
    fn in_flight(&self) -> u32 {
        self.inner.in_flight()
    }
    fn reads_in_background(&self) -> bool {
        self.inner.reads_in_background()
    }
    fn end_batch(&mut self) {
        self.inner.end_batch();
    }
    fn submit(&mut self, read: Read<'a>) -> Result<(), ReadError> {
        self.inner.submit(read)
    }
    fn flush(&mut self) {}
    fn poll(&mut self) -> Option<Completion> {
        None
    }
    fn wait(&mut self) -> Option<Completion> {
        self.switch.set(self.failing > 0);
        self.failing = self.failing.saturating_sub(1);
        self.inner.wait()
    }
}

/// What is prefetched and failed is read once more; all that comes after it is used as it is.
#[test]
fn a_prefetch_that_fails_does_no_harm() {
    let recipe = Recipe::placeholder(2, 1400, 4096);
    let file = recipe.build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let prefetch_bytes = Config::staging_bytes_full(&pack).next_multiple_of(4096);
    let config = Config { prefetch_bytes, queue_depth: 1, ..Config::new(&pack) };
    let active: Vec<u32> = (0..1400).step_by(3).collect();
    let mut every_other: Vec<u32> =
        (0..1400).step_by(2).map(|slot| recipe.orders[1][slot]).collect();
    every_other.sort_unstable();
    for failing in [0, 1, 3] {
        let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
        let switch = Switch::new(false);
        let mut engine = Engine::open(pack, &config, &mut memory, |_| {
            let inner = SimulatedQueue::new(Image::Bytes(&file), law(), 1, 5)
                .with_faults(Faults { eio: 1_000_000, ..Faults::NONE })
                .switched_by(&switch);
            Ok::<_, EngineError>(FirstFails { inner, switch: &switch, failing })
        })
        .unwrap();
        engine.session(|session| {
            session.prefetch(1, &every_other).unwrap();
            if failing > 1 {
                // Those of what is asked for fail too, and that is an error.
                let found =
                    session.fetch(&Threads(0), 0, &active, |_, _, _| Ok(0.0), &mut |_, _, _, _| {
                        Ok(())
                    });
                assert!(matches!(found, Err(EngineError::Read(_))));
            } else {
                fetch(session, &Threads(0), &recipe, 0, &[3]);
                let stats = fetch(session, &Threads(0), &recipe, 1, &every_other);
                // of those that were under way before
                assert!(stats.ahead_reads > 1 && stats.reads > 0, "{stats:?}");
                assert_eq!(stats.prefetched, stats.ahead_reads - u64::from(failing));
            }
            fetch(session, &Threads(0), &recipe, 1, &active);
        });
        assert!(engine.is_idle());
    }
}

/// A device that takes no reads of one layer, while it is told so.
struct Refuses<'a> {
    inner: SimulatedQueue<'a>,
    region: Range<u64>,
    now: &'a AtomicBool,
}

impl Clock for Refuses<'_> {
    fn now_ns(&self) -> u64 {
        self.inner.now_ns()
    }
}

impl<'a> ReadQueue<'a> for Refuses<'a> {
    fn depth(&self) -> u32 {
        self.inner.depth()
    }
    fn in_flight(&self) -> u32 {
        self.inner.in_flight()
    }
    fn reads_in_background(&self) -> bool {
        self.inner.reads_in_background()
    }
    fn end_batch(&mut self) {
        self.inner.end_batch();
    }
    fn submit(&mut self, read: Read<'a>) -> Result<(), ReadError> {
        if self.now.load(Ordering::Relaxed) && self.region.contains(&read.file_offset) {
            return Err(ReadError::of(&read, ReadFailure::System { errno: 16 }));
        }
        self.inner.submit(read)
    }
    fn flush(&mut self) {
        self.inner.flush();
    }
    fn poll(&mut self) -> Option<Completion> {
        self.inner.poll()
    }
    fn wait(&mut self) -> Option<Completion> {
        self.inner.wait()
    }
}

/// What the device will not take of a layer that is prefetched is an error of the fetch that needs it, if
/// it still will not take it then, and of no other.
#[test]
fn prefetches_that_are_refused_fail_no_other_layer() {
    let recipe = Recipe::placeholder(2, 300, 4096);
    let file = recipe.build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let prefetch_bytes = Config::staging_bytes_full(&pack).next_multiple_of(4096);
    let config = Config { prefetch_bytes, queue_depth: 4, ..Config::new(&pack) };
    let active: Vec<u32> = (0..300).step_by(3).collect();
    let begin = pack.layer(1).unwrap().region_offset();
    let region = begin..begin + pack.shape().region_bytes(pack.shape().neurons);
    for still in [false, true] {
        let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
        let now = AtomicBool::new(false);
        let mut engine = Engine::open(pack, &config, &mut memory, |_| {
            let inner = SimulatedQueue::new(Image::Bytes(&file), law(), config.queue_depth, 5);
            Ok::<_, EngineError>(Refuses { inner, region: region.clone(), now: &now })
        })
        .unwrap();
        engine.session(|session| {
            // as many as the queue holds are under way before it refuses
            assert!(session.prefetch(1, &active).unwrap().reads > 4);
            now.store(true, Ordering::Relaxed);
            fetch(session, &Threads(0), &recipe, 0, &active);
            now.store(still, Ordering::Relaxed);
            if still {
                let mut ignore = |_, _, _: &[u8], _: &[u8]| Ok(());
                let arrive = |_: u32, _: &[u8], _: &[u8]| Ok(0.0);
                let found = session.fetch(&Threads(0), 1, &active, arrive, &mut ignore);
                let refused = ReadFailure::System { errno: 16 };
                assert!(matches!(found, Err(EngineError::Read(e)) if e.failure == refused));
                now.store(false, Ordering::Relaxed);
            }
            fetch(session, &Threads(0), &recipe, 1, &active);
        });
        assert!(engine.is_idle());
    }
}

#[test]
fn a_coefficient_that_failed_once_is_the_one_of_the_second_time() {
    let recipe = Recipe::small(1, 20);
    with_engine(
        &recipe,
        |_| {},
        0,
        |engine| {
            let calls = AtomicU32::new(0);
            let arrive =
                |neuron: u32, _: &[u8], _: &[u8]| match calls.fetch_add(1, Ordering::Relaxed) {
                    0 => Err(EngineError::OtherPack),
                    _ => Ok(neuron as f32),
                };
            let mut found = Vec::new();
            let mut finish = |neuron, coefficient, _: &[u8], _: &[u8]| {
                found.push((neuron, coefficient));
                Ok(())
            };
            engine.session(|session| {
                session.fetch(&Threads(0), 0, &[2, 5, 9], arrive, &mut finish).unwrap();
            });
            assert_eq!(found, [(2, 2.0), (5, 5.0), (9, 9.0)]);
        },
    );
}

/// What the panics of the tests say.
const OWN: &str = "the caller's own";

/// Says nothing of the panics that the tests are about.
fn own_panics_are_silent() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic.to_string().contains(OWN) {
                told(panic);
            }
        }));
    });
}

/// On another thread than `caller`'s: raises the flag and says so. On `caller`'s: waits for that.
fn is_worker(caller: ThreadId, flag: &AtomicU32) -> bool {
    if std::thread::current().id() != caller {
        flag.store(1, Ordering::Release);
        return true;
    }
    let begin = Instant::now();
    while flag.load(Ordering::Acquire) == 0 && begin.elapsed() < Duration::from_secs(1) {
        std::thread::yield_now();
    }
    false
}

/// What a worker had claimed when it unwound is computed by nobody: the one who waits for it is told.
#[test]
fn a_panic_of_a_worker_goes_through() {
    own_panics_are_silent();
    let recipe = Recipe::placeholder(2, 50, 4096);
    let active: Vec<u32> = (0..50).step_by(3).collect();
    let caller = std::thread::current().id();
    with_engine(
        &recipe,
        |_| {},
        1_000_000,
        |engine| {
            engine.session(|session| {
                let flag = AtomicU32::new(0);
                let arrive = |_: u32, _: &[u8], _: &[u8]| {
                    assert!(!is_worker(caller, &flag), "{OWN}");
                    Ok(0.0)
                };
                let fetched = AssertUnwindSafe(|| {
                    session.fetch(&Threads(1), 0, &active, arrive, &mut |_, _, _, _| Ok(())).is_ok()
                });
                assert!(catch_unwind(fetched).is_err());
                fetch(session, &Threads(1), &recipe, 0, &active);
            });
        },
    );
}

/// What was prefetched when the caller's code unwound was drained with the rest, unseen: nobody waits for
/// it, even with nothing else to do.
#[test]
fn what_was_prefetched_before_a_panic_is_not_waited_for() {
    own_panics_are_silent();
    let recipe = Recipe::placeholder(2, 50, 4096);
    let active: Vec<u32> = (0..50).step_by(3).collect();
    let caller = std::thread::current().id();
    with_engine(
        &recipe,
        |_| {},
        1_000_000,
        |engine| {
            engine.session(|session| {
                session.prefetch(1, &active).unwrap();
                let arrive = |_: u32, _: &[u8], _: &[u8]| Ok(0.0);
                let fetched = AssertUnwindSafe(|| {
                    let mut finish = |_, _, _: &[u8], _: &[u8]| panic!("{OWN}");
                    session.fetch(&Threads(0), 0, &active, arrive, &mut finish).is_ok()
                });
                assert!(catch_unwind(fetched).is_err());
                let flag = AtomicU32::new(0);
                let arrive = |_: u32, _: &[u8], _: &[u8]| {
                    if is_worker(caller, &flag) {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    Ok(0.0)
                };
                session.fetch(&Threads(1), 1, &active, arrive, &mut |_, _, _, _| Ok(())).unwrap();
            });
        },
    );
}

/// A caller's panic goes through, on whatever thread and at whatever bundle; nobody waits for ever, and
/// the engine goes on, in the same session too.
#[test]
fn a_panic_of_the_caller_goes_through() {
    let recipe = Recipe::small(2, 200);
    let active: Vec<u32> = (0..200).step_by(3).collect();
    own_panics_are_silent();
    with_engine(
        &recipe,
        |config| (config.queue_depth, config.cache_bundles) = (4, 30),
        300_000,
        |engine| {
            engine.session(|session| {
                for at in 0..40_u32 {
                    let workers = Threads(at % 2);
                    session.prefetch(1, &active).unwrap();
                    let (calls, phase) = (AtomicU32::new(0), at / 2 % 2);
                    let count = |here| {
                        let is_now = phase == here && calls.fetch_add(1, Ordering::Relaxed) == at;
                        assert!(!is_now, "{OWN}");
                    };
                    let arrive = |_: u32, _: &[u8], _: &[u8]| {
                        count(0);
                        Ok(0.0)
                    };
                    let mut finish = |_, _, _: &[u8], _: &[u8]| {
                        count(1);
                        Ok(())
                    };
                    let layer = at / 4 % 2;
                    let fetched = AssertUnwindSafe(|| {
                        session.fetch(&workers, layer, &active, arrive, &mut finish).is_ok()
                    });
                    assert!(catch_unwind(fetched).is_err(), "{at}");
                    assert_eq!(session.engine().queue().in_flight(), 0);
                    fetch(session, &workers, &recipe, 1, &active);
                    fetch(session, &workers, &recipe, 0, &active);
                }
            });
        },
    );
}
