//! The cache's decisions: which bundles stay, in which cell. The bytes themselves are the engine's.
//!
//! A cache has a *hot set* of bundles that stay once they were read (with the policies that pin),
//! and a policy for the cells that are left: `table` knows what is where, and `lru`, `s3_fifo`,
//! `linking_aligned` and `decayed_frequency` which bundle makes room for which. All operations but
//! [`Cache::pin`] and [`Cache::clear`] take constant time on average, and nothing is allocated: all
//! of it are slices of the arena.

mod decayed_frequency;
mod linking_aligned;
mod lru;
mod policy;
mod s3_fifo;
mod table;

use crate::arena::{Arena, ArenaError, ArenaSize};
use decayed_frequency::DecayedFrequency;
use linking_aligned::LinkingAligned;
use lru::Lru;
pub use policy::CachePolicy;
use s3_fifo::S3Fifo;
use table::{State, Table};

/// How a bundle was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Length of the run of adjacent slots that it lies in, bundles.
    pub run_bundles: u32,
    /// Bundles that were wanted of the same read, this one among them: those of a run, and of others across
    /// holes that were read through.
    pub read_bundles: u32,
}

/// Who gives way to whom. Never told of pinned bundles and cells.
trait Replacement {
    /// A cell's bundle was asked for.
    fn hit(&mut self, cell: u32);
    /// Puts a bundle that is in no cell into one, or doesn't.
    fn admit(&mut self, table: &mut Table<'_>, bundle: u32, read: Read) -> Option<u32>;
    /// Forgets everything.
    fn clear(&mut self);
}

/// The rule for the cells that are not pinned.
#[derive(Debug)]
enum Rest<'a> {
    /// Nothing is admitted.
    Unused,
    Lru(Lru<'a>),
    S3Fifo(S3Fifo<'a>),
    LinkingAligned(LinkingAligned<'a>),
    DecayedFrequency(DecayedFrequency<'a>),
}

impl Rest<'_> {
    fn rule(&mut self) -> Option<&mut dyn Replacement> {
        match self {
            Self::Unused => None,
            Self::Lru(rule) => Some(rule),
            Self::S3Fifo(rule) => Some(rule),
            Self::LinkingAligned(rule) => Some(rule),
            Self::DecayedFrequency(rule) => Some(rule),
        }
    }
}

/// A cache of bundles, named by one `u32` each (layer times neurons plus neuron id).
#[derive(Debug)]
pub struct Cache<'a> {
    policy: CachePolicy,
    table: Table<'a>,
    rest: Rest<'a>,
}

impl<'a> Cache<'a> {
    /// A cache of `cells` bundles out of `bundles`, empty, its hot set not named yet.
    ///
    /// # Errors
    /// [`ArenaError`].
    pub fn new(
        arena: &mut Arena<'a>,
        bundles: usize,
        cells: usize,
        policy: CachePolicy,
    ) -> Result<Self, ArenaError> {
        let (bundles, cells) = needed(bundles, cells, policy);
        let table = Table::new(arena, bundles, cells)?;
        let rest = match policy {
            CachePolicy::None | CachePolicy::Pinned => Rest::Unused,
            CachePolicy::Lru => Rest::Lru(Lru::new(arena, cells)?),
            CachePolicy::S3Fifo => Rest::S3Fifo(S3Fifo::new(arena, bundles, cells)?),
            CachePolicy::LinkingAligned | CachePolicy::PinnedLinkingAligned => {
                Rest::LinkingAligned(LinkingAligned::new(S3Fifo::new(arena, bundles, cells)?))
            }
            CachePolicy::DecayedFrequency => {
                Rest::DecayedFrequency(DecayedFrequency::new(arena, bundles)?)
            }
        };
        Ok(Self { policy, table, rest })
    }

    /// Counts what [`Cache::new`] takes from the arena.
    pub fn size(size: &mut ArenaSize, bundles: usize, cells: usize, policy: CachePolicy) {
        let (bundles, cells) = needed(bundles, cells, policy);
        Table::size(size, bundles, cells);
        match policy {
            CachePolicy::None | CachePolicy::Pinned => {}
            CachePolicy::Lru => Lru::size(size, cells),
            CachePolicy::S3Fifo
            | CachePolicy::LinkingAligned
            | CachePolicy::PinnedLinkingAligned => S3Fifo::size(size, bundles, cells),
            CachePolicy::DecayedFrequency => DecayedFrequency::size(size, bundles),
        }
    }

    /// Names the hot set, where the policy has one: the bundles with the largest of `counts`, pairs
    /// of a bundle and how often the profile saw it active; ties by lower bundle. Empties
    /// the cache. Takes time linear in the bundles.
    ///
    /// [`CachePolicy::DecayedFrequency`] begins with all of its cells kept for such a set, and gives them to
    /// others as these are worth more.
    ///
    /// A bundle never seen is hot only where nothing else would use its cell: a pack need not have a
    /// profile, and then any bundles are as good.
    pub fn pin(&mut self, counts: impl Iterator<Item = (u32, u32)>) {
        if let Rest::DecayedFrequency(rule) = &mut self.rest {
            rule.learn(counts);
            self.table.pin(self.table.cells(), false, rule.profiled());
            return;
        }
        let cells = self.policy.pinned_cells(self.table.cells());
        if cells > 0 {
            let unseen = self.policy == CachePolicy::Pinned;
            self.table.pin(cells, unseen, counts);
            self.clear();
        }
    }

    /// The hot set, ascending; none where the policy pins nothing, or where the cells of the set that it begins
    /// with are no longer kept for it.
    pub fn hot(&self) -> &[u32] {
        match &self.rest {
            Rest::DecayedFrequency(rule) if rule.has_moved() => &[],
            _ => self.table.hot(),
        }
    }

    /// Forgets everything but which bundles are hot, or what the profile counted.
    pub fn clear(&mut self) {
        match &mut self.rest {
            // The cells of the first hot set may be others' by now.
            Rest::DecayedFrequency(rule) => {
                self.table.pin(self.table.cells(), false, rule.profiled());
            }
            _ => self.table.clear(),
        }
        if let Some(rule) = self.rest.rule() {
            rule.clear();
        }
    }

    /// Cells in use.
    pub const fn len(&self) -> u32 {
        self.table.len()
    }

    /// Whether no cell is in use.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The cell that holds a bundle, without counting a hit.
    pub fn peek(&self, bundle: u32) -> Option<u32> {
        match self.table.state(bundle)? {
            State::Cell(cell) => Some(cell),
            _ => None,
        }
    }

    /// The cell that holds a bundle; counts a hit.
    pub fn hit(&mut self, bundle: u32) -> Option<u32> {
        let cell = self.peek(bundle)?;
        if let Rest::DecayedFrequency(rule) = &mut self.rest {
            rule.count(bundle);
        } else if !self.table.is_hot(cell)
            && let Some(rule) = self.rest.rule()
        {
            rule.hit(cell);
        }
        Some(cell)
    }

    /// Takes in a bundle that was read and says into which cell, throwing another out where it must.
    /// `run_bundles` is the length of the run of adjacent slots that it was read in. `None` where
    /// the policy passes, or for a bundle that the cache has or cannot have.
    pub fn admit(&mut self, bundle: u32, run_bundles: u32) -> Option<u32> {
        self.admit_read(bundle, Read { run_bundles, read_bundles: run_bundles })
    }

    /// The same where it is known how many bundles came in the same read.
    pub fn admit_read(&mut self, bundle: u32, read: Read) -> Option<u32> {
        match (self.table.state(bundle)?, &mut self.rest) {
            (State::Cell(_), _) => None,
            (_, Rest::DecayedFrequency(rule)) => rule.admit(&mut self.table, bundle, read),
            (State::Hot(cell), _) => {
                self.table.fill_hot(cell, bundle);
                Some(cell)
            }
            (State::Unknown | State::Ghost(_), rest) => {
                rest.rule()?.admit(&mut self.table, bundle, read)
            }
        }
    }
}

/// A cache without cells knows no bundles, one without a policy has no cells.
const fn needed(bundles: usize, cells: usize, policy: CachePolicy) -> (usize, usize) {
    match (cells, policy) {
        (0, _) | (_, CachePolicy::None) => (0, 0),
        _ => (bundles, cells),
    }
}
