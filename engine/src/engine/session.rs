//! What goes beyond one layer on one thread: reading ahead, and workers.

use super::bank::Bank;
use super::round::{bank_of, submit};
use super::{Arrive, Engine, FetchStats, Finish, Workers};
use crate::error::EngineError;
use crate::queue::ReadQueue;

/// An engine that may have reads in flight between two calls, for what [`Session::prefetch`] was
/// told to foresee. It ends with [`Engine::session`], and nothing is in flight afterwards: that is
/// why it is lent, not given.
#[derive(Debug)]
pub struct Session<'s, 'a, Q: ReadQueue<'a>> {
    engine: &'s mut Engine<'a, Q>,
}

impl<'a, Q: ReadQueue<'a>> Engine<'a, Q> {
    /// Runs `body` with a session.
    pub fn session<R>(&mut self, body: impl FnOnce(&mut Session<'_, 'a, Q>) -> R) -> R {
        let mut session = Session::new(self);
        body(&mut session)
    }
}

impl<'s, 'a, Q: ReadQueue<'a>> Session<'s, 'a, Q> {
    pub(crate) const fn new(engine: &'s mut Engine<'a, Q>) -> Self {
        Self { engine }
    }

    /// The engine.
    pub const fn engine(&self) -> &Engine<'a, Q> {
        self.engine
    }

    /// Fetches the bundles of a layer's active neurons, in two phases: `arrive` is called for each
    /// as soon as it is there, in any order, on this thread or one of `workers`, while others are
    /// still being read; `finish` is called with what `arrive` returned, on this thread, in ascending
    /// neuron id. So the result has the same bits whatever arrives first.
    ///
    /// # Errors
    /// As [`Engine::fetch`]; of several errors of `arrive` and `finish`, that of the lowest id.
    pub fn fetch(
        &mut self,
        workers: &dyn Workers,
        layer: u32,
        active: &[u32],
        arrive: impl Arrive,
        finish: &mut Finish<'_>,
    ) -> Result<FetchStats, EngineError>
    where
        Q: Send,
    {
        self.engine.fetch_in_phases(workers, layer, active, arrive, finish)
    }

    /// Starts to read what a layer will probably need (ids strictly ascending), while others are
    /// being consumed; the next fetch of that layer finds it there. What is foreseen wrongly is read
    /// in vain and otherwise does no harm. Two can be under way; a third replaces the first. As much
    /// is read as one of the two staging areas for it takes, from the front of `predicted`. Returns
    /// what will be read: nothing, where the queue reads only what is waited for
    /// ([`ReadQueue::reads_in_background`]).
    ///
    /// # Errors
    /// [`EngineError::Config`] without [`super::Config::prefetch_bytes`]; a layer or set that does
    /// not fit the pack; a read that could not be submitted.
    pub fn prefetch(&mut self, layer: u32, predicted: &[u32]) -> Result<FetchStats, EngineError> {
        self.engine.prefetch(layer, predicted)
    }

    /// Gives up what was foreseen.
    pub fn cancel_prefetch(&mut self) {
        self.engine.settle();
    }
}

impl<'a, Q: ReadQueue<'a>> Drop for Session<'_, 'a, Q> {
    fn drop(&mut self) {
        self.engine.settle();
    }
}

impl<'a, Q: ReadQueue<'a>> Engine<'a, Q> {
    /// Gives up all that is foreseen, and waits until nothing is in flight.
    fn settle(&mut self) {
        for bank in &mut self.banks {
            bank.abandon();
        }
        // Errors are for nobody.
        let _ = self.queue.drain();
        self.banks.iter_mut().for_each(Bank::drained);
        self.prefetches = 0;
    }

    /// Gives up what is foreseen in one bank, and waits until nothing of it is in flight.
    fn settle_bank(&mut self, number: usize) {
        self.banks[number].abandon();
        while self.banks[number].in_flight() {
            let Some(completion) = self.queue.wait() else { break };
            let (bank, _) = bank_of(completion.tag);
            if let Some(bank) = self.banks.get_mut(bank) {
                bank.progress.completed += 1;
            }
        }
        self.banks[number].drained();
    }

    fn prefetch(&mut self, layer: u32, predicted: &[u32]) -> Result<FetchStats, EngineError> {
        self.check_layer(layer)?;
        super::check_active(predicted, self.pack.shape().neurons)?;
        if self.config.prefetch_bytes == 0 {
            let rule = "must be set for a prefetch";
            return Err(EngineError::Config { field: "prefetch_bytes", rule, found: 0 });
        }
        if !self.queue.reads_in_background() {
            return Ok(FetchStats::default());
        }
        let number = self.foreseen(layer).unwrap_or_else(|| {
            // An empty bank, or else the older.
            let age = |number: usize| {
                let progress = &self.banks[number].progress;
                progress.layer.map(|_| progress.age)
            };
            if age(1) <= age(2) { 1 } else { 2 }
        });
        self.settle_bank(number);
        self.prefetches = self.prefetches.wrapping_add(1);
        let mut most = predicted.len();
        while most > 0 {
            let (_, plan, fits) = self.plan_cheapest(number, layer, &predicted[..most])?;
            if fits {
                let bank = &mut self.banks[number];
                bank.progress.age = self.prefetches;
                bank.table.want(core::iter::empty());
                self.submit_foreseen(layer)?;
                return Ok(FetchStats {
                    reads: plan.reads,
                    runs: plan.runs,
                    merges: plan.merges,
                    bytes_read: plan.bytes,
                    ..FetchStats::default()
                });
            }
            most /= 2;
        }
        Ok(FetchStats::default())
    }

    /// Submits what is foreseen, the older first.
    fn submit_foreseen(&mut self, layer: u32) -> Result<(), EngineError> {
        let now_ns = self.queue.now_ns();
        let mut order = self.reading_order(layer);
        order.reverse(); // this layer is the newest
        for number in order.into_iter().filter(|number| *number > 0) {
            let Bank { table, progress } = &mut self.banks[number];
            submit(&mut self.queue, table, progress, number, now_ns)?;
        }
        self.queue.flush();
        Ok(())
    }
}
