//! Predictors in a pack, from `lnp pack --predictors` to `lnp run`: what the pack says, what it is read by, what that
//! costs.

mod common;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{
    MODELS, demo_model, disk_folder, fails, json, models, ok, readers_agree, shared_folder,
};
use serde_json::Value;

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// Traces, predictors and packs of a model, with predictors and without.
struct Made {
    folder: PathBuf,
    model: String,
    _kept: Option<tempfile::TempDir>,
}

impl Made {
    /// `text` are the arguments of `lnp trace` that name it.
    fn of(model: &Path, text: &[&str], predict: &[&str]) -> Self {
        let folder = disk_folder();
        let path = folder.path().to_owned();
        Self { _kept: Some(folder), ..Self::in_folder(path, model, text, predict) }
    }

    fn in_folder(folder: PathBuf, model: &Path, text: &[&str], predict: &[&str]) -> Self {
        let made = Self { folder, model: model.to_str().unwrap().to_owned(), _kept: None };
        let (profile, predictors) = (made.path("profile.trace"), made.path("model.predictors"));
        made.run(&["trace"], &[text, &["--inputs", "3000", "-o", &profile]].concat());
        made.run(&["predict"], &[&["--traces", &profile, "-o", &predictors], predict].concat());
        made.run(&["pack"], &["-o", &made.path("exact.lnp")]);
        made.run(&["pack"], &["--predictors", &predictors, "-o", &made.path("model.lnp")]);
        made
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    fn run(&self, command: &[&str], more: &[&str]) -> String {
        ok(&[command, &["--model", &self.model], more].concat())
    }

    fn json(&self, command: &[&str], more: &[&str]) -> Value {
        json(&[command, &["--model", &self.model], more].concat())
    }
}

/// The demo's model, once for all tests.
fn demo() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let text = demo_model().join("text/profile.txt");
        let text = ["--text", text.to_str().unwrap(), "--tokens", "3000"];
        let folder = shared_folder("packed-predictors");
        Made::in_folder(folder, &demo_model(), &text, &["--bytes", "0.12", "--horizon", "0,1"])
    })
}

#[test]
fn a_pack_says_what_predictors_it_has_and_reads_by_them() {
    let made = demo();
    let (pack, exact) = (made.path("model.lnp"), made.path("exact.lnp"));
    let told = json(&["inspect", &pack]);
    let places: Vec<_> = told["predictors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| (number(found, "layer"), number(found, "horizon")))
        .collect();
    let expected =
        [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (2.0, 0.0), (2.0, 1.0), (3.0, 0.0), (3.0, 1.0)];
    assert_eq!(places, expected);
    assert!(ok(&["inspect", &pack]).contains("predictors, a layer ahead: "));
    assert!(told["provenance"]["predictors.recall"] == "0.99");
    assert!(readers_agree(Path::new(&pack)));

    // judged by the text that they were made from, they find what they say
    let profile = made.path("profile.trace");
    let judged = made.json(&["verify", &pack], &["--traces", &profile, "--rows", "600"]);
    let judged = judged["predictors"].as_array().unwrap();
    assert_eq!(judged.len(), 18, "{judged:?}");
    for row in judged {
        assert_eq!(number(row, "layers"), 4.0 - number(row, "horizon"));
        for (found, told) in
            [("recall", "recall_told"), ("reads_per_active", "reads_per_active_told")]
        {
            assert!((number(row, found) - number(row, told)).abs() < 0.06, "{row}");
        }
    }

    // the same text as from the file of predictors, other reads than exactly
    let prompt = ["--prompt", "Once upon a time", "-n", "24"];
    let own = made.json(&["run", &pack], &[&prompt[..], &["--quality", "0.9"]].concat());
    let predictors = made.path("model.predictors");
    let by_file = [&prompt[..], &["--quality", "0.9", "--predictors", &predictors]].concat();
    let by_file = made.json(&["run", &exact], &by_file);
    assert_eq!(own["token_ids"], by_file["token_ids"]);
    for key in ["reads_per_active", "recall", "predictor_bytes_share"] {
        assert_eq!(own[key], by_file[key], "{key}");
    }
    assert!(number(&own, "predictor_bytes_share") < 0.121 && number(&own, "recall") < 0.95);
    // without a quality the one that they were made for; exactly, what a pack without predictors gives
    let usual = made.json(&["run", &pack], &prompt);
    assert!(number(&usual, "recall") > 0.97 && number(&usual, "recall") < 1.0);
    let exactly = made.json(&["run", &pack], &[&prompt[..], &["--quality", "exact"]].concat());
    let without = made.json(&["run", &exact], &prompt);
    assert_eq!(exactly["token_ids"], without["token_ids"]);
    assert_eq!((number(&exactly, "recall"), number(&without, "recall")), (1.0, 1.0));
}

#[test]
fn what_they_cost_is_what_the_file_costs() {
    let made = demo();
    let (pack, predictors) = (made.path("model.lnp"), made.path("model.predictors"));
    let test = made.path("test.trace");
    let text = demo_model().join("text/test.txt");
    made.run(&["trace"], &["--text", text.to_str().unwrap(), "--tokens", "512", "-o", &test]);
    let quality = ["--tokens", &test, "--quality", "0.9,0.999"];
    let own = made.json(&["perplexity", &pack], &quality);
    let by_file =
        made.json(&["perplexity"], &[&quality[..], &["--predictors", &predictors]].concat());
    // dense, the pack exactly, the pack at two qualities; dense, two qualities
    let [own, by_file] = [own, by_file].map(|told| told["rows"].as_array().unwrap().clone());
    assert_eq!((own.len(), by_file.len()), (4, 3));
    for (own, by_file) in own[2..].iter().zip(&by_file[1..]) {
        assert_eq!(own["quality"], by_file["quality"]);
        for (key, most) in [("recall", 0.005), ("reads_per_active", 0.01), ("loss", 0.003)] {
            let (own, by_file) = (number(own, key), number(by_file, key));
            assert!((own - by_file).abs() < most, "{key}: {own} {by_file}");
        }
        assert_eq!(own["predictor_bytes_share"], by_file["predictor_bytes_share"]);
        assert!(own["predictors"].is_null());
    }
}

/// What is left out is what was allowed, is not read, and costs no more than the model's predictions are off anyway.
#[test]
fn what_is_not_worth_its_time_is_left_out() {
    let made = demo();
    let (pack, test) = (made.path("model.lnp"), made.path("leave-out.trace"));
    let text = demo_model().join("text/test.txt");
    made.run(&["trace"], &["--text", text.to_str().unwrap(), "--tokens", "512", "-o", &test]);
    let how = ["--tokens", &test, "--quality", "0.999", "--leave-out", "0.005,0.05"];
    let told = made.json(&["perplexity", &pack], &[&how[..], &["--cache-ratio", "0"]].concat());
    // dense, exactly, predicted, and less and less of it
    let rows = told["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    assert!(rows[2]["left_out"].is_null());
    for (row, share) in rows[3..].iter().zip([0.005, 0.05]) {
        let lost = number(&row["left_out"], "lost_share");
        assert!((0.8 * share..1.2 * share).contains(&lost), "{share}: {lost}");
        assert!(number(&row["left_out"], "bundles_per_token") > 0.0);
        assert_eq!(row["left_out"]["share"], share);
    }
    let reads: Vec<f64> = rows[2..].iter().map(|row| number(row, "reads_per_active")).collect();
    assert!(reads[0] > reads[1] && reads[1] > reads[2], "{reads:?}");
    let over: Vec<f64> = rows[2..].iter().map(|row| number(row, "perplexity_over_dense")).collect();
    assert!((over[1] - over[0]).abs() < 0.01 && over[2] < 1.2, "{over:?}");

    let prompt = ["--prompt", "Once upon a time", "-n", "16", "--ahead", "0", "--cache-ratio", "0"];
    let whole = made.json(&["run", &pack], &prompt);
    let some = made.json(&["run", &pack], &[&prompt[..], &["--leave-out", "0.05"]].concat());
    assert!(whole["left_out"].is_null());
    assert!(number(&some["left_out"], "lost_share") > 0.01);
    let reads = |told: &Value| number(told, "active_bundles_per_token");
    assert!(reads(&some) < reads(&whole), "{} {}", reads(&some), reads(&whole));
    let told = fails(&[
        "run",
        &pack,
        "--model",
        &made.model,
        "--prompt",
        "a",
        "--quality",
        "exact",
        "--leave-out",
        "0.01",
    ]);
    assert!(told.contains("tells no strengths"), "{told}");
}

#[test]
fn what_cannot_be_is_one_line() {
    let made = demo();
    let (exact, predictors) = (made.path("exact.lnp"), made.path("model.predictors"));
    let profile = made.path("profile.trace");
    let model = made.model.as_str();
    let told = fails(&["verify", &exact, "--model", model, "--traces", &profile]);
    assert!(told.contains("the pack has no predictor for each layer"), "{told}");
    let told =
        fails(&["perplexity", &exact, "--model", model, "--tokens", &profile, "--quality", "0.9"]);
    assert!(told.contains("the pack has no predictor for each layer"), "{told}");
    // of another model
    if let Some(models) = models() {
        let other = models.join(MODELS[0]);
        let out = made.path("other.lnp");
        let other = other.to_str().unwrap();
        let told = fails(&["pack", "--model", other, "--predictors", &predictors, "-o", &out]);
        assert!(told.contains("they do not belong together"), "{told}");
        assert!(!Path::new(&out).exists());
    }
}

/// Both real models: nothing of the FFN is in memory but predictors, cache and staging, and every reader agrees.
#[test]
fn the_rows_that_decide_need_not_be_in_memory() {
    let Some(models) = models() else { return };
    for name in MODELS {
        let dir = models.join(name);
        let trace = dir.join("traces/alpaca.profile.safetensors");
        let text = ["--token-ids", trace.to_str().unwrap(), "--tokens", "3000"];
        let made = Made::of(&dir, &text, &["--bytes", "0.06"]);
        let pack = made.path("model.lnp");
        assert!(readers_agree(Path::new(&pack)));
        // Reading ahead, which only predictors can, has areas of its own.
        let prompt = ["--prompt", "Once upon a time", "-n", "16", "--ahead", "0"];
        let predicted = made.json(&["run", &pack], &prompt);
        let exact = made.json(&["run", &made.path("exact.lnp")], &prompt);
        let bytes = |told: &Value| number(&told["engine"], "predictor_resident_bytes");
        let (held, rows) = (bytes(&predicted), bytes(&exact));
        assert!(held < 0.3 * rows, "{name}: {held} of {rows}");
        // Peaks differ by allocators' whims; what is left of them is most of the rows.
        let saved = number(&exact, "peak_memory_bytes") - number(&predicted, "peak_memory_bytes");
        assert!(saved > 0.6 * (rows - held), "{name}: {saved} of {rows} less {held}");
        assert!(number(&predicted, "predictor_bytes_share") < 0.0605);
    }
}
