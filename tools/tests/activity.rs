//! Thresholds for an activation that is zero nowhere: what is learned, traced, packed and computed of a tiny SiLU model is
//! what the same computed here comes to.

mod common;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{demo_model, fails, json, ok, shared_folder};
use lnp_link::trace::{TraceData, TraceReader, active, write_trace};
use lnp_model::{DenseFfn, FeedForward, Model, forward_windows};
use serde_json::Value;

const WINDOW: usize = 32;
const TOKENS: usize = 48 * WINDOW;
const SHARE: f64 = 0.4;

/// A model of family `llama` with SiLU, made for the comparison with transformers.
fn model_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/smollm2")
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// Tokens without meaning, as a trace has them, and thresholds learned from them by either measure.
struct Made {
    folder: PathBuf,
    told: [Value; 2],
}

impl Made {
    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = shared_folder("activity");
        let config = Model::load(&model_dir()).unwrap().config().clone();
        let ids: Vec<u32> =
            (0..TOKENS).map(|at| (at * at * 31 + at * 7) as u32 % config.vocab as u32).collect();
        let row = config.neurons.div_ceil(8);
        let trace = TraceData {
            model: "smollm2".into(),
            corpus: "made up".into(),
            split: "profile".into(),
            active: "nothing".into(),
            neurons: config.neurons,
            tokens: TOKENS,
            window: WINDOW,
            token_ids: Some(ids),
            inputs: None,
            predicted: None,
            synthetic: None,
            layers: vec![vec![0; TOKENS * row]; config.layers],
        };
        let path = folder.join("ids.trace");
        write_trace(&path, &trace).unwrap();
        let (dir, path) = (model_dir(), path.to_str().unwrap().to_owned());
        let learn = |measure: &str| {
            let out = folder.join(measure);
            json(&[
                "predict",
                "--model",
                dir.to_str().unwrap(),
                "--activity",
                &SHARE.to_string(),
                "--measure",
                measure,
                "--traces",
                &path,
                "-o",
                out.to_str().unwrap(),
            ])
        };
        let told = ["magnitude", "strength"].map(learn);
        Made { folder, told }
    })
}

/// Notes which activations are above a threshold, with or without the norms of the down columns.
struct Oracle {
    dense: DenseFfn,
    thresholds: Vec<f32>,
    norms: Option<Vec<Vec<f32>>>,
    neurons: usize,
    /// By layer, the ids of each token.
    found: Vec<Vec<Vec<u32>>>,
}

impl FeedForward for Oracle {
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> anyhow::Result<()> {
        let Self { dense, thresholds, norms, neurons, found } = self;
        let (threshold, norms) = (thresholds[layer], norms.as_ref().map(|norms| &norms[layer]));
        dense.forward_chosen(layer, x, y, &mut |activations| {
            for token in activations.chunks_mut(*neurons) {
                let scale = |neuron: usize| norms.map_or(1.0, |norms| norms[neuron]);
                let above = |(neuron, value): (usize, &f32)| {
                    (value.abs() * scale(neuron) > threshold).then_some(neuron as u32)
                };
                let ids: Vec<u32> = token.iter().enumerate().filter_map(above).collect();
                for (neuron, value) in token.iter_mut().enumerate() {
                    if ids.binary_search(&(neuron as u32)).is_err() {
                        *value = 0.0;
                    }
                }
                found[layer].push(ids);
            }
        })
    }
}

fn norms(model: &Model, layer: usize) -> Vec<f32> {
    let config = model.config();
    let down = model.checkpoint().read_f32(&config.ffn_tensors(layer).down).unwrap();
    let column = |neuron: usize| down.iter().skip(neuron).step_by(config.neurons);
    let norm = |neuron| column(neuron).map(|weight| f64::from(*weight).powi(2)).sum::<f64>().sqrt();
    (0..config.neurons).map(|neuron| norm(neuron) as f32).collect()
}

#[test]
fn what_is_traced_is_what_is_above() {
    let (made, model) = (made(), Model::load(&model_dir()).unwrap());
    let config = model.config();
    for (measure, told) in ["magnitude", "strength"].iter().zip(&made.told) {
        // learned from five windows of six, so not exact on all of them
        assert!((number(&told["held_out"], "active_share") - SHARE).abs() < 0.05, "{told}");
        let (ids, out) = (made.path("ids.trace"), made.path(&format!("{measure}.trace")));
        let dir = model_dir();
        let thresholds = made.path(measure);
        let args = ["--token-ids", &ids, "--activity", &thresholds, "-o", &out];
        ok(&[&["trace", "--model", dir.to_str().unwrap()], &args[..]].concat());
        let trace = TraceReader::open(Path::new(&out)).unwrap();
        let by_layer = |layer| norms(&model, layer);
        let mut oracle = Oracle {
            dense: DenseFfn::load(model.checkpoint(), config).unwrap(),
            thresholds: told["thresholds"]
                .as_array()
                .unwrap()
                .iter()
                .map(|t| t.as_f64().unwrap() as f32)
                .collect(),
            norms: (*measure == "strength").then(|| (0..config.layers).map(by_layer).collect()),
            neurons: config.neurons,
            found: vec![Vec::new(); config.layers],
        };
        let tokens = trace.token_ids().unwrap().unwrap();
        forward_windows(&model, &mut oracle, &tokens, WINDOW, &mut |_| ()).unwrap();
        let (mut differ, mut all) = (0, 0);
        for (layer, found) in oracle.found.iter().enumerate() {
            let bits = trace.layer_bits(layer).unwrap();
            for (token, found) in found.iter().enumerate() {
                let traced: Vec<u32> = active(&bits, config.neurons, token).collect();
                all += found.len();
                differ += found.iter().filter(|id| traced.binary_search(id).is_err()).count();
                differ += traced.iter().filter(|id| found.binary_search(id).is_err()).count();
            }
        }
        // at a threshold but for rounding
        assert!(differ * 1000 <= all, "{measure}: {differ} of {all}");
        let share = all as f64 / (TOKENS * config.layers * config.neurons) as f64;
        assert!((share - SHARE).abs() < 0.05, "{measure}: {share}");
    }
}

#[test]
fn a_pack_tells_thresholds_and_is_read_by_them() {
    let made = made();
    let dir = model_dir();
    let dir = dir.to_str().unwrap();
    for measure in ["magnitude", "strength"] {
        let (thresholds, pack) = (made.path(measure), made.path(&format!("{measure}.lnp")));
        let how = ["--dtype", "f32", "--activity", &thresholds, "-o", &pack];
        ok(&[&["pack", "--model", dir], &how[..]].concat());
        ok(&["verify", &pack, "--model", dir]);
        let told = json(&["inspect", &pack]);
        assert_eq!(told["provenance"]["activity.measure"], measure, "{told}");
        let ids = made.path("ids.trace");
        let told = json(&["perplexity", &pack, "--model", dir, "--tokens", &ids, "--limit", "256"]);
        // the model as it is, by thresholds in memory, by the pack
        let rows = told["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 3);
        let [whole, memory, packed] = [0, 1, 2].map(|row| number(&rows[row], "loss"));
        assert!((memory - packed).abs() < 1e-3, "{memory} {packed}");
        assert!((memory - whole).abs() > 1e-4, "{memory} {whole}");
    }
}

#[test]
fn what_cannot_be_is_one_line() {
    let made = made();
    let dir = model_dir();
    let (dir, ids, out) = (dir.to_str().unwrap(), made.path("ids.trace"), made.path("never"));
    let told = fails(&["trace", "--model", dir, "--token-ids", &ids, "-o", &out]);
    assert!(told.contains("lnp predict --activity"), "{told}");
    let relu = demo_model();
    let (relu, thresholds) = (relu.to_str().unwrap(), made.path("magnitude"));
    let told = fails(&["pack", "--model", relu, "--activity", &thresholds, "-o", &out]);
    assert!(told.contains("zeros of its own"), "{told}");
    let told = fails(&["pack", "--model", dir, "--activity", &ids, "-o", &out]);
    assert!(told.contains("not usable thresholds"), "{told}");
    // of other weights
    let other = made.path("other");
    let text = std::fs::read_to_string(&thresholds).unwrap();
    let at = text.find("\"sha256\": \"").unwrap() + 11;
    let damaged = [&text[..at], "00", &text[at + 2..]].concat();
    std::fs::write(&other, damaged).unwrap();
    let told = fails(&["pack", "--model", dir, "--activity", &other, "-o", &out]);
    assert!(told.contains("other weights"), "{told}");
    let few = ["--traces", &ids, "--rows", "32", "--activity", "0.5", "-o", &out];
    let told = fails(&[&["predict", "--model", dir], &few[..]].concat());
    assert!(told.contains("too little text"), "{told}");
    assert!(!Path::new(&out).exists());
}
