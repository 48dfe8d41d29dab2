//! How a cell compares with the baselines on the same text, with the spread of the text.

use std::ops::Range;

use anyhow::{Context, Result};
use serde::Serialize;

use super::bootstrap::{Resamples, Spread};
use super::cells::{At, Grid};
use lnp_link::Order;

/// A cell beside `frequency`, `identity` (the model's order), the dense stream and the bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Verdict {
    /// Device time of a token, microseconds.
    pub us: Spread,
    /// That over the time of `frequency` from the same profile: below 1 is faster.
    pub to_frequency: Spread,
    /// Over that of `identity`.
    pub to_identity: f64,
    /// Over that of the dense stream.
    pub to_dense: f64,
    /// Over that of the bound: what is active and not in the cache, at the full bandwidth.
    pub to_bound: f64,
}

/// Compares cells.
pub struct Judge<'g> {
    /// The cells.
    pub grid: &'g Grid,
    /// By test, and for all tests together.
    resamples: Vec<Resamples>,
    of_all: Resamples,
    frequency: usize,
    identity: usize,
}

impl<'g> Judge<'g> {
    /// With so many resamples of the tokens.
    ///
    /// # Errors
    /// A grid without one of the baselines.
    pub fn new(grid: &'g Grid, count: usize, seed: u64) -> Result<Self> {
        let blocks: Vec<usize> = grid.tests.iter().map(|test| test.blocks()).collect();
        let of_test = |blocks: &usize| Resamples::new(&[*blocks], count, seed);
        let baseline = |order| {
            grid.kind_of(order)
                .with_context(|| format!("{order} is not among the orders: add it to --orders"))
        };
        Ok(Self {
            grid,
            resamples: blocks.iter().map(of_test).collect(),
            of_all: Resamples::new(&blocks, count, seed),
            frequency: baseline(Order::Frequency)?,
            identity: baseline(Order::Identity)?,
        })
    }

    /// Of a cell.
    pub fn order(&self, at: At) -> Verdict {
        self.verdict(at, one(at), &|at| self.grid.cell(at).block_us.clone())
    }

    /// Of a cell and its like on all tests together.
    pub fn order_on_all(&self, at: At) -> Verdict {
        self.verdict(at, self.all(), &|at| self.grid.cell(at).block_us.clone())
    }

    /// Of the dense stream in a cell's place.
    pub fn dense(&self, at: At) -> Verdict {
        self.verdict(at, one(at), &|at| self.dense_us(at))
    }

    /// Of the dense stream on all tests together.
    pub fn dense_on_all(&self, at: At) -> Verdict {
        self.verdict(at, self.all(), &|at| self.dense_us(at))
    }

    /// Of the bound in a cell's place.
    pub fn bound(&self, at: At) -> Verdict {
        self.verdict(at, one(at), &|at| self.bound_us(at))
    }

    /// Of the bound on all tests together.
    pub fn bound_on_all(&self, at: At) -> Verdict {
        self.verdict(at, self.all(), &|at| self.bound_us(at))
    }

    fn all(&self) -> Range<usize> {
        0..self.grid.tests.len()
    }

    /// A cell's time over that of `frequency`, all tokens.
    pub fn to_frequency(&self, at: At) -> f64 {
        over(self.grid.cell(at).us(), self.grid.cell(At { kind: self.frequency, ..at }).us())
    }

    /// A cell's time over that of the dense stream, all tokens.
    pub fn to_dense(&self, at: At) -> f64 {
        over(self.grid.cell(at).us(), self.dense_us(at).iter().sum())
    }

    fn dense_us(&self, at: At) -> Vec<f64> {
        let us = self.grid.dense(at.bundle).time_us;
        self.grid.tests[at.test].tokens_of_blocks().iter().map(|tokens| tokens * us).collect()
    }

    fn bound_us(&self, at: At) -> Vec<f64> {
        let us = self.grid.bundle_us(at.bundle);
        self.grid.cell(at).block_missed.iter().map(|missed| missed * us).collect()
    }

    fn verdict(&self, at: At, tests: Range<usize>, us: &dyn Fn(At) -> Vec<f64>) -> Verdict {
        let resamples = if tests.len() == 1 { &self.resamples[tests.start] } else { &self.of_all };
        let on_tests = |us: &dyn Fn(At) -> Vec<f64>| -> Vec<f64> {
            tests.clone().flat_map(|test| us(At { test, ..at })).collect()
        };
        let baseline = |kind| on_tests(&|at| self.grid.cell(At { kind, ..at }).block_us.clone());
        let mine = on_tests(us);
        let total = |us: Vec<f64>| over(mine.iter().sum(), us.iter().sum());
        let tokens = on_tests(&|at| self.grid.tests[at.test].tokens_of_blocks());
        Verdict {
            us: resamples.ratio(&mine, &tokens),
            to_frequency: resamples.ratio(&mine, &baseline(self.frequency)),
            to_identity: total(baseline(self.identity)),
            to_dense: total(on_tests(&|at| self.dense_us(at))),
            to_bound: total(on_tests(&|at| self.bound_us(at))),
        }
    }
}

/// A time over another; 1 where both are none, as where all is cached.
pub(super) fn over(above: f64, below: f64) -> f64 {
    if above == 0.0 && below == 0.0 { 1.0 } else { above / below }
}

/// The test of a place.
fn one(at: At) -> Range<usize> {
    at.test..at.test + 1
}
