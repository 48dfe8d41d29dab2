//! `lnp man`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use lnp_common::files::write_text;
use lnp_common::report::{print, shown};

/// Write manual pages: lnp.1, and one of each command
///
/// Example: lnp man -o ~/.local/share/man/man1
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder to write into; made where there is none
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let folder = &args.output;
    std::fs::create_dir_all(folder).with_context(|| {
        format!("{}: cannot be made; give a folder, or a new name", folder.display())
    })?;
    let mut whole = super::Cli::command();
    whole.build();
    let of_command = |command: &Command| {
        let name = format!("lnp-{}", command.get_name());
        // Headings say what is typed, names of pages have no spaces.
        command.clone().display_name(&name).bin_name(format!("lnp {}", command.get_name()))
    };
    let commands: Vec<Command> = whole
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
        .map(of_command)
        .collect();
    for command in std::iter::once(whole).chain(commands) {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        let mut page = Vec::new();
        // No date: the same program gives the same pages.
        Man::new(command).title(name.to_uppercase()).date("").render(&mut page)?;
        let path = folder.join(format!("{name}.1"));
        write_text(&path, &String::from_utf8(page)?)?;
        print(&format!("{}\n", shown(&path)))?;
    }
    Ok(())
}
