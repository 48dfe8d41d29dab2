//! The error cases of the command line, written down in `errors/*.trycmd`: exit code 1 and one line,
//! or 2 and the usage. And names from files, which must not reach a terminal as they are.
//!
//! `TRYCMD=overwrite cargo test --test errors` writes down what is printed now.

mod common;
#[path = "../../format/tests/common/mod.rs"]
mod recipe;
#[path = "../predict/tests/torch/mod.rs"]
mod torch;

use std::path::{Path, PathBuf};

use common::{demo_model, lnp, ok};
use lnp_format::SectionKind;
use serde_json::{Value, json};

/// What the cases read, in a folder that they are run in.
struct Inputs {
    folder: PathBuf,
}

impl Inputs {
    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.folder.join(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(name)).unwrap()
    }

    /// A pipe that nobody writes into.
    fn pipe(&self, name: &str) {
        let made = std::process::Command::new("mkfifo").arg(self.folder.join(name)).status();
        assert!(made.unwrap().success());
    }

    /// A model folder: the demo's files but for those that are given.
    fn model(&self, name: &str, own: &[(&str, &[u8])]) {
        let folder = self.folder.join(name);
        std::fs::create_dir(&folder).unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            match own.iter().find(|(own, _)| *own == file) {
                Some((_, [])) => {}
                Some((_, bytes)) => std::fs::write(folder.join(file), bytes).unwrap(),
                None => {
                    std::os::unix::fs::symlink(demo_model().join(file), folder.join(file)).unwrap()
                }
            }
        }
    }

    /// A JSON file of the demo with one key changed.
    fn changed(file: &str, key: &str, value: Value) -> Vec<u8> {
        let text = std::fs::read(demo_model().join(file)).unwrap();
        let mut json: Value = serde_json::from_slice(&text).unwrap();
        json[key] = value;
        serde_json::to_vec(&json).unwrap()
    }

    /// A copy of a trace or links file with some metadata changed.
    fn with_metadata(&self, from: &str, to: &str, changes: &[(&str, &str)]) {
        let bytes = self.read(from);
        let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: Value = serde_json::from_slice(&bytes[8..end]).unwrap();
        for (key, value) in changes {
            header["__metadata__"][key] = json!(value);
        }
        let mut text = serde_json::to_vec(&header).unwrap();
        text.resize(text.len().next_multiple_of(8), b' ');
        let length = (text.len() as u64).to_le_bytes();
        self.put(to, [&length[..], &text, &bytes[end..]].concat());
    }

    fn make(folder: &Path) -> Self {
        let inputs = Self { folder: folder.to_owned() };
        inputs.sound_ones();
        inputs.broken_ones();
        inputs.models();
        inputs
    }

    fn sound_ones(&self) {
        self.model("demo", &[]);
        self.model(
            "shallow",
            &[("config.json", &Self::changed("config.json", "num_hidden_layers", json!(3)))],
        );
        self.put("text.txt", "To be, or not to be");
        let [demo, shallow, text] = ["demo", "shallow", "text.txt"].map(|name| self.path(name));
        let [trace, links, pack] =
            ["demo.trace", "demo.links", "demo.lnp"].map(|name| self.path(name));
        ok(&["trace", "--model", &demo, "--text", &text, "-o", &trace]);
        ok(&["link", "--traces", &trace, "--order", "identity", "-o", &links]);
        ok(&["pack", "--model", &demo, "--links", &links, "-o", &pack]);
        let [trace, links, pack] =
            ["other.trace", "other.links", "other.lnp"].map(|name| self.path(name));
        ok(&["trace", "--model", &shallow, "--text", &text, "-o", &trace]);
        ok(&["link", "--traces", &trace, "--order", "identity", "-o", &links]);
        ok(&["pack", "--model", &shallow, "--links", &links, "-o", &pack]);
        let (synthetic, fake) = (self.path("synthetic.trace"), self.path("placeholders.lnp"));
        let traces = self.path("demo.trace");
        ok(&["synth", "--traces", &traces, "--layers", "2", "--neurons", "64", "-o", &synthetic]);
        ok(&["pack", "--model", &demo, "--placeholder-bundle", "4096", "-o", &fake]);
        self.predictors();
    }

    fn predictors(&self) {
        let text = demo_model().join("text/test.txt");
        let demo = self.path("demo");
        let [long, no_ids] = ["long.trace", "no-ids.trace"].map(|name| self.path(name));
        let args = ["trace", "--model", &demo, "--text", text.to_str().unwrap(), "--tokens", "600"];
        ok(&[&args[..], &["--inputs", "600", "-o", &long]].concat());
        let shape = ["--layers", "4", "--neurons", "768"];
        ok(&[&["synth", "--traces", &long, "-o", &no_ids], &shape[..]].concat());
        for (name, horizon) in [("demo.predictors", "0"), ("ahead.predictors", "1")] {
            let out = self.path(name);
            let args = ["predict", "--model", &demo, "--traces", &long, "--rank", "32"];
            ok(&[&args[..], &["--horizon", horizon, "-o", &out]].concat());
        }
    }

    /// Folders of predictors that others made, none of them whole.
    fn others_predictors(&self) {
        let file = |hidden: u32, value: f32| {
            let reduce = vec![value; 2 * hidden as usize];
            torch::state_dict(&[
                ("fc1.weight", &[2, hidden], &reduce),
                ("fc2.weight", &[768, 2], &[0.5; 2 * 768]),
            ])
        };
        let sound = file(192, 0.5);
        for folder in ["few", "broken", "narrow", "nan"] {
            std::fs::create_dir(self.folder.join(folder)).unwrap();
            for layer in 0..4 {
                self.put(&format!("{folder}/model_{layer}.pt"), &sound);
            }
        }
        std::fs::remove_file(self.folder.join("few/model_2.pt")).unwrap();
        self.put("broken/model_3.pt", &sound[..sound.len() / 2]);
        self.put("narrow/model_1.pt", file(191, 0.5));
        self.put("nan/model_0.pt", file(192, f32::NAN));
    }

    fn broken_ones(&self) {
        std::fs::create_dir(self.folder.join("folder")).unwrap();
        self.put("garbage", [0xfe; 9000]);
        self.put("empty", "");
        for name in ["demo.trace", "demo.links", "demo.lnp", "demo.predictors"] {
            let bytes = self.read(name);
            self.put(&name.replace("demo", "cut"), &bytes[..bytes.len() / 2]);
        }
        let mut bytes = self.read("demo.lnp");
        let at = bytes.len() - 500_000;
        bytes[at..].iter_mut().for_each(|byte| *byte ^= 1);
        self.put("damaged.lnp", bytes);
        // relu2 in the model shape's place of relu, with checksums that fit
        let relu2 = |shape: &mut [u8]| shape[16] = 3;
        let bytes = recipe::with_section(&self.read("demo.lnp"), SectionKind::ModelShape, relu2);
        self.put("relu2.lnp", bytes);
        self.others_predictors();
        self.pipe("pipe");
        std::fs::create_dir(self.folder.join("charts")).unwrap();
        self.put("charts/throughput.svg", vec![0x5a; 1 << 20]);
        self.with_metadata("demo.trace", "no-number.trace", &[("layers", "four")]);
        self.with_metadata("demo.trace", "beyond.trace", &[("neurons", "760")]);
        self.with_metadata("demo.trace", "renamed.trace", &[("model", "another")]);
        self.with_metadata("demo.trace", "same.trace", &[("split", "test")]);
        self.with_metadata("demo.links", "newer.links", &[("format", "lnp-links-v9")]);
        self.put("diary.orders", "A page a day.");
        let [pack, seen] = ["demo.lnp", "seen.trace"].map(|name| self.path(name));
        let demo = self.path("demo");
        let run = ["run", &pack, "--model", &demo, "--prompt", "Once upon a time", "-n", "4"];
        ok(&[&run[..], &["--buffered", "--record", &seen]].concat());
        self.with_metadata("seen.trace", "uncounted.trace", &[("counted_tokens", "some")]);
        self.with_metadata("seen.trace", "overcounted.trace", &[("counted_tokens", "1")]);
        self.with_metadata("demo.links", "no-traces.links", &[("traces", "none")]);
        self.with_metadata("demo.links", "no-corpus.links", &[("corpora", "")]);
        let newer = [("format", "lnp-predictors-v9")];
        self.with_metadata("demo.predictors", "newer.predictors", &newer);
        self.put("text.toml", "law = 1\n");
        self.put("no-device.toml", "[law]\na_us = 10.0\nb_mib_s = 0.0\ncombine = \"sum\"\n");
        self.put("law.toml", "[law]\na_us = 10.0\nb_mib_s = 900.0\ncombine = \"sum\"\n");
        std::fs::create_dir(self.folder.join("studied")).unwrap();
        self.put("studied/study.json", self.read("law.toml"));
        std::fs::File::create(self.folder.join("sparse")).unwrap().set_len(1 << 30).unwrap();
    }

    /// What is given for a model folder, or lies in one, and is something else.
    fn others(&self) {
        self.put("model.gguf", b"GGUF\x03\0\0\0");
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
        for (name, file) in [
            ("pointer", "model.safetensors"),
            ("pointer-config", "config.json"),
            ("pointer-tokenizer", "tokenizer.json"),
        ] {
            self.model(name, &[(file, pointer)]);
        }
        self.model("sentencepiece", &[("tokenizer.json", b"")]);
        self.put("sentencepiece/tokenizer.model", "");
        self.model("byte-pairs", &[("tokenizer.json", b"")]);
        self.put("byte-pairs/vocab.json", "{}");
        self.model("pickled", &[("model.safetensors", b"")]);
        self.put("pickled/pytorch_model.bin", "");
        self.model("ends", &[]);
        self.put("ends/generation_config.json", "[]");
    }

    fn models(&self) {
        let config = std::fs::read(demo_model().join("config.json")).unwrap();
        self.model("own-config", &[("config.json", &config)]);
        self.model("piped", &[("config.json", b"")]);
        self.pipe("piped/config.json");
        self.model("no-config", &[("config.json", b"")]);
        self.model("no-weights", &[("model.safetensors", b"")]);
        self.model("no-tokenizer", &[("tokenizer.json", b"")]);
        self.model("no-json", &[("config.json", b"{")]);
        self.others();
        self.model("cut", &[("model.safetensors", b"\x08\0\0\0\0\0\0\0{}")]);
        for (name, key, value) in [
            ("gpt2", "model_type", json!("gpt2")),
            ("gelu", "activation_function", json!("gelu")),
            ("quick-gelu", "activation_function", json!("quick_gelu")),
            ("experts", "num_local_experts", json!(8)),
            ("words", "ffn_dim", json!("many")),
            ("bare", "layer_norm_elementwise_affine", json!(false)),
            ("heads", "num_attention_heads", json!(7)),
            ("deep", "num_hidden_layers", json!(5)),
            ("wide", "ffn_dim", json!(1024)),
        ] {
            self.model(name, &[("config.json", &Self::changed("config.json", key, value))]);
        }
        for (name, key, value) in [
            ("no-charsmap", "normalizer", json!({"type": "Precompiled"})),
            ("no-pieces", "pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
        ] {
            let file = "tokenizer.json";
            self.model(name, &[(file, &Self::changed(file, key, value))]);
        }
        // every weight after the header of the file negated
        let mut bytes = std::fs::read(demo_model().join("model.safetensors")).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[header..].iter_mut().skip(1).step_by(2).for_each(|high| *high ^= 0x80);
        self.model("negated", &[("model.safetensors", &bytes)]);
    }
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors")
}

/// The commands of the cases are run in the folder of the inputs, which trycmd takes from the process:
/// nothing else in this file goes by the current folder.
#[test]
fn trouble_is_as_written_down() {
    let folder = common::disk_folder();
    Inputs::make(folder.path());
    std::env::set_current_dir(folder.path()).unwrap();
    trycmd::TestCases::new()
        .register_bin("lnp", Path::new(env!("CARGO_BIN_EXE_lnp")))
        .case(cases().join("*.trycmd"))
        .run();
    std::env::set_current_dir(env!("CARGO_MANIFEST_DIR")).unwrap();
}

#[test]
fn trouble_is_one_line_or_the_usage() {
    let mut counts = [0; 2];
    for file in std::fs::read_dir(cases()).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for case in text.split("\n$ ").skip(1) {
            let case = case.split("```").next().unwrap();
            let lines: Vec<&str> = case.lines().filter(|line| !line.is_empty()).collect();
            match lines[1] {
                "? 1" => {
                    // warnings may go before it
                    let (last, before) = lines[2..].split_last().unwrap();
                    assert!(last.starts_with("lnp: ") && !last.contains("warning"), "{case}");
                    assert!(before.iter().all(|line| line.starts_with("lnp: warning: ")), "{case}");
                    counts[0] += 1;
                }
                "? 2" => {
                    assert!(
                        case.contains("Usage: lnp") || case.contains("For more information"),
                        "{case}"
                    );
                    counts[1] += 1;
                }
                _ => panic!("neither 1 nor 2: {case}"),
            }
        }
    }
    println!("cases of exit code 1: {}, of 2: {}", counts[0], counts[1]);
}

/// A name that turns a terminal red, rings, moves the cursor up and goes on in a line of its own.
const HOSTILE: &str = "a\u{1b}[31m\u{7}\u{9b}1A\nlnp: b";

#[test]
fn names_from_files_are_printed_harmlessly() {
    let folder = common::disk_folder();
    let inputs = Inputs::make(folder.path());
    inputs.with_metadata("demo.trace", "hostile.trace", &[("model", HOSTILE), ("corpus", HOSTILE)]);
    inputs.with_metadata("hostile.trace", "test.trace", &[("split", "test")]);
    inputs.with_metadata("demo.trace", "kind.trace", &[("format", HOSTILE)]);
    inputs.with_metadata("demo.links", "order.links", &[("order", HOSTILE)]);
    let corpora = [("corpora", HOSTILE), ("model", HOSTILE)];
    inputs.with_metadata("demo.links", "hostile.links", &corpora);
    inputs.put("hostile.toml", format!("[law]\n{HOSTILE}"));
    inputs.model(
        "hostile",
        &[("config.json", &Inputs::changed("config.json", "model_type", json!(HOSTILE)))],
    );
    inputs.put(&format!("{HOSTILE}.lnp"), "no pack");

    let path = |name: &str| inputs.path(name);
    let (demo, out, pack) = (path("demo"), path("out"), path("demo.lnp"));
    let (trace, links) = (path("hostile.trace"), path("hostile.links"));
    let told = |args: &[&str], code: i32| {
        let output = lnp(args);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (shown, said) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "lnp {args:?}: {said}");
        let control = |c: char| c.is_control() && c != '\n';
        assert!(!shown.contains(control) && !said.contains(control), "{shown:?} {said:?}");
        assert!(!shown.contains("\nlnp: b") && !said.contains("\nlnp: b"), "{shown:?} {said:?}");
        assert!(code == 0 || said.lines().count() == 1, "{said:?}");
    };
    let law = ["--law", "a_us=10,b_mib_s=900,combine=sum"];
    told(&["link", "--traces", &trace, "--order", "identity", "-o", &out], 0);
    told(&["link", "--traces", &path("demo.trace"), &trace, "-o", &out], 1);
    told(&[&["replay", &pack, "--traces", &trace, "--simulate"], &law[..]].concat(), 0);
    told(&["perplexity", &pack, "--model", &demo, "--tokens", &trace, "--buffered"], 0);
    told(&["synth", "--traces", &trace, "--layers", "2", "--neurons", "64", "-o", &out], 0);
    let (test, study) = (path("test.trace"), path("study"));
    told(&["study", "--traces", &trace, "--tests", &test, "--orders", "greedy", "-o", &study], 0);
    told(&["pack", "--model", &demo, "--links", &links, "-o", &out], 0);
    told(&["inspect", &out], 0);
    told(&["replay", &pack, "--traces", &path("kind.trace"), "--simulate"], 1);
    told(&["pack", "--model", &demo, "--links", &path("order.links"), "-o", &out], 1);
    told(&["run", &pack, "--model", &path("hostile"), "--prompt", "x"], 1);
    told(&["link", "--traces", &trace, "--device", &path("hostile.toml"), "-o", &out], 1);
    let renamed = |from: &str, kind: &str| {
        let name = format!("sound {HOSTILE}.{kind}");
        std::fs::hard_link(path(from), path(&name)).unwrap();
        path(&name)
    };
    let (sound, law) = (renamed("demo.lnp", "lnp"), renamed("law.toml", "toml"));
    told(&["verify", &sound], 0);
    told(&["inspect", &sound], 0);
    told(&["replay", &sound, "--traces", &trace, "--simulate", "--device", &law], 0);
    told(&["run", &sound, "--model", &demo, "--prompt", "x", "-n", "1", "--buffered"], 0);
    told(&["pack", "--model", &demo, "-o", &sound], 0);
    told(&["link", "--traces", &trace, "--order", "identity", "-o", &sound], 0);
    let big = renamed("placeholders.lnp", "bin");
    told(&["probe", &big, "--size", "4K", "--seconds", "0.2", "--buffered"], 0);
    told(&["inspect", &path(&format!("{HOSTILE}.lnp"))], 1);
    told(&["verify", &path(&format!("{HOSTILE}.lnp"))], 1);
}
