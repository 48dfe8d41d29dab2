//! The study: every order, made from every profile and tried on every test corpus, over bundle sizes
//! and caches, in the device time of one law.
//!
//! Reading order, bottom up: [`inputs`] are the traces; [`layouts`] the orders made from them;
//! [`missed`] what a cache leaves to be read; [`cells`] prices one combination after the other into a
//! [`Grid`]; [`bootstrap`] says how far another text of the same kind would differ, [`judge`] how a cell compares; [`csv`] writes all
//! cells, [`summary`] what they come to, [`caches`] how far each cache is from the best, [`floors`] what no order could go below, [`defaults`] which order never loses, [`pictures`] the charts. The prices are those of
//! [`lnp_link::price`], and a test holds a cell equal to `lnp replay --simulate`.
//!
//! Caches are shown warm: pinned bundles are resident, and a dynamic cache has seen the same tokens
//! once before, as in `lnp replay --warm`. [`caches`] has them from a cold start too.

pub mod bootstrap;
pub mod caches;
pub mod cells;
pub mod csv;
pub mod defaults;
pub mod floors;
pub mod inputs;
pub mod judge;
pub mod layouts;
pub mod matrix;
pub mod missed;
pub mod pictures;
pub mod summary;
pub mod tables;
#[cfg(test)]
mod tests;

pub use cells::{CacheKind, Cell, Grid, Settings, study};
pub use inputs::{Corpus, Learned, Relation, Source, Test};
pub use layouts::{Kind, Layout};
