//! The command line as scripts see it: JSON with the agreed names, nothing half-written. Runs on the
//! demo model of the repository. Errors are in `errors.rs`.

mod common;

use std::process::Command;

use common::{demo_model, fails, json, least_memory, lnp, ok};
use serde_json::Value;

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
    let commands = "demo trace link pack relink inspect verify probe replay run perplexity synth"
        .split_whitespace();
    for command in commands {
        let help = ok(&[command, "--help"]);
        assert!(help.contains(&format!("Example: lnp {command}")), "{help}");
        assert!(help.contains("Usage: lnp"), "{help}");
    }
    assert!(ok(&["--help"]).contains("Try `lnp demo` first"));
    assert!(ok(&["--version"]).starts_with("lnp "));
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
        // made without stopping
        let run = ["run", &greedy, "--model", model, "--prompt", words, "-n", "48", "--ignore-eos"];
        let run = [&run[..], &["--buffered"]].concat();
        let told = json(&run);
        assert_eq!(told["prompt_ids"], prompt["prompt_ids"]);
        assert_eq!(told["token_ids"], prompt["greedy_ids"]);
        assert_eq!(told["text"], prompt["greedy_text"]);
        let streamed = ok(&run);
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

/// A folder with the demo's files and a generation_config.json, and a config.json, of other ends.
fn model_that_ends_at(folder: &std::path::Path, config: Value, generation: Option<Value>) {
    std::fs::create_dir(folder).unwrap();
    for name in ["model.safetensors", "tokenizer.json"] {
        std::os::unix::fs::symlink(demo_model().join(name), folder.join(name)).unwrap();
    }
    let text = std::fs::read(demo_model().join("config.json")).unwrap();
    let mut json: Value = serde_json::from_slice(&text).unwrap();
    json["eos_token_id"] = config;
    std::fs::write(folder.join("config.json"), json.to_string()).unwrap();
    if let Some(ids) = generation {
        let text = serde_json::json!({ "eos_token_id": ids }).to_string();
        std::fs::write(folder.join("generation_config.json"), text).unwrap();
    }
}

#[test]
fn a_text_ends_at_its_end() {
    let work = Work::new();
    let greedy = work.path("greedy.lnp");
    let text = std::fs::read_to_string(demo_model().join("reference/reference.json")).unwrap();
    let reference: Value = serde_json::from_str(&text).unwrap();
    let prompt = &reference["prompts"][0];
    let ids = prompt["greedy_ids"].as_array().unwrap();
    // an end in the midst of the reference's text, and how many tokens there are with it
    let end = &ids[9];
    let count = 1 + ids.iter().position(|id| id == end).unwrap();
    let other = Value::from(3999);
    let words = prompt["prompt"].as_str().unwrap();
    let run = |model: &str, more: &[&str]| {
        let model = work.path(model);
        let args = ["run", &greedy, "--model", &model, "--prompt", words, "--buffered"];
        json(&[&args[..], &["-n", "48"], more].concat())
    };
    for (name, config, generation) in [
        ("by-config", end.clone(), None),
        ("by-list", serde_json::json!([end, other]), None),
        ("by-generation", other.clone(), Some(serde_json::json!([other, end]))),
        ("by-null", end.clone(), Some(Value::Null)),
    ] {
        model_that_ends_at(&work.folder.path().join(name), config, generation);
        let told = run(name, &[]);
        assert_eq!(told["token_ids"].as_array().unwrap()[..], ids[..count], "{name}");
        assert_eq!(told["finish_reason"], "eos_token");
        let before = run(name, &["--ignore-eos"]);
        assert_eq!(before["token_ids"], prompt["greedy_ids"], "{name}");
        assert_eq!(before["finish_reason"], "length");
        // the text of the tokens before the end
        let text = told["text"].as_str().unwrap();
        let whole = prompt["greedy_text"].as_str().unwrap();
        assert!(whole.len() > text.len() && whole.starts_with(text), "{name}: {text}");
        let tokenizer = lnp_model::Tokenizer::load(&demo_model()).unwrap();
        let read: Vec<u32> =
            ids[..count - 1].iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(text, tokenizer.decode(&read, false).unwrap());
    }
    // generation_config.json goes first
    model_that_ends_at(&work.folder.path().join("elsewhere"), end.clone(), Some(other));
    assert_eq!(run("elsewhere", &[])["token_ids"], prompt["greedy_ids"]);
}

#[test]
fn every_type_is_packed_verified_and_inspected() {
    let work = Work::new();
    let model = demo_model();
    let model = model.to_str().unwrap();
    let links = work.path("greedy.links");
    // The model is of f16. The errors, root mean square and largest, are what the gguf package makes
    // of its FFN weights (`kernels/tests/vectors` says which version).
    for (dtype, bundle_stride, rms, largest) in [
        ("f32", 2 * 192 * 4, 0.0, 0.0),
        ("f16", 2 * 192 * 2, 0.0, 0.0),
        ("bf16", 2 * 192 * 2, 0.001_682_895_536_566, 0.000_976_562_5),
        ("q8_0", 2 * 192 / 32 * 34, 0.005_419_828_512_452, 0.001_022_338_867_187_5),
        ("q4_0", 2 * 192 / 32 * 18, 0.086_995_260_226_624, 0.025_421_142_578_125),
    ] {
        let pack = work.path(&format!("{dtype}.lnp"));
        ok(&["pack", "--model", model, "--links", &links, "--dtype", dtype, "-o", &pack]);
        let shape = &json(&["inspect", &pack])["shape"];
        assert_eq!(shape["dtype"], dtype);
        assert_eq!(shape["bundle_stride"], bundle_stride);
        assert!(ok(&["inspect", &pack]).contains(dtype));
        let told = json(&["verify", &pack, "--model", model]);
        assert_eq!(told["bundles_equal_to_model"], 4 * 768);
        let error = &told["weight_error"];
        let parts = error["parts"].as_array().unwrap();
        let names: Vec<&Value> = parts.iter().map(|part| &part["part"]).collect();
        assert_eq!(names, ["up", "down"]);
        let number = |value: &Value| value.as_f64().unwrap();
        assert!((number(&error["rms_relative"]) - rms).abs() < 1e-9, "{dtype}: {told}");
        assert_eq!(number(&error["max_abs"]), largest, "{dtype}: {told}");
        let of_parts = parts.iter().map(|part| number(&part["max_abs"]));
        assert_eq!(of_parts.fold(0.0, f64::max), largest, "{dtype}: {told}");
        let lines = ok(&["verify", &pack, "--model", model]);
        assert_eq!(lines.lines().count(), 2, "{lines}");
        assert_eq!(lines.contains("weight error: 0, "), rms == 0.0, "{lines}");
        // without a model there is nothing to compare with
        assert!(json(&["verify", &pack])["weight_error"].is_null());
        assert_eq!(ok(&["verify", &pack]).lines().count(), 1);
    }
}

/// What every row of `replay --json` has at least: scripts rely on it.
const ROW_KEYS: [&str; 17] = [
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
];

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
            for key in ROW_KEYS {
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
    assert!(ok(&args).contains("bound: all active bytes"));
}

#[test]
fn replay_tells_what_adaptive_collapse_believes() {
    let work = Work::new();
    let (pack, trace) = (work.path("greedy.lnp"), work.path("test.trace"));
    let law = "a_us=10.0,b_mib_s=2000.0,combine=sum";
    let told = json(&[
        "replay",
        &pack,
        "--traces",
        &trace,
        "--tokens",
        "128",
        "--law",
        law,
        "--adapt",
        "--simulate",
    ]);
    for row in told["rows"].as_array().unwrap() {
        let Some(beliefs) = row["beliefs"].as_array() else {
            assert_ne!(row["collapse"], "adaptive");
            continue;
        };
        assert_eq!(row["collapse"], "adaptive");
        assert_eq!(beliefs[0]["law"], told["device"]["law"]);
        assert_eq!(
            (beliefs[0]["seconds"].as_f64(), beliefs[0]["batches"].as_u64()),
            (Some(0.0), Some(0))
        );
        for two in beliefs.windows(2) {
            assert!(two[0]["batches"].as_u64() < two[1]["batches"].as_u64());
            assert!(two[0]["seconds"].as_f64() < two[1]["seconds"].as_f64());
            assert_ne!(two[0]["law"], two[1]["law"]);
        }
        // The simulated device obeys the law that was given: there is nothing else to come to.
        let gap = told["device"]["gap_bytes"].as_f64().unwrap();
        let last = beliefs.last().unwrap()["gap_bytes"].as_f64().unwrap();
        assert!((last / gap - 1.0).abs() < 0.15, "{last}, not {gap}");
    }
    let adaptive = |row: &&Value| !row["beliefs"].is_null();
    assert_eq!(told["rows"].as_array().unwrap().iter().filter(adaptive).count(), 1);
}

#[test]
fn replay_compares_caches_with_the_best_possible() {
    let work = Work::new();
    let (pack, trace) = (work.path("greedy.lnp"), work.path("test.trace"));
    let law = "t0_us=40,a_us=10,b_mib_s=2000,combine=sum";
    let args = ["replay", &pack, "--traces", &trace, "--tokens", "64", "--law", law, "--simulate"];
    let caches = ["--cache-policies", "all", "--cache-ratio", "0,0.1,0.3", "--warm"];
    let told = json(&[&args[..], &caches[..]].concat());
    let rows = told["rows"].as_array().unwrap();
    // dense, plain, collapse; and at two ratios, cold and warm, six policies and the bound
    assert_eq!(rows.len(), 3 + 2 * 2 * (6 + 1));
    let names: std::collections::HashSet<&str> =
        rows.iter().map(|row| row["strategy"].as_str().unwrap()).collect();
    assert_eq!(names.len(), rows.len(), "{names:?}");
    assert!(names.contains("linked+collapse+pinned+linking-aligned 10 % warm"), "{names:?}");
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
    let bounds: Vec<&Value> = rows.iter().filter(|row| row["cache_policy"] == "belady").collect();
    for bound in &bounds {
        assert_eq!(bound["simulated"], true);
        let same = |row: &&Value| {
            row["cache_ratio"] == bound["cache_ratio"] && row["cache_state"] == bound["cache_state"]
        };
        for row in rows.iter().filter(same) {
            assert!(number(row, "hit_rate") <= number(bound, "hit_rate"), "{row}");
            let bytes = "useful_bytes_per_token";
            assert!(number(row, bytes) >= number(bound, bytes), "{row}");
            assert_eq!(row["active_bundles_per_token"], bound["active_bundles_per_token"]);
        }
    }
    assert_eq!(bounds.len(), 4);
    let table = ok(&[&args[..], &caches[..]].concat());
    assert!(table.contains("NOT MEASURED") && table.contains("linked+collapse+belady 30 % cold"));
    // one policy, one ratio: the usual names, and the bound only because policies were asked for
    let told = json(&[&args[..], &["--cache-policies", "lru"]].concat());
    let names: Vec<&str> = told["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["strategy"].as_str().unwrap())
        .collect();
    let expected =
        ["dense", "linked", "linked+collapse", "linked+collapse+cache", "linked+collapse+belady"];
    assert_eq!(names, expected);
    for wrong in [["--cache-policies", "mru"], ["--cache-ratio", "2"], ["--cache-ratio", "0.1,0.1"]]
    {
        let done = lnp(&[&args[..], &wrong[..]].concat());
        assert!(!done.status.success(), "{wrong:?}");
    }
}

#[test]
fn probe_writes_a_profile_that_replay_reads() {
    let work = Work::new();
    let big = work.path("big");
    std::fs::write(&big, vec![0x5a; 16 << 20]).unwrap();
    let profile = work.path("device.toml");
    let told = json(&["probe", &big, "--seconds", "0.5", "--once", "--buffered", "-o", &profile]);
    assert!(told["law"]["a_us"].as_f64().unwrap() >= 0.0);
    let (greedy, trace) = (work.path("greedy.lnp"), work.path("test.trace"));
    let replay = ["replay", &greedy, "--traces", &trace, "--device", &profile, "--simulate"];
    let with = |more: &[&'static str]| [&replay[..], &["--tokens", "4"], more].concat();
    let replayed = json(&with(&[]));
    assert_eq!(replayed["device"]["law"], told["law"]);
    let curved = json(&with(&["--curve"]));
    let rows = curved["rows"].as_array().unwrap();
    assert_eq!(rows.len(), replayed["rows"].as_array().unwrap().len() + 1);
    assert!(rows.iter().any(|row| row["collapse"] == "curve"), "{curved}");
    // Which reads are merged changes no token.
    let model = demo_model();
    let run = ["run", &greedy, "--model", model.to_str().unwrap(), "--buffered", "--prompt", "To"];
    let more = ["-n", "4", "--device", &profile];
    let text = ok(&[&run[..], &more].concat());
    assert_eq!(ok(&[&run[..], &more, &["--curve"]].concat()), text);
    // pread has one read in flight at any queue depth
    if told["measured"]["back_end"] == "io_uring" {
        let told = fails(&with(&["--curve", "--queue-depth", "5"]));
        assert!(told.contains("no curve at queue depth 5, but at 1, 32"), "{told}");
    }
}

#[test]
fn inputs_are_never_overwritten() {
    let work = Work::new();
    let copy = work.folder.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(demo_model().join(name), copy.join(name)).unwrap();
    }
    let (model, weights) = (work.path("copy"), work.path("copy/model.safetensors"));
    let (links, trace) = (work.path("greedy.links"), work.path("test.trace"));
    assert!(fails(&["pack", "--model", &model, "-o", &weights]).contains("which is read"));
    let told = fails(&["pack", "--model", &model, "--links", &links, "-o", &links]);
    assert!(told.contains("which is read"));
    assert!(fails(&["link", "--traces", &trace, "-o", &trace]).contains("which is read"));
    let told = fails(&["trace", "--model", &model, "--token-ids", &trace, "-o", &trace]);
    assert!(told.contains("which is read"));
    assert!(fails(&["probe", &weights, "--buffered", "-o", &weights]).contains("which is read"));
    assert_eq!(
        std::fs::metadata(&weights).unwrap().len(),
        std::fs::metadata(demo_model().join("model.safetensors")).unwrap().len()
    );
}

#[test]
fn memory_limits_are_kept_and_their_minimum_is_the_minimum() {
    let work = Work::new();
    let model = demo_model();
    let model = model.to_str().unwrap();
    let greedy = work.path("greedy.lnp");
    let run = ["run", &greedy, "--model", model, "--prompt", "ROMEO:\n", "-n", "8", "--buffered"];
    let json_with = |memory: &str| json(&[&run[..], &["--memory", memory]].concat());
    let least = least_memory(&run);
    // what the program itself takes is measured each time, and is never quite the same
    let some = 512 << 10;
    fails(&[&run[..], &["--memory", &(least - some).to_string()]].concat());
    let tight = json_with(&(least + some).to_string());
    let wide = json_with("200M");
    for (told, limit) in [(&tight, least + some), (&wide, 200 << 20)] {
        let parts = told["memory_told_bytes"].as_object().unwrap();
        let sum =
            parts.iter().filter(|(name, _)| *name != "total").map(|(_, bytes)| bytes.as_u64());
        let total = parts["total"].as_u64().unwrap();
        assert_eq!(sum.map(Option::unwrap).sum::<u64>(), total);
        assert!(total <= limit && told["peak_memory_bytes"].as_u64() <= Some(total), "{told}");
        assert_eq!(told["memory_limit_bytes"].as_u64(), Some(limit));
        assert_eq!(parts["model"], told["engine"]["model_resident_bytes"]);
        assert_eq!(parts["keys_and_values"], told["engine"]["attention_state_bytes"]);
    }
    let arena = |told: &Value| told["engine"]["arena_bytes"].as_u64().unwrap();
    assert!(arena(&tight) < arena(&wide));
    assert_eq!(tight["token_ids"], wide["token_ids"]);
    assert_eq!(wide["engine"]["cache_bundles"], 4 * 768);
    assert!(tight["reads_per_token"].as_f64() > wide["reads_per_token"].as_f64());
}

#[test]
fn odd_arguments() {
    let work = Work::new();
    let model = demo_model();
    let model = model.to_str().unwrap();
    let greedy = work.path("greedy.lnp");
    let run = ["run", &greedy, "--model", model, "--buffered", "--prompt"];
    let with = |more: &[&'static str]| [&run[..], more].concat();
    assert!(!ok(&with(&["- a dash", "-n", "2"])).is_empty());
    let none = json(&with(&["x", "-n", "0"]));
    assert_eq!((&none["token_ids"], &none["tokens_per_s"]), (&serde_json::json!([]), &Value::Null));
    let told = String::from_utf8(lnp(&with(&["x", "-n", "0"])).stderr).unwrap();
    assert!(
        !told.contains("tokens/s") && told.starts_with("0 tokens after a prompt of 2"),
        "{told}"
    );
    let told = String::from_utf8(lnp(&with(&["x", "-n", "4", "--ignore-eos"])).stderr).unwrap();
    assert!(told.contains("tokens/s, 4 tokens after a prompt of 2"), "{told}");
    for part in ["peak memory", "attention and embeddings", "engine", "keys and values"] {
        assert!(told.contains(part), "{told}");
    }
    // one pack alone is compared with its own first row
    let trace = work.path("test.trace");
    let alone = ok(&["replay", &greedy, "--traces", &trace, "--simulate", "--tokens", "8"]);
    let linked = alone.lines().find(|line| line.starts_with("linked+collapse ")).unwrap();
    assert!(!linked.ends_with("1.00x"), "{alone}");
}

/// A reader that goes away is no failure, and neither is nobody listening on stderr.
#[test]
fn closed_pipes_are_no_panic() {
    let work = Work::new();
    let (greedy, trace) = (work.path("greedy.lnp"), work.path("test.trace"));
    let binary = env!("CARGO_BIN_EXE_lnp");
    for (line, code) in [
        (format!("'{binary}' inspect '{greedy}' | true; exit ${{PIPESTATUS[0]}}"), 0),
        (format!("'{binary}' link --traces '{trace}' -o '{trace}.l' 2>/dev/full"), 0),
        (format!("'{binary}' link --traces nowhere -o '{trace}.l' 2>/dev/full"), 1),
    ] {
        let status = Command::new("bash").args(["-c", &line]).output().unwrap().status;
        assert_eq!(status.code(), Some(code), "{line}");
    }
}

#[test]
fn an_interrupted_pack_leaves_nothing_behind() {
    let work = Work::new();
    let model = demo_model();
    let target = work.path("big.lnp");
    let before = std::fs::read_dir(work.folder.path()).unwrap().count();
    let mut child = Command::new(env!("CARGO_BIN_EXE_lnp"))
        .args(["pack", "--model", model.to_str().unwrap(), "--placeholder-bundle", "65536"])
        .args(["--copies", "10", "-o", &target])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // interrupted as soon as there is something to leave behind
    let files = || std::fs::read_dir(work.folder.path()).unwrap().count();
    while files() == before {
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "it needs 2 GB of room, and time to write them"
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(files(), before);
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
