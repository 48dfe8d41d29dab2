//! Least recently used: the textbook's rule, to compare with. A token's active set is often larger
//! than a small cache, and then this one throws out each bundle just before it is asked for again.

use super::table::{State, Table};
use super::{Read, Replacement};
use crate::arena::{Arena, ArenaError, ArenaSize};

/// A ring of cells through `newer` and `older`. The entry after the last cell is where it begins
/// and ends, so that no cell is a special case.
#[derive(Debug)]
pub(super) struct Lru<'a> {
    newer: &'a mut [u32],
    older: &'a mut [u32],
}

impl<'a> Lru<'a> {
    pub(super) fn new(arena: &mut Arena<'a>, cells: usize) -> Result<Self, ArenaError> {
        let mut lru = Self { newer: arena.take(cells + 1)?, older: arena.take(cells + 1)? };
        lru.clear();
        Ok(lru)
    }

    pub(super) fn size(size: &mut ArenaSize, cells: usize) {
        size.add::<u32>(cells + 1);
        size.add::<u32>(cells + 1);
    }

    /// The ring's begin and end; there is always this one entry.
    const fn ends(&self) -> u32 {
        (self.newer.len() - 1) as u32
    }

    fn unlink(&mut self, cell: u32) {
        let (newer, older) = (self.newer[cell as usize], self.older[cell as usize]);
        self.older[newer as usize] = older;
        self.newer[older as usize] = newer;
    }

    fn link_newest(&mut self, cell: u32) {
        let ends = self.ends();
        let second = self.older[ends as usize];
        self.older[cell as usize] = second;
        self.newer[cell as usize] = ends;
        self.newer[second as usize] = cell;
        self.older[ends as usize] = cell;
    }
}

impl Replacement for Lru<'_> {
    fn hit(&mut self, cell: u32) {
        self.unlink(cell);
        self.link_newest(cell);
    }

    fn admit(&mut self, table: &mut Table<'_>, bundle: u32, _read: Read) -> Option<u32> {
        let cell = match table.unused() {
            Some(cell) => cell,
            None if table.rest() == 0 => return None,
            None => {
                let oldest = self.newer[self.ends() as usize];
                self.unlink(oldest);
                table.set(table.bundle_of(oldest), State::Unknown);
                oldest
            }
        };
        table.fill(cell, bundle);
        self.link_newest(cell);
        Some(cell)
    }

    fn clear(&mut self) {
        let ends = self.ends();
        self.newer[ends as usize] = ends;
        self.older[ends as usize] = ends;
    }
}
