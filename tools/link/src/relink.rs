//! Linking again for what one user's model was seen to need, without the first profile's traces.
//!
//! A pack holds its order and how often each neuron was active, and no pairs. So the counts are mixed
//! (the pack's weigh as much as one of [`PRIOR_TOKENS`]), and with them the hot set; of a layer's
//! order three are compared: as it is, as it is but improved by what was seen, and made anew from that.
//! Each is made from one half of what was seen and priced on the other, and the other way round: a gain
//! is what it brings on text that it was not made from. A layer whose gain is too small stays as it is. Where what was seen
//! is a sample that comes with counts of more tokens, these make the final hot set.

use anyhow::{Result, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::coactivation::LayerActivity;
use super::hot::{hot_bundles, hot_sets};
use super::linking::Linking;
use super::orders::{Order, by_frequency};
use super::price::{Objective, price_layer};
use super::profile::{Part, Profile};
use super::refine::refine;
use super::slots::Slots;
pub use kept::KeptLayers;

/// Tokens that a pack's own counts may weigh. That is taken with which the hot set from one half of what was seen saves
/// most on the other: little where the text is unlike the profile. The first where none is better. At most so many that a
/// new text is followed soon: halves learn from half as much as the whole, and would have more.
pub const PRIOR_TOKENS: [u64; 3] = [512, 128, 32];

/// Least tokens to learn from: with fewer, halves say nothing.
pub const SEEN_TOKENS_MIN: u64 = 64;

/// A layer as a pack has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLayer {
    /// Neuron id by slot, a permutation.
    pub neuron_of_slot: Vec<u32>,
    /// In how many tokens of the pack's profile each neuron was active, by neuron id.
    pub active_count: Vec<u32>,
    /// Tokens of that profile; 0 for none.
    pub profile_tokens: u64,
}

impl HeldLayer {
    /// Its counts, as if of `prior` tokens at most, and what was seen.
    fn mixed(&self, seen: &[u32], prior: u64) -> Vec<u32> {
        let tokens = self.profile_tokens.max(1);
        let prior = prior.min(self.profile_tokens);
        let sum = |(held, seen): (&u32, &u32)| {
            (u64::from(*held) * prior + tokens / 2) / tokens + u64::from(*seen)
        };
        let sums = self.active_count.iter().zip(seen).map(sum);
        sums.map(|count| u32::try_from(count).unwrap_or(u32::MAX)).collect()
    }
}

/// What relinking goes by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Relinking {
    /// The device and the size of a bundle.
    pub objective: Objective,
    /// Share of the model's bundles that a cache pins and that are placed apart.
    pub pin: f64,
    /// A layer is linked again where that saves at least this share of its time.
    pub gain_min: f64,
}

/// A layer relinked, or left as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelinkedLayer {
    /// The new order: neuron ids by slot, and where links begin; none where the layer keeps its own.
    pub order: Option<(Vec<u32>, Vec<u32>)>,
    /// Counts by neuron id, for [`Relinked::profile_tokens`].
    pub active_count: Vec<u32>,
    /// What it costs.
    pub cost: Cost,
}

/// Device time of a layer, microseconds per token, on halves of what was seen that the other was not
/// made from.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// As it was.
    pub before_us: f64,
    /// With the new hot set and no bundle moved.
    pub counted_us: f64,
    /// As it is now.
    pub after_us: f64,
}

/// What came of [`Relinking::relink`].
#[derive(Debug, Clone, PartialEq)]
pub struct Relinked {
    /// By layer.
    pub layers: Vec<RelinkedLayer>,
    /// Tokens that the new counts are of.
    pub profile_tokens: u64,
    /// Of them those that the pack's own counts weigh.
    pub prior_tokens: u64,
}

/// What was seen of a layer.
struct Seen {
    all: LayerActivity,
    halves: [LayerActivity; 2],
}

/// Counts of all layers, and the hot set that they make.
struct Counted {
    counts: Vec<Vec<u32>>,
    hot: Vec<Vec<bool>>,
}

impl Relinking {
    /// Links the layers of a pack again for `seen`; `progress` is called once for each layer. Layers that `kept` has are
    /// taken from there, the others are put there.
    ///
    /// # Errors
    /// Traces of another shape, too few tokens, or traces that cannot be read; layers that cannot be kept.
    pub fn relink(
        &self,
        held: &[HeldLayer],
        seen: &Profile,
        kept: Option<&KeptLayers>,
        progress: impl Fn() + Sync,
    ) -> Result<Relinked> {
        let neurons = held.first().map_or(0, |held| held.neuron_of_slot.len());
        let (expected, found) = ((held.len(), neurons), (seen.layers(), seen.neurons()));
        ensure!(
            expected == found,
            "what was seen has {} layers of {} neurons, the pack {} of {}: record it with this pack's model",
            found.0,
            found.1,
            expected.0,
            expected.1
        );
        ensure!(
            seen.tokens() >= SEEN_TOKENS_MIN,
            "{} tokens were seen: at least {SEEN_TOKENS_MIN} are needed to learn from",
            seen.tokens()
        );
        let old = Counted::of(held.iter().map(|held| held.active_count.clone()), self.pin);
        // Counts first, all layers: which bundles are hot is decided over the whole model.
        let counts: Vec<Result<[Vec<u32>; 3]>> = (0..held.len())
            .into_par_iter()
            .map(|layer| {
                let halves = Seen::of(seen, layer)?.halves;
                let [first, second] = halves.map(|half| half.active_count().to_vec());
                Ok([seen.counted(layer)?.0, first, second])
            })
            .collect();
        let counts: Vec<[Vec<u32>; 3]> = counts.into_iter().collect::<Result<_>>()?;
        let (_, counted_tokens) = seen.counted(0)?;
        let (prior, new) = self.prior(held, seen, &counts)?;
        let layers: Vec<Result<RelinkedLayer>> = (0..held.len())
            .into_par_iter()
            .map(|layer| {
                let known = kept.and_then(|kept| kept.get(layer, &new[0].counts[layer]));
                let relinked = match known {
                    Some(known) => known,
                    None => {
                        let seen = Seen::of(seen, layer)?;
                        let relinked = self.layer(layer, &held[layer], &seen, &old, &new)?;
                        kept.map_or(Ok(()), |kept| kept.put(layer, &relinked))?;
                        relinked
                    }
                };
                progress();
                Ok(relinked)
            })
            .collect();
        let layers = layers.into_iter().collect::<Result<_>>()?;
        let profile_tokens = held.iter().map(|held| held.profile_tokens).max().unwrap_or(0);
        let prior_tokens = prior.min(profile_tokens);
        Ok(Relinked { layers, profile_tokens: counted_tokens + prior_tokens, prior_tokens })
    }

    /// What the pack's own counts are to weigh, and the counts of `seen` (all, its halves) with them.
    fn prior(
        &self,
        held: &[HeldLayer],
        seen: &Profile,
        counts: &[[Vec<u32>; 3]],
    ) -> Result<(u64, [Counted; 3])> {
        let with = |prior: u64| {
            [0, 1, 2].map(|of| {
                let layers = held.iter().zip(counts);
                Counted::of(layers.map(|(held, seen)| held.mixed(&seen[of], prior)), self.pin)
            })
        };
        let mut tried = PRIOR_TOKENS.map(|prior| (prior, with(prior)));
        let layers: Vec<Result<[f64; PRIOR_TOKENS.len()]>> = (0..held.len())
            .into_par_iter()
            .map(|layer| {
                let (seen, order) = (Seen::of(seen, layer)?, &held[layer].neuron_of_slot);
                let mut us = [0.0; PRIOR_TOKENS.len()];
                for (us, (_, counted)) in us.iter_mut().zip(&tried) {
                    for half in 0..2 {
                        let hot = &counted[1 + half].hot[layer];
                        *us += self.us(&seen.halves[1 - half], order, hot)?;
                    }
                }
                Ok(us)
            })
            .collect();
        let mut us = [0.0; PRIOR_TOKENS.len()];
        for layer in layers {
            us.iter_mut().zip(layer?).for_each(|(us, layer)| *us += layer);
        }
        let best = (0..us.len()).min_by(|a, b| us[*a].total_cmp(&us[*b])).unwrap_or(0);
        tried.swap(0, best);
        let [taken, ..] = tried;
        Ok(taken)
    }

    /// `new` are the counts with all that was seen, with its first and with its second half.
    fn layer(
        &self,
        layer: usize,
        held: &HeldLayer,
        seen: &Seen,
        old: &Counted,
        new: &[Counted; 3],
    ) -> Result<RelinkedLayer> {
        let mut cost = Cost::default();
        let mut made_us = [0.0; MADE.len()];
        for (half, counted) in new[1..].iter().enumerate() {
            let (learned, tried) = (&seen.halves[half], &seen.halves[1 - half]);
            let hot = &counted.hot[layer];
            cost.before_us += self.us(tried, &held.neuron_of_slot, &old.hot[layer])?;
            cost.counted_us += self.us(tried, &held.neuron_of_slot, hot)?;
            for (made, us) in MADE.iter().zip(&mut made_us) {
                let (order, _) = self.make(*made, layer, held, learned, counted)?;
                *us += self.us(tried, &order, hot)?;
            }
        }
        let best = (0..MADE.len()).min_by(|a, b| made_us[*a].total_cmp(&made_us[*b])).unwrap_or(0);
        let saved_us = cost.counted_us - made_us[best];
        let worth = saved_us > 0.0 && saved_us >= self.gain_min * cost.counted_us;
        cost.after_us = if worth { made_us[best] } else { cost.counted_us };
        let tokens = seen.all.tokens().max(1) as f64;
        for us in [&mut cost.before_us, &mut cost.counted_us, &mut cost.after_us] {
            *us /= tokens;
        }
        let order = worth.then(|| self.make(MADE[best], layer, held, &seen.all, &new[0]));
        let active_count = new[0].counts[layer].clone();
        Ok(RelinkedLayer { order: order.transpose()?, active_count, cost })
    }

    /// An order and where its links begin; what is hot stands at the end, as [`Linking`] has it.
    fn make(
        &self,
        made: Made,
        layer: usize,
        held: &HeldLayer,
        learned: &LayerActivity,
        counted: &Counted,
    ) -> Result<(Vec<u32>, Vec<u32>)> {
        let hot = &counted.hot[layer];
        let start = match made {
            Made::Improved => held.neuron_of_slot.clone(),
            Made::Anew => {
                let linking =
                    Linking { order: Order::Refined, objective: self.objective, pin: self.pin };
                linking.link_layer(layer, learned, hot)?.neuron_of_slot
            }
        };
        let (pinned, members): (Vec<u32>, Vec<u32>) =
            start.into_iter().partition(|id| hot[*id as usize]);
        let mut order = match made {
            Made::Improved => refine(learned, &self.objective, members, |_| ()).0,
            Made::Anew => members,
        };
        let mut link_begin = if order.is_empty() { vec![0] } else { vec![0, order.len() as u32] };
        link_begin.extend((order.len()..hot.len()).map(|slot| slot as u32 + 1));
        let mut pinned = pinned;
        pinned.sort_unstable();
        order.extend(by_frequency(&counted.counts[layer], pinned));
        Ok((order, link_begin))
    }

    /// Microseconds of all tokens of `activity` where what is `hot` is not read.
    fn us(&self, activity: &LayerActivity, order: &[u32], hot: &[bool]) -> Result<f64> {
        let slots = Slots::of_order(order, hot.len());
        let bits = activity.token_bits();
        let rows = bits.chunks_exact(hot.len().div_ceil(8));
        Ok(price_layer(&self.objective, rows, &[slots], hot)?.time_us)
    }
}

/// How a layer's order is made.
#[derive(Debug, Clone, Copy)]
enum Made {
    /// From the order that it has.
    Improved,
    /// From what was seen alone.
    Anew,
}

const MADE: [Made; 2] = [Made::Improved, Made::Anew];

impl Seen {
    /// All traces, and the first and second halves of each.
    fn of(profile: &Profile, layer: usize) -> Result<Self> {
        let (neurons, bits) = (profile.neurons(), profile.bits(layer, Part::All)?);
        let row_bytes = neurons.div_ceil(8);
        let half = |which: usize| {
            let parts = bits.iter().map(|bits| {
                let tokens = bits.len() / row_bytes;
                let (first, second) = bits.split_at(row_bytes * (tokens / 2));
                let part = if which == 0 { first } else { second };
                (part, part.len() / row_bytes)
            });
            LayerActivity::from_bits(neurons, &parts.collect::<Vec<_>>())
        };
        Ok(Self { all: profile.activity(layer, Part::All)?, halves: [half(0)?, half(1)?] })
    }
}

impl Counted {
    fn of(counts: impl Iterator<Item = Vec<u32>>, pin: f64) -> Self {
        let counts: Vec<Vec<u32>> = counts.collect();
        let neurons = counts.first().map_or(0, Vec::len);
        let hot = hot_sets(&counts, hot_bundles(counts.len(), neurons, pin));
        Self { counts, hot }
    }
}

impl Relinked {
    /// What a token costs over all layers.
    pub fn cost(&self) -> Cost {
        self.layers.iter().fold(Cost::default(), |sum, layer| Cost {
            before_us: sum.before_us + layer.cost.before_us,
            counted_us: sum.counted_us + layer.cost.counted_us,
            after_us: sum.after_us + layer.cost.after_us,
        })
    }

    /// Layers whose bundles move.
    pub fn moved(&self) -> usize {
        self.layers.iter().filter(|layer| layer.order.is_some()).count()
    }
}

#[path = "relink_kept.rs"]
mod kept;

#[cfg(test)]
#[path = "relink_tests.rs"]
mod tests;
