//! `lnp demo`.

use anyhow::Result;

/// Demo
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args) -> Result<()> {
    anyhow::bail!("not yet")
}
