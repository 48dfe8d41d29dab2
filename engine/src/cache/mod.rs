//! The cache's decisions: which bundles stay, in which cell. The bytes themselves are the engine's.
//!
//! A cache has a *hot set* of bundles that stay once they were read (with the policies that pin),
//! and a policy for the cells that are left: `table` knows what is where, and `lru`, `s3_fifo` and
//! `linking_aligned` which bundle makes room for which. All operations but [`Cache::pin`] and
//! [`Cache::clear`] take constant time on average, and nothing is allocated: all of it are slices of
//! the arena.

mod linking_aligned;
mod lru;
mod policy;
mod s3_fifo;
mod table;

use crate::arena::{Arena, ArenaError, ArenaSize};
use linking_aligned::LinkingAligned;
use lru::Lru;
pub use policy::CachePolicy;
use s3_fifo::S3Fifo;
use table::{State, Table};

/// Who gives way to whom. Never told of the hot set's bundles and cells.
trait Replacement {
    /// A cell's bundle was asked for.
    fn hit(&mut self, cell: u32);
    /// Puts a bundle that is in no cell into one, or doesn't.
    fn admit(&mut self, table: &mut Table<'_>, bundle: u32, run_bundles: u32) -> Option<u32>;
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
}

impl Rest<'_> {
    fn rule(&mut self) -> Option<&mut dyn Replacement> {
        match self {
            Self::Unused => None,
            Self::Lru(rule) => Some(rule),
            Self::S3Fifo(rule) => Some(rule),
            Self::LinkingAligned(rule) => Some(rule),
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
        }
    }

    /// Names the hot set, where the policy has one: the bundles with the largest of `counts`, pairs
    /// of a bundle and how often the profile saw it active; ties by lower bundle. Empties
    /// the cache. Takes time linear in the bundles.
    ///
    /// A bundle never seen is hot only where nothing else would use its cell: a pack need not have a
    /// profile, and then any bundles are as good.
    pub fn pin(&mut self, counts: impl Iterator<Item = (u32, u32)>) {
        let cells = self.policy.pinned_cells(self.table.cells());
        if cells > 0 {
            let unseen = self.policy == CachePolicy::Pinned;
            self.table.pin(cells, unseen, counts);
            self.clear();
        }
    }

    /// The hot set, ascending; none where the policy pins nothing.
    pub fn hot(&self) -> &[u32] {
        self.table.hot()
    }

    /// Forgets everything but which bundles are hot.
    pub fn clear(&mut self) {
        self.table.clear();
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
        if !self.table.is_hot(cell)
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
        match self.table.state(bundle)? {
            State::Cell(_) => None,
            State::Hot(cell) => {
                self.table.fill_hot(cell, bundle);
                Some(cell)
            }
            State::Unknown | State::Ghost(_) => {
                self.rest.rule()?.admit(&mut self.table, bundle, run_bundles)
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
