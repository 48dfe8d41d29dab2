//! Every public way into the engine, once, over the simulated device.
#![no_std]

use core::panic::PanicInfo;

use lnp_engine::budget::{Misses, at_price, within};
use lnp_engine::engine::{ActiveSet, Alone, LeaveOut};
use lnp_engine::ffn::Ffn;
use lnp_engine::plan::Geometry;
use lnp_engine::predictors::{Predictors, rank_bound, rank_max};
use lnp_engine::queue::simulated::{Image, SimulatedQueue};
use lnp_engine::recorder::{Recorder, RecorderConfig};
use lnp_engine::{Config, DeviceLaw, Engine, EngineError, required_bytes};
use lnp_format::{Pack, Shape};
use lnp_kernels::CpuFeatures;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// Of the engine, the FFN, predictors, and what is left out.
type Memory<'m> = (&'static mut [u8], &'m mut [u8], &'m mut [u8], &'m mut [u8]);

/// What a caller's code would do.
fn run(
    file: &'static [u8],
    (memory, ffn_memory, predictors_memory, leave_out_memory): Memory<'_>,
    ids: &mut [u32],
    features: CpuFeatures,
    config: &mut Config,
    law: DeviceLaw,
    active: &[u32],
    x: &[f32],
    y: &mut [f32],
) -> Result<u64, EngineError> {
    let pack = Pack::parse(file, file.len() as u64)?;
    *config = Config { prefetch_bytes: config.prefetch_bytes, ..*config };
    let _ = required_bytes(config, &pack)?;
    let mut engine = Engine::open(pack, config, memory, |_| {
        Ok::<_, EngineError>(SimulatedQueue::new(Image::Bytes(file), law, 32, 1))
    })?;
    engine.check_superblock()?;
    let shape = *engine.pack().shape();
    let _ = Ffn::required_bytes(&shape, features, 8)?;
    let mut ffn = Ffn::new(&shape, features, 8, ffn_memory)?;
    let mut reads = ffn.forward(&mut engine, 0, x, active, y)?.reads;
    reads += engine.fetch(1, active, |_, _| Ok(()))?.reads;
    reads += engine.session(|session| {
        session.prefetch(2, active)?;
        session.prefetch_strongest(2, active, x)?;
        session.cancel_prefetch();
        ffn.begin(session, 1, &[active])?;
        let _ = ffn.finish(session, &Alone, 1, x, y)?;
        let set = ActiveSet::new(active, shape.neurons)?;
        session.begin(1, set)?;
        session.finish(&Alone, 1, set, |_, _, _| Ok(0.0), &mut |_, _, _, _| Ok(()))?;
        let stats =
            session.fetch(&Alone, 2, active, |_, _, _| Ok(0.0), &mut |_, _, _, _| Ok(()))?;
        let batch = ffn.forward_in(session, &Alone, 4, x, &[active, active], y)?;
        let stats = stats.reads + batch.reads;
        Ok::<_, EngineError>(stats + ffn.forward_in(session, &Alone, 3, x, &[active], y)?.reads)
    })?;
    let rank = rank_max(&pack);
    let _ = Predictors::required_bytes(&shape, rank_bound(&shape, rank.into()), features, 8)?;
    let mut predictors = Predictors::new(&shape, rank, features, 8, &mut *predictors_memory)?;
    reads += engine.session(|session| {
        let by = (&mut predictors, 0.5);
        let read = ffn.forward_predicted(session, &Alone, by, 0, x, y)?.reads;
        for set in predictors.predict(&pack, (1, 1), 0.5, x)?.sets() {
            session.prefetch(1, set)?;
        }
        let _ = LeaveOut::required_bytes(&shape);
        let mut leaving = LeaveOut::new(&shape, law, 0.01, leave_out_memory)?;
        let kept = session.leave_out(1, ids, x, &mut leaving)?;
        Ok::<_, EngineError>(read + kept as u64 + leaving.left_out().bundles)
    })?;
    reads += recorded(&shape, active, predictors_memory)?;
    engine.clear_cache();
    reads += u64::from(engine.hot(1).sum::<u32>());
    Ok(reads + engine.latencies().percentile_ns(99) + engine.arena_bytes() as u64)
}

/// What is recorded, and taken out.
fn recorded(shape: &Shape, active: &[u32], memory: &mut [u8]) -> Result<u64, EngineError> {
    let config = RecorderConfig { span_tokens: active.len() as u32, ..RecorderConfig::new(9) };
    let (memory, part) =
        memory.split_at_mut(Recorder::required_bytes(shape, &config)?.min(memory.len()));
    let mut recorder = Recorder::new(shape, &config, memory)?;
    recorder.take(0, &[active, active])?;
    let entries = [("model", "any")];
    let copied = recorder.read(&entries, recorder.seen_tokens(), part) as u64;
    let counts = recorder.counts(1).len() + recorder.kept_tokens();
    Ok(copied + recorder.bytes(&entries) + counts as u64 + recorder.counted_tokens())
}

/// What is left out before it is asked for.
fn leave_out(
    law: &DeviceLaw,
    geometry: &Geometry,
    slots: &[u32],
    strengths: &[f32],
    (keep, scratch): (&mut [bool], &mut [u64]),
) -> usize {
    let misses = Misses { slots, strengths, others: 1.0 };
    let read = at_price(&misses, geometry, law, 100.0, keep, scratch).kept;
    let choice = within(&misses, geometry, law, 0.01, keep, scratch);
    read + choice.kept
}

/// The one symbol that keeps all of it.
#[unsafe(no_mangle)]
pub extern "Rust" fn firmware(
    file: &'static [u8],
    memory: Memory<'_>,
    features: CpuFeatures,
    config: &mut Config,
    law: DeviceLaw,
    active: &[u32],
    xy: (&[f32], &mut [f32]),
    (geometry, slots, keep, scratch): (&Geometry, &mut [u32], &mut [bool], &mut [u64]),
) -> u64 {
    let kept = leave_out(&law, geometry, slots, xy.0, (keep, scratch)) as u64;
    kept ^ run(file, memory, slots, features, config, law, active, xy.0, xy.1).unwrap_or(u64::MAX)
}
