//! The `lnp` tools.
#![forbid(unsafe_code)]
