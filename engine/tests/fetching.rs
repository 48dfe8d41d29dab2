//! The engine against a plain read of the pack: the same bytes in ascending neuron id, whatever
//! the back end, the collapse, the cache and the staging area.

#[path = "../../format/tests/common/mod.rs"]
mod common;

mod back_ends;

use back_ends::{back_ends, on_disk};
use common::Recipe;
use lnp_engine::arena::{Arena, Staging, StagingMemory};
use lnp_engine::ffn::Ffn;
use lnp_engine::limits::{CACHE_LONG_RUN_ADMITS_ONE_IN, CACHE_LONG_RUN_BUNDLES};
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::queue::{Clock, Completion, Read, ReadError, ReadFailure, ReadQueue, TimedQueue};
use lnp_engine::sys::{BackEndChoice, DeviceQueue, DirectFile, OpenError};
use lnp_engine::{
    CachePolicy, Collapse, Combine, Config, DeviceLaw, Engine, EngineError, FetchStats,
    open_engine, required_bytes,
};
use lnp_format::Pack;
use lnp_kernels::CpuFeatures;
use proptest::prelude::*;

fn law() -> DeviceLaw {
    DeviceLaw::new(20.0, 9.64, 2034.0, Combine::Sum).unwrap()
}

/// Fetches and compares each bundle with the recipe.
fn fetch_and_compare<'a, Q: TimedQueue<'a> + Send>(
    engine: &mut Engine<'a, Q>,
    recipe: &Recipe,
    layer: u32,
    active: &[u32],
) -> Result<FetchStats, EngineError> {
    let mut seen = Vec::new();
    let stats = engine.fetch(layer, active, |neuron, bundle| {
        assert_eq!(bundle, recipe.bundle(layer, neuron), "layer {layer}, neuron {neuron}");
        seen.push(neuron);
        Ok(())
    })?;
    assert_eq!(seen, active);
    assert_eq!(stats.active, active.len() as u64);
    let stride = u64::from(recipe.shape.bundle_stride);
    assert_eq!(stats.useful_bytes, (stats.active - stats.hits) * stride);
    assert!(stats.bytes_read >= stats.useful_bytes);
    Ok(stats)
}

fn simulated<'a>(
    file: &'a [u8],
    pack: Pack<'a>,
    config: &Config,
    memory: &'a mut [u8],
) -> Engine<'a, SimulatedQueue<'a>> {
    Engine::open(pack, config, memory, |_| {
        let image = Image::Bytes(file);
        Ok::<_, EngineError>(SimulatedQueue::new(image, law(), config.queue_depth, 7))
    })
    .unwrap()
}

fn collapses() -> [Collapse; 5] {
    let max = DeviceLaw::new(0.0, 50.0, 900.0, Combine::Max).unwrap();
    [
        Collapse::Off,
        Collapse::Gap { bytes: 1024 },
        Collapse::Law(law()),
        Collapse::Law(max),
        Collapse::Whole,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 150 }))]
    #[test]
    fn the_same_bytes_whatever_the_settings(
        neurons in 1u32..120,
        stride in prop::sample::select(vec![256u32, 100, 1536, 4095, 5000]),
        cache_bundles in 0u32..130,
        cache_policy in prop::sample::select(CachePolicy::ALL.to_vec()),
        collapse in 0usize..5,
        staging_blocks in 2usize..80,
        queue_depth in 1u32..40,
        tokens in prop::collection::vec((0u32..3, prop::collection::btree_set(0u32..120, 0..120)), 1..8),
    ) {
        let mut recipe = Recipe::placeholder(3, neurons, stride);
        recipe.block_bytes = 512;
        let file = recipe.build();
        let pack = Pack::parse(&file, file.len() as u64).unwrap();
        let collapse = collapses()[collapse];
        let full = Config::staging_bytes_full(&pack);
        let staging_bytes = if collapse == Collapse::Whole { full } else {
            (staging_blocks * 512).max(Config::staging_bytes_min(&pack))
        };
        let config = Config {
            collapse, cache_bundles, cache_policy, staging_bytes, queue_depth, verify_reads: true,
            ..Config::new(&pack)
        };
        let mut memory = vec![0xcc; required_bytes(&config, &pack).unwrap()];
        let mut engine = simulated(&file, pack, &config, &mut memory);
        for (layer, active) in tokens {
            let active: Vec<u32> = active.into_iter().filter(|neuron| *neuron < neurons).collect();
            let stats = fetch_and_compare(&mut engine, &recipe, layer, &active).unwrap();
            let keeps_all = matches!(cache_policy, CachePolicy::Lru | CachePolicy::S3Fifo);
            if keeps_all && cache_bundles >= 3 * neurons {
                let again = fetch_and_compare(&mut engine, &recipe, layer, &active).unwrap();
                prop_assert_eq!((again.hits, again.reads), (active.len() as u64, 0));
            }
            if staging_bytes >= full { prop_assert!(stats.rounds <= 1); }
            prop_assert_eq!(engine.queue().in_flight(), 0);
        }
    }
}

/// The cache is told how long the runs are that bundles were read in.
#[test]
fn bundles_of_long_runs_are_kept_now_and_then() {
    let recipe = Recipe::placeholder(1, 400, 512);
    let file = recipe.build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let slots = pack.layer(0).unwrap().neuron_of_slot();
    let (long, short) = (CACHE_LONG_RUN_BUNDLES, CACHE_LONG_RUN_BUNDLES - 1);
    // ten runs that are just long, then ten that are just short
    let begins = (0..20).map(|run| (run * (long + 1), if run < 10 { long } else { short }));
    let mut active: Vec<u32> = begins
        .flat_map(|(begin, bundles)| begin..begin + bundles)
        .map(|slot| slots[slot as usize].get())
        .collect();
    active.sort_unstable();
    let cache_policy = CachePolicy::LinkingAligned;
    let config = Config { cache_bundles: 400, cache_policy, ..Config::new(&pack) };
    let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
    let mut engine = simulated(&file, pack, &config, &mut memory);
    fetch_and_compare(&mut engine, &recipe, 0, &active).unwrap();
    assert_eq!(engine.cached_bundles(), 10 * short + 10 * long / CACHE_LONG_RUN_ADMITS_ONE_IN);
}

#[test]
fn wrong_active_sets_and_layers_are_errors() {
    let recipe = Recipe::small(2, 10);
    let file = recipe.build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let config = Config::new(&pack);
    let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
    let mut engine = simulated(&file, pack, &config, &mut memory);
    let mut ffn_memory = [0; 4096];
    let mut ffn = Ffn::new(pack.shape(), CpuFeatures::NONE, 1, &mut ffn_memory).unwrap();
    for (x, y) in [(0, 32), (32, 31), (33, 33)] {
        let found = ffn.forward(&mut engine, 0, &vec![0.0; x], &[], &mut vec![0.0; y]);
        assert!(matches!(found, Err(EngineError::Kernel(_))), "{x} {y}");
    }
    let mut fetch = |layer, active: &[u32]| engine.fetch(layer, active, |_, _| Ok(())).unwrap_err();
    assert_eq!(fetch(2, &[]), EngineError::Layer { found: 2, layers: 2 });
    assert_eq!(fetch(u32::MAX, &[1]), EngineError::Layer { found: u32::MAX, layers: 2 });
    for active in [&[3, 3][..], &[4, 2], &[10], &[u32::MAX], &[0, u32::MAX]] {
        assert!(matches!(fetch(0, active), EngineError::Active { .. }), "{active:?}");
    }
    fetch_and_compare(&mut engine, &recipe, 1, &[0, 9]).unwrap();
}

#[test]
fn settings_and_arenas_that_do_not_fit_are_errors() {
    let file = Recipe::small(1, 100).build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let config = Config::new(&pack);
    let with = |change: fn(&mut Config)| {
        let mut config = config;
        change(&mut config);
        required_bytes(&config, &pack)
    };
    for change in [
        (|c| c.queue_depth = 0) as fn(&mut Config),
        |c| c.queue_depth = 257,
        |c| c.staging_bytes = 100,
        |c| c.staging_bytes = 1 << 40,
        |c| c.cache_bundles = u32::MAX,
        |c| (c.collapse, c.staging_bytes) = (Collapse::Whole, 4096),
    ] {
        assert!(matches!(with(change), Err(EngineError::Config { .. })));
    }
    let needed = required_bytes(&config, &pack).unwrap();
    let mut memory = vec![0; needed - 1];
    let opened = Engine::open(pack, &config, &mut memory, |_| {
        Ok::<_, EngineError>(SimulatedQueue::new(Image::Opaque(0), law(), 1, 0))
    });
    let expected = EngineError::ArenaTooSmall { expected: needed, found: needed - 1 };
    assert_eq!(opened.err(), Some(expected));
}

#[test]
fn the_device_ends_early_and_the_engine_stays_usable() {
    let recipe = Recipe::small(2, 50);
    let file = recipe.build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let config = Config::new(&pack);
    let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
    let cut = pack.layer(1).unwrap().region_offset() as usize + 1024;
    let mut engine = simulated(&file[..cut], pack, &config, &mut memory);
    let everything: Vec<u32> = (0..50).collect();
    assert!(matches!(engine.fetch(1, &everything, |_, _| Ok(())), Err(EngineError::Read(_))));
    fetch_and_compare(&mut engine, &recipe, 0, &everything).unwrap();
}

#[test]
fn a_damaged_bundle_is_found_on_read() {
    let recipe = Recipe::small(1, 20);
    let mut file = recipe.build();
    let region = Pack::parse(&file, file.len() as u64).unwrap().layer(0).unwrap().region_offset();
    file[region as usize + 256 * 5 + 17] ^= 4;
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let config = Config { verify_reads: true, ..Config::new(&pack) };
    let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
    let mut engine = simulated(&file, pack, &config, &mut memory);
    let victim = recipe.orders[0][5];
    let found = engine.fetch(0, &[victim], |_, _| Ok(()));
    assert!(matches!(found, Err(EngineError::BundleDamaged { layer: 0, slot: 5, .. })));
}

#[test]
fn simulated_time_is_the_law_at_any_depth() {
    let file = Recipe::small(1, 64).build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    for queue_depth in [1, 2, 32] {
        let config = Config { queue_depth, ..Config::new(&pack) };
        let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
        let mut engine = simulated(&file, pack, &config, &mut memory);
        let active: Vec<u32> = (0..64).step_by(3).collect();
        let stats = engine.fetch(0, &active, |_, _| Ok(())).unwrap();
        let expected_us = law().time_us(stats.reads, stats.bytes_read);
        assert!((stats.io_ns as f64 / 1e3 - expected_us).abs() < 0.01, "depth {queue_depth}");
        // nothing to read takes no time
        assert_eq!(engine.fetch(0, &[], |_, _| Ok(())).unwrap(), FetchStats::default());
    }
}

/// A queue whose n-th completion fails; the rest goes to the simulated device.
struct Failing<'a> {
    inner: SimulatedQueue<'a>,
    left: u32,
}

impl Clock for Failing<'_> {
    fn now_ns(&self) -> u64 {
        self.inner.now_ns()
    }
}

impl<'a> ReadQueue<'a> for Failing<'a> {
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
        let mut completion = self.inner.wait()?;
        self.left = self.left.wrapping_sub(1);
        if self.left == 0 {
            let failure = ReadFailure::System { errno: 5 };
            completion.result = Err(ReadError { failure, file_offset: 0, bytes: 0 });
        }
        Some(completion)
    }
}

#[test]
fn a_failed_read_leaves_nothing_in_flight() {
    let recipe = Recipe::placeholder(2, 300, 5000);
    let file = recipe.build();
    let pack = Pack::parse(&file, file.len() as u64).unwrap();
    let config = Config { queue_depth: 8, cache_bundles: 50, ..Config::new(&pack) };
    let active: Vec<u32> = (0..300).step_by(4).collect();
    for failing in 1..60 {
        let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
        let mut engine = Engine::open(pack, &config, &mut memory, |_| {
            let inner = SimulatedQueue::new(Image::Bytes(&file), law(), 8, 3);
            Ok::<_, EngineError>(Failing { inner, left: failing })
        })
        .unwrap();
        let found = engine.fetch(0, &active, |_, _| Ok(()));
        assert!(matches!(found, Err(EngineError::Read(_))), "{found:?}");
        assert_eq!(engine.queue().in_flight(), 0);
        assert_eq!(engine.cached_bundles(), 0, "bytes of a failed round are not kept");
        fetch_and_compare(&mut engine, &recipe, 0, &active).unwrap();
    }
}

/// Long extents are split into several reads, and every piece goes where it belongs.
#[test]
fn long_extents_are_split_right() {
    let recipe = Recipe::placeholder(2, 700, 5000);
    let image = recipe.build();
    let (_disk, path) = on_disk(&image);
    let file = DirectFile::open(&path, false).unwrap();
    let pack = Pack::parse(&image, image.len() as u64).unwrap();
    let everything: Vec<u32> = (0..700).collect();
    for choice in back_ends(&path) {
        for queue_depth in [1, 3, 32] {
            let config = Config { queue_depth, ..Config::new(&pack) };
            let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
            let mut engine = open_engine(&file, pack, &config, &mut memory, choice).unwrap();
            let stats = fetch_and_compare(&mut engine, &recipe, 1, &everything).unwrap();
            assert_eq!((stats.reads, stats.runs), (4, 1)); // 3.5 MB in pieces of 1 MiB
        }
    }
}

#[test]
fn another_file_is_not_taken_for_the_pack() {
    let recipe = Recipe::placeholder(1, 40, 4096);
    let image = recipe.build();
    let other = Recipe::placeholder(1, 80, 4096).build();
    let (_disk, path) = on_disk(&other);
    let file = DirectFile::open(&path, false).unwrap();
    let pack = Pack::parse(&image, image.len() as u64).unwrap();
    let config = Config::new(&pack);
    let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
    let opened = open_engine(&file, pack, &config, &mut memory, BackEndChoice::Auto);
    assert_eq!(opened.err(), Some(OpenError::Engine(EngineError::OtherPack)));
}

#[test]
fn blocks_smaller_than_the_devices_are_refused() {
    let image = Recipe::small(1, 40).build(); // blocks of 512
    let (_disk, path) = on_disk(&image);
    let file = DirectFile::open(&path, false).unwrap();
    let pack = Pack::parse(&image, image.len() as u64).unwrap();
    let config = Config::new(&pack);
    let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
    let opened = open_engine(&file, pack, &config, &mut memory, BackEndChoice::Auto);
    let refused = matches!(opened, Err(OpenError::Alignment { found: 512, .. }));
    assert_eq!(refused, file.align() > 512);
}

/// What the engine relies on: a buffer is out of reach while its read is in flight, and a queue that is
/// dropped with reads in flight waits for them.
#[test]
fn a_buffer_is_out_of_reach_while_its_read_is_in_flight() {
    let image = Recipe::placeholder(1, 600, 4096).build();
    let (_disk, path) = on_disk(&image);
    let file: &'static _ = Box::leak(Box::new(DirectFile::open(&path, false).unwrap()));
    for choice in back_ends(&path) {
        let mut memory: &'static mut [u8] = Box::leak(vec![0_u8; 66 * 4096].into_boxed_slice());
        let staging_memory = StagingMemory::of(&mut memory);
        let mut arena = Arena::new(memory);
        let staging = arena.take_bytes(64 * 4096, 4096).unwrap();
        let mut staging = Staging::new(&mut arena, staging, 64).unwrap();
        assert!(!staging.lay_out([4096; 65].into_iter()));
        assert!(staging.lay_out([4096; 64].into_iter()));
        let mut queue = DeviceQueue::open(file, staging_memory, 16, choice).unwrap();
        let read = |staging: &Staging<'static>, at: u32| Read {
            file_offset: u64::from(at) * 8192,
            lease: staging.lease(at as usize).unwrap(),
            tag: at,
        };
        assert_eq!(queue.poll(), None);
        assert_eq!(queue.wait(), None);
        for at in 0..16 {
            queue.submit(read(&staging, at)).unwrap();
            assert!(staging.bytes_of(at as usize).is_none());
            assert!(staging.lease(at as usize).is_none());
        }
        let full = queue.submit(read(&staging, 16)).unwrap_err();
        assert_eq!(full.failure, ReadFailure::QueueFull);
        let mut tags: Vec<u32> = (0..16)
            .map(|_| queue.poll().or_else(|| queue.wait()).unwrap())
            .map(|completion| (completion.result.unwrap(), completion.tag).1)
            .collect();
        tags.sort_unstable();
        assert_eq!(tags, (0..16).collect::<Vec<_>>());
        for at in 0..16 {
            let bytes = staging.claim(at).unwrap();
            assert!(*bytes == image[at * 8192..at * 8192 + 4096]);
            assert!(staging.claim(at).is_none());
            assert!(staging.bytes_of(at).is_some());
        }
        assert!(staging.lay_out([8192; 32].into_iter()));
        for at in 0..16 {
            queue.submit(read(&staging, at)).unwrap();
        }
        queue.flush();
        assert!(!staging.lay_out([4096].into_iter()), "buffers in flight are not cut anew");
        drop(queue);
        assert!(staging.lay_out([4096].into_iter()));
    }
}

#[test]
fn real_back_ends_deliver_the_same_bits() {
    let mut recipe = Recipe::small(3, 200);
    recipe.block_bytes = 4096;
    let image = recipe.build();
    let (_disk, path) = on_disk(&image);
    let file = DirectFile::open(&path, false).unwrap();
    assert_eq!(file.bytes(), image.len() as u64);
    let pack = Pack::parse(&image, image.len() as u64).unwrap();
    let x: Vec<f32> = (0..32).map(|at| at as f32 / 16.0 - 1.0).collect();
    let mut outputs: Vec<Vec<u32>> = Vec::new();
    for choice in back_ends(&path) {
        for collapse in collapses() {
            for (cache_bundles, queue_depth) in [(0, 1), (60, 32), (600, 200)] {
                let base = Config { collapse, cache_bundles, queue_depth, ..Config::new(&pack) };
                let config = Config { verify_reads: true, ..base };
                let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
                let mut engine = open_engine(&file, pack, &config, &mut memory, choice).unwrap();
                let mut ffn_memory = [0; 4096];
                let mut ffn =
                    Ffn::new(pack.shape(), CpuFeatures::NONE, 1, &mut ffn_memory).unwrap();
                let mut bits = Vec::new();
                for token in 0..6u32 {
                    for layer in 0..3 {
                        let active: Vec<u32> =
                            (0..200).filter(|n| (n * 7 + token * 3 + layer) % 5 < 2).collect();
                        fetch_and_compare(&mut engine, &recipe, layer, &active).unwrap();
                        let mut y = [0.0; 32];
                        ffn.forward(&mut engine, layer, &x, &active, &mut y).unwrap();
                        bits.extend(y.map(f32::to_bits));
                    }
                }
                outputs.push(bits);
            }
        }
    }
    assert!(outputs.iter().all(|bits| *bits == outputs[0]));
}

#[test]
fn a_file_that_shrinks_while_open_gives_an_error() {
    let mut recipe = Recipe::small(2, 100);
    recipe.block_bytes = 4096;
    let image = recipe.build();
    let (disk, path) = on_disk(&image);
    let file = DirectFile::open(&path, false).unwrap();
    let pack = Pack::parse(&image, image.len() as u64).unwrap();
    for choice in back_ends(&path) {
        let config = Config::new(&pack);
        let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
        let mut engine = open_engine(&file, pack, &config, &mut memory, choice).unwrap();
        disk.as_file().set_len(8192).unwrap();
        let found = engine.fetch(1, &[0, 50, 99], |_, _| Ok(()));
        assert!(matches!(found, Err(EngineError::Read(_))), "{found:?}");
        disk.as_file().set_len(image.len() as u64).unwrap();
    }
}
