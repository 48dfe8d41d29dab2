//! From a predictor's scores to the neurons that it names.

/// Writes to `ids`, ascending, the places of `scores` that are above `threshold` once the f16 of the same place
/// in `offsets` (two bytes each, little-endian) is added; returns how many. What has no offset or no room is left
/// out. A NaN is not above anything.
pub fn select(scores: &[f32], offsets: &[u8], threshold: f32, ids: &mut [u32]) -> usize {
    let mut count = 0;
    for ((id, score), offset) in (0..).zip(scores).zip(offsets.as_chunks::<2>().0) {
        let Some(place) = ids.get_mut(count) else { break };
        // Written always and kept where it counts: which neurons are active cannot be guessed by the CPU.
        *place = id;
        count += usize::from(score + f16_value(u16::from_le_bytes(*offset)) > threshold);
    }
    count
}

/// Puts estimates of the strengths of the neurons `named` (ascending), in their order, at the front of their `scores`:
/// the score with the f16 of the same place in `offsets` added, times that in `scales` (two bytes each, little-endian).
/// What is negative, no number, or of a neuron without a score, an offset or a scale, is 0.
pub fn estimate_strengths(scores: &mut [f32], named: &[u32], offsets: &[u8], scales: &[u8]) {
    let value = |list: &[u8], neuron: usize| {
        list.as_chunks::<2>().0.get(neuron).map(|bytes| f16_value(u16::from_le_bytes(*bytes)))
    };
    for (place, neuron) in named.iter().map(|id| *id as usize).enumerate() {
        // Ids ascend: no place is behind a score that is still to be read.
        let estimate = || {
            let score = scores.get(neuron)? + value(offsets, neuron)?;
            Some(score.max(0.0) * value(scales, neuron)?)
        };
        let strength = estimate().unwrap_or(0.0).max(0.0);
        if let Some(place) = scores.get_mut(place) {
            *place = strength;
        }
    }
}

/// The value of an f16, by arithmetic that every machine has many of at once.
fn f16_value(bits: u16) -> f32 {
    // Exponent and fraction where an f32 has them are too small by 2^112; subnormal numbers come out right as well.
    const SCALE: f32 = f32::from_bits((127 + 112) << 23);
    let shifted = u32::from(bits & 0x7fff) << 13;
    let finite = (f32::from_bits(shifted) * SCALE).to_bits();
    let magnitude = if bits & 0x7c00 == 0x7c00 { shifted | 0x7f80_0000 } else { finite };
    f32::from_bits(magnitude | u32::from(bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use half::f16;

    use super::*;

    #[test]
    fn every_f16_has_its_value() {
        for bits in 0..=u16::MAX {
            let (found, expected) = (f16_value(bits), f16::from_bits(bits).to_f32());
            let same = found.to_bits() == expected.to_bits();
            assert!(same || found.is_nan() && expected.is_nan(), "{bits:#06x}");
        }
    }

    #[test]
    fn strengths_stand_in_the_order_of_the_names() {
        let f16s = |values: &[f32]| -> Vec<u8> {
            values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
        };
        let offsets = f16s(&[0.5, 0.0, -1.0, 0.25, 0.0]);
        let scales = f16s(&[2.0, 1.0, 4.0, f32::NAN, -1.0]);
        let mut scores = [1.0, 9.0, 0.5, 3.0, 2.0, 7.0];
        // 1.5 times 2; below zero; times no number; negative; without an offset
        estimate_strengths(&mut scores, &[0, 2, 3, 4, 5], &offsets, &scales);
        assert_eq!(scores, [3.0, 0.0, 0.0, 0.0, 0.0, 7.0]);
        let mut scores = [1.0, 9.0, 5.0];
        estimate_strengths(&mut scores, &[1, 2], &offsets, &scales);
        assert_eq!(scores, [9.0, 16.0, 5.0]);
    }

    #[test]
    fn what_is_above_is_named() {
        let scores = [1.0, f32::NAN, 0.25, 0.5, f32::INFINITY, -8.0, 3.0];
        let offsets = [0.0, 0.0, 0.5, 0.0, f32::NAN, f32::INFINITY, -2.5];
        let offsets: Vec<u8> =
            offsets.iter().flat_map(|offset| f16::from_f32(*offset).to_le_bytes()).collect();
        let mut ids = [77; 8];
        assert_eq!(select(&scores, &offsets, 0.5, &mut ids), 3);
        assert_eq!(ids[..3], [0, 2, 5]);
        // of what is too short, as much as there is
        assert_eq!(select(&scores, &offsets, 0.5, &mut ids[..2]), 2);
        assert_eq!(select(&scores, &offsets[..3], 0.5, &mut ids), 1);
        assert_eq!(select(&[], &offsets, 0.5, &mut ids), 0);
        assert_eq!(select(&scores, &offsets, f32::MAX, &mut ids), 1);
    }
}
