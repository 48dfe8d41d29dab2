use proptest::prelude::*;

use super::*;
use crate::NEURONS_MAX;
use crate::pairs::{
    CoactivePair, PAIRS_PER_BAND_MAX, Weight, count_bands, pair_histogram, visit_band,
};
use crate::testing::small_traces;

proptest! {
    #[test]
    fn counts_equal_naive_counts_whatever_the_memory(
        trace in small_traces(),
        pair_bytes in 0u64..4000,
    ) {
        let activity = trace.activity();
        let mut expected = Vec::new();
        for i in 0..trace.neurons {
            prop_assert_eq!(activity.count(i), trace.count(&[i]));
            for j in i + 1..trace.neurons {
                let count = trace.count(&[i, j]);
                prop_assert_eq!(activity.coactive(i, j), count);
                prop_assert_eq!(activity.coactive(j, i), count);
                if count > 0 {
                    expected.push((i as u32, j as u32, count));
                }
            }
        }
        let everyone: Vec<u32> = (0..trace.neurons as u32 + 3).collect();
        let thirds: Vec<u32> = everyone.iter().copied().filter(|id| id % 3 == 0).collect();
        for activity in [activity.clone().with_pair_bytes(pair_bytes), activity] {
            let mut visited = Vec::new();
            activity.visit_pairs(&everyone, |i, j, count| visited.push((i, j, count)));
            prop_assert_eq!(&visited, &expected);

            visited.clear();
            activity.visit_pairs(&thirds, |i, j, count| visited.push((i, j, count)));
            let mut of_thirds = expected.clone();
            of_thirds.retain(|&(i, j, _)| i % 3 == 0 && j % 3 == 0);
            prop_assert_eq!(visited, of_thirds);
        }
        expected.sort_by_key(|&(i, j, count)| (std::cmp::Reverse(count), i, j));
        let sorted: Vec<CoactivePair> =
            expected.iter().map(|&(i, j, count)| CoactivePair { count, i, j }).collect();
        prop_assert_eq!(pairs_descending(&trace.activity()), sorted);
    }
}

/// Many tokens and neurons: sums of bytes overflow, blocks and groups have ends.
#[test]
fn counts_of_a_layer_larger_than_blocks() {
    let (neurons, tokens) = (150_usize, 20_000);
    let mut state = 1u64;
    let mut bits = vec![0u8; neurons.div_ceil(8) * tokens];
    for row in bits.chunks_mut(neurons.div_ceil(8)) {
        for neuron in 0..neurons {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // The higher the id, the less often; the first nearly always.
            row[neuron / 8] |= u8::from((state >> 57) as usize > neuron) << (neuron % 8);
        }
    }
    let activity = LayerActivity::from_bits(neurons, &[(&bits, tokens)]).unwrap();
    let everyone: Vec<u32> = (0..neurons as u32).collect();
    let few: Vec<u32> = everyone.iter().copied().filter(|id| id % 7 > 1).collect();
    for bytes in [0, 9_999, PAIR_BYTES_DEFAULT] {
        let activity = activity.clone().with_pair_bytes(bytes);
        for members in [&everyone, &few, &everyone] {
            let mut visited = 0;
            activity.visit_pairs(members, |i, j, count| {
                assert_eq!(count, activity.coactive(i as usize, j as usize), "{i} {j}");
                visited += 1;
            });
            let pairs = members.iter().flat_map(|i| members.iter().map(move |j| (*i, *j)));
            let together = |i: u32, j: u32| activity.coactive(i as usize, j as usize) > 0;
            assert_eq!(visited, pairs.filter(|&(i, j)| i < j && together(i, j)).count());
        }
    }
}

#[test]
fn ids_outside_count_nothing() {
    let activity = LayerActivity::from_bits(3, &[(&[7], 1)]).unwrap();
    assert_eq!((activity.count(2), activity.count(3)), (1, 0));
    assert_eq!(
        (activity.coactive(1, 2), activity.coactive(2, 3), activity.coactive(9, 0)),
        (1, 0, 0)
    );
}

#[test]
fn no_trace_and_no_tokens_are_no_activity() {
    for activity in [
        LayerActivity::from_bits(9, &[]).unwrap(),
        LayerActivity::from_bits(9, &[(&[], 0)]).unwrap(),
    ] {
        assert_eq!((activity.tokens(), activity.coactive(0, 8)), (0, 0));
        assert!(pairs_descending(&activity).is_empty());
    }
}

#[test]
fn bits_that_do_not_fit_are_refused() {
    let error = |neurons: usize, bits: &[u8], tokens: usize| {
        LayerActivity::from_bits(neurons, &[(bits, tokens)]).unwrap_err().to_string()
    };
    assert!(error(0, &[], 0).contains("0 neurons"));
    assert!(error(NEURONS_MAX + 1, &[], 0).contains("possible"));
    assert!(error(9, &[0; 3], 2).contains("3 bytes"));
    assert!(error(9, &[0; 2], usize::MAX).contains("2 bytes"));
    assert_eq!(error(9, &[0, 0, 0, 2], 2), "token 1 has a bit set past neuron 8: trace damaged");
}

/// All pairs that are ever active together, by descending count, then ascending i, then j.
///
/// Takes 12 bytes a pair, up to n²/2 pairs: for tools that look at a layer. The greedy order goes
/// band by band instead.
fn pairs_descending(activity: &LayerActivity) -> Vec<CoactivePair> {
    let everyone: Vec<u32> = (0..activity.neurons() as u32).collect();
    let mut pairs = Vec::new();
    let histogram = pair_histogram(activity, &everyone, Weight::Count);
    for band in count_bands(&histogram, PAIRS_PER_BAND_MAX) {
        visit_band(activity, &histogram, &band, &everyone, Weight::Count, |pair| pairs.push(pair));
    }
    pairs
}
