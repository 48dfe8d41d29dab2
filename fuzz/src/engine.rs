//! Any sequence of the engine's calls, on a simulated device with any faults: what is handed out is
//! what a plain read of the pack gives, in ascending id, and what is computed from it is the sum in f64;
//! else there is an error, and without faults of the device it is the caller's own.

use arbitrary::Arbitrary;
use lnp_engine::engine::{ActiveSet, Alone, Session};
use lnp_engine::ffn::Ffn;
use lnp_engine::queue::ReadFailure;
use lnp_engine::queue::simulated::{Faults, Image, SimulatedQueue, Switch};
use lnp_engine::{
    CachePolicy, Collapse, Combine, Config, DeviceLaw, Engine, EngineError, FetchStats,
    required_bytes,
};
use lnp_format::Pack;
use lnp_kernels::CpuFeatures;

use crate::packs::Recipe;
use crate::pick;

/// Everything of a run but the pack's order.
#[derive(Arbitrary, Debug)]
pub struct Case {
    layers: u8,
    neurons: u16,
    stride: u16,
    replicas: u8,
    block: u8,
    settings: Settings,
    device: Device,
    calls: Vec<Call>,
}

#[derive(Arbitrary, Debug)]
struct Settings {
    /// Of collapse and of the cache.
    rules: u8,
    gap_bytes: u16,
    cache_bundles: u16,
    staging_bytes: u32,
    read_blocks: u8,
    prefetch: bool,
    adapt: bool,
    verify_reads: bool,
}

#[derive(Arbitrary, Debug)]
struct Device {
    seed: u64,
    depth: u8,
    polled: u32,
    faulty: bool,
    rates: [u16; 8],
    gone_from_us: Option<u16>,
}

#[derive(Arbitrary, Debug)]
enum Call {
    Fetch(u8, Active),
    Forward(u8, Active),
    Prefetch(u8, Active),
    CancelPrefetch,
    /// The session ends, and another begins.
    Session,
    ClearCache,
    Faults(bool),
}

#[derive(Arbitrary, Debug)]
enum Active {
    /// One bit a neuron.
    Bits(Vec<u8>),
    Range(u16, u16),
    /// As they are, right or wrong.
    Any(Vec<u16>),
    Wild(u32),
}

impl Active {
    fn ids(&self, neurons: u32) -> Vec<u32> {
        match self {
            Self::Bits(bits) => {
                let bit =
                    |id: &u32| bits.get(*id as usize / 8).is_some_and(|b| b >> (id % 8) & 1 == 1);
                (0..neurons).filter(bit).collect()
            }
            Self::Range(begin, end) => (u32::from(*begin)..(*end).into()).take(5000).collect(),
            Self::Any(ids) => ids.iter().map(|id| u32::from(*id)).collect(),
            Self::Wild(id) => vec![*id],
        }
    }
}

fn law(case: &Case) -> DeviceLaw {
    let a_us = f64::from(case.settings.gap_bytes) / 100.0;
    let combine = if case.layers < 128 { Combine::Sum } else { Combine::Max };
    DeviceLaw::new(5.0, a_us, 1000.0, combine).expect("a law within its limits")
}

fn config(case: &Case, pack: &Pack<'_>) -> Config {
    let settings = &case.settings;
    let collapse = match settings.rules % 4 {
        0 => Collapse::Off,
        1 => Collapse::Gap { bytes: settings.gap_bytes.into() },
        2 => Collapse::Law(law(case)),
        _ => Collapse::Whole,
    };
    let read_bytes_max = pack.block_bytes() * (u32::from(settings.read_blocks) + 1);
    let full = Config::staging_bytes_full_with(pack, read_bytes_max);
    let least = match collapse {
        Collapse::Whole => full,
        _ => Config::staging_bytes_min(pack).min(full),
    };
    Config {
        collapse,
        adapt: settings.adapt && matches!(collapse, Collapse::Law(_)),
        cache_bundles: settings.cache_bundles.into(),
        cache_policy: pick(&CachePolicy::ALL, settings.rules / 4),
        staging_bytes: least + settings.staging_bytes as usize % (full - least + 1),
        prefetch_bytes: if settings.prefetch { full.next_multiple_of(4096) } else { 0 },
        queue_depth: u32::from(case.device.depth) + 1,
        read_bytes_max,
        verify_reads: settings.verify_reads,
        ..Config::new(pack)
    }
}

fn faults(device: &Device) -> Faults {
    if !device.faulty {
        return Faults::NONE;
    }
    let [eio, short, end, eagain, eintr, refused, delayed, flipped] = device.rates.map(u32::from);
    Faults {
        eio,
        short: short * 12,
        end,
        eagain: eagain * 6,
        eintr: eintr * 6,
        refused,
        delayed: delayed * 8,
        flipped: flipped * 2,
        delay_factor: 7,
        gone_from_ns: device.gone_from_us.map(|us| u64::from(us) * 1000),
    }
}

/// Runs the calls, and compares what they hand out.
pub fn run(case: &Case) {
    let (layers, neurons) = (u32::from(case.layers % 3) + 1, u32::from(case.neurons % 250) + 1);
    let mut recipe = match case.stride % 4 {
        0 => Recipe::small(layers, neurons),
        _ => Recipe::placeholder(layers, neurons, u32::from(case.stride % 1500) + 1),
    };
    recipe.block_bytes = 512 << (case.block % 4);
    let recipe = recipe.with_replicas(u32::from(case.replicas % 3));
    let recipe = if case.replicas & 0x40 == 0 { recipe } else { recipe.with_copies() };
    let file = recipe.build();
    let pack = Pack::parse(&file, file.len() as u64).expect("a valid pack");
    let config = config(case, &pack);
    let switch = Switch::new(true);
    let image = Image::Bytes(&file);
    let device = SimulatedQueue::new(image, law(case), config.queue_depth, case.device.seed)
        .with_faults(faults(&case.device))
        .switched_by(&switch)
        .polled(case.device.polled % 1_000_001);
    let mut memory = vec![0xcc; required_bytes(&config, &pack).expect("settings within limits")];
    let mut engine = Engine::open(pack, &config, &mut memory, |_| Ok::<_, EngineError>(device))
        .expect("settings within limits");
    let mut ffn_memory = [0; 4096];
    let mut ffn = Ffn::new(pack.shape(), CpuFeatures::NONE, 1, &mut ffn_memory).ok();
    let mut calls = case.calls.iter().take(200).peekable();
    while calls.peek().is_some() {
        let clear = engine.session(|session| {
            for call in &mut calls {
                match call {
                    Call::Session => return false,
                    Call::ClearCache => return true,
                    Call::Faults(on) => switch.set(*on),
                    call => check(session, call, &recipe, ffn.as_mut()),
                }
            }
            false
        });
        assert!(engine.is_idle(), "something is left in flight");
        if clear {
            engine.clear_cache();
        }
    }
}

fn check<'a>(
    session: &mut Session<'_, 'a, SimulatedQueue<'a>>,
    call: &Call,
    recipe: &Recipe,
    ffn: Option<&mut Ffn<'_>>,
) {
    let (layers, neurons) = (recipe.shape.layers, recipe.shape.neurons);
    let (layer, active) = match call {
        Call::Fetch(layer, active)
        | Call::Forward(layer, active)
        | Call::Prefetch(layer, active) => (u32::from(*layer) % (layers + 1), active.ids(neurons)),
        _ => return session.cancel_prefetch(),
    };
    let fatal = session.engine().queue().counts().fatal();
    let found = match (call, ffn) {
        (Call::Prefetch(..), _) => session.prefetch(layer, &active),
        (Call::Forward(..), Some(ffn)) => forward(session, ffn, layer, &active, recipe),
        _ => fetch(session, layer, &active, recipe),
    };
    let counts = *session.engine().queue().counts();
    let ascending = active.windows(2).all(|pair| pair[0] < pair[1]);
    let right = layer < layers && ascending && active.iter().all(|id| *id < neurons);
    match found {
        Ok(_) => assert!(right),
        Err(EngineError::Layer { .. }) => assert!(layer >= layers),
        Err(EngineError::Active { .. }) => assert!(!right),
        Err(EngineError::Config { field: "prefetch_bytes", .. }) => {
            assert!(right && session.engine().config().prefetch_bytes == 0);
        }
        Err(EngineError::BundleDamaged { .. }) => assert!(counts.flipped > 0),
        Err(EngineError::Read(error)) => {
            assert!(counts.fatal() > fatal, "{error:?} without a fault");
            assert!(!matches!(error.failure, ReadFailure::NoBuffer | ReadFailure::QueueFull));
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// Whether the device flips bits that nobody is asked to find.
fn may_be_damaged<'a>(session: &Session<'_, 'a, SimulatedQueue<'a>>) -> bool {
    session.engine().queue().faults().flipped > 0 && !session.engine().config().verify_reads
}

/// The FFN of one token, against its definition in f64.
fn forward<'a>(
    session: &mut Session<'_, 'a, SimulatedQueue<'a>>,
    ffn: &mut Ffn<'_>,
    layer: u32,
    active: &[u32],
    recipe: &Recipe,
) -> Result<FetchStats, EngineError> {
    let x: [f32; 32] = std::array::from_fn(|at| (at % 7) as f32 / 4.0 - 0.75);
    let mut y = [f32::NAN; 32];
    let stats = ffn.forward_in(session, &Alone, layer, &x, &[active], &mut y)?;
    if may_be_damaged(session) {
        return Ok(stats);
    }
    // Of each value: the sum, and the sum of its terms' sizes.
    let bias = |at: u32| f64::from(at) / 8.0 + f64::from(layer);
    let mut expected: [(f64, f64); 32] =
        std::array::from_fn(|at| (bias(recipe.shape.neurons + at as u32), 0.0));
    for neuron in active {
        let bundle = recipe.bundle(layer, *neuron);
        let weights: Vec<f64> = bundle
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into())
            .collect();
        let (up, down) = weights.split_at(32);
        let dot: f64 = up.iter().zip(x).map(|(w, x)| w * f64::from(x)).sum();
        let coefficient = (dot + bias(*neuron)).max(0.0);
        for ((sum, size), down) in expected.iter_mut().zip(down) {
            *sum += coefficient * down;
            *size += (coefficient * down).abs();
        }
    }
    for (found, (sum, size)) in y.iter().zip(expected) {
        let off = (f64::from(*found) - sum).abs();
        assert!(off <= (size + sum.abs()) * 1e-4, "{found} against {sum}, layer {layer}");
    }
    Ok(stats)
}

fn fetch<'a>(
    session: &mut Session<'_, 'a, SimulatedQueue<'a>>,
    layer: u32,
    active: &[u32],
    recipe: &Recipe,
) -> Result<FetchStats, EngineError> {
    let may_be_damaged = may_be_damaged(session);
    let mut seen = Vec::new();
    let mut finish = |neuron, coefficient: f32, bundle: &[u8], _: &[u8]| {
        let right = recipe.bundle(layer, neuron);
        let bits = bundle.iter().zip(&right).map(|(a, b)| (a ^ b).count_ones());
        assert!(bits.sum::<u32>() <= u32::from(may_be_damaged) && bundle.len() == right.len());
        assert_eq!(coefficient, neuron as f32);
        seen.push(neuron);
        Ok(())
    };
    let arrive = |neuron: u32, _: &[u8], _: &[u8]| Ok(neuron as f32);
    let stats = if active.len().is_multiple_of(2) {
        session.fetch(&Alone, layer, active, arrive, &mut finish)?
    } else {
        // begun, with a prefetch of a layer that may be this one, and finished
        let ids = ActiveSet::new(active, recipe.shape.neurons)?;
        session.begin(layer, ids)?;
        let strengths: Vec<f32> = active.iter().map(|id| (id % 7) as f32).collect();
        let other = active[0] % recipe.shape.layers;
        let _ = session.prefetch_strongest(other, active, &strengths);
        session.finish(&Alone, layer, ids, arrive, &mut finish)?
    };
    assert_eq!(seen, active);
    Ok(stats)
}
