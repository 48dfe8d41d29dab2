//! Weighted sums of rows, straight from their bytes: what attention does with values.

use crate::arch::{Ahead, CpuFeatures, Ops, Tier};
use crate::dtype::{BLOCK, Dtype};
use crate::error::KernelError;
use crate::kernel::{HIDDEN_MAX, check};

/// Rows that lie one after the other, each times a number, added up.
#[derive(Clone, Copy, Debug)]
pub struct Sums {
    columns: usize,
    row_bytes: usize,
    ops: Ops,
}

impl Sums {
    /// For rows of `columns` numbers, a multiple of 32: chooses the best tier of `features` that has
    /// code for the number type.
    ///
    /// # Errors
    /// [`KernelError::Columns`].
    pub fn new(dtype: Dtype, columns: usize, features: CpuFeatures) -> Result<Self, KernelError> {
        if columns == 0 || columns > HIDDEN_MAX || !columns.is_multiple_of(BLOCK) {
            return Err(KernelError::Columns { found: columns });
        }
        Ok(Self {
            columns,
            row_bytes: dtype.part_bytes(columns),
            ops: Ops::select(dtype, features),
        })
    }

    /// The tier in use.
    pub const fn tier(&self) -> Tier {
        self.ops.tier()
    }

    /// `y[k] += scales[i] * rows[i][k]`, the rows one after the other: there are as many as `scales` has
    /// places. As [`crate::Kernel::accumulate`] adds a down column, but that a scale of 0 adds too.
    ///
    /// # Errors
    /// [`KernelError::Length`].
    pub fn add(&self, scales: &[f32], rows: &[u8], y: &mut [f32]) -> Result<(), KernelError> {
        check("sums", self.columns, y.len())?;
        check("matrix", scales.len().saturating_mul(self.row_bytes), rows.len())?;
        let ahead = Ahead::new(rows, &[]);
        // never 0; said so that the compiler knows it too
        for (scale, row) in scales.iter().zip(rows.chunks_exact(self.row_bytes.max(1))) {
            self.ops.add_scaled(*scale, row, y, ahead);
        }
        Ok(())
    }
}
