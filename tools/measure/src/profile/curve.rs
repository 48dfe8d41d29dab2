//! The measured curve of a profile, to plan by instead of the law.

use anyhow::{Result, ensure};
use lnp_engine::law::Curve;
use serde::{Deserialize, Serialize};

/// The curve of one queue depth: a batch of n reads of a size takes `t0 + n * T(size)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DepthCurve {
    /// Reads in flight.
    pub depth: u32,
    /// Microseconds that draining the queue costs, once a batch.
    pub t0_us: f64,
    /// Median of |predicted / measured - 1| over the batches; only at the depth that they were made at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_median: Option<f64>,
    /// 90th percentile of the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_p90: Option<f64>,
    /// Sizes, bytes, ascending.
    pub read_bytes: Vec<u32>,
    /// Microseconds a read of each, never less than of a shorter one.
    pub read_us: Vec<f64>,
}

impl DepthCurve {
    /// The engine's form.
    ///
    /// # Errors
    /// Points that are no curve.
    pub fn curve(&self) -> Result<Curve> {
        ensure!(
            self.read_bytes.len() == self.read_us.len(),
            "the curve of depth {} has {} sizes and {} times",
            self.depth,
            self.read_bytes.len(),
            self.read_us.len()
        );
        let points: Vec<(u32, f64)> =
            self.read_bytes.iter().copied().zip(self.read_us.iter().copied()).collect();
        Ok(Curve::new(self.t0_us, &points)?)
    }
}
