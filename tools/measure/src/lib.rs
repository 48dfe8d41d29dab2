//! What reading costs. [`probe`] measures a flash device and fits its law, kept in a [`profile`];
//! [`mod@replay`] reads recorded active sets from packs, or simulates it; [`study`] compares every order
//! on every corpus; [`svg`] draws, in [`colours`] that mean the same everywhere.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod colours;
mod date;
pub mod probe;
pub mod profile;
pub mod replay;
pub mod study;
pub mod svg;

pub use date::utc;
