//! `--timeline`: trace events that can be opened, nest, and add up to what `--json` says.

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use common::{demo_model, fails, json, ok, shared_folder};
use serde_json::Value;

/// The demo's model with predictors that look a layer ahead, once for all tests.
fn folder() -> &'static PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = shared_folder("timeline");
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let model = demo_model().to_str().unwrap().to_owned();
        let text = demo_model().join("text/profile.txt").to_str().unwrap().to_owned();
        let model = ["--model", &model];
        let run = |command: &str, more: &[&str]| ok(&[&[command], &model[..], more].concat());
        let traced = ["--text", &text, "--tokens", "2000", "--inputs", "2000"];
        run("trace", &[&traced[..], &["-o", &path("profile.trace")]].concat());
        let (profile, predictors) = (path("profile.trace"), path("model.predictors"));
        ok(&["link", "--traces", &profile, "-o", &path("model.links")]);
        let fitted = ["--bytes", "0.12", "--horizon", "0,1", "-o", &predictors];
        run("predict", &[&["--traces", &profile], &fitted[..]].concat());
        let with = ["--links", &path("model.links"), "--predictors", &predictors];
        run("pack", &[&with[..], &["-o", &path("model.lnp")]].concat());
        let text = demo_model().join("text/test.txt").to_str().unwrap().to_owned();
        let traced = ["--text", &text, "--tokens", "300", "--predictor", &predictors];
        run("trace", &[&traced[..], &["-o", &path("test.trace")]].concat());
        folder
    })
}

fn path(name: &str) -> String {
    folder().join(name).to_str().unwrap().to_owned()
}

/// Events by process and thread.
type Threads = BTreeMap<(u64, u64), Vec<Value>>;

/// The events of a file: those that last, by process and thread.
fn events(name: &str) -> (BTreeMap<u64, String>, Threads) {
    let text = std::fs::read_to_string(path(name)).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let (mut names, mut threads) = (BTreeMap::new(), Threads::new());
    for event in all["traceEvents"].as_array().unwrap() {
        let [pid, tid] = ["pid", "tid"].map(|key| event[key].as_u64().unwrap());
        match event["ph"].as_str().unwrap() {
            "M" if event["name"] == "process_name" => {
                names.insert(pid, event["args"]["name"].as_str().unwrap().to_owned());
            }
            "M" => assert_eq!(event["name"], "thread_name"),
            "X" => threads.entry((pid, tid)).or_default().push(event.clone()),
            other => panic!("{other}"),
        }
    }
    (names, threads)
}

/// Begin and end, nanoseconds.
fn times(event: &Value) -> (u64, u64) {
    let [begin, lasts] = ["ts", "dur"].map(|key| (event[key].as_f64().unwrap() * 1e3).round());
    assert!(begin >= 0.0 && lasts >= 0.0, "{event}");
    (begin as u64, (begin + lasts) as u64)
}

/// Two events of a thread are one within the other, or one after the other.
fn assert_nested(events: &[Value]) {
    let mut sorted: Vec<(u64, u64)> = events.iter().map(times).collect();
    sorted.sort_by_key(|(begin, end)| (*begin, std::cmp::Reverse(*end)));
    let mut open: Vec<(u64, u64)> = Vec::new();
    for (begin, end) in sorted {
        while open.last().is_some_and(|last| last.1 <= begin) {
            open.pop();
        }
        assert!(open.last().is_none_or(|last| end <= last.1), "{begin} to {end} within {open:?}");
        open.push((begin, end));
    }
}

/// Sums over the reads of a process: reads, bytes, gap bytes, reads ahead.
fn sums(threads: &Threads, of: u64) -> [f64; 4] {
    let all = threads.iter().filter(|((pid, _), _)| *pid == of).flat_map(|(_, events)| events);
    all.filter(|event| event["cat"] == "read").fold([0.0; 4], |mut sums, event| {
        let number = |key: &str| event["args"][key].as_f64().unwrap();
        assert!(number("gap_bytes") <= number("bytes"), "{event}");
        sums[0] += 1.0;
        sums[1] += number("bytes");
        sums[2] += number("gap_bytes");
        sums[3] += f64::from(event["args"]["read_ahead"].as_bool().unwrap());
        sums
    })
}

fn assert_same(found: f64, expected: f64, what: &str) {
    assert!(
        (found - expected).abs() <= 1e-6 * expected.abs().max(1.0),
        "{what}: {found}, {expected}"
    );
}

#[test]
fn what_run_writes_adds_up_to_what_it_says() {
    let (pack, out) = (path("model.lnp"), path("run.json"));
    let model = demo_model();
    let run = ["run", &pack, "--model", model.to_str().unwrap(), "--prompt", "Once upon a time"];
    let whole = ["-n", "12", "--ignore-eos", "--ahead", "1", "--timeline", &out];
    let told = json(&[&run[..], &whole, &["--timeline-tokens", "100"]].concat());
    let (names, threads) = events("run.json");
    assert_eq!(names.values().collect::<Vec<_>>(), ["lnp run"]);
    threads.values().for_each(|events| assert_nested(events));

    let fed = (told["prompt_ids"].as_array().unwrap().len() + 11) as f64;
    let of = |key: &str| told[key].as_f64().unwrap() * fed;
    let [reads, bytes, gap, ahead] = sums(&threads, 1);
    assert_same(reads, of("reads_per_token"), "reads");
    assert_same(bytes, of("bytes_read_per_token"), "bytes");
    assert_same(bytes - gap, of("useful_bytes_per_token"), "useful bytes");
    assert_same(ahead, told["ahead"]["reads_per_token"].as_f64().unwrap() * fed, "reads ahead");
    assert!(ahead > 0.0);

    // every layer of every pass, and the passes by their names
    let computing = &threads[&(1, 1)];
    let named = |name: &str| computing.iter().filter(|event| event["name"] == name).count();
    let prompt = told["prompt_ids"].as_array().unwrap().len();
    assert_eq!(named(&format!("prompt, {prompt} tokens")), 1);
    assert_eq!((named("token 2"), named("token 12"), named("token 13")), (1, 1, 0));
    assert_eq!((named("layer 0"), named("layer 3"), named("read and compute")), (12, 12, 48));
    assert!(named("attention") > 0 && named("predict") > 0);

    // a read of a layer lies within its process's time, and the layer's own are submitted within the layer
    let layers: Vec<_> = computing.iter().filter(|event| event["args"]["layer"].is_u64()).collect();
    for read in threads.iter().filter(|((_, tid), _)| *tid > 1).flat_map(|(_, reads)| reads) {
        let (submitted, arrived) = times(read);
        assert!(submitted <= arrived);
        let within = |layer: &&&Value| {
            let (begin, end) = times(layer);
            layer["args"]["layer"] == read["args"]["layer"] && begin <= submitted && arrived <= end
        };
        assert!(read["args"]["read_ahead"] == true || layers.iter().any(|l| within(&l)), "{read}");
    }

    // the first tokens only, and the same text
    let few = json(&[&run[..], &whole, &["--timeline-tokens", "2"]].concat());
    let (_, threads) = events("run.json");
    let passes = |event: &&Value| {
        let name = event["name"].as_str().unwrap();
        name.starts_with("token ") || name.starts_with("prompt, ")
    };
    assert_eq!(threads[&(1, 1)].iter().filter(passes).count(), 2);
    assert_eq!(few["token_ids"], told["token_ids"]);
    assert_eq!(few["bytes_read_per_token"], told["bytes_read_per_token"]);
}

#[test]
fn what_replay_writes_adds_up_for_every_strategy() {
    let (pack, trace, out) = (path("model.lnp"), path("test.trace"), path("replay.json"));
    let replay = ["replay", &pack, "--traces", &trace, "--tokens", "8", "--predicted"];
    let ahead = ["--ahead", "1", "--compute-us", "200", "--simulate"];
    let write = ["--timeline", &out, "--timeline-tokens", "100"];
    let told = json(&[&replay[..], &ahead, &write].concat());
    let (names, threads) = events("replay.json");
    threads.values().for_each(|events| assert_nested(events));
    let rows: Vec<&Value> =
        ["rows", "ahead"].into_iter().flat_map(|key| told[key].as_array().unwrap()).collect();
    assert_eq!(names.len(), rows.len());
    for ((pid, name), row) in names.iter().zip(rows) {
        let number = |key: &str| row[key].as_f64().unwrap();
        let [reads, bytes, gap, _] = sums(&threads, *pid);
        let own = row["strategy"].as_str().map_or("read ahead: ".into(), |own| format!("{own}, "));
        assert!(name.starts_with(&own), "{name}: {row}");
        let tokens = number("tokens");
        assert_same(bytes, number("bytes_read_per_token") * tokens, name);
        if row["strategy"].is_string() {
            // what is counted of the dense baseline is not its reads
            assert_same(reads, number("reads_per_token") * tokens, name);
            assert_same(bytes - gap, number("useful_bytes_per_token") * tokens, name);
        }
    }

    // the numbers are the same without
    let without = json(&[&replay[..], &ahead].concat());
    assert_eq!(told["rows"], without["rows"]);
    assert_eq!(told["ahead"], without["ahead"]);
    // and the same again: the device is simulated
    let text = std::fs::read(&out).unwrap();
    json(&[&replay[..], &ahead, &write].concat());
    assert_eq!(std::fs::read(&out).unwrap(), text);
}

#[test]
fn the_device_itself_can_be_recorded() {
    let (pack, trace, out) = (path("model.lnp"), path("test.trace"), path("device.json"));
    let law = "a_us=10,b_mib_s=1000,combine=sum";
    let replay = ["replay", &pack, "--traces", &trace, "--tokens", "8", "--law", law, "--buffered"];
    ok(&[&replay[..], &["--repeats", "1", "--timeline", &out]].concat());
    let (names, threads) = events("device.json");
    assert!(names.len() >= 4);
    threads.values().for_each(|events| assert_nested(events));
}

#[test]
fn a_file_that_is_read_is_not_written_over() {
    let (pack, trace) = (path("model.lnp"), path("test.trace"));
    let told = fails(&["replay", &pack, "--traces", &trace, "--simulate", "--timeline", &trace]);
    assert!(told.contains("which is read; give another path"), "{told}");
}
