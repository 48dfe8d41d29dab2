use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::law::Combine;

/// 100 bundles of 4 KiB in 60 reads, on the published phone: 578.4 us of operations and 192 of bytes.
const DEMAND: Demand =
    Demand { bundles: 100.0, reads: 60.0, bytes: 409_600.0, alone_bytes: 4096.0 };

fn phone() -> DeviceLaw {
    DeviceLaw::new(0.0, 9.64, 2034.0, Combine::Sum).unwrap()
}

fn perfect(idle_us: f64) -> Guess {
    Guess { recall: 1.0, reads_per_active: 1.0, idle_us, predict_us: 0.0, reads_max: 1000.0 }
}

#[test]
fn by_hand() {
    let law = phone();
    let without_us = DEMAND.time_us(&law);
    assert!((without_us - (578.4 + 192.04)).abs() < 0.1, "{without_us}");
    // all that is idle is saved, and no more than there is to save
    for idle_us in [0.0, 100.0, 770.0, 5000.0] {
        let found = forecast(&law, &DEMAND, &perfect(idle_us));
        let saved_us = idle_us.min(without_us);
        assert!((without_us - found.time_us - saved_us).abs() < 1e-9, "{idle_us}: {found:?}");
        assert!((found.used_us - saved_us).abs() < 1e-9);
    }
    // 90 of 110 in vain and 10 missed: 66 reads ahead, the 10 missed in 0.1 * (60 + 0.9 * 40) = 9.6
    let guess = Guess { recall: 0.9, reads_per_active: 1.1, ..perfect(0.0) };
    let found = forecast(&law, &DEMAND, &guess);
    let by_hand_us = law.work_mean_us(66.0, 1.1 * 409_600.0) + law.work_mean_us(9.6, 40_960.0);
    assert!((found.time_us - by_hand_us).abs() < 1e-9, "{found:?} {by_hand_us}");
    // a queue that takes a third of these reads: two thirds of the layer are read as without
    let found = forecast(&law, &DEMAND, &Guess { reads_max: 22.0, ..guess });
    let rest_us = law.work_mean_us(3.2 + 40.0, (0.1 + 2.0) / 3.0 * 409_600.0);
    let by_hand_us = law.work_mean_us(22.0, 1.1 / 3.0 * 409_600.0) + rest_us;
    assert!((found.time_us - by_hand_us).abs() < 1e-9, "{found:?} {by_hand_us}");
}

#[test]
fn it_pays_where_the_device_would_idle() {
    let law = phone();
    let guess = |idle_us| Guess { recall: 0.92, reads_per_active: 1.07, ..perfect(idle_us) };
    assert_eq!(choose(&law, &DEMAND, &[]), None);
    assert_eq!(choose(&law, &DEMAND, &[guess(0.0)]), None);
    assert!(choose(&law, &DEMAND, &[guess(300.0)]).is_some());
    // what takes longer to predict than it saves is left alone
    let slow = Guess { predict_us: 300.0, ..guess(300.0) };
    assert_eq!(choose(&law, &DEMAND, &[slow]), None);
    // nothing is read where nothing is missing
    assert_eq!(choose(&law, &Demand::default(), &[guess(300.0)]), None);
    // the more there is time for, the more recall is worth
    let of =
        |recall, reads_per_active, idle_us| Guess { recall, reads_per_active, ..perfect(idle_us) };
    let guesses = |idle_us| [of(0.9, 0.9, idle_us), of(0.99, 1.3, idle_us)];
    let best = |idle_us| choose(&law, &DEMAND, &guesses(idle_us)).unwrap().guess;
    assert_eq!((best(300.0), best(2000.0)), (0, 1));
    assert_eq!(choose(&law, &DEMAND, &[Guess { idle_us: f64::NAN, ..guess(0.0) }]), None);
}

proptest! {
    /// Whatever is known of device, layer and predictions, what is chosen is expected to take less than reading
    /// nothing ahead, and no other guess less than it.
    #[test]
    fn the_choice_never_predicts_worse_than_not_reading_ahead(
        (t0_us, a_us, b_mib_s) in (0.0..200.0, 0.0..200.0, 10.0..8000.0),
        sum in any::<bool>(),
        (bundles, joined, overhead) in (0.0..5000.0, 0.0..1.0, 1.0..4.0),
        guesses in prop::collection::vec(
            (0.0..1.0, 0.5..4.0, 0.0..20_000.0, 0.0..2000.0, 0.0..300.0), 0..20),
    ) {
        let combine = if sum { Combine::Sum } else { Combine::Max };
        let law = DeviceLaw::new(t0_us, a_us, b_mib_s, combine).unwrap();
        let reads = bundles * (1.0 - joined);
        let demand =
            Demand { bundles, reads, bytes: bundles * 4096.0 * overhead, alone_bytes: 8192.0 };
        let guesses: Vec<Guess> = guesses
            .into_iter()
            .map(|(recall, names, idle_us, predict_us, reads_max)| {
                let reads_per_active = recall * names;
                Guess { recall, reads_per_active, idle_us, predict_us, reads_max }
            })
            .collect();
        let without_us = demand.time_us(&law);
        let chosen = choose(&law, &demand, &guesses);
        if let Some(chosen) = chosen {
            prop_assert!(chosen.time_us < without_us);
            prop_assert_eq!(
                Forecast { guess: chosen.guess, ..forecast(&law, &demand, &guesses[chosen.guess]) },
                chosen
            );
        }
        for guess in &guesses {
            let found = forecast(&law, &demand, guess);
            prop_assert!(found.time_us >= 0.0 && found.used_us <= guess.idle_us);
            let best_us = chosen.map_or(without_us, |chosen| chosen.time_us);
            prop_assert!(found.time_us >= best_us || found.time_us >= without_us * 0.97);
            // more time to hide reads in never hurts
            let more = forecast(&law, &demand, &Guess { idle_us: guess.idle_us + 50.0, ..*guess });
            prop_assert!(more.time_us <= found.time_us);
        }
    }
}
