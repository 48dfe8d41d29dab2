//! The C ABI of the engine: `include/lnp.h` is made from it.
//!
//! Thirteen functions over the caller's memory. No heap, no threads, no global state, nothing unwinds across
//! the border (a panic ends the process). Top to bottom:
//!
//! - `abi`: the functions; they check pointers and lengths, and turn errors into numbers;
//! - `types`: what crosses the border, numbers of errors included;
//! - `error`: from the engine's errors to those numbers;
//! - `handle`: the front of the caller's memory: whether an engine is open there, and whose;
//! - `opened`: the engine and what it computes with, and how the memory is cut for them;
//! - `owner`: whose an engine is, so that a forked child is told its parent's is not its own;
//! - `settings`: from the caller's settings to the engine's;
//! - `source`: where a pack is read from: a path, a descriptor, or the caller's own storage;
//! - `storage`: a read queue over the caller's functions.
#![no_std]
#![allow(non_camel_case_types)]

mod abi;
mod error;
mod handle;
mod opened;
mod owner;
mod settings;
mod source;
mod storage;
mod types;

pub use abi::*;
pub use types::*;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: takes nothing and does not return.
    unsafe { libc::abort() }
}
