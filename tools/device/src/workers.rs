//! Threads that compute while the engine reads.

use std::io;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use lnp_engine::engine::Workers;
use rayon::ThreadBuilder;

/// Most threads that can be asked for: more than any machine that we know has.
const THREADS_MAX: usize = 1024;

/// What must be free of address space before another thread is started: more than its stack and what the start takes.
const ROOM_BYTES: usize = 16 << 20;

/// So many threads that wait for work; the `spawn_handler` for a pool of them, which hands each its part of the pool.
///
/// A thread that finds no memory while it starts ends the whole process, by a panic within a panic. So there is room
/// for each before, and the next starts only when it runs.
///
/// # Errors
/// There is no room for another, or the system gives none. Those that were started have ended then.
pub fn start_threads(count: usize) -> io::Result<impl FnMut(ThreadBuilder) -> io::Result<()>> {
    let (hand, parts) = mpsc::channel::<ThreadBuilder>();
    let parts = Arc::new(Mutex::new(parts));
    let mut started = Vec::new();
    for _ in 0..count {
        match start_thread(Arc::clone(&parts)) {
            Ok(thread) => started.push(thread),
            Err(error) => {
                drop(hand);
                // They hold memory until they have ended. What one of them might say by a panic is of no use.
                started.into_iter().for_each(|thread| drop(thread.join()));
                return Err(error);
            }
        }
    }
    Ok(move |part| hand.send(part).map_err(|_| io::ErrorKind::BrokenPipe.into()))
}

/// Starts one of them, and waits until it runs.
fn start_thread(parts: Arc<Mutex<mpsc::Receiver<ThreadBuilder>>>) -> io::Result<JoinHandle<()>> {
    Vec::<u8>::new().try_reserve_exact(ROOM_BYTES).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let (runs, running) = mpsc::channel();
    let thread = thread::Builder::new().spawn(move || {
        // Who started it waits for this.
        let _ = runs.send(());
        // A statement of its own, so that the next can wait while this one works.
        let part = parts.lock().ok().and_then(|parts| parts.recv().ok());
        if let Some(part) = part {
            part.run();
        }
    })?;
    running.recv().map_err(io::Error::other)?;
    Ok(thread)
}

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
        let cannot = || format!("cannot start {count} threads");
        let started = start_threads(count).with_context(cannot)?;
        let pool =
            rayon::ThreadPoolBuilder::new().num_threads(count).spawn_handler(started).build();
        let pool = pool.with_context(cannot)?;
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
        thread::yield_now();
    }
}
