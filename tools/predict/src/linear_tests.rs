use super::*;

/// Numbers between -0.5 and 0.5.
fn random(seed: u64, count: usize) -> Vec<f64> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..count).map(|_| random.random::<f64>() - 0.5).collect()
}

/// Inputs whose directions differ a hundredfold, row-major.
fn inputs(seed: u64, rows: usize, columns: usize) -> Vec<f64> {
    let plain = random(seed, rows * columns);
    let mixing = random(seed + 1, columns * columns);
    let strength = |at: usize| 100f64.powf(-(at as f64) / columns as f64);
    let mut out = Vec::new();
    for row in plain.chunks(columns) {
        for column in 0..columns {
            let mixed =
                (0..columns).map(|at| row[at] * strength(at) * mixing[at * columns + column]);
            out.push(mixed.sum());
        }
    }
    out
}

/// Weights, which are of single precision: also as doubles.
fn weights(seed: u64, count: usize) -> (Vec<f32>, Vec<f64>) {
    let weights = singles(&random(seed, count));
    let doubled = doubles(&weights);
    (weights, doubled)
}

/// Row-major a b, as it is written in books.
fn naive(a: &[f64], b: &[f64], inner: usize) -> Vec<f64> {
    let columns = b.len() / inner;
    let mut out = vec![0.0; a.len() / inner * columns];
    for (row, out) in a.chunks(inner).zip(out.chunks_mut(columns)) {
        for (column, sum) in out.iter_mut().enumerate() {
            *sum = (0..inner).map(|at| row[at] * b[at * columns + column]).sum();
        }
    }
    out
}

fn transposed(a: &[f64], columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|column| a.iter().skip(column).step_by(columns).copied()).collect()
}

/// a' b / rows.
fn naive_moments(a: &[f64], b: &[f64], columns: usize) -> Vec<f64> {
    let rows = a.len() / columns;
    let mut out = naive(&transposed(a, columns), b, rows);
    out.iter_mut().for_each(|value| *value /= rows as f64);
    out
}

/// Second moments with the ridge.
fn naive_ridged(x: &[f64], columns: usize) -> Vec<f64> {
    let mut out = naive_moments(x, x, columns);
    let trace: f64 = (0..columns).map(|at| out[at * columns + at]).sum();
    (0..columns).for_each(|at| out[at * columns + at] += RIDGE * trace / columns as f64);
    out
}

/// x with a x = b, by elimination with pivots; b and x row-major.
fn solve(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
    let columns = b.len() / n;
    let mut rows: Vec<Vec<f64>> =
        (0..n).map(|row| [&a[row * n..][..n], &b[row * columns..][..columns]].concat()).collect();
    for at in 0..n {
        let pivot =
            (at..n).max_by(|p, q| rows[*p][at].abs().total_cmp(&rows[*q][at].abs())).unwrap();
        rows.swap(at, pivot);
        let first = rows[at].clone();
        for (row, values) in rows.iter_mut().enumerate().filter(|(row, _)| *row != at) {
            let _ = row;
            let factor = values[at] / first[at];
            values.iter_mut().zip(&first).for_each(|(value, first)| *value -= factor * first);
        }
    }
    rows.iter()
        .enumerate()
        .flat_map(|(at, row)| row[n..].iter().map(move |v| v / row[at]))
        .collect()
}

/// Eigenvalues of a symmetric matrix, descending, by Jacobi's rotations.
fn eigenvalues(matrix: &[f64], n: usize) -> Vec<f64> {
    let mut a = matrix.to_vec();
    for _ in 0..60 {
        for p in 0..n {
            for q in p + 1..n {
                let angle = 0.5 * (2.0 * a[p * n + q]).atan2(a[q * n + q] - a[p * n + p]);
                let (sin, cos) = angle.sin_cos();
                for at in 0..n {
                    let (x, y) = (a[at * n + p], a[at * n + q]);
                    (a[at * n + p], a[at * n + q]) = (cos * x - sin * y, sin * x + cos * y);
                }
                for at in 0..n {
                    let (x, y) = (a[p * n + at], a[q * n + at]);
                    (a[p * n + at], a[q * n + at]) = (cos * x - sin * y, sin * x + cos * y);
                }
            }
        }
    }
    let mut values: Vec<f64> = (0..n).map(|at| a[at * n + at]).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    values
}

/// trace((target - found) c (target - found)'), the mean squared error in inputs of second moments c.
fn error(target: &[f64], found: &[f64], c: &[f64], columns: usize) -> f64 {
    let off: Vec<f64> = target.iter().zip(found).map(|(a, b)| a - b).collect();
    naive(&off, c, columns).iter().zip(&off).map(|(a, b)| a * b).sum()
}

#[test]
fn products_are_those_of_books() {
    for (rows, inner, columns) in [(1, 1, 1), (3, 5, 2), (300, 7, 11), (129, 64, 33)] {
        let (a, b) = (random(1, rows * inner), random(2, inner * columns));
        let found = product(view(&a, inner), view(&b, columns));
        let expected = naive(&a, &b, inner);
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12));
        let turned = transposed(&a, inner);
        assert_eq!(
            product(view(&turned, rows).transpose(), view(&b, columns)).len(),
            expected.len()
        );
    }
    let (off, mean) = centred(&[1.0, 2.0, 3.0, 6.0], 2);
    assert_eq!((off, mean), (vec![-1.0, -2.0, 1.0, 2.0], vec![2.0, 4.0]));
}

/// At full rank nothing is lost; below, the error is what the left-out singular values say, which come
/// here from Jacobi's rotations of W C W'.
#[test]
fn no_map_of_a_rank_is_nearer() {
    let (columns, neurons) = (10, 7);
    let (x, (rows, w)) = (inputs(3, 200, columns), weights(9, neurons * columns));
    let c = naive_ridged(&x, columns);
    let square = naive(&naive(&w, &c, columns), &transposed(&w, columns), columns);
    let values = eigenvalues(&square, neurons);
    let whitening = Whitening::of(x, columns).unwrap();
    for rank in 1..=columns {
        let found = whitening.low_rank(view(&rows, columns), None, rank).unwrap();
        let map = naive(&found.expand, &found.reduce, rank);
        let expected: f64 = values.iter().skip(rank).sum();
        let lost = error(&w, &map, &c, columns);
        assert!((lost - expected).abs() < 1e-9 * values[0], "rank {rank}: {lost} {expected}");
    }
    assert!(whitening.low_rank(view(&rows, columns), None, columns + 1).is_err());
    assert!(whitening.low_rank(view(&rows, columns), None, 0).is_err());
}

/// To another layer's input: at full rank the ridge regression of the normal equations; below, as near
/// to it as its left-out singular values say.
#[test]
fn ahead_it_is_ridge_regression() {
    let (columns, neurons) = (9, 12);
    let (x, (rows, w)) = (inputs(3, 150, columns), weights(9, neurons * columns));
    let mixing = random(5, columns * columns);
    let mut t = naive(&x, &mixing, columns);
    t.iter_mut().zip(inputs(11, 150, columns)).for_each(|(t, noise)| *t += noise / 2.0);
    // W S C^-1, from C (W S C^-1)' = S' W'
    let c = naive_ridged(&x, columns);
    let of_targets = naive(&w, &naive_moments(&t, &x, columns), columns);
    let regression = transposed(&solve(&c, &transposed(&of_targets, columns), columns), neurons);
    let square =
        naive(&naive(&regression, &c, columns), &transposed(&regression, columns), columns);
    let values = eigenvalues(&square, neurons);
    let whitening = Whitening::of(x, columns).unwrap();
    for rank in [1, 4, 9] {
        let found = whitening.low_rank(view(&rows, columns), Some(&t), rank).unwrap();
        let map = naive(&found.expand, &found.reduce, rank);
        let lost = error(&regression, &map, &c, columns);
        let expected: f64 = values.iter().skip(rank).sum();
        assert!((lost - expected).abs() < 1e-9 * values[0], "rank {rank}: {lost} {expected}");
    }
}

/// Subspace iteration loses next to nothing more than the whole decomposition.
#[test]
fn iterated_is_nearly_as_near() {
    let (columns, neurons, rank) = (120, 300, 24);
    let (x, (singles, w)) = (inputs(3, 500, columns), weights(9, neurons * columns));
    let whitening = Whitening::of(x, columns).unwrap();
    let towards = whitening.towards(None);
    let towards = view(&towards, columns);
    let rows = view(&w, columns);
    let kept = |vectors: &[f64]| -> f64 {
        let image = product(rows, view(&product(towards, view(vectors, rank)), rank));
        image.iter().map(|value| value * value).sum()
    };
    let whole = kept(&strongest(&product(rows, towards), columns, rank).unwrap());
    let (vectors, along) = iterated(view(&singles, columns), towards, rank).unwrap();
    let iterated = kept(&vectors);
    let told: f64 = along.iter().map(|value| value * value).sum();
    assert!((told - iterated).abs() < 1e-4 * whole, "{told} {iterated}");
    assert!(iterated <= whole * (1.0 + 1e-6) && iterated > whole * 0.9999, "{iterated} {whole}");
}

/// The same bits, however many threads there are.
#[test]
fn threads_change_nothing() {
    let (columns, neurons) = (40, 300);
    let fitted = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let whitening = Whitening::of(inputs(3, 400, columns), columns).unwrap();
            let (w, _) = weights(9, neurons * columns);
            let found = whitening.low_rank(view(&w, columns), None, 8).unwrap();
            (found.reduce, found.expand)
        })
    };
    assert_eq!(fitted(1), fitted(5));
}
