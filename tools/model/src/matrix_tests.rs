//! Products of matrices of every type, few tokens and many, on threads or not: what f64 makes of the numbers that are held.

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::super::dense_type::DenseNumbers;
use super::*;

/// Numbers of -0.5 to 0.5.
struct Random(Xoshiro256PlusPlus);

impl Random {
    fn tensor(&mut self, rows: usize, columns: usize) -> Result<Tensor> {
        let numbers = (0..rows * columns).map(|_| self.0.random::<f32>() - 0.5).collect();
        Ok(Tensor::from_vec(numbers, (rows, columns), &Device::Cpu)?)
    }
}

/// Compares with f64 what a matrix gives that is off by at most so much of the sum of its terms' sizes.
fn check(matrix: Matrix, most: f64, random: &mut Random) -> Result<()> {
    let (rows, columns) = (matrix.rows, matrix.columns);
    let bias = random.tensor(1, rows)?.flatten_all()?;
    let matrix = matrix.with_bias(Some(bias.clone()));
    let held = matrix.piece(0, rows)?.to_vec2::<f32>()?;
    let looked_up = matrix.rows_of(&[2, 0])?.to_vec2::<f32>()?;
    assert_eq!(looked_up, [held[2].clone(), held[0].clone()]);
    assert!(matrix.piece(rows, 1).is_err());
    let bias = bias.to_vec1::<f32>()?;
    for tokens in [1, 2, 7, 8, 9, 40] {
        let x = random.tensor(tokens, columns)?;
        let found = matrix.forward(&x)?.to_vec2::<f32>()?;
        for (x, found) in x.to_vec2::<f32>()?.iter().zip(&found) {
            for ((row, bias), found) in held.iter().zip(&bias).zip(found) {
                let terms = || row.iter().zip(x).map(|(a, b)| f64::from(*a) * f64::from(*b));
                let (sum, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
                let off = (f64::from(*found) - sum - f64::from(*bias)).abs();
                assert!(off <= most * (size + 1.0), "{rows} x {columns}, {tokens} tokens: {off}");
            }
        }
    }
    Ok(())
}

#[test]
fn products_agree_with_f64() -> Result<()> {
    let mut random = Random(Xoshiro256PlusPlus::seed_from_u64(2));
    for (rows, columns) in [(5, 32), (70, 96), (3, 20), (6000, 128)] {
        let weights = random.tensor(rows, columns)?;
        for dtype in DenseType::ALL {
            let numbers = DenseNumbers::Of(dtype);
            let options = DenseOptions { numbers, ..DenseOptions::default() };
            let matrix = Matrix::of_tensor(&weights, StoredType::F32, &options)?;
            let expected = options.held(StoredType::F32, columns).row_bytes(columns) * rows;
            assert_eq!(matrix.bytes(), expected);
            // inputs of 8-bit kernels are rounded to 8 bits
            let rounds = matches!(dtype, DenseType::Q8_0 | DenseType::Q4_0);
            check(matrix, if rounds { 0.02 } else { 1e-3 }, &mut random)?;
        }
    }
    Ok(())
}

/// What is quantised by ggml stays as it is.
#[test]
fn blocks_of_256_are_multiplied_as_they_are() -> Result<()> {
    let mut random = Random(Xoshiro256PlusPlus::seed_from_u64(3));
    let options = DenseOptions { numbers: DenseNumbers::Stored, ..DenseOptions::default() };
    for (stored, ggml) in [(StoredType::Q4K, GgmlDType::Q4K), (StoredType::Q6K, GgmlDType::Q6K)] {
        let (rows, columns) = (40, 512);
        let weights = QTensor::quantize(&random.tensor(rows, columns)?, ggml)?;
        let bytes = weights.data()?.into_owned();
        assert_eq!(options.held(stored, columns), HeldType::Ggml(stored));
        assert_eq!(HeldType::Ggml(stored).row_bytes(columns) * rows, bytes.len());
        assert!(quantised(stored, &bytes[1..], (rows, columns)).is_err());
        let held = Held::Ggml(stored, Arc::new(quantised(stored, &bytes, (rows, columns))?));
        check(Matrix::of(held, rows, columns, &options)?, 0.02, &mut random)?;
    }
    Ok(())
}
