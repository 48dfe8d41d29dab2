use proptest::prelude::*;

use super::*;
use crate::coactivation::LayerActivity;
use crate::stats::run_statistics;
use crate::testing::{SmallTrace, pack, small_traces};

/// The order straight from the text, on plain lists: O(n² log n) to sort, then a search through
/// the chains for every pair.
fn oracle(trace: &SmallTrace) -> (Vec<u32>, Vec<u32>) {
    let n = trace.neurons;
    let mut pairs: Vec<(u32, usize, usize)> = (0..n)
        .flat_map(|i| (i + 1..n).map(move |j| (i, j)))
        .map(|(i, j)| (trace.count(&[i, j]), i, j))
        .filter(|&(count, ..)| count > 0)
        .collect();
    pairs.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));

    let mut chains: Vec<Vec<usize>> = (0..n).map(|neuron| vec![neuron]).collect();
    for (_, i, j) in pairs {
        let chain_of = |neuron| chains.iter().position(|chain| chain.contains(&neuron)).unwrap();
        let (a, b) = (chain_of(i), chain_of(j));
        let is_end = |chain: usize, neuron| {
            chains[chain].first() == Some(&neuron) || chains[chain].last() == Some(&neuron)
        };
        if a == b || !is_end(a, i) || !is_end(b, j) {
            continue;
        }
        let mut left = chains[a].clone();
        let mut right = chains[b].clone();
        if left.last() != Some(&i) {
            left.reverse();
        }
        if right.first() != Some(&j) {
            right.reverse();
        }
        left.extend(right);
        chains[a] = left;
        chains.remove(b);
    }
    for chain in &mut chains {
        if chain.first() > chain.last() {
            chain.reverse();
        }
    }
    chains.sort_by_key(|chain| chain[0]);
    let mut begin = vec![0];
    for chain in &chains {
        begin.push(begin.last().unwrap() + chain.len() as u32);
    }
    (chains.concat().into_iter().map(|neuron| neuron as u32).collect(), begin)
}

proptest! {
    #[test]
    fn equals_the_oracle_whatever_the_bands(trace in small_traces(), pairs_max in 1u64..60) {
        let activity = trace.activity();
        let expected = oracle(&trace);
        let everyone: Vec<u32> = (0..trace.neurons as u32).collect();
        prop_assert_eq!(greedy_chains(&activity), expected.clone());
        prop_assert_eq!(chains_in_bands(&activity, &everyone, Weight::Count, pairs_max), expected);
    }

    /// Why adjacent counts are what to maximise: active neurons less the co-activations of
    /// adjacent slots are the runs on the profiling trace.
    #[test]
    fn runs_are_active_less_adjacent_counts(trace in small_traces()) {
        let activity = trace.activity();
        let (order, _) = greedy_chains(&activity);
        let mut slots = vec![0; trace.neurons];
        for (slot, &neuron) in order.iter().enumerate() {
            slots[neuron as usize] = slot as u32;
        }
        let counted =
            run_statistics(&trace.bits(), trace.tokens.len(), trace.neurons, &slots).unwrap();
        let adjacent: u64 = order
            .windows(2)
            .map(|pair| u64::from(activity.coactive(pair[0] as usize, pair[1] as usize)))
            .sum();
        let active: u64 = activity.active_count().iter().map(|&count| u64::from(count)).sum();
        prop_assert_eq!(counted.active, active);
        prop_assert_eq!(counted.runs, active - adjacent);
    }

    /// Greedy is no optimum, but at least half of one (Fisher, Nemhauser and Wolsey, 1979, for the
    /// longest tour). On layers small enough to try every order.
    #[test]
    fn adjacent_counts_reach_half_the_best(
        neurons in 1usize..7,
        tokens in prop::collection::vec(prop::collection::vec(prop::bool::ANY, 7), 0..12),
    ) {
        let tokens: Vec<Vec<bool>> =
            tokens.into_iter().map(|token| token[..neurons].to_vec()).collect();
        let trace = SmallTrace { neurons, tokens, cut: 0 };
        let activity = trace.activity();
        let value = |order: &[u32]| -> u32 {
            order.windows(2).map(|p| activity.coactive(p[0] as usize, p[1] as usize)).sum()
        };
        let mut best = 0;
        permutations(&mut (0..neurons as u32).collect(), 0, &mut |order| {
            best = best.max(value(order));
        });
        let (greedy, _) = greedy_chains(&activity);
        prop_assert!(2 * value(&greedy) >= best && value(&greedy) <= best);
    }
}

fn permutations(order: &mut Vec<u32>, from: usize, visit: &mut impl FnMut(&[u32])) {
    if from == order.len() {
        visit(order);
    }
    for with in from..order.len() {
        order.swap(from, with);
        permutations(order, from + 1, visit);
        order.swap(from, with);
    }
}

#[test]
fn an_example_by_hand() {
    // Neurons 0..6. Pairs: {1,4} 3 times, {0,4} 2, {0,1} 2 (same chain: skipped), {2,3} 1.
    // Chain 1-4-0 has ends 1 and 0, so it starts with 0; 5 is never active.
    let tokens: Vec<Vec<bool>> = [&[0, 1, 4][..], &[0, 1, 4], &[1, 4], &[2, 3]]
        .iter()
        .map(|active| (0..6).map(|neuron| active.contains(&neuron)).collect())
        .collect();
    let bits: Vec<u8> = tokens.iter().flat_map(|token| pack(token)).collect();
    let activity = LayerActivity::from_bits(6, &[(&bits, 4)]).unwrap();
    assert_eq!(activity.coactive(1, 4), 3);
    // {0,1} ties with {0,4} at 2 and has the lower j: 0-1 is linked, and 0-4 is what's skipped.
    assert_eq!(greedy_chains(&activity), (vec![0, 1, 4, 2, 3, 5], vec![0, 3, 5, 6]));
}

/// The chains of a whole layer by raw counts.
fn greedy_chains(activity: &LayerActivity) -> (Vec<u32>, Vec<u32>) {
    let everyone: Vec<u32> = (0..activity.neurons() as u32).collect();
    chains_of(activity, &everyone, Weight::Count)
}
