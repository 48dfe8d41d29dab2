//! Synthetic models: folders with the shape and the files of real ones, and weights drawn so that their FFN neurons are
//! active as those of real ReLU models are: as many of them, hot and cold ones, in clusters that fire together, alike for
//! neighbouring tokens, and such that predictors of low rank find them.
//!
//! For measuring what large models cost where none can be had. `docs/synth.md` says how well they match.
//!
//! Reading order: [`shapes`] (what can be made), `activity` (how often neurons are active), `residual` (how they are made
//! to be) with `rotation`, `tokens` (what is said), `tensors` (which there are), `fill` (their rows) with `random`,
//! `folder` (the files) and `describe`.
//!
//! ```
//! use lnp_synth::{Recipe, shapes::shape_named};
//!
//! let recipe = Recipe::of(shape_named("opt-6.7b").unwrap());
//! assert_eq!(recipe.parameters() / 100_000_000, 68); // 6.7 billion and a head of its own
//! assert!(recipe.how().contains("opt-6.7b"));
//! // recipe.write(Path::new("big"), &|bytes| bar.inc(bytes))? writes the folder
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod activity;
mod describe;
mod fill;
mod folder;
mod random;
mod residual;
mod rotation;
pub mod shapes;
mod tensors;
mod tokens;

pub use folder::{Recipe, WeightType};
