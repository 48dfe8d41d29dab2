//! Predictors: which neurons of a layer will be active, known from few bytes, and a layer ahead.
//!
//! A predictor only decides what is *read*: the coefficient is still computed from the bundle's own rows, so
//! that a neuron read in vain costs a read, and one left out costs accuracy.
//!
//! Reading order, bottom up: [`numbers`] (matrices in few bits), `linear` (the best map of low rank for the
//! inputs that occur), `weights` (what of a layer matters here), [`sample`] (the inputs to learn from),
//! [`points`] (thresholds), [`predictor`] (one of them, computing), [`calibrate`] (its operating points), `ranks`
//! (bytes shared out over layers), `train` (factors refined by gradients), [`settings`], [`mod@fit`] (all of it
//! together), `torch` and [`mod@import`] (those of others), [`mod@file`] and `read` (the file), [`section`] (the same in
//! a pack), [`ffn`] (a model that reads only what is predicted). By itself: [`activity`], thresholds for activations without zeros.
//!
//! ```
//! use lnp_predict::numbers::{Matrix, Numbers};
//! use lnp_predict::points::Point;
//! use lnp_predict::predictor::{Between, Body, Predictor};
//!
//! // Two neurons over inputs of two numbers: rank 1 sees their sum only.
//! let reduce = Matrix::encode(Numbers::F16, 2, &[1.0, 1.0])?;
//! let expand = Matrix::encode(Numbers::F16, 1, &[1.0, -1.0])?;
//! let exact = Point { quality: 0.99, threshold: 0.0, recall: 1.0, reads_per_active: 1.0, share_kept: 1.0 };
//! let body = Body::LowRank { reduce, expand, between: Between::Nothing };
//! let predictor = Predictor::new((0, 0), body, vec![vec![0.0, 0.5]], vec![exact])?;
//! let mut active = Vec::new();
//! predictor.active(&[2.0, 1.0, -1.0, 0.0], 0, &mut active)?;
//! assert_eq!(active, [vec![0], vec![1]]);
//! # Ok::<(), anyhow::Error>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod activity;
pub mod calibrate;
pub mod ffn;
pub mod file;
pub mod fit;
pub mod import;
mod linear;
pub mod numbers;
pub mod points;
pub mod predictor;
mod ranks;
mod read;
pub mod sample;
pub mod section;
pub mod settings;
mod torch;
mod train;
mod weights;
#[cfg(test)]
#[path = "../tests/torch/mod.rs"]
mod written;

pub use calibrate::Made;
pub use ffn::PredictedFfn;
pub use file::Predictors;
pub use fit::fit;
pub use import::{Import, Others, import};
pub use sample::Sample;
pub use settings::{Kind, Settings, Size};
