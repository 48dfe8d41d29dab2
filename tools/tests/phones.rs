//! The profiles of `devices/`: they can be read, and the one of OnePlus 12 on the simulated device takes
//! as long as the phone did in the published table.

use std::path::{Path, PathBuf};

use lnp_engine::{Combine, DeviceLaw};
use lnp_measure::profile::DeviceProfile;
use lnp_measure::replay::{ActiveSets, Caches, ReplayOptions, Row, Rules, Target, replay};
use lnp_pack::recipe::ModelSize;
use lnp_pack::{PackIndex, Recipe};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// OPT-350M in f16.
const OPT_350M: ModelSize = ModelSize { layers: 24, neurons: 4096, hidden: 1024, parts: 2 };
const BUNDLE_BYTES: u32 = 4096;
const TOKENS: usize = 8;
/// Share of the neurons that is read, percent; milliseconds per token on OnePlus 12 (Neuralink).
const PUBLISHED: [(u32, f64); 10] = [
    (100, 234.49),
    (90, 254.96),
    (80, 281.96),
    (70, 297.10),
    (60, 308.76),
    (50, 320.63),
    (40, 292.78),
    (30, 260.86),
    (20, 193.68),
    (10, 104.18),
];

fn devices() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../devices")
}

fn law(phone: &str) -> DeviceLaw {
    let path = devices().join(phone).with_extension("toml");
    DeviceProfile::read(&path).unwrap().law.law().unwrap()
}

/// Each neuron of each layer is active by chance, independent of all others.
fn random_sets(percent: u32) -> ActiveSets {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(percent.into());
    let mut byte =
        || (0..8).fold(0, |bits, at| bits | u8::from(random.random_range(0..100) < percent) << at);
    let bytes = TOKENS * OPT_350M.neurons as usize / 8;
    let layers = (0..OPT_350M.layers).map(|_| (0..bytes).map(|_| byte()).collect()).collect();
    ActiveSets::new(layers, OPT_350M.neurons as usize, TOKENS)
}

/// The row of one strategy, on a pack of the model's size whose bundles nobody looks at.
fn replayed(law: DeviceLaw, percent: u32, strategy: &str) -> Row {
    let recipe = Recipe::for_placeholders(None, OPT_350M, BUNDLE_BYTES, 1).unwrap();
    let layout = recipe.layout().unwrap();
    let pack = PackIndex::in_memory("OPT-350M".into(), layout.index, layout.bytes.file_bytes);
    let options = ReplayOptions {
        law,
        caches: Caches::default_of(0.0),
        rules: Rules::default(),
        queue_depth: 32,
        repeats: 1,
        turn: None,
        time_max: None,
        timeline_tokens: None,
    };
    let sets = random_sets(percent);
    let rows = replay(&[pack], &sets, &Target::Simulated, &options, &mut |_| ()).unwrap().rows;
    rows.into_iter().find(|row| row.strategy == strategy).unwrap()
}

/// `cargo test -p lnp --test phones -- --nocapture` prints the table of `docs/devices.md`.
#[test]
fn oneplus_12_reproduces_the_published_table() {
    let law = law("oneplus-12");
    println!("| read | published ms | simulated ms | off | reads | KiB/read |");
    println!("|--:|--:|--:|--:|--:|--:|");
    for (percent, published_ms) in PUBLISHED {
        // All bundles are one run; it is cut only where it is longer than a read may be.
        let row = replayed(law, percent, if percent == 100 { "dense" } else { "bundle" });
        let ms = row.io_us_per_token.mean / 1e3;
        let off = ms / published_ms - 1.0;
        let read_kib = row.bytes_read_per_token / row.reads_per_token / 1024.0;
        println!(
            "| {percent} % | {published_ms:.2} | {ms:.2} | {:+.1} % | {:.0} | {read_kib:.0} |",
            100.0 * off,
            row.reads_per_token
        );
        if percent == 100 {
            // 24 layers of 16 MiB.
            assert_eq!((row.reads_per_token, read_kib), (384.0, 1024.0));
        } else {
            assert!(off.abs() < 0.1, "{percent} %: {ms} ms, published {published_ms}");
        }
    }
    // How long a read would have to be for the dense point to be exact.
    let bytes = f64::from(OPT_350M.layers * OPT_350M.neurons * BUNDLE_BYTES);
    let left_us = PUBLISHED[0].1 * 1e3 - law.transfer_us(bytes as u64);
    println!("dense is exact with reads of {:.0} KiB", bytes / 1024.0 * law.a_us() / left_us);
}

#[test]
fn every_profile_of_devices_is_a_phones() {
    let mut names: Vec<String> = std::fs::read_dir(devices())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["oneplus-12", "oneplus-ace-2", "oneplus-ace-3"]);
    let fastest = law("oneplus-12");
    for name in names {
        let law = law(&name);
        // As published for UFS. A phone without figures of its own must not be faster, nor gain more.
        assert_eq!(law.combine(), Combine::Sum, "{name}");
        assert!(law.a_us() >= fastest.a_us() && law.b_mib_s() <= fastest.b_mib_s(), "{name}");
        assert!(law.gap_bytes() <= fastest.gap_bytes(), "{name}");
    }
}
