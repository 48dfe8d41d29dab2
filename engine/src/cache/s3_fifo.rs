//! S3-FIFO (Yang et al., SOSP 2023): a *small* queue for newcomers, a *main* queue for those asked
//! for again, and a memory of *ghosts*, bundles lately thrown out of small, which go straight to
//! main when they come back. The queues are rings over slices of the arena.

use super::table::{NUMBER_MAX, State, Table};
use super::{Read, Replacement};
use crate::arena::{Arena, ArenaError, ArenaSize};
use crate::limits::CACHE_GHOSTS_PER_BUNDLE;

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

/// The queues.
#[derive(Debug)]
pub(super) struct S3Fifo<'a> {
    /// Hits of each cell since it was filled or last spared.
    hits: &'a mut [u8],
    small: Ring<'a>,
    main: Ring<'a>,
    ghosts: Ring<'a>,
}

impl<'a> S3Fifo<'a> {
    pub(super) fn new(
        arena: &mut Arena<'a>,
        bundles: usize,
        cells: usize,
    ) -> Result<Self, ArenaError> {
        Ok(Self {
            hits: arena.take(cells)?,
            small: Ring::new(arena.take(cells)?),
            main: Ring::new(arena.take(cells)?),
            ghosts: Ring::new(arena.take(ghosts(bundles, cells))?),
        })
    }

    pub(super) fn size(size: &mut ArenaSize, bundles: usize, cells: usize) {
        size.add::<u8>(cells);
        size.add::<u32>(cells);
        size.add::<u32>(cells);
        size.add::<u32>(ghosts(bundles, cells));
    }

    /// Empties one cell. Each turn of the loop either ends it, moves a cell from small to main
    /// (at most all of them), or takes a hit from one (at most [`HITS_MAX`] each): it ends.
    fn evict(&mut self, table: &mut Table<'_>) -> Option<u32> {
        let small_share = (table.rest() / 10).max(1);
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
            let bundle = table.bundle_of(cell);
            table.set(bundle, State::Unknown);
            if from_small {
                self.remember(table, bundle);
            }
            return Some(cell);
        }
    }

    /// Adds a ghost; the oldest is forgotten where memory is full.
    fn remember(&mut self, table: &mut Table<'_>, bundle: u32) {
        if self.ghosts.is_full()
            && let Some((at, old)) = self.ghosts.pop()
        {
            // It may have come back meanwhile (and even left again): forget this place only.
            if table.state(old) == Some(State::Ghost(at as u32)) {
                table.set(old, State::Unknown);
            }
        }
        if !self.ghosts.is_full() {
            let at = self.ghosts.push(bundle);
            table.set(bundle, State::Ghost(at as u32));
        }
    }
}

impl Replacement for S3Fifo<'_> {
    fn hit(&mut self, cell: u32) {
        let hits = &mut self.hits[cell as usize];
        *hits = (*hits + 1).min(HITS_MAX);
    }

    fn admit(&mut self, table: &mut Table<'_>, bundle: u32, _read: Read) -> Option<u32> {
        let known = matches!(table.state(bundle), Some(State::Ghost(_)));
        let cell = match table.unused() {
            Some(cell) => cell,
            None => self.evict(table)?,
        };
        // Asked again: eviction may have pushed this very ghost out of memory, which is no matter.
        table.fill(cell, bundle);
        self.hits[cell as usize] = 0;
        if known {
            self.main.push(cell)
        } else {
            self.small.push(cell)
        };
        Some(cell)
    }

    fn clear(&mut self) {
        self.hits.fill(0);
        for ring in [&mut self.small, &mut self.main, &mut self.ghosts] {
            ring.head = 0;
            ring.len = 0;
        }
    }
}

/// Ghosts remembered by a cache of `cells` out of `bundles`.
fn ghosts(bundles: usize, cells: usize) -> usize {
    cells.saturating_mul(CACHE_GHOSTS_PER_BUNDLE as usize).min(bundles).min(NUMBER_MAX)
}
