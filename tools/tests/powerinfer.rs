//! PowerInfer's files: down matrices turned, predictors beside the weights. They are written here as its converters
//! write them; what their predictors say is computed once more, as books have it.

mod common;
#[path = "gguf/writer.rs"]
mod writer;

use std::path::{Path, PathBuf};

use anyhow::Result;
use common::{disk_folder, fails, json, models, ok};
use lnp_format::Dtype;
use lnp_link::trace::TraceReader;
use lnp_model::{
    Checkpoint, DenseFfn, FeedForward, Model, Sampler, Tokenizer, forward_windows, generate,
    prompt_ids,
};
use lnp_predict::Predictors;
use serde_json::Value;
use writer::{Gguf, Matrices, converted, converted_for_powerinfer, put_tokenizer};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn put(folder: &Path, name: &str, gguf: &Gguf) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, gguf.powerinfer_bytes()).unwrap();
    path
}

/// The same bits as from the folder, whatever PowerInfer's files say otherwise: down matrices, activation, the length
/// of OPT's table.
#[test]
fn families_as_from_their_folders() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families");
    let folder = disk_folder();
    for name in ["bamboo", "falcon-relu", "llama-biases", "opt", "sparselm"] {
        let dir = root.join(name);
        let path = put(folder.path(), name, &converted_for_powerinfer(&dir, Matrices::Kept));
        let run = |path: &Path| -> Result<_> {
            let model = Model::load(path)?;
            let mut dense = DenseFfn::load(model.checkpoint(), model.config())?;
            let ids: Vec<u32> = (5..50).collect();
            let mut greedy = Sampler::new(0.0, 0)?;
            let found = generate(&model, &mut dense, &ids, 12, &mut greedy, &mut |_| Ok(true))?;
            let config = model.config();
            Ok((found.prompt_logits, found.tokens, config.activation, config.max_positions))
        };
        assert_eq!(run(&path)?, run(&dir)?, "{name}");
    }
    Ok(())
}

/// A layer's predictor.
struct Factors {
    rank: usize,
    /// [rank, hidden]
    fc1: Vec<f32>,
    /// [neurons, rank]
    fc2: Vec<f32>,
}

/// A model's file with predictors, and what its pack is made from.
struct Made {
    folder: tempfile::TempDir,
    model: PathBuf,
    told: Value,
}

impl Made {
    fn of(name: &str, matrices: Matrices, predictors: &[Factors], threshold: f64) -> Option<Self> {
        let dir = models()?.join(name);
        let mut gguf = converted_for_powerinfer(&dir, matrices);
        put_tokenizer(&mut gguf, &dir, "gpt-2");
        gguf.f32("powerinfer.sparse_threshold", threshold);
        for (layer, Factors { rank, fc1, fc2 }) in predictors.iter().enumerate() {
            let (hidden, neurons) = (fc1.len() / rank, fc2.len() / rank);
            gguf.f16_tensor(&format!("blk.{layer}.fc1.weight"), &[*rank, hidden], fc1);
            gguf.f16_tensor(&format!("blk.{layer}.fc2.weight"), &[neurons, *rank], fc2);
        }
        let folder = disk_folder();
        let model = put(folder.path(), &format!("{name}.gguf"), &gguf);
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (said, trace, made) = (at("text.txt"), at("a.trace"), at("a.predictors"));
        std::fs::write(&said, TEXT.repeat(12)).unwrap();
        let m = ["--model", text(&model)];
        let args = ["--text", &said, "--tokens", "700", "--inputs", "700", "-o", &trace];
        ok(&[&["trace"][..], &m, &args].concat());
        let from = ["--traces", &trace, "--from", text(&model), "--thresholds", "theirs"];
        let told = json(&[&["predict"][..], &m, &from, &["-o", &made]].concat());
        ok(&[&["pack"][..], &m, &["--predictors", &made, "-o", &at("a.lnp")]].concat());
        Some(Self { folder, model, told })
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn run(&self) -> Value {
        let args = ["run", &self.at("a.lnp"), "--model", text(&self.model), "--ignore-eos"];
        json(&[&args[..], &["--prompt", PROMPT, "-n", "20"]].concat())
    }
}

const PROMPT: &str = "Once upon a time";
const TEXT: &str = "Once upon a time there was a king who had three daughters. The youngest of them was told that \
    7 times 8 is 56, and she said: \"Then let us build a house of stone, a boat of wood, and a wall around both.\" \
    People came from far away to see what she had made. ";

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// The norm and the deciding rows of a layer, as the folder has them.
fn of_layer(checkpoint: &Checkpoint, prefix: &str, names: [&str; 2]) -> Result<[Vec<f32>; 2]> {
    let [norm, rows] = names.map(|name| checkpoint.read_f32(&format!("{prefix}.{name}")));
    Ok([norm?, rows?])
}

/// Predictors that know everything: with gate rows G and an RMSNorm of weights g, G g r is above zero where a neuron is
/// active, whatever the size of the residual r; and r is relu(r) - relu(-r). The text is the folder's, and nothing
/// else is read; what is SiLU in llama.cpp's files is ReLU here, without being told.
#[test]
fn predictors_that_know_everything() -> Result<()> {
    let Some(models) = models() else { return Ok(()) };
    let dir = models.join("llama-relu-small");
    let checkpoint = Checkpoint::open(&dir)?;
    let names = ["post_attention_layernorm.weight", "mlp.gate_proj.weight"];
    let mut predictors = Vec::new();
    for layer in 0..6 {
        let [norm, rows] = of_layer(&checkpoint, &format!("model.layers.{layer}"), names)?;
        let hidden = norm.len();
        let unit =
            |at: usize, sign: f32| (0..hidden).map(move |to| if to == at { sign } else { 0.0 });
        let fc1 = [1.0, -1.0].iter().flat_map(|sign| (0..hidden).flat_map(|at| unit(at, *sign)));
        let scaled = |row: &[f32], sign: f32| -> Vec<f32> {
            row.iter().zip(&norm).map(|(value, by)| sign * value * by).collect()
        };
        let fc2 =
            rows.chunks(hidden).flat_map(|row| [scaled(row, 1.0), scaled(row, -1.0)].concat());
        predictors.push(Factors { rank: 2 * hidden, fc1: fc1.collect(), fc2: fc2.collect() });
    }
    let made = Made::of("llama-relu-small", Matrices::Kept, &predictors, 0.0).unwrap();
    let found = made.run();
    let exact = made.at("exact.lnp");
    ok(&["pack", "--model", text(&dir), "-o", &exact]);
    let args =
        ["run", &exact, "--model", text(&dir), "--prompt", PROMPT, "--ignore-eos", "-n", "20"];
    assert_eq!(found["token_ids"], json(&args)["token_ids"]);
    assert!((number(&found, "reads_per_active") - 1.0).abs() < 0.01, "{found}");
    assert!(number(&found, "recall") > 0.995, "{found}");
    Ok(())
}

/// Computes what PowerInfer would: of a layer, only neurons whose score, fc2 relu(fc1 r), is at least 0. Of the residual
/// r the norm leaves (x - bias) / weight; its size scales scores, its mean is nothing to rows that sum to zero.
struct AsInBooks<'p> {
    dense: DenseFfn,
    predictors: &'p [Factors],
    norms: Vec<[Vec<f32>; 2]>,
    masking: bool,
    /// Scores of every layer, over the size of those of their token.
    scores: Vec<Vec<f64>>,
}

impl AsInBooks<'_> {
    fn scores(&self, layer: usize, x: &[f32]) -> Vec<f64> {
        let ([weight, bias], Factors { rank, fc1, fc2 }) =
            (&self.norms[layer], &self.predictors[layer]);
        let stored = |value: &f32| half::f16::from_f32(*value).to_f64();
        let dot = |row: &[f32], x: &[f64]| -> f64 {
            row.iter().zip(x).map(|(value, x)| stored(value) * x).sum()
        };
        let mut out = Vec::new();
        for x in x.chunks(weight.len()) {
            let back = x.iter().zip(weight).zip(bias);
            let residual: Vec<f64> =
                back.map(|((x, by), more)| f64::from(x - more) / f64::from(*by)).collect();
            let inner = fc1.chunks(weight.len()).map(|row| dot(row, &residual).max(0.0));
            let inner: Vec<f64> = inner.collect();
            let scores: Vec<f64> = fc2.chunks(*rank).map(|row| dot(row, &inner)).collect();
            let squares: f64 = scores.iter().map(|score| score * score).sum();
            // where nothing is left within, all are 0, and are computed
            let size = (squares / scores.len() as f64).sqrt().max(f64::MIN_POSITIVE);
            out.extend(scores.iter().map(|score| score / size));
        }
        out
    }
}

impl FeedForward for AsInBooks<'_> {
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
        let scores = self.scores(layer, x);
        let masking = self.masking;
        let result = self.dense.forward_chosen(layer, x, y, &mut |activations| {
            for (activation, score) in activations.iter_mut().zip(&scores) {
                if masking && *score < 0.0 {
                    *activation = 0.0;
                }
            }
        });
        self.scores[layer].extend(scores);
        result
    }
}

/// Low rank, another in each layer: what is read is what the predictors say, pair by pair, but where a score is as good
/// as zero; and the text is that of a model which computes nothing else.
#[test]
fn what_is_read_is_what_the_predictors_say() -> Result<()> {
    let Some(models) = models() else { return Ok(()) };
    let dir = models.join("opt-relu-small");
    let checkpoint = Checkpoint::open(&dir)?;
    let (mut predictors, mut norms) = (Vec::new(), Vec::new());
    for layer in 0..6 {
        let prefix = format!("model.decoder.layers.{layer}");
        let [norm, rows] =
            of_layer(&checkpoint, &prefix, ["final_layer_norm.weight", "fc1.weight"])?;
        let [bias, _] = of_layer(&checkpoint, &prefix, ["final_layer_norm.bias", "fc1.bias"])?;
        let (hidden, rank) = (norm.len(), 24 + 11 * layer);
        // some neurons stand for all: the others by how alike their rows are
        let some: Vec<&[f32]> = rows.chunks(hidden).skip(layer).step_by(17).take(rank).collect();
        let centred = |row: &&[f32]| -> Vec<f32> {
            let scaled: Vec<f32> = row.iter().zip(&norm).map(|(value, by)| value * by).collect();
            let mean = scaled.iter().sum::<f32>() / hidden as f32;
            scaled.iter().map(|value| value - mean).collect()
        };
        let alike = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let fc1 = some.iter().flat_map(centred).collect();
        let fc2 = rows.chunks(hidden).flat_map(|row| some.iter().map(move |one| alike(row, one)));
        predictors.push(Factors { rank, fc1, fc2: fc2.collect() });
        norms.push([norm, bias]);
    }
    let made = Made::of("opt-relu-small", Matrices::Kept, &predictors, 0.0).unwrap();

    // a threshold that holds for the residual is none for what the norm leaves of it
    let mut gguf = converted_for_powerinfer(&dir, Matrices::Kept);
    gguf.f32("powerinfer.sparse_threshold", 0.5);
    for (layer, Factors { rank, fc1, fc2 }) in predictors.iter().enumerate() {
        gguf.f16_tensor(&format!("blk.{layer}.fc1.weight"), &[*rank, 384], fc1);
        gguf.f16_tensor(&format!("blk.{layer}.fc2.weight"), &[1536, *rank], fc2);
    }
    let other = put(made.folder.path(), "other.gguf", &gguf);
    let args = ["predict", "--model", text(&made.model), "--traces", &made.at("a.trace"), "--from"];
    let more = [text(&other), "-o", &made.at("b.predictors")];
    let told = fails(&[&args[..], &more, &["--thresholds", "theirs"]].concat());
    assert!(told.contains("--thresholds ours"), "{told}");
    let told = json(&[&args[..], &more].concat());
    assert!(told["layers"][0].get("at_theirs").is_none(), "{told}");
    assert_eq!(told["layers"][5]["points"].as_array().unwrap().len(), 9);

    // the file says what it has
    let told = json(&["inspect", text(&made.model)]);
    assert_eq!(told["is_powerinfer"], true);
    let ranks: Vec<u64> = (0..6).map(|layer| 24 + 11 * layer).collect();
    assert_eq!(told["model"]["powerinfer"], serde_json::json!({"threshold": 0.0, "ranks": ranks}));
    let shown = ok(&["inspect", text(&made.model)]);
    assert!(shown.contains("GGUF of PowerInfer") && shown.contains("rank 24 to 79"), "{shown}");

    let model = Model::load(&made.model)?;
    let books = |masking| -> Result<AsInBooks<'_>> {
        let dense = DenseFfn::load(model.checkpoint(), model.config())?;
        let (predictors, norms, scores) = (&predictors, norms.clone(), vec![Vec::new(); 6]);
        Ok(AsInBooks { dense, predictors, norms, masking, scores })
    };
    // pair by pair, over a text
    let (named, tokens) = (made.at("named.trace"), 160);
    let args = ["trace", "--model", text(&made.model), "--text", &made.at("text.txt")];
    let by = ["--tokens", "160", "--predictor", &made.at("a.predictors"), "-o", &named];
    ok(&[&args[..], &by].concat());
    let trace = TraceReader::open(Path::new(&named))?;
    let ids = trace.token_ids()?.unwrap();
    let mut naive = books(false)?;
    forward_windows(&model, &mut naive, &ids, trace.window(), &mut |_| {})?;
    let (mut active, mut found, mut read) = (0_u64, 0_u64, 0_u64);
    for layer in 0..6 {
        let bits = trace.predicted_bits(layer, 0)?.unwrap();
        let exact = trace.layer_bits(layer)?;
        let is = |bits: &[u8], at: usize| bits[at / 8] >> (at % 8) & 1 == 1;
        let scores = &naive.scores[layer];
        assert_eq!(scores.len(), tokens * 1536);
        for (at, score) in scores.iter().enumerate() {
            assert!(
                is(&bits, at) == (*score >= 0.0) || score.abs() < 0.02,
                "{layer} {at}: {score}"
            );
            active += u64::from(is(&exact, at));
            read += u64::from(is(&bits, at));
            found += u64::from(is(&bits, at) && is(&exact, at));
        }
    }
    // what was told of them is what they come to on text like it
    let recall = found as f64 / active as f64;
    let layers = made.told["layers"].as_array().unwrap();
    let mean = |key: &str| layers.iter().map(|layer| number(layer, key)).sum::<f64>() / 6.0;
    assert!((0.3..0.99).contains(&recall) && (recall - mean("recall")).abs() < 0.1, "{recall}");
    assert!(read > active && (number(&made.told, "quality") - mean("recall")).abs() < 1e-6);

    // and in a text of its own
    let tokenizer = Tokenizer::load(&made.model)?;
    let ids = prompt_ids(&made.model, model.config(), &tokenizer, PROMPT, false)?;
    let mut naive = books(true)?;
    let mut greedy = Sampler::new(0.0, 0)?;
    let expected = generate(&model, &mut naive, &ids, 20, &mut greedy, &mut |_| Ok(true))?;
    let run = made.run();
    assert_eq!(run["token_ids"], serde_json::json!(expected.tokens));
    let named = |least: f64| -> f64 {
        let all = naive.scores.iter().flatten().filter(|score| **score >= least).count();
        all as f64 / (naive.scores[0].len() / 1536) as f64
    };
    let read = number(&run, "active_bundles_per_token");
    assert!((named(0.02)..=named(-0.02)).contains(&read), "{read}, {}", named(0.0));
    Ok(())
}

/// Down columns stand as rows there: quantised, they go into packs of their type byte for byte.
#[test]
fn quantised_down_columns_are_kept() -> Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo");
    let folder = disk_folder();
    let mut gguf = converted_for_powerinfer(&dir, Matrices::As(Dtype::Q4_0));
    put_tokenizer(&mut gguf, &dir, "gpt-2");
    let path = put(folder.path(), "demo.gguf", &gguf);
    let (model, pack) = (["--model", text(&path)], folder.path().join("a.lnp"));
    ok(&[&["pack"][..], &model, &["--dtype", "q4_0", "-o", text(&pack)]].concat());
    let told = json(&["inspect", text(&pack)]);
    assert_eq!(told["provenance"]["weights.down"], "q4_0, as in the model's file");
    let told = json(&[&["verify", text(&pack)][..], &model].concat());
    assert_eq!(told["weight_error"]["max_abs"], 0.0);
    let run =
        json(&[&["run", text(&pack)][..], &model, &["--prompt", "To be", "-n", "4"]].concat());
    assert_eq!(run["token_ids"].as_array().unwrap().len(), 4);
    // no predictors in it
    let shown = ok(&["inspect", text(&path)]);
    assert!(shown.contains("no predictors"), "{shown}");
    let told = fails(
        &[&["predict"][..], &model, &["--traces", "x", "--from", text(&path), "-o", "none/x"]]
            .concat(),
    );
    assert!(told.contains("without predictors"), "{told}");
    Ok(())
}

/// Predictors that are fitted to a GGUF file's weights are those of its folder.
#[test]
fn predictors_fitted_to_a_file() -> Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo");
    let folder = disk_folder();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut gguf = converted(&dir, Matrices::Kept);
    put_tokenizer(&mut gguf, &dir, "gpt-2");
    std::fs::write(at("demo.gguf"), gguf.bytes())?;
    let (said, trace) = (dir.join("text/profile.txt"), at("a.trace"));
    let args = ["--text", text(&said), "--tokens", "700", "--inputs", "700", "-o", &trace];
    ok(&[&["trace", "--model", text(&dir)][..], &args].concat());
    let fitted = |model: &str| -> Result<Predictors> {
        let out = at("a.predictors");
        ok(&["predict", "--model", model, "--traces", &trace, "--rank", "32", "-o", &out]);
        Predictors::read(Path::new(&out))
    };
    let (of_folder, of_file) = (fitted(text(&dir))?, fitted(&at("demo.gguf"))?);
    for (one, other) in of_folder.predictors.iter().zip(&of_file.predictors) {
        assert_eq!(one.body(), other.body());
        assert_eq!((one.offsets(), one.points()), (other.offsets(), other.points()));
    }
    let (model, pack) = (at("demo.gguf"), at("a.lnp"));
    ok(&["pack", "--model", &model, "--predictors", &at("a.predictors"), "-o", &pack]);
    let told = json(&["run", &pack, "--model", &model, "--prompt", "To be", "-n", "4"]);
    assert!(number(&told, "recall") > 0.5, "{told}");
    Ok(())
}
