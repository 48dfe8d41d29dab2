//! The planner against naive oracles, over random inputs.

#[path = "models/planning.rs"]
mod model;

use lnp_engine::law::Curve;
use lnp_engine::plan::{Extent, Geometry, Plan, runs};
use lnp_engine::{Collapse, Combine, DeviceLaw};
use model::{blocks, check, exhaustive, run_plan, too_little_room};
use proptest::prelude::*;

fn slots(neurons: u32, most: usize) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::btree_set(0..neurons, 0..=most).prop_map(|set| set.into_iter().collect())
}

fn strides() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![1_u32, 100, 512, 1536, 4096, 5000])
}

fn laws() -> impl Strategy<Value = (f64, f64)> {
    (0.0..60.0, 50.0..4000.0)
}

/// Ascending points, flat stretches and jumps among them.
fn curves() -> impl Strategy<Value = Curve> {
    prop::collection::vec((1_u32..30_000, prop::sample::select(vec![0.0, 0.1, 3.0, 60.0])), 2..=16)
        .prop_map(|steps| {
            let mut point = (0, 5.0);
            let points: Vec<_> = steps
                .iter()
                .map(|step| {
                    point = (point.0 + step.0, point.1 + step.1);
                    point
                })
                .collect();
            Curve::new(7.0, &points).unwrap()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 500 }))]

    /// Whatever the collapse: every wanted slot lies in the extent that claims it, extents are
    /// aligned, ascending and within the limit; without collapse they hold exactly the wanted blocks.
    #[test]
    fn covers_exactly_what_is_wanted(
        slots in slots(200, 60),
        stride in strides(),
        blocks_max in 1u32..20,
        gap in 0u64..20_000,
        (a_us, b_mib_s) in laws(),
        curve in curves(),
    ) {
        let geometry = Geometry {
            bundle_stride: stride, block_bytes: 512, slots: 200, read_bytes_max: blocks_max * 512,
        };
        let law = |combine| Collapse::Law(DeviceLaw::new(0.0, a_us, b_mib_s, combine).unwrap());
        let collapses = [
            Collapse::Off, Collapse::Gap { bytes: gap }, law(Combine::Sum), law(Combine::Max),
            Collapse::Curve(curve), Collapse::Whole,
        ];
        for collapse in &collapses {
            let (found, extents) = run_plan(&slots, &geometry, collapse);
            check(&slots, &geometry, collapse, &found, &extents);
            match collapse {
                Collapse::Off => {
                    let mut wanted: Vec<u64> = slots
                        .iter()
                        .flat_map(|slot| blocks(*slot, *slot, &geometry))
                        .collect();
                    wanted.dedup();
                    let mut read: Vec<u64> =
                        extents.iter().flat_map(|e| e.begin / 512..e.end / 512).collect();
                    read.dedup();
                    prop_assert_eq!(&read, &wanted);
                    prop_assert_eq!(found.merges, 0);
                }
                Collapse::Gap { bytes } => for pair in extents.windows(2) {
                    let fits = pair[1].end - pair[0].begin <= u64::from(geometry.read_bytes_max);
                    prop_assert!(!fits || pair[1].begin - pair[0].end >= (*bytes).max(1));
                },
                Collapse::Whole => {
                    let region = (200 * u64::from(stride)).next_multiple_of(512);
                    let all = extents.first().map(|e| e.begin).zip(extents.last().map(|e| e.end));
                    prop_assert_eq!(all, (!slots.is_empty()).then_some((0, region)));
                    prop_assert!(extents.windows(2).all(|pair| pair[1].begin <= pair[0].end));
                    prop_assert!(slots.is_empty() || found.bytes == geometry.whole_bytes());
                }
                _ => {}
            }
        }
        let naive_runs = slots.iter().filter(|s| **s == 0 || !slots.contains(&(**s - 1))).count();
        prop_assert_eq!(runs(&slots), naive_runs as u64);
    }

    /// Under the sum, no partition within the limit is cheaper, whether the limit binds or not.
    #[test]
    fn no_other_partition_is_cheaper_under_sum(
        slots in slots(64, 12),
        stride in strides(),
        blocks_max in prop::sample::select(vec![1u32, 2, 3, 5, 8, 13, 21, 4096]),
        (a_us, b_mib_s) in laws(),
    ) {
        let geometry = Geometry {
            bundle_stride: stride, block_bytes: 512, slots: 64, read_bytes_max: blocks_max * 512,
        };
        let law = DeviceLaw::new(0.0, a_us, b_mib_s, Combine::Sum).unwrap();
        let (found, _) = run_plan(&slots, &geometry, &Collapse::Law(law));
        let best = exhaustive(&slots, &geometry, |sizes| {
            law.work_us(sizes.len() as u64, sizes.iter().sum())
        });
        let found = law.work_us(found.reads, found.bytes);
        prop_assert!(found <= best * (1.0 + 1e-9) + 1e-9, "{found} us planned, {best} us possible");
    }

    /// The same for a measured curve.
    #[test]
    fn no_other_partition_is_cheaper_under_a_curve(
        slots in slots(64, 12),
        stride in strides(),
        blocks_max in prop::sample::select(vec![1u32, 2, 3, 5, 8, 13, 21, 4096]),
        curve in curves(),
    ) {
        let geometry = Geometry {
            bundle_stride: stride, block_bytes: 512, slots: 64, read_bytes_max: blocks_max * 512,
        };
        let (_, extents) = run_plan(&slots, &geometry, &Collapse::Curve(curve));
        let best = exhaustive(&slots, &geometry, |sizes| curve.time_us(sizes.iter().copied()));
        let found = curve.time_us(extents.iter().map(Extent::bytes));
        prop_assert!(found <= best * (1.0 + 1e-9) + 1e-9, "{found} us planned, {best} us possible");
    }

    /// Under the maximum, where the limit does not bind.
    #[test]
    fn no_other_partition_is_cheaper_under_max(
        slots in slots(64, 12),
        stride in strides(),
        (a_us, b_mib_s) in laws(),
    ) {
        let geometry = Geometry {
            bundle_stride: stride, block_bytes: 512, slots: 64, read_bytes_max: 1 << 20,
        };
        let law = DeviceLaw::new(0.0, a_us, b_mib_s, Combine::Max).unwrap();
        let (found, _) = run_plan(&slots, &geometry, &Collapse::Law(law));
        let best = exhaustive(&slots, &geometry, |sizes| {
            law.work_us(sizes.len() as u64, sizes.iter().sum())
        });
        let found = law.work_us(found.reads, found.bytes);
        prop_assert!(found <= best * (1.0 + 1e-9) + 1e-9, "{found} us planned, {best} us possible");
    }

    /// Where a stream of the whole layer would be faster, that is what is planned, or better.
    #[test]
    fn never_slower_than_the_whole_layer(
        slots in slots(400, 400),
        stride in strides(),
        blocks_max in 1u32..100,
        (a_us, b_mib_s) in laws(),
        curve in curves(),
    ) {
        let geometry = Geometry {
            bundle_stride: stride, block_bytes: 512, slots: 400, read_bytes_max: blocks_max * 512,
        };
        let law = |combine| Collapse::Law(DeviceLaw::new(0.0, a_us, b_mib_s, combine).unwrap());
        for collapse in [law(Combine::Sum), law(Combine::Max), Collapse::Curve(curve)] {
            let cost = |way: &Collapse| {
                let (plan, extents) = run_plan(&slots, &geometry, way);
                collapse.cost(&plan, &extents)
            };
            let (planned, whole) = (cost(&collapse), cost(&Collapse::Whole));
            prop_assert!(planned <= whole * (1.0 + 1e-9), "{planned} us planned, {whole} us whole");
        }
    }

    /// A law under the sum and its curve make plans of the same cost, on sets beyond any search.
    #[test]
    fn the_curve_of_a_law_plans_like_the_law(
        slots in slots(2000, 500),
        stride in strides(),
        blocks_max in 1u32..200,
        (a_us, b_mib_s) in laws(),
    ) {
        let geometry = Geometry {
            bundle_stride: stride, block_bytes: 512, slots: 2000, read_bytes_max: blocks_max * 512,
        };
        let law = DeviceLaw::new(3.0, a_us, b_mib_s, Combine::Sum).unwrap();
        let curve = Curve::of_law(&law).unwrap();
        let (by_law, _) = run_plan(&slots, &geometry, &Collapse::Law(law));
        let (by_curve, extents) = run_plan(&slots, &geometry, &Collapse::Curve(curve));
        let law_us = law.time_us(by_law.reads, by_law.bytes);
        let curve_us = law.time_us(by_curve.reads, by_curve.bytes);
        prop_assert!((law_us - curve_us).abs() <= 1e-9 * law_us, "{law_us} {curve_us}");
        let summed_us = curve.time_us(extents.iter().map(Extent::bytes));
        prop_assert!((summed_us - curve_us).abs() <= 1e-9 * law_us, "{summed_us} {curve_us}");
    }
}

#[test]
fn whole_reads_the_layer() {
    let geometry =
        Geometry { bundle_stride: 1000, block_bytes: 4096, slots: 10, read_bytes_max: 8192 };
    // bundles 0 to 7 fit into two blocks; 8 begins in the second of them
    let (found, extents) = run_plan(&[3], &geometry, &Collapse::Whole);
    assert_eq!((found.bytes, found.reads, extents.len()), (8192 + 8192, 2, 2));
    assert_eq!((extents[0].wanted(), extents[1].wanted()), (0..1, 1..1));
    assert_eq!((extents[1].begin, extents[1].end), (4096, 12_288));
    assert_eq!(run_plan(&[], &geometry, &Collapse::Whole).0, Plan::default());
}

#[test]
fn bundles_that_share_a_block_are_one_read() {
    // 1,536-byte bundles in 4,096-byte blocks: slots 0 and 2 touch blocks 0 and 0..=1
    let geometry =
        Geometry { bundle_stride: 1536, block_bytes: 4096, slots: 64, read_bytes_max: 1 << 20 };
    let (found, _) = run_plan(&[0, 2, 20], &geometry, &Collapse::Off);
    assert_eq!((found.reads, found.bytes, found.runs, found.merges), (2, 8192 + 4096, 3, 0));
}

#[test]
fn a_merge_that_would_be_too_long_is_not_made() {
    // two stretches of 200 bundles of 4 KiB, each one read of at most 1 MiB, too long for one together
    let geometry =
        Geometry { bundle_stride: 4096, block_bytes: 4096, slots: 404, read_bytes_max: 1 << 20 };
    let slots: Vec<u32> = (0..200).chain(204..404).collect();
    let law = DeviceLaw::new(0.0, 9.64, 2034.0, Combine::Sum).unwrap();
    for collapse in [Collapse::Law(law), Collapse::Gap { bytes: 1 << 20 }] {
        let (found, extents) = run_plan(&slots, &geometry, &collapse);
        assert_eq!((found.reads, found.bytes, extents.len()), (2, 400 * 4096, 2));
    }
}

#[test]
fn scratch_and_extents_that_are_too_short_leave_slots_out() {
    let geometry =
        Geometry { bundle_stride: 512, block_bytes: 512, slots: 40, read_bytes_max: 1024 };
    let slots: Vec<u32> = (0..40).step_by(2).collect();
    let law = |combine| DeviceLaw::new(0.0, 9.64, 2034.0, combine).unwrap();
    let curve = Curve::of_law(&law(Combine::Sum)).unwrap();
    for collapse in [
        Collapse::Off,
        Collapse::Gap { bytes: 4096 },
        Collapse::Law(law(Combine::Sum)),
        Collapse::Law(law(Combine::Max)),
        Collapse::Curve(curve),
        Collapse::Whole,
    ] {
        for (extents, scratch) in [(0, 0), (0, 90), (3, 2), (30, 7), (2, 90), (30, 60)] {
            too_little_room(&slots, &geometry, &collapse, extents, scratch);
        }
    }
    // Slots beyond the layer are as if there were none.
    let beyond: Vec<u32> = (0..60).step_by(2).collect();
    let (found, extents) = run_plan(&beyond, &geometry, &Collapse::Off);
    check(&slots, &geometry, &Collapse::Off, &found, &extents);
}

#[test]
fn a_gap_between_two_whole_bytes_is_rounded_up() {
    // g* = 4096.9 bytes: a hole of 4096 is smaller, and worth reading through
    let law = DeviceLaw::new(0.0, 4096.9 / 1.048576, 1.0, Combine::Sum).unwrap();
    assert_eq!(law.gap_bytes(), 4097);
}

#[test]
fn a_curve_is_read_off_between_its_points_and_beyond() {
    let curve = Curve::new(5.0, &[(4096, 10.0), (8192, 12.0), (16384, 20.0)]).unwrap();
    for (bytes, us) in [
        (0, 10.0),
        (4096, 10.0),
        (6144, 11.0),
        (8192, 12.0),
        (12288, 16.0),
        (16384, 20.0),
        (24576, 28.0),
    ] {
        assert!((curve.read_us(bytes) - us).abs() < 1e-12, "{bytes}");
    }
    assert_eq!(curve.time_us([].into_iter()), 0.0);
    assert!((curve.time_us([4096, 8192].into_iter()) - 27.0).abs() < 1e-12);
}

#[test]
fn impossible_curves_are_refused() {
    let too_many: Vec<_> = (0..17).map(|k| (k, 1.0)).collect();
    for (t0_us, points) in [
        (0.0, &[][..]),
        (0.0, &[(4096, 1.0)]),
        (0.0, &too_many),
        (f64::NAN, &[(1, 1.0), (2, 2.0)]),
        (0.0, &[(4096, 1.0), (4096, 2.0)]),
        (0.0, &[(4096, 2.0), (8192, 1.0)]),
        (0.0, &[(4096, 1.0), (8192, f64::NAN)]),
        (0.0, &[(4096, -1.0), (8192, 1.0)]),
    ] {
        assert!(Curve::new(t0_us, points).is_err(), "{points:?}");
    }
    let max = DeviceLaw::new(0.0, 9.64, 2034.0, Combine::Max).unwrap();
    assert_eq!(Curve::of_law(&max), None);
}
