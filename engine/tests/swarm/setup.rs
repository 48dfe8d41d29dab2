//! What a seed of the swarm stands for: a pack, the engine's settings, a device and its faults.

use lnp_engine::queue::simulated::{Faults, Image, SimulatedQueue, Switch};
use lnp_engine::{CachePolicy, Collapse, Combine, Config, DeviceLaw};
use lnp_format::Pack;

use super::common::Recipe;
use super::support::Dice;

/// Drawn from the seed; printed where the seed fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub seed: u64,
    pub layers: u32,
    pub neurons: u32,
    pub stride: u32,
    pub block_bytes: u32,
    /// Threads beside the one that reads.
    pub threads: u32,
    /// Whether the pack has predictors, and layers are asked for by them too.
    pub predicts: bool,
    pub faults: Faults,
    pub polled: u32,
    pub law: DeviceLaw,
    /// The device goes by this law from a moment on.
    pub later: Option<(u64, DeviceLaw)>,
}

impl Setup {
    /// `alone` for no threads, so that the run is the same each time.
    pub(crate) fn new(seed: u64, dice: &mut Dice, alone: bool) -> Self {
        let large = dice.one_in(12);
        let stride = dice.pick(&[256, 256, 100, 700, 1536, 4095, 4096, 5000]);
        let threads = if dice.one_in(10) { dice.among(1, 2) } else { 0 };
        let heat = DeviceLaw::new(30.0, 80.0, 400.0, Combine::Max).unwrap();
        let later = dice.one_in(4).then(|| (u64::from(dice.below(20_000_000)), heat));
        Self {
            seed,
            layers: dice.among(1, 3),
            neurons: if large { dice.among(200, 1500) } else { dice.among(1, 90) },
            stride: if large { 100 } else { stride },
            block_bytes: dice.pick(&[512, 512, 1024, 4096]),
            threads: if alone { 0 } else { threads },
            predicts: !large && stride == 256 && dice.one_in(2),
            faults: if dice.one_in(3) { Faults::NONE } else { faults(dice) },
            polled: dice.pick(&[0, 100_000, 500_000, 1_000_000]),
            law: law(dice),
            later,
        }
    }

    /// Whether the bundles are weights that can be computed from.
    pub(crate) const fn computes(&self) -> bool {
        self.stride == 256
    }

    pub(crate) fn recipe(&self, dice: &mut Dice) -> Recipe {
        let mut recipe = match self.computes() {
            true => Recipe::small(self.layers, self.neurons),
            false => Recipe::placeholder(self.layers, self.neurons, self.stride),
        };
        recipe.block_bytes = self.block_bytes;
        for order in &mut recipe.orders {
            let mixed = dice.pick(&[0, 4, order.len()]);
            for at in 0..mixed.min(order.len()) {
                order.swap(at, dice.below(self.neurons) as usize);
            }
        }
        if self.predicts {
            recipe = recipe.with_predictors();
        }
        let recipe = if dice.one_in(3) { recipe.with_replicas(dice.among(1, 3)) } else { recipe };
        if dice.one_in(4) { recipe.with_copies() } else { recipe }
    }

    pub(crate) fn config(&self, pack: &Pack<'_>, dice: &mut Dice) -> Config {
        let collapse = match dice.below(6) {
            0 => Collapse::Off,
            1 => Collapse::Gap { bytes: u64::from(dice.below(20_000)) },
            2 => Collapse::Whole,
            _ => Collapse::Law(law(dice)),
        };
        let read_bytes_max = self.block_bytes * dice.pick(&[1, 2, 5, 16, 256]);
        let full = Config::staging_bytes_full_with(pack, read_bytes_max);
        let least = Config::staging_bytes_min(pack).min(full);
        let some = least + dice.below((full - least + 1) as u32) as usize;
        let staging_bytes = match collapse {
            Collapse::Whole => full,
            _ => dice.pick(&[full, least, some, least + (some - least) / 8]),
        };
        let bundles = self.layers * self.neurons;
        Config {
            collapse,
            adapt: matches!(collapse, Collapse::Law(_)) && dice.one_in(2),
            cache_policy: dice.pick(&CachePolicy::ALL),
            cache_bundles: dice.pick(&[0, 1, bundles / 10, bundles / 2, bundles]),
            staging_bytes,
            prefetch_bytes: dice.pick(&[0, 4096, full.next_multiple_of(4096)]),
            queue_depth: dice.among(1, 64),
            read_bytes_max,
            verify_reads: dice.one_in(2),
            telemetry: dice.one_in(2),
        }
    }

    pub(crate) fn device<'a>(
        &self,
        file: &'a [u8],
        depth: u32,
        switch: &'a Switch,
    ) -> SimulatedQueue<'a> {
        let device = SimulatedQueue::new(Image::Bytes(file), self.law, depth, self.seed)
            .with_faults(self.faults)
            .switched_by(switch)
            .polled(self.polled);
        match self.later {
            Some((from_ns, law)) => device.then(from_ns, law),
            None => device,
        }
    }
}

fn law(dice: &mut Dice) -> DeviceLaw {
    let combine = dice.pick(&[Combine::Sum, Combine::Max]);
    let (t0, a) = (f64::from(dice.below(100)), f64::from(dice.below(500)) / 10.0);
    DeviceLaw::new(t0, a, f64::from(dice.among(1, 3000)), combine).unwrap()
}

/// Each kind for itself, seldom or often.
fn faults(dice: &mut Dice) -> Faults {
    let mut rate = |often: u32| if dice.one_in(3) { dice.pick(&[300, 3000, often]) } else { 0 };
    Faults {
        eio: rate(30_000),
        short: rate(700_000),
        end: rate(10_000),
        eagain: rate(300_000),
        eintr: rate(300_000),
        refused: rate(20_000),
        delayed: rate(400_000),
        flipped: rate(100_000),
        delay_factor: dice.among(2, 50),
        gone_from_ns: dice.one_in(8).then(|| u64::from(dice.below(60_000_000))),
    }
}

/// The active set of a token: some of the neurons, in runs or one by one, all or none.
pub(crate) fn active_set(dice: &mut Dice, neurons: u32) -> Vec<u32> {
    match dice.below(12) {
        0 => Vec::new(),
        1 => (0..neurons).collect(),
        2 => vec![dice.below(neurons)],
        3 => {
            let begin = dice.below(neurons);
            (begin..dice.among(begin, neurons)).collect()
        }
        _ => {
            let share = dice.pick(&[30, 100, 300, 700]);
            (0..neurons).filter(|_| dice.below(1000) < share).collect()
        }
    }
}

/// What a predictor says of a set: right, partly right, too much or all wrong.
pub(crate) fn predicted(dice: &mut Dice, active: &[u32], neurons: u32) -> Vec<u32> {
    match dice.below(6) {
        0 | 1 => active.to_vec(),
        2 => active.iter().copied().filter(|_| dice.one_in(2)).collect(),
        3 => (0..neurons).filter(|neuron| !active.contains(neuron)).collect(),
        4 => (0..neurons).filter(|n| active.contains(n) || dice.one_in(8)).collect(),
        _ => active_set(dice, neurons),
    }
}
