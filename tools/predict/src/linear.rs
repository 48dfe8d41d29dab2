//! The linear algebra: products in parallel, second moments, and the best map of low rank.
//!
//! The best map of rank r from inputs x to W t, where t is what the rows W are applied to (x itself,
//! or the input of a later layer), makes the mean of |W t - A B x|^2 least. With S = cov(t, x) and
//! C = cov(x, x) + ridge = L L' (Cholesky), it is the singular value decomposition of W S L'^-1, cut off
//! after r values: A = W K V and B = V' L^-1, where K = S L'^-1 and V has the right singular vectors.
//! V comes from the symmetric K' W'W K: whole, or by subspace iteration where that would take minutes. What is
//! iterated is multiplied in single precision: the factors are stored in 16 bits at most.
//!
//! The same bits whatever the number of threads: work is cut into pieces of a fixed size, and a piece
//! is one thread's.

use anyhow::{Context, Result, anyhow, ensure};
use faer::linalg::matmul::matmul;
use faer::linalg::triangular_solve::{
    solve_lower_triangular_in_place, solve_upper_triangular_in_place,
};
use faer::traits::ComplexField;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;

/// Rows of a product that are computed at once.
const PIECE_ROWS: usize = 128;
/// Inputs up to this wide are decomposed whole: in seconds.
pub(crate) const WHOLE_MAX: usize = 1024;
/// Vectors beyond the rank, and turns, of subspace iteration.
pub(crate) const OVERSAMPLED: usize = 32;
const TURNS: usize = 2;
/// Share of the mean variance that is added to every direction's: inputs that were never seen are then
/// not taken for ones that cannot be.
pub(crate) const RIDGE: f64 = 1e-3;
/// Seed of the subspace iteration.
const SEED: u64 = 0x6c6e_7018;

/// Row-major a b; `a` may be a transposed view.
pub(crate) fn product<T: ComplexField + Copy + Send + Sync>(
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
) -> Vec<T> {
    let columns = b.ncols();
    let mut out = vec![T::zero_impl(); a.nrows() * columns];
    let pieces = out.par_chunks_mut((PIECE_ROWS * columns).max(1)).enumerate();
    pieces.for_each(|(piece, out)| {
        let rows = out.len() / columns;
        let out = MatMut::from_row_major_slice_mut(out, rows, columns);
        let a = a.subrows(piece * PIECE_ROWS, rows);
        matmul(out, Accum::Replace, a, b, T::one_impl(), Par::Seq);
    });
    out
}

/// The lower triangle of a' a, row-major; zeros above.
fn gram(a: MatRef<'_, f64>) -> Vec<f64> {
    let columns = a.ncols();
    let mut out = vec![0.0; columns * columns];
    let pieces = out.par_chunks_mut((PIECE_ROWS * columns).max(1)).enumerate();
    pieces.for_each(|(piece, out)| {
        let (begin, rows) = (piece * PIECE_ROWS, out.len() / columns);
        let out = MatMut::from_row_major_slice_mut(out, rows, columns);
        let out = out.subcols_mut(0, begin + rows);
        let left = a.transpose().subrows(begin, rows);
        matmul(out, Accum::Replace, left, a.subcols(0, begin + rows), 1.0, Par::Seq);
    });
    out
}

/// A row-major slice as a matrix.
pub(crate) fn view<T>(values: &[T], columns: usize) -> MatRef<'_, T> {
    MatRef::from_row_major_slice(values, values.len() / columns.max(1), columns)
}

/// Numbers in double precision.
pub(crate) fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// Numbers in single precision.
fn singles(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

/// A matrix in double precision, row-major.
fn doubled(matrix: MatRef<'_, f32>) -> Vec<f64> {
    let row = |row: usize| (0..matrix.ncols()).map(move |column| f64::from(matrix[(row, column)]));
    (0..matrix.nrows()).flat_map(row).collect()
}

/// Rows with their mean taken off, and the mean.
pub(crate) fn centred(rows: &[f32], columns: usize) -> (Vec<f64>, Vec<f64>) {
    let mut mean = vec![0.0; columns];
    for row in rows.chunks(columns) {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let count = (rows.len() / columns).max(1) as f64;
    mean.iter_mut().for_each(|sum| *sum /= count);
    let off = |row: &[f32]| -> Vec<f64> {
        row.iter().zip(&mean).map(|(value, mean)| f64::from(*value) - mean).collect()
    };
    (rows.chunks(columns).flat_map(off).collect(), mean)
}

/// What inputs look like: their Cholesky factor, for whitening.
pub(crate) struct Whitening {
    lower: Mat<f64>,
    /// Centred inputs, row-major.
    inputs: Vec<f64>,
}

impl Whitening {
    /// Of centred inputs, row-major.
    pub(crate) fn of(inputs: Vec<f64>, columns: usize) -> Result<Self> {
        let rows = inputs.len() / columns;
        ensure!(rows > 0, "no row of inputs to fit to");
        let mut moments = gram(view(&inputs, columns));
        moments.iter_mut().for_each(|sum| *sum /= rows as f64);
        let trace: f64 = (0..columns).map(|at| moments[at * columns + at]).sum();
        let ridge = (RIDGE * trace / columns as f64).max(f64::MIN_POSITIVE);
        (0..columns).for_each(|at| moments[at * columns + at] += ridge);
        let lower = view(&moments, columns).llt(Side::Lower);
        let lower = lower
            .map_err(|_| anyhow!("inputs that are not numbers: is the checkpoint damaged?"))?;
        Ok(Self { lower: lower.L().to_owned(), inputs })
    }

    /// K = S L'^-1, row-major, where S is the covariance of the targets with the inputs; none for the
    /// inputs themselves.
    fn towards(&self, targets: Option<&[f64]>) -> Vec<f64> {
        let columns = self.lower.nrows();
        let Some(targets) = targets else {
            // S = C, ridge included: what is fitted is then exact at full rank
            return row_major(self.lower.as_ref());
        };
        let covariance = moments(targets, &self.inputs, columns);
        // K L' = S, so L K' = S'
        let mut transposed = view(&covariance, columns).transpose().to_owned();
        solve_lower_triangular_in_place(self.lower.as_ref(), transposed.as_mut(), Par::Seq);
        row_major(transposed.transpose())
    }

    /// The best map of some rank from the inputs to `rows` applied to the targets, or to the inputs.
    ///
    /// # Errors
    /// Numbers that are none.
    pub(crate) fn low_rank(
        &self,
        rows: MatRef<'_, f32>,
        targets: Option<&[f64]>,
        rank: usize,
    ) -> Result<LowRank> {
        let columns = self.lower.nrows();
        ensure!((1..=columns).contains(&rank), "rank {rank}: 1 to {columns} are possible");
        let towards = self.towards(targets);
        let towards = view(&towards, columns);
        let (vectors, expand) = if columns <= WHOLE_MAX {
            let rows = doubled(rows);
            let image = product(view(&rows, columns), towards);
            let vectors = strongest(&image, columns, rank)?;
            let expand = product(view(&image, columns), view(&vectors, rank));
            (vectors, expand)
        } else {
            iterated(rows, towards, rank)?
        };
        let vectors = view(&vectors, rank);
        // B' = L'^-1 V
        let mut reduce = vectors.to_owned();
        solve_upper_triangular_in_place(self.lower.transpose(), reduce.as_mut(), Par::Seq);
        Ok(LowRank { reduce: row_major(reduce.transpose()), expand })
    }
}

/// The two factors of a map of low rank, row-major.
pub(crate) struct LowRank {
    /// [rank, columns]
    pub(crate) reduce: Vec<f64>,
    /// [rows, rank], the strongest columns first.
    pub(crate) expand: Vec<f64>,
}

/// a' b / rows, row-major.
fn moments(a: &[f64], b: &[f64], columns: usize) -> Vec<f64> {
    let mut out = product(view(a, columns).transpose(), view(b, columns));
    let rows = (a.len() / columns) as f64;
    out.iter_mut().for_each(|sum| *sum /= rows);
    out
}

/// Right singular vectors of rows K by subspace iteration with oversampling, and what rows K makes of them: a few
/// products with rows K instead of a square matrix.
fn iterated(
    rows: MatRef<'_, f32>,
    towards: MatRef<'_, f64>,
    rank: usize,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let columns = towards.ncols();
    let width = (rank + OVERSAMPLED).min(columns);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    let mut basis: Vec<f64> = (0..columns * width).map(|_| random.random::<f64>() - 0.5).collect();
    let orthogonal = |basis: &[f64]| row_major(view(basis, width).qr().compute_thin_Q().as_ref());
    let towards = singles(&row_major(towards));
    let towards = view(&towards, columns);
    let image = |basis: &[f64]| {
        let along = product(towards, view(&singles(basis), width));
        product(rows, view(&along, width))
    };
    for _ in 0..TURNS {
        basis = orthogonal(&basis);
        let back = product(rows.transpose(), view(&image(&basis), width));
        basis = doubles(&product(towards.transpose(), view(&back, width)));
    }
    basis = orthogonal(&basis);
    // within the subspace, the few dimensions are decomposed whole
    let image = doubles(&image(&basis));
    let within = strongest(&image, width, rank)?;
    let of_within = |matrix: &[f64]| product(view(matrix, width), view(&within, rank));
    Ok((of_within(&basis), of_within(&image)))
}

/// The eigenvectors of image' image with the largest values, row-major [columns, rank].
fn strongest(image: &[f64], columns: usize, rank: usize) -> Result<Vec<f64>> {
    let square = gram(view(image, columns));
    let found = view(&square, columns).self_adjoint_eigen(Side::Lower);
    let found = found.ok().context("weights that are not numbers: is the checkpoint damaged?")?;
    // their values ascend
    let column = |at: usize| columns - 1 - at;
    let vectors = found.U();
    Ok((0..columns).flat_map(|row| (0..rank).map(move |at| vectors[(row, column(at))])).collect())
}

fn row_major(matrix: MatRef<'_, f64>) -> Vec<f64> {
    (0..matrix.nrows())
        .flat_map(|row| (0..matrix.ncols()).map(move |column| matrix[(row, column)]))
        .collect()
}

#[cfg(test)]
#[path = "linear_tests.rs"]
mod tests;
