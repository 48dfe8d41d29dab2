//! The README's commands, in their order, on the demo model: each works as it is printed.

mod common;

use std::path::Path;
use std::process::Command;

use common::{demo_model, disk_folder};

/// The `lnp` lines of the README's blocks of shell commands, continued lines joined.
fn commands() -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(readme).unwrap().replace("\\\n", " ");
    let blocks =
        text.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    let lines = blocks.flat_map(str::lines).filter(|line| line.starts_with("lnp "));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_readme_commands_work_as_printed() {
    let folder = disk_folder();
    let model = demo_model();
    // A little text, so that a test can wait for it.
    for text in ["profile.txt", "test.txt"] {
        let whole = std::fs::read_to_string(model.join("text").join(text)).unwrap();
        let end = whole.char_indices().map(|(at, _)| at).find(|at| *at >= 3000).unwrap();
        std::fs::write(folder.path().join(text), &whole[..end]).unwrap();
    }
    let lnp = Path::new(env!("CARGO_BIN_EXE_lnp"));
    let path = format!("{}:{}", lnp.parent().unwrap().display(), std::env::var("PATH").unwrap());
    // Probing takes its time, and `probe.rs` tests it: here a published phone's profile stands for it.
    let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../devices/oneplus-12.toml");
    std::fs::copy(profile, folder.path().join("device.toml")).unwrap();
    let commands = commands();
    assert!(commands.len() >= 12, "{commands:?}");
    for command in commands.iter().filter(|command| !command.starts_with("lnp probe")) {
        // What takes minutes or gigabytes is made small; the flags stay.
        let small = command
            .replace("DIR", model.to_str().unwrap())
            .replace("--layers 32 --neurons 16384", "--layers 2 --neurons 512");
        let mut shell = Command::new("sh");
        shell.args(["-ec", &small]).current_dir(folder.path()).env("PATH", &path);
        let output = shell.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}\n{told}");
    }
}
