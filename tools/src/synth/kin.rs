//! Who fires like whom: the best partners of every neuron by Jaccard's index.

use crate::links::LayerActivity;

/// Kin of a neuron. More of them blur pairs more: with 32 or 128, half of a real layer's neurons
/// doubled lose a tenth of the gain of linking (`docs/synth.md`).
pub const KIN: usize = 8;

/// The best partners of every neuron of a layer.
#[derive(Debug, Clone)]
pub struct Kin {
    /// Per neuron up to [`KIN`] others by descending index, ties by lower id.
    pub best: Vec<Vec<(u32, f32)>>,
    /// Mean of the best index, weighted by how often a neuron fires: how strong pairs are.
    pub strength: f64,
    /// By how much the strength grows when a layer of half the neurons gets all: at least 1.
    pub growth_per_doubling: f64,
}

/// Jaccard's index of two neurons from the tokens in which both, one and the other fire.
pub fn jaccard(both: f64, one: f64, other: f64) -> f64 {
    if both > 0.0 { both / (one + other - both) } else { 0.0 }
}

impl Kin {
    /// Finds the kin of all neurons. O(n²) pairs are counted, one at a time.
    pub fn of(activity: &LayerActivity) -> Self {
        let neurons = activity.neurons();
        let everyone: Vec<u32> = (0..neurons as u32).collect();
        let mut best = vec![Vec::with_capacity(KIN + 1); neurons];
        // The same among neurons of the same half. Model order says nothing about who is kin, so
        // even and odd ids are as good as random halves, and both are measured.
        let mut best_in_half = vec![0.0f64; neurons];
        activity.visit_pairs(&everyone, |i, j, both| {
            let (i, j) = (i as usize, j as usize);
            let counts = [activity.count(i), activity.count(j)].map(f64::from);
            let index = jaccard(both.into(), counts[0], counts[1]);
            keep(&mut best[i], j as u32, index as f32);
            keep(&mut best[j], i as u32, index as f32);
            if i % 2 == j % 2 {
                best_in_half[i] = best_in_half[i].max(index);
                best_in_half[j] = best_in_half[j].max(index);
            }
        });
        let weighted = |index: &dyn Fn(usize) -> f64| {
            let firing = |neuron: usize| f64::from(activity.count(neuron));
            let total: f64 = (0..neurons).map(firing).sum();
            (0..neurons).map(|neuron| firing(neuron) * index(neuron)).sum::<f64>() / total.max(1.0)
        };
        let first =
            |neuron: usize| best[neuron].first().map_or(0.0, |(_, index)| f64::from(*index));
        let strength = weighted(&first);
        let in_half = weighted(&|neuron| best_in_half[neuron]);
        let growth = if in_half > 0.0 { strength / in_half } else { 1.0 };
        Self { strength, growth_per_doubling: growth.max(1.0), best }
    }
}

/// Inserts where it belongs; pairs come by ascending ids, so that ties stay with the lower.
fn keep(best: &mut Vec<(u32, f32)>, other: u32, index: f32) {
    if best.len() == KIN && best[KIN - 1].1 >= index {
        return;
    }
    let place = best.partition_point(|(_, kept)| *kept >= index);
    best.insert(place, (other, index));
    best.truncate(KIN);
}
