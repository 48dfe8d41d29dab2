//! Matrices times vectors, straight from the bytes of a matrix: what predictors are made of.

use crate::arch::{Ahead, CpuFeatures, RowsOps, Tier};
use crate::dtype::BLOCK;
use crate::error::KernelError;
use crate::input::Input;
use crate::kernel::{HIDDEN_MAX, check};
use crate::numbers::Numbers;

/// Bytes of rows that all inputs of a batch are multiplied with before the next come: with an input
/// they stay in a first cache.
const GROUP_BYTES: usize = 8 << 10;

/// A matrix of rows that lie one after the other, times vectors. It knows how long a row is; how many
/// rows there are, each call says.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    columns: usize,
    ops: RowsOps,
}

impl Rows {
    /// For rows of `columns` numbers, a multiple of 32: chooses the best tier of `features` that has
    /// code for the number type.
    ///
    /// # Errors
    /// [`KernelError::Columns`].
    pub fn new(
        numbers: Numbers,
        columns: usize,
        features: CpuFeatures,
    ) -> Result<Self, KernelError> {
        if columns == 0 || columns > HIDDEN_MAX || !columns.is_multiple_of(BLOCK) {
            return Err(KernelError::Columns { found: columns });
        }
        Ok(Self { columns, ops: RowsOps::select(numbers, features) })
    }

    /// The tier in use.
    pub const fn tier(&self) -> Tier {
        self.ops.tier()
    }

    /// How the numbers are stored.
    pub const fn numbers(&self) -> Numbers {
        self.ops.numbers()
    }

    /// Numbers of a row.
    pub const fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes of a row.
    pub const fn row_bytes(&self) -> usize {
        self.numbers().row_bytes(self.columns)
    }

    /// Bytes that [`Rows::prepare`] needs for one vector; 0 where the tier takes it as it is.
    pub const fn input_bytes(&self) -> usize {
        self.ops.form().bytes(self.columns)
    }

    /// Brings the vector `x` (`columns` values) into the form that this tier computes with, in the
    /// first [`Rows::input_bytes`] bytes of `memory`.
    ///
    /// # Errors
    /// [`KernelError::Length`].
    pub fn prepare<'a>(
        &self,
        x: &'a [f32],
        memory: &'a mut [u8],
    ) -> Result<Input<'a>, KernelError> {
        check("vector", self.columns, x.len())?;
        let (expected, found) = (self.input_bytes(), memory.len());
        let too_short = KernelError::Length { what: "memory for the input", expected, found };
        self.ops.prepare(x, memory).ok_or(too_short)
    }

    /// `out[i] = row i . x`: `rows` holds as many rows as `out` has places.
    ///
    /// # Errors
    /// [`KernelError::Length`], [`KernelError::Input`].
    pub fn multiply(&self, x: &Input<'_>, rows: &[u8], out: &mut [f32]) -> Result<(), KernelError> {
        self.check(x)?;
        check("matrix", out.len().saturating_mul(self.row_bytes()), rows.len())?;
        self.ops.multiply(x, rows, out, Ahead::new(rows, &[]));
        Ok(())
    }

    /// [`Rows::multiply`] for several vectors, with the same bits, but each row comes from memory only
    /// once: `out[t * count + i] = row i . xs[t]`, where `rows` holds `count` rows.
    ///
    /// # Errors
    /// [`KernelError::Length`] where `rows` is no whole rows or `out` has not a place for each row and
    /// vector; [`KernelError::Input`].
    pub fn multiply_batch(
        &self,
        xs: &[Input<'_>],
        rows: &[u8],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        // never 0; said so that the compiler knows it too
        let row_bytes = self.row_bytes().max(1);
        let count = rows.len() / row_bytes;
        check("matrix", count * row_bytes, rows.len())?;
        check("products", count.saturating_mul(xs.len()), out.len())?;
        xs.iter().try_for_each(|x| self.check(x))?;
        let together = self.ops.rows_together();
        let group_rows = (GROUP_BYTES / row_bytes).max(1).next_multiple_of(together);
        let mut begin = 0;
        for group in rows.chunks(group_rows.saturating_mul(row_bytes).max(1)) {
            let end = begin + group.len() / row_bytes;
            // Only the first vector meets rows that are still in memory.
            let mut ahead = Ahead::new(rows, &[]);
            for (x, out) in xs.iter().zip(out.chunks_exact_mut(count.max(1))) {
                let places = out.get_mut(begin..end).unwrap_or_default();
                self.ops.multiply(x, group, places, ahead);
                ahead = Ahead::new(&[], &[]);
            }
            begin = end;
        }
        Ok(())
    }

    fn check(&self, x: &Input<'_>) -> Result<(), KernelError> {
        check("vector", self.columns, x.values.len())?;
        if x.form == self.ops.form() { Ok(()) } else { Err(KernelError::Input) }
    }
}
