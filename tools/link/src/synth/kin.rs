//! Who fires like whom: the best partners of every neuron by Jaccard's index.

use crate::LayerActivity;

/// Kin of a neuron. More of them blur pairs more: with 32 or 128, half of a real layer's neurons
/// doubled lose a tenth of the gain of linking (`docs/synth.md`).
pub const KIN: usize = 8;

/// Best partners that tell how strong a layer's pairs are. A chain gives a neuron two neighbours, but
/// they cannot be the best two of all; three came nearest where layers of a half, a quarter and an
/// eighth of the real neurons were widened to all (`docs/synth.md`).
pub const PARTNERS: usize = 3;

/// The best partners of every neuron of a layer.
#[derive(Debug, Clone)]
pub struct Kin {
    /// Per neuron up to [`KIN`] others by descending index, ties by lower id.
    pub best: Vec<Vec<(u32, f32)>>,
    /// How strong pairs are: the mean index of a neuron with its [`PARTNERS`] best partners, weighted
    /// by how often it fires.
    pub strength: f64,
    /// By how much that is more than among half of the neurons: at least 0.
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
        let mut best_in_half = best.clone();
        activity.visit_pairs(&everyone, |i, j, both| {
            let (one, other) = (activity.count(i as usize), activity.count(j as usize));
            let index = jaccard(both.into(), one.into(), other.into()) as f32;
            keep(&mut best[i as usize], j, index);
            keep(&mut best[j as usize], i, index);
            if i % 2 == j % 2 {
                keep(&mut best_in_half[i as usize], j, index);
                keep(&mut best_in_half[j as usize], i, index);
            }
        });
        let strength = strength(activity, &best);
        let growth_per_doubling = (strength - self::strength(activity, &best_in_half)).max(0.0);
        Self { best, strength, growth_per_doubling }
    }
}

fn strength(activity: &LayerActivity, best: &[Vec<(u32, f32)>]) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    for (neuron, best) in best.iter().enumerate() {
        let firings = f64::from(activity.count(neuron));
        let indices: f64 = best.iter().take(PARTNERS).map(|(_, index)| f64::from(*index)).sum();
        sum += firings * indices / PARTNERS as f64;
        total += firings;
    }
    sum / f64::max(total, 1.0)
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
