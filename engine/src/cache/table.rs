//! What is where: of every bundle its state, of every cell its bundle. All policies share it.

use crate::arena::{Arena, ArenaError, ArenaSize};

/// Two tag bits of a bundle's state; the rest is a cell or a position among the ghosts.
const TAG_CELL: u32 = 1 << 30;
const TAG_GHOST: u32 = 2 << 30;
const TAG_HOT: u32 = 3 << 30;
const TAGS: u32 = 3 << 30;

/// Largest cell or ghost that a state can name.
pub(super) const NUMBER_MAX: usize = !TAGS as usize;

/// What is known of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing.
    Unknown,
    /// It is in this cell.
    Cell(u32),
    /// It was thrown out, and is at this place among the ghosts.
    Ghost(u32),
    /// It is of the hot set and not read yet: this cell waits for it.
    Hot(u32),
}

impl State {
    const fn bits(self) -> u32 {
        match self {
            Self::Unknown => 0,
            Self::Cell(number) => TAG_CELL | number,
            Self::Ghost(number) => TAG_GHOST | number,
            Self::Hot(number) => TAG_HOT | number,
        }
    }

    const fn of_bits(bits: u32) -> Self {
        let number = bits & !TAGS;
        match bits & TAGS {
            TAG_CELL => Self::Cell(number),
            TAG_GHOST => Self::Ghost(number),
            TAG_HOT => Self::Hot(number),
            _ => Self::Unknown,
        }
    }
}

/// The states of bundles and the bundles of cells. The first cells are those of the hot set, the
/// others are filled in ascending order and then reused.
///
/// Whatever indexes here is in range: a cell's bundle came through [`Table::state`], which checks
/// it, and a cell's number is that of an entry of `bundle_of_cell`.
#[derive(Debug)]
pub(super) struct Table<'a> {
    states: &'a mut [u32],
    bundle_of_cell: &'a mut [u32],
    /// Cells of the hot set.
    hot: u32,
    /// Of them, those that hold their bundle.
    hot_filled: u32,
    /// Cells in use besides the hot set's.
    rest_filled: u32,
}

impl<'a> Table<'a> {
    pub(super) fn new(
        arena: &mut Arena<'a>,
        bundles: usize,
        cells: usize,
    ) -> Result<Self, ArenaError> {
        Ok(Self {
            states: arena.take(bundles)?,
            bundle_of_cell: arena.take(cells)?,
            hot: 0,
            hot_filled: 0,
            rest_filled: 0,
        })
    }

    pub(super) fn size(size: &mut ArenaSize, bundles: usize, cells: usize) {
        size.add::<u32>(bundles);
        size.add::<u32>(cells);
    }

    /// Forgets everything but which bundles are hot.
    pub(super) fn clear(&mut self) {
        self.states.fill(0);
        for (cell, bundle) in self.bundle_of_cell[..self.hot as usize].iter().enumerate() {
            self.states[*bundle as usize] = State::Hot(cell as u32).bits();
        }
        self.hot_filled = 0;
        self.rest_filled = 0;
    }

    /// Names the hot set: the `most` bundles with the largest `counts`, ties by lower bundle; those
    /// without a count above 0 only if `unseen` says so. Forgets everything else.
    pub(super) fn pin(
        &mut self,
        most: usize,
        unseen: bool,
        counts: impl Iterator<Item = (u32, u32)>,
    ) {
        let most = most.min(self.bundle_of_cell.len());
        // Nothing is cached, so the states are free to hold the counts meanwhile.
        self.states.fill(0);
        for (bundle, count) in counts {
            if let Some(state) = self.states.get_mut(bundle as usize) {
                *state = count;
            }
        }
        let above = |least: u32| self.states.iter().filter(|count| **count > least).count();
        let (mut low, mut high) = (0, u32::MAX);
        // The least count that no more than `most` bundles exceed.
        while low < high {
            let middle = low + (high - low) / 2;
            if above(middle) > most { low = middle + 1 } else { high = middle }
        }
        let mut ties = if low == 0 && !unseen { 0 } else { most - above(low) };
        let mut cell = 0;
        for (bundle, state) in self.states.iter_mut().enumerate() {
            let tie = *state == low && ties > 0;
            let hot = *state > low || tie;
            *state = 0;
            if hot {
                ties -= usize::from(tie);
                self.bundle_of_cell[cell as usize] = bundle as u32;
                *state = State::Hot(cell).bits();
                cell += 1;
            }
        }
        self.hot = cell;
        self.hot_filled = 0;
        self.rest_filled = 0;
    }

    /// What is known of a bundle; `None` where there is no such bundle.
    pub(super) fn state(&self, bundle: u32) -> Option<State> {
        self.states.get(bundle as usize).map(|bits| State::of_bits(*bits))
    }

    pub(super) fn set(&mut self, bundle: u32, state: State) {
        self.states[bundle as usize] = state.bits();
    }

    pub(super) fn bundle_of(&self, cell: u32) -> u32 {
        self.bundle_of_cell[cell as usize]
    }

    /// Puts a bundle into a cell of the rest.
    pub(super) fn fill(&mut self, cell: u32, bundle: u32) {
        self.set(bundle, State::Cell(cell));
        self.bundle_of_cell[cell as usize] = bundle;
    }

    /// Puts a bundle of the hot set into the cell that waits for it.
    pub(super) fn fill_hot(&mut self, cell: u32, bundle: u32) {
        self.set(bundle, State::Cell(cell));
        self.hot_filled += 1;
    }

    /// Gives any cell to another bundle, also one that waits for a bundle of the hot set.
    pub(super) fn replace(&mut self, cell: u32, bundle: u32) {
        let old = self.bundle_of(cell);
        self.hot_filled += u32::from(matches!(self.state(old), Some(State::Hot(_))));
        self.set(old, State::Unknown);
        self.fill(cell, bundle);
    }

    /// Whether a cell is one of the hot set's.
    pub(super) const fn is_hot(&self, cell: u32) -> bool {
        cell < self.hot
    }

    /// The bundles of the hot set, ascending, in the cells that wait for them or hold them.
    pub(super) fn hot(&self) -> &[u32] {
        &self.bundle_of_cell[..self.hot as usize]
    }

    /// All cells.
    pub(super) fn cells(&self) -> usize {
        self.bundle_of_cell.len()
    }

    /// Cells that are not the hot set's.
    pub(super) fn rest(&self) -> usize {
        self.bundle_of_cell.len() - self.hot as usize
    }

    /// A cell of the rest that was never used.
    pub(super) fn unused(&mut self) -> Option<u32> {
        if self.rest_filled as usize >= self.rest() {
            return None;
        }
        self.rest_filled += 1;
        Some(self.hot + self.rest_filled - 1)
    }

    /// Cells in use.
    pub(super) const fn len(&self) -> u32 {
        self.hot_filled + self.rest_filled
    }
}
