//! Adaptive collapse on simulated batches: plans by the law that it hands out, times by a true one.

use lnp_engine::adapt::Adapt;
use lnp_engine::plan::{Extent, Geometry, Plan, plan, scratch_len};
use lnp_engine::{Collapse, Combine, DeviceLaw};
use proptest::prelude::*;

const NEURONS: u32 = 1536;
/// Active neurons and mean run of each layer.
const LAYERS: [(f64, f64); 6] =
    [(40.0, 1.5), (80.0, 2.0), (130.0, 3.0), (200.0, 2.0), (300.0, 4.0), (400.0, 3.0)];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A device and a model on it.
struct Simulation {
    random: Random,
    noise: Random,
    geometry: Geometry,
    extents: Vec<Extent>,
    scratch: Vec<u64>,
}

impl Simulation {
    fn new(seed: u64, bundle_stride: u32) -> Self {
        let geometry = Geometry {
            bundle_stride,
            block_bytes: 4096,
            neurons: NEURONS,
            read_bytes_max: 1 << 20,
        };
        Self {
            random: Random(seed),
            noise: Random(seed ^ 0xabcd_ef01),
            geometry,
            extents: vec![Extent::default(); NEURONS as usize],
            scratch: vec![0; scratch_len(NEURONS as usize)],
        }
    }

    /// An active set: a chain of two states.
    fn active(&mut self, layer: (f64, f64)) -> Vec<u32> {
        let density = layer.0 / f64::from(NEURONS);
        let (leave, enter) = (1.0 / layer.1, density / (1.0 - density) / layer.1);
        let mut on = self.random.next() < density;
        (0..NEURONS)
            .filter(|_| {
                on = if on { self.random.next() >= leave } else { self.random.next() < enter };
                on
            })
            .collect()
    }

    fn plan(&mut self, slots: &[u32], law: &DeviceLaw) -> Plan {
        plan(slots, &self.geometry, &Collapse::Law(*law), &mut self.extents, &mut self.scratch)
    }

    /// One token: returns microseconds of the adaptive plans, and of those by the true law, both
    /// without noise.
    fn token(&mut self, adapt: &mut Adapt, truth: &DeviceLaw) -> (f64, f64) {
        let mut sums = (0.0, 0.0);
        for layer in LAYERS {
            let slots = self.active(layer);
            let best = self.plan(&slots, truth);
            let found = self.plan(&slots, &adapt.law());
            let us = truth.time_us(found.reads, found.bytes);
            sums = (sums.0 + us, sums.1 + truth.time_us(best.reads, best.bytes));
            let mut noise = 0.95 + 0.1 * self.noise.next();
            if self.noise.next() < 0.01 {
                noise *= 20.0;
            }
            adapt.observe(found.reads, found.bytes, (us * noise * 1e3) as u64);
        }
        sums
    }
}

fn law(a_us: f64, b_mib_s: f64, combine: Combine) -> DeviceLaw {
    DeviceLaw::new(30.0, a_us, b_mib_s, combine).unwrap()
}

fn devices() -> [DeviceLaw; 4] {
    [
        law(9.64, 2034.0, Combine::Sum),
        law(30.0, 900.0, Combine::Sum),
        law(50.0, 900.0, Combine::Max),
        law(20.0, 2000.0, Combine::Max),
    ]
}

#[test]
#[ignore]
fn measure() {
    for stride in [4096, 16384] {
        for truth in devices() {
            for (name, change) in [("heat", (1.0, 2.0 / 3.0)), ("contention", (2.0, 1.0))] {
                let after = law(truth.a_us() * change.0, truth.b_mib_s() * change.1, truth.combine());
                let g = after.a_us() * after.b_mib_s();
                let mut line = String::new();
                for seed in 0..8 {
                    let mut sim = Simulation::new(seed, stride);
                    let mut adapt = Adapt::new(truth);
                    for _ in 0..200 { sim.token(&mut adapt, &truth); }
                    let mut first = None;
                    let mut worst: f64 = 0.0;
                    let (mut bad, mut n) = (0, 0);
                    let mut us = (0.0, 0.0);
                    for token in 0..600 {
                        let t = sim.token(&mut adapt, &after);
                        us = (us.0 + t.0, us.1 + t.1);
                        let l = adapt.believed();
                        let off = (l.a_us() * l.b_mib_s() / g).ln();
                        let ok = off.abs() < 0.15 && l.combine() == after.combine();
                        if ok { first = first.or(Some(token)); } else if token < 64 { first = None; }
                        if token >= 64 { n += 1; bad += u32::from(!ok); if off.abs() > worst.abs() { worst = off; } }
                    }
                    line += &format!(" [{first:?} worst {worst:+.2} bad {bad}/{n} +{:.2}%]", (us.0 / us.1 - 1.0) * 100.0);
                }
                println!("{stride} {truth:?} {name}\n   {}", line.replace("Some", ""));
            }
        }
    }
    for stride in [4096, 16384] {
        for truth in devices() {
            let mut line = String::new();
            for (fa, fb, wrong) in [(1.0, 1.0, false), (4.0, 4.0, false), (0.25, 0.25, false), (4.0, 0.25, false), (0.25, 4.0, false), (4.0, 4.0, true), (0.25, 0.25, true), (4.0, 0.25, true), (0.25, 4.0, true)] {
                let combine = match (truth.combine(), wrong) { (Combine::Sum, true) | (Combine::Max, false) => Combine::Max, _ => Combine::Sum };
                let mut worst: f64 = 0.0;
                let mut ex = 0;
                for seed in 0..4 {
                    let mut sim = Simulation::new(seed + 100, stride);
                    let mut adapt = Adapt::new(law(truth.a_us() * fa, truth.b_mib_s() * fb, combine));
                    let mut us = (0.0, 0.0);
                    for _ in 0..1000 {
                        let t = sim.token(&mut adapt, &truth);
                        us = (us.0 + t.0, us.1 + t.1);
                    }
                    worst = worst.max((us.0 / us.1 - 1.0) * 100.0);
                    ex = adapt.explored();
                }
                line += &format!(" [{fa} {fb} {wrong}: +{worst:.2}% ex {ex}]");
            }
            println!("{stride} {truth:?}\n   {line}");
        }
    }
}
