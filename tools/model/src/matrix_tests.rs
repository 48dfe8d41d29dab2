//! Products of matrices of every type.

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::*;

/// Few tokens and many, every type, on threads or not: what f64 makes of the numbers that are held.
#[test]
fn products_agree_with_f64() -> Result<()> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(2);
    let features = DenseOptions::default().features;
    for (rows, columns) in [(5, 32), (70, 96), (3, 20), (6000, 128)] {
        let mut numbers = |count: usize| -> Vec<f32> {
            (0..count).map(|_| random.random::<f32>() - 0.5).collect()
        };
        let weights = numbers(rows * columns);
        let bias = Tensor::from_vec(numbers(rows), rows, &Device::Cpu)?;
        for dtype in DenseType::ALL {
            let options = DenseOptions { numbers: Some(dtype), features };
            let whole = Tensor::from_slice(&weights, (rows, columns), &Device::Cpu)?;
            let bytes = |ggml| -> Result<Vec<u8>> {
                Ok(QTensor::quantize(&whole, ggml)?.data()?.into_owned())
            };
            let held = match dtype {
                _ if !columns.is_multiple_of(32) => Held::F32(whole.clone()),
                DenseType::F32 => Held::F32(whole.clone()),
                DenseType::F16 => Held::Bytes(dtype, bytes(GgmlDType::F16)?),
                DenseType::Q8_0 => Held::Bytes(dtype, bytes(GgmlDType::Q8_0)?),
            };
            let matrix = Matrix::of(held, rows, columns, &options)?;
            let matrix = matrix.with_bias(Some(bias.clone()));
            let held = matrix.piece(0, rows)?.to_vec2::<f32>()?;
            let looked_up = matrix.rows_of(&[2, 0])?.to_vec2::<f32>()?;
            assert_eq!(looked_up, [held[2].clone(), held[0].clone()]);
            for tokens in [1, 2, 7, 8, 9, 40] {
                let x =
                    Tensor::from_vec(numbers(tokens * columns), (tokens, columns), &Device::Cpu)?;
                let found = matrix.forward(&x)?.to_vec2::<f32>()?;
                for (x, found) in x.to_vec2::<f32>()?.iter().zip(&found) {
                    let bias = bias.to_vec1::<f32>()?;
                    for ((row, bias), found) in held.iter().zip(&bias).zip(found) {
                        let terms =
                            || row.iter().zip(x).map(|(a, b)| f64::from(*a) * f64::from(*b));
                        let (sum, size) =
                            (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
                        let off = (f64::from(*found) - sum - f64::from(*bias)).abs();
                        // inputs of 8-bit kernels are rounded to 8 bits
                        let most = if dtype == DenseType::Q8_0 { 0.02 } else { 1e-3 };
                        assert!(off <= most * (size + 1.0), "{dtype:?} {rows} {tokens}: {off}");
                    }
                }
            }
        }
    }
    Ok(())
}
