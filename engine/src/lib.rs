//! The engine: a set of active neurons goes in, the bytes of their bundles come out.
//!
//! Bottom to top:
//!
//! - [`law`]: the device law, what a batch of reads costs; everything else asks it;
//! - [`plan`]: from sorted slots to few, long reads (access collapse);
//! - [`ahead`]: when reading a layer ahead pays, by the law and by what a prediction is worth;
//! - [`budget`]: which bundles are not worth their device time, where something may be lost;
//! - [`adapt`]: keeps the law up to date by what batches really took;
//! - [`cache`]: which bundles stay in the arena, by one of several policies;
//! - [`arena`]: the caller's one piece of memory, cut into slices;
//! - [`queue`]: the trait [`queue::ReadQueue`] and the simulated device; its real back ends are in
//!   `sys` (feature `sys`: pread and io_uring over a ring of our own; feature `io-uring`, which needs
//!   std: io_uring over the crate of that name, and that one unless told otherwise);
//! - [`engine`]: [`Engine`], which joins the above: fetches a layer's active bundles, computes them
//!   as they arrive, and hands them out in ascending neuron id;
//! - [`recorder`]: counts and samples what is asked for, for linking again;
//! - [`predictors`]: [`predictors::Predictors`], which tell the active neurons from few bytes;
//! - [`ffn`]: [`ffn::Ffn`], which joins the engine to the kernels;
//! - `open` (feature `sys`): `open_engine`, an engine on a file or block device.
//!
//! The first six are pure decisions without I/O or clock. Nothing here allocates: whatever a pack
//! sizes lies in the arena, whose size [`required_bytes`] tells, and what is bounded at compile time
//! is in [`limits`].
//!
#![cfg_attr(feature = "sys", doc = "```no_run")]
#![cfg_attr(not(feature = "sys"), doc = "```ignore")]
//! use lnp_engine::sys::{BackEndChoice, DirectFile, cpu};
//! use lnp_engine::{Config, ffn::Ffn, open_engine, required_bytes};
//! use lnp_format::Pack;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (layer, hidden_state, active_neurons, mut output) = (0, vec![0.0; 384], vec![3, 77], vec![0.0; 384]);
//! # let index: Vec<u8> = Vec::new();
//! let file = DirectFile::open(c"model.lnp", false)?;
//! let pack = Pack::parse(&index, file.bytes())?; // index: the file's first `index_bytes` bytes
//! let config = Config { cache_bundles: 1000, ..Config::new(&pack) };
//! let mut memory = vec![0; required_bytes(&config, &pack)?]; // better in huge pages
//! let mut engine = open_engine(&file, pack, &config, &mut memory, BackEndChoice::Auto)?;
//! let shape = engine.pack().shape();
//! let mut ffn_memory = vec![0; Ffn::required_bytes(shape, cpu::detect(), 1)?];
//! let mut ffn = Ffn::new(shape, cpu::detect(), 1, &mut ffn_memory)?;
//! ffn.forward(&mut engine, layer, &hidden_state, &active_neurons, &mut output)?;
//! # Ok(())
//! # }
//! ```
#![no_std]
#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[cfg(test)]
extern crate std;

pub mod adapt;
pub mod ahead;
pub mod arena;
pub mod budget;
pub mod cache;
pub mod choose;
pub mod engine;
pub mod error;
pub mod ffn;
pub mod law;
pub mod limits;
#[cfg(feature = "sys")]
#[allow(unsafe_code)] // it vouches to `sys` for what the engine does with a queue
mod open;
pub mod plan;
pub mod predictors;
pub mod queue;
pub mod recorder;
mod sync;
#[cfg(feature = "sys")]
#[allow(unsafe_code)] // the one room for system calls; each block argues its case
pub mod sys;

pub use cache::CachePolicy;
pub use engine::{Config, Dimensions, Engine, FetchStats, required_bytes};
pub use error::EngineError;
pub use law::{Combine, Curve, DeviceLaw};
#[cfg(feature = "sys")]
pub use open::{open_engine, open_logged, open_session};
pub use plan::Collapse;
