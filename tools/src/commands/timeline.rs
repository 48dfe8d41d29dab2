//! `--timeline`, of the commands that read token by token.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use lnp_common::files::{check_target, write_text};
use lnp_device::timeline::{TIMELINE_TOKENS_USUAL, Timeline, trace_events};

/// What is recorded, moment by moment.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct TimelineArgs {
    /// Write each read, its submission and arrival, and what is computed meanwhile, of the first tokens (a prompt is one:
    /// its tokens share their reads): trace events as JSON, for ui.perfetto.dev or chrome://tracing
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
    /// With --timeline: so many tokens
    #[arg(long, value_name = "N", requires = "timeline", default_value_t = TIMELINE_TOKENS_USUAL as u16,
          value_parser = clap::value_parser!(u16).range(1..))]
    timeline_tokens: u16,
}

impl TimelineArgs {
    /// How many tokens are recorded; `None` where nothing is.
    pub(super) fn tokens(&self) -> Option<usize> {
        self.timeline.as_ref().map(|_| self.timeline_tokens.into())
    }

    /// Refuses a file that cannot be written, before anything is read.
    pub(super) fn check(&self, inputs: &[&Path]) -> Result<()> {
        self.timeline.as_ref().map_or(Ok(()), |file| check_target(file, inputs))
    }

    /// Writes what was recorded.
    pub(super) fn write(&self, timelines: &[Timeline]) -> Result<()> {
        let Some(file) = &self.timeline else { return Ok(()) };
        let lost: u64 = timelines.iter().map(Timeline::lost).sum();
        ensure!(
            lost == 0,
            "--timeline: a layer has more reads than there is room to note, {lost} of them: merge more (--gap)"
        );
        write_text(file, &format!("{}\n", trace_events(timelines)))
    }
}
