//! `lnp study` as scripts see it: its cells are what `lnp replay --simulate` says of the same links and
//! caches, its table can be read back, and what it cannot do is refused in one line.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use common::{fails, json, lnp, ok, skipped};
use lnp_link::trace::{TraceData, write_trace};

const NEURONS: usize = 192;
const TOKENS: usize = 96;

/// A small trace: each token has most of the neurons of two of sixteen groups, which ones by corpus.
fn write_small(path: &str, corpus: &str, seed: u64) {
    let mut state = seed;
    let mut below = |end: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % end
    };
    let favourite = corpus.len() as u64;
    let mut layer = |number: usize| -> Vec<u8> {
        let mut bits = vec![0_u8; TOKENS * NEURONS / 8];
        for row in bits.chunks_mut(NEURONS / 8) {
            let groups = [(below(8) * favourite) % 16, below(16)];
            for neuron in 0..NEURONS {
                let group = (neuron * (5 + 2 * number) % 16) as u64;
                let often = if groups.contains(&group) { 70 } else { 3 };
                row[neuron / 8] |= u8::from(below(100) < often) << (neuron % 8);
            }
        }
        bits
    };
    let data = TraceData {
        model: "m".into(),
        corpus: corpus.into(),
        split: "profile".into(),
        active: "made up".into(),
        neurons: NEURONS,
        tokens: TOKENS,
        window: 32,
        token_ids: None,
        inputs: None,
        predicted: None,
        synthetic: None,
        layers: vec![layer(0), layer(1)],
    };
    write_trace(Path::new(path), &data).unwrap();
}

struct Work(tempfile::TempDir);

impl Work {
    fn new() -> Self {
        let work = Self(tempfile::tempdir().unwrap());
        for (seed, name) in ["a.profile", "bbb.profile", "a.test", "bbb.test"].iter().enumerate() {
            write_small(&work.path(name), name.split('.').next().unwrap(), seed as u64 + 1);
        }
        work
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A study of everything, with some orders.
    fn study(&self, output: &str, more: &[&str]) -> Vec<String> {
        let mut args = vec!["study".into(), "--traces".into()];
        args.extend(["a.profile", "bbb.profile"].map(|name| self.path(name)));
        args.push("--tests".into());
        args.extend(["a.test", "bbb.test"].map(|name| self.path(name)));
        args.extend(["-o".into(), self.path(output)]);
        args.extend(more.iter().map(|one| (*one).to_owned()));
        args
    }

    /// The lines of its table, by column.
    fn cells(&self, output: &str) -> Vec<BTreeMap<String, String>> {
        let text = std::fs::read_to_string(self.path(output) + "/cells.csv").unwrap();
        let mut lines = text.lines();
        let head: Vec<&str> = lines.next().unwrap().split(',').collect();
        let cell = |line: &str| {
            let values: Vec<&str> = line.split(',').collect();
            assert_eq!(values.len(), head.len(), "{line}");
            head.iter().zip(values).map(|(k, v)| ((*k).to_owned(), v.to_owned())).collect()
        };
        lines.map(cell).collect()
    }
}

fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn number(cell: &BTreeMap<String, String>, column: &str) -> f64 {
    cell[column].parse().unwrap_or_else(|_| panic!("{column} of {cell:?}"))
}

const POLICIES: &str =
    "pinned,lru,s3-fifo,linking-aligned,pinned+linking-aligned,decayed-frequency";
const LAW: &str = "a_us=20,b_mib_s=900,combine=sum,t0_us=30";

/// What `lnp replay --simulate` says of an order made from both profiles, on the test of bbb.
fn replayed(work: &Work, order: &str, pin: &str, bundle_bytes: &str) -> Vec<serde_json::Value> {
    let (links, test) = (work.path("links"), work.path("bbb.test"));
    let profiles = [work.path("a.profile"), work.path("bbb.profile")];
    let mut link = vec!["link", "--traces", &profiles[0], &profiles[1], "--order", order];
    link.extend(["--pin", pin, "--law", LAW, "-o", &links]);
    ok(&link);
    let mut replay =
        vec!["replay", "--simulate", "--links", &links, "--traces", &test, "--law", LAW];
    replay.extend(["--bundle-bytes", bundle_bytes, "--cache-ratio", "0.1,0.25", "--warm"]);
    replay.extend(["--cache-policies", POLICIES]);
    json(&replay)["rows"].as_array().unwrap().clone()
}

/// Whether a row has a cell in the study: a dense stream, collapse without a cache, or with a warm one.
fn has_a_cell(row: &serde_json::Value) -> bool {
    let text = |key: &str| row[key].as_str().unwrap();
    let warm = text("cache_state") == "warm" && text("cache_policy") != "none";
    !text("strategy").contains("belady")
        && (text("strategy") == "dense" || text("strategy").ends_with("+collapse") || warm)
}

/// Reads and bytes are the same, time up to the digits that are written.
fn assert_same(cell: &BTreeMap<String, String>, row: &serde_json::Value) {
    for (ours, theirs, unit) in [
        ("reads_per_token", "reads_per_token", 1.0),
        ("bytes_per_token", "bytes_read_per_token", 4096.0),
    ] {
        let all = |per_token: f64| (per_token * TOKENS as f64 / unit).round();
        let (ours, theirs) = (number(cell, ours), row[theirs].as_f64().unwrap());
        assert_eq!(all(ours), all(theirs), "{ours} {theirs}: {cell:?} {row}");
    }
    let predicted = row["predicted_io_us_per_token"].as_f64().unwrap();
    assert!((number(cell, "us") / predicted - 1.0).abs() < 1e-4, "{cell:?} {row}");
}

#[test]
fn a_cell_is_what_replay_says() {
    let work = Work::new();
    let mut more =
        vec!["--orders", "greedy,jaccard,copies:1.3,replicas:2", "--bundle-bytes", "1536,4K"];
    more.extend(["--cache-ratios", "0,0.1,0.25", "--cache-policies", POLICIES, "--law", LAW]);
    more.extend(["--made-for", "4K"]);
    ok(&strs(&work.study("out", &more)));
    let cells = work.cells("out");
    let mut compared = 0;
    let orders = [
        ("identity", "0"),
        ("greedy", "0"),
        ("jaccard", "0.1"),
        ("copies:1.3", "0.1"),
        ("replicas:2", "0.1"),
    ];
    for (order, pin) in orders {
        for bytes in ["1536", "4096"] {
            for row in replayed(&work, order, pin, bytes).iter().filter(|row| has_a_cell(row)) {
                let dense = row["strategy"] == "dense";
                let name = if dense { "dense" } else { order };
                let is_it = |cell: &&BTreeMap<String, String>| {
                    (&cell["profile"][..], &cell["test"][..], &cell["order"][..])
                        == ("mixed", "bbb", name)
                        && (dense || cell["pinned_apart"] == pin)
                        && cell["bundle_bytes"] == bytes
                        && cell["cache_policy"] == row["cache_policy"].as_str().unwrap()
                        && number(cell, "cache_ratio") == row["cache_ratio"].as_f64().unwrap()
                };
                if let Some(cell) = cells.iter().find(is_it) {
                    assert_same(cell, row);
                    compared += 1;
                }
            }
        }
    }
    // Five orders, two sizes: a dense stream (of packs without copies), no cache, and six policies at two ratios.
    assert_eq!(compared, 2 * (4 + 5 * (1 + 12)));
}

/// The same traces under names that say nothing: as `lnp trace --text profile.txt` records them.
#[test]
fn texts_may_be_named_and_nothing_is_claimed_of_unnamed_ones() {
    let work = Work::new();
    let (profile, test) = (work.path("profile.trace"), work.path("test.trace"));
    write_small(&profile, "profile", 1);
    write_small(&test, "test", 3);
    let study = |profile: &str, test: &str| {
        let out = work.path("out");
        let mut args = vec!["study", "--traces", profile, "--tests", test, "-o", &out];
        args.extend(["--orders", "refined", "--made-for", "4K", "--bundle-bytes", "4K"]);
        args.extend(["--cache-ratios", "0,0.1", "--cache-policies", "pinned"]);
        ok(&args)
    };
    let relations = || -> Vec<String> {
        let mut found: Vec<String> =
            work.cells("out").iter().map(|cell| cell["relation"].clone()).collect();
        found.dedup();
        found
    };
    let told = study(&profile, &test);
    assert!(told.contains("--traces NAME=FILE --tests NAME=FILE"), "{told}");
    assert!(!told.contains("never slower") && !told.contains("matched profile,"), "{told}");
    assert_eq!(relations(), ["unknown"]);
    let named = study(&format!("novels={profile}"), &format!("novels={test}"));
    assert!(!named.contains("NAME=FILE") && named.contains("Slower than a baseline"), "{named}");
    assert_eq!(relations(), ["matched"]);
    assert!(work.cells("out").iter().all(|cell| cell["profile"] == "novels"));
    // What the user says comes before what the trace says.
    study(&format!("novels={}", work.path("a.profile")), &work.path("a.test"));
    assert_eq!(relations(), ["mismatched"]);
    let mixed = ["--traces", &format!("mixed={profile}"), "--tests", &test, "-o", &work.path("x")];
    assert!(fails(&[&["study"], &mixed[..]].concat()).contains("`mixed` is what all"));
}

/// No order that was tried goes below the floor of what the same cache leaves, and no replicas below that of as much flash.
#[test]
fn nothing_goes_below_the_floors() {
    let work = Work::new();
    let more =
        ["--orders", "greedy,refined,replicas:2", "--tokens", "64", "--bundle-bytes", "4K,16K"];
    let study = json(&strs(&work.study("out", &more)));
    let (rows, flash) = (&study["floors"]["rows"], &study["floors"]["flash"]);
    let twice = flash.as_array().unwrap().iter().position(|flash| flash == 2.0).unwrap();
    let rows = rows.as_array().unwrap();
    // 2 tests, 2 sizes, no cache, 3 ratios pinned and of Belady's
    assert_eq!(rows.len(), 2 * 2 * (1 + 3 + 3));
    let csv = std::fs::read_to_string(work.path("out/floors.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 4 * rows.len());
    let cells = work.cells("out");
    let mut compared = 0;
    for row in rows {
        let floor = |at: usize| row["floor_us"][at].as_f64().unwrap();
        assert!(row["bound_us"].as_f64().unwrap() <= floor(twice) && floor(twice) <= floor(0));
        assert!(floor(0) <= row["order_us"].as_f64().unwrap(), "{row}");
        let is_of = |cell: &&BTreeMap<String, String>| {
            ["profile", "test", "cache_policy"].iter().all(|key| row[*key] == *cell[*key])
                && number(cell, "cache_ratio") == row["cache_ratio"].as_f64().unwrap()
                && number(cell, "bundle_bytes") == row["bundle_bytes"].as_f64().unwrap()
                && cell["order"] != "bound"
                && cell["order"] != "dense"
        };
        for cell in cells.iter().filter(is_of) {
            let floor_us = floor(if cell["placements"] == "2" { twice } else { 0 });
            assert!(floor_us <= number(cell, "us") + 0.01, "{floor_us} above {cell:?}");
            compared += 1;
        }
    }
    assert!(compared >= 2 * 2 * 4 * 5, "{compared}");
}

/// Whole placements come out, with the profile's own counts and the note of how they were made; and the same again.
#[test]
fn an_order_is_made_for_what_a_cache_leaves() {
    let work = Work::new();
    let traces = [work.path("a.profile"), work.path("bbb.profile")];
    let link = |output: &str, more: &[&str]| {
        let output = work.path(output);
        ok(&[&["link", "--traces", &traces[0], &traces[1], "-o", &output], more].concat());
        lnp_link::Links::read(Path::new(&output)).unwrap()
    };
    let plain = link("plain", &[]);
    for policy in ["decayed-frequency", "pinned", "lru"] {
        let options = ["--cache-ratio", "0.2", "--cache-policy", policy];
        let links = link("cached", &options);
        let note = &links.notes["order.missed_by"];
        assert!(note.starts_with(&format!("{policy} 0.2, ")), "{note}");
        for (one, other) in links.layers.iter().zip(&plain.layers) {
            assert_eq!(one.active_count, other.active_count);
            let mut neurons = one.neuron_of_slot.clone();
            neurons.sort_unstable();
            assert!(neurons.into_iter().eq(0..NEURONS as u32));
        }
        let is_plain = links.layers == plain.layers;
        assert_eq!(is_plain, note.ends_with(", 0 times"), "{note}");
        assert!(links.layers == link("again", &options).layers);
    }
}

/// Warm they are the cells of the order; and nothing hits more often than Belady's.
#[test]
fn caches_stand_beside_the_best() {
    let work = Work::new();
    let more = ["--orders", "greedy", "--tokens", "64", "--bundle-bytes", "4K,16K"];
    let study = json(&strs(&work.study("out", &more)));
    let rows = study["caches_over_belady"]["rows"].as_array().unwrap();
    // 2 tests, 3 ratios, 3 profiles, 2 sizes, 5 policies and Belady's, cold and warm
    assert_eq!(rows.len(), 2 * 3 * 3 * 2 * 6 * 2);
    let csv = std::fs::read_to_string(work.path("out/caches.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + rows.len());
    let same = |one: &serde_json::Value, other: &serde_json::Value, keys: &[&str]| {
        keys.iter().all(|key| one[*key] == other[*key])
    };
    let place = ["profile", "test", "bundle_bytes", "cache_ratio", "cache_state"];
    let number_of = |row: &serde_json::Value, key: &str| row[key].as_f64().unwrap();
    let cells = work.cells("out");
    let mut warm = 0;
    for row in rows.iter().filter(|row| row["cache_policy"] != "belady") {
        let is_best = |other: &&serde_json::Value| {
            other["cache_policy"] == "belady" && same(row, other, &place)
        };
        let best = rows.iter().find(is_best).unwrap();
        assert!(number_of(row, "hit_rate") <= number_of(best, "hit_rate"), "{row} {best}");
        let ratio = number_of(row, "us") / number_of(best, "us");
        assert!((ratio / number_of(row, "to_belady") - 1.0).abs() < 1e-9, "{row} {best}");
        if row["cache_state"] == "warm" {
            let is_it = |cell: &&BTreeMap<String, String>| {
                let text = |key: &str| row[key].as_str().unwrap();
                cell["order"] == "greedy"
                    && ["profile", "test", "cache_policy"].iter().all(|key| cell[*key] == text(key))
                    && number(cell, "bundle_bytes") == number_of(row, "bundle_bytes")
                    && number(cell, "cache_ratio") == number_of(row, "cache_ratio")
            };
            let cell = cells.iter().find(is_it).unwrap();
            assert!((number(cell, "us") - number_of(row, "us")).abs() < 0.01, "{row} {cell:?}");
            warm += 1;
        }
    }
    assert_eq!(warm, 2 * 3 * 3 * 2 * 5);
}

#[test]
fn the_table_and_the_summary_belong_together() {
    let work = Work::new();
    let more = ["--orders", "greedy", "--tokens", "64", "--resamples", "50"];
    let summary = json(&strs(&work.study("out", &more)));
    let written = std::fs::read_to_string(work.path("out/study.json")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), summary);
    let cells = work.cells("out");
    // 3 profiles, 2 tests, 5 sizes, no cache and 5 policies at 3 ratios; 3 orders, dense and bound.
    assert_eq!(cells.len(), 3 * 2 * 5 * 16 * 5);
    let relation = |profile: &str, test: &str| {
        let cell = cells.iter().find(|cell| cell["profile"] == profile && cell["test"] == test);
        cell.unwrap()["relation"].clone()
    };
    assert_eq!(relation("a", "a"), "matched");
    assert_eq!(relation("a", "bbb"), "mismatched");
    assert_eq!(relation("mixed", "bbb"), "mixed");
    let main = |order: &str, column: &str| {
        let of = |cell: &&BTreeMap<String, String>| {
            cell["order"] == order
                && cell["profile"] == "mixed"
                && cell["bundle_bytes"] == "4096"
                && cell["cache_policy"] == "pinned"
                && cell["cache_ratio"] == "0.1"
        };
        cells.iter().filter(of).map(|cell| number(cell, column)).collect::<Vec<_>>()
    };
    for row in summary["summary"]["main"].as_array().unwrap() {
        let order = row["order"].as_str().unwrap();
        let us = main(order, "us");
        let mean = us.iter().sum::<f64>() / us.len() as f64;
        let told = row["verdict"]["us"]["value"].as_f64().unwrap();
        assert!((told / mean - 1.0).abs() < 1e-4, "{order}: {told}, {us:?}");
        assert!(main(order, "to_bound").iter().all(|ratio| *ratio >= 1.0 - 1e-9), "{order}");
    }
    assert!(main("frequency", "to_frequency").iter().all(|ratio| *ratio == 1.0));
    // No order is slower than the bound or faster for a smaller cache of the same, larger hot set.
    let of_no_cache = |cell: &&BTreeMap<String, String>| {
        cell["order"] == "greedy" && cell["cache_policy"] == "none"
    };
    assert!(
        cells
            .iter()
            .filter(of_no_cache)
            .all(|cell| number(cell, "us_p5") <= number(cell, "us_p95"))
    );

    // The same again gives the same files; one thread or several.
    let status = Command::new(env!("CARGO_BIN_EXE_lnp"))
        .args(work.study("again", &more))
        .env("RAYON_NUM_THREADS", "1")
        .output();
    assert!(status.unwrap().status.success());
    for name in [
        "cells.csv",
        "caches.csv",
        "floors.csv",
        "study.json",
        "io-over-cache.svg",
        "read-lengths.svg",
        "coactivation.svg",
    ] {
        let read = |folder: &str| std::fs::read(work.path(&format!("{folder}/{name}"))).unwrap();
        assert_eq!(read("out"), read("again"), "{name}");
        assert!(read("out").len() < 600_000);
    }
    well_formed(
        &["io-over-cache.svg", "read-lengths.svg", "coactivation.svg"]
            .map(|n| work.path(&format!("out/{n}"))),
    );
}

/// By Python's parser.
fn well_formed(pictures: &[String]) {
    let script = "import sys, xml.etree.ElementTree as t\nfor f in sys.argv[1:]: t.parse(f)";
    match Command::new("python3").args(["-c", script]).args(pictures).output() {
        Err(_) => skipped("no python3 to parse the charts: install it"),
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn what_cannot_be_studied_is_refused() {
    let work = Work::new();
    let (a, test) = (work.path("a.profile"), work.path("a.test"));
    let out = work.path("out");
    let refused = |traces: &[&str], tests: &[&str], more: &[&str]| {
        fails(&[&["study", "--traces"], traces, &["--tests"], tests, &["-o", &out], more].concat())
    };
    assert!(refused(&[&a, &test], &[&work.path("bbb.test")], &[]).contains("two traces of `a`"));
    assert!(refused(&[&a], &[&test, &test], &[]).contains("--tests: two traces of `a`"));
    assert!(refused(&[&a], &[&a], &[]).contains("is a profile too"));
    assert!(refused(&[&work.path("none")], &[&test], &[]).contains("none"));
    let policies = ["--cache-policies", "none", "--cache-ratios", "0.1"];
    assert!(refused(&[&a], &[&test], &policies).contains("needs 0"));
    assert!(!Path::new(&out).exists(), "made before it was clear that it can be written");
    std::fs::write(&out, "a file").unwrap();
    assert!(refused(&[&a], &[&test], &[]).contains("cannot be made"));
    let usage = ["study", "--traces", &a, "--tests", &test, "-o", &out, "--orders", "sorted"];
    assert_eq!(lnp(&usage).status.code(), Some(2));
}

#[test]
fn made_up_traces_are_called_that() {
    let work = Work::new();
    let synth = |name: &str, split: &str| {
        ok(&[
            "synth",
            "--traces",
            &work.path("a.profile"),
            "--layers",
            "2",
            "--neurons",
            "64",
            "--tokens",
            "64",
            "--split",
            split,
            "--unmeasured",
            "-o",
            &work.path(name),
        ]);
        work.path(name)
    };
    let (profile, test) = (synth("p", "profile"), synth("t", "test"));
    let out = work.path("out");
    let args = ["study", "--traces", &profile, "--tests", &test, "--orders", "greedy", "-o", &out];
    assert!(ok(&args).contains("SYNTHETIC traces, SIMULATED device"));
    let written = std::fs::read_to_string(out + "/study.json").unwrap();
    assert!(written.contains("\"synthetic\": true"));
}
