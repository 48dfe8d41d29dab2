//! Sparse FFN kernels: from a hidden state and the bundles of the active neurons to the FFN's
//! output, straight from bundle bytes as they lie in memory, at any alignment.
//!
//! One neuron contributes `coefficient * down`, where
//!
//! - with two parts (up, down): `coefficient = act(up . x + bias)`;
//! - with three (gate, up, down): `coefficient = act(gate . x + bias) * (up . x + up bias)`; with dReLU
//!   `act(up . x + up bias)`.
//!
//! [`Kernel::prepare`] brings the hidden state into the form that the tier computes with.
//! [`Kernel::coefficient`] may be called for bundles in any order (as they arrive);
//! [`Kernel::accumulate`] is called in ascending neuron id, which makes the sum the same bits
//! whatever the path the bytes took.
//!
//! [`Rows`] is a matrix of rows, in one of the [`Numbers`], times vectors: what predicts which neurons
//! are active, and attention. [`Sums`] adds up rows times numbers: attention's values.
//!
//! [`portable`] is the reference: plain loops, ships with the crate, and the oracle of the tests.
//! [`arch`] holds the instruction sets; the [`CpuFeatures`] that the caller passes choose one, once.
//! `docs/kernels.md` has the tiers, their error bounds and what happens to values that are not
//! finite.
#![no_std]
#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod activation;
#[allow(unsafe_code)] // the one room for intrinsics; each block argues its case
pub mod arch;
pub mod dtype;
pub mod error;
pub mod input;
pub mod kernel;
pub mod norm;
pub mod numbers;
pub mod portable;
pub mod rows;
pub mod select;
pub mod sums;

pub use activation::Activation;
pub use arch::{CpuFeatures, Feature, Tier};
pub use dtype::Dtype;
pub use error::KernelError;
pub use input::Input;
pub use kernel::{Bias, Kernel, KernelShape, TOKENS_MAX};
pub use norm::inverse_rms;
pub use numbers::Numbers;
pub use rows::Rows;
pub use select::{estimate_strengths, select};
pub use sums::Sums;
