//! `lnp report`: a page that stands alone, says what `replay --simulate` says, and has words for its pictures. `.ci/pages`
//! looks at it in a browser.

mod common;

use std::path::PathBuf;
use std::sync::OnceLock;

use common::{demo_model, fails, json, ok, shared_folder};
use serde_json::Value;

/// The demo's model, linked, with predictors, once for all tests.
fn folder() -> &'static PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = shared_folder("report");
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let model = demo_model().to_str().unwrap().to_owned();
        let text = |name: &str| demo_model().join("text").join(name).to_str().unwrap().to_owned();
        let model = ["--model", &model];
        let run = |command: &str, more: &[&str]| ok(&[&[command], &model[..], more].concat());
        let (profile, links, predictors) =
            (path("profile.trace"), path("model.links"), path("model.predictors"));
        let traced = ["--tokens", "2000", "--inputs", "1000", "-o", &profile];
        run("trace", &[&["--text", &text("profile.txt")], &traced[..]].concat());
        ok(&["link", "--order", "greedy", "--traces", &profile, "-o", &links]);
        run("predict", &["--traces", &profile, "--bytes", "0.1", "-o", &predictors]);
        let with = ["--links", &links, "--predictors", &predictors, "-o", &path("model.lnp")];
        run("pack", &with);
        run("pack", &["-o", &path("plain.lnp")]);
        run("trace", &["--text", &text("test.txt"), "--tokens", "200", "-o", &path("test.trace")]);
        folder
    })
}

fn path(name: &str) -> String {
    folder().join(name).to_str().unwrap().to_owned()
}

fn page(pack: &str, more: &[&str]) -> (String, Value) {
    let out = path(&format!("{pack}.html"));
    let args = ["report", &path(pack), "--traces", &path("test.trace"), "-o", &out];
    let told = json(&[&args[..], more].concat());
    (std::fs::read_to_string(out).unwrap(), told)
}

/// Every element that is opened is closed, in turn.
fn assert_well_formed(page: &str) {
    let mut open = Vec::new();
    let mut rest = page;
    while let Some((_, at)) = rest.split_once('<') {
        let (tag, after) = at.split_once('>').unwrap();
        rest = after;
        let name = tag.split_whitespace().next().unwrap();
        match name {
            "!doctype" | "meta" | "link" => {}
            _ if tag.ends_with('/') => {}
            _ => match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "before {:.80}", after),
                None => open.push(name),
            },
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_page_stands_alone_and_has_words_for_its_pictures() {
    let (page, told) = page("model.lnp", &[]);
    assert_well_formed(&page);
    // nothing is fetched: an address only names what SVG is
    for word in ["<script", "src=", "url(", "@import", "@font-face", "https:"] {
        assert!(!page.contains(word), "{word}");
    }
    assert_eq!(
        page.matches("http:").count(),
        page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count()
    );
    // nor is anything of this machine in it
    assert!(!page.contains(folder().to_str().unwrap()) && !page.contains("/work/"));
    for feature in
        ["prefers-color-scheme: dark", "@media print", "name=\"viewport\"", "lang=\"en\""]
    {
        assert!(page.contains(feature), "{feature}");
    }
    let pictures = page.matches("role=\"img\"").count();
    assert_eq!(pictures, 7);
    assert_eq!(page.matches("<title id=").count(), pictures);
    assert_eq!(page.matches("<desc id=").count(), pictures);
    assert_eq!(
        page.matches("<svg").count(),
        pictures + page.matches("aria-hidden=\"true\"").count()
    );
    for heading in [
        "What is in the pack",
        "I/O time by strategy",
        "How long reads are",
        "Who fires with whom",
        "The device",
        "What caches hit",
        "What each byte of memory does",
        "What predictors find",
    ] {
        assert!(page.contains(heading), "{heading}");
    }
    // a B of the usual law: 9.64 us at 2,034 MiB/s
    assert!(page.contains("break-even gap, 20.1 KiB"));
    assert_eq!(told["same_trace"], false);
    let orders: Vec<&str> = told["read_lengths"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| of["order"].as_str().unwrap())
        .collect();
    assert_eq!(orders, ["identity", "random", "frequency", "greedy"]);
    for of in told["read_lengths"].as_array().unwrap() {
        let shares = of["percents"].as_array().unwrap();
        let sum: f64 = shares.iter().map(|point| point[1].as_f64().unwrap()).sum();
        assert!((sum - 100.0).abs() < 1e-6, "{of}");
    }
    assert_eq!(told["hits"].as_array().unwrap().len(), 5);
    assert_eq!(told["hits"][0]["policy"], "decayed-frequency");
    assert_eq!(told["by_cache"].as_array().unwrap().len(), 6);
}

#[test]
fn the_same_inputs_give_the_same_page_with_the_numbers_of_replay() {
    let (page_once, told) = page("model.lnp", &["--tokens", "64"]);
    let (page_again, _) = page("model.lnp", &["--tokens", "64"]);
    assert_eq!(page_once, page_again);
    let replay = ["replay", "--simulate", &path("plain.lnp"), &path("model.lnp")];
    let replayed =
        json(&[&replay[..], &["--traces", &path("test.trace"), "--tokens", "64"]].concat());
    let rows = told["rows"].as_array().unwrap();
    let mut compared = 0;
    for expected in replayed["rows"].as_array().unwrap() {
        let strategy = expected["strategy"].as_str().unwrap();
        // The model's own pack has no counts by which a cache could pin.
        if strategy == "bundle+collapse+cache" {
            continue;
        }
        let found = rows.iter().find(|row| row["strategy"] == strategy).unwrap();
        for key in ["io_us_per_token", "reads_per_token", "bytes_read_per_token", "hit_rate"] {
            assert_eq!(found[key], expected[key], "{strategy}: {key}");
        }
        compared += 1;
    }
    assert_eq!(compared, 6);
    let us = |name: &str| {
        let row = rows.iter().find(|row| row["strategy"] == name).unwrap();
        row["io_us_per_token"]["mean"].as_f64().unwrap()
    };
    assert!(us("linked+collapse") < us("frequency+collapse"));
    assert!(us("frequency+collapse") < us("random+collapse"));
}

#[test]
fn a_pack_without_profile_and_predictors_has_a_page_too() {
    let (page, told) = page("plain.lnp", &["--law", "t0_us=20,a_us=5,b_mib_s=900,combine=max"]);
    assert_well_formed(&page);
    assert!(!page.contains("What predictors find") && !page.contains("NaN"));
    let orders: Vec<&Value> =
        told["read_lengths"].as_array().unwrap().iter().map(|of| &of["order"]).collect();
    assert_eq!(orders, ["random", "identity"]);
}

#[test]
fn a_trace_that_the_order_is_from_is_told() {
    let out = path("same.html");
    let args = ["report", &path("model.lnp"), "--traces", &path("profile.trace"), "--tokens", "32"];
    ok(&[&args[..], &["-o", &out]].concat());
    let page = std::fs::read_to_string(out).unwrap();
    assert!(page.contains("The order was made from this very trace"));
    let pack = path("model.lnp");
    let told = fails(&["report", &pack, "--traces", &path("test.trace"), "-o", &pack]);
    assert!(told.contains("which is read; give another path"), "{told}");
}
