use proptest::prelude::*;

use super::*;
use crate::rows::ROW_WORDS_MULTIPLE;

/// Words of a row: more than are counted at once.
const WORDS: usize = 3 * ROW_WORDS_MULTIPLE;

/// Rows of one side, sparse to dense, and how many there are before the end of the order.
fn rows() -> impl Strategy<Value = Vec<Vec<u64>>> {
    let word = (any::<u64>(), any::<u64>(), any::<bool>())
        .prop_map(|(a, b, dense)| if dense { a | b } else { a & b & a.rotate_left(9) });
    prop::collection::vec(prop::collection::vec(word, WORDS), 0..=HOLE_BUNDLES_MAX)
}

fn costs() -> impl Strategy<Value = HoleCost> {
    let last = prop::sample::select(vec![0.0, 0.25, 1.0, 3.5]);
    (1..HOLE_BUNDLES_MAX, last).prop_map(|(steps, last_us)| HoleCost {
        step_us: 1.5,
        steps,
        last_us,
    })
}

fn side<'a>(rows: &'a [Vec<u64>], zeros: &'a [u64]) -> Side<'a> {
    Side::new(rows.iter().map(Vec::as_slice), zeros)
}

fn is_set(row: &[u64], token: usize) -> bool {
    row[token / 64] >> (token % 64) & 1 == 1
}

/// Inactive slots to the next active one; more than matter where there is none.
fn inactive(rows: &[Vec<u64>], token: usize) -> usize {
    rows.iter().position(|row| is_set(row, token)).unwrap_or(99)
}

fn naive_insertion(cost: &HoleCost, left: &[Vec<u64>], right: &[Vec<u64>], row: &[u64]) -> f64 {
    let added = |token| {
        let (l, r) = (inactive(left, token), inactive(right, token));
        if is_set(row, token) {
            cost.of(l) + cost.of(r) - cost.of(l + r)
        } else {
            cost.of(l + r + 1) - cost.of(l + r)
        }
    };
    (0..64 * WORDS).map(added).sum()
}

fn naive_junction(cost: &HoleCost, left: &[Vec<u64>], right: &[Vec<u64>]) -> f64 {
    let hole = |token| cost.of(inactive(left, token) + inactive(right, token));
    (0..64 * WORDS).map(hole).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn insertions_cost_what_each_token_says(
        (cost, left, right) in (costs(), rows(), rows()),
        row in prop::collection::vec(any::<u64>(), WORDS),
        share in 0.0..1.5,
    ) {
        let zeros = vec![0; WORDS];
        let expected = naive_insertion(&cost, &left, &right, &row);
        let (left, right) = (side(&left, &zeros), side(&right, &zeros));
        for arch in [Arch::new(), Arch::Scalar] {
            let us = insertion(arch, &cost, &left, &right, &row, f64::INFINITY);
            prop_assert!((us - expected).abs() < 1e-6, "{us} {expected}");
            let limit = share * expected;
            let us = insertion(arch, &cost, &left, &right, &row, limit);
            prop_assert!((us - expected).abs() < 1e-6 || us >= limit, "{us} {limit}");
        }
    }

    /// A junction is known up to a constant for each side: so it takes four for a comparison.
    #[test]
    fn junctions_cost_what_each_token_says(
        (cost, sides) in (costs(), prop::collection::vec(rows(), 4)),
    ) {
        let zeros = vec![0; WORDS];
        for arch in [Arch::new(), Arch::Scalar] {
            let saved = |left: usize, right: usize| {
                junction(arch, &cost, &side(&sides[left], &zeros), &side(&sides[right], &zeros))
            };
            let naive = |left: usize, right: usize| {
                naive_junction(&cost, &sides[left], &sides[right])
            };
            let us = saved(0, 3) + saved(1, 2) - saved(0, 2) - saved(1, 3);
            let expected = naive(0, 2) + naive(1, 3) - naive(0, 3) - naive(1, 2);
            prop_assert!((us - expected).abs() < 1e-6, "{us} {expected}");
        }
    }
}

#[test]
fn costs_follow_the_law() {
    let phone = Objective::phone().unwrap();
    for (bytes, steps, has_last) in
        [(4096, 5, false), (8192, 2, true), (20_480, 1, false), (65_536, 1, false), (16, 15, true)]
    {
        let cost = HoleCost::new(&Objective { bundle_bytes: bytes, ..phone });
        assert_eq!((cost.steps, cost.last_us > 0.0), (steps, has_last), "{bytes}");
        let bundle_us = phone.law.transfer_us(u64::from(bytes));
        for hole in 0..HOLE_BUNDLES_MAX {
            let exact = (hole as f64 * bundle_us).min(phone.law.a_us());
            assert!((cost.of(hole) - exact).abs() <= LAST_STEP_MIN * bundle_us, "{bytes} {hole}");
        }
    }
}
