//! The bodies of the fuzz targets: plain functions, so that a test can replay inputs with any compiler.
//!
//! Each module is one target; `fuzz_targets/` hands them to libFuzzer.

use arbitrary::{Arbitrary, Unstructured};

pub mod cache;
pub mod canary;
pub mod engine;
pub mod kernels;
pub mod pack_bytes;
mod pack_checks;
pub mod pack_structured;
pub mod planner;
pub mod recorder;

#[path = "../../format/tests/common/mod.rs"]
pub mod packs;

#[path = "../../engine/tests/models/cache.rs"]
mod cache_model;

#[path = "../../engine/tests/models/planning.rs"]
mod planning_model;

#[path = "../../kernels/tests/support/mod.rs"]
mod kernel_oracle;

/// A target and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target but `canary`, which fails on purpose, and `readers`, which is a crate of its own.
pub const TARGETS: [Target; 7] = [
    ("pack_bytes", pack_bytes::run),
    ("pack_structured", |data| decoded(data, pack_structured::run)),
    ("engine", |data| decoded(data, engine::run)),
    ("planner", |data| decoded(data, planner::run)),
    ("cache", |data| decoded(data, cache::run)),
    ("kernels", |data| decoded(data, kernels::run)),
    ("recorder", |data| decoded(data, recorder::run)),
];

/// As `libfuzzer_sys::fuzz_target!` turns bytes into a case; nothing where they are too few.
fn decoded<'a, T: Arbitrary<'a>>(data: &'a [u8], run: impl Fn(&T)) {
    if let Ok(case) = T::arbitrary_take_rest(Unstructured::new(data)) {
        run(&case);
    }
}

/// One of a list, whatever the number.
fn pick<T: Copy>(from: &[T], number: impl Into<usize>) -> T {
    from[number.into() % from.len()]
}
