//! What comes with an installed `lnp`: completions and manual pages, of every command that there is.

mod common;

use common::{disk_folder, ok};

/// The commands, as `lnp --help` has them.
fn commands() -> Vec<String> {
    let help = ok(&["--help"]);
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let (commands, _) = commands.split_once("\n\n").unwrap();
    let names = commands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}

#[test]
fn shells_complete_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = ok(&["completions", shell]);
        for command in commands() {
            assert!(script.contains(&command), "{shell}: {command}");
        }
        for option in ["timeline-tokens", "cache-ratio"] {
            assert!(script.contains(option), "{shell}: {option}");
        }
    }
}

#[test]
fn there_is_a_manual_page_of_every_command() {
    let folder = disk_folder();
    let path = folder.path().join("man1");
    let told = ok(&["man", "-o", path.to_str().unwrap()]);
    let commands = commands();
    assert!(commands.len() >= 15, "{commands:?}");
    assert_eq!(told.lines().count(), commands.len() + 1);
    let page = |name: &str| std::fs::read_to_string(path.join(format!("{name}.1"))).unwrap();
    assert!(page("lnp").contains(".TH LNP 1"));
    for command in &commands {
        let page = page(&format!("lnp-{command}"));
        assert!(page.contains(&format!("lnp {command}")), "{command}: {page:.400}");
        assert!(page.contains("Example:") || command == "demo", "{command}");
    }
    // the same again
    let before = page("lnp-run");
    ok(&["man", "-o", path.to_str().unwrap()]);
    assert_eq!(page("lnp-run"), before);
}
