//! Clusters that were planted are found, and the price says so.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::price::price_layer;
use crate::{LayerLinks, Linking, Order};

const NEURONS: usize = 96;
const GROUP: usize = 8;
const TOKENS: usize = 600;

/// Tokens of two topics, in stretches of 50. Each activates a group of 8 neurons: the first topic
/// those that lie together, the second those that lie NEURONS / GROUP apart.
fn two_topics() -> (Vec<u8>, LayerActivity) {
    let groups = NEURONS / GROUP;
    let mut bits = Vec::new();
    for token in 0..TOKENS {
        let (topic, group) = (token / 50 % 2, token * 7 % groups);
        let mut row = [0u8; NEURONS / 8];
        for k in 0..GROUP {
            let neuron = if topic == 0 { group * GROUP + k } else { k * groups + group };
            row[neuron / 8] |= 1 << (neuron % 8);
        }
        bits.extend(row);
    }
    let activity = LayerActivity::from_bits(NEURONS, &[(&bits, TOKENS)]).unwrap();
    (bits, activity)
}

fn link(order: Order, activity: &LayerActivity) -> LayerLinks {
    let linking = Linking { order, objective: Objective::phone().unwrap(), pin: 0.0 };
    linking.link_layer(0, activity, &[]).unwrap()
}

#[test]
fn each_topic_gets_its_placement() {
    let (bits, activity) = two_topics();
    let price = |links: &LayerLinks| {
        let rows = bits.chunks_exact(NEURONS / 8);
        let (slots, none) = (links.slots_of_neurons().unwrap(), [false; NEURONS]);
        price_layer(&Objective::phone().unwrap(), rows, &slots, &none).unwrap()
    };
    let single = price(&link(Order::Refined, &activity));
    let links = link(Order::Replicas { placements: 2 }, &activity);
    assert_eq!(links.further.len(), 1);
    let both = price(&links);
    // a token of either topic is one read of its eight bundles and nothing else
    let (reads, bytes) = (TOKENS as u64, TOKENS as u64 * 8 * 4096);
    assert_eq!((both.reads, both.bytes), (reads, bytes));
    assert!(single.time_us > 1.3 * both.time_us, "{single:?} {both:?}");
}

#[test]
fn more_placements_than_topics_do_no_harm() {
    let (_, activity) = two_topics();
    let links = link(Order::Replicas { placements: 5 }, &activity);
    assert_eq!(links.further.len(), 4);
    links.check(activity.tokens() as u64).unwrap();
}
