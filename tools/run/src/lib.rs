//! A model joined to a pack through the engine: [`record`] runs a model and writes down which neurons
//! are active; [`compute`] opens a pack to compute a model's FFN from ([`fit`] divides the memory,
//! [`check`] sees that the two belong together) and [`SparseFfn`] is that FFN.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod check;
pub mod compute;
pub mod fit;
pub mod record;
mod sparse;

pub use compute::{ComputeOptions, ComputePack};
pub use record::record;
pub use sparse::SparseFfn;
