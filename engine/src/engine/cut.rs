//! What is left out where the staging area is too small.

use crate::plan::{Collapse, Geometry};

/// Marks an entry of the scratch, whose lower half is a position below 2^24, as one that would be a read by
/// itself.
const ISOLATED: u64 = 1 << 31;

/// How much of a prediction is prefetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut<'s> {
    /// Most bundles.
    pub(super) most: usize,
    /// How much each bundle of the set would matter, where that is known.
    pub(super) strengths: Option<&'s [f32]>,
}

impl Cut<'_> {
    /// Keeps at most so many of `entries` (slot << 32 | position, ascending) at their front, ascending, and says
    /// how many: those with the most strength for their device time, or the first by position where no
    /// strengths are known.
    pub(super) fn keep(
        self,
        entries: &mut [u64],
        geometry: &Geometry,
        collapse: &Collapse,
    ) -> usize {
        if entries.len() <= self.most {
            return entries.len();
        }
        let position = |entry: u64| (entry & 0x00ff_ffff) as usize;
        match self.strengths {
            None => {
                entries.select_nth_unstable_by_key(self.most, |entry| position(*entry));
            }
            Some(strengths) => {
                let alone_costs = alone_over_in_run(geometry, collapse);
                mark_isolated(entries, geometry, collapse);
                let worth = |entry: u64| {
                    let strength = strengths.get(position(entry)).copied().unwrap_or(0.0);
                    if entry & ISOLATED == 0 { strength } else { strength / alone_costs }
                };
                entries.select_nth_unstable_by(self.most, |one, other| {
                    worth(*other).total_cmp(&worth(*one)).then(one.cmp(other))
                });
            }
        }
        let kept = &mut entries[..self.most];
        kept.iter_mut().for_each(|entry| *entry &= !ISOLATED);
        kept.sort_unstable();
        kept.len()
    }
}

/// Hole that is read through, bytes.
fn gap_bytes(collapse: &Collapse) -> u64 {
    match collapse {
        Collapse::Gap { bytes } => *bytes,
        Collapse::Law(law) => law.gap_bytes(),
        Collapse::Off | Collapse::Curve(_) | Collapse::Whole => 0,
    }
}

/// What a bundle costs as a read by itself, over what it costs within a longer one: its bytes and a read, which
/// is worth as many bytes as the gap.
fn alone_over_in_run(geometry: &Geometry, collapse: &Collapse) -> f32 {
    1.0 + gap_bytes(collapse) as f32 / geometry.bundle_stride.max(1) as f32
}

/// Marks those with no neighbour that a read would go on to.
fn mark_isolated(entries: &mut [u64], geometry: &Geometry, collapse: &Collapse) {
    let near_bytes = gap_bytes(collapse).saturating_add(u64::from(geometry.bundle_stride));
    let near = (near_bytes / u64::from(geometry.bundle_stride.max(1))).max(1);
    let slot = |entry: u64| entry >> 32;
    let mut last = None;
    for at in 0..entries.len() {
        let entry = entries[at];
        let after_last = last.is_some_and(|last| slot(entry) - last <= near);
        let before_next = entries.get(at + 1).is_some_and(|next| slot(*next) - slot(entry) <= near);
        if !after_last && !before_next {
            entries[at] |= ISOLATED;
        }
        last = Some(slot(entry));
    }
}

/// How many of `count` bundles, which take so many bytes, a staging area probably takes: a bit fewer than their
/// share, since a part of a set is less dense than the whole. All, where their bytes fit; at least one.
pub(super) fn fitting(count: usize, bytes: u64, staging_bytes: usize) -> usize {
    let staging = staging_bytes as u64;
    if bytes <= staging {
        return count;
    }
    let share = (staging - staging / 16) as f64 / bytes as f64;
    ((count as f64 * share) as usize).clamp(1, count.max(1))
}

/// How many to try after so many, which take so many bytes, did not fit; a half where that is not for their bytes.
pub(super) fn fewer(count: usize, bytes: u64, staging_bytes: usize) -> usize {
    if bytes <= staging_bytes as u64 {
        return (count / 2).max(1);
    }
    fitting(count, bytes, staging_bytes).min(count.saturating_sub(1)).max(1)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    const GEOMETRY: Geometry =
        Geometry { bundle_stride: 4096, block_bytes: 4096, slots: 64, read_bytes_max: 1 << 20 };

    fn entries(slots: &[u64]) -> Vec<u64> {
        (0..).zip(slots).map(|(position, slot)| slot << 32 | position).collect()
    }

    fn kept(slots: &[u64], most: usize, strengths: Option<&[f32]>, gap: u64) -> Vec<u64> {
        let mut entries = entries(slots);
        let collapse = Collapse::Gap { bytes: gap };
        let count = Cut { most, strengths }.keep(&mut entries, &GEOMETRY, &collapse);
        entries[..count].iter().map(|entry| entry & u64::from(u32::MAX)).collect()
    }

    #[test]
    fn without_strengths_the_front_is_kept_in_slot_order() {
        assert_eq!(kept(&[3, 9, 20], 5, None, 0), [0, 1, 2]);
        assert_eq!(kept(&[3, 9, 20], 2, None, 0), [0, 1]);
    }

    #[test]
    fn the_strongest_are_kept_and_isolated_ones_count_less() {
        let strengths = [1.0, 5.0, 2.0, 4.0];
        assert_eq!(kept(&[1, 20, 40, 60], 2, Some(&strengths), 0), [1, 3]);
        // 40 and 41 are one read; 20 alone costs as much as three bundles
        assert_eq!(kept(&[1, 20, 40, 41], 2, Some(&strengths), 8192), [2, 3]);
        // not a number is as good as nothing
        assert_eq!(kept(&[1, 20], 1, Some(&[0.5]), 0), [0]);
    }

    #[test]
    fn what_fits_is_about_its_share_and_never_nothing() {
        assert_eq!(fitting(100, 1000, 1000), 100);
        assert!((40..=50).contains(&fitting(100, 2000, 1000)));
        assert_eq!(fitting(100, u64::MAX, 1), 1);
        assert_eq!(fitting(1, 2000, 1000), 1);
    }
}
