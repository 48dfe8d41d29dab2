use proptest::prelude::*;

use super::*;
use crate::links::pairs::{CoactivePair, pairs_descending};
use crate::links::testing::small_traces;

/// The same layer, counted the other way.
fn flipped(activity: &LayerActivity, bits: &[u8]) -> LayerActivity {
    let (neurons, tokens) = (activity.neurons, activity.tokens);
    let by_token = match activity.by_token {
        Some(_) => None,
        None => Some(token_lists(neurons, tokens, &[(bits, tokens)])),
    };
    LayerActivity { by_token, ..activity.clone() }
}

proptest! {
    #[test]
    fn counts_equal_naive_counts_either_way(trace in small_traces()) {
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
        for activity in [flipped(&activity, &trace.bits()), activity] {
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

#[test]
fn takes_the_cheaper_way() {
    // 256 neurons, 2,000 tokens: two active a token, then all.
    let tokens = 2_000;
    let sparse: Vec<u8> = (0..tokens).flat_map(|_| [&[3u8][..], &[0; 31]].concat()).collect();
    let dense = vec![0xff; 32 * tokens];
    assert!(LayerActivity::from_bits(256, &[(&sparse, tokens)]).unwrap().by_token.is_some());
    assert!(LayerActivity::from_bits(256, &[(&dense, tokens)]).unwrap().by_token.is_none());
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
