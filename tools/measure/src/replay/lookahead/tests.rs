use lnp_engine::{Combine, DeviceLaw};
use lnp_link::predicted::{PredictedLayer, PredictedSets};
use lnp_link::trace::{TraceData, TraceReader, write_trace};
use lnp_pack::Recipe;
use lnp_pack::recipe::ModelSize;

use super::*;
use crate::replay::ActiveSets;
use crate::replay::options::{Caches, Rules};

const LAYERS: usize = 4;
const NEURONS: usize = 512;
const TOKENS: usize = 16;

/// Every eighth neuron is active; the prediction misses every tenth of these and names some others.
fn trace(folder: &std::path::Path, in_vain: usize) -> TraceReader {
    let rows = |named: bool| -> Vec<u8> {
        let mut bits = vec![0u8; TOKENS * NEURONS / 8];
        for token in 0..TOKENS {
            for neuron in 0..NEURONS {
                let is_active = (neuron * 7 + token * 3) % 8 == 0;
                let missed = named && is_active && neuron % 10 == 3;
                let vain = named && !is_active && in_vain > 0 && neuron % in_vain == 0;
                if (is_active && !missed) || vain {
                    bits[token * NEURONS / 8 + neuron / 8] |= 1 << (neuron % 8);
                }
            }
        }
        bits
    };
    let of = |layer, horizon| PredictedLayer { layer, horizon, bits: rows(horizon > 0) };
    let places = [(0, 0), (1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (3, 1), (2, 2), (3, 2)];
    let data = TraceData {
        model: "m".into(),
        corpus: "c".into(),
        split: "test".into(),
        active: "relu".into(),
        neurons: NEURONS,
        tokens: TOKENS,
        window: TOKENS,
        token_ids: None,
        inputs: None,
        synthetic: None,
        predicted: Some(PredictedSets {
            predictors: "00".repeat(32),
            quality: 0.9,
            layers: places.map(|(layer, horizon)| of(layer, horizon)).into(),
        }),
        layers: vec![rows(false); LAYERS],
    };
    let path = folder.join("trace");
    write_trace(&path, &data).unwrap();
    TraceReader::open(&path).unwrap()
}

fn rows(in_vain: usize, compute_us: f64) -> Vec<AheadRow> {
    let folder = tempfile::tempdir().unwrap();
    let sets = AheadSets::of_trace(&trace(folder.path(), in_vain), usize::MAX).unwrap();
    let (layers, neurons) = (LAYERS as u32, NEURONS as u32);
    let size = ModelSize { layers, neurons, hidden: 32, parts: 2 };
    let recipe = Recipe::for_placeholders(None, size, 4096, 1).unwrap();
    let layout = recipe.layout().unwrap();
    let index = PackIndex::in_memory("none".into(), layout.index, layout.bytes.file_bytes);
    let options = ReplayOptions {
        law: DeviceLaw::new(0.0, 9.64, 2034.0, Combine::Sum).unwrap(),
        caches: Caches::default_of(0.0),
        rules: Rules::default(),
        queue_depth: 32,
        repeats: 1,
        turn: None,
        time_max: None,
        timeline_tokens: None,
    };
    let modes = [Mode::Layers(0), Mode::Layers(1), Mode::Layers(2), Mode::Auto];
    lookahead(&[index], &sets, &Target::Simulated, &options, (&modes, compute_us), &mut |_| ())
        .unwrap()
        .0
}

/// What is computed between layers is time to read in: up to the time of what the queue takes.
#[test]
fn reading_ahead_hides_reads_behind_computing() {
    let rows = rows(0, 200.0);
    let [none, one, two, auto] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(none.layers, [0, 0, 0, 0]);
    assert_eq!(one.layers, [0, 1, 1, 1]);
    assert_eq!(two.layers, [0, 1, 2, 2]);
    assert_eq!((none.ahead_reads_per_token, none.of_none), (0.0, 1.0));
    for row in [one, two, auto] {
        assert!(row.ahead_reads_per_token > 0.0 && row.ahead_bundles_used_per_token > 0.0);
        assert!(row.of_none < 0.95, "{row:?}");
        assert_eq!(row.active_bundles_per_token, none.active_bundles_per_token);
    }
    // nothing is needed that is not read
    let useful = none.active_bundles_per_token * 4096.0;
    assert!(rows.iter().all(|row| row.bytes_read_per_token >= useful));
    // three layers of four, 200 us each, are the most that there is to gain
    let gain = none.wall_us_per_token.mean - one.wall_us_per_token.mean;
    assert!(gain > 300.0 && gain < 600.0 + 1e-6, "{gain}");
}

/// Where nothing is computed meanwhile, or predictions are poor, auto leaves it alone and is never slower.
#[test]
fn auto_is_never_slower() {
    for in_vain in [0, 30, 3] {
        for compute_us in [0.0, 20.0, 100.0, 400.0, 3000.0] {
            let rows = rows(in_vain, compute_us);
            let auto = &rows[3];
            assert!(auto.of_none <= 1.0, "{in_vain} {compute_us}: {auto:?}");
            if compute_us == 0.0 {
                assert_eq!(auto.layers, [0; LAYERS], "{in_vain}: {auto:?}");
            }
        }
    }
}

#[test]
fn a_trace_without_predictions_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bare");
    let layers = vec![vec![0u8; 2]; 2];
    let data = TraceData {
        model: "m".into(),
        corpus: "c".into(),
        split: "test".into(),
        active: "relu".into(),
        neurons: 8,
        tokens: 2,
        window: 2,
        token_ids: None,
        inputs: None,
        predicted: None,
        synthetic: None,
        layers,
    };
    write_trace(&path, &data).unwrap();
    let bare = TraceReader::open(&path).unwrap();
    assert!(AheadSets::of_trace(&bare, 9).is_err());
    assert!(ActiveSets::of_trace(&bare, 9).unwrap().with_predicted(&bare).is_err());
}
