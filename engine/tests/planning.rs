//! The planner against naive oracles, over random inputs.

use lnp_engine::plan::{Extent, Geometry, Plan, plan, runs};
use lnp_engine::{Collapse, Combine, DeviceLaw};
use proptest::prelude::*;

fn run_plan(slots: &[u32], geometry: &Geometry, collapse: &Collapse) -> (Plan, Vec<Extent>) {
    let mut extents = vec![Extent::default(); slots.len().max(1)];
    let mut holes = vec![0; slots.len()];
    let found = plan(slots, geometry, collapse, &mut extents, &mut holes);
    extents.truncate(found.extents);
    (found, extents)
}

/// Cheapest way to cover the extents under a law: every subset of holes tried.
fn exhaustive_us(extents: &[Extent], law: &DeviceLaw) -> f64 {
    let holes: Vec<u64> = extents.windows(2).map(|pair| pair[1].begin - pair[0].end).collect();
    let bytes: u64 = extents.iter().map(Extent::bytes).sum();
    (0..1u32 << holes.len())
        .map(|merged| {
            let read_through = (0..holes.len()).filter(|k| merged >> k & 1 == 1);
            let extra: u64 = read_through.map(|k| holes[k]).sum();
            law.work_us(extents.len() as u64 - u64::from(merged.count_ones()), bytes + extra)
        })
        .fold(f64::INFINITY, f64::min)
}

fn slots(neurons: u32, most: usize) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::btree_set(0..neurons, 0..=most).prop_map(|set| set.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Every wanted byte is covered, extents are aligned, ascending and apart, and their blocks are
    /// exactly the wanted blocks where nothing is merged.
    #[test]
    fn covers_exactly_what_is_wanted(
        slots in slots(200, 60),
        stride in prop::sample::select(vec![1u32, 100, 512, 1536, 4096, 5000]),
        gap in 0u64..20_000,
    ) {
        let geometry =
            Geometry { bundle_stride: stride, block_bytes: 512, neurons: 200, read_bytes_max: 4096 };
        let (off, extents) = run_plan(&slots, &geometry, &Collapse::Off);
        let mut blocks: Vec<u64> = slots
            .iter()
            .flat_map(|slot| {
                let first = u64::from(*slot) * u64::from(stride);
                first / 512..(first + u64::from(stride)).div_ceil(512)
            })
            .collect();
        blocks.dedup();
        let read: Vec<u64> = extents.iter().flat_map(|e| e.begin / 512..e.end / 512).collect();
        prop_assert_eq!(&read, &blocks);
        prop_assert_eq!(off.bytes, 512 * blocks.len() as u64);
        let reads: u64 = extents.iter().map(|e| e.bytes().div_ceil(4096)).sum();
        prop_assert_eq!(off.reads, reads);
        let naive_runs = slots.iter().filter(|s| **s == 0 || !slots.contains(&(**s - 1))).count();
        prop_assert_eq!(runs(&slots), naive_runs as u64);

        let (_, merged) = run_plan(&slots, &geometry, &Collapse::Gap { bytes: gap });
        let mut staging = 0;
        for pair in merged.windows(2) {
            let together = Extent { end: pair[1].end, ..pair[0] };
            let saves = together.reads(4096) < pair[0].reads(4096) + pair[1].reads(4096);
            prop_assert!(!saves || pair[1].begin - pair[0].end >= gap.max(1));
        }
        for extent in &merged {
            prop_assert_eq!(extent.staging_offset, staging);
            prop_assert_eq!((extent.begin % 512, extent.end % 512), (0, 0));
            staging += extent.bytes();
        }
        for wanted in &extents {
            prop_assert!(merged.iter().any(|e| e.begin <= wanted.begin && wanted.end <= e.end));
        }
    }

    /// Under both forms of the law no subset of merged holes is cheaper.
    #[test]
    fn no_other_choice_of_holes_is_cheaper(
        slots in slots(64, 12),
        a_us in 0.0f64..60.0,
        b_mib_s in 50.0f64..4000.0,
        max in any::<bool>(),
    ) {
        let geometry = Geometry {
            bundle_stride: 4096, block_bytes: 4096, neurons: 64, read_bytes_max: 1 << 20,
        };
        let combine = if max { Combine::Max } else { Combine::Sum };
        let law = DeviceLaw::new(0.0, a_us, b_mib_s, combine).unwrap();
        let (_, apart) = run_plan(&slots, &geometry, &Collapse::Off);
        let (found, _) = run_plan(&slots, &geometry, &Collapse::Law(law));
        let best_us = exhaustive_us(&apart, &law);
        let found_us = law.work_us(found.reads, found.bytes);
        prop_assert!(slots.is_empty() || found_us <= best_us * (1.0 + 1e-9) + 1e-9,
            "{found_us} us planned, {best_us} us possible");
    }
}

#[test]
fn whole_reads_the_layer() {
    let geometry =
        Geometry { bundle_stride: 1000, block_bytes: 4096, neurons: 10, read_bytes_max: 8192 };
    let (found, extents) = run_plan(&[3], &geometry, &Collapse::Whole);
    assert_eq!((found.bytes, found.reads, extents.len()), (12_288, 2, 1));
    assert_eq!(run_plan(&[], &geometry, &Collapse::Whole).0, Plan::default());
}

#[test]
fn bundles_that_share_a_block_are_one_read() {
    // 1,536-byte bundles in 4,096-byte blocks: slots 0 and 2 touch blocks 0 and 0..=1
    let geometry =
        Geometry { bundle_stride: 1536, block_bytes: 4096, neurons: 64, read_bytes_max: 1 << 20 };
    let (found, _) = run_plan(&[0, 2, 20], &geometry, &Collapse::Off);
    assert_eq!((found.reads, found.bytes, found.runs), (2, 8192 + 4096, 3));
}

#[test]
fn a_merge_that_saves_no_read_is_not_made() {
    // two stretches of 200 bundles of 4 KiB, each one read of at most 1 MiB, too long for one together
    let geometry =
        Geometry { bundle_stride: 4096, block_bytes: 4096, neurons: 404, read_bytes_max: 1 << 20 };
    let slots: Vec<u32> = (0..200).chain(204..404).collect();
    let law = DeviceLaw::new(0.0, 9.64, 2034.0, Combine::Sum).unwrap();
    let (found, extents) = run_plan(&slots, &geometry, &Collapse::Law(law));
    assert_eq!((found.reads, found.bytes, extents.len()), (2, 400 * 4096, 2));
}

#[test]
fn a_gap_between_two_whole_bytes_is_rounded_up() {
    // g* = 4096.9 bytes: a hole of 4096 is smaller, and worth reading through
    let law = DeviceLaw::new(0.0, 4096.9 / 1.048576, 1.0, Combine::Sum).unwrap();
    assert_eq!(law.gap_bytes(), 4097);
}
