//! Threads that compute while the engine reads.

use anyhow::{Context, Result, ensure};
use lnp_engine::engine::Workers;

/// Most threads that can be asked for: more than any machine that we know has.
const THREADS_MAX: usize = 1024;

/// So many threads that compute, the one that reads among them.
///
/// They are a pool of rayon's, so that the dense parts of a model, which candle computes, use them too.
#[derive(Debug)]
pub struct Threads {
    /// `None` for the pool of the whole process.
    pool: Option<rayon::ThreadPool>,
    count: usize,
}

impl Threads {
    /// Starts so many; `None` for those that the process has.
    ///
    /// # Errors
    /// None or too many asked for, or more than the system gives.
    pub fn new(count: Option<usize>) -> Result<Self> {
        let Some(count) = count else {
            return Ok(Self { pool: None, count: rayon::current_num_threads() });
        };
        ensure!(
            (1..=THREADS_MAX).contains(&count),
            "{count} threads: 1 to {THREADS_MAX} are possible"
        );
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build();
        let pool = pool.with_context(|| format!("cannot start {count} threads"))?;
        Ok(Self { pool: Some(pool), count })
    }

    /// How many.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Runs `body` on one of them. What reads should run here: at the end of a layer it then need not wait until a
    /// thread has woken up that finds nothing to do.
    pub fn run<R: Send>(&self, body: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(body),
            None => rayon::scope(|_| body()),
        }
    }

    /// Has the others do the same.
    fn spawn<'t>(&self, scope: &rayon::Scope<'t>, there: &'t (dyn Fn() + Sync)) {
        for _ in 1..self.count {
            scope.spawn(|_| there());
        }
    }
}

impl Workers for Threads {
    fn join(&self, here: &mut (dyn FnMut() + Send), there: &(dyn Fn() + Sync)) {
        match &self.pool {
            Some(pool) => pool.in_place_scope(|scope| {
                self.spawn(scope, there);
                here();
            }),
            None => rayon::in_place_scope(|scope| {
                self.spawn(scope, there);
                here();
            }),
        }
    }

    fn idle(&self) {
        std::thread::yield_now();
    }
}
