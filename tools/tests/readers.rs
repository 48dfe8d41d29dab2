//! The readers of traces, links files and device profiles, on every seed and every regression input of
//! the fuzz target `readers`, and on a few thousand files made at random.

#[path = "../../fuzz/readers/body.rs"]
mod body;

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

fn inputs(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(kind).join("readers");
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.file_name().is_some_and(|name| name != ".gitkeep")).collect()
}

#[test]
fn seeds_and_regressions() {
    let seeds = inputs("seeds");
    assert!(!seeds.is_empty());
    for file in seeds.iter().chain(&inputs("regressions")) {
        let data = std::fs::read(file).unwrap();
        assert!(catch_unwind(|| body::run(&data)).is_ok(), "{} fails", file.display());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Traces, links files and model folders that are valid, and with up to eight edits.
    #[test]
    fn edited_files_give_an_error_or_a_value(
        kind in prop::sample::select(vec![6_u8, 7, 0xff]),
        shape in prop::array::uniform6(any::<u8>()),
        edits in prop::collection::vec(any::<u8>(), 0..32),
    ) {
        body::run(&[&[kind][..], &shape, &edits].concat());
    }
}
