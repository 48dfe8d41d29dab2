//! The orders a layer's neurons can be laid out in: their names, and those that need no more than counts.

use std::fmt;
use std::str::FromStr;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// How the neurons of each layer are ordered. The names are part of the links file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As in the model: slot = neuron id.
    Identity,
    /// Shuffled, by a seed that gives the same order for ever.
    Random {
        /// Every layer gets its own stream of this seed.
        seed: u64,
    },
    /// By descending active count, ties by lower id.
    Frequency,
    /// Chains of neurons that are active together (`greedy.rs`).
    Greedy,
    /// The same by a weight that is corrected for how often each neuron is active at all.
    Jaccard,
    /// The Jaccard chains or the order by frequency, whichever is cheaper, improved in device time
    /// (`refine.rs`).
    Refined,
    /// Recursive bisection (`baselines/bisect.rs`).
    Bisect,
    /// Greedy, for what a pinned hot set leaves to be read.
    Miss,
    /// Refined, with copies of bundles where they save most (`copies.rs`).
    Copies {
        /// Flash for the bundles, per cent of what they take once: 101 to 800.
        percent: u32,
    },
    /// Several placements, each refined for a cluster of tokens (`replicas.rs`).
    Replicas {
        /// How many, 2 to 16.
        placements: usize,
    },
}

/// Share of the bundles that is placed apart, where an order is made for what a cache leaves and nothing else is said.
pub const PIN_DEFAULT: f64 = 0.1;

/// Most flash for copies, per cent of what the bundles take once.
const FLASH_PERCENT_MAX: u32 = 800;

/// Most placements of a layer: beyond, flash is spent for next to nothing.
pub(crate) const PLACEMENTS_MAX: usize = 16;

impl Order {
    /// The seed of `random` where none is given.
    pub const SEED_DEFAULT: u64 = 0;

    /// All orders, `random` with the default seed, `copies` for 1.3 times the flash, `replicas` with two placements.
    pub const ALL: [Self; 10] = [
        Self::Identity,
        Self::Random { seed: Self::SEED_DEFAULT },
        Self::Frequency,
        Self::Greedy,
        Self::Jaccard,
        Self::Refined,
        Self::Bisect,
        Self::Miss,
        Self::Copies { percent: 130 },
        Self::Replicas { placements: 2 },
    ];

    /// `copies` for so many times the flash; `None` where that is not 1.01 to 8, in hundredths.
    pub fn copies(flash: f64) -> Option<Self> {
        let percent = (100.0 * flash).round();
        let fits = (101.0..=f64::from(FLASH_PERCENT_MAX)).contains(&percent);
        fits.then_some(Self::Copies { percent: percent as u32 })
    }

    /// Flash for the bundles, at most, in times of what they take once.
    pub fn flash(self) -> f64 {
        match self {
            Self::Copies { percent } => f64::from(percent) / 100.0,
            Self::Replicas { placements } => placements as f64,
            _ => 1.0,
        }
    }

    /// Whether it goes by the device's time, and so by its law and the size of a bundle.
    pub const fn weighs_time(self) -> bool {
        matches!(self, Self::Refined | Self::Copies { .. } | Self::Replicas { .. })
    }

    /// Share of the bundles that is placed apart for a cache to pin, where nothing else is said.
    pub const fn pin_default(self) -> f64 {
        match self {
            Self::Refined | Self::Miss | Self::Copies { .. } | Self::Replicas { .. } => PIN_DEFAULT,
            _ => 0.0,
        }
    }

    /// Whether it is made from how often pairs are active, which takes memory.
    pub const fn counts_pairs(self) -> bool {
        !matches!(self, Self::Identity | Self::Random { .. } | Self::Frequency)
    }

    /// The stable name: that of the variant, in lower case. [`fmt::Display`] adds the number of
    /// placements, or times of the flash, as `replicas:4` and `copies:1.3`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Random { .. } => "random",
            Self::Frequency => "frequency",
            Self::Greedy => "greedy",
            Self::Jaccard => "jaccard",
            Self::Refined => "refined",
            Self::Bisect => "bisect",
            Self::Miss => "miss",
            Self::Copies { .. } => "copies",
            Self::Replicas { .. } => "replicas",
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replicas { placements } => f.pad(&format!("replicas:{placements}")),
            Self::Copies { percent } => f.pad(&format!("copies:{}", f64::from(*percent) / 100.0)),
            _ => f.pad(self.name()),
        }
    }
}

/// A name that is none of [`Order::ALL`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown order '{0}': use identity, random, frequency, greedy, jaccard, refined, bisect, miss, \
         copies:F for 1.01 to 8 times the flash, or replicas:K with 2 to {PLACEMENTS_MAX} placements"
)]
pub struct UnknownOrder(String);

impl FromStr for Order {
    type Err = UnknownOrder;

    /// Parses what [`fmt::Display`] writes; `random` gets [`Order::SEED_DEFAULT`].
    fn from_str(name: &str) -> Result<Self, UnknownOrder> {
        let unknown = || UnknownOrder(name.to_owned());
        if let Some(count) = name.strip_prefix("replicas:") {
            return match count.parse() {
                Ok(placements @ 2..=PLACEMENTS_MAX) => Ok(Self::Replicas { placements }),
                _ => Err(unknown()),
            };
        }
        if let Some(flash) = name.strip_prefix("copies:") {
            return flash.parse().ok().and_then(Self::copies).ok_or_else(unknown);
        }
        let single = |order: &Self| !matches!(order, Self::Copies { .. } | Self::Replicas { .. });
        let named = |order: &Self| single(order) && order.name() == name;
        Self::ALL.into_iter().find(named).ok_or_else(unknown)
    }
}

/// `neurons`, ascending ids, by descending count, ties by lower id. O(n log n).
pub(crate) fn by_frequency(active_count: &[u32], mut neurons: Vec<u32>) -> Vec<u32> {
    // A stable sort of ascending ids: ties stay with the lower id first.
    neurons.sort_by_key(|&neuron| std::cmp::Reverse(active_count[neuron as usize]));
    neurons
}

/// Fisher-Yates from the last place down. The numbers are drawn here, not by a distribution of
/// `rand`, whose algorithms may change between versions: this order must not.
pub(crate) fn shuffled(neurons: u32, seed: u64, layer: usize) -> Vec<u32> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    for _ in 0..layer {
        // 2^128 draws further: the streams of the layers never overlap.
        rng.jump();
    }
    let mut order: Vec<u32> = (0..neurons).collect();
    for place in (1..order.len()).rev() {
        // The high half of draw * (place + 1) is in 0..=place; its bias is under 2^-43 for a
        // layer of NEURONS_MAX.
        let chosen = (u128::from(rng.next_u64()) * (place as u128 + 1)) >> 64;
        order.swap(place, chosen as usize);
    }
    order
}

#[cfg(test)]
#[path = "orders_tests.rs"]
mod tests;
