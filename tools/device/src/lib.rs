//! The device and the machine at hand: the [`LawText`] of a device as people write it, files opened
//! for direct reads ([`open_direct`]), [`memory`] to read into, [`Threads`] that compute meanwhile,
//! the [`Machine`] that a number was measured on, and the [`timeline`] of some tokens.
//!
//! ```
//! use lnp_device::LawText;
//!
//! let law = "a_us=10,b_mib_s=1000,combine=sum".parse::<LawText>()?.law()?;
//! // One read of 1 MiB: 10 us for the read, 1,000 us for its bytes.
//! assert_eq!(law.time_us(1, 1 << 20), 1010.0);
//! # Ok::<(), anyhow::Error>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod law;
mod machine;
pub mod memory;
mod open;
pub mod timeline;
mod workers;

pub use law::{CombineName, LawText};
pub use machine::{Machine, memory_bytes, peak_memory_bytes};
pub use open::open_direct;
pub use workers::{Threads, start_threads};
