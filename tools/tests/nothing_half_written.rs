//! What is killed while it writes, or has no room, leaves the old file, the new one or none.

mod common;
#[path = "../../engine/tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use common::{demo_model, lnp, ok, skipped};
use support::Dice;

/// Kills of the commands that write the same each time, and of `probe`.
const KILLS: u32 = 440;
const KILLS_PROBE: u32 = 60;

/// Files of the demo model, made once: a text, a trace, links.
fn inputs(folder: &Path) -> [String; 4] {
    let path = |name: &str| folder.join(name).display().to_string();
    let (model, text, trace, links) =
        (demo_model().display().to_string(), path("text"), path("trace"), path("links"));
    std::fs::write(&text, "The quick brown fox jumps over the lazy dog. ".repeat(12)).unwrap();
    ok(&["trace", "--model", &model, "--text", &text, "-o", &trace]);
    ok(&["link", "--traces", &trace, "-o", &links]);
    [model, text, trace, links]
}

/// A pack in model's order, which linking again makes better.
fn unlinked_pack(folder: &Path, model: &str, trace: &str) -> String {
    let [links, pack] = ["identity", "pack"].map(|name| folder.join(name).display().to_string());
    ok(&["link", "--traces", trace, "--order", "identity", "-o", &links]);
    ok(&["pack", "--model", model, "--links", &links, "-o", &pack]);
    pack
}

/// A synthetic trace that is made in a moment.
const SYNTHETIC: [&str; 7] =
    ["--layers", "2", "--neurons", "128", "--tokens", "200", "--unmeasured"];

#[test]
fn killed_at_any_moment_leaves_the_old_file_or_the_new_one() {
    let inside = tempfile::tempdir().unwrap();
    let [model, text, trace, links] = inputs(inside.path());
    let out = inside.path().join("out");
    let target = out.join("x").display().to_string();
    let pack = unlinked_pack(inside.path(), &model, &trace);
    let commands: [&[&str]; 5] = [
        &["trace", "--model", &model, "--text", &text],
        &["link", "--traces", &trace, "--order", "jaccard"],
        &["pack", "--model", &model, "--links", &links],
        &[&["synth", "--traces", &trace][..], &SYNTHETIC].concat(),
        &["relink", &pack, "--seen", &trace],
    ];
    let (mut dice, mut counts) = (Dice::new(1), [0_u32; 3]);
    for (number, command) in commands.iter().enumerate() {
        std::fs::create_dir(&out).unwrap();
        let run = |target: &str| {
            let mut process = Command::new(env!("CARGO_BIN_EXE_lnp"));
            process.args(*command).args(["-o", target]).stdout(Stdio::null()).stderr(Stdio::null());
            process.spawn().unwrap()
        };
        let begin = Instant::now();
        assert!(run(&target).wait().unwrap().success(), "{command:?}");
        let usual = begin.elapsed();
        let new = std::fs::read(&target).unwrap();
        for kill in 0..KILLS / commands.len() as u32 {
            // there before, or not
            let old = (kill % 2 == 0).then(|| format!("what was there, {kill}").into_bytes());
            match &old {
                Some(old) => std::fs::write(&target, old).unwrap(),
                None => drop(std::fs::remove_file(&target)),
            }
            let mut process = run(&target);
            // most in the second half, which is when something is written
            let share = 300 + dice.below(800);
            std::thread::sleep(usual * share / 1000);
            process.kill().unwrap();
            process.wait().unwrap();
            let found = std::fs::read(&target).ok();
            let kind = match &found {
                None => 0,
                Some(found) if Some(found) == old.as_ref() => 1,
                Some(found) => {
                    assert_eq!(found, &new, "{command:?}, kill {kill}: half a file");
                    2
                }
            };
            assert!(found.is_some() || old.is_none(), "{command:?}, kill {kill}: the file is gone");
            counts[kind] += 1;
        }
        // What is left beside it is not under anyone's name.
        for entry in std::fs::read_dir(&out).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(name == "x" || name.starts_with(".lnp-") && name.ends_with(".tmp"), "{name}");
        }
        println!("{command:?}: usually {usual:?}");
        std::fs::rename(&out, inside.path().join(format!("out.{number}"))).unwrap();
    }
    let [none, old, new] = counts;
    println!(
        "{KILLS} kills: {none} without a file, {old} with the old one, {new} with the new one"
    );
    assert!(none + old > KILLS / 10, "{KILLS} kills: next to all came too late");
}

#[test]
fn a_probe_killed_at_any_moment_leaves_whole_files() {
    let inside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let out = inside.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let [data, profile, raw] = ["data", "profile", "raw"].map(|name| out.join(name));
    const DATA_BYTES: u64 = 65 << 20;
    let run = || {
        let mut process = Command::new(env!("CARGO_BIN_EXE_lnp"));
        process.arg("probe").arg(&data).args(["--seconds", "0.4", "--once", "--buffered"]);
        process.arg("-o").arg(&profile).arg("--csv").arg(&raw);
        if !data.exists() {
            process.args(["--create", &DATA_BYTES.to_string()]);
        }
        process.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    // Tables that every profile has; others say what was noticed.
    let is_whole = |text: &str| {
        let table: Result<toml::Table, _> = text.parse();
        table.is_ok_and(|table| {
            let names = ["machine", "measured", "fit", "law", "points", "streams"];
            names.iter().all(|name| table.contains_key(*name)) && text.ends_with('\n')
        })
    };
    // On a busy machine there may be no time to measure anything.
    let usual = (0..10).find_map(|_| {
        let begin = Instant::now();
        run().wait().unwrap().success().then(|| begin.elapsed())
    });
    let usual = usual.expect("a probe that comes to its end");
    assert!(is_whole(&std::fs::read_to_string(&profile).unwrap()));
    let columns = |text: &str| text.lines().next().map(|line| line.split(',').count());
    let raw_columns = columns(&std::fs::read_to_string(&raw).unwrap());
    let (mut dice, mut counts) = (Dice::new(2), [0_u32; 3]);
    for kill in 0..KILLS_PROBE {
        // the file to read is there already, or is made
        if kill % 2 == 0 {
            let _ = std::fs::remove_file(&data);
        }
        let _ = std::fs::remove_file(&raw);
        let old = format!("what was there, {kill}");
        std::fs::write(&profile, &old).unwrap();
        let mut process = run();
        std::thread::sleep(usual * dice.below(1100) / 1000);
        process.kill().unwrap();
        process.wait().unwrap();
        if let Ok(found) = data.metadata() {
            assert_eq!(found.len(), DATA_BYTES, "kill {kill}: half a file to probe");
        }
        if let Ok(found) = std::fs::read_to_string(&raw) {
            assert!(found.ends_with('\n'), "kill {kill}: half a table");
            assert!(found.lines().all(|line| columns(line) == raw_columns), "kill {kill}");
        }
        let found = std::fs::read_to_string(&profile).unwrap();
        if found == old {
            counts[usize::from(data.exists())] += 1;
        } else {
            assert!(is_whole(&found), "kill {kill}: half a profile:\n{found}");
            counts[2] += 1;
        }
    }
    let [none, old, new] = counts;
    println!(
        "{KILLS_PROBE} kills: {none} without a file to probe, {old} with the old profile, {new} with the new one"
    );
    assert!(none + old > KILLS_PROBE / 10, "{KILLS_PROBE} kills: next to all came too late");
}

/// A file system of 64 KiB, for one shell and its children: needs no root where user namespaces work.
#[test]
fn a_full_disk_is_named_before_anything_is_written() {
    let inside = tempfile::tempdir().unwrap();
    let [model, text, recorded, links] = inputs(inside.path());
    let mount = inside.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let small = mount.display().to_string();
    let script = "mount -t tmpfs -o size=64k none \"$1\" && touch \"$1/target\" || exit 99
        shift; \"$@\" 2>&1; code=$?; ls -A \"$SMALL\"; exit $code";
    let within = |args: &[&str]| {
        Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", &small])
            .arg(env!("CARGO_BIN_EXE_lnp"))
            .args(args)
            .env("SMALL", &small)
            .output()
    };
    let target = mount.join("x").display().to_string();
    let linked = mount.join("target").display().to_string();
    let link = inside.path().join("link").display().to_string();
    std::os::unix::fs::symlink(&linked, &link).unwrap();
    let pack = ["pack", "--model", &model, "--links", &links, "-o", &target];
    let trace = ["trace", "--model", &model, "--text", &text, "-o", &target];
    let synth =
        ["synth", "--traces", &recorded, "--layers", "8", "--neurons", "4096", "-o", &target];
    let links_of_16 = ["link", "--traces", &recorded, "--order", "replicas:16", "-o", &target];
    // a name elsewhere for a file that is there
    let through_link = ["pack", "--model", &model, "--links", &links, "-o", &link];
    let unlinked = unlinked_pack(inside.path(), &model, &recorded);
    let relink = ["relink", &unlinked, "--seen", &recorded, "-o", &target];
    let commands = [&pack[..], &trace[..], &synth[..], &links_of_16[..], &through_link[..]];
    for args in commands.into_iter().chain([&relink[..]]) {
        let output = match within(args) {
            Ok(output) if output.status.code() != Some(99) => output,
            _ => return skipped("no unshare, or no user namespaces, to mount a small disk in"),
        };
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        // one line, with what is needed; and nothing was left in the folder
        assert_eq!(told.lines().collect::<Vec<_>>()[1..], ["target"], "{told}");
        assert!(told.contains("are needed, 64.0 KiB are free there; make room"), "{told}");
    }
    assert!(lnp(&["verify", &target]).status.code() == Some(1));
}
