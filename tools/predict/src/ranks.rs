//! How the bytes are shared out: which layer gets which rank.

/// The choice, one for each layer, whose costs sum to the least of all that together take no more than
/// `budget` units; exact, by dynamic programming over the units. `costs[layer][choice]` is what a layer
/// costs where it takes `choice + 1` units. None where the budget is less than one unit a layer.
pub(crate) fn share_out(costs: &[Vec<f64>], budget: usize) -> Option<Vec<usize>> {
    // best[units]: the least cost of the layers so far with no more than these units
    let mut best = vec![0.0; budget + 1];
    let mut chosen: Vec<Vec<Option<usize>>> = Vec::new();
    for costs in costs {
        let choice_at = |units: usize| {
            let with = |(choice, cost): (usize, &f64)| {
                let left = units.checked_sub(choice + 1)?;
                Some((choice, best[left] + cost))
            };
            // the smaller choice where two cost the same
            let all = costs.iter().enumerate().filter_map(with);
            all.min_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, cost)| cost.is_finite())
        };
        let of_layer: Vec<Option<(usize, f64)>> = (0..=budget).map(choice_at).collect();
        best = of_layer.iter().map(|found| found.map_or(f64::INFINITY, |(_, cost)| cost)).collect();
        chosen.push(of_layer.iter().map(|found| found.map(|(choice, _)| choice)).collect());
    }
    let mut units = budget;
    let mut choices = Vec::new();
    for of_layer in chosen.iter().rev() {
        let choice = of_layer[units]?;
        units -= choice + 1;
        choices.push(choice);
    }
    choices.reverse();
    Some(choices)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cost(costs: &[Vec<f64>], choices: &[usize]) -> f64 {
        costs.iter().zip(choices).map(|(costs, choice)| costs[*choice]).sum()
    }

    proptest! {
        /// As good as the best of all choices.
        #[test]
        fn not_beaten_by_any_choice(
            costs in prop::collection::vec(prop::collection::vec(0u8..50, 1..5), 1..5),
            budget in 0usize..16,
        ) {
            let costs: Vec<Vec<f64>> =
                costs.iter().map(|of| of.iter().copied().map(f64::from).collect()).collect();
            let mut all: Vec<Vec<usize>> = vec![Vec::new()];
            for of in &costs {
                let longer = |one: &Vec<usize>, choice| [&one[..], &[choice]].concat();
                all = all.iter().flat_map(|one| (0..of.len()).map(move |c| longer(one, c))).collect();
            }
            let units = |choices: &[usize]| choices.iter().map(|choice| choice + 1).sum::<usize>();
            let possible = all.iter().filter(|choices| units(choices) <= budget);
            let least = possible.map(|choices| cost(&costs, choices)).min_by(f64::total_cmp);
            let found = share_out(&costs, budget);
            prop_assert_eq!(found.as_ref().map(|found| cost(&costs, found)), least);
            prop_assert!(found.is_none_or(|found| units(&found) <= budget));
        }
    }

    /// A layer that gains more gets more.
    #[test]
    fn by_hand() {
        let steep = vec![100.0, 20.0, 10.0];
        let flat = vec![10.0, 9.0, 8.0];
        assert_eq!(share_out(&[flat.clone(), steep.clone()], 4), Some(vec![0, 2]));
        assert_eq!(share_out(&[flat, steep], 1), None);
        assert_eq!(share_out(&[], 3), Some(Vec::new()));
    }
}
