//! No allocation between open and close: an allocator that aborts proves it, for every back end.

#[path = "../../format/tests/common/mod.rs"]
mod common;

mod back_ends;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use back_ends::{back_ends, on_disk};
use common::Recipe;
use lnp_engine::engine::Alone;
use lnp_engine::ffn::Ffn;
use lnp_engine::predictors::{Predictors, rank_max};
use lnp_engine::queue::TimedQueue;
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::recorder::{Recorder, RecorderConfig};
use lnp_engine::sys::{DirectFile, cpu};
use lnp_engine::{
    CachePolicy, Collapse, Combine, Config, DeviceLaw, Engine, EngineError, open_engine,
    required_bytes,
};
use lnp_format::Pack;

thread_local! {
    static FORBIDDEN: Cell<bool> = const { Cell::new(false) };
}

struct Aborting;

// SAFETY: passes everything on to the system's allocator, unless it ends the process.
unsafe impl GlobalAlloc for Aborting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if FORBIDDEN.get() {
            FORBIDDEN.set(false);
            eprintln!("allocated {} bytes where nothing may be", layout.size());
            std::process::abort();
        }
        // SAFETY: a layout that is not empty is asked of this function's caller too.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, so from the system, with the layout that this
        // function's caller gives again.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Aborting = Aborting;

fn without_allocation<R>(body: impl FnOnce() -> R) -> R {
    FORBIDDEN.set(true);
    let result = body();
    FORBIDDEN.set(false);
    result
}

/// Several tokens through the FFN; the caller has forbidden allocation.
fn generate<'a, Q: TimedQueue<'a> + Send>(
    engine: &mut Engine<'a, Q>,
    ffn: &mut Ffn<'_>,
    active: &[u32],
) -> u64 {
    let mut y = [0.0; 32];
    let mut reads = 0;
    for token in 0..20 {
        for layer in 0..3 {
            let active = &active[token % 7..active.len() - token % 5];
            let Ok(stats) = ffn.forward(engine, layer, &[0.5; 32], active, &mut y) else {
                return 0;
            };
            reads += stats.reads;
        }
    }
    // nor does prefetching, rightly and wrongly
    let ahead = engine.session(|session| {
        for layer in 0..3 {
            session.prefetch((layer + 1) % 3, active)?;
            ffn.begin(session, layer, &[active])?;
            session.prefetch_strongest(
                (layer + 2) % 3,
                &active[..5],
                &[1.0, 3.0, 2.0, 5.0, 4.0],
            )?;
            reads += ffn.finish(session, &Alone, layer, &[0.5; 32], &mut y)?.reads;
        }
        session.cancel_prefetch();
        Ok::<_, EngineError>(())
    });
    if ahead.is_err() {
        return 0;
    }
    // nor does asking the pack's predictors, ahead or not
    let mut memory = [0; 64 << 10];
    let pack = *engine.pack();
    let rank = rank_max(&pack);
    let Ok(mut predictors) = Predictors::new(pack.shape(), rank, cpu::detect(), 2, &mut memory)
    else {
        return 0;
    };
    let predicted = engine.session(|session| {
        for layer in 0..3 {
            let by = (&mut predictors, 0.5);
            ffn.forward_predicted(session, &Alone, by, layer, &[0.5; 64], &mut [0.0; 64])?;
            let ahead = predictors.predict(&pack, ((layer + 1).min(2), 1), 0.5, &[0.5; 32])?;
            session.prefetch((layer + 1).min(2), ahead.sets()[0])?;
        }
        Ok::<_, EngineError>(())
    });
    if predicted.is_err() || predictors.predict(&pack, (0, 2), 0.5, &[0.5; 32]).is_ok() {
        return 0;
    }
    // nor does recording, nor taking out what was recorded
    let mut memory = [0; 32 << 10];
    let config = RecorderConfig::new(5);
    let Ok(mut recorder) = Recorder::new(pack.shape(), &config, &mut memory) else { return 0 };
    for token in 0..20 {
        for layer in 0..3 {
            let sets = [&active[..token], &active[token..]];
            if recorder.take(layer, &sets).is_err() {
                return 0;
            }
        }
    }
    let (mut part, mut at) = ([0; 100], 0);
    loop {
        let copied = recorder.read(&[("model", "any")], at, &mut part);
        at += copied as u64;
        if copied == 0 {
            break;
        }
    }
    if at < 1000 || at != recorder.bytes(&[("model", "any")]) {
        return 0;
    }
    // errors allocate nothing either
    let _ = engine.fetch(0, &[9999], |_, _| Ok(()));
    reads
}

#[test]
fn nothing_is_allocated_after_open() {
    let mut recipe = Recipe::small(3, 300).with_predictors().with_copies();
    recipe.block_bytes = 4096;
    let image = recipe.build();
    let (_disk, path) = on_disk(&image);
    let active: Vec<u32> = (0..300).filter(|n| n % 3 != 1).collect();
    let file = DirectFile::open(&path, false).unwrap();
    let law = DeviceLaw::new(10.0, 9.64, 2034.0, Combine::Max).unwrap();

    for choice in back_ends(&path) {
        let pack = Pack::parse(&image, image.len() as u64).unwrap();
        let base = Config::new(&pack);
        let config = Config {
            cache_bundles: 100,
            collapse: Collapse::Law(law),
            staging_bytes: base.staging_bytes / 2,
            verify_reads: true,
            adapt: true,
            prefetch_bytes: 1 << 16,
            ..base
        };
        let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
        let mut ffn_memory = [0; 16 << 10];
        // from parsing to closing
        let reads = without_allocation(|| {
            let pack = Pack::parse(&image, image.len() as u64).ok()?;
            let mut engine = open_engine(&file, pack, &config, &mut memory, choice).ok()?;
            let mut ffn = Ffn::new(pack.shape(), cpu::detect(), 2, &mut ffn_memory).ok()?;
            Some(generate(&mut engine, &mut ffn, &active))
        });
        assert!(reads.is_some_and(|reads| reads > 0), "{choice:?}");
    }

    let pack = Pack::parse(&image, image.len() as u64).unwrap();
    let mut ffn_memory = [0; 16 << 10];
    let mut ffn = Ffn::new(pack.shape(), cpu::detect(), 2, &mut ffn_memory).unwrap();
    // on the simulated device, opening and closing included
    for cache_policy in CachePolicy::ALL {
        let config = Config {
            cache_bundles: 30,
            cache_policy,
            prefetch_bytes: 1 << 16,
            ..Config::new(&pack)
        };
        let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
        let reads = without_allocation(|| {
            let engine = Engine::open(pack, &config, &mut memory, |_| {
                Ok::<_, EngineError>(SimulatedQueue::new(Image::Bytes(&image), law, 32, 1))
            });
            engine.map_or(0, |mut engine| generate(&mut engine, &mut ffn, &active))
        });
        assert!(reads > 0);
    }
}
