//! The command line `lnp`: one file a command, thin. What the commands do is in the crates beside:
//! [`lnp_model`] and [`lnp_link`], [`lnp_pack`], [`lnp_measure`] and [`lnp_run`], over [`lnp_common`] and
//! [`lnp_device`].
#![forbid(unsafe_code)]
// stdout and stderr go through `report`, which knows what to do when nobody reads them
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod commands;
