//! Predictors as a pack has them: the sections of `spec/lnp-v1.md`, 9.2.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lnp_common::report::plain;
use lnp_format::layout::{
    OperatingPoint, PREDICTOR_REDUCE_BIAS, PREDICTOR_RELU_BETWEEN, PREDICTOR_STRENGTH_SCALES,
};
use lnp_format::limits::POINTS_MAX;
use lnp_format::{PredictorKind, PredictorNumbers, write};
use zerocopy::byteorder::F32;
use zerocopy::{FromZeros, IntoBytes};

use crate::file::Predictors;
use crate::numbers::{BLOCK, Matrix, Numbers, f16_bytes};
use crate::points::Point;
use crate::predictor::{Between, Body, Predictor};

/// A predictor's section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The layer whose active neurons it predicts.
    pub layer: u32,
    /// How many layers ahead.
    pub horizon: u32,
    /// The section's bytes.
    pub bytes: Vec<u8>,
}

impl Predictors {
    /// The sections of a pack, by layer, then by horizon.
    ///
    /// # Errors
    /// More operating points than a pack can have.
    pub fn sections(&self) -> Result<Vec<Section>> {
        let mut sections: Vec<Section> =
            self.predictors.iter().map(section).collect::<Result<_>>()?;
        sections.sort_by_key(|section| (section.layer, section.horizon));
        Ok(sections)
    }

    /// What a pack's provenance says of them.
    pub fn provenance(&self) -> BTreeMap<String, String> {
        let mut entries = BTreeMap::new();
        let mut put = |key: String, value: String| entries.insert(key, value);
        put("predictors.recall".into(), self.recall.to_string());
        put("predictors.tokens".into(), self.rows.to_string());
        for (number, trace) in self.traces.iter().enumerate() {
            put(format!("predictors.trace.{number}.file"), plain(&trace.file));
            put(format!("predictors.trace.{number}.sha256"), trace.sha256.clone());
        }
        entries
    }
}

fn section(predictor: &Predictor) -> Result<Section> {
    let (points, lists) = (predictor.points(), predictor.offsets());
    let neurons = lists.first().map_or(0, Vec::len);
    ensure!(
        (1..=POINTS_MAX as usize).contains(&points.len()),
        "{} operating points: 1 to {POINTS_MAX} are possible in a pack",
        points.len()
    );
    let (kind, numbers, hidden, rank, matrices) = match predictor.body() {
        Body::Rows(rows) => {
            let bytes = rows.bytes().to_vec();
            (PredictorKind::Rows, rows.numbers(), rows.columns(), 0, bytes)
        }
        Body::LowRank { reduce, expand, .. } => {
            let rank = reduce.rows().next_multiple_of(BLOCK);
            let bias = reduce_bias_bytes(predictor.body(), rank);
            let bytes = [bias, with_rows(reduce, rank), with_columns(expand, rank)].concat();
            (PredictorKind::LowRank, reduce.numbers(), reduce.columns(), rank, bytes)
        }
    };
    let count = |value: usize| u32::try_from(value).context("a predictor beyond the format");
    let mut header = write::predictor_header(
        (kind, code(numbers)?),
        (count(neurons)?, count(hidden)?, count(rank)?),
        (count(points.len())?, count(lists.len())?),
    );
    header.flags.set(flags(predictor));
    let mut bytes = header.as_bytes().to_vec();
    points.iter().for_each(|point| bytes.extend(on_disk(point).as_bytes()));
    lists.iter().for_each(|list| bytes.extend(f16_bytes(list)));
    bytes.extend(predictor.strength_scales().map(f16_bytes).unwrap_or_default());
    bytes.extend(matrices);
    Ok(Section { layer: count(predictor.layer)?, horizon: count(predictor.horizon)?, bytes })
}

/// What the header says of what is between the factors, and of what else there is.
fn flags(predictor: &Predictor) -> u32 {
    let body = predictor.body();
    let relu = match body {
        Body::LowRank { between: Between::Relu { .. }, .. } => PREDICTOR_RELU_BETWEEN,
        _ => 0,
    };
    let bias = if body.reduce_bias().is_some() { PREDICTOR_REDUCE_BIAS } else { 0 };
    let scales = if predictor.strength_scales().is_some() { PREDICTOR_STRENGTH_SCALES } else { 0 };
    relu | bias | scales
}

/// The bias between the factors, where there is one, zeros after it.
fn reduce_bias_bytes(body: &Body, rank: usize) -> Vec<u8> {
    let Some(bias) = body.reduce_bias() else { return Vec::new() };
    bias.iter()
        .copied()
        .chain(std::iter::repeat(0.0))
        .take(rank)
        .flat_map(f32::to_le_bytes)
        .collect()
}

/// The bytes of a matrix, rows of zeros after its own: a rank that is no whole block becomes one that is.
fn with_rows(matrix: &Matrix, rows: usize) -> Vec<u8> {
    let mut bytes = matrix.bytes().to_vec();
    bytes.resize(rows * matrix.numbers().row_bytes(matrix.columns()), 0);
    bytes
}

/// The bytes of a matrix, zeros after the numbers of each row.
fn with_columns(matrix: &Matrix, columns: usize) -> Vec<u8> {
    let [own, wanted] =
        [matrix.columns(), columns].map(|columns| matrix.numbers().row_bytes(columns));
    let zeros = vec![0; wanted - own];
    matrix.bytes().chunks(own.max(1)).flat_map(|row| row.iter().chain(&zeros)).copied().collect()
}

fn on_disk(point: &Point) -> OperatingPoint {
    OperatingPoint {
        quality: F32::new(point.quality),
        threshold: F32::new(point.threshold),
        recall: F32::new(point.recall),
        reads_per_active: F32::new(point.reads_per_active),
        share_kept: F32::new(point.share_kept),
        ..OperatingPoint::new_zeroed()
    }
}

fn code(numbers: Numbers) -> Result<PredictorNumbers> {
    let name = numbers.to_string();
    PredictorNumbers::from_name(&name).with_context(|| format!("{name} has no place in a pack"))
}

#[cfg(test)]
#[path = "section_tests.rs"]
mod tests;
