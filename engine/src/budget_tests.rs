use std::vec;
use std::vec::Vec;

use super::*;
use crate::law::Combine;
use crate::plan::{self, Collapse, Extent};

/// Numbers that are the same for ever.
struct Lots(u64);

impl Lots {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % most
    }

    /// Slots of a layer, each with this probability in per cent, and their strengths: some are 0.
    fn misses(&mut self, neurons: u32, percent: u64) -> (Vec<u32>, Vec<f32>) {
        let slots: Vec<u32> = (0..neurons).filter(|_| self.below(100) < percent).collect();
        let strength = |lots: &mut Self| {
            if lots.below(8) == 0 { 0.0 } else { (lots.below(1000) as f32 / 300.0).exp() }
        };
        let strengths = slots.iter().map(|_| strength(self)).collect();
        (slots, strengths)
    }

    fn geometry(&mut self, neurons: u32) -> Geometry {
        Geometry {
            bundle_stride: [512, 1536, 4096, 16384, 5000][self.below(5) as usize],
            block_bytes: [512, 4096][self.below(2) as usize],
            slots: neurons,
            read_bytes_max: [16384, 1 << 20][self.below(2) as usize],
        }
    }

    fn law(&mut self) -> DeviceLaw {
        let t0 = [0.0, 40.0][self.below(2) as usize];
        let a = [0.0, 2.0, 9.64, 50.0][self.below(4) as usize];
        DeviceLaw::new(t0, a, 2034.0, Combine::Sum).unwrap()
    }
}

/// Microseconds by the planner.
fn planned_us(slots: &[u32], geometry: &Geometry, law: &DeviceLaw) -> f64 {
    let mut extents = vec![Extent::default(); slots.len()];
    let mut scratch = vec![0; plan::scratch_len(slots.len())];
    let plan = plan::plan(slots, geometry, &Collapse::Law(*law), &mut extents, &mut scratch);
    law.time_us(plan.reads, plan.bytes)
}

fn squares(strengths: &[f32], of: impl Fn(usize) -> bool) -> f64 {
    let chosen = strengths.iter().enumerate().filter(|(at, _)| of(*at));
    chosen.map(|(_, strength)| f64::from(*strength).powi(2)).sum()
}

fn kept(slots: &[u32], keep: &[bool]) -> Vec<u32> {
    let chosen = slots.iter().zip(keep).filter(|(_, keep)| **keep);
    chosen.map(|(slot, _)| *slot).collect()
}

#[test]
fn a_price_buys_what_trying_everything_buys() {
    let mut lots = Lots(1);
    for _ in 0..150 {
        let (mut slots, mut strengths) = lots.misses(24, 35);
        slots.truncate(9);
        strengths.truncate(9);
        let (geometry, law) = (lots.geometry(24), lots.law());
        let misses = Misses { slots: &slots, strengths: &strengths, others: lots.below(50) as f64 };
        let (mut keep, mut scratch) = (vec![true; 9], vec![0; scratch_len(9)]);
        for price_us in [0.0, 3.0, 30.0, 100.0, 1000.0] {
            let choice = at_price(&misses, &geometry, &law, price_us, &mut keep, &mut scratch);
            let total = misses.total().max(1e-9);
            let value = |us: f64, lost: f64| us + price_us * lost / total;
            let us = planned_us(&kept(&slots, &keep), &geometry, &law);
            assert!((us - law.time_us(choice.reads, choice.bytes)).abs() < 1e-6);
            let found = value(us, choice.lost);
            for set in 0..1_u32 << slots.len() {
                let of = |at: usize| set >> at & 1 == 1;
                let some: Vec<u32> =
                    (0..slots.len()).filter(|at| of(*at)).map(|at| slots[at]).collect();
                let other =
                    value(planned_us(&some, &geometry, &law), squares(&strengths, |at| !of(at)));
                assert!(found <= other + 1e-6, "{found} us, {other} by {some:?} of {slots:?}");
            }
        }
    }
}

#[test]
fn within_a_loss_nothing_that_loses_no_more_is_faster() {
    let mut lots = Lots(2);
    for _ in 0..150 {
        let (mut slots, mut strengths) = lots.misses(24, 35);
        slots.truncate(9);
        strengths.truncate(9);
        let (geometry, law) = (lots.geometry(24), lots.law());
        let misses = Misses { slots: &slots, strengths: &strengths, others: lots.below(50) as f64 };
        let (mut keep, mut scratch) = (vec![true; 9], vec![0; scratch_len(9)]);
        for share in [0.0, 0.01, 0.1, 0.3, 1.0] {
            let choice = within(&misses, &geometry, &law, share, &mut keep, &mut scratch);
            assert!(choice.lost <= share * misses.total());
            let us = planned_us(&kept(&slots, &keep), &geometry, &law);
            for set in 0..1_u32 << slots.len() {
                let of = |at: usize| set >> at & 1 == 1;
                if squares(&strengths, |at| !of(at)) <= choice.lost {
                    let some: Vec<u32> =
                        (0..slots.len()).filter(|at| of(*at)).map(|at| slots[at]).collect();
                    let other = planned_us(&some, &geometry, &law);
                    assert!(us <= other + 1e-6, "{us} us, {other} by {some:?} of {slots:?}");
                }
            }
        }
    }
}

#[test]
fn large_layers_keep_the_promises() {
    let mut lots = Lots(3);
    for _ in 0..60 {
        let percent = [2, 10, 40][lots.below(3) as usize];
        let (slots, strengths) = lots.misses(1536, percent);
        let (geometry, law) = (lots.geometry(1536), lots.law());
        let misses =
            Misses { slots: &slots, strengths: &strengths, others: lots.below(9999) as f64 };
        let (mut keep, mut scratch) = (vec![true; slots.len()], vec![0; scratch_len(slots.len())]);
        let all_us = planned_us(&slots, &geometry, &law);
        let mut last_us = f64::INFINITY;
        for share in [0.0, 0.001, 0.01, 0.05, 0.2, 1.0] {
            let choice = within(&misses, &geometry, &law, share, &mut keep, &mut scratch);
            let rest = kept(&slots, &keep);
            let us = planned_us(&rest, &geometry, &law);
            let lost = squares(&strengths, |at| !keep[at]);
            assert!(us <= all_us + 1e-6 && us <= last_us + 1e-6, "{share}: {us} of {all_us}");
            assert!(lost <= share * misses.total() * (1.0 + 1e-12));
            assert!((lost - choice.lost).abs() <= 1e-9 * misses.total());
            assert_eq!((choice.kept, rest.is_sorted()), (rest.len(), true));
            assert!((us - law.time_us(choice.reads, choice.bytes)).abs() < 1e-6);
            if share == 0.0 {
                assert!((0..slots.len()).all(|at| keep[at] || strengths[at] == 0.0));
            }
            nothing_is_left_out_of_what_is_read(&misses, &keep, &geometry, &law);
            last_us = us;
        }
    }
}

/// What has strength and lies inside an extent of the plan is kept.
fn nothing_is_left_out_of_what_is_read(
    misses: &Misses<'_>,
    keep: &[bool],
    geometry: &Geometry,
    law: &DeviceLaw,
) {
    let rest = kept(misses.slots, keep);
    let mut extents = vec![Extent::default(); rest.len()];
    let mut scratch = vec![0; plan::scratch_len(rest.len())];
    let plan = plan::plan(&rest, geometry, &Collapse::Law(*law), &mut extents, &mut scratch);
    for extent in &extents[..plan.extents] {
        let wanted = &rest[extent.wanted()];
        let inside = *wanted.first().unwrap()..=*wanted.last().unwrap();
        for (at, slot) in misses.slots.iter().enumerate() {
            let kept = keep[at] || misses.strengths[at] == 0.0;
            assert!(kept || !inside.contains(slot), "slot {slot} in {inside:?}");
        }
    }
}

#[test]
fn weak_bundles_that_stand_alone_go_first() {
    let law = DeviceLaw::new(0.0, 9.64, 2034.0, Combine::Sum).unwrap();
    let geometry =
        Geometry { bundle_stride: 4096, block_bytes: 4096, slots: 100, read_bytes_max: 1 << 20 };
    // The weakest lies inside a read, the next weakest alone.
    let slots = [10, 11, 12, 50, 80];
    let strengths = [3.0, 0.1, 3.0, 0.2, 3.0];
    let misses = Misses { slots: &slots, strengths: &strengths, others: 0.0 };
    let (mut keep, mut scratch) = ([true; 5], [0; scratch_len(5)]);
    let choice = within(&misses, &geometry, &law, 0.01, &mut keep, &mut scratch);
    assert_eq!(keep, [true, true, true, false, true]);
    assert_eq!((choice.kept, choice.reads, choice.bytes), (4, 2, 4 * 4096));
    // 11.56 us for a share of 0.0015 of the strength: 7,800 us
    for (price_us, keeps) in [(7_700.0, false), (7_900.0, true)] {
        at_price(&misses, &geometry, &law, price_us, &mut keep, &mut scratch);
        assert_eq!(keep[3], keeps);
    }
}

#[test]
fn nothing_to_read_and_nonsense_are_no_trouble() {
    let law = DeviceLaw::new(0.0, 9.64, 2034.0, Combine::Max).unwrap();
    let geometry =
        Geometry { bundle_stride: 4096, block_bytes: 4096, slots: 100, read_bytes_max: 1 << 20 };
    let none = Misses { slots: &[], strengths: &[], others: 0.0 };
    assert_eq!(within(&none, &geometry, &law, 0.5, &mut [], &mut []), Choice::default());
    let strengths = [f32::NAN, -1.0, 0.0, f32::MAX];
    let misses = Misses { slots: &[1, 3, 5, 700], strengths: &strengths, others: f64::NAN };
    let (mut keep, mut scratch) = ([true; 4], [0; scratch_len(4)]);
    for share in [0.0, f64::NAN, -1.0, 0.5, 2.0, f64::INFINITY] {
        within(&misses, &geometry, &law, share, &mut keep, &mut scratch);
        at_price(&misses, &geometry, &law, share, &mut keep, &mut scratch);
    }
    assert_eq!(within(&misses, &geometry, &law, 0.0, &mut keep[..2], &mut scratch).kept, 0);
    assert_eq!(at_price(&misses, &geometry, &law, 1.0, &mut keep, &mut scratch[..4]).kept, 0);
}

/// Over many tokens as much is lost as may be, though none of them is asked to keep to it; and what strength is worth
/// follows a text that changes.
#[test]
#[cfg_attr(miri, ignore = "thousands of tokens: too slow to interpret")]
fn a_pace_loses_its_share_on_average() {
    let mut lots = Lots(77);
    for share in [0.002, 0.01, 0.05] {
        let neurons = 400;
        let geometry = Geometry {
            bundle_stride: 4096,
            block_bytes: 4096,
            slots: neurons,
            read_bytes_max: 1 << 20,
        };
        let law = DeviceLaw::new(0.0, 9.64, 2034.0, Combine::Sum).unwrap();
        let (mut pace, mut keep) = (Pace::default(), vec![true; neurons as usize]);
        let mut scratch = vec![0; scratch_len(neurons as usize)];
        for percent in [10, 40] {
            let mut lost = 0.0;
            let tokens = 600;
            for token in 0..tokens + 200 {
                let (slots, strengths) = lots.misses(neurons, percent);
                let misses = Misses { slots: &slots, strengths: &strengths, others: 50.0 };
                let choice = pace.choose(&misses, &geometry, &law, share, &mut keep, &mut scratch);
                let left: f64 = squares(&strengths, |at| !keep[at]);
                assert!((choice.lost - left).abs() <= 1e-6 * misses.total());
                if token >= 200 {
                    lost += left / misses.total();
                }
            }
            let mean = lost / f64::from(tokens) / share;
            assert!((0.8..1.25).contains(&mean), "{share} {percent}: {mean}");
        }
    }
    // what may not be lost is not
    let (slots, strengths) = lots.misses(50, 50);
    let misses = Misses { slots: &slots, strengths: &strengths, others: 0.0 };
    let geometry = lots.geometry(50);
    let law = lots.law();
    let (mut keep, mut scratch) = (vec![true; 50], vec![0; scratch_len(50)]);
    let choice = Pace::default().choose(&misses, &geometry, &law, 0.0, &mut keep, &mut scratch);
    assert_eq!(choice.lost, 0.0);
}
