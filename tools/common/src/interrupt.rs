//! Ctrl-C and SIGTERM: nothing half-written stays behind, and a measurement ends with what it has.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Exit code of a program that was interrupted, as shells have it.
const INTERRUPTED: i32 = 130;

/// How often it is tried to remove what another thread fills.
const REMOVALS: u32 = 100;

/// Files and folders that go when the process does.
static TEMPORARY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// Whether the work at hand looks at [`STOPPED`].
static GRACEFUL: AtomicBool = AtomicBool::new(false);
static STOPPED: AtomicBool = AtomicBool::new(false);

fn temporary() -> MutexGuard<'static, Vec<PathBuf>> {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Catches SIGINT, SIGTERM and SIGHUP from now on.
pub fn catch_signals() {
    // Where no handler can be set, an interrupted command leaves temporary files; all else works.
    let _ = ctrlc::set_handler(|| {
        if GRACEFUL.load(Ordering::Relaxed) && !STOPPED.swap(true, Ordering::Relaxed) {
            return;
        }
        for path in temporary().iter() {
            // A folder into which another thread still writes may not be empty when it should go.
            for _ in 0..REMOVALS {
                let removed = if path.is_dir() {
                    std::fs::remove_dir_all(path)
                } else {
                    std::fs::remove_file(path)
                };
                if removed.is_ok() || !path.exists() {
                    break;
                }
            }
        }
        std::process::exit(INTERRUPTED);
    });
}

/// Says that the work from here on ends by itself when [`stopped`] says so.
pub fn end_gracefully() {
    GRACEFUL.store(true, Ordering::Relaxed);
}

/// Whether the user wants an end. A second signal does not wait for it.
pub fn stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

/// While this lives, a signal removes the file or folder.
pub struct Temporary(PathBuf);

impl Temporary {
    /// Registers a file or folder.
    pub fn new(path: &Path) -> Self {
        temporary().push(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        temporary().retain(|path| *path != self.0);
    }
}
