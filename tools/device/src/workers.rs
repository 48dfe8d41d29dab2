//! Threads that compute while the engine reads.

use lnp_engine::engine::Workers;

/// So many threads of rayon's pool beside the one that reads.
#[derive(Debug, Clone, Copy)]
pub struct Threads(pub usize);

impl Workers for Threads {
    fn join(&self, here: &mut (dyn FnMut() + Send), there: &(dyn Fn() + Sync)) {
        rayon::in_place_scope(|scope| {
            for _ in 0..self.0 {
                scope.spawn(|_| there());
            }
            here();
        });
    }

    fn idle(&self) {
        std::thread::yield_now();
    }
}
