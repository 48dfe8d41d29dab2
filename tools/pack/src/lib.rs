//! Packs: [`bundles`] says where their bytes come from, [`convert`] knows the types of weights,
//! [`recipe`] says what else goes in, [`writer`] writes them, [`open`] brings an index into memory,
//! [`verify`] checks every byte, [`compare`] sets the weights against the checkpoint's, [`inspect`]
//! describes one, [`relink`] writes one again in another order.
//!
//! ```no_run
//! use lnp_pack::{PackIndex, inspect::describe};
//!
//! let index = PackIndex::open("model.lnp".as_ref())?;
//! println!("{}", serde_json::to_string_pretty(&describe(&index.pack()?))?);
//! # Ok::<(), anyhow::Error>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod bundles;
pub mod compare;
pub mod convert;
#[cfg(test)]
mod convert_tests;
pub mod inspect;
pub mod open;
pub mod recipe;
pub mod relink;
pub mod verify;
pub mod writer;

pub use bundles::{BundleSource, CheckpointBundles, PlaceholderBundles};
pub use open::PackIndex;
pub use recipe::Recipe;
pub use writer::{go_on_writing, write_pack};
