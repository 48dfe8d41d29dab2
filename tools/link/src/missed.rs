//! Linking for what is really read: an order made from what a cache leaves of the profile, not from what is active.
//!
//! What a cache keeps depends on how bundles are read, so on the order: link, take the profile through the cache, link what
//! was missed, and again. How often is decided on windows of the profile that the order was not made from: it ends where
//! nothing is gained there any more, and what was best there is taken. Where a trace has predicted sets, those are read.

use anyhow::{Result, ensure};
use lnp_engine::CachePolicy;
use lnp_engine::arena::{Arena, ArenaSize};
use lnp_engine::cache::{Cache, Read};

use super::coactivation::LayerActivity;
use super::file::Links;
use super::hot::hot_bundles;
use super::linking::Linking;
use super::orders::Order;
use super::placement::LayerLinks;
use super::price::{Objective, Pricer};
use super::profile::{FOLDS, Part, Profile};
use super::slots::Slots;
use super::trace::active;

/// Most times that an order is made from what was missed.
pub const ROUNDS_MAX: usize = 4;

/// What a layer of a token asks for and does not find.
pub struct Batch<'a> {
    /// The layer.
    pub layer: usize,
    /// The token.
    pub token: usize,
    /// Whether it is of the second pass, so that the cache has seen the first.
    pub warm: bool,
    /// Ids, ascending, of what is not in the cache.
    pub missed: &'a [u32],
}

/// Takes two passes through a cache that begins empty, token by token and layer by layer, as the engine does. A pass is the
/// bits of each layer, ceil(neurons / 8) bytes a token. `read` is called with each batch, and fills in how each missed bundle
/// is read. `active_counts` say what a policy that pins has for its hot set.
///
/// # Errors
/// The engine refuses such a cache.
pub fn through_cache(
    neurons: usize,
    passes: [&[Vec<u8>]; 2],
    (policy, cells): (CachePolicy, usize),
    active_counts: &[Vec<u32>],
    mut read: impl FnMut(&Batch<'_>, &mut [Read]),
) -> Result<()> {
    let bundles = passes[0].len() * neurons;
    let mut size = ArenaSize::default();
    Cache::size(&mut size, bundles, cells, policy);
    let mut memory = vec![0; size.bytes()];
    let mut cache = Cache::new(&mut Arena::new(&mut memory), bundles, cells, policy)?;
    cache.pin((0..).zip(active_counts.iter().flatten().copied()));
    let alone = Read { run_bundles: 1, read_bundles: 1 };
    let (mut missed, mut reads) = (Vec::new(), Vec::new());
    for (warm, layers) in [false, true].into_iter().zip(passes) {
        let tokens = layers.first().map_or(0, |bits| bits.len() / neurons.div_ceil(8));
        for token in 0..tokens {
            for (layer, bits) in layers.iter().enumerate() {
                let bundle_of = |id: u32| (layer * neurons) as u32 + id;
                missed.clear();
                // A hit changes no cell, so that one pass does for looking and for counting.
                let misses = |id: &u32| cache.hit(bundle_of(*id)).is_none();
                missed.extend(active(bits, neurons, token).filter(misses));
                reads.clear();
                reads.resize(missed.len(), alone);
                read(&Batch { layer, token, warm, missed: &missed }, &mut reads);
                for (id, read) in missed.iter().zip(&reads) {
                    cache.admit_read(bundle_of(*id), *read);
                }
            }
        }
    }
    Ok(())
}

/// What orders are made for: a cache, and the share of the bundles that it holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheAhead {
    /// What it keeps.
    pub policy: CachePolicy,
    /// Share of the model's bundles.
    pub ratio: f64,
}

/// What a pass leaves, warm.
struct Left {
    /// Device time of all tokens, microseconds.
    us: f64,
    /// What was missed, as bits by layer.
    missed: Vec<Vec<u8>>,
}

impl CacheAhead {
    /// The links of a profile by `linking`, of one placement, then from what was missed as long as that gains; and
    /// microseconds of the held-out tokens before, and after each time. `progress` as in [`Linking::link`]: for all layers
    /// at most `2 * (1 + ROUNDS_MAX)` times.
    ///
    /// # Errors
    /// An order of several placements, a profile with too few windows to hold some out, one that cannot be read, or a cache
    /// that the engine refuses.
    pub fn links(
        &self,
        linking: &Linking,
        profile: &Profile,
        progress: &(impl Fn(u64) + Sync),
    ) -> Result<(Links, Vec<f64>)> {
        ensure!(
            !matches!(linking.order, Order::Replicas { .. }),
            "linking for a cache knows orders of one placement, {} has several: leave out --cache-ratio",
            linking.order
        );
        ensure!(
            profile.windows_min() >= FOLDS,
            "linking for a cache needs traces of at least {FOLDS} windows each: leave out --cache-ratio"
        );
        let learned = read_bits(profile, Part::Except(0))?;
        let held_out = read_bits(profile, Part::Only(0))?;
        let activity_of = |layer| profile.activity(layer, Part::Except(0));
        let mut layers = linking.link(profile.layers(), activity_of, progress)?;
        let mut us = vec![self.left(linking, &layers, [&learned, &held_out])?.us];
        for _ in 0..ROUNDS_MAX {
            layers = self.again(linking, profile, &layers, &learned, progress)?;
            us.push(self.left(linking, &layers, [&learned, &held_out])?.us);
            if us[us.len() - 1] >= us[us.len() - 2] {
                break;
            }
        }
        let mut links = linking.links(profile, progress)?;
        let all = read_bits(profile, Part::All)?;
        for _ in 0..rounds(&us) {
            links.layers = self.again(linking, profile, &links.layers, &all, progress)?;
        }
        let about = format!("{} {}, {} times", self.policy.name(), self.ratio, rounds(&us));
        links.notes.insert("order.missed_by".into(), about);
        Ok((links, us))
    }

    /// The order made from what is missed under another. Nothing is apart: what the cache keeps is hardly ever missed.
    fn again(
        &self,
        linking: &Linking,
        profile: &Profile,
        layers: &[LayerLinks],
        bits: &[Vec<u8>],
        progress: &(impl Fn(u64) + Sync),
    ) -> Result<Vec<LayerLinks>> {
        let left = self.left(linking, layers, [bits, bits])?;
        let row_bytes = profile.neurons().div_ceil(8);
        let activity_of = |layer: usize| {
            let missed: &[u8] = &left.missed[layer];
            let activity =
                LayerActivity::from_bits(profile.neurons(), &[(missed, missed.len() / row_bytes)])?;
            Ok(activity.with_pair_bytes(profile.pair_bytes_max()))
        };
        let linking = Linking { pin: 0.0, ..*linking };
        let mut made = linking.link(profile.layers(), activity_of, progress)?;
        for (made, before) in made.iter_mut().zip(layers) {
            // What a cache learns from the pack is how often bundles are needed.
            made.active_count.clone_from(&before.active_count);
        }
        Ok(made)
    }

    /// What the cache leaves of the second pass once it has seen the first.
    fn left(
        &self,
        linking: &Linking,
        layers: &[LayerLinks],
        passes: [&[Vec<u8>]; 2],
    ) -> Result<Left> {
        let neurons = layers.first().map_or(0, LayerLinks::neurons);
        let placed = |links: &LayerLinks| Slots::of_order(&links.neuron_of_slot, neurons);
        let slots: Vec<Slots> = layers.iter().map(placed).collect();
        let slots_max = slots.iter().map(Slots::slots).max().unwrap_or(0);
        let counts: Vec<Vec<u32>> = layers.iter().map(|links| links.active_count.clone()).collect();
        let cells = hot_bundles(layers.len(), neurons, self.ratio);
        let row_bytes = neurons.div_ceil(8);
        let mut missed: Vec<Vec<u8>> = passes[1].iter().map(|bits| vec![0; bits.len()]).collect();
        let mut reader = Reader::new(&linking.objective, slots_max);
        let mut us = 0.0;
        through_cache(neurons, passes, (self.policy, cells), &counts, |batch, reads| {
            let time_us = reader.read(batch.missed, &slots[batch.layer], reads);
            if batch.warm {
                us += time_us;
                let row = &mut missed[batch.layer][batch.token * row_bytes..][..row_bytes];
                batch.missed.iter().for_each(|id| row[*id as usize / 8] |= 1 << (id % 8));
            }
        })?;
        Ok(Left { us, missed })
    }
}

/// How often the order that was best is made from what was missed.
pub fn rounds(us: &[f64]) -> usize {
    (0..us.len()).min_by(|one, other| us[*one].total_cmp(&us[*other])).unwrap_or(0)
}

/// What is read of each layer of a profile, all traces together: predicted sets where there are any, else what is active.
fn read_bits(profile: &Profile, part: Part) -> Result<Vec<Vec<u8>>> {
    (0..profile.layers()).map(|layer| Ok(profile.read_bits(layer, part)?.concat())).collect()
}

/// Plans batches as the engine does.
struct Reader {
    pricer: Pricer,
    keys: Vec<(u32, usize)>,
    slots: Vec<u32>,
}

impl Reader {
    fn new(objective: &Objective, slots_max: usize) -> Self {
        Self { pricer: Pricer::new(objective, slots_max), keys: Vec::new(), slots: Vec::new() }
    }

    /// Microseconds of a batch, and how each of its bundles is read.
    fn read(&mut self, missed: &[u32], placed: &Slots, reads: &mut [Read]) -> f64 {
        let Self { pricer, keys, slots } = self;
        pricer.choose(missed, placed, keys);
        for run in keys.chunk_by(|one, next| one.0 + 1 == next.0) {
            run.iter().for_each(|(_, at)| reads[*at].run_bundles = run.len() as u32);
        }
        slots.clear();
        slots.extend(keys.iter().map(|(slot, _)| *slot));
        let us = pricer.slots_price(slots).time_us;
        for extent in pricer.reads() {
            let wanted = keys.iter().skip(extent.first as usize).take(extent.count as usize);
            wanted.for_each(|(_, at)| reads[*at].read_bundles = extent.count);
        }
        us
    }
}

#[cfg(test)]
#[path = "missed_tests.rs"]
mod tests;
