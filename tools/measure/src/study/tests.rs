use super::bootstrap::{Resamples, Spread};
use super::defaults::{Candidate, ORDINARY};
use super::judge::Verdict;
use super::layouts::Kind;
use super::matrix::Matrices;
use super::summary::{MainRow, Mismatch, Summary, Worst, WorstMismatch};
use super::tables::render;
use lnp_link::Order;

/// SplitMix64, as a number from 0 to 1.
fn random(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[test]
fn a_mean_spreads_as_theory_says() {
    // The mean of n independent values has a standard deviation of s / sqrt(n); 90 % of a normal
    // distribution lie within 1.645 of them.
    let mut state = 7;
    let values: Vec<f64> = (0..400).map(|_| 10.0 + random(&mut state)).collect();
    let ones = vec![1.0; values.len()];
    let mean = values.iter().sum::<f64>() / 400.0;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 400.0;
    let expected = 2.0 * 1.645 * (variance / 400.0).sqrt();
    let spread = Resamples::new(&[400], 2000, 1).ratio(&values, &ones);
    assert!((spread.value - mean).abs() < 1e-12);
    assert!((spread.median - mean).abs() < 0.1 * expected, "{spread:?}");
    let found = spread.p95 - spread.p5;
    assert!((found / expected - 1.0).abs() < 0.08, "{found} instead of {expected}");
    assert_eq!(spread, Resamples::new(&[400], 2000, 1).ratio(&values, &ones));
    assert_ne!(spread, Resamples::new(&[400], 2000, 2).ratio(&values, &ones));
}

#[test]
fn ratios_are_paired_and_texts_keep_their_share() {
    let mut state = 3;
    let below: Vec<f64> = (0..48).map(|_| 1.0 + random(&mut state)).collect();
    // Twice as slow on every block: no spread, however blocks are drawn.
    let above: Vec<f64> = below.iter().map(|value| 2.0 * value).collect();
    let spread = Resamples::new(&[48], 100, 0).ratio(&above, &below);
    assert!((spread.p5 - 2.0).abs() < 1e-12 && (spread.p95 - 2.0).abs() < 1e-12);
    // Each text is as often in every resample as it is long, so that a value by text has no spread.
    let by_text: Vec<f64> = (0..48).map(|block| if block < 16 { 5.0 } else { 1.0 }).collect();
    let ones = vec![1.0; 48];
    let spread = Resamples::new(&[16, 32], 100, 0).ratio(&by_text, &ones);
    assert_eq!((spread.p5, spread.p95), (112.0 / 48.0, 112.0 / 48.0));
    let together = Resamples::new(&[48], 100, 0).ratio(&by_text, &ones);
    assert!(together.p5 < together.p95);
}

#[test]
fn the_menu_has_each_order_once_a_purpose() {
    let names = |pin| -> Vec<String> {
        let orders = [Order::Identity, Order::Greedy, Order::Miss, Order::Refined];
        Kind::menu(&orders, pin, &[4096, 24576]).iter().map(Kind::name).collect()
    };
    let pinned = [
        "identity",
        "greedy",
        "miss, apart",
        "refined, for 4 KiB",
        "refined, for 24 KiB",
        "refined, apart, for 4 KiB",
        "refined, apart, for 24 KiB",
    ];
    assert_eq!(names(0.1), pinned);
    assert_eq!(
        names(0.0),
        ["identity", "greedy", "miss", "refined, for 4 KiB", "refined, for 24 KiB"]
    );
}

#[test]
fn shades_are_where_values_are() {
    let values = [0.0, 1.0, 1.0, 0.0];
    let matrices = [("one".into(), values.iter().map(|value| value * 0.5).collect())];
    let percent = |value: f64| format!("{:.1} %", 100.0 * value);
    let picture = Matrices {
        title: "a < b",
        note: "of a test",
        axis: "slot",
        most: 3072,
        side: 2,
        scale: "share",
        black: 0.5,
        told: &percent,
        matrices: &matrices,
    };
    let text = picture.draw();
    for part in
        ["a &lt; b", "of a test", "slot", "3072", "share", "50.0 % and more", "25.0 %", "0.0 %"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(text.matches("<path").count(), 1);
    assert!(text.contains("<path stroke=\"#000000\" d=\"M1 0h1M0 1h1\"/>"), "{text}");
}

/// A summary of one order and one test, with such ratios in the main block and such worst ones.
fn summary(ratio: Option<f64>, worst: Option<f64>, blocks: usize) -> Summary {
    let one = Spread { value: 2.0, median: 2.0, p5: 1.0, p95: 3.0 };
    let verdict =
        Verdict { us: one, to_frequency: one, to_identity: 1.0, to_dense: 1.0, to_bound: 1.0 };
    let worst = worst.map(|ratio| Worst { ratio, cell: "there".into() });
    Summary {
        main_block: "profile p".into(),
        main: vec![MainRow { order: "greedy".into(), reads: None, bytes: 0.0, verdict }],
        blocks,
        mismatch: vec![Mismatch {
            order: "greedy".into(),
            matrix: vec![vec![ratio]],
            worst: ["none", "pinned"]
                .map(|cache| WorstMismatch { cache, mismatched: worst.clone(), mixed: None })
                .into(),
        }],
        profiles: vec!["p".into()],
        tests: vec!["t".into()],
    }
}

fn candidate(relation: &'static str, cells: usize) -> Candidate {
    Candidate {
        order: "refined, apart".into(),
        relation,
        cache: "none",
        cells,
        worst_to_frequency: (cells > 0).then(|| Worst { ratio: 0.5, cell: "there".into() }),
        worst_to_dense: None,
        losses: Vec::new(),
    }
}

const DEFAULT: [Kind; 1] = [Kind { order: Order::Refined, pin: 0.1, made_for: None }];

#[test]
fn with_data_every_sentence_is_there() {
    let told = render(&DEFAULT, &summary(Some(1.5), Some(1.5), 2), &[candidate(ORDINARY, 3)]);
    for sentence in [
        "to frequency: 5 to 95 % of resamples",
        "Cost of another profile, by cache",
        "Time over that of the matched profile in the main block",
        "Slower than a baseline",
        "is never slower than frequency or dense there",
    ] {
        assert!(told.contains(sentence), "{sentence}: {told}");
    }
    assert!(!told.contains("NAME=FILE") && !told.contains("No cell"), "{told}");
}

#[test]
fn without_a_matched_profile_nothing_is_said_of_others() {
    let told = render(&DEFAULT, &summary(None, None, 2), &[candidate(ORDINARY, 3)]);
    assert!(told.contains("--traces NAME=FILE --tests NAME=FILE"), "{told}");
    assert!(!told.contains("Cost of another") && !told.contains("matched profile in"), "{told}");
    // The test's own profile alone: there is no other.
    let told = render(&DEFAULT, &summary(Some(1.0), None, 2), &[]);
    assert!(!told.contains("Cost of another") && told.contains("matched profile in"), "{told}");
}

#[test]
fn without_cells_no_order_is_never_slower() {
    for candidates in [
        vec![],
        vec![candidate(ORDINARY, 0)],
        vec![candidate("mismatched", 3), candidate("unknown", 3)],
        vec![Candidate { cache: "dynamic", ..candidate(ORDINARY, 3) }],
    ] {
        let told = render(&DEFAULT, &summary(None, None, 2), &candidates);
        assert!(!told.contains("never slower") && !told.contains("Slower than"), "{told}");
        assert!(told.contains("No cell has a matched or mixed profile"), "{told}");
    }
    // Others have cells, the default has none.
    let other = Candidate { order: "greedy".into(), ..candidate(ORDINARY, 3) };
    let told = render(&DEFAULT, &summary(None, None, 2), &[other]);
    assert!(told.contains("Slower than a baseline") && !told.contains("never"), "{told}");
}

#[test]
fn one_block_has_no_spread() {
    let told = render(&DEFAULT, &summary(None, None, 1), &[]);
    assert!(!told.contains("resamples") && !told.contains("1-3"), "{told}");
}
