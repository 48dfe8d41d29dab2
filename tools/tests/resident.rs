//! Packs that hold the rest of the model too: what stands in them, read by the crate `safetensors` alone, is the
//! checkpoint's; a folder without weights is enough to run them; what is damaged is told in one line.

mod common;

use std::path::Path;

use common::{demo_model, disk_folder, fails, json, ok};
use lnp_format::Pack;
use lnp_model::{Checkpoint, DenseNumbers, DenseOptions, DenseType, Model, Resident};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

const PROMPT: &[&str] =
    &["--prompt", "ROMEO:\nWhat light", "-n", "24", "--ignore-eos", "--buffered"];

/// A trace, predictors and a folder with all of a model but its weights.
struct Work(tempfile::TempDir);

impl Work {
    fn new() -> Self {
        let work = Self(disk_folder());
        let model = demo_model();
        let model = model.to_str().unwrap();
        let text = demo_model().join("text/profile.txt");
        let (trace, predictors) = (work.path("t"), work.path("p"));
        let text = text.to_str().unwrap();
        ok(&["trace", "--model", model, "--text", text, "--tokens", "2048", "-o", &trace]);
        let kind = ["--kind", "rows:4", "-o", &predictors];
        ok(&[&["predict", "--model", model, "--traces", &trace][..], &kind].concat());
        std::fs::create_dir(work.path("light")).unwrap();
        for name in ["config.json", "generation_config.json", "tokenizer.json"] {
            std::fs::copy(demo_model().join(name), work.0.path().join("light").join(name)).unwrap();
        }
        work
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A pack of the demo's model, with these options.
    fn pack(&self, name: &str, more: &[&str]) -> String {
        let (out, predictors) = (self.path(name), self.path("p"));
        let model = demo_model();
        let args = ["pack", "--model", model.to_str().unwrap(), "--predictors", &predictors];
        ok(&[&args[..], &["-o", &out], more].concat());
        out
    }

    fn run(&self, pack: &str, model: &str, more: &[&str]) -> Value {
        json(&[&["run", pack, "--model", model][..], PROMPT, more].concat())
    }
}

/// The resident section's bytes.
fn section(pack: &str) -> Vec<u8> {
    let file = std::fs::read(pack).unwrap();
    let (offset, bytes) = Pack::parse(&file, file.len() as u64).unwrap().resident().unwrap();
    file[offset as usize..][..bytes as usize].to_vec()
}

#[test]
fn a_folder_without_weights_is_enough() {
    let work = Work::new();
    let model = demo_model();
    let model = model.to_str().unwrap();
    let light = work.path("light");
    let without = work.pack("without.lnp", &[]);
    for (name, asked, dense) in [
        ("stored", &["--resident"][..], &[][..]),
        ("q8", &["--resident", "q8_0"], &["--dense-dtype", "q8_0"]),
    ] {
        let pack = work.pack(name, asked);
        ok(&["verify", &pack]);
        assert!(ok(&["inspect", &pack]).contains("the rest of the model"));
        let expected = work.run(&without, model, dense);
        let found = work.run(&pack, &light, &[]);
        assert_eq!(found["token_ids"], expected["token_ids"]);
        assert_eq!((&found["resident"], &expected["resident"]), (&true.into(), &false.into()));
        let bytes = |told: &Value| told["engine"]["model_resident_bytes"].as_u64().unwrap();
        assert_eq!(bytes(&found), bytes(&expected));
        // what asks for the model's own weights gets them, or is told that there are none
        let other = work.run(&pack, model, &["--dense-dtype", "f32"]);
        assert_eq!(other["resident"], false);
        let exact = ["run", &pack, "--model", &light, "--quality", "exact"];
        assert!(fails(&[&exact[..], PROMPT].concat()).contains("no *.safetensors"));
    }
    let args = ["run", &without, "--model", &light];
    assert!(fails(&[&args[..], PROMPT].concat()).contains("no *.safetensors"));
}

#[test]
fn what_stands_in_a_pack_is_the_checkpoints() {
    let work = Work::new();
    let section = section(&work.pack("pack", &["--resident"]));
    let read = SafeTensors::deserialize(&section).unwrap();
    let weights = std::fs::read(demo_model().join("model.safetensors")).unwrap();
    let of_model = SafeTensors::deserialize(&weights).unwrap();
    let mut names = read.names();
    names.sort_unstable();
    let of_ffn = |name: &&str| name.contains(".fc1.") || name.contains(".fc2.");
    let mut expected: Vec<&str> = of_model.names();
    expected.retain(|name| !of_ffn(name) && *name != "lm_head.weight");
    expected.sort_unstable();
    assert_eq!(names, expected);
    for name in names {
        let (found, expected) = (read.tensor(name).unwrap(), of_model.tensor(name).unwrap());
        assert!(found == expected, "{name}");
    }
}

/// Of every type: what is promised is written, and read back it is what the model holds of its checkpoint.
#[test]
fn every_type_is_read_back() {
    let folder = disk_folder();
    let path = folder.path().join("part");
    for family in ["opt-350m", "falcon", "gemma3n", "bitnet"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(family);
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let types = DenseType::ALL.map(DenseNumbers::Of);
        for numbers in [&types[..], &[DenseNumbers::Lossless, DenseNumbers::Stored]].concat() {
            let options = DenseOptions { numbers, ..DenseOptions::default() };
            let resident = Resident::of(&checkpoint, options).unwrap();
            let mut bytes = vec![0x77; 1000];
            resident.write(&checkpoint, &mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, 1000 + resident.bytes(), "{family} {numbers:?}");
            std::fs::write(&path, &bytes).unwrap();
            let read = Checkpoint::of_pack(&dir, &path, 1000, resident.bytes()).unwrap();
            assert!(!read.has_ffn() && checkpoint.has_ffn());
            let stored = DenseOptions { numbers: DenseNumbers::Stored, ..options };
            let needed = Model::bytes_needed(&checkpoint, options).unwrap();
            assert_eq!(Model::bytes_needed(&read, stored).unwrap(), needed, "{family} {numbers:?}");
            let (of_pack, own) = (
                Model::held(read, stored).unwrap(),
                Model::held(checkpoint.clone(), options).unwrap(),
            );
            assert_eq!(of_pack.resident_bytes(), needed, "{family} {numbers:?}");
            assert_eq!(own.resident_bytes(), needed, "{family} {numbers:?}");
        }
    }
}

#[test]
fn damaged_sections_are_told_in_one_line() {
    let work = Work::new();
    let pack = work.pack("pack", &["--resident", "q4_0"]);
    let light = work.path("light");
    let file = std::fs::read(&pack).unwrap();
    let (offset, bytes) = Pack::parse(&file, file.len() as u64).unwrap().resident().unwrap();
    let told = |change: &dyn Fn(&mut [u8])| {
        let mut damaged = file.clone();
        change(&mut damaged[offset as usize..][..bytes as usize]);
        let path = work.path("damaged");
        std::fs::write(&path, damaged).unwrap();
        assert!(fails(&["verify", &path]).contains("damaged"));
        fails(&[&["run", &path, "--model", &light][..], PROMPT].concat())
    };
    assert!(told(&|section| section[7] = 1).contains("its resident section: header of"));
    assert!(told(&|section| section[9] = b'}').contains("header is damaged"));
    let swap = |from: &'static str, to: &'static str| {
        told(&move |section: &mut [u8]| {
            let at = section.windows(from.len()).position(|found| found == from.as_bytes());
            section[at.unwrap()..][..to.len()].copy_from_slice(to.as_bytes());
        })
    };
    assert!(swap("\"Q4_0\"", "\"Q9_9\"").contains("is no matrix of Q9_9"));
    assert!(swap("\"Q4_0\"", "\"Q8_0\"").contains("is no matrix of Q8_0"));
    assert!(swap("final_layer_norm.weight", "final_layer_norm.weighs").contains("no tensor"));
    let dtypes = SafeTensors::deserialize(&section(&pack))
        .unwrap()
        .iter()
        .map(|(_, t)| t.dtype())
        .collect::<Vec<_>>();
    assert!(dtypes.contains(&Dtype::U8));
}
