//! A bank: a staging area with the reads of one layer in it, planned, in flight or done. There is one for what is
//! demanded, and a ring of others for what is prefetched.

use lnp_format::Layer;

use crate::arena::{Arena, ArenaSize, Staging};
use crate::error::EngineError;
use crate::limits::BANKS;
use crate::plan::{Collapse, Extent, Geometry, Plan, plan};

/// What is read, and what is wanted of it: shared with the workers while a round is computed.
#[derive(Debug)]
pub(super) struct Reads<'a> {
    pub(super) staging: Staging<'a>,
    slots: &'a mut [u32],
    extents: &'a mut [Extent],
    /// Slot << 32 | position in the round, of each bundle wanted from here, by slot.
    wanted: &'a mut [u64],
    /// Of each extent, where in `wanted` its bundles begin; one more entry than extents.
    begins: &'a mut [u32],
    pub(super) count: usize,
    wanted_count: usize,
}

/// How far the reads of a bank are: the business of the thread that submits them.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    pub(super) layer: Option<u32>,
    /// The placement of the layer that is read from.
    pub(super) placement: u32,
    /// Counts the prefetches: the oldest is read first, and replaced first.
    pub(super) age: u32,
    pub(super) region_offset: u64,
    pub(super) submitted: usize,
    pub(super) completed: usize,
    /// When each read was submitted.
    pub(super) begin_ns: &'a mut [u64],
}

/// Both.
#[derive(Debug)]
pub(super) struct Bank<'a> {
    pub(super) reads: Reads<'a>,
    pub(super) progress: Progress<'a>,
}

impl<'a> Bank<'a> {
    pub(super) fn new(
        arena: &mut Arena<'a>,
        memory: &'a mut [u8],
        slots: usize,
    ) -> Result<Self, EngineError> {
        let reads = Reads {
            staging: Staging::new(arena, memory, slots)?,
            slots: arena.take(slots)?,
            extents: arena.take(slots)?,
            wanted: arena.take(slots)?,
            begins: arena.take(slots + 1)?,
            count: 0,
            wanted_count: 0,
        };
        let begin_ns = arena.take(slots)?;
        let progress = Progress {
            layer: None,
            placement: 0,
            age: 0,
            region_offset: 0,
            submitted: 0,
            completed: 0,
            begin_ns,
        };
        Ok(Self { reads, progress })
    }

    /// Counts what [`Bank::new`] takes from the arena.
    pub(super) fn size(size: &mut ArenaSize, slots: usize) {
        Staging::size(size, slots);
        size.add::<u32>(slots);
        size.add::<Extent>(slots);
        size.add::<u64>(slots);
        size.add::<u32>(slots + 1);
        size.add::<u64>(slots);
    }

    /// Plans the reads of `missing` (slot << 32 | position, ascending). False where the staging area
    /// is too small for them, or still busy.
    pub(super) fn plan(
        &mut self,
        missing: impl Iterator<Item = u64>,
        geometry: &Geometry,
        collapse: &Collapse,
        scratch: &mut [u64],
    ) -> (Plan, bool) {
        let reads = &mut self.reads;
        let mut count = 0;
        for ((slot, wanted), missing) in reads.slots.iter_mut().zip(&mut *reads.wanted).zip(missing)
        {
            *slot = (missing >> 32) as u32;
            *wanted = missing;
            count += 1;
        }
        reads.wanted_count = count;
        let slots = &reads.slots[..count];
        let plan = plan(slots, geometry, collapse, reads.extents, scratch);
        reads.count = plan.extents;
        let sizes = reads.extents[..plan.extents].iter().map(Extent::bytes);
        let fits = reads.staging.lay_out(sizes);
        if !fits {
            reads.count = 0;
        }
        (self.progress.submitted, self.progress.completed) = (0, 0);
        (plan, fits)
    }

    /// Begins anew for a placement of a layer.
    pub(super) fn open(&mut self, layer: u32, placement: u32, view: &Layer<'_>) {
        (self.progress.layer, self.progress.placement) = (Some(layer), placement);
        self.progress.region_offset = view.region_offset();
    }

    /// Nothing is wanted from here any more; what is in flight is for nobody.
    pub(super) fn abandon(&mut self) {
        // Completions come in any order: of what was submitted, any may be in flight.
        for number in 0..self.progress.submitted {
            self.reads.staging.cancel(number);
        }
        // Whatever was not handed over never will be.
        self.reads.count = self.progress.submitted;
        self.progress.layer = None;
        self.reads.wanted_count = 0;
    }

    /// Of what was prefetched, keeps what is under way: the rest is planned anew, with all that is needed. Returns the
    /// reads under way and their bytes.
    pub(super) fn keep_submitted(&mut self) -> (u64, u64) {
        self.reads.count = self.reads.count.min(self.progress.submitted);
        if self.reads.count == 0 {
            self.progress.layer = None;
        }
        (self.reads.count as u64, self.reads.extents().iter().map(Extent::bytes).sum())
    }

    /// Whether a slot's bundle is here, or on its way and not known to have failed.
    pub(super) fn holds(&self, slot: u32, stride: u64) -> bool {
        self.reads.find(slot, stride).is_some_and(|number| {
            number >= self.progress.submitted || !self.reads.staging.is_free(number)
        })
    }

    /// Nothing is in flight any more: the bank is empty.
    pub(super) fn drained(&mut self) {
        self.reads.count = 0;
        self.reads.wanted_count = 0;
        let progress = &mut self.progress;
        (progress.layer, progress.submitted, progress.completed) = (None, 0, 0);
    }

    /// What is shared and what is the submitter's own.
    pub(super) const fn split(&mut self) -> (&Reads<'a>, &mut Progress<'a>) {
        (&self.reads, &mut self.progress)
    }

    pub(super) const fn in_flight(&self) -> bool {
        self.progress.completed < self.progress.submitted
    }
}

/// The bank of what is demanded; the others are a ring.
pub(super) const DEMANDED: usize = 0;

/// All banks: that of what is demanded, and a ring for what is prefetched, of which the oldest is replaced first.
#[derive(Debug)]
pub(super) struct Banks<'a>(pub(super) [Bank<'a>; BANKS]);

impl<'a> Banks<'a> {
    /// The bank that a layer was prefetched into.
    pub(super) fn prefetched(&self, layer: u32) -> Option<usize> {
        (1..BANKS).find(|bank| self.0[*bank].progress.layer == Some(layer))
    }

    /// The bank to prefetch a layer into: its own, or an empty one, or else the oldest but for the one in use.
    pub(super) fn next(&self, layer: u32, in_use: Option<usize>) -> usize {
        let age = |bank: &usize| {
            let progress = &self.0[*bank].progress;
            progress.layer.map(|_| progress.age)
        };
        let others = (1..BANKS).filter(|bank| Some(*bank) != in_use);
        self.prefetched(layer).unwrap_or_else(|| others.min_by_key(age).unwrap_or(1))
    }

    /// Makes a bank the newest of the ring.
    pub(super) fn renew(&mut self, bank: usize) {
        let newest = self.0.iter().map(|bank| bank.progress.age).max().unwrap_or(0);
        self.0[bank].progress.age = newest.wrapping_add(1);
    }

    /// The banks in the order that they are read while a layer is: what is demanded, what was prefetched of this
    /// layer, and the rest of the ring, the oldest first.
    pub(super) fn reading_order(&self, layer: u32) -> [usize; BANKS] {
        let mut order = core::array::from_fn(|bank| bank);
        order[1..].sort_unstable_by_key(|bank| {
            let progress = &self.0[*bank].progress;
            (progress.layer != Some(layer), progress.age)
        });
        order
    }

    /// Nothing is in flight any more: all are empty.
    pub(super) fn drained(&mut self) {
        self.0.iter_mut().for_each(Bank::drained);
    }
}

impl Reads<'_> {
    /// The extent that holds a slot's bundle, if it is read and did not fail.
    pub(super) fn find(&self, slot: u32, stride: u64) -> Option<usize> {
        let (begin, end) = (u64::from(slot) * stride, (u64::from(slot) + 1) * stride);
        let extents = self.extents.get(..self.count)?;
        let number = extents.partition_point(|extent| extent.end < end);
        (extents.get(number)?.begin <= begin).then_some(number)
    }

    /// Takes over what is wanted from here: slot << 32 | position, ascending by slot.
    pub(super) fn want(&mut self, wanted: impl Iterator<Item = u64>) {
        let mut count = 0;
        for (entry, wanted) in self.wanted.iter_mut().zip(wanted) {
            *entry = wanted;
            count += 1;
        }
        self.wanted_count = count;
    }

    /// Notes which of the wanted bundles lie in which extent: one walk over both. Calls `place` with
    /// each one's position, its extent, and its first byte therein. Whether each has an extent.
    pub(super) fn assign(&mut self, stride: u64, mut place: impl FnMut(usize, u32, u32)) -> bool {
        let mut next = 0;
        for (number, extent) in self.extents[..self.count].iter().enumerate() {
            self.begins[number] = next;
            while let Some(wanted) = self.wanted[..self.wanted_count].get(next as usize) {
                let begin = (wanted >> 32) * stride;
                if begin + stride > extent.end {
                    break;
                }
                let position = (wanted & u64::from(u32::MAX)) as usize;
                place(position, number as u32, begin.saturating_sub(extent.begin) as u32);
                next += 1;
            }
        }
        self.begins[self.count] = next;
        next as usize == self.wanted_count
    }

    /// Calls `note` with each wanted bundle's position, and the length of its run of adjacent slots.
    pub(super) fn runs(&self, mut note: impl FnMut(usize, u32)) {
        let wanted = self.wanted.get(..self.wanted_count).unwrap_or_default();
        for run in wanted.chunk_by(|one, next| (one >> 32) + 1 == next >> 32) {
            run.iter().for_each(|one| note((one & u64::from(u32::MAX)) as usize, run.len() as u32));
        }
    }

    /// All of them.
    pub(super) fn extents(&self) -> &[Extent] {
        self.extents.get(..self.count).unwrap_or_default()
    }

    pub(super) fn extent(&self, number: usize) -> Option<&Extent> {
        self.extents().get(number)
    }

    /// Positions in the round of the bundles wanted from an extent.
    pub(super) fn positions(&self, number: usize) -> impl Iterator<Item = usize> {
        let range = match self.begins.get(number..=number + 1) {
            Some([begin, end]) if number < self.count => *begin as usize..*end as usize,
            _ => 0..0,
        };
        let wanted = self.wanted.get(..self.wanted_count).and_then(|wanted| wanted.get(range));
        let wanted = wanted.unwrap_or_default();
        wanted.iter().map(|wanted| (wanted & u64::from(u32::MAX)) as usize)
    }
}
