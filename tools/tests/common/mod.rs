//! What several tests share: where the models are, how `lnp` is run, how a test says that it was
//! skipped, and the second reader of packs.
#![allow(dead_code, unreachable_pub)] // each test binary uses its part

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The two models with traces and reference outputs.
pub const MODELS: [&str; 2] = ["opt-relu-small", "llama-relu-small"];
/// The corpora of their traces.
pub const CORPORA: [&str; 3] = ["alpaca", "wikitext2", "gsm8k"];

/// The model of the repository.
pub fn demo_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo")
}

/// The folder of the models: `LNP_MODELS`, or `shared/models` beside the checkout.
pub fn models() -> Option<PathBuf> {
    let dir = match std::env::var_os("LNP_MODELS") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/models"),
    };
    if dir.is_dir() {
        return Some(dir);
    }
    skipped(&format!("no models at {}; set LNP_MODELS to their folder", dir.display()));
    None
}

/// Says that a test was skipped, and why: on stdout, and in the file that `LNP_SKIP_LOG` names,
/// which is how CI comes to know of it.
pub fn skipped(reason: &str) {
    println!("\nskipped: {reason}");
    if let Some(log) = std::env::var_os("LNP_SKIP_LOG") {
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        writeln!(log, "skipped: {reason}").unwrap();
    }
}

/// A folder for packs on a real disk: temporary folders are often tmpfs, which has no direct reads.
pub fn disk_folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A folder on a disk that all tests of a binary share, empty at first; it is left there, and taken again.
pub fn shared_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs the second reader, `spec/read_lnp.py`; `None` where there is no Python.
pub fn second_reader(pack: &Path) -> Option<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/read_lnp.py");
    Command::new("python3").arg(script).arg(pack).output().ok()
}

/// Compares the second reader's description of a pack with ours; false where there is no Python.
pub fn readers_agree(pack: &Path) -> bool {
    let Some(output) = second_reader(pack) else {
        skipped("no python3 for the second reader: install it");
        return false;
    };
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {told}", pack.display());
    // Both from text: reading a decimal number may be off by its last bit, in the same way for both.
    let read = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
    let index = lnp_pack::PackIndex::open(pack).unwrap();
    let ours = lnp_pack::inspect::describe(&index.pack().unwrap());
    let ours = serde_json::to_vec(&ours).unwrap();
    assert_eq!(read(&output.stdout), read(&ours), "{}", pack.display());
    true
}

/// Runs `lnp`.
pub fn lnp(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lnp")).args(args).output().unwrap()
}

/// Runs a command that must work; returns stdout.
pub fn ok(args: &[&str]) -> String {
    let output = lnp(args);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "lnp {args:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command prints with `--json`.
pub fn json(args: &[&str]) -> serde_json::Value {
    let mut args = args.to_vec();
    args.push("--json");
    serde_json::from_str(&ok(&args)).unwrap()
}

/// Runs a command that must fail with exit code 1; returns its one line.
pub fn fails(args: &[&str]) -> String {
    let output = lnp(args);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "lnp {args:?}: {told}");
    assert_eq!(told.lines().count(), 1, "lnp {args:?}: {told}");
    assert!(told.starts_with("lnp: ") && output.stdout.is_empty(), "lnp {args:?}: {told}");
    told
}

/// The least that a `run` can do with, bytes, as it says when it is given too little.
pub fn least_memory(run: &[&str]) -> u64 {
    let told = fails(&[run, &["--memory", "1"]].concat());
    let mut words = told.split_whitespace().skip_while(|word| *word != "least");
    words.nth(1).and_then(|bytes| bytes.parse().ok()).unwrap()
}
