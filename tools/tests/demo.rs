//! `lnp demo --keep`: what it leaves, and what it says can be done with it.

mod common;

use std::path::Path;
use std::process::Command;

use common::{disk_folder, ok};

/// The commands that it prints are run as they stand there, by a shell.
#[test]
fn what_is_kept_can_be_gone_on_with() {
    // a name that a shell would take apart
    let folder = disk_folder();
    let place = folder.path().join("it's here");
    std::fs::create_dir(&place).unwrap();
    let told = ok(&["demo", "--keep", "--buffered", "--dir", place.to_str().unwrap()]);
    let commands: Vec<&str> =
        told.lines().skip_while(|line| !line.starts_with("kept: ")).skip(2).collect();
    let commands: Vec<&str> = commands.iter().map_while(|line| line.strip_prefix("    ")).collect();
    assert!(commands.len() >= 5 && commands[0].starts_with("cd '"), "{told}");
    let kinds = ["inspect", "run", "perplexity", "replay", "pack"];
    for kind in kinds {
        assert!(commands.iter().any(|line| line.starts_with(&format!("lnp {kind} "))), "{told}");
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_lnp")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let script = format!("set -e\n{}\n", commands.join("\n"));
    let done = Command::new("sh").args(["-c", &script]).env("PATH", path).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{script}{said}");
}
