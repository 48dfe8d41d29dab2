//! The rows of a replay that reads ahead.

use lnp_common::report::{bytes, table, thousands};
use serde::Serialize;

use crate::replay::rows::Times;

/// One pack, read ahead in one way.
#[derive(Debug, Clone, Serialize)]
pub struct AheadRow {
    /// Order of the pack.
    pub order: String,
    /// Bytes of a bundle.
    pub bundle_bytes: u32,
    /// Layers ahead, or `auto`.
    pub ahead: String,
    /// Of each layer, from how many layers before it is read ahead.
    pub layers: Vec<usize>,
    /// Recall and bundles named for each that is needed, by layers ahead.
    pub predictions: Vec<(f64, f64)>,
    /// Computed between two layers.
    pub compute_us_per_layer: f64,
    /// Share of the bundles that the cache holds, empty at the begin of each turn of 8 tokens.
    pub cache_ratio: f64,
    /// Reads in flight.
    pub queue_depth: u32,
    /// Whether the time is the simulated device's.
    pub simulated: bool,
    /// Tokens.
    pub tokens: usize,
    /// Times that they were replayed.
    pub repeats: usize,
    /// From the input of the first layer to the end of the last.
    pub wall_us_per_token: Times,
    /// Of it, nothing to do but wait for the device.
    pub wait_us_per_token: f64,
    /// Bundles needed.
    pub active_bundles_per_token: f64,
    /// Reads, those ahead included.
    pub reads_per_token: f64,
    /// Bytes read, those ahead included.
    pub bytes_read_per_token: f64,
    /// Reads that were under way before their layer was begun.
    pub ahead_reads_per_token: f64,
    /// Bundles needed that these brought.
    pub ahead_bundles_used_per_token: f64,
    /// Wall time over that of not reading ahead.
    pub of_none: f64,
}

/// The table for people.
pub fn render(rows: &[AheadRow]) -> String {
    let line = |row: &AheadRow| {
        let read_ahead = row.layers.iter().filter(|horizon| **horizon > 0).count();
        vec![
            row.order.clone(),
            bytes(row.bundle_bytes.into()),
            row.ahead.clone(),
            format!("{read_ahead}/{}", row.layers.len()),
            thousands(row.wall_us_per_token.mean),
            thousands(row.wall_us_per_token.p99),
            thousands(row.wait_us_per_token),
            thousands(row.reads_per_token),
            thousands(row.ahead_reads_per_token),
            bytes(row.bytes_read_per_token),
            format!("{:.3}", row.of_none),
        ]
    };
    let lines: Vec<Vec<String>> = rows.iter().map(line).collect();
    let head = [
        "order",
        "bundle",
        "ahead",
        "layers",
        "wall us",
        "p99",
        "waiting us",
        "reads",
        "ahead",
        "read",
        "of none",
    ];
    table(&head, &lines, 3)
}
