//! The cache's decisions: which bundles stay, in which cell. The bytes themselves are the engine's.
//!
//! S3-FIFO (Yang et al., SOSP 2023): a *small* queue for newcomers, a *main* queue for those asked
//! for again, and a memory of *ghosts*, bundles lately thrown out of small, which go straight to
//! main when they come back. All operations take constant time on average, and nothing is allocated:
//! the queues are rings over slices of the arena.

use crate::arena::{Arena, ArenaSize};
use crate::error::EngineError;
use crate::limits::CACHE_GHOSTS_PER_BUNDLE;

/// Two tag bits of a bundle's state; the rest is a cell or a position among the ghosts.
const TAG_CELL: u32 = 1 << 30;
const TAG_GHOST: u32 = 2 << 30;
const TAGS: u32 = 3 << 30;
/// Hits that an entry remembers.
const HITS_MAX: u8 = 3;

/// A ring buffer over a slice.
#[derive(Debug)]
struct Ring<'a> {
    entries: &'a mut [u32],
    head: usize,
    len: usize,
}

impl<'a> Ring<'a> {
    fn new(entries: &'a mut [u32]) -> Self {
        Self { entries, head: 0, len: 0 }
    }

    /// Appends; the ring is never full when this is called (its size is that of all cells).
    fn push(&mut self, value: u32) -> usize {
        let at = (self.head + self.len) % self.entries.len().max(1);
        if let Some(entry) = self.entries.get_mut(at) {
            *entry = value;
            self.len += 1;
        }
        at
    }

    fn pop(&mut self) -> Option<(usize, u32)> {
        if self.len == 0 {
            return None;
        }
        let at = self.head;
        self.head = (self.head + 1) % self.entries.len();
        self.len -= 1;
        Some((at, self.entries[at]))
    }

    fn is_full(&self) -> bool {
        self.len == self.entries.len()
    }
}

/// An S3-FIFO cache of bundles, named by one `u32` each (layer times neurons plus neuron id).
#[derive(Debug)]
pub struct Cache<'a> {
    /// Of every bundle of the pack: nothing, its cell, or its place among the ghosts.
    state: &'a mut [u32],
    /// Bundle in each cell.
    bundle_of_cell: &'a mut [u32],
    /// Hits of each cell since it was filled or last spared.
    hits: &'a mut [u8],
    small: Ring<'a>,
    main: Ring<'a>,
    ghosts: Ring<'a>,
    filled: u32,
}

impl<'a> Cache<'a> {
    /// A cache of `cells` bundles out of `bundles`, empty.
    ///
    /// # Errors
    /// [`EngineError::ArenaTooSmall`].
    pub fn new(arena: &mut Arena<'a>, bundles: usize, cells: usize) -> Result<Self, EngineError> {
        let bundles = if cells == 0 { 0 } else { bundles };
        Ok(Self {
            state: arena.take(bundles)?,
            bundle_of_cell: arena.take(cells)?,
            hits: arena.take(cells)?,
            small: Ring::new(arena.take(cells)?),
            main: Ring::new(arena.take(cells)?),
            ghosts: Ring::new(arena.take(ghosts(bundles, cells))?),
            filled: 0,
        })
    }

    /// Counts what [`Cache::new`] takes from the arena.
    pub fn size(size: &mut ArenaSize, bundles: usize, cells: usize) {
        let bundles = if cells == 0 { 0 } else { bundles };
        size.add::<u32>(bundles);
        size.add::<u32>(cells);
        size.add::<u8>(cells);
        size.add::<u32>(cells);
        size.add::<u32>(cells);
        size.add::<u32>(ghosts(bundles, cells));
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.state.fill(0);
        self.hits.fill(0);
        for ring in [&mut self.small, &mut self.main, &mut self.ghosts] {
            ring.head = 0;
            ring.len = 0;
        }
        self.filled = 0;
    }

    /// Cells in use.
    pub const fn len(&self) -> u32 {
        self.filled
    }

    /// Whether no cell is in use.
    pub const fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The cell that holds a bundle, without counting a hit.
    pub fn peek(&self, bundle: u32) -> Option<u32> {
        let state = *self.state.get(bundle as usize)?;
        (state & TAGS == TAG_CELL).then_some(state & !TAGS)
    }

    /// The cell that holds a bundle; counts a hit.
    pub fn hit(&mut self, bundle: u32) -> Option<u32> {
        let cell = self.peek(bundle)?;
        let hits = self.hits.get_mut(cell as usize)?;
        *hits = (*hits + 1).min(HITS_MAX);
        Some(cell)
    }

    /// Makes room for a bundle that is not in the cache and says in which cell; throws another out
    /// where all are in use. `None` for a cache without cells, or a bundle it has or cannot have.
    pub fn admit(&mut self, bundle: u32) -> Option<u32> {
        let state = *self.state.get(bundle as usize)?;
        if state & TAGS == TAG_CELL {
            return None;
        }
        let known = state & TAGS == TAG_GHOST;
        let cell = if (self.filled as usize) < self.bundle_of_cell.len() {
            self.filled += 1;
            self.filled - 1
        } else {
            self.evict()?
        };
        // Asked again: eviction may have pushed this very ghost out of memory, which is no matter.
        self.state[bundle as usize] = TAG_CELL | cell;
        self.bundle_of_cell[cell as usize] = bundle;
        self.hits[cell as usize] = 0;
        if known {
            self.main.push(cell)
        } else {
            self.small.push(cell)
        };
        Some(cell)
    }

    /// Empties one cell. Each turn of the loop either ends it, moves a cell from small to main
    /// (at most all of them), or takes a hit from one (at most [`HITS_MAX`] each): it ends.
    fn evict(&mut self) -> Option<u32> {
        let small_share = (self.bundle_of_cell.len() / 10).max(1);
        loop {
            let from_small = self.small.len >= small_share || self.main.len == 0;
            let queue = if from_small { &mut self.small } else { &mut self.main };
            let (_, cell) = queue.pop()?;
            let hits = &mut self.hits[cell as usize];
            if *hits > 0 {
                *hits = if from_small { 0 } else { *hits - 1 };
                self.main.push(cell);
                continue;
            }
            let bundle = self.bundle_of_cell[cell as usize];
            self.state[bundle as usize] = 0;
            if from_small {
                self.remember(bundle);
            }
            return Some(cell);
        }
    }

    /// Adds a ghost; the oldest is forgotten where memory is full.
    fn remember(&mut self, bundle: u32) {
        if self.ghosts.is_full()
            && let Some((at, old)) = self.ghosts.pop()
        {
            // It may have come back meanwhile (and even left again): forget this place only.
            let state = &mut self.state[old as usize];
            if *state == TAG_GHOST | at as u32 {
                *state = 0;
            }
        }
        if !self.ghosts.is_full() {
            let at = self.ghosts.push(bundle);
            self.state[bundle as usize] = TAG_GHOST | at as u32;
        }
    }
}

/// Ghosts remembered by a cache of `cells` out of `bundles`.
fn ghosts(bundles: usize, cells: usize) -> usize {
    cells.saturating_mul(CACHE_GHOSTS_PER_BUNDLE as usize).min(bundles).min(!TAGS as usize)
}
