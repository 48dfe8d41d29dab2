use proptest::prelude::*;

use super::{CacheAhead, rounds};
use crate::hot::{hot_bundles, hot_sets};
use crate::price::{Objective, price_layer};
use crate::testing::{SmallTrace, small_traces};
use crate::{LayerLinks, Linking, Order};
use lnp_engine::CachePolicy;

fn linking(order: Order) -> Linking {
    Linking { order, objective: Objective::phone().unwrap(), pin: 0.1 }
}

fn links(linking: &Linking, trace: &SmallTrace) -> LayerLinks {
    linking.link_layer(0, &trace.activity(), &[]).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is left is active and costs what the planner says of it; without a cache and with a pinned one it is what is
    /// active and not in the hot set.
    #[test]
    fn what_is_left_is_what_the_cache_has_not(
        trace in small_traces(),
        policy in prop::sample::select(CachePolicy::ALL.to_vec()),
        ratio in 0.0..1.0,
        order in prop::sample::select(vec![Order::Refined, Order::Copies { percent: 150 }]),
    ) {
        let linking = linking(order);
        let (layers, bits) = (vec![links(&linking, &trace)], vec![trace.bits()]);
        let left = CacheAhead { policy, ratio }.left(&linking, &layers, [&bits, &bits]).unwrap();
        let pairs = left.missed[0].iter().zip(&bits[0]);
        prop_assert!(pairs.clone().all(|(missed, active)| missed & !active == 0));
        let slots = layers[0].slots_of_neurons().unwrap();
        let rows = left.missed[0].chunks_exact(trace.neurons.div_ceil(8));
        let none = vec![false; trace.neurons];
        let price = price_layer(&linking.objective, rows, &slots, &none).unwrap();
        prop_assert!((price.time_us - left.us).abs() < 1e-6 * price.time_us.max(1.0));
        let kept = match policy {
            CachePolicy::None => none,
            CachePolicy::Pinned => {
                let cells = hot_bundles(1, trace.neurons, ratio);
                hot_sets(&[layers[0].active_count.clone()], cells).swap_remove(0)
            }
            _ => return Ok(()),
        };
        for (token, row) in trace.tokens.iter().zip(left.missed[0].chunks(trace.neurons.div_ceil(8))) {
            for neuron in 0..trace.neurons {
                let is_missed = row[neuron / 8] >> (neuron % 8) & 1 == 1;
                prop_assert_eq!(is_missed, token[neuron] && !kept[neuron]);
            }
        }
    }
}

#[test]
fn the_best_round_is_taken_and_the_start_where_none_gains() {
    assert_eq!(rounds(&[5.0, 4.0, 3.0, 3.5]), 2);
    assert_eq!(rounds(&[5.0, 5.0]), 0);
    assert_eq!(rounds(&[5.0, 6.0]), 0);
}
