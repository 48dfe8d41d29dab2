//! `lnp completions`.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::{Shell, generate};
use lnp_common::report::print;

/// Print what lets a shell complete lnp's commands and options
///
/// Example: lnp completions bash > ~/.local/share/bash-completion/completions/lnp
///
/// Example: lnp completions zsh > ~/.zfunc/_lnp
///
/// Example: lnp completions fish > ~/.config/fish/completions/lnp.fish
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let mut out = Vec::new();
    generate(args.shell, &mut super::Cli::command(), "lnp", &mut out);
    print(&String::from_utf8(out)?)
}
