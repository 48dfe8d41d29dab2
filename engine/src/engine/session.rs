//! What goes beyond one layer on one thread: doing something between beginning and finishing, prefetching, and
//! workers.

use super::cut::Cut;
use super::{ActiveSet, Arrive, Engine, FetchStats, Finish, Workers};
use crate::error::EngineError;
use crate::queue::{ReadLog, TimedQueue};

/// An engine that may have reads in flight between two calls: of a layer that was begun, and of what
/// was prefetched. It ends with [`Engine::session`], and nothing is in flight afterwards: that is
/// why it is lent, not given. One is meant to last for a whole generation.
#[derive(Debug)]
pub struct Session<'s, 'a, Q: TimedQueue<'a>> {
    engine: &'s mut Engine<'a, Q>,
}

impl<'a, Q: TimedQueue<'a>> Engine<'a, Q> {
    /// Runs `body` with a session.
    pub fn session<R>(&mut self, body: impl FnOnce(&mut Session<'_, 'a, Q>) -> R) -> R {
        let mut session = Session::new(self);
        body(&mut session)
    }
}

impl<'s, 'a, Q: TimedQueue<'a>> Session<'s, 'a, Q> {
    pub(crate) const fn new(engine: &'s mut Engine<'a, Q>) -> Self {
        Self { engine }
    }

    /// The engine.
    pub const fn engine(&self) -> &Engine<'a, Q> {
        self.engine
    }

    /// See [`Engine::read_log`].
    pub fn read_log(&mut self) -> Option<&mut ReadLog<'a>> {
        self.engine.read_log()
    }

    /// Begins a layer: plans the reads of its active bundles and submits as many as the queue takes. What the
    /// caller does before [`Session::finish`], it does while they are read: prefetching another layer, or
    /// computing. A layer that was begun before and is not finished is given up.
    ///
    /// # Errors
    /// A layer or an active set that does not fit the pack, or a read that could not be submitted.
    pub fn begin(&mut self, layer: u32, active: ActiveSet<'_>) -> Result<(), EngineError> {
        self.engine.begin(layer, active)
    }

    /// Finishes the layer that was begun with this active set, in two phases: `arrive` is called for each bundle
    /// as soon as it is there, in any order, on this thread or one of `workers`, while others are
    /// still being read; `finish` is called with what `arrive` returned, on this thread, in ascending
    /// neuron id. So the result has the same bits whatever arrives first.
    ///
    /// # Errors
    /// [`EngineError::NotBegun`], or as [`Engine::fetch`]; of several errors of `arrive` and `finish`, that of the
    /// lowest id.
    pub fn finish(
        &mut self,
        workers: &dyn Workers,
        layer: u32,
        active: ActiveSet<'_>,
        arrive: impl Arrive,
        finish: &mut Finish<'_>,
    ) -> Result<FetchStats, EngineError>
    where
        Q: Send,
    {
        self.engine.finish(workers, layer, active, arrive, finish)
    }

    /// Begins a layer and finishes it.
    ///
    /// # Errors
    /// As [`Session::finish`]; ids that do not ascend strictly, or beyond the layer.
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
        let active = ActiveSet::new(active, self.engine.pack.shape().neurons)?;
        self.begin(layer, active)?;
        self.finish(workers, layer, active, arrive, finish)
    }

    /// Starts to read what a layer will probably need (ids strictly ascending), while others are
    /// being consumed; the next fetch of that layer finds it there. What is predicted wrongly is read
    /// in vain and otherwise does no harm. Two can be under way; a third replaces the oldest. As much
    /// is read as one of the two staging areas for it takes, from the front of `predicted`. What is not under way
    /// when the layer is begun is planned anew, with what is known then. Returns what is planned: nothing for a layer
    /// that was begun, or where the queue reads only what is waited for
    /// ([`crate::queue::ReadQueue::reads_in_background`]). What of it was read, the stats of the layer's
    /// [`Session::finish`] say ([`FetchStats::ahead_reads`]).
    ///
    /// # Errors
    /// [`EngineError::Config`] without [`super::Config::prefetch_bytes`]; a layer or set that does
    /// not fit the pack; a read that could not be submitted.
    pub fn prefetch(&mut self, layer: u32, predicted: &[u32]) -> Result<FetchStats, EngineError> {
        let predicted = ActiveSet::new(predicted, self.engine.pack.shape().neurons)?;
        self.engine.prefetch(layer, predicted, Cut { most: usize::MAX, strengths: None })
    }

    /// The same where it is known how much each of `predicted` would matter: what there is no room for is what
    /// has least strength for its device time, whatever its id.
    ///
    /// # Errors
    /// As [`Session::prefetch`].
    pub fn prefetch_strongest(
        &mut self,
        layer: u32,
        predicted: &[u32],
        strengths: &[f32],
    ) -> Result<FetchStats, EngineError> {
        let predicted = ActiveSet::new(predicted, self.engine.pack.shape().neurons)?;
        self.engine.prefetch(layer, predicted, Cut { most: usize::MAX, strengths: Some(strengths) })
    }

    /// Goes on with what is begun and prefetched: takes what has come, and hands over what the queue now has room for,
    /// waiting for nothing. For whoever does something long between two layers: without it no more is read in that time
    /// than the queue took at its begin. What fails, the layer tells that needs it.
    pub fn go_on(&mut self) {
        self.engine.go_on();
    }

    /// Gives up what was prefetched, and what was begun.
    pub fn cancel_prefetch(&mut self) {
        self.engine.settle();
    }
}

impl<'a, Q: TimedQueue<'a>> Drop for Session<'_, 'a, Q> {
    fn drop(&mut self) {
        self.engine.settle();
    }
}
