//! What a caller brings to compute with: the first phase of a bundle, and threads for it.

use crate::error::EngineError;
use crate::sync::{AtomicU32, Ordering};

/// The first phase of a bundle, in any order and on any thread: neuron id, bytes and a later bundle
/// in, coefficient out.
///
/// The later bundle is one that probably comes [`crate::limits::LOOKAHEAD_BYTES`] of bundles after this
/// one, to be fetched from memory meanwhile; empty where there is none.
pub trait Arrive: Fn(u32, &[u8], &[u8]) -> Result<f32, EngineError> + Sync {}
impl<T: Fn(u32, &[u8], &[u8]) -> Result<f32, EngineError> + Sync> Arrive for T {}

/// The second phase, in ascending neuron id and on the thread that reads: neuron id, coefficient, bytes
/// and a later bundle in.
pub type Finish<'f> = dyn FnMut(u32, f32, &[u8], &[u8]) -> Result<(), EngineError> + Send + 'f;

/// Threads that compute while another reads; see [`super::Session::fetch`].
pub trait Workers: Sync {
    /// Runs `here` on this thread and, at the same time, `there` on any number of others (none is
    /// fine). Returns when all have returned.
    fn join(&self, here: &mut (dyn FnMut() + Send), there: &(dyn Fn() + Sync));

    /// Called by each thread, again and again, while it has nothing to do: where threads are more
    /// than cores, it should let another one run.
    fn idle(&self) {
        core::hint::spin_loop();
    }
}

/// Only this thread.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Workers for Alone {
    fn join(&self, here: &mut (dyn FnMut() + Send), _: &(dyn Fn() + Sync)) {
        here();
    }
}

/// A flag that goes up when this is dropped.
pub(super) struct Raise<'f>(pub(super) &'f AtomicU32);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(1, Ordering::Release);
    }
}
