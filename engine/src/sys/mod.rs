//! What touches the system: files, clock, CPU, and the two real back ends of the read queue.
//!
//! The only room of the engine with `unsafe`, next to none of it avoidable: system calls, and the
//! memory that the kernel writes into behind the compiler's back.

mod clock;
#[cfg(feature = "uring")]
pub mod cpu;
mod file;
mod pread;
#[cfg(feature = "uring")]
mod ring;
#[cfg(feature = "uring")]
mod select;
#[cfg(feature = "uring")]
mod uring;

pub use file::{DirectFile, FileError};
pub use pread::PreadQueue;
#[cfg(feature = "uring")]
pub use ring::Polling;
#[cfg(feature = "uring")]
pub use select::{BackEnd, BackEndChoice, DeviceQueue, OpenError, ReadOptions, open_engine};
#[cfg(feature = "uring")]
pub use uring::UringQueue;

/// The error number of the last failed system call of this thread.
fn errno() -> i32 {
    // SAFETY: takes nothing, returns a pointer.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: the location is this thread's own, valid for its life and written by nobody now.
    unsafe { *location }
}
