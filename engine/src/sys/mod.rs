//! What touches the system: files, clock, CPU, and the two real back ends of the read queue.
//!
//! With the arena and `open` the only room of the engine with `unsafe`, next to none of it avoidable: system
//! calls, and the memory that the kernel writes into behind the compiler's back.

mod clock;
pub mod cpu;
mod file;
mod pread;
mod refusal;
mod ring;
mod select;
mod uring;

pub use clock::now_ns;
pub use file::{DirectFile, FileError};
pub use pread::PreadQueue;
pub use ring::{Polling, RingKind};
pub use select::{BackEnd, BackEndChoice, DeviceQueue, OpenError, ReadOptions};

/// The error number of the last failed system call of this thread.
fn errno() -> i32 {
    #[cfg(target_os = "android")]
    use libc::__errno as errno_location;
    #[cfg(not(target_os = "android"))]
    use libc::__errno_location as errno_location;
    // SAFETY: takes nothing, returns a pointer.
    let location = unsafe { errno_location() };
    // SAFETY: the location is this thread's own, valid for its life and written by nobody now.
    unsafe { *location }
}

/// Ends the process where something that always holds does not: the kernel may still be writing into memory that
/// will be given back, and nothing sound can follow. Says what on stderr; there is nobody else to tell.
fn broken(invariant: &core::ffi::CStr) -> ! {
    for text in [c"lnp: does not hold, though it must: ", invariant, c"\n"] {
        let bytes = text.to_bytes();
        // SAFETY: the bytes live through the call, which only reads them.
        let _ = unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
    }
    // SAFETY: takes nothing and does not return.
    unsafe { libc::abort() }
}

/// Lets another thread go first.
fn yield_now() {
    // SAFETY: takes nothing and touches no memory.
    unsafe { libc::sched_yield() };
}
