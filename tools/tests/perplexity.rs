//! `lnp perplexity`: the loss against one counted prefix by prefix, against what training measured,
//! and packs against the model that they were made from.

mod common;

use std::path::Path;

use common::{MODELS, demo_model, disk_folder, fails, json, models, ok};
use lnp_link::trace::{TraceData, write_trace};
use lnp_model::perplexity::{Windows, loss};
use lnp_model::{DenseFfn, Model, Tokenizer};
use serde_json::Value;

/// Held-out loss of the demo model on `text/test.txt`, as its training measured it; how that cut the
/// text into windows is not known.
const DEMO_LOSS: f64 = 3.42;

fn demo() -> (Model, DenseFfn, Vec<u32>) {
    let dir = demo_model();
    let model = Model::load(&dir).unwrap();
    let dense = DenseFfn::load(model.checkpoint(), model.config()).unwrap();
    let text = std::fs::read_to_string(dir.join("text/test.txt")).unwrap();
    let ids = Tokenizer::load(&dir).unwrap().encode(&text).unwrap();
    (model, dense, ids)
}

/// -ln softmax as it is written in books.
fn naive(logits: &[f32], token: u32) -> f64 {
    let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
    -(f64::from(logits[token as usize]).exp() / total).ln()
}

#[test]
fn each_prefix_alone_gives_the_same_loss() {
    let (model, mut dense, mut ids) = demo();
    ids.truncate(41);
    // windows of 16, 16 and 9 tokens
    let mut told = Vec::new();
    let windows = Windows::new(&model, ids.clone(), 16).unwrap();
    let found = loss(&model, &mut dense, &windows, &mut |fed| told.push(fed)).unwrap();
    assert_eq!(told, [16, 32, 41]);
    let mut expected = Vec::new();
    for window in ids.chunks(16) {
        for next in 1..window.len() {
            let mut state = model.new_state();
            let logits = model.forward(&mut state, &window[..next], &mut dense).unwrap();
            expected.push(naive(&logits, window[next]));
        }
    }
    assert_eq!(found.predicted, 15 + 15 + 8);
    assert_eq!(found.predicted, expected.len());
    let mean = expected.iter().sum::<f64>() / expected.len() as f64;
    assert!((found.nats / mean - 1.0).abs() < 1e-5, "{} {mean}", found.nats);
    // a window that one token is left over for predicts nothing from it
    let windows = Windows::new(&model, ids[..33].to_vec(), 16).unwrap();
    assert_eq!(loss(&model, &mut dense, &windows, &mut |_| ()).unwrap().predicted, 30);
}

#[test]
fn the_demo_model_is_as_good_as_when_it_was_trained() {
    let (model, mut dense, ids) = demo();
    let windows = Windows::new(&model, ids, 256).unwrap();
    let found = loss(&model, &mut dense, &windows, &mut |_| ()).unwrap();
    assert!((found.nats - DEMO_LOSS).abs() < 0.03, "{}", found.nats);
}

/// A trace of 200 tokens, and one of their first 65 in windows of 64.
fn traces(model: &str, text: &str, path: &dyn Fn(&str) -> String) -> [String; 2] {
    let (trace, short) = (path("test.trace"), path("short.trace"));
    ok(&["trace", "--model", model, "--text", text, "--tokens", "200", "-o", &trace]);
    let cut = ["--tokens", "65", "--window", "64", "--corpus", "short", "--split", "test"];
    let again = ["trace", "--model", model, "--token-ids", &trace, "-o", &short];
    ok(&[&again[..], &cut].concat());
    [trace, short]
}

#[test]
fn perplexity_by_hand() {
    let folder = disk_folder();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, text) = (demo_model(), demo_model().join("text/test.txt"));
    let (model, text) = (model.to_str().unwrap(), text.to_str().unwrap());
    let [trace, short] = traces(model, text, &path);
    let packs = ["f32", "f16"].map(|dtype| {
        let pack = path(&format!("{dtype}.lnp"));
        ok(&["pack", "--model", model, "--dtype", dtype, "-o", &pack]);
        pack
    });
    let args = ["perplexity", &packs[0], &packs[1], "--model", model, "--buffered"];
    let with = |more: &[&str]| json(&[&args[..], more].concat());

    let told = with(&["--tokens", &trace, &short]);
    assert!(!told["machine"].is_null());
    assert_eq!((&told["model"], &told["window"]), (&"demo".into(), &Value::Null));
    let rows = told["rows"].as_array().unwrap();
    let facts: Vec<Value> = rows
        .iter()
        .map(|row| {
            let names = ["what", "dtype", "corpus", "window", "tokens_predicted"];
            names.iter().map(|name| row[name].clone()).collect()
        })
        .collect();
    let expected = serde_json::json!([
        ["dense f32", "f32", "test", 256, 199],
        ["f32.lnp", "f32", "test", 256, 199],
        ["f16.lnp", "f16", "test", 256, 199],
        ["dense f32", "f32", "short", 64, 63],
        ["f32.lnp", "f32", "short", 64, 63],
        ["f16.lnp", "f16", "short", 64, 63],
    ]);
    assert_eq!(Value::Array(facts), expected);
    assert!(rows[0]["pack"].is_null() && rows[0]["kernel_tier"].is_null());
    assert_eq!((&rows[2]["pack"], &rows[3]["split"]), (&packs[1].as_str().into(), &"test".into()));
    for row in rows {
        let number = |key: &str| row[key].as_f64().unwrap();
        assert!((number("loss").exp() / number("perplexity") - 1.0).abs() < 1e-12);
        assert!((number("perplexity_over_dense") - 1.0).abs() < 1e-4, "{row}");
    }

    // --window for both traces, and --limit; nothing depends on the cache
    let more = ["--tokens", &trace, &short, "--window", "40", "--limit", "100"];
    let told = with(&more);
    assert_eq!((&told["window"], &told["rows"][0]["tokens_predicted"]), (&40.into(), &97.into()));
    let cached = with(&[&more[..], &["--cache-ratio", "1", "--back-end", "pread"]].concat());
    for (row, other) in std::iter::zip(told["rows"].as_array().unwrap(), 0..) {
        assert_eq!(row["loss"], cached["rows"][other as usize]["loss"]);
    }
    let table = ok(&[&args[..], &["--tokens", &short, "--portable"]].concat());
    let lines: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..5], ["what", "dtype", "kernels", "corpus", "predicted"]);
    assert_eq!(lines[1][..6], ["dense", "f32", "f32", "-", "short", "63"]);
    assert_eq!(lines[3][..5], ["f16.lnp", "f16", "portable", "short", "63"]);
    assert!(table.contains("+0.00 %"), "{table}");
}

#[test]
fn trouble_is_one_clear_line() {
    let folder = disk_folder();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, pack) = (demo_model(), path("demo.lnp"));
    let model = model.to_str().unwrap();
    ok(&["pack", "--model", model, "-o", &pack]);
    let trace = |name: &str, token_ids: Option<Vec<u32>>, window: usize| {
        let data = TraceData {
            model: "demo".into(),
            corpus: "made up".into(),
            split: "test".into(),
            active: "none".into(),
            neurons: 8,
            tokens: 3,
            window,
            token_ids,
            inputs: None,
            predicted: None,
            synthetic: None,
            layers: vec![vec![0; 3]],
        };
        write_trace(Path::new(&path(name)), &data).unwrap();
        path(name)
    };
    let fails_with = |pack: &str, tokens: &str| {
        fails(&["perplexity", pack, "--model", model, "--tokens", tokens, "--buffered"])
    };
    let good = trace("good.trace", Some(vec![1, 2, 3]), 256);
    let told = fails_with(&pack, &trace("bare.trace", None, 256));
    assert!(told.contains("bare.trace") && told.contains("no token_ids"), "{told}");
    let told = fails_with(&pack, &trace("beyond.trace", Some(vec![1, 2048, 3]), 256));
    assert!(told.contains("beyond.trace") && told.contains("vocabulary of 2048"), "{told}");
    for window in [1, 257] {
        let told = fails_with(&pack, &trace("window.trace", Some(vec![1, 2, 3]), window));
        assert!(told.contains("window.trace") && told.contains("2 to 256"), "{told}");
    }
    assert!(fails_with(&pack, &pack).contains("demo.lnp"));
    assert!(fails_with(&path("nowhere"), &good).contains("nowhere"));
    let (links, fake, of) = (path("l"), path("fake.lnp"), path("profile.trace"));
    let text = demo_model().join("text/profile.txt");
    let text = text.to_str().unwrap();
    ok(&["trace", "--model", model, "--text", text, "--tokens", "64", "-o", &of]);
    ok(&["link", "--traces", &of, "--order", "identity", "-o", &links]);
    ok(&["pack", "--model", model, "--links", &links, "--placeholder-bundle", "512", "-o", &fake]);
    let told = fails_with(&fake, &good);
    assert!(told.contains("fake.lnp") && told.contains("placeholder"), "{told}");
    ok(&[
        "pack",
        "--model",
        model,
        "--links",
        &links,
        "--placeholder-bundle",
        "512",
        "--copies",
        "2",
        "-o",
        &fake,
    ]);
    assert!(fails_with(&fake, &good).contains("do not belong together"));
}

/// Weights that were f16 are the same numbers in a pack of f32 or f16, and an FFN that leaves out
/// what is zero is the same function: what is left is rounding.
#[test]
fn packs_of_the_models_own_numbers_lose_nothing() {
    let Some(models) = models() else { return };
    let folder = disk_folder();
    for name in MODELS {
        let dir = models.join(name);
        let model = dir.to_str().unwrap();
        let packs = ["f32", "f16"].map(|dtype| {
            let pack = folder.path().join(format!("{name}-{dtype}.lnp"));
            let pack = pack.to_str().unwrap().to_owned();
            ok(&["pack", "--model", model, "--dtype", dtype, "-o", &pack]);
            pack
        });
        let trace = dir.join("traces/wikitext2.test.safetensors");
        let told = json(&[
            "perplexity",
            &packs[0],
            &packs[1],
            "--model",
            model,
            "--tokens",
            trace.to_str().unwrap(),
            "--window",
            "128",
            "--limit",
            "256",
            "--cache-ratio",
            "1",
            "--buffered",
        ]);
        let loss = |row: usize| told["rows"][row]["loss"].as_f64().unwrap();
        println!("{name}: dense {}, f32 {}, f16 {}", loss(0), loss(1), loss(2));
        assert_eq!(told["rows"][2]["tokens_predicted"], 254);
        for row in [1, 2] {
            assert!((loss(row) / loss(0) - 1.0).abs() < 1e-4);
        }
    }
}
