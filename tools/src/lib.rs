//! The `lnp` tools.
#![forbid(unsafe_code)]
pub mod links;
pub mod model;
pub mod trace;
