//! The readers of traces, links files, predictors, device profiles and models, on every seed and every regression input of
//! the fuzz target `readers`, and on a few thousand files made at random.

#[path = "../../fuzz/readers/body.rs"]
mod body;

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

/// A model of some kilobytes.
const GGUF: &[u8] = include_bytes!("../../fuzz/seeds/readers/gguf");

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

    /// A GGUF file with some bytes of its header changed.
    #[test]
    fn edited_gguf_files_give_an_error_or_a_value(
        edits in prop::collection::vec((24..3200_usize, any::<u8>()), 1..6),
        length in prop::option::of(any::<u8>()),
    ) {
        let mut file = GGUF.to_vec();
        edits.iter().for_each(|(at, value)| file[*at] = *value);
        if let Some(value) = length {
            file[edits[0].0..][..8].copy_from_slice(&(u64::MAX >> (value % 64)).to_le_bytes());
        }
        body::run(&file);
    }

    /// Traces, links files, predictors, what was seen, model folders and weights in packs that are valid, and with up to
    /// eight edits.
    #[test]
    fn edited_files_give_an_error_or_a_value(
        kind in prop::sample::select(vec![6_u8, 7, 0xfa, 0xfb, 0xfd, 0xff]),
        shape in prop::array::uniform6(any::<u8>()),
        edits in prop::collection::vec(any::<u8>(), 0..32),
    ) {
        body::run(&[&[kind][..], &shape, &edits].concat());
    }
}
