use super::*;
use crate::{Linking, Order, link_layer};

const NEURONS: usize = 60;

/// Two topics of 20 neurons each that share 6 others, and every one of them some noise.
fn topics() -> LayerActivity {
    let mut bits = Vec::new();
    for token in 0..200_u32 {
        let mut row = [0_u8; NEURONS.div_ceil(8)];
        let topic = token % 2;
        for id in 0..NEURONS as u32 {
            let own = (topic * 20..topic * 20 + 20).contains(&id);
            let shared = (40..46).contains(&id);
            let draw = token.wrapping_mul(2_654_435_761).wrapping_add(id.wrapping_mul(40_503)) >> 7;
            if (own && draw % 8 != 0) || shared || draw % 97 == 0 {
                row[id as usize / 8] |= 1 << (id % 8);
            }
        }
        bits.extend(row);
    }
    LayerActivity::from_bits(NEURONS, &[(&bits, 200)]).unwrap()
}

fn us(activity: &LayerActivity, order: &[u32]) -> f64 {
    let (objective, slots) = (Objective::phone().unwrap(), Slots::of_order(order, NEURONS));
    let mut pricer = Pricer::new(&objective, order.len());
    let bits = activity.token_bits();
    let rows = bits.chunks_exact(NEURONS.div_ceil(8));
    let ids = |row| active_neurons(row).map(|id| id as u32).collect::<Vec<u32>>();
    rows.map(|row| pricer.batch(&ids(row), &slots).time_us).sum()
}

#[test]
fn what_two_topics_share_is_copied_within_the_budget_and_saves_time() {
    let activity = topics();
    let objective = Objective::phone().unwrap();
    let of = |order| Linking { order, objective, pin: 0.0 }.link_layer(0, &activity, &[]).unwrap();
    let refined = of(Order::Refined).neuron_of_slot;
    let refined_us = us(&activity, &refined);
    for percent in [105, 150] {
        let links = of(Order::Copies { percent });
        links.check(200).unwrap();
        let most = NEURONS * percent as usize / 100;
        assert!(links.slots() > NEURONS && links.slots() <= most, "{} of {most}", links.slots());
        let copies_us = us(&activity, &links.neuron_of_slot);
        assert!(copies_us < refined_us, "{copies_us} us, {refined_us} without copies");
    }
}

/// Where all fits one read there is nothing to copy.
#[test]
fn nothing_is_copied_in_vain() {
    let bits = [0b1111_u8; 50];
    let activity = LayerActivity::from_bits(4, &[(&bits, 50)]).unwrap();
    let links = link_layer(Order::Copies { percent: 200 }, 0, &activity).unwrap();
    assert_eq!(links.slots(), 4);
}

#[test]
fn names_tell_the_flash() {
    for (name, percent) in [("copies:1.3", 130), ("copies:1.15", 115), ("copies:8", 800)] {
        assert_eq!(name.parse(), Ok(Order::Copies { percent }));
        assert_eq!(Order::Copies { percent }.to_string(), name);
    }
    for name in
        ["copies", "copies:", "copies:1", "copies:0.9", "copies:8.1", "copies:NaN", "copies:-2"]
    {
        assert!(name.parse::<Order>().is_err(), "{name}");
    }
}
