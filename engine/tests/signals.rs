//! A storm of signals: every system call that waits is interrupted again and again, and nothing is lost.

#[path = "../../format/tests/common/mod.rs"]
mod common;

mod back_ends;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use back_ends::{back_ends, on_disk};
use common::Recipe;
use lnp_engine::sys::DirectFile;
use lnp_engine::{Collapse, Config, open_engine, required_bytes};
use lnp_format::Pack;

static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// A handler that makes system calls fail with EINTR rather than start again.
fn interrupt_on(signal: libc::c_int) {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all-zero bytes are a valid sigaction: no flags, SA_RESTART among them, an empty mask.
    let action = unsafe { action.assume_init_mut() };
    action.sa_sigaction = count as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler does what handlers may: it adds to an atomic.
    let set = unsafe { libc::sigaction(signal, action, std::ptr::null_mut()) };
    assert_eq!(set, 0);
}

/// Ends the storm, also where the test fails: the thread that sends would otherwise go on for ever.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_storm_of_signals_changes_nothing() {
    let recipe = Recipe::placeholder(1, 2000, 4096);
    let image = recipe.build();
    let (_disk, path) = on_disk(&image);
    interrupt_on(libc::SIGUSR1);
    // SAFETY: takes nothing.
    let reader = unsafe { libc::pthread_self() };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // SAFETY: the thread that reads waits for this one before it ends.
                unsafe { libc::pthread_kill(reader, libc::SIGUSR1) };
                std::thread::yield_now();
            }
        });
        let _ends = Ends(&over);
        let file = DirectFile::open(&path, false).unwrap();
        let pack = Pack::parse(&image, file.bytes()).unwrap();
        for options in back_ends(&path) {
            let config = Config { collapse: Collapse::Off, ..Config::new(&pack) };
            let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
            let mut engine = open_engine(&file, pack, &config, &mut memory, options).unwrap();
            let begin = SIGNALS.load(Ordering::Relaxed);
            let signals = || SIGNALS.load(Ordering::Relaxed) - begin;
            let mut rounds = 0;
            // On a busy machine the thread that sends may start late.
            while rounds < 5 || signals() == 0 {
                let active: Vec<u32> =
                    (0..2000).filter(|neuron| neuron % 5 != rounds % 5).collect();
                let mut seen = Vec::new();
                let fetched = engine.fetch(0, &active, |neuron, bundle| {
                    assert_eq!(bundle, recipe.bundle(0, neuron), "{options:?}, neuron {neuron}");
                    seen.push(neuron);
                    Ok(())
                });
                fetched.unwrap();
                assert_eq!(seen, active);
                rounds += 1;
            }
            println!(
                "{options:?}: {} signals, {rounds} fetches of 1,600 bundles, wrong bytes 0",
                signals()
            );
        }
    });
}
