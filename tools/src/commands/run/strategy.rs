//! What is read for a token, to be compared: all of each layer, or what is active, in the order that the pack has.

use anyhow::{Result, ensure};
use lnp_format::Pack;

/// Values of `--strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Strategy {
    /// Every layer as a whole, whatever is active
    Dense,
    /// What is active, from a pack in the model's own order
    Model,
    /// The same, from a pack in the order of frequency
    Frequency,
    /// The same, from a pack whose neurons were linked
    Linked,
}

impl Strategy {
    /// What a pack's order makes of reading what is active.
    pub(super) fn of_order(pack: &Pack<'_>) -> Self {
        match pack.provenance().value("order") {
            Some("identity") | None => Self::Model,
            Some("frequency") => Self::Frequency,
            Some(_) => Self::Linked,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Model => "model",
            Self::Frequency => "frequency",
            Self::Linked => "linked",
        }
    }

    /// What is done: what was asked for, where the pack is in that order.
    ///
    /// # Errors
    /// A pack in another order.
    pub(super) fn chosen(asked: Option<Self>, pack: &Pack<'_>) -> Result<Self> {
        let own = Self::of_order(pack);
        let asked = asked.unwrap_or(own);
        ensure!(
            asked == Self::Dense || asked == own,
            "--strategy {}: the pack is in the order `{}`, which is {}; pack the model with links of another --order",
            asked.name(),
            pack.provenance().value("order").unwrap_or("identity"),
            own.name()
        );
        Ok(asked)
    }
}
