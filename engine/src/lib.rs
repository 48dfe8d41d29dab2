//! The engine: a set of active neurons goes in, the bytes of their bundles come out.
//!
//! Bottom to top:
//!
//! - [`law`]: the device law, what a batch of reads costs; everything else asks it;
//! - [`plan`]: from sorted slots to few, long reads (access collapse);
//! - [`cache`]: which bundles stay in the arena (S3-FIFO);
//! - [`arena`]: the caller's one piece of memory, cut into slices;
//! - [`queue`]: the trait [`queue::ReadQueue`] and the simulated device; its real back ends are in
//!   `sys` (feature `sys`: pread; feature `uring`: io_uring);
//! - [`engine`]: [`Engine`], which joins the above: fetches a layer's active bundles and hands them
//!   out in ascending neuron id;
//! - [`ffn`]: [`ffn::Ffn`], which joins the engine to the kernels.
//!
//! The first three are pure decisions without I/O or clock. Nothing here allocates: whatever a pack
//! sizes lies in the arena, whose size [`required_bytes`] tells, and what is bounded at compile time
//! is in [`limits`].
#![cfg_attr(not(feature = "uring"), no_std)]
#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod arena;
pub mod cache;
pub mod engine;
pub mod error;
pub mod ffn;
pub mod law;
pub mod limits;
pub mod plan;
pub mod queue;
#[cfg(feature = "sys")]
#[allow(unsafe_code)] // the one room for system calls; each block argues its case
pub mod sys;

pub use engine::{Config, Engine, FetchStats, required_bytes};
pub use error::EngineError;
pub use law::{Combine, DeviceLaw};
pub use plan::Collapse;
