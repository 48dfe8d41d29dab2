//! The swarm: engines of all kinds of settings on devices with all kinds of faults, one seed each.
//! Every fetch ends in the right bytes, in ascending id, once each; or in an error that the faults of
//! the device explain. Nothing stays in flight, and without faults the engine fetches again.
//!
//!     LNP_SWARM_SEEDS=100000 cargo test -p lnp-engine --test swarm    # longer
//!     LNP_SWARM_SEED=77 cargo test -p lnp-engine --test swarm         # one seed again

#[path = "../../format/tests/common/mod.rs"]
mod common;
#[path = "swarm/outcome.rs"]
mod outcome;
#[path = "swarm/predicting.rs"]
mod predicting;
#[path = "swarm/setup.rs"]
mod setup;
mod support;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use common::Recipe;
use lnp_engine::engine::{ActiveSet, Session};
use lnp_engine::ffn::Ffn;
use lnp_engine::queue::simulated::{FaultCounts, Image, SimulatedQueue, Switch};
use lnp_engine::queue::{Clock, ReadQueue};
use lnp_engine::{Config, Engine, EngineError, FetchStats, required_bytes};
use lnp_format::Pack;
use lnp_kernels::CpuFeatures;
use outcome::{Outcome, Watch};
use setup::{Setup, active_set, predicted};
use support::{Dice, Threads};

const SEEDS: u64 = 1200;
/// Fetches of each seed, at least.
const FETCHES: u64 = 105;

/// One seed under way.
struct Run<'a> {
    setup: Setup,
    dice: Dice,
    file: &'a [u8],
    pack: Pack<'a>,
    /// File offset of each neuron's bundle, by layer.
    bundle_at: Vec<Vec<usize>>,
    /// The set that each layer was last asked for.
    last: Vec<Vec<u32>>,
    switch: &'a Switch,
    computes: bool,
    verify: bool,
    hash: DefaultHasher,
    outcome: Outcome,
}

fn run(seed: u64, alone: bool) -> Outcome {
    let mut dice = Dice::new(seed);
    let setup = Setup::new(seed, &mut dice, alone);
    let recipe = setup.recipe(&mut dice);
    let file = recipe.build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let config = setup.config(&pack, &mut dice);
    let report = AssertUnwindSafe(|| {
        let mut memory = vec![0xcc; required_bytes(&config, &pack).unwrap()];
        let switch = Switch::new(true);
        let device = setup.device(&file, config.queue_depth, &switch);
        let mut engine =
            Engine::open(pack, &config, &mut memory, |_| Ok::<_, EngineError>(device)).unwrap();
        let bundle_at = bundle_offsets(&recipe, &pack);
        let mut run = Run {
            setup,
            dice,
            file: &file,
            pack,
            bundle_at,
            last: vec![Vec::new(); setup.layers as usize],
            switch: &switch,
            computes: setup.computes(),
            verify: config.verify_reads,
            hash: DefaultHasher::new(),
            outcome: Outcome::default(),
        };
        run.go(&mut engine);
        run.outcome.faults = *engine.queue().counts();
        (engine.queue().now_ns(), *engine.queue().counts()).hash_into(&mut run.hash);
        run.outcome.digest = run.hash.finish();
        run.outcome
    });
    catch_unwind(report).unwrap_or_else(|panic| {
        eprintln!("LNP_SWARM_SEED={seed} fails:\n{setup:#?}\n{config:#?}");
        resume_unwind(panic)
    })
}

trait HashInto {
    fn hash_into(&self, hash: &mut DefaultHasher);
}

impl<T: std::fmt::Debug> HashInto for T {
    fn hash_into(&self, hash: &mut DefaultHasher) {
        format!("{self:?}").hash(hash);
    }
}

fn bundle_offsets(recipe: &Recipe, pack: &Pack<'_>) -> Vec<Vec<usize>> {
    let stride = recipe.shape.bundle_stride as usize;
    let layer = |(layer, order): (u32, &Vec<u32>)| {
        let mut at = vec![0; recipe.shape.neurons as usize];
        let region = pack.layer(layer).unwrap().region_offset() as usize;
        for (slot, neuron) in order.iter().enumerate() {
            at[*neuron as usize] = region + slot * stride;
        }
        at
    };
    (0..).zip(&recipe.orders).map(layer).collect()
}

type Device<'a> = SimulatedQueue<'a>;

impl<'a> Run<'a> {
    fn go(&mut self, engine: &mut Engine<'a, Device<'a>>) {
        while self.outcome.fetches < FETCHES {
            match self.dice.below(8) {
                0..=2 => self.in_session(engine),
                3 => self.recover(engine),
                4 if self.setup.predicts => self.by_predictors(engine),
                _ => {
                    let (layer, active) = self.token();
                    engine.session(|session| self.fetch(session, layer, &active));
                }
            }
            assert!(engine.is_idle(), "something is left in flight");
        }
    }

    /// A layer and its active set, which is often like the one before.
    fn token(&mut self) -> (u32, Vec<u32>) {
        let layer = self.dice.below(self.setup.layers);
        let last = &mut self.last[layer as usize];
        if last.is_empty() || self.dice.one_in(2) {
            *last = active_set(&mut self.dice, self.setup.neurons);
        } else if self.dice.one_in(2) {
            last.retain(|_| !self.dice.one_in(4));
        }
        (layer, last.clone())
    }

    /// Several layers with some of them prefetched.
    fn in_session(&mut self, engine: &mut Engine<'a, Device<'a>>) {
        engine.session(|session| {
            let mut coming = self.token();
            for _ in 0..self.dice.among(1, 5) {
                let (layer, active) = coming;
                coming = self.token();
                if !self.dice.one_in(4) {
                    self.prefetch(session, coming.0, &coming.1);
                }
                while self.dice.one_in(3) {
                    session.go_on();
                }
                if self.dice.one_in(10) {
                    session.cancel_prefetch();
                    assert_eq!(session.engine().queue().in_flight(), 0);
                }
                self.fetch(session, layer, &active);
            }
            if self.dice.one_in(2) {
                self.fetch(session, coming.0, &coming.1);
            }
        });
    }

    /// What a prediction says of a set, which may be wrong.
    fn prefetch(&mut self, session: &mut Session<'_, 'a, Device<'a>>, layer: u32, active: &[u32]) {
        let predicted = predicted(&mut self.dice, active, self.setup.neurons);
        self.prefetch_all(session, layer, &predicted);
    }

    fn prefetch_all(
        &mut self,
        session: &mut Session<'_, 'a, Device<'a>>,
        layer: u32,
        predicted: &[u32],
    ) {
        let before = *session.engine().queue().counts();
        let result = if self.dice.one_in(2) {
            session.prefetch(layer, predicted)
        } else {
            let strengths: Vec<f32> =
                predicted.iter().map(|_| self.dice.below(1000) as f32).collect();
            session.prefetch_strongest(layer, predicted, &strengths)
        };
        self.outcome.prefetches += 1;
        let after = *session.engine().queue().counts();
        match result {
            Ok(_) => {}
            Err(EngineError::Config { field: "prefetch_bytes", .. }) => {
                assert_eq!(session.engine().config().prefetch_bytes, 0);
            }
            Err(error) => self.outcome.explained(&error, (&before, &after), self.verify),
        }
    }

    fn fetch(
        &mut self,
        session: &mut Session<'_, 'a, Device<'a>>,
        layer: u32,
        active: &[u32],
    ) -> Option<FetchStats> {
        let before = *session.engine().queue().counts();
        let result = if self.computes && self.dice.one_in(3) {
            self.forward(session, layer, active)
        } else {
            self.fetch_bytes(session, layer, active)
        };
        self.note(session, before, result, active.len())
    }

    /// Takes note of a fetch that asked for so many bundles, and of what explains its error.
    fn note(
        &mut self,
        session: &Session<'_, 'a, Device<'a>>,
        before: FaultCounts,
        result: Result<FetchStats, EngineError>,
        active: usize,
    ) -> Option<FetchStats> {
        let after = *session.engine().queue().counts();
        (&result, session.engine().queue().now_ns()).hash_into(&mut self.hash);
        self.outcome.fetches += 1;
        match result {
            Ok(stats) => {
                assert_eq!(stats.active, active as u64);
                self.outcome.prefetched += stats.prefetched;
                self.outcome.hits += stats.hits;
                self.outcome.rounds += stats.rounds;
                Some(stats)
            }
            Err(error) => {
                assert_eq!(session.engine().queue().in_flight(), 0);
                self.outcome.errors += 1;
                self.outcome.explained(&error, (&before, &after), self.verify);
                None
            }
        }
    }

    fn fetch_bytes(
        &mut self,
        session: &mut Session<'_, 'a, Device<'a>>,
        layer: u32,
        active: &[u32],
    ) -> Result<FetchStats, EngineError> {
        let begun = self.dice.one_in(2);
        let ids = ActiveSet::new(active, self.setup.neurons)?;
        if begun {
            session.begin(layer, ids)?;
            // The way of a token with predictions; what is prefetched may never be asked for.
            if self.dice.one_in(2) {
                let (other, likely) = (self.dice.below(self.setup.layers), active.to_vec());
                self.prefetch(session, other, &likely);
            }
            while self.dice.one_in(3) {
                session.go_on();
            }
        }
        let mut seen = Vec::new();
        let damaged = AtomicU64::new(0);
        let (file, at) = (self.file, &self.bundle_at[layer as usize]);
        let stride = self.setup.stride as usize;
        let may_be_damaged = self.setup.faults.flipped > 0 && !self.verify;
        let compare = |neuron: u32, bundle: &[u8]| {
            let begin = at[neuron as usize];
            let expected = &file[begin..begin + stride];
            if bundle == expected {
                return;
            }
            let bits = |(a, b): (&u8, &u8)| (a ^ b).count_ones();
            let wrong: u32 = bundle.iter().zip(expected).map(bits).sum();
            assert_eq!(bundle.len(), stride);
            assert!(may_be_damaged && wrong == 1, "layer {layer}, neuron {neuron}: {wrong} bits");
            damaged.fetch_add(1, Ordering::Relaxed);
        };
        let coefficient = |neuron: u32| neuron as f32 + 0.5;
        let arrive = |neuron, bundle: &[u8], _: &[u8]| {
            compare(neuron, bundle);
            Ok(coefficient(neuron))
        };
        let mut finish = |neuron, found: f32, bundle: &[u8], _: &[u8]| {
            compare(neuron, bundle);
            assert_eq!(found, coefficient(neuron));
            seen.push(neuron);
            Ok(())
        };
        let workers = Threads(self.setup.threads);
        let result = if begun {
            session.finish(&workers, layer, ids, arrive, &mut finish)
        } else {
            session.fetch(&workers, layer, active, arrive, &mut finish)
        };
        assert!(active.starts_with(&seen), "ids ascend, each once");
        assert!(result.is_err() || seen.len() == active.len());
        self.outcome.bundles += seen.len() as u64;
        self.outcome.damage_unseen += damaged.into_inner();
        result
    }

    /// The FFN of one or several tokens.
    fn forward(
        &mut self,
        session: &mut Session<'_, 'a, Device<'a>>,
        layer: u32,
        active: &[u32],
    ) -> Result<FetchStats, EngineError> {
        let mut ffn_memory = [0; 32 << 10];
        let mut ffn = Ffn::new(self.pack.shape(), CpuFeatures::NONE, 3, &mut ffn_memory).unwrap();
        // What any token needs, the first does.
        let mut sets = vec![active.to_vec()];
        for _ in 0..self.dice.below(3) {
            sets.push(active.iter().copied().filter(|_| self.dice.one_in(2)).collect());
        }
        let x: Vec<f32> =
            (0..32 * sets.len()).map(|_| self.dice.below(4000) as f32 / 1000.0 - 2.0).collect();
        let mut y = vec![0.0; x.len()];
        let workers = Threads(self.setup.threads);
        let tokens: Vec<&[u32]> = sets.iter().map(Vec::as_slice).collect();
        let stats = ffn.forward_in(session, &workers, layer, &x, &tokens, &mut y)?;
        self.outcome.outputs += 1;
        self.compare_outputs(&mut ffn, layer, &sets, &x, &y);
        Ok(stats)
    }

    /// Outputs have the bits of one token after the other on a device without faults, on one thread.
    fn compare_outputs(
        &self,
        ffn: &mut Ffn<'_>,
        layer: u32,
        sets: &[Vec<u32>],
        x: &[f32],
        y: &[f32],
    ) {
        if self.setup.faults.flipped > 0 && !self.verify {
            return;
        }
        let config = Config::new(&self.pack);
        let mut memory = vec![0; required_bytes(&config, &self.pack).unwrap()];
        let image = Image::Bytes(self.file);
        let device = SimulatedQueue::new(image, self.setup.law, 8, 0);
        let opened = |_| Ok::<_, EngineError>(device);
        let mut plain = Engine::open(self.pack, &config, &mut memory, opened).unwrap();
        for ((x, y), active) in x.chunks(32).zip(y.chunks(32)).zip(sets) {
            let mut expected = [0.0; 32];
            ffn.forward(&mut plain, layer, x, active, &mut expected).unwrap();
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(y), bits(&expected), "layer {layer}");
        }
    }

    /// The device behaves for a while.
    fn recover(&mut self, engine: &mut Engine<'a, Device<'a>>) {
        self.switch.set(false);
        // What was damaged unseen may be in there.
        engine.clear_cache();
        for _ in 0..2 {
            let (layer, active) = self.token();
            let (unseen, gone) = (self.outcome.damage_unseen, engine.queue().counts().gone > 0);
            let fetched = engine.session(|session| self.fetch(session, layer, &active));
            assert_eq!(unseen, self.outcome.damage_unseen, "damage without a fault");
            assert!(fetched.is_some() != gone || active.is_empty(), "gone for good, or well again");
        }
        self.outcome.recoveries += 1;
        self.switch.set(true);
    }
}

/// Runs seeds on all cores; ends the process where one hangs.
fn run_all(seeds: std::ops::Range<u64>) -> Outcome {
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Outcome::default());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let watch = Watch::begin(seed);
                    let outcome = run(seed, false);
                    drop(watch);
                    total.lock().unwrap().add(&outcome);
                }
            });
        }
    });
    total.into_inner().unwrap()
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a whole number"))
}

#[test]
fn every_fetch_is_right_or_an_error_that_the_faults_explain() {
    if let Some(seed) = variable("LNP_SWARM_SEED") {
        println!("{:#?}", run(seed, false));
        return;
    }
    let seeds = variable("LNP_SWARM_SEEDS").unwrap_or(SEEDS);
    let outcome = run_all(0..seeds);
    println!("{seeds} seeds: {outcome:#?}");
    assert!(outcome.fetches >= seeds * FETCHES);
    if seeds >= SEEDS {
        outcome.assert_all_kinds();
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in 1_000_000..1_000_020 {
        assert_eq!(run(seed, true), run(seed, true), "seed {seed}");
    }
}
