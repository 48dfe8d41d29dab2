//! What goes beyond one layer on one thread: reading ahead, and workers.

use super::round::submit;
use super::{Arrive, Engine, FetchStats, Workers};
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
        let mut session = Session { engine: self };
        body(&mut session)
    }
}

impl<'a, Q: ReadQueue<'a>> Session<'_, 'a, Q> {
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
        finish: &mut (dyn FnMut(u32, f32, &[u8]) -> Result<(), EngineError> + Send),
    ) -> Result<FetchStats, EngineError>
    where
        Q: Send,
    {
        self.engine.fetch_in_phases(workers, layer, active, arrive, finish)
    }

    /// Starts to read what a layer will probably need (ids strictly ascending), while others are
    /// being consumed; the next fetch of that layer finds it there. What is foreseen wrongly is read
    /// in vain and otherwise does no harm. Another prefetch replaces it. As much as the second
    /// staging area takes is read, from the front of `predicted`. Returns what will be read.
    ///
    /// # Errors
    /// [`EngineError::Config`] without [`super::Config::prefetch`]; a layer or set that does not fit
    /// the pack; a read that could not be submitted.
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
    /// Abandons the bank of what is foreseen and waits until nothing of it is in flight.
    fn settle(&mut self) {
        let bank = &mut self.banks[1];
        bank.abandon();
        if bank.in_flight() {
            // Nothing else is in flight between two calls. Errors are for nobody.
            let _ = self.queue.drain();
        }
        bank.drained();
    }

    fn prefetch(&mut self, layer: u32, predicted: &[u32]) -> Result<FetchStats, EngineError> {
        let view = self.layer(layer)?;
        super::check_active(predicted, self.pack.shape().neurons)?;
        if !self.config.prefetch {
            let rule = "must be set for a prefetch";
            return Err(EngineError::Config { field: "prefetch", rule, found: 0 });
        }
        self.settle();
        let (geometry, collapse) = (self.geometry(), self.collapse());
        let mut most = predicted.len();
        while most > 0 {
            let missing = self.place(layer, &view, &predicted[..most]);
            let (entries, scratch) = self.scratch.split_at_mut(missing);
            let bank = &mut self.banks[1];
            let (plan, fits) = bank.plan(entries.iter().copied(), &geometry, &collapse, scratch);
            if fits {
                bank.open(layer, &view);
                bank.table.want(core::iter::empty());
                let now_ns = self.queue.now_ns();
                submit(&mut self.queue, &bank.table, &mut bank.progress, 1, now_ns)?;
                self.queue.flush();
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
}
