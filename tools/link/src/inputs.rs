//! FFN inputs in a trace: what predictors of activity are fitted to.
//!
//! Kept are the inputs of every layer at some tokens, the same ones for all layers: tensors `inputs.{i}` F16
//! `[rows, hidden]`, and `input_rows` I32 `[rows]`, ascending, which says which tokens. Rows and not sums:
//! a predictor needs second moments within and between layers for its fit, but thresholds and the choice
//! between predictors need other tokens than the fit, one by one, and moments of wide layers take as much
//! as thousands of rows. f16, because inputs are normalised. Which tokens: one of each stretch of equal
//! length, where in it drawn by lot (seeded), because windows have a period too. A program that
//! does not know these tensors reads the trace as before.

use anyhow::{Context, Result, ensure};
use lnp_common::tensor_file::{Elements, TensorData, TensorFile};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use safetensors::Dtype;

use crate::trace::check_tensor;

/// The tensor that says which tokens have inputs.
pub(crate) const INPUT_ROWS: &str = "input_rows";
/// Seed of the lots.
const SEED: u64 = 0x6c6e_7001;

/// FFN inputs of some tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRows {
    /// The tokens, ascending.
    pub rows: Vec<u32>,
    /// Width of an input.
    pub hidden: usize,
    /// Per layer, f16, little-endian, row-major `[rows][hidden]`.
    pub layers: Vec<Vec<u8>>,
}

impl InputRows {
    /// Bytes of the inputs of so many tokens, which names them included.
    pub fn bytes(rows: usize, layers: usize, hidden: usize) -> u64 {
        let row = 4 + 2 * (layers as u64).saturating_mul(hidden as u64);
        row.saturating_mul(rows as u64)
    }

    pub(crate) fn check(&self, tokens: usize, layers: usize) -> Result<()> {
        check_rows(&self.rows, tokens)?;
        let expected = 2 * self.rows.len() * self.hidden;
        ensure!(
            self.hidden > 0 && self.layers.len() == layers,
            "inputs of {} layers, {} wide",
            self.layers.len(),
            self.hidden
        );
        for (layer, inputs) in self.layers.iter().enumerate() {
            let found = inputs.len();
            ensure!(found == expected, "inputs of layer {layer}: {found} bytes, not {expected}");
        }
        Ok(())
    }

    pub(crate) fn tensors(&self) -> Vec<TensorData<'_>> {
        let mut tensors = vec![TensorData {
            name: INPUT_ROWS.to_owned(),
            dtype: Dtype::I32,
            shape: vec![self.rows.len()],
            data: Elements::Words(&self.rows),
        }];
        tensors.extend(self.layers.iter().enumerate().map(|(layer, inputs)| TensorData {
            name: inputs_name(layer),
            dtype: Dtype::F16,
            shape: vec![self.rows.len(), self.hidden],
            data: Elements::Bytes(inputs),
        }));
        tensors
    }
}

/// Which tokens to keep inputs of: so many of all of them, or all where there are no more.
pub fn sampled_rows(tokens: usize, rows: usize) -> Vec<u32> {
    let rows = rows.min(tokens);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    let begin = |row: usize| (row as u128 * tokens as u128 / rows as u128) as u32;
    (0..rows).map(|row| random.random_range(begin(row)..begin(row + 1))).collect()
}

/// Inputs are there for every layer and of one shape, or not at all.
pub(crate) fn check_inputs(file: &TensorFile, layers: usize) -> Result<()> {
    let found = file.tensors().keys().filter(|name| name.starts_with("inputs.")).count();
    if found == 0 && !file.tensors().contains_key(INPUT_ROWS) {
        return Ok(());
    }
    ensure!(found == layers, "has inputs of {found} layers, metadata `layers` is {layers}");
    let hidden = file.info(&inputs_name(0))?.shape.get(1).copied().unwrap_or(0);
    let rows = file.info(INPUT_ROWS)?.shape.iter().product();
    check_tensor(file, INPUT_ROWS, Dtype::I32, &[rows])?;
    ensure!(rows > 0 && hidden > 0, "has inputs of {rows} tokens, {hidden} wide");
    (0..layers)
        .try_for_each(|layer| check_tensor(file, &inputs_name(layer), Dtype::F16, &[rows, hidden]))
}

pub(crate) fn inputs_name(layer: usize) -> String {
    format!("inputs.{layer}")
}

/// Rows of a file, checked.
pub(crate) fn rows_of(bytes: &[u8], tokens: usize) -> Result<Vec<u32>> {
    let rows: Vec<u32> = bytes.as_chunks().0.iter().map(|four| u32::from_le_bytes(*four)).collect();
    check_rows(&rows, tokens).map(|()| rows)
}

fn check_rows(rows: &[u32], tokens: usize) -> Result<()> {
    let last = rows.last().context("inputs of no token")?;
    ensure!(
        rows.is_sorted_by(|a, b| a < b) && (*last as usize) < tokens,
        "`{INPUT_ROWS}` must ascend and be below {tokens}: damaged"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row of each stretch; all where as many are wanted; none of none.
    #[test]
    fn rows_are_drawn_from_stretches_of_equal_length() {
        for (tokens, rows) in [(1, 1), (7, 3), (1000, 999), (12_288, 4096), (5, 9)] {
            let found = sampled_rows(tokens, rows);
            let rows = rows.min(tokens);
            assert_eq!(found.len(), rows);
            for (stretch, row) in found.iter().enumerate() {
                let begin = stretch * tokens / rows;
                assert!((begin..(stretch + 1) * tokens / rows).contains(&(*row as usize)));
            }
            assert_eq!(found, sampled_rows(tokens, rows));
        }
        assert!(sampled_rows(0, 4).is_empty() && sampled_rows(4, 0).is_empty());
        // windows have a period; the rows have none
        let places: std::collections::BTreeSet<u32> =
            sampled_rows(65_536, 256).iter().map(|row| row % 256).collect();
        assert!(places.len() > 100, "{}", places.len());
    }
}
