//! Which order is the cheapest: decided by cross-validation on the profile alone.
//!
//! The profile's windows are dealt out to [`FOLDS`] parts. Each order is made from all parts but one
//! and priced on that one, with what a cache of the given share pins (by the counts of the same
//! parts that the order was made from) resident; the order with the least sum wins.

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use super::hot::{hot_bundles, hot_sets};
use super::linking::Linking;
use super::orders::Order;
use super::placement::LayerLinks;
use super::price::{Objective, Price, price_layer};
use super::profile::{FOLDS, Part, Profile};

/// An order and what it cost on the parts that it was not made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The order, and what is placed apart.
    pub linking: Linking,
    /// All parts together.
    pub price: Price,
}

/// The orders that are compared: the model's own and plain greedy, and the others with what a cache
/// of the share `cache` pins placed apart.
pub fn contenders(objective: Objective, cache: f64) -> Vec<Linking> {
    let linking = |order, pin| Linking { order, objective, pin };
    let mut all = vec![linking(Order::Identity, 0.0), linking(Order::Greedy, 0.0)];
    let orders = [Order::Frequency, Order::Jaccard, Order::Bisect, Order::Refined];
    all.extend(orders.map(|order| linking(order, cache)));
    if cache > 0.0 {
        all.push(linking(Order::Miss, cache));
    }
    all
}

/// The note of a links file that says how its order was chosen, with a cache of this share.
pub fn chosen_by(cache: f64) -> (String, String) {
    let how = format!("best of {FOLDS}-fold cross-validation, cache {cache}");
    ("order.chosen_by".into(), how)
}

/// Prices each of `linkings`; the cheapest comes first, ties in the order given. `progress` is called
/// with the steps done since the last call: [`LAYER_STEPS`](super::linking::LAYER_STEPS) for every layer
/// linked, `linkings * FOLDS * layers` of them.
///
/// # Errors
/// A profile with too few windows to split, or one that cannot be read.
pub fn compare(
    profile: &Profile,
    linkings: &[Linking],
    cache: f64,
    progress: &(impl Fn(u64) + Sync),
) -> Result<Vec<Candidate>> {
    ensure!(
        profile.windows_min() >= FOLDS,
        "choosing an order needs traces of at least {FOLDS} windows each; name an order instead"
    );
    let mut candidates: Vec<Candidate> =
        linkings.iter().map(|&linking| Candidate { linking, price: Price::default() }).collect();
    for fold in 0..FOLDS {
        for candidate in &mut candidates {
            let activity_of = |layer| profile.activity(layer, Part::Except(fold));
            let links = candidate.linking.link(profile.layers(), activity_of, progress)?;
            let objective = &candidate.linking.objective;
            let price = price(profile, Part::Only(fold), &links, objective, cache)?;
            candidate.price.add(&price);
        }
    }
    candidates.sort_by(|a, b| a.price.time_us.total_cmp(&b.price.time_us));
    Ok(candidates)
}

/// The price of a part of a profile under some links, with the hot set that their own counts name.
///
/// # Errors
/// The profile cannot be read, or is of another model.
pub fn price(
    profile: &Profile,
    part: Part,
    links: &[LayerLinks],
    objective: &Objective,
    cache: f64,
) -> Result<Price> {
    let counts: Vec<Vec<u32>> = links.iter().map(|links| links.active_count.clone()).collect();
    let cells = hot_bundles(profile.layers(), profile.neurons(), cache);
    let resident = hot_sets(&counts, cells);
    let row_bytes = profile.neurons().div_ceil(8);
    let prices: Vec<Result<Price>> = (0..profile.layers())
        .into_par_iter()
        .map(|layer| {
            let links = links.get(layer).context("links of fewer layers")?;
            let bits = profile.bits(layer, part)?;
            let rows = bits.iter().flat_map(|bits| bits.chunks_exact(row_bytes));
            price_layer(objective, rows, &links.slots_of_neurons()?, &resident[layer])
        })
        .collect();
    prices.into_iter().try_fold(Price::default(), |sum, price| Ok(sum.and_layer(price?)))
}
