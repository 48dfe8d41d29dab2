//! Keeping a queue full: the one place that decides when the next read goes in, for the engine and for those who
//! measure what the engine will get.

use super::{Completion, Read, ReadError, ReadQueue};
use crate::limits::DEMAND_RESERVE_PARTS;

/// Puts reads into a queue as long as it has room for them.
///
/// Nobody waits for a batch of room: the queue hands over a few reads at a time by itself
/// ([`super::early_reads`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feeder {
    /// What somebody waits for: takes the whole depth.
    Demanded,
    /// What somebody may ask for later: leaves one place in [`DEMAND_RESERVE_PARTS`] free, so that what is
    /// demanded next need not wait until the device is through with guesses.
    Prefetched,
}

impl Feeder {
    /// Most reads in flight with which it puts one more in.
    pub const fn limit(self, depth: u32) -> u32 {
        match self {
            Self::Demanded => depth,
            // at least one, or nothing would ever be prefetched
            Self::Prefetched => depth - depth / DEMAND_RESERVE_PARTS,
        }
    }

    /// Submits what `next` gives, as long as there is room; whether `next` gave no more. For whoever waits next,
    /// which hands all over.
    ///
    /// # Errors
    /// The first of `next`, or of a read that could not be submitted; those before it are in flight.
    pub fn fill<'a, Q: ReadQueue<'a> + ?Sized>(
        self,
        queue: &mut Q,
        mut next: impl FnMut() -> Option<Result<Read<'a>, ReadError>>,
    ) -> Result<bool, ReadError> {
        let limit = self.limit(queue.depth());
        while queue.in_flight() < limit {
            let Some(read) = next() else { return Ok(true) };
            queue.submit(read?)?;
        }
        Ok(false)
    }

    /// The same for whoever does something else next: hands all over once `next` gives no more, for nothing comes
    /// that they could wait for.
    ///
    /// # Errors
    /// As [`Feeder::fill`].
    pub fn feed<'a, Q: ReadQueue<'a> + ?Sized>(
        self,
        queue: &mut Q,
        next: impl FnMut() -> Option<Result<Read<'a>, ReadError>>,
    ) -> Result<(), ReadError> {
        if self.fill(queue, next)? {
            queue.flush();
        }
        Ok(())
    }
}

/// One turn of those who only read: fills the queue with what `next` gives, waits for a completion, and calls
/// `done` with it and with all that have come with it. False where nothing was in flight: all is read. Both work
/// on `state`.
///
/// # Errors
/// As [`Feeder::fill`].
pub fn turn<'a, Q: ReadQueue<'a> + ?Sized, S>(
    queue: &mut Q,
    state: &mut S,
    mut next: impl FnMut(&mut S) -> Option<Result<Read<'a>, ReadError>>,
    mut done: impl FnMut(&mut S, Completion),
) -> Result<bool, ReadError> {
    Feeder::Demanded.fill(queue, || next(state))?;
    let mut taken = queue.wait();
    let any = taken.is_some();
    while let Some(completion) = taken {
        done(state, completion);
        taken = queue.poll();
    }
    Ok(any)
}

/// Takes completions until nothing is in flight, and ends the batch.
///
/// # Errors
/// The first read that failed; the rest is drained all the same.
pub fn drain<'a, Q: ReadQueue<'a> + ?Sized>(queue: &mut Q) -> Result<(), ReadError> {
    let mut result = Ok(());
    while let Some(completion) = queue.wait() {
        result = result.and(completion.result);
    }
    queue.end_batch();
    result
}
