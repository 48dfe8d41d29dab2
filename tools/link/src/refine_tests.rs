use proptest::prelude::*;

use super::*;
use crate::price::price_layer;
use crate::testing::{SmallTrace, small_traces};

/// Microseconds of a trace by the planner: what the costs of holes must agree with.
fn planned(trace: &SmallTrace, objective: &Objective, order: &[u32]) -> f64 {
    let mut slots = vec![0; trace.neurons];
    for (slot, &id) in order.iter().enumerate() {
        slots[id as usize] = slot as u32;
    }
    let bits = trace.bits();
    let rows = bits.chunks_exact(trace.neurons.div_ceil(8));
    price_layer(objective, rows, &[slots.into()], &vec![false; trace.neurons]).unwrap().time_us
}

proptest! {
    /// For the sum and whole blocks the costs of holes are the planner's, move by move, where no read
    /// is long enough to be cut: 39 bundles of 6 blocks are below a MiB. A last step that is too
    /// small to count may be missing from each hole.
    #[test]
    fn what_moves_save_is_what_the_planner_says(trace in small_traces(), blocks in 1u32..7) {
        let objective = Objective { bundle_bytes: 4096 * blocks, ..Objective::phone().unwrap() };
        let order: Vec<u32> = (0..trace.neurons as u32).collect();
        let before = planned(&trace, &objective, &order);
        let activity = trace.activity();
        let mut shares = Vec::new();
        let (after, saved) =
            refine(&activity, &objective, order.clone(), |share| shares.push(share));
        let difference = before - planned(&trace, &objective, &after);
        let left_out = (objective.law.a_us() - HoleCost::new(&objective).of(99)).max(0.0);
        let holes: u32 = activity.active_count().iter().sum();
        let slack = 1e-6 * (1.0 + before) + left_out * f64::from(holes);
        prop_assert!((difference - saved).abs() < slack, "{difference} {saved}");
        prop_assert!(saved >= -1e-9);
        prop_assert!(shares.is_sorted() && shares.iter().all(|share| (0.0..=1.0).contains(share)));
        prop_assert_eq!(
            (after, saved),
            refine_on(Arch::Scalar, &activity, &objective, order, |_| ())
        );
    }
}
