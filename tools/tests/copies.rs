//! Copies of bundles, from the command line: packs that hold some bundles in several slots compute the same from fewer reads.

mod common;

use std::path::Path;

use common::{demo_model, json, lnp, ok, readers_agree};
use serde_json::Value;

const PROMPT: &str =
    "It is a truth universally acknowledged, that a single man in possession of a good fortune";

#[test]
fn a_pack_with_copies_computes_the_same_from_fewer_reads() {
    let folder = common::disk_folder();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let model = demo_model().to_str().unwrap().to_owned();
    let (trace, text) = (path("profile.trace"), format!("{model}/text/profile.txt"));
    ok(&["trace", "--model", &model, "--text", &text, "--tokens", "1024", "-o", &trace]);

    let pack = |name: &str, more: &[&str]| -> (String, Value) {
        let (links, pack) = (path(&format!("{name}.links")), path(&format!("{name}.lnp")));
        let mut args = vec!["link", "--traces", &trace, "--bundle-bytes", "1024", "-o", &links];
        args.extend(more);
        let told = json(&args);
        ok(&["pack", "--model", &model, "--links", &links, "-o", &pack]);
        (pack, told)
    };
    let (plain, told) = pack("plain", &[]);
    assert_eq!(told["flash"], 1.0);
    let (copies, told) = pack("copies", &["--flash", "1.4"]);
    let flash = told["flash"].as_f64().unwrap();
    assert!(flash > 1.1 && flash <= 1.4, "{told}");
    // One name for both ways to ask for it.
    let (named, _) = pack("named", &["--order", "copies:1.4"]);
    assert_eq!(std::fs::read(&named).unwrap(), std::fs::read(&copies).unwrap());

    // Whole, of the model's weights, and the same to the second reader.
    ok(&["verify", &copies, "--model", &model]);
    readers_agree(Path::new(&copies));
    let inspected = json(&["inspect", &copies]);
    assert_eq!(inspected["provenance"]["order"], "copies:1.4");
    let layers = inspected["layers"].as_array().unwrap();
    let sum = |key: &str| layers.iter().map(|layer| layer[key].as_u64().unwrap()).sum::<u64>();
    let neurons = layers.len() as u64 * inspected["shape"]["neurons"].as_u64().unwrap();
    assert!((sum("slots") as f64 / neurons as f64 - flash).abs() < 1e-9);
    assert!(ok(&["inspect", &copies]).contains("copies of bundles"));

    // The same tokens.
    let tokens = |pack: &str| {
        let args = ["run", pack, "--model", &model, "--prompt", PROMPT, "-n", "30"];
        json(&args)["token_ids"].clone()
    };
    assert_eq!(tokens(&plain), tokens(&copies));

    // Less time by the law on the text that they were made from; a report of it is drawn.
    let us = |pack: &str| {
        let mut args = vec!["replay", pack, "--simulate", "--traces", &trace, "--warm"];
        args.extend(["--cache-ratio", "0.1", "--cache-policies", "pinned"]);
        args.extend(["--law", "a_us=9.64,b_mib_s=2034,combine=sum"]);
        let rows = json(&args)["rows"].as_array().unwrap().clone();
        let is = |row: &&Value| row["strategy"].as_str().unwrap().ends_with("collapse+cache warm");
        rows.iter().find(is).unwrap()["predicted_io_us_per_token"].as_f64().unwrap()
    };
    assert!(us(&copies) < us(&plain), "{} {}", us(&copies), us(&plain));
    ok(&["report", &copies, "--traces", &trace, "-o", &path("report.html")]);

    // What is not possible is said.
    let target = path("x");
    let refused = |args: &[&str]| {
        let output = lnp(args);
        assert!(!Path::new(&target).exists());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = refused(&["relink", &copies, "--seen", &trace, "-o", &target]);
    assert!(code == Some(1) && told.contains("the pack has copies of bundles"), "{told}");
    let args = ["link", "--traces", &trace, "--order", "greedy", "--flash", "1.3", "-o", &target];
    let (code, told) = refused(&args);
    assert!(code == Some(1) && told.contains("--flash goes with the order refined"), "{told}");
}
