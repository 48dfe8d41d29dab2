//! Learning on the device: what a run records makes its pack better, and changes no bit of what is computed.

mod common;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::{demo_model, fails, json, lnp, ok, readers_agree};
use serde_json::Value;

/// A pack of the demo model with predictors of nothing, in model order, and what a run of it was seen to need.
struct Work {
    folder: tempfile::TempDir,
}

const PROMPT: &str =
    "It is a truth universally acknowledged, that a single man in possession of a good fortune";

impl Work {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn new() -> Self {
        let work = Self { folder: common::disk_folder() };
        let model = model();
        let text = format!("{model}/text/profile.txt");
        let trace = work.path("profile.trace");
        ok(&["trace", "--model", &model, "--text", &text, "--tokens", "1024", "-o", &trace]);
        let links = work.path("first.links");
        ok(&["link", "--traces", &trace, "--order", "identity", "-o", &links]);
        let pack = work.path("first.lnp");
        ok(&["pack", "--model", &model, "--links", &links, "--resident", "-o", &pack]);
        work
    }

    /// Runs the model from a pack; the tokens, and what else is told.
    fn run(&self, pack: &str, more: &[&str]) -> Value {
        let (pack, model) = (self.path(pack), model());
        let mut args = vec!["run", &pack, "--model", &model, "--prompt", PROMPT, "-n", "100"];
        args.push("--ignore-eos");
        args.extend(more);
        json(&args)
    }
}

fn model() -> String {
    demo_model().to_str().unwrap().to_owned()
}

#[test]
fn what_was_seen_makes_the_pack_better_and_no_bit_different() {
    let work = Work::new();
    let seen = work.path("seen.trace");
    let old = work.run("first.lnp", &["--record", &seen]);
    // Every token that went through the model is a row: all but the last.
    let tokens = old["prompt_ids"].as_array().unwrap().len() + 99;
    let reader = lnp_link::trace::TraceReader::open(Path::new(&seen)).unwrap();
    assert_eq!((reader.tokens(), reader.window()), (tokens, tokens));
    assert_eq!(reader.token_ids().unwrap(), None);

    let (first, better) = (work.path("first.lnp"), work.path("better.lnp"));
    let told = json(&["relink", &first, "--seen", &seen, "-o", &better]);
    assert_eq!(told["written"], true, "{told}");
    assert_eq!(told["seen_tokens"], tokens as u64);
    assert!(told["gain"].as_f64().unwrap() > 0.1, "{told}");
    assert!(told["layers_linked"].as_u64().unwrap() > 0, "{told}");
    let us = &told["predicted_us_per_token"];
    assert!(us["after"].as_f64() <= us["counted"].as_f64(), "{told}");
    let written = std::fs::metadata(&better).unwrap().len();
    assert_eq!(told["written_bytes"], written);
    assert!(told["written_bytes_per_percent"].as_f64().unwrap() > 0.0);

    // Whole, of the same weights, and read by the second reader too.
    ok(&["verify", &better, "--model", &model()]);
    readers_agree(Path::new(&better));
    let inspected = json(&["inspect", &better]);
    let provenance = &inspected["provenance"];
    assert_eq!(provenance["relink.0.tokens"], tokens.to_string(), "{inspected}");
    assert_eq!(provenance["relink.0.trace.0.file"], "seen.trace");
    assert_eq!(provenance["order"], "identity");
    assert!(provenance["source.0.sha256"].is_string() && provenance["profile.tokens"] == "1024");

    // The same tokens, in fewer reads; with the rest of the model from the pack.
    let new = work.run("better.lnp", &[]);
    assert_eq!(old["token_ids"], new["token_ids"]);
    let reads = |told: &Value| told["reads_per_token"].as_f64().unwrap();
    assert!(reads(&new) < 0.9 * reads(&old), "{} {}", reads(&new), reads(&old));

    // Again, from the new pack: counted on, noted beside the first.
    let again = work.path("again.lnp");
    let profile = work.path("profile.trace");
    let told = json(&["relink", &better, "--seen", &profile, &seen, "-o", &again]);
    assert_eq!(told["written"], true, "{told}");
    let inspected = json(&["inspect", &again]);
    assert_eq!(inspected["provenance"]["relink.1.trace.1.file"], "seen.trace");
    assert_eq!(inspected["provenance"]["relink.0.tokens"], tokens.to_string());
    assert_eq!(old["token_ids"], work.run("again.lnp", &[])["token_ids"]);
}

/// The engine's golden file is a trace.
#[test]
fn the_golden_file_of_a_recorder_is_read() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/tests/golden/recorded.trace");
    let reader = lnp_link::trace::TraceReader::open(Path::new(golden)).unwrap();
    assert_eq!((reader.layers(), reader.neurons(), reader.tokens()), (3, 45, 3));
    assert_eq!(reader.model(), Some("a \"b\" \\ \n"));
    assert_eq!(reader.corpus(), Some("seen"));
    for layer in 0..3 {
        assert_eq!(reader.layer_bits(layer).unwrap().len(), 3 * 6);
        let (counts, tokens) = reader.counted(layer).unwrap().unwrap();
        // Tokens 1 and 3 have bit 0 of their numbers.
        assert_eq!((counts[0], tokens), (2, 5));
    }
}

/// Of a text longer than is recorded, a sample of whole tokens and counts of all are in the trace.
#[test]
fn a_sample_of_what_was_seen_comes_with_counts_of_all() {
    let work = Work::new();
    let (all, some) = (work.path("all.trace"), work.path("some.trace"));
    let run = work.run("first.lnp", &["--record", &all]);
    let same = work.run("first.lnp", &["--record", &some, "--record-tokens", "64"]);
    assert_eq!(run["token_ids"], same["token_ids"]);
    let open = |path: &str| lnp_link::trace::TraceReader::open(Path::new(path)).unwrap();
    let (whole, sample) = (open(&all), open(&some));
    assert_eq!(sample.tokens(), 64);
    let rows_of = |reader: &lnp_link::trace::TraceReader, layer| {
        let row_bytes = reader.neurons().div_ceil(8);
        let bits = reader.layer_bits(layer).unwrap();
        bits.chunks(row_bytes).map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    // Whole tokens, as they came: those of the first layer are found in all others.
    let layers = whole.layers();
    let tokens: Vec<Vec<Vec<u8>>> = (0..whole.tokens())
        .map(|token| (0..layers).map(|layer| rows_of(&whole, layer)[token].clone()).collect())
        .collect();
    let mut rest = tokens.iter();
    for token in 0..64 {
        let found: Vec<Vec<u8>> =
            (0..layers).map(|layer| rows_of(&sample, layer)[token].clone()).collect();
        assert!(rest.any(|whole| *whole == found), "token {token}");
    }
    for layer in 0..layers {
        let mut naive = vec![0; whole.neurons()];
        for row in rows_of(&whole, layer) {
            (0..naive.len()).for_each(|n| naive[n] += u32::from(row[n / 8] >> (n % 8) & 1));
        }
        let counted = Some((naive, whole.tokens() as u64));
        assert_eq!(whole.counted(layer).unwrap(), counted);
        assert_eq!(sample.counted(layer).unwrap(), counted);
    }
    // The pack's new counts are of all tokens.
    let (first, better) = (work.path("first.lnp"), work.path("better.lnp"));
    let told = json(&["relink", &first, "--seen", &some, "-o", &better]);
    assert_eq!((&told["written"], &told["seen_tokens"]), (&true.into(), &64.into()), "{told}");
    let counted = whole.tokens() as u64 + told["prior_tokens"].as_u64().unwrap();
    let index = lnp_pack::PackIndex::open(Path::new(&better)).unwrap();
    assert_eq!(index.pack().unwrap().layer(0).unwrap().profile_tokens(), counted);
    assert_eq!(run["token_ids"], work.run("better.lnp", &[])["token_ids"]);
    let wrong = lnp(&["run", &first, "--record-tokens", "64", "--prompt", "x"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn nothing_is_written_where_nothing_is_gained_or_something_is_wrong() {
    let work = Work::new();
    let (first, seen) = (work.path("first.lnp"), work.path("profile.trace"));
    let target = work.path("x.lnp");
    let relink = |pack: &str, more: &[&str]| {
        let mut args = vec!["relink", pack, "--seen", &seen, "-o", &target];
        args.extend(more);
        let output = lnp(&args);
        assert!(!Path::new(&target).exists());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    // The pack knows this text's counts already, and no layer may move.
    let (code, told) = relink(&first, &["--gain-min", "1"]);
    assert!(code == Some(0) && told.contains("nothing to gain"), "{told}");
    // A bundle that was damaged gets no checksum that fits.
    let mut bytes = std::fs::read(&first).unwrap();
    let index = lnp_pack::PackIndex::open(Path::new(&first)).unwrap();
    let begin = index.pack().unwrap().layer(2).unwrap().region_offset() as usize;
    bytes[begin + 1000] ^= 1;
    let damaged = work.path("damaged.lnp");
    std::fs::write(&damaged, bytes).unwrap();
    let (code, told) = relink(&damaged, &[]);
    assert!(code == Some(1) && told.contains("layer 2: the bundle in slot"), "{told}");
    // What lies where `--resume` keeps its work, and is none.
    for name in ["x.lnp.orders", "x.lnp.part"] {
        let foreign = work.path(name);
        std::fs::write(&foreign, "a diary").unwrap();
        let (code, told) = relink(&first, &["--resume"]);
        assert!(code == Some(1) && told.contains("no interrupted relink left"), "{told}");
        assert!(told.contains(name) && told.lines().count() == 1, "{told}");
        assert_eq!(std::fs::read_to_string(&foreign).unwrap(), "a diary");
        std::fs::remove_file(&foreign).unwrap();
    }
    // Several placements, and the pack itself as the target.
    let links = work.path("two.links");
    ok(&["link", "--traces", &seen, "--order", "replicas:2", "-o", &links]);
    let two = work.path("two.lnp");
    ok(&["pack", "--model", &model(), "--links", &links, "-o", &two]);
    let (code, told) = relink(&two, &[]);
    assert!(code == Some(1) && told.contains("2 placements of each layer"), "{told}");
    fails(&["relink", &first, "--seen", &seen, "-o", &first]);
}

#[test]
fn work_that_is_killed_goes_on_and_makes_the_same_pack() {
    let work = Work::new();
    let (first, seen) = (work.path("first.lnp"), work.path("profile.trace"));
    let (whole, target) = (work.path("whole.lnp"), work.path("x.lnp"));
    let run = |output: &str, more: &[&str]| {
        let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_lnp"));
        process.args(["relink", &first, "--seen", &seen, "-o", output]).args(more);
        process.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    assert!(run(&whole, &[]).wait().unwrap().success());
    let kept =
        |name: &str| std::fs::metadata(format!("{target}.{name}")).map_or(0, |file| file.len());
    // Slow enough that a second of it is some of the layers.
    let bytes = std::fs::metadata(&whole).unwrap().len();
    let rate = (bytes / 4).to_string();
    let mut slow = run(&target, &["--resume", "--rate", &rate]);
    while kept("part") == 0 {
        assert_eq!(slow.try_wait().unwrap(), None);
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(2500));
    slow.kill().unwrap();
    slow.wait().unwrap();
    assert!(!Path::new(&target).exists());
    let orders = std::fs::read_to_string(format!("{target}.orders")).unwrap();
    assert_eq!(orders.lines().count(), 4);
    // A layer that was written is damaged, a line is cut: both are made again.
    let pack = lnp_pack::PackIndex::open(Path::new(&whole)).unwrap();
    let region = pack.pack().unwrap().layer(0).unwrap().region_offset();
    let part =
        std::fs::OpenOptions::new().read(true).write(true).open(format!("{target}.part")).unwrap();
    let (mut byte, mut zeros) = ([0], true);
    for offset in region..region + 4096 {
        part.read_exact_at(&mut byte, offset).unwrap();
        zeros &= byte == [0];
    }
    assert!(!zeros, "nothing was written before the kill");
    part.write_all_at(&[!byte[0]], region + 4095).unwrap();
    std::fs::write(format!("{target}.orders"), &orders[..orders.len() - 40]).unwrap();
    assert!(run(&target, &["--resume"]).wait().unwrap().success());
    assert_eq!(std::fs::read(&target).unwrap(), std::fs::read(&whole).unwrap());
    assert_eq!((kept("part"), kept("orders")), (0, 0));
}
