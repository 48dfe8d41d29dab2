//! Runs every committed seed and regression input through its target, without a fuzzer.
//!
//! With `--cfg fuzzing` in RUSTFLAGS checksums pass, as they do for the fuzzer that kept the inputs.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use lnp_fuzz::{TARGETS, canary};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The files of a folder, sorted, without what keeps it in git.
fn inputs(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.file_name().is_some_and(|name| name != ".gitkeep"));
    files.sort();
    files
}

#[test]
fn seeds_and_regressions() {
    for (target, run) in TARGETS {
        let seeds = inputs(&folder("seeds").join(target));
        let regressions = inputs(&folder("regressions").join(target));
        assert!(!seeds.is_empty(), "{target} has no seeds");
        for file in seeds.iter().chain(&regressions) {
            let data = std::fs::read(file).unwrap();
            assert!(catch_unwind(|| run(&data)).is_ok(), "{} fails", file.display());
        }
        println!("{target}: {} seeds, {} regressions", seeds.len(), regressions.len());
    }
}

/// The list that the scripts read names the same targets.
#[test]
fn the_list_of_targets_is_whole() {
    let list = std::fs::read_to_string(folder("targets")).unwrap();
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let mut named: Vec<&str> = lines.filter_map(|line| line.split(' ').next()).collect();
    named.sort_unstable();
    let mut there: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    there.push("readers");
    there.sort_unstable();
    assert_eq!(named, there);
}

#[test]
fn the_canary_is_there() {
    let input = [b"\x89LNPlink", &[4, 5, 9][..]].concat();
    assert!(catch_unwind(|| canary::run(&input)).is_err());
    assert!(catch_unwind(|| canary::run(&input[..10])).is_ok());
}
