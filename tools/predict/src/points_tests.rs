use proptest::prelude::*;

use super::*;

/// Scores and strengths of some tokens and neurons: integers, so that sums are exact.
fn layer(neurons: usize) -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    (1usize..9).prop_flat_map(move |tokens| {
        let count = tokens * neurons;
        let strengths = prop_oneof![3 => Just(INACTIVE), 2 => (0u8..20).prop_map(f32::from)];
        (
            prop::collection::vec((0u8..30).prop_map(f32::from), count),
            prop::collection::vec(strengths, count),
        )
    })
}

/// All choices of a threshold for each neuron: reads and strength lost.
fn choices(scores: &[f32], strengths: &[f32], neurons: usize) -> Vec<(u64, f64)> {
    let mut all = vec![(0, 0.0)];
    for neuron in 0..neurons {
        let column = |values: &[f32]| -> Vec<f32> {
            values.iter().skip(neuron).step_by(neurons).copied().collect()
        };
        let (scores, strengths) = (column(scores), column(strengths));
        let mut mine: Vec<(u64, f64)> = Vec::new();
        for threshold in std::iter::once(-1.0).chain(scores.iter().copied()) {
            let tally = Tally::of(&scores, &strengths, threshold);
            mine.push((tally.read, tally.lost()));
        }
        all = all.iter().flat_map(|a| mine.iter().map(move |b| (a.0 + b.0, a.1 + b.1))).collect();
    }
    all
}

proptest! {
    /// The threshold is the highest that leaves the recall: the next score up leaves less.
    #[test]
    fn a_layers_threshold_by_its_definition((scores, strengths) in layer(4), recall in 0.05f64..1.0) {
        let threshold = layer_thresholds(&scores, &strengths, &[recall])[0];
        let tally = Tally::of(&scores, &strengths, threshold);
        prop_assert!(tally.found as f64 >= recall * tally.active as f64 - 1e-9);
        if tally.active > 0 {
            let above = Tally::of(&scores, &strengths, threshold.next_up());
            prop_assert!((above.found as f64) < recall * tally.active as f64);
        } else {
            prop_assert_eq!(tally.read, 0);
        }
    }

    #[test]
    fn a_threshold_of_a_loss((scores, strengths) in layer(4), lost in 0u8..60) {
        let lost = f64::from(lost);
        let threshold = threshold_of_loss(&scores, &strengths, lost);
        let tally = Tally::of(&scores, &strengths, threshold);
        prop_assert!(tally.lost() <= lost);
        for higher in scores.iter().filter(|score| **score > threshold) {
            let above = Tally::of(&scores, &strengths, *higher);
            prop_assert!(above.lost() > lost || above.found == tally.found);
        }
    }

    /// No choice of thresholds loses as little and reads less, of all that there are.
    #[test]
    fn neurons_thresholds_are_not_beaten((scores, strengths) in layer(3), lost in 0u8..60) {
        let lost = f64::from(lost);
        let found = &neuron_thresholds(&scores, &strengths, 3, &[lost])[0];
        let above: Vec<f32> =
            scores.iter().enumerate().map(|(at, score)| score - found[at % 3]).collect();
        let tally = Tally::of(&above, &strengths, 0.0);
        prop_assert!(tally.lost() <= lost);
        for (read, other_lost) in choices(&scores, &strengths, 3) {
            prop_assert!(read >= tally.read || other_lost > tally.lost(), "{read} {other_lost}");
        }
    }
}

#[test]
fn tallies_by_hand() {
    let scores = [3.0, 1.0, 2.0, 0.0];
    let strengths = [4.0, INACTIVE, 1.0, 5.0];
    let tally = Tally::of(&scores, &strengths, 0.5);
    let expected = Tally { active: 3, read: 3, found: 2, strength: 10.0, kept: 5.0 };
    assert_eq!(tally, expected);
    let point = tally.point(0.9, 0.5);
    assert_eq!((point.reads_per_active, point.share_kept), (1.0, 0.5));
    assert!((point.recall - 2.0 / 3.0).abs() < 1e-6);
    assert_eq!(Tally::default().point(0.9, 0.0).recall, 1.0);
}
