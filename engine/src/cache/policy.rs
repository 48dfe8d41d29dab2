//! The policies by name.

use crate::limits::CACHE_PINNED_PERCENT;

/// What a cache keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CachePolicy {
    /// Nothing.
    None,
    /// The least recently used bundle goes.
    Lru,
    /// S3-FIFO: newcomers prove themselves in a small queue.
    S3Fifo,
    /// S3-FIFO, which admits bundles of long runs only now and then.
    LinkingAligned,
    /// The bundles that the pack's profile saw most often, and nothing else.
    Pinned,
    /// A share of the cells pinned, the others linking-aligned.
    PinnedLinkingAligned,
    /// The bundles used most, lately and by the profile, each by what it costs to read.
    #[default]
    DecayedFrequency,
}

impl CachePolicy {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Lru,
        Self::S3Fifo,
        Self::LinkingAligned,
        Self::Pinned,
        Self::PinnedLinkingAligned,
        Self::DecayedFrequency,
    ];

    /// Its name in options and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lru => "lru",
            Self::S3Fifo => "s3-fifo",
            Self::LinkingAligned => "linking-aligned",
            Self::Pinned => "pinned",
            Self::PinnedLinkingAligned => "pinned+linking-aligned",
            Self::DecayedFrequency => "decayed-frequency",
        }
    }

    /// The inverse of [`Self::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == name)
    }

    /// How many of so many cells are for the hot set.
    pub const fn pinned_cells(self, cells: usize) -> usize {
        match self {
            Self::Pinned => cells,
            Self::PinnedLinkingAligned => cells.saturating_mul(CACHE_PINNED_PERCENT) / 100,
            _ => 0,
        }
    }
}
