//! The hot set: which bundles a cache that pins keeps, by the profile's counts alone.
//!
//! It must be the set that the engine pins ([`lnp_engine::CachePolicy::Pinned`]) for a cache of the
//! same size: the highest counts of the whole model, ties by lower layer, then lower neuron.

use std::cmp::Reverse;

/// Bundles that a share of a model's is, rounded as `replay` and `run` round a cache's size.
pub fn hot_bundles(layers: usize, neurons: usize, share: f64) -> usize {
    ((layers * neurons) as f64 * share).round() as usize
}

/// For each layer, whether each of its neurons is among the `cells` most frequent of the model.
pub fn hot_sets(active_counts: &[Vec<u32>], cells: usize) -> Vec<Vec<bool>> {
    let mut hot: Vec<Vec<bool>> = active_counts.iter().map(|of| vec![false; of.len()]).collect();
    let mut bundles: Vec<(Reverse<u32>, u32, u32)> = Vec::new();
    for (layer, counts) in active_counts.iter().enumerate() {
        let of_neuron = counts.iter().enumerate();
        bundles.extend(of_neuron.map(|(id, count)| (Reverse(*count), layer as u32, id as u32)));
    }
    if cells < bundles.len() && cells > 0 {
        bundles.select_nth_unstable(cells - 1);
    }
    for &(_, layer, id) in bundles.iter().take(cells) {
        hot[layer as usize][id as usize] = true;
    }
    hot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_bundle() {
        let counts = [vec![3, 5, 0], vec![5, 3, 9]];
        let named = |cells| {
            let hot = hot_sets(&counts, cells);
            hot.concat().iter().map(|hot| if *hot { '1' } else { '0' }).collect::<String>()
        };
        assert_eq!(named(0), "000000");
        assert_eq!(named(1), "000001");
        assert_eq!(named(2), "010001");
        assert_eq!(named(4), "110101");
        assert_eq!(named(6), "111111");
        assert_eq!(named(9), "111111");
        assert_eq!(hot_bundles(6, 1536, 0.1), 922);
    }
}
