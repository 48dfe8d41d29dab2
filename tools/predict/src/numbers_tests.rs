use proptest::prelude::*;

use super::*;

const ALL: [Numbers; 7] = [
    Numbers::F32,
    Numbers::F16,
    Numbers::Q8_0,
    Numbers::Bits(1),
    Numbers::Bits(2),
    Numbers::Bits(4),
    Numbers::Bits(8),
];

/// How far the numbers of a block, of which the largest is 1, may be off, root mean square.
fn error_max(numbers: Numbers) -> f32 {
    match numbers {
        Numbers::F32 => 0.0,
        Numbers::F16 => 1e-3,
        Numbers::Q8_0 => 0.51 / 127.0 + 1e-3,
        // codes are two scales apart: a number is at most one off
        Numbers::Bits(bits) => 1.01 / f32::from(u8::MAX >> (8 - bits)),
    }
}

proptest! {
    #[test]
    fn near_what_was_written(values in prop::collection::vec(-3f32..3.0, 128)) {
        for numbers in ALL {
            let matrix = Matrix::encode(numbers, 64, &values).unwrap();
            prop_assert_eq!((matrix.rows(), matrix.columns()), (2, 64));
            prop_assert_eq!(matrix.bytes().len(), 2 * numbers.row_bytes(64));
            for (read, written) in matrix.decode().chunks(BLOCK).zip(values.chunks(BLOCK)) {
                let largest = written.iter().fold(0f32, |most, value| most.max(value.abs()));
                let squares = read.iter().zip(written).map(|(read, written)| (read - written).powi(2));
                let found = (squares.sum::<f32>() / BLOCK as f32).sqrt();
                prop_assert!(found <= error_max(numbers) * largest, "{numbers}: {found}");
            }
            // what is read, written again, stays as it is but for codes without a number of their own
            if matches!(numbers, Numbers::F32 | Numbers::F16 | Numbers::Q8_0) {
                let again = Matrix::encode(numbers, 64, &matrix.decode()).unwrap();
                prop_assert_eq!(again.decode(), matrix.decode());
            }
        }
    }

    /// Fewer columns or rows are those of the whole: ranks are nested.
    #[test]
    fn the_first_columns_and_rows(values in prop::collection::vec(-1f32..1.0, 4 * 96)) {
        for numbers in ALL {
            let whole = Matrix::encode(numbers, 96, &values).unwrap();
            let part = whole.first_columns(64).unwrap().first_rows(3).unwrap();
            let all = whole.decode();
            let expected: Vec<f32> =
                all.chunks(96).take(3).flat_map(|row| &row[..64]).copied().collect();
            prop_assert_eq!(part.decode(), expected);
        }
    }
}

/// Sizes by hand, and the codes by their definition.
#[test]
fn bytes_by_hand() {
    let bytes = ALL.map(|numbers| numbers.row_bytes(64));
    assert_eq!(bytes, [256, 128, 68, 12, 20, 36, 68]);
    // two bits: codes 0 1 2 3 stand for -3 -1 1 3 scales
    let pattern: Vec<f32> = (0..32).map(|at| [-1.5, -0.5, 0.5, 1.5][at % 4]).collect();
    let matrix = Matrix::encode(Numbers::Bits(2), 32, &pattern).unwrap();
    assert_eq!(matrix.bytes()[..2], f16::from_f32(0.5).to_le_bytes());
    assert_eq!(matrix.bytes()[2..], [0b11_10_01_00; 8]);
    assert_eq!(matrix.decode(), pattern);
    let signs: Vec<f32> = (0..32).map(|at| if at < 8 { 2.0 } else { -2.0 }).collect();
    let matrix = Matrix::encode(Numbers::Bits(1), 32, &signs).unwrap();
    assert_eq!(matrix.bytes()[2..], [0xff, 0, 0, 0]);
    assert_eq!(matrix.decode(), signs);
    for numbers in ALL {
        assert_eq!(Matrix::encode(numbers, 32, &[0.0; 32]).unwrap().decode(), [0.0; 32]);
        assert_eq!(numbers.to_string().parse::<Numbers>().unwrap(), numbers);
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    assert!(Matrix::encode(Numbers::F16, 1, &[1e6]).is_err());
    assert!(Matrix::encode(Numbers::F32, 1, &[f32::NAN]).is_err());
    assert!(Matrix::encode(Numbers::Q8_0, 31, &[0.0; 31]).is_err());
    assert!(Matrix::encode(Numbers::F32, 3, &[0.0; 4]).is_err());
    assert!(Matrix::from_bytes(Numbers::Q8_0, 2, 32, vec![0; 67]).is_err());
    assert!(Matrix::from_bytes(Numbers::F32, usize::MAX, 32, Vec::new()).is_err());
    assert!("bits:3".parse::<Numbers>().is_err());
}
