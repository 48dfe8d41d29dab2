//! `lnp probe` from outside: what it writes belongs together, and what would be a lie is named.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{disk_folder, lnp, ok, skipped};
use lnp_measure::profile::DeviceProfile;
use serde_json::Value;

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ok(&[args, &["--json"]].concat())).unwrap()
}

fn fails(args: &[&str]) -> String {
    let output = lnp(args);
    assert_eq!(output.status.code(), Some(1), "lnp {args:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Makes a file of random bytes and gives its path.
fn file(folder: &Path, bytes: &str) -> String {
    let path = folder.join("big").to_str().unwrap().to_owned();
    let made = ["probe", &path, "--create", bytes, "--size", "4K", "--seconds", "0.1"];
    ok(&[&made[..], &["--buffered"]].concat());
    path
}

#[test]
fn raw_results_and_summary_say_the_same() {
    let folder = disk_folder();
    let big = file(folder.path(), "16M");
    let (csv, charts) = (folder.path().join("raw.csv"), folder.path().join("charts"));
    let mut args = vec!["probe", &big, "--size", "4K,64K", "--depth", "1,3", "--seconds", "0.8"];
    args.extend(["--pattern", "random,sequential", "--range", "8M,whole", "--buffered"]);
    args.extend(["--csv", csv.to_str().unwrap(), "--svg", charts.to_str().unwrap()]);
    let told = json(&args);
    let streams = told["streams"].as_array().unwrap();
    let measured = &told["measured"];
    // pread, where there is no io_uring, has one read in flight whatever was asked for
    let depths = if measured["back_end"] == "io_uring" { 2 } else { 1 };
    assert_eq!(streams.len(), 8 * depths, "{told}");
    assert_eq!(measured["complete"], true);
    assert!(measured["date"].as_str().unwrap().ends_with(" UTC"));

    let text = std::fs::read_to_string(&csv).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let head = lines.next().unwrap();
    let column = |name: &str| head.iter().position(|column| *column == name).unwrap();
    let names = ["pattern", "read_bytes", "depth", "range_bytes"];
    let mut turns: BTreeMap<String, Vec<(f64, u64)>> = BTreeMap::new();
    for line in lines {
        let key: Vec<&str> = names.iter().map(|name| line[column(name)]).collect();
        let of = |name: &str| line[column(name)];
        let rate = of("reads").parse::<f64>().unwrap() / of("seconds").parse::<f64>().unwrap();
        turns.entry(key.join(",")).or_default().push((rate, of("reads").parse().unwrap()));
    }
    assert_eq!(turns.len(), streams.len());
    for stream in streams {
        let key: Vec<String> =
            names.iter().map(|name| stream[name].to_string().replace('"', "")).collect();
        let turns = turns.get_mut(&key.join(",")).unwrap();
        assert_eq!(stream["turns"].as_u64(), Some(turns.len() as u64));
        assert_eq!(stream["reads"].as_u64(), Some(turns.iter().map(|turn| turn.1).sum()));
        turns.sort_by(|a, b| a.0.total_cmp(&b.0));
        let median = turns[turns.len().div_ceil(2) - 1].0;
        let told = stream["reads_per_s"].as_f64().unwrap();
        assert!((told / median - 1.0).abs() < 1e-3, "{stream} {median}");
        let mib_s = told * stream["read_bytes"].as_f64().unwrap() / 1048576.0;
        assert!((stream["mib_s"].as_f64().unwrap() / mib_s - 1.0).abs() < 1e-9);
    }
    for name in ["throughput.svg", "latency-by-size.svg"] {
        let chart = std::fs::read_to_string(charts.join(name)).unwrap();
        assert!(chart.starts_with("<svg") && chart.contains("depth 1"), "{name}");
    }
}

#[test]
fn the_profile_in_toml_is_the_one_in_json() {
    let folder = disk_folder();
    let big = file(folder.path(), "16M");
    let path = folder.path().join("device.toml");
    let output = path.to_str().unwrap();
    let told = json(&["probe", &big, "--seconds", "0.5", "--once", "--buffered", "-o", output]);
    let profile = DeviceProfile::read(&path).unwrap();
    let again = serde_json::to_value(&profile).unwrap();
    // numbers pass through decimal text twice
    let same = |a: &Value, b: &Value| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs(),
        _ => a == b,
    };
    for part in ["law", "measured", "machine"] {
        for (key, value) in told[part].as_object().unwrap() {
            assert!(same(value, &again[part][key]), "{part}.{key}: {value} {}", again[part][key]);
        }
    }
    assert_eq!(profile.streams.len(), told["streams"].as_array().unwrap().len());
    assert!(!profile.curves.is_empty());
    for curve in &profile.curves {
        let engine = profile.curve(curve.depth).unwrap();
        assert_eq!(engine.points().len(), curve.read_bytes.len());
    }
    let by_uring = told["measured"]["back_end"] == "io_uring";
    assert_eq!(profile.curve(3).is_err(), by_uring, "pread has one read in flight at any depth");
    assert!(
        !lnp(&["probe", &big, "--size", "4K", "-o", output]).status.success(),
        "no law, no profile"
    );
}

#[test]
fn older_profiles_are_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut count = 0;
    for folder in ["devices", "benches/results"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                DeviceProfile::read(&path).unwrap();
                count += 1;
            }
        }
    }
    assert!(count >= 3);
}

#[test]
fn a_file_is_made_and_never_overwritten() {
    let folder = disk_folder();
    let big = file(folder.path(), "16M");
    assert_eq!(std::fs::metadata(&big).unwrap().len(), 16 << 20);
    let before = std::fs::read(&big).unwrap();
    let again = ["probe", &big, "--create", "16M", "--quick", "--buffered"];
    assert!(fails(&again).contains("overwrites nothing"));
    assert_eq!(std::fs::read(&big).unwrap(), before);
    let device = fails(&["probe", "/dev/null", "--create", "16M"]);
    assert!(device.contains("overwrites nothing"), "{device}");
    let output = folder.path().join("new").to_str().unwrap().to_owned();
    let same = fails(&["probe", &output, "--create", "16M", "--quick", "-o", &output]);
    assert!(same.contains("is what is made") && !Path::new(&output).exists(), "{same}");
}

#[test]
fn what_is_measured_stays_as_it_is() {
    let folder = disk_folder();
    let big = file(folder.path(), "16M");
    let before = std::fs::read(&big).unwrap();
    let [output, csv, charts] =
        ["a.toml", "a.csv", "charts"].map(|name| folder.path().join(name).display().to_string());
    let quick = [
        "--seconds",
        "0.5",
        "--once",
        "--buffered",
        "-o",
        &output,
        "--csv",
        &csv,
        "--svg",
        &charts,
    ];
    json(&[&["probe", &big][..], &quick].concat());
    assert_eq!(std::fs::read(&big).unwrap(), before);
    // and under the name of a chart
    let chart = folder.path().join("charts/throughput.svg").display().to_string();
    std::fs::rename(&big, &chart).unwrap();
    let told = fails(&["probe", &chart, "--size", "4K", "--svg", &charts, "--buffered"]);
    assert!(told.contains("which is read"), "{told}");
    assert_eq!(std::fs::read(&chart).unwrap(), before);
}

#[test]
fn what_no_device_reads_is_named() {
    let folder = disk_folder();
    let sparse = folder.path().join("sparse");
    std::fs::File::create(&sparse).unwrap().set_len(1 << 30).unwrap();
    let told = fails(&["probe", sparse.to_str().unwrap(), "--quick", "--buffered"]);
    assert!(told.contains("a sparse file, 100 % of it holes"), "{told}");

    // Reserved and never written: the file system answers with zeros.
    let reserved = folder.path().join("reserved");
    let made = Command::new("fallocate").args(["-l", "64M"]).arg(&reserved).status();
    if !made.is_ok_and(|status| status.success()) {
        skipped("no fallocate here");
    } else {
        let told = fails(&["probe", reserved.to_str().unwrap(), "--quick", "--buffered"]);
        assert!(told.contains("a sparse file"), "{told}");
    }

    // In memory: nothing was read, and both the flag and the kernel's counters say so.
    let memory = Path::new("/dev/shm");
    if !memory.is_dir() {
        skipped("no /dev/shm here");
        return;
    }
    let memory = tempfile::tempdir_in(memory).unwrap();
    let path = memory.path().join("big").to_str().unwrap().to_owned();
    std::fs::write(&path, vec![0x5a; 16 << 20]).unwrap();
    let told = json(&["probe", &path, "--size", "4K", "--seconds", "0.3", "--buffered"]);
    let measured = &told["measured"];
    assert_eq!(measured["direct"], false);
    let warnings = measured["warnings"].to_string();
    assert!(warnings.contains("buffered reads"), "{warnings}");
    if measured["device_share"].is_null() {
        skipped("the kernel does not count what is read");
    } else {
        assert!(warnings.contains("THE DEVICE WAS NOT READ"), "{told}");
    }
}

#[test]
fn what_was_stopped_is_kept_and_marked() {
    let folder = disk_folder();
    let big = file(folder.path(), "16M");
    let path = folder.path().join("device.toml");
    // On a busy machine the first seconds may not be enough for anything: then once more, for longer.
    for seconds in [3, 10, 30, 60] {
        let child = Command::new(env!("CARGO_BIN_EXE_lnp"))
            .args(["probe", &big, "--seconds", "600", "--once", "--buffered", "-o"])
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Long before its end: the first point alone takes two seconds.
        std::thread::sleep(Duration::from_secs(seconds));
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() && told.contains("no time to measure") {
            continue;
        }
        assert!(output.status.success(), "{told}");
        let measured = DeviceProfile::read(&path).unwrap().measured.unwrap();
        assert!(!measured.complete && measured.drift.is_none());
        assert!(measured.warnings.iter().any(|line| line.contains("stopped")), "{measured:?}");
        return;
    }
    panic!("a minute was not enough to measure anything");
}
