//! Files that claim more than any machine has: one line and exit code 1, in a bounded address space.
//!
//! Sparse files: they are as long as they say, and cost nothing.

mod common;
#[path = "../../format/tests/common/mod.rs"]
mod recipe;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{demo_model, disk_folder};
use lnp_format::layout::{SectionEntry, Superblock};
use lnp_format::limits::{INDEX_BYTES_MAX, SUPERBLOCK_BYTES};
use lnp_format::write;
use recipe::{Recipe, with_superblock};
use serde_json::{Value, json};
use zerocopy::byteorder::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

/// What `lnp` may have of address space, KiB.
const ADDRESS_SPACE_KIB: u32 = 1 << 20;

/// Runs `lnp` under a limit of the shell's.
fn limited(limit: &str, args: &[&str]) -> Output {
    limited_to(limit, "2", args)
}

/// The same with so many threads asked for.
fn limited_to(limit: &str, threads: &str, args: &[&str]) -> Output {
    let script = format!("ulimit {limit}; exec \"$0\" \"$@\"");
    Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_lnp")])
        .args(args)
        .env("RAYON_NUM_THREADS", threads)
        .output()
        .unwrap()
}

/// Runs `lnp`, which must fail with one line; returns that.
fn fails_bounded(args: &[&str]) -> String {
    fails_limited(&format!("-v {ADDRESS_SPACE_KIB}"), args)
}

fn fails_limited(limit: &str, args: &[&str]) -> String {
    let done = limited(limit, args);
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{args:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
    said
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

/// A file that begins with `start` and ends after `bytes`, a hole between.
fn sparse(folder: &Path, name: &str, start: &[u8], bytes: u64) -> String {
    let path = path(folder, name);
    let file = std::fs::File::create(&path).unwrap();
    file.write_all_at(start, 0).unwrap();
    file.set_len(bytes).unwrap();
    path
}

#[test]
fn packs_with_a_large_index() {
    let folder = disk_folder();
    let pack = Recipe::small(1, 8).build();
    // Claimed by the superblock alone: the section table lies within the hole.
    let claimed = with_superblock(&pack, |superblock| {
        superblock.index_bytes = U64::new(INDEX_BYTES_MAX);
        superblock.file_bytes = U64::new(INDEX_BYTES_MAX + 4096);
    });
    let claimed =
        sparse(folder.path(), "claimed", &claimed[..SUPERBLOCK_BYTES], INDEX_BYTES_MAX + 4096);
    // By a table that is right, with a section that nobody knows before the bundles.
    let mut table = table_of(&pack);
    let last = table.len() - 1;
    let mut unknown = table[last - 1];
    unknown.kind = U32::new(unknown.kind.get() + 1);
    unknown.bytes = U64::new(INDEX_BYTES_MAX - 65_536);
    table.insert(last, unknown);
    let bytes = write::place(&mut table, 512).unwrap();
    let superblock = write::seal(&table, bytes, 512, 0);
    let start = [superblock.as_bytes(), table.as_bytes()].concat();
    let sealed = sparse(folder.path(), "sealed", &start, bytes.file_bytes);
    for command in ["inspect", "verify"] {
        let said = fails_bounded(&[command, &claimed]);
        assert!(said.contains("section table"), "{said}");
        let said = fails_bounded(&[command, &sealed]);
        assert!(said.contains("the index does not fit into memory"), "{said}");
    }
}

/// The section table of a pack.
fn table_of(pack: &[u8]) -> Vec<SectionEntry> {
    let count = Superblock::ref_from_prefix(pack).unwrap().0.section_count.get() as usize;
    let table = &pack[SUPERBLOCK_BYTES..][..count * size_of::<SectionEntry>()];
    <[SectionEntry]>::ref_from_bytes(table).unwrap().to_vec()
}

/// The demo model's weights under another config.json.
fn model(folder: &Path, changes: &[(&str, Value)]) -> String {
    let dir = folder.join("model");
    std::fs::create_dir(&dir).unwrap();
    for file in ["model.safetensors", "tokenizer.json"] {
        std::os::unix::fs::symlink(demo_model().join(file), dir.join(file)).unwrap();
    }
    let text = std::fs::read(demo_model().join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    for (key, value) in changes {
        config[*key] = value.clone();
    }
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    path(folder, "model")
}

#[test]
fn models_of_two_thousand_million_neurons() {
    let folder = disk_folder();
    let claims = [("num_hidden_layers", json!(65_536)), ("ffn_dim", json!(32_768))];
    let model = model(folder.path(), &claims);
    let pack = path(folder.path(), "x.lnp");
    let said = fails_bounded(&["pack", "--model", &model, "-o", &pack]);
    assert!(said.contains("fc1.weight` has shape"), "{said}");
    let said =
        fails_bounded(&["pack", "--model", &model, "--placeholder-bundle", "1", "-o", &pack]);
    assert!(said.contains("index_bytes"), "{said}");
    assert!(!PathBuf::from(pack).exists());
}

#[test]
fn a_model_whose_index_is_larger_than_memory() {
    let folder = disk_folder();
    let claims = [("num_hidden_layers", json!(10)), ("ffn_dim", json!(16_777_216))];
    let model = model(folder.path(), &claims);
    let pack = path(folder.path(), "x.lnp");
    let said =
        fails_bounded(&["pack", "--model", &model, "--placeholder-bundle", "1", "-o", &pack]);
    assert!(said.contains("no memory for an index of"), "{said}");
}

#[test]
fn a_file_longer_than_the_shell_allows() {
    let folder = disk_folder();
    let (demo, pack) = (demo_model(), path(folder.path(), "x.lnp"));
    let said = fails_limited("-f 100", &["pack", "--model", demo.to_str().unwrap(), "-o", &pack]);
    assert!(said.contains("a file may have 50.0 KiB here (ulimit -f)"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_header_of_hundreds_of_thousands_of_tensors() {
    let folder = disk_folder();
    let tensors: Vec<_> =
        (0..300_000).map(|at| (format!("tensor.{at:020}"), "U8", vec![0])).collect();
    let (start, bytes) = header(json!({}), &tensors);
    let links = sparse(folder.path(), "links", &start, bytes);
    let demo = demo_model();
    let pack = path(folder.path(), "x.lnp");
    let said =
        fails_bounded(&["pack", "--model", demo.to_str().unwrap(), "--links", &links, "-o", &pack]);
    assert!(said.contains("metadata entry 'format' is missing"), "{said}");
}

/// The start of a safetensors file.
fn header(metadata: Value, tensors: &[(String, &str, Vec<u64>)]) -> (Vec<u8>, u64) {
    let mut json = serde_json::Map::from_iter([("__metadata__".to_owned(), metadata)]);
    let mut end = 0;
    for (name, dtype, shape) in tensors {
        let begin = end;
        end += shape.iter().product::<u64>() * if *dtype == "U8" { 1 } else { 4 };
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]});
        json.insert(name.clone(), entry);
    }
    let text = Value::Object(json).to_string();
    let start = [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let bytes = start.len() as u64 + end;
    (start, bytes)
}

#[test]
fn links_of_four_thousand_million_holes() {
    let folder = disk_folder();
    let (layers, neurons) = (4096, 1 << 20);
    let mut tensors = Vec::new();
    for layer in 0..layers {
        for (array, entries) in
            [("neuron_of_slot", neurons), ("link_begin", 2), ("active_count", neurons)]
        {
            tensors.push((format!("{array}.{layer}"), "U32", vec![entries]));
        }
    }
    let metadata = json!({
        "format": "lnp-links-v1", "layers": "4096", "neurons": "1048576", "order": "greedy",
        "profile_tokens": "1", "corpora": "a", "model": "m", "tool": "t",
        "traces": json!([{"file": "a", "sha256": "0".repeat(64)}]).to_string(),
    });
    let (start, bytes) = header(metadata, &tensors);
    let links = sparse(folder.path(), "links", &start, bytes);
    let demo = demo_model();
    let pack = path(folder.path(), "x.lnp");
    let said =
        fails_bounded(&["pack", "--model", demo.to_str().unwrap(), "--links", &links, "-o", &pack]);
    assert!(said.contains("layer 0: neuron 0 is in slots 0 and 1"), "{said}");
}

#[test]
fn a_trace_of_four_thousand_million_tokens() {
    let folder = disk_folder();
    let tokens = u64::from(u32::MAX);
    let metadata = json!({
        "layers": "1", "neurons": "8", "tokens": tokens.to_string(), "window": "16",
    });
    let tensors = [
        ("layer.0".to_owned(), "U8", vec![tokens, 1]),
        ("token_ids".to_owned(), "I32", vec![tokens]),
    ];
    let (start, bytes) = header(metadata, &tensors);
    let trace = sparse(folder.path(), "trace", &start, bytes);
    let demo = demo_model();
    let out = path(folder.path(), "out.trace");
    let model = demo.to_str().unwrap();
    let said = fails_bounded(&["trace", "--model", model, "--token-ids", &trace, "-o", &out]);
    assert!(said.contains("no memory for"), "{said}");
}

/// Each thread takes address space for its stack.
#[test]
fn threads_that_cannot_be_had() {
    let folder = disk_folder();
    let (demo, trace) = (demo_model(), path(folder.path(), "x.trace"));
    let (model, text) = (demo.to_str().unwrap(), demo.join("text/test.txt"));
    let args = ["trace", "--model", model, "--text", text.to_str().unwrap(), "--tokens", "8"];
    let done = limited_to("-v 4194304", "60000", &[&args[..], &["-o", &trace]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_trace_of_little_more_than_tokens() {
    let folder = disk_folder();
    let tokens = 200_000_000;
    let metadata = json!({
        "layers": "1", "neurons": "8", "tokens": tokens.to_string(), "window": "1",
    });
    let (start, bytes) = header(metadata, &[("layer.0".to_owned(), "U8", vec![tokens, 1])]);
    let trace = sparse(folder.path(), "trace", &start, bytes);
    let out = path(folder.path(), "out.links");
    let args = ["link", "--traces", &trace, "--order", "greedy", "-o", &out];
    let done = limited(&format!("-v {ADDRESS_SPACE_KIB}"), &args);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
