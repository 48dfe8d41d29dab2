use proptest::prelude::*;

use super::*;
use crate::testing::small_traces;

fn linking(order: Order, pin: f64) -> Linking {
    Linking { order, objective: Objective::phone().unwrap(), pin }
}

proptest! {
    /// Whatever is pinned: a permutation, the pinned neurons at its end by frequency.
    #[test]
    fn what_is_pinned_stands_at_the_end(trace in small_traces(), share in 0.0f64..1.1) {
        let activity = trace.activity();
        for order in Order::ALL {
            let linking = linking(order, share.min(1.0));
            let of = |_: usize| Ok(activity.clone());
            let hot = linking.hot_sets(1, &of).unwrap();
            let links = linking.link(1, of, |_| ()).unwrap().remove(0);
            links.check(trace.tokens.len() as u64).unwrap();
            let is_hot = |id: &u32| hot.first().is_some_and(|hot| hot[*id as usize]);
            let pinned: Vec<u32> = links.neuron_of_slot.iter().copied().filter(is_hot).collect();
            prop_assert_eq!(pinned.len(), (trace.neurons as f64 * linking.pin).round() as usize);
            prop_assert!(links.neuron_of_slot.ends_with(&pinned));
            let counts: Vec<usize> =
                pinned.iter().map(|&id| activity.count(id as usize) as usize).collect();
            prop_assert!(counts.is_sorted_by(|a, b| a >= b));
        }
    }

    /// The miss stream of nothing pinned is everything.
    #[test]
    fn miss_is_greedy_where_nothing_is_pinned(trace in small_traces()) {
        let of = |_: usize| Ok(trace.activity());
        let links = |order| linking(order, 0.0).link(1, of, |_| ()).unwrap();
        prop_assert_eq!(links(Order::Miss), links(Order::Greedy));
    }

    /// Removing the pinned neurons from the trace itself and linking that gives the same chains.
    #[test]
    fn miss_is_greedy_on_a_trace_without_what_is_pinned(trace in small_traces()) {
        let linking = linking(Order::Miss, 0.25);
        let of = |_: usize| Ok(trace.activity());
        let links = linking.link(1, of, |_| ()).unwrap().remove(0);
        let hot = linking.hot_sets(1, &of).unwrap().remove(0);
        let mut missed = trace.clone();
        for token in &mut missed.tokens {
            for (bit, hot) in token.iter_mut().zip(&hot) {
                *bit &= !hot;
            }
        }
        let (mut expected, _) = chains_of(
            &missed.activity(),
            &(0..trace.neurons as u32).collect::<Vec<_>>(),
            Weight::Count,
        );
        expected.retain(|id| !hot[*id as usize]);
        let members = expected.len();
        prop_assert_eq!(&links.neuron_of_slot[..members], expected);
    }

    /// Refined is never dearer than where it started, on the profile and by the planner.
    #[test]
    fn refined_is_never_worse_than_its_start(trace in small_traces(), bundle_bytes in 500u32..20_000) {
        let activity = trace.activity();
        let objective = Objective { bundle_bytes, ..Objective::phone().unwrap() };
        let bits = trace.bits();
        let price = |order| {
            let linking = Linking { order, objective, pin: 0.0 };
            let links = linking.link_layer(0, &activity, &[]).unwrap();
            let rows = bits.chunks_exact(trace.neurons.div_ceil(8));
            let resident = vec![false; trace.neurons];
            let slots = links.slot_of_neuron().unwrap();
            price_layer(&objective, rows, &[slots.into()], &resident).unwrap().time_us
        };
        prop_assert!(price(Order::Refined) <= price(Order::Jaccard) + 1e-9);
    }
}
