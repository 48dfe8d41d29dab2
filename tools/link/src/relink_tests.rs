//! What a pack does not know yet is learnt, what it knows stays.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::*;
use crate::trace::{TraceData, write_trace};

const NEURONS: usize = 96;
const GROUP: usize = 8;

/// Tokens of one topic: each activates a group of 8 neurons, which lie together, or else
/// NEURONS / GROUP apart.
fn topic(tokens: usize, together: bool) -> Vec<u8> {
    let groups = NEURONS / GROUP;
    let mut bits = Vec::new();
    for token in 0..tokens {
        let group = token * 7 % groups;
        let mut row = [0u8; NEURONS / 8];
        for k in 0..GROUP {
            let neuron = if together { group * GROUP + k } else { k * groups + group };
            row[neuron / 8] |= 1 << (neuron % 8);
        }
        bits.extend(row);
    }
    bits
}

fn seen(folder: &tempfile::TempDir, tokens: usize, together: bool) -> Profile {
    seen_as(folder, tokens, topic(tokens, together))
}

fn seen_as(folder: &tempfile::TempDir, tokens: usize, bits: Vec<u8>) -> Profile {
    let path: PathBuf = folder.path().join("seen.trace");
    let data = TraceData {
        model: "m".into(),
        corpus: "seen".into(),
        split: "seen".into(),
        active: "by hand".into(),
        neurons: NEURONS,
        tokens,
        window: tokens,
        token_ids: None,
        inputs: None,
        predicted: None,
        synthetic: None,
        layers: vec![bits; 2],
    };
    write_trace(&path, &data).unwrap();
    Profile::open(&[path]).unwrap()
}

fn held() -> Vec<HeldLayer> {
    let layer = HeldLayer {
        neuron_of_slot: (0..NEURONS as u32).collect(),
        active_count: vec![2000; NEURONS],
        profile_tokens: 8000,
    };
    vec![layer; 2]
}

fn relinking(pin: f64) -> Relinking {
    Relinking { objective: Objective::phone().unwrap(), pin, gain_min: 0.01 }
}

#[test]
fn another_text_is_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let seen = seen(&folder, 240, false);
    let relinked = relinking(0.0).relink(&held(), &seen, None, || ()).unwrap();
    assert_eq!((relinked.moved(), relinked.profile_tokens), (2, 240 + PRIOR_TOKENS[0]));
    // Each token is now one read of eight bundles, and was eight reads.
    let cost = relinked.cost();
    let law = Objective::phone().unwrap().law;
    let of = |reads| 2.0 * law.time_us(reads, 8 * 4096);
    assert!((cost.after_us - of(1)).abs() < 1e-6, "{cost:?}");
    assert!((cost.before_us - of(8)).abs() < 1e-6, "{cost:?}");
    // A quarter of 512 tokens, and a twelfth of 240.
    assert_eq!(relinked.layers[0].active_count, [128 + 20; NEURONS]);
    let (order, link_begin) = relinked.layers[0].order.clone().unwrap();
    let further = Vec::new();
    let active_count = relinked.layers[0].active_count.clone();
    let links = crate::LayerLinks { neuron_of_slot: order, link_begin, active_count, further };
    links.check(relinked.profile_tokens).unwrap();
}

#[test]
fn what_fits_already_stays() {
    let folder = tempfile::tempdir().unwrap();
    let seen = seen(&folder, 240, true);
    let relinked = relinking(0.0).relink(&held(), &seen, None, || ()).unwrap();
    assert_eq!(relinked.moved(), 0);
    let cost = relinked.cost();
    assert!((cost.before_us - cost.after_us).abs() < 1e-9, "{cost:?}");
    // Where a layer has to gain more than there is to be had, it stays too.
    let demanding = Relinking { gain_min: 1.0, ..relinking(0.0) };
    let other = self::seen(&folder, 240, false);
    assert_eq!(demanding.relink(&held(), &other, None, || ()).unwrap().moved(), 0);
}

#[test]
fn what_is_pinned_stands_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let seen = seen(&folder, 240, false);
    let mut held = held();
    for layer in &mut held {
        layer.active_count[..10].fill(8000);
    }
    let relinked = relinking(0.1).relink(&held, &seen, None, || ()).unwrap();
    let (order, link_begin) = relinked.layers[1].order.clone().unwrap();
    let mut pinned = order[NEURONS - 9..].to_vec();
    pinned.sort_unstable();
    assert!(pinned.iter().all(|id| *id < 10), "{pinned:?}");
    // The others are one link, what is pinned a link each.
    assert_eq!(link_begin[..2], [0, 87]);
    assert_eq!(link_begin.len(), 11);
}

#[test]
fn what_cannot_be_learnt_from_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let few = seen(&folder, 63, false);
    let error = relinking(0.0).relink(&held(), &few, None, || ()).unwrap_err().to_string();
    assert!(error.contains("63 tokens were seen: at least 64"), "{error}");
    let error = relinking(0.0).relink(&held()[..1], &few, None, || ()).unwrap_err().to_string();
    assert!(error.contains("2 layers of 96 neurons, the pack 1 of 96"), "{error}");
}

#[test]
fn the_packs_counts_weigh_what_serves_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let mut held = held();
    for layer in &mut held {
        layer.active_count[..8].fill(8000);
    }
    // Always active: the first eight, as the pack says, or eight that it does not say.
    for (byte, prior) in [(0, 512), (5, 128)] {
        let mut bits = topic(240, false);
        bits.chunks_exact_mut(NEURONS / 8).for_each(|row| row[byte] = 0xff);
        let seen = seen_as(&folder, 240, bits);
        let relinked = relinking(0.08).relink(&held, &seen, None, || ()).unwrap();
        assert_eq!((relinked.prior_tokens, relinked.profile_tokens), (prior, 240 + prior));
        let cost = relinked.cost();
        assert_eq!(cost.counted_us < cost.before_us, byte == 5, "{cost:?}");
    }
}
