use lnp_model::Source;
use safetensors::Dtype;

use super::*;
use crate::file::Predictors;
use crate::points::Point;
use crate::predictor::Predictor;

use crate::written::{f32_bytes, state_dict};
use lnp_common::tensor_file::{Elements, TensorData, write_tensors};

const HIDDEN: usize = 32;
const NEURONS: usize = 64;

fn config() -> ModelConfig {
    let text = r#"{"model_type": "opt", "num_hidden_layers": 2, "ffn_dim": 64, "hidden_size": 32,
        "num_attention_heads": 4, "vocab_size": 64, "max_position_embeddings": 32,
        "activation_function": "relu", "word_embed_proj_dim": 32, "do_layer_norm_before": true}"#;
    ModelConfig::from_json(text).unwrap()
}

fn values(seed: u64, count: usize) -> Vec<f32> {
    let mix = |at: u64| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 24) as f32;
    (0..count as u64).map(|at| mix(at * 7 + seed * 1013 + 1) - 0.5).collect()
}

type Tensors = Vec<(&'static str, Vec<u32>, Vec<f32>)>;

fn tensors(rank: usize, biases: bool) -> Tensors {
    let shape = |rows: usize, columns: usize| vec![rows as u32, columns as u32];
    let mut out = vec![
        (FC1, shape(rank, HIDDEN), values(1, rank * HIDDEN)),
        (FC2, shape(NEURONS, rank), values(2, NEURONS * rank)),
    ];
    if biases {
        out.push((FC1_BIAS, vec![rank as u32], values(3, rank)));
        out.push((FC2_BIAS, vec![NEURONS as u32], values(4, NEURONS)));
    }
    out
}

fn torch(tensors: &Tensors) -> Vec<u8> {
    let all: Vec<_> =
        tensors.iter().map(|(name, shape, data)| (*name, &**shape, &**data)).collect();
    state_dict(&all)
}

fn safetensors(tensors: &Tensors, prefixes: &[&str]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, _, data)| f32_bytes(data)).collect();
    let mut all: Vec<TensorData<'_>> = Vec::new();
    for prefix in prefixes {
        all.extend(tensors.iter().zip(&bytes).map(|((name, shape, _), data)| TensorData {
            name: format!("{prefix}{name}"),
            dtype: Dtype::F32,
            shape: shape.iter().map(|one| *one as usize).collect(),
            data: Elements::Bytes(data),
        }));
    }
    let mut out = Vec::new();
    write_tensors(&mut out, &Default::default(), &all).unwrap();
    out
}

/// Scores as they are written in books: one token.
fn naive(tensors: &Tensors, x: &[f32], relu: bool) -> Vec<f64> {
    let of = |name: &str| tensors.iter().find(|one| one.0 == name).map(|one| one.2.clone());
    let dot =
        |row: &[f32], x: &[f64]| -> f64 { row.iter().zip(x).map(|(a, b)| f64::from(*a) * b).sum() };
    let x: Vec<f64> = x.iter().map(|value| f64::from(*value)).collect();
    let mut inner: Vec<f64> = of(FC1).unwrap().chunks(HIDDEN).map(|row| dot(row, &x)).collect();
    for (value, bias) in inner.iter_mut().zip(of(FC1_BIAS).iter().flatten()) {
        *value += f64::from(*bias);
    }
    if relu {
        inner.iter_mut().for_each(|value| *value = value.max(0.0));
    }
    let mut out: Vec<f64> =
        of(FC2).unwrap().chunks(inner.len()).map(|row| dot(row, &inner)).collect();
    for (value, bias) in out.iter_mut().zip(of(FC2_BIAS).iter().flatten()) {
        *value += f64::from(*bias);
    }
    out
}

fn exact() -> Point {
    Point { quality: 0.99, threshold: 0.0, recall: 1.0, reads_per_active: 1.0, share_kept: 1.0 }
}

/// Whatever stands between, with biases or without, of ranks that have to be padded: the scores are those
/// of books, and so are those of the file that is written.
#[test]
fn scores_are_those_of_books() {
    let folder = tempfile::tempdir().unwrap();
    let config = config();
    for (rank, biases, relu) in [
        (32, false, false),
        (32, true, true),
        (7, false, true),
        (45, true, false),
        (33, true, true),
    ] {
        let tensors = tensors(rank, biases);
        std::fs::write(folder.path().join("model_0.pt"), torch(&tensors)).unwrap();
        std::fs::write(folder.path().join("model_1.safetensors"), safetensors(&tensors, &[""]))
            .unwrap();
        let others = Others::open(folder.path()).unwrap();
        assert_eq!(others.ranks(&config).unwrap(), [rank; 2]);
        for (numbers, tolerance) in [(Numbers::F16, 0.003), (Numbers::Q8_0, 0.04)] {
            let mut predictors = Vec::new();
            for layer in 0..2 {
                let factors = Factors::read(&others, layer, &config).unwrap();
                let (body, offset) = factors.body(relu, None, numbers).unwrap();
                let padded = if numbers == Numbers::F16 { rank } else { rank.next_multiple_of(32) };
                assert_eq!(body.rank(), Some(padded));
                let points = vec![exact()];
                predictors.push(Predictor::new((layer, 0), body, vec![offset], points).unwrap());
            }
            let x = values(9, HIDDEN);
            let expected = naive(&tensors, &x, relu);
            let found = predictors[0].scores(&x, 0).unwrap();
            assert_eq!(found, predictors[1].scores(&x, 0).unwrap());
            for (found, expected) in found.iter().zip(&expected) {
                assert!((f64::from(*found) - expected).abs() < tolerance, "{found} {expected}");
            }
            let read = through_a_file(predictors);
            assert_eq!(read.of(0, 0).unwrap().scores(&x, 0).unwrap(), found);
            let between = |predictor: &Predictor| predictor.body().clone();
            assert!(
                matches!(
                    between(read.of(1, 0).unwrap()),
                    Body::LowRank { between: Between::Relu { bias }, .. } if relu && bias.is_some() == biases
                ) || !relu
            );
        }
    }
}

fn through_a_file(predictors: Vec<Predictor>) -> Predictors {
    let written = Predictors {
        model: "m".into(),
        layers: 2,
        neurons: NEURONS,
        hidden: HIDDEN,
        sources: vec![Source { file_name: "f".into(), bytes: 1, sha256_hex: "0".repeat(64) }],
        ffn_bytes: 1,
        recall: 0.99,
        rows: 1,
        traces: Vec::new(),
        predictors,
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("predictors");
    written.write(&path).unwrap();
    Predictors::read(&path).unwrap()
}

#[test]
fn one_file_holds_all_layers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.safetensors");
    let tensors = tensors(8, true);
    for prefixes in [["0.", "1."], ["blk.0.", "blk.1."], ["model.layers.0.", "model.layers.1."]] {
        std::fs::write(&path, safetensors(&tensors, &prefixes)).unwrap();
        let others = Others::open(&path).unwrap();
        let found = Factors::read(&others, 1, &config()).unwrap();
        assert_eq!((found.rank, &found.reduce), (8, &tensors[0].2));
        assert_eq!((&found.reduce_bias, &found.bias), (&Some(tensors[2].2.clone()), &tensors[3].2));
    }
    std::fs::write(&path, safetensors(&tensors, &["a.0.", "b.0.", "0."])).unwrap();
    let others = Others::open(&path).unwrap();
    let told = format!("{:#}", Factors::read(&others, 0, &config()).err().unwrap());
    assert!(told.contains("are of layer 0"), "{told}");
    let told = format!("{:#}", Factors::read(&others, 1, &config()).err().unwrap());
    assert!(told.contains("has no tensor `1.fc1.weight`"), "{told}");
}

#[test]
fn what_does_not_fit_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let others = Others::open(folder.path()).unwrap();
    let told = |tensors: &Tensors| {
        std::fs::write(folder.path().join("model_0.pt"), torch(tensors)).unwrap();
        let found = Factors::read(&others, 0, &config());
        let found = found.and_then(|factors| factors.body(true, None, Numbers::F16));
        format!("{:#}", found.err().unwrap())
    };
    let with = |at: usize, shape: &[u32], data: Vec<f32>| {
        let mut tensors = tensors(8, true);
        tensors[at] = (tensors[at].0, shape.to_vec(), data);
        tensors
    };
    let lines = [
        (with(0, &[8, 31], vec![0.0; 8 * 31]), "`fc1.weight` is [8, 31], expected [1 to 64, 32]"),
        (with(0, &[256], vec![0.0; 256]), "`fc1.weight` is [256], expected [1 to 64, 32]"),
        (with(0, &[0, 32], vec![]), "expected [1 to 64, 32]"),
        (with(1, &[64, 9], vec![0.0; 64 * 9]), "`fc2.weight` is [64, 9], expected [64, 8]"),
        (with(2, &[9], vec![0.0; 9]), "`fc1.bias` is [9], expected [8]"),
        (with(3, &[8], vec![0.0; 8]), "`fc2.bias` is [8], expected [64]"),
        (with(0, &[8, 32], vec![f32::NAN; 256]), "holds numbers that are none"),
        (with(1, &[64, 8], vec![1e30; 512]), "does not fit into f16"),
    ];
    for (tensors, line) in lines {
        let told = told(&tensors);
        assert!(told.contains(line), "{told}");
    }
    let mut short = tensors(8, false);
    short.remove(1);
    assert!(told(&short).contains("has no tensor `fc2.weight`"));
    assert!(others.files(2).len() == 1);
    let missing = format!("{:#}", others.ranks(&config()).unwrap_err());
    assert!(missing.contains("fc2.weight"), "{missing}");
    told(&with(3, &[8], vec![0.0; 8]));
    std::fs::write(folder.path().join("model_0.pt"), torch(&tensors(8, false))).unwrap();
    let missing = format!("{:#}", others.ranks(&config()).unwrap_err());
    assert!(missing.contains("neither model_1.pt nor model_1.safetensors"), "{missing}");
}

/// What takes the residual tells the same of what a norm makes of it: the signs of the scores after an RMSNorm, whatever
/// the size of the residual, and after a LayerNorm of one whose mean is zero.
#[test]
fn residuals_are_seen_through_the_norm() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = tensors(8, false);
    std::fs::write(folder.path().join("model_0.pt"), torch(&tensors)).unwrap();
    let others = Others::open(folder.path()).unwrap();
    let weight: Vec<f32> = values(5, HIDDEN).iter().map(|value| 1.1 + value).collect();
    for bias in [None, Some(values(6, HIDDEN))] {
        let mut residual = values(7, HIDDEN);
        let mean = residual.iter().sum::<f32>() / HIDDEN as f32;
        if bias.is_some() {
            residual.iter_mut().for_each(|value| *value -= mean);
        }
        let size = (residual.iter().map(|value| value * value).sum::<f32>() / HIDDEN as f32).sqrt();
        let zeros = vec![0.0; HIDDEN];
        let normed = residual.iter().zip(&weight).zip(bias.as_ref().unwrap_or(&zeros));
        let normed: Vec<f32> = normed.map(|((x, by), more)| x / size * by + more).collect();
        let norm = FfnNorm { weight: weight.clone(), bias };
        let factors = Factors::read(&others, 0, &config()).unwrap();
        let (body, offset) = factors.body(true, Some(&norm), Numbers::F16).unwrap();
        let predictor = Predictor::new((0, 0), body, vec![offset], vec![exact()]).unwrap();
        let found = predictor.scores(&normed, 0).unwrap();
        for (found, expected) in found.iter().zip(naive(&tensors, &residual, true)) {
            let expected = expected / f64::from(size);
            assert!((f64::from(*found) - expected).abs() < 0.01, "{found} {expected}");
        }
    }
}
