//! What an order costs: the device time of a trace, by the planner and the law that the engine uses.
//!
//! The price of a token is that of its layers; the price of a layer is what the engine's planner
//! makes of the slots that are active and not resident. `lnp replay --simulate` arrives at the same
//! reads and bytes through the whole engine, once its cache has filled.

use anyhow::{Result, ensure};
use lnp_engine::DeviceLaw;
use lnp_engine::choose::{self, choose};
use lnp_engine::limits::READ_BYTES_DEFAULT;
use lnp_engine::plan::{Collapse, Extent, Geometry, Plan, plan, scratch_len};

use super::rows::active_neurons;
use super::slots::Slots;
use lnp_device::LawText;
use lnp_format::write::BLOCK_BYTES_USUAL;

/// What an order is judged by: the device, and how large a bundle is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// The law that reads are planned and timed with.
    pub law: DeviceLaw,
    /// Bytes of a bundle.
    pub bundle_bytes: u32,
}

impl Objective {
    /// Bytes of a bundle where nothing else is said: OPT-350M's in f16.
    pub const BUNDLE_BYTES_DEFAULT: u32 = 4096;

    /// The published phone and bundles of 4 KiB, for orders without a device.
    ///
    /// # Errors
    /// None: the law is a device's.
    pub fn phone() -> Result<Self> {
        let law = LawText::ONEPLUS_12.law()?;
        Ok(Self { law, bundle_bytes: Self::BUNDLE_BYTES_DEFAULT })
    }

    /// How a layer of so many bundles lies in a pack.
    fn geometry(&self, slots: u32) -> Geometry {
        Geometry {
            bundle_stride: self.bundle_bytes,
            block_bytes: BLOCK_BYTES_USUAL,
            slots,
            read_bytes_max: READ_BYTES_DEFAULT,
        }
    }
}

/// Reads, bytes and time of some tokens.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Price {
    /// Tokens priced.
    pub tokens: u64,
    /// Reads of all of them.
    pub reads: u64,
    /// Bytes read, holes and rounding included.
    pub bytes: u64,
    /// Device time by the law, microseconds.
    pub time_us: f64,
}

impl Price {
    /// Mean device time of a token, microseconds; 0 for no tokens.
    pub fn us_per_token(&self) -> f64 {
        if self.tokens == 0 { 0.0 } else { self.time_us / self.tokens as f64 }
    }

    /// Adds the price of other tokens.
    pub fn add(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.reads += other.reads;
        self.bytes += other.bytes;
        self.time_us += other.time_us;
    }

    /// The price of another layer of the same tokens added.
    pub fn and_layer(self, layer: Self) -> Self {
        Self {
            tokens: self.tokens.max(layer.tokens),
            reads: self.reads + layer.reads,
            bytes: self.bytes + layer.bytes,
            time_us: self.time_us + layer.time_us,
        }
    }
}

/// Prices batches of one layer.
#[derive(Debug)]
pub struct Pricer {
    objective: Objective,
    geometry: Geometry,
    collapse: Collapse,
    extents: Vec<Extent>,
    scratch: Vec<u64>,
    slots: Vec<u32>,
    /// Slot << 32 | position of what is wanted.
    entries: Vec<u64>,
    last: Plan,
}

impl Pricer {
    /// For placements of at most so many slots.
    pub fn new(objective: &Objective, slots: usize) -> Self {
        let scratch = scratch_len(slots).max(choose::scratch_len(slots as u32));
        Self {
            objective: *objective,
            geometry: objective.geometry(slots as u32),
            collapse: Collapse::Law(objective.law),
            extents: vec![Extent::default(); slots],
            scratch: vec![0; scratch],
            slots: Vec::with_capacity(slots),
            entries: Vec::new(),
            last: Plan::default(),
        }
    }

    /// The price of reading a whole layer, whatever is active: the dense baseline.
    pub fn dense(objective: &Objective, neurons: usize) -> Price {
        let mut pricer = Self::new(objective, neurons);
        pricer.collapse = Collapse::Whole;
        pricer.slots_price(&[0])
    }

    /// The price of reading `neurons` in one batch, by their slots.
    pub fn batch(&mut self, neurons: &[u32], placed: &Slots) -> Price {
        self.seek(neurons, placed);
        self.slots.clear();
        self.slots.extend(self.entries.iter().map(|entry| (entry >> 32) as u32));
        let slots = std::mem::take(&mut self.slots);
        let price = self.slots_price(&slots);
        self.slots = slots;
        price
    }

    /// The slots that `neurons` are read from, ascending, each with the neuron's position: of copies those that the engine
    /// would choose.
    pub fn choose(&mut self, neurons: &[u32], placed: &Slots, chosen: &mut Vec<(u32, usize)>) {
        self.seek(neurons, placed);
        chosen.clear();
        let slot_and_position = |entry: &u64| ((entry >> 32) as u32, *entry as u32 as usize);
        chosen.extend(self.entries.iter().map(slot_and_position));
    }

    /// Fills `entries`, ascending.
    fn seek(&mut self, neurons: &[u32], placed: &Slots) {
        let first =
            |(position, id): (u64, &u32)| u64::from(placed.first()[*id as usize]) << 32 | position;
        self.entries.clear();
        self.entries.extend((0..).zip(neurons).map(first));
        if placed.has_copies() {
            let slots_of = |position: usize| placed.of(neurons[position]);
            let (geometry, collapse) = (&self.geometry, &self.collapse);
            choose(&mut self.entries, geometry, collapse, slots_of, &mut self.scratch);
        }
        self.entries.sort_unstable();
    }

    /// The price of reading `slots`, ascending, in one batch.
    pub fn slots_price(&mut self, slots: &[u32]) -> Price {
        let (extents, scratch) = (&mut self.extents, &mut self.scratch);
        let plan = plan(slots, &self.geometry, &self.collapse, extents, scratch);
        self.last = plan;
        let time_us = self.objective.law.time_us(plan.reads, plan.bytes);
        Price { tokens: 1, reads: plan.reads, bytes: plan.bytes, time_us }
    }

    /// The reads of the batch that was priced last.
    pub fn reads(&self) -> &[Extent] {
        &self.extents[..self.last.extents]
    }

    /// The same from the cheapest of several placements, the first of equals; and which that is.
    pub fn cheapest(&mut self, neurons: &[u32], placements: &[Slots]) -> (usize, Price) {
        let mut best = (0, Price { time_us: f64::INFINITY, ..Price::default() });
        for (placement, placed) in placements.iter().enumerate() {
            let price = self.batch(neurons, placed);
            if price.time_us < best.1.time_us {
                best = (placement, price);
            }
        }
        best
    }
}

/// The price of one layer over rows of bits, `resident` neurons not read, each token from the
/// cheapest of the `placements`.
///
/// `rows` are the tokens' bits, ceil(neurons / 8) bytes each.
///
/// # Errors
/// No placement, or one of another number of neurons than `resident`.
pub fn price_layer<'a>(
    objective: &Objective,
    rows: impl Iterator<Item = &'a [u8]>,
    placements: &[Slots],
    resident: &[bool],
) -> Result<Price> {
    let neurons = resident.len();
    ensure!(!placements.is_empty(), "a layer without a placement");
    for placed in placements {
        let found = placed.first().len();
        ensure!(found == neurons, "{neurons} residents of {found} neurons");
    }
    let slots = placements.iter().map(Slots::slots).max().unwrap_or(neurons);
    let mut pricer = Pricer::new(objective, slots);
    let mut missed: Vec<u32> = Vec::with_capacity(neurons);
    let mut price = Price::default();
    for row in rows {
        missed.clear();
        let ids = active_neurons(row).filter(|&id| id < neurons && !resident[id]);
        missed.extend(ids.map(|id| id as u32));
        price.add(&pricer.cheapest(&missed, placements).1);
    }
    Ok(price)
}
