//! Reads told one by one: a queue that notes when each was submitted and when its completion was taken.

use super::{Clock, Completion, Read, ReadError, ReadQueue};
use crate::limits::TAG_EXTENT_BITS;

/// What is known of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadNote {
    /// First byte, from the start of the file.
    pub file_offset: u64,
    /// Its length, bytes.
    pub bytes: u32,
    /// Comes back with the completion.
    tag: u32,
    /// When it was submitted, by the queue's clock, nanoseconds.
    pub submitted_ns: u64,
    /// When its completion was taken, nanoseconds; 0 while it is in flight.
    pub arrived_ns: u64,
}

impl ReadNote {
    /// Whether it was read ahead: submitted for a layer that was not begun.
    pub const fn is_ahead(&self) -> bool {
        self.tag >> TAG_EXTENT_BITS != 0
    }

    const fn is_open(&self) -> bool {
        self.arrived_ns == 0
    }
}

/// Notes of reads, in memory of the caller.
#[derive(Debug)]
pub struct ReadLog<'a> {
    notes: &'a mut [ReadNote],
    count: usize,
    lost: u64,
    /// All before this one have arrived.
    open: usize,
    on: bool,
}

impl<'a> ReadLog<'a> {
    /// A log with room for so many reads between two calls of [`ReadLog::take`]; nothing is noted before it is switched
    /// on.
    pub const fn new(notes: &'a mut [ReadNote]) -> Self {
        Self { notes, count: 0, lost: 0, open: 0, on: false }
    }

    /// Whether reads that are submitted from now on are noted.
    pub const fn switch(&mut self, on: bool) {
        self.on = on;
    }

    /// Reads that there was no room for.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Hands out the reads that have arrived, in the order of submission, and forgets them.
    pub fn take(&mut self, mut each: impl FnMut(&ReadNote)) {
        let mut kept = 0;
        for at in 0..self.count {
            let Some(note) = self.notes.get(at).copied() else { break };
            if !note.is_open() {
                each(&note);
            } else if let Some(place) = self.notes.get_mut(kept) {
                *place = note;
                kept += 1;
            }
        }
        (self.count, self.open) = (kept, 0);
    }

    fn submitted(&mut self, note: ReadNote) {
        if !self.on {
            return;
        }
        match self.notes.get_mut(self.count) {
            Some(free) => {
                *free = note;
                self.count += 1;
            }
            None => self.lost += 1,
        }
    }

    fn arrived(&mut self, tag: u32, now_ns: u64) {
        let Some(open) = self.notes.get_mut(self.open..self.count) else { return };
        // A tag is given again only after its read arrived.
        if let Some(note) = open.iter_mut().find(|note| note.tag == tag && note.is_open()) {
            // A device whose time is virtual may begin at 0, which says something else here.
            note.arrived_ns = now_ns.max(note.submitted_ns).max(1);
        }
        let arrived = open.iter().take_while(|note| !note.is_open()).count();
        self.open += arrived;
    }
}

/// A queue that notes its reads, where there is a log; else it is the queue itself.
#[derive(Debug)]
pub struct Logged<'a, Q> {
    queue: Q,
    log: Option<ReadLog<'a>>,
}

impl<'a, Q> Logged<'a, Q> {
    /// Notes the reads of `queue`.
    pub const fn new(queue: Q, log: Option<ReadLog<'a>>) -> Self {
        Self { queue, log }
    }

    /// The queue whose reads are noted.
    pub const fn inner(&self) -> &Q {
        &self.queue
    }
}

impl<'a, Q: ReadQueue<'a> + Clock> Logged<'a, Q> {
    fn note(&mut self, completion: Option<Completion>) -> Option<Completion> {
        if let (Some(log), Some(completion)) = (&mut self.log, &completion) {
            log.arrived(completion.tag, self.queue.now_ns());
        }
        completion
    }
}

impl<Q: Clock> Clock for Logged<'_, Q> {
    fn now_ns(&self) -> u64 {
        self.queue.now_ns()
    }
}

impl<'a, Q: ReadQueue<'a> + Clock> ReadQueue<'a> for Logged<'a, Q> {
    fn depth(&self) -> u32 {
        self.queue.depth()
    }

    fn in_flight(&self) -> u32 {
        self.queue.in_flight()
    }

    fn reads_in_background(&self) -> bool {
        self.queue.reads_in_background()
    }

    fn submit(&mut self, read: Read<'a>) -> Result<(), ReadError> {
        let Some(log) = &mut self.log else { return self.queue.submit(read) };
        let note = ReadNote {
            file_offset: read.file_offset,
            bytes: read.lease.bytes(),
            tag: read.tag,
            submitted_ns: self.queue.now_ns(),
            arrived_ns: 0,
        };
        self.queue.submit(read)?;
        log.submitted(note);
        Ok(())
    }

    fn flush(&mut self) {
        self.queue.flush();
    }

    fn poll(&mut self) -> Option<Completion> {
        let completion = self.queue.poll();
        self.note(completion)
    }

    fn wait(&mut self) -> Option<Completion> {
        let completion = self.queue.wait();
        self.note(completion)
    }

    fn end_batch(&mut self) {
        self.queue.end_batch();
    }

    fn log(&mut self) -> Option<&mut ReadLog<'a>> {
        self.log.as_mut()
    }
}
