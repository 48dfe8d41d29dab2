//! What reading costs.
//!
//! [`probe`] measures a flash device and fits its law, kept in a [`profile`] ([`profile::DeviceProfile`]).
//! [`mod@replay`] reads recorded active sets from packs, or simulates it: contestants (`contestant`) take
//! turns (`contest`), which gives rows beside the baselines ([`replay::strategy`]), a law fitted to every
//! other block (`calibrate`) and the best possible cache ([`replay::belady`]). [`study`] compares every
//! order on every corpus by the price that `link` plans with; [`report`] shows on a page what a pack is and does. `svg` draws, in `colours` that mean the
//! same everywhere.
//!
//! ```no_run
//! use std::time::Duration;
//! use lnp_engine::sys::ReadOptions;
//! use lnp_measure::probe::{ProbeOptions, probe};
//!
//! let (time, read) = (Duration::from_secs(20), ReadOptions::default());
//! let options = ProbeOptions { time, queue_depth: 32, read, buffered: false, seed: 1 };
//! let probed = probe("big.file".as_ref(), &options, &mut |_share_done| true)?;
//! let (law, error) = (&probed.law, 100.0 * probed.fit.error_median);
//! println!("a read costs {:.1} us, off by {error:.0} %", law.a_us());
//! # Ok::<(), anyhow::Error>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod colours;
mod date;
mod lengths;
pub mod probe;
pub mod profile;
pub mod replay;
pub mod report;
pub mod study;
mod svg;

pub use date::utc;
