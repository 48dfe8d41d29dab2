//! The command line as scripts see it: exit codes, one line of error, JSON with the agreed names,
//! nothing half-written. Runs on the demo model of the repository.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn demo_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo")
}

fn lnp(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lnp")).args(args).output().unwrap()
}

/// Runs a command that must work; returns stdout.
fn ok(args: &[&str]) -> String {
    let output = lnp(args);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "lnp {args:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str]) -> Value {
    let mut args = args.to_vec();
    args.push("--json");
    serde_json::from_str(&ok(&args)).unwrap()
}

/// Runs a command that must fail with exit code 1; returns its one line.
fn fails(args: &[&str]) -> String {
    let output = lnp(args);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "lnp {args:?}: {told}");
    assert_eq!(told.lines().count(), 1, "lnp {args:?}: {told}");
    assert!(told.starts_with("lnp: ") && output.stdout.is_empty(), "lnp {args:?}: {told}");
    told
}

/// Traces, links and packs of the demo model.
struct Work {
    folder: tempfile::TempDir,
}

impl Work {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn new() -> Self {
        let work = Self { folder: common::disk_folder() };
        let model = demo_model();
        let model = model.to_str().unwrap();
        for split in ["profile", "test"] {
            let text = format!("{model}/text/{split}.txt");
            let (trace, tokens) = (work.path(&format!("{split}.trace")), "512");
            ok(&[
                "trace", "--model", model, "--text", &text, "--split", split, "--tokens", tokens,
                "-o", &trace,
            ]);
        }
        for order in ["identity", "frequency", "greedy", "random"] {
            let links = work.path(&format!("{order}.links"));
            ok(&["link", "--traces", &work.path("profile.trace"), "--order", order, "-o", &links]);
            let pack = work.path(&format!("{order}.lnp"));
            ok(&["pack", "--model", model, "--links", &links, "-o", &pack]);
        }
        work
    }
}

#[test]
fn every_command_explains_itself_with_an_example() {
    for command in ["demo", "trace", "link", "pack", "inspect", "verify", "probe", "replay", "run"]
    {
        let help = ok(&[command, "--help"]);
        assert!(help.contains(&format!("Example: lnp {command}")), "{help}");
        assert!(help.contains("Usage: lnp"), "{help}");
    }
    assert!(ok(&["--help"]).contains("Try `lnp demo` first"));
    assert!(ok(&["--version"]).starts_with("lnp "));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for args in [
        &["frobnicate"][..],
        &[],
        &["pack", "-o", "x"],
        &["link", "--traces", "t", "--order", "best-ever", "-o", "l"],
        &["replay", "--links", "l", "--traces", "t"],
        &["replay", "p", "--traces", "t", "--law", "a_us=1"],
        &["pack", "--model", "m", "--dtype", "int3", "-o", "x"],
    ] {
        let output = lnp(args);
        assert_eq!(output.status.code(), Some(2), "lnp {args:?}");
        assert!(output.stdout.is_empty(), "lnp {args:?}");
    }
}

#[test]
fn the_whole_way_by_hand() {
    let work = Work::new();
    let model = demo_model();
    let model = model.to_str().unwrap();
    let greedy = work.path("greedy.lnp");

    let inspected = json(&["inspect", &greedy]);
    assert_eq!(inspected["provenance"]["order"], "greedy");
    assert_eq!(inspected["shape"]["dtype"], "f16");
    assert!(ok(&["inspect", &greedy]).contains("768 neurons"));
    assert_eq!(json(&["verify", &greedy, "--model", model])["bundles_equal_to_model"], 4 * 768);
    assert!(ok(&["verify", &greedy]).contains("sound"));

    // the prompts of the reference, through the binary
    let text = std::fs::read_to_string(demo_model().join("reference/reference.json")).unwrap();
    let reference: Value = serde_json::from_str(&text).unwrap();
    for prompt in reference["prompts"].as_array().unwrap() {
        let words = prompt["prompt"].as_str().unwrap();
        let told =
            json(&["run", &greedy, "--model", model, "--prompt", words, "-n", "48", "--buffered"]);
        assert_eq!(told["prompt_ids"], prompt["prompt_ids"]);
        assert_eq!(told["token_ids"], prompt["greedy_ids"]);
        assert_eq!(told["text"], prompt["greedy_text"]);
        let streamed =
            ok(&["run", &greedy, "--model", model, "--prompt", words, "-n", "48", "--buffered"]);
        assert_eq!(streamed.trim_end(), prompt["greedy_text"].as_str().unwrap().trim_end());
    }
    let sampled = |seed: &str| {
        let args = ["run", &greedy, "--model", model, "--prompt", "Question:", "-n", "12"];
        json(&[&args[..], &["--temperature", "0.9", "--seed", seed, "--buffered"]].concat())
            ["token_ids"]
            .clone()
    };
    assert_eq!(sampled("1"), sampled("1"));
    assert_ne!(sampled("1"), sampled("2"));
}

#[test]
fn replay_rows_have_the_agreed_names() {
    let work = Work::new();
    let packs =
        ["identity", "frequency", "greedy", "random"].map(|o| work.path(&format!("{o}.lnp")));
    let trace = work.path("test.trace");
    let mut args = vec!["replay"];
    args.extend(packs.iter().map(String::as_str));
    args.extend(["--traces", &trace, "--tokens", "16", "--buffered"]);
    args.extend(["--law", "t0_us=40,a_us=10,b_mib_s=2000,combine=sum"]);
    let real = json(&args);
    args.push("--simulate");
    let simulated = json(&args);
    for told in [&real, &simulated] {
        for key in ["machine", "device", "trace", "rows"] {
            assert!(!told[key].is_null(), "{key}");
        }
        let rows = told["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 1 + 4 * 3);
        for row in rows {
            for key in [
                "strategy",
                "order",
                "dtype",
                "collapse",
                "cache_policy",
                "cache_ratio",
                "queue_depth",
                "tokens",
                "active_bundles_per_token",
                "reads_per_token",
                "bundles_per_run",
                "bytes_read_per_token",
                "useful_bytes_per_token",
                "hit_rate",
                "io_us_per_token",
                "predicted_io_us_per_token",
                "effective_mib_s",
            ] {
                assert!(!row[key].is_null(), "{key} in {row}");
            }
            for key in ["mean", "p50", "p99"] {
                assert!(row["io_us_per_token"][key].as_f64().unwrap() > 0.0);
            }
        }
    }
    // the real engine and the simulated one plan the same
    let counts = |told: &Value| -> Vec<Value> {
        let rows = told["rows"].as_array().unwrap().iter();
        rows.map(|row| {
            serde_json::json!([
                row["strategy"],
                row["reads_per_token"],
                row["bytes_read_per_token"],
                row["bundles_per_run"],
                row["hit_rate"],
                row["predicted_io_us_per_token"],
            ])
        })
        .collect()
    };
    assert_eq!(counts(&real), counts(&simulated));

    // links need no pack: placeholders of the same size give the same counts
    let links =
        ["identity", "frequency", "greedy", "random"].map(|o| work.path(&format!("{o}.links")));
    let mut args = vec!["replay", "--simulate", "--links"];
    args.extend(links.iter().map(String::as_str));
    args.extend(["--bundle-bytes", "768", "--traces", &trace, "--tokens", "16"]);
    args.extend(["--law", "t0_us=40,a_us=10,b_mib_s=2000,combine=sum"]);
    assert_eq!(counts(&json(&args)), counts(&real));
    assert!(ok(&args).contains("bound (active bytes at full bandwidth)"));
}

#[test]
fn probe_writes_a_profile_that_replay_reads() {
    let work = Work::new();
    let big = work.path("big");
    std::fs::write(&big, vec![0x5a; 16 << 20]).unwrap();
    let profile = work.path("device.toml");
    let told = json(&["probe", &big, "--seconds", "0.5", "--buffered", "-o", &profile]);
    assert!(told["law"]["a_us"].as_f64().unwrap() >= 0.0);
    let replayed = json(&[
        "replay",
        &work.path("greedy.lnp"),
        "--traces",
        &work.path("test.trace"),
        "--device",
        &profile,
        "--simulate",
        "--tokens",
        "4",
    ]);
    assert_eq!(replayed["device"]["law"], told["law"]);
}

#[test]
fn trouble_is_one_clear_line() {
    let work = Work::new();
    let model = demo_model();
    let model = model.to_str().unwrap();
    let (greedy, trace) = (work.path("greedy.lnp"), work.path("test.trace"));
    let links = work.path("greedy.links");
    let nowhere = work.path("nowhere/x");
    let text = work.path("text.txt");
    std::fs::write(&text, "To be, or not to be").unwrap();
    let garbage = work.path("garbage");
    std::fs::write(&garbage, vec![7; 9000]).unwrap();

    assert!(fails(&["inspect", &nowhere]).contains("nowhere/x"));
    assert!(fails(&["inspect", &garbage]).contains("not a linked neuron pack"));
    assert!(fails(&["verify", &trace]).contains("not a linked neuron pack"));
    assert!(fails(&["link", "--traces", &garbage, "-o", &nowhere]).contains("garbage"));
    assert!(fails(&["pack", "--model", &nowhere, "-o", &nowhere]).contains("nowhere"));
    assert!(
        fails(&["pack", "--model", model, "--links", &trace, "-o", &nowhere]).contains("links")
    );
    assert!(fails(&["run", &greedy, "--model", &nowhere, "--prompt", "x"]).contains("nowhere"));
    assert!(fails(&["replay", &greedy, "--traces", &links, "--simulate"]).contains("trace"));
    let device = fails(&["replay", &greedy, "--traces", &trace, "--device", &garbage]);
    assert!(device.contains("device profile"), "{device}");
    assert!(fails(&["probe", &text, "--quick", "--buffered"]).contains("too few to probe"));
    assert!(
        fails(&["trace", "--model", model, "--text", &garbage, "-o", &nowhere]).contains("nowhere")
    );
    let long = "word ".repeat(400);
    let told = fails(&["run", &greedy, "--model", model, "--prompt", &long, "--buffered"]);
    assert!(told.contains("context is 256"), "{told}");
    let told = fails(&[
        "run",
        &greedy,
        "--model",
        model,
        "--prompt",
        "x",
        "--memory",
        "1000",
        "--buffered",
    ]);
    assert!(told.contains("--memory 1000 is too small: at least"), "{told}");

    // a damaged bundle is found by verify, and by a run that checks what it reads
    let mut bytes = std::fs::read(&greedy).unwrap();
    let at = bytes.len() - 500_000;
    for byte in &mut bytes[at..] {
        *byte ^= 1;
    }
    let damaged = work.path("damaged.lnp");
    std::fs::write(&damaged, bytes).unwrap();
    assert!(fails(&["verify", &damaged]).contains("damaged"));
    let told = fails(&[
        "run",
        &damaged,
        "--model",
        model,
        "--prompt",
        "x",
        "--verify-reads",
        "--buffered",
        "--json",
    ]);
    assert!(told.contains("damaged"), "{told}");

    // placeholders cannot be run
    let fake = work.path("fake.lnp");
    ok(&["pack", "--model", model, "--links", &links, "--placeholder-bundle", "4096", "-o", &fake]);
    let told = fails(&["run", &fake, "--model", model, "--prompt", "x", "--buffered"]);
    assert!(told.contains("placeholder"), "{told}");
}

#[test]
fn a_failed_write_leaves_what_was_there() {
    let work = Work::new();
    let model = demo_model();
    let model = model.to_str().unwrap();
    let target = work.path("kept.lnp");
    std::fs::write(&target, "precious").unwrap();
    fails(&["pack", "--model", model, "--links", &work.path("test.trace"), "-o", &target]);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
    let before = std::fs::read_dir(work.folder.path()).unwrap().count();
    fails(&["pack", "--model", model, "-o", &work.path("no/such/folder.lnp")]);
    assert_eq!(std::fs::read_dir(work.folder.path()).unwrap().count(), before);
}
