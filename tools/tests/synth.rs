//! `lnp synth` as scripts see it: the same seed gives the same file, everything made from it says
//! that it is synthetic, and it links as the real traces do.

mod common;

use std::path::Path;

use common::{MODELS, fails, json, lnp, models, ok};
use lnp_link::trace::{TraceData, TraceReader, write_trace};

/// A small trace: each token has the neurons of one of twelve groups, mostly.
fn write_small(path: &Path, model: &str) {
    let (neurons, tokens) = (96, 640);
    let mut state = 1u64;
    let mut below = |end: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % end
    };
    let mut layer = || -> Vec<u8> {
        let mut bits = vec![0u8; tokens * neurons / 8];
        for row in bits.chunks_mut(neurons / 8) {
            let group = below(12) as usize;
            for neuron in 0..neurons {
                let often = if neuron % 12 == group { 70 } else { 3 };
                row[neuron / 8] |= u8::from(below(100) < often) << (neuron % 8);
            }
        }
        bits
    };
    let data = TraceData {
        model: model.into(),
        corpus: "made, up".into(),
        split: "profile".into(),
        active: "made up".into(),
        neurons,
        tokens,
        window: 32,
        token_ids: None,
        inputs: None,
        predicted: None,
        synthetic: None,
        layers: vec![layer(), layer()],
    };
    write_trace(path, &data).unwrap();
}

struct Work(tempfile::TempDir);

impl Work {
    fn new() -> Self {
        let work = Self(tempfile::tempdir().unwrap());
        write_small(Path::new(&work.path("real.trace")), "m");
        work
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn args<'a>(&self, real: &'a str, output: &'a str) -> Vec<&'a str> {
        let shape = ["--layers", "5", "--neurons", "201", "--tokens", "300", "--active", "0.07"];
        [&["synth", "--traces", real, "-o", output], &shape[..]].concat()
    }
}

#[test]
fn the_same_seed_gives_the_same_file() {
    let work = Work::new();
    let real = work.path("real.trace");
    let bytes = |name: &str, more: &[&str]| {
        let output = work.path(name);
        ok(&[&work.args(&real, &output)[..], more].concat());
        std::fs::read(&output).unwrap()
    };
    let first = bytes("a", &[]);
    assert_eq!(first, bytes("b", &["--unmeasured"]));
    assert_eq!(first, bytes("c", &["--seed", "0", "--json"]));
    assert_ne!(first, bytes("d", &["--seed", "1"]));
    assert_ne!(bytes("e", &["--split", "profile"]), bytes("f", &["--split", "test"]));
    // one thread or several
    let output = work.path("g");
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_lnp"))
        .args(work.args(&real, &output))
        .env("RAYON_NUM_THREADS", "1")
        .status();
    assert!(status.unwrap().success());
    assert_eq!(first, std::fs::read(&output).unwrap());

    let trace = TraceReader::open(Path::new(&output)).unwrap();
    assert_eq!((trace.layers(), trace.neurons(), trace.tokens()), (5, 201, 300));
    assert_eq!((trace.window(), trace.is_synthetic()), (32, true));
    let ones: u32 = (0..5)
        .flat_map(|layer| trace.layer_bits(layer).unwrap())
        .map(|byte| byte.count_ones())
        .sum();
    let share = f64::from(ones) / (5.0 * 201.0 * 300.0);
    assert!((share - 0.07).abs() < 0.007, "{share}");
}

#[test]
fn everything_made_from_it_says_synthetic() {
    let work = Work::new();
    let real = work.path("real.trace");
    let [profile, test, links] =
        ["profile.trace", "test.trace", "links"].map(|name| work.path(name));
    for (output, split) in [(&profile, "profile"), (&test, "test")] {
        let told = json(&[&work.args(&real, output)[..], &["--split", split]].concat());
        assert_eq!(told["synthetic"], true);
        let means = &told["mean_over_layers"];
        for column in ["real", "synthetic_same_shape", "synthetic_from_half", "synthetic_written"] {
            assert!(means[column]["overlap_1"].is_number(), "{column}");
        }
        assert!(means["real"]["greedy_gain"].is_number());
    }
    let linked = json(&["link", "--traces", &profile, "-o", &links]);
    assert_eq!(linked["synthetic"], true);
    assert_eq!(linked["model"], "synthetic(m)");
    assert_eq!(linked["corpora"][0], "synthetic(made  up)");
    let of_real = work.path("real.links");
    assert_eq!(json(&["link", "--traces", &real, "-o", &of_real])["synthetic"], false);
    let replay =
        ["replay", "--simulate", "--bundle-bytes", "4096", "--traces", &test, "--links", &links];
    assert_eq!(json(&replay)["trace"]["synthetic"], true);
    assert!(ok(&replay).starts_with("synthetic(made  up) of synthetic(m), 300 tokens"));
    // its own kind is refused as a source: the statistics would be those of a copy of a copy
    let told = fails(&work.args(&test, &work.path("again")));
    assert!(told.contains("synthetic itself"), "{told}");
}

#[test]
fn wrong_input_is_refused() {
    let work = Work::new();
    let (real, output) = (work.path("real.trace"), work.path("out"));
    for (option, value) in [
        ("--layers", "0"),
        ("--neurons", "0"),
        ("--tokens", "0"),
        ("--active", "0"),
        ("--active", "1"),
        ("--active", "-0.1"),
        ("--active", "NaN"),
        ("--split", "train"),
    ] {
        let mut args = vec!["synth", "--traces", &real, "-o", &output];
        for (name, usual) in [("--layers", "2"), ("--neurons", "96")] {
            args.extend([name, usual].iter().filter(|_| name != option));
        }
        let given = format!("{option}={value}");
        args.push(&given);
        assert_eq!(lnp(&args).status.code(), Some(2), "{given}");
    }
    assert!(fails(&work.args(&real, &real)).contains("which is read"));
    assert!(fails(&work.args(&work.path("none"), &output)).contains("none"));
    let mut large = work.args(&real, &output);
    large[6] = "5000";
    assert!(fails(&large).contains("5000 layers: 1 to 4096"));
    let other = work.path("other.trace");
    write_small(Path::new(&other), "another");
    let mut two = work.args(&real, &output);
    two.insert(3, &other);
    assert!(fails(&two).contains("one model's traces at a time"));
    assert!(!Path::new(&output).exists());
}

/// The promise: learned from every neuron or from half of them, the gain of greedy links over model
/// order is that of the real layers, within 3 and 9 per cent.
#[test]
fn synthetic_traces_link_as_real_ones_do() {
    let Some(models) = models() else { return };
    for model in MODELS {
        let real = models.join(model).join("traces/alpaca.profile.safetensors");
        let output = common::disk_folder();
        let output = output.path().join("t");
        let told = json(&[
            "synth",
            "--traces",
            real.to_str().unwrap(),
            "--layers",
            "1",
            "--neurons",
            "64",
            "--tokens",
            "64",
            "-o",
            output.to_str().unwrap(),
        ]);
        let gain = |column: &str| told["mean_over_layers"][column]["greedy_gain"].as_f64().unwrap();
        let error = |column: &str| (gain(column) / gain("real") - 1.0).abs();
        let (same, half) = (error("synthetic_same_shape"), error("synthetic_from_half"));
        assert!(same < 0.03 && half < 0.09, "{model}: {same:.4} {half:.4}");
    }
}
