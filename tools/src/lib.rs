//! The `lnp` tools: everything around the engine that may use std.
//!
//! The offline way, one module a step: [`model`] (a checkpoint and its dense parts) and [`trace`]
//! (which neurons are active; [`synth`] makes up those of larger models) -> [`links`] (in which order to lay them out) -> [`pack`] (written,
//! inspected, verified). Online: [`device`] (the measured law of a flash device), [`probe`],
//! [`replay`] (recorded active sets against a pack), [`compute`] (a pack opened to compute with),
//! [`generate`] (text, through the engine) and [`perplexity`] (what a pack's number type costs).
//! [`study`] compares every order on every corpus. [`commands`] is the command line; [`report`] what it prints.
#![forbid(unsafe_code)]
// stdout and stderr go through `report`, which knows what to do when nobody reads them
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod commands;
pub mod compute;
pub mod device;
pub mod files;
pub mod generate;
mod interrupt;
pub mod links;
mod memory;
pub mod model;
pub mod pack;
pub mod perplexity;
pub mod probe;
pub mod replay;
pub mod report;
pub mod same_weights;
pub mod study;
pub mod synth;
mod tensor_file;
pub mod trace;
pub mod workers;
