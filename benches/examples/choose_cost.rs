//! What choosing among copies takes of the processor, beside planning the reads and the device time that it saves.
//!
//!     lnp link --traces profile.trace --flash 1.3 -o copies.links
//!     cargo run --release -p lnp-benches --example choose_cost -- copies.links test.trace
//!
//! Each layer of each token is a batch, with nothing cached: the default law, bundles of 4 KiB. Medians over the batches
//! of a layer, of a mean over repeats; the first slot of each bundle stands for a reader that does not choose.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use lnp_engine::choose::{choose, scratch_len};
use lnp_engine::plan::{self, Collapse, Extent, Geometry, plan};
use lnp_link::trace::{TraceReader, active};
use lnp_link::{Links, Objective, Slots};

const TOKENS: usize = 200;
const REPEATS: u32 = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [links, trace] = &arguments[..] else {
        return Err("usage: choose_cost LINKS TRACE".into());
    };
    let (links, trace) = (Links::read(Path::new(links))?, TraceReader::open(Path::new(trace))?);
    let Objective { law, bundle_bytes } = Objective::phone()?;
    println!("layer,slots,missing,choose_us,plan_us,first_slots_device_us,chosen_device_us");
    for (number, layer) in links.layers.iter().enumerate() {
        let placed = &layer.slots_of_neurons()?[0];
        let geometry = Geometry {
            bundle_stride: bundle_bytes,
            block_bytes: 4096,
            slots: placed.slots() as u32,
            read_bytes_max: lnp_engine::limits::READ_BYTES_DEFAULT,
        };
        let collapse = Collapse::Law(law);
        let bits = trace.layer_bits(number)?;
        let (mut missing, mut choosing, mut planning) = (0, Vec::new(), Vec::new());
        let (mut first_us, mut chosen_us) = (0.0, 0.0);
        for token in 0..TOKENS.min(trace.tokens()) {
            let ids: Vec<u32> = active(&bits, links.neurons, token).collect();
            let batch = Batch { ids: &ids, placed, geometry: &geometry, collapse: &collapse };
            missing += ids.len();
            let (chosen, us) = batch.choose();
            choosing.push(us);
            let (plan, us) = batch.plan(&chosen);
            planning.push(us);
            chosen_us += law.time_us(plan.reads, plan.bytes);
            let (plan, _) = batch.plan(&batch.firsts());
            first_us += law.time_us(plan.reads, plan.bytes);
        }
        let (tokens, slots) = (choosing.len(), placed.slots());
        let mean = |sum: f64| sum / tokens as f64;
        println!(
            "{number},{slots},{:.0},{:.2},{:.2},{:.1},{:.1}",
            mean(missing as f64),
            median(&mut choosing),
            median(&mut planning),
            mean(first_us),
            mean(chosen_us)
        );
    }
    Ok(())
}

/// What a layer needs in a token.
struct Batch<'a> {
    ids: &'a [u32],
    placed: &'a Slots,
    geometry: &'a Geometry,
    collapse: &'a Collapse,
}

impl Batch<'_> {
    /// Slot << 32 | position, each by its first slot.
    fn firsts(&self) -> Vec<u64> {
        let first = |(position, id): (u64, &u32)| {
            u64::from(self.placed.first()[*id as usize]) << 32 | position
        };
        (0..).zip(self.ids).map(first).collect()
    }

    /// The chosen slots, and the microseconds that choosing took.
    fn choose(&self) -> (Vec<u64>, f64) {
        let (firsts, mut entries) = (self.firsts(), Vec::new());
        let mut scratch = vec![0; scratch_len(self.geometry.slots)];
        let begin = Instant::now();
        for _ in 0..REPEATS {
            entries.clone_from(&firsts);
            let slots_of = |position: usize| self.placed.of(self.ids[position]);
            choose(black_box(&mut entries), self.geometry, self.collapse, slots_of, &mut scratch);
        }
        (entries, begin.elapsed().as_secs_f64() * 1e6 / f64::from(REPEATS))
    }

    /// The plan of these slots, and the microseconds that sorting and planning took.
    fn plan(&self, entries: &[u64]) -> (plan::Plan, f64) {
        let mut extents = vec![Extent::default(); entries.len()];
        let mut scratch = vec![0; plan::scratch_len(entries.len())];
        let (mut slots, mut found) = (Vec::new(), plan::Plan::default());
        let begin = Instant::now();
        for _ in 0..REPEATS {
            slots.clear();
            slots.extend(entries.iter().map(|entry| (entry >> 32) as u32));
            slots.sort_unstable();
            let slots = black_box(&slots);
            found = plan(slots, self.geometry, self.collapse, &mut extents, &mut scratch);
        }
        (found, begin.elapsed().as_secs_f64() * 1e6 / f64::from(REPEATS))
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
