//! The linked neuron pack, version 1: bytes on one side, typed views on the other.
//!
//! The normative text is `spec/lnp-v1.md`; this crate is one implementation of it. A pack is a
//! [`layout::Superblock`], a table of sections, the *index sections* (model shape, provenance,
//! link indexes, side data, bundle checksums, predictors), then the *bulk sections* (the bundles).
//!
//! Reading, top to bottom:
//!
//! 1. [`read::check_superblock`] on the first 4,096 bytes says how long the index is;
//! 2. the caller brings that many bytes into memory of its own;
//! 3. [`Pack::parse`] validates all of them once, in time linear in their length, and hands out
//!    views ([`Pack`], [`Layer`]) whose accessors do no further checking and cannot fail.
//!
//! Writing is [`write`](mod@write): where each section goes, and the checksums that seal them. The crate never
//! allocates, does no I/O and contains no `unsafe`.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod checksum;
pub mod codes;
pub mod error;
pub mod layout;
pub mod limits;
mod link_index;
pub mod peek;
mod predictor;
pub mod provenance;
pub mod read;
mod sections;
pub mod shape;
mod side_data;
pub mod write;

pub use codes::{Activation, Dtype, PredictorKind, PredictorNumbers, SectionKind};
pub use error::FormatError;
pub use link_index::Slots;
pub use peek::Peek;
pub use predictor::{Predictor, PredictorBody};
pub use provenance::Provenance;
pub use read::{Layer, Pack};
pub use shape::Shape;
