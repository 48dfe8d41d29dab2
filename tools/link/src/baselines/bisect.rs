//! Recursive bisection: the neurons are cut into two halves that are rarely active together, each
//! half again, and so on down to pairs.
//!
//! A cut is spectral: with co-activation counts as the weights of a graph, the sign of the second
//! eigenvector of its normalised matrix is the classic relaxation of the cheapest balanced cut. The
//! matrix is never made: its product with a vector is two walks over the activity bits.

use crate::coactivation::LayerActivity;
use crate::rows::set_bits;

/// Steps of the power iteration of each cut. The start is near the parent's cut nowhere, and a rough
/// vector cuts nearly as well as an exact one.
const STEPS: usize = 16;
/// Neurons that are not cut any more.
const LEAF: usize = 2;

/// `members` in the order of the recursive cuts.
pub(crate) fn bisect(activity: &LayerActivity, members: &[u32]) -> Vec<u32> {
    let mut order = members.to_vec();
    let mut tokens = vec![0.0; activity.tokens()];
    // Ranges of `order` still to be cut, each cut where it lies.
    let mut open = vec![(0, order.len())];
    while let Some((first, end)) = open.pop() {
        if end - first <= LEAF {
            continue;
        }
        sort_by_cut(activity, &mut order[first..end], &mut tokens);
        let middle = first + (end - first) / 2;
        open.extend([(first, middle), (middle, end)]);
    }
    order
}

/// Sorts a part by its second eigenvector, turned so that it goes on in the direction it had:
/// the half that lay nearer to the part before stays nearer.
fn sort_by_cut(activity: &LayerActivity, part: &mut [u32], tokens: &mut [f64]) {
    let Some(vector) = second_vector(activity, part, tokens) else { return };
    let half = part.len() / 2;
    let side = |places: std::ops::Range<usize>| places.map(|at| vector[at]).sum::<f64>();
    let turn = if side(0..half) <= side(half..part.len()) { 1.0 } else { -1.0 };
    let mut keyed: Vec<(f64, u32)> =
        part.iter().zip(&vector).map(|(id, value)| (turn * value, *id)).collect();
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (place, (_, id)) in part.iter_mut().zip(keyed) {
        *place = id;
    }
}

/// The second eigenvector of D^-1/2 C D^-1/2, scaled to compare neurons; `None` where nothing of the
/// part is ever active.
fn second_vector(activity: &LayerActivity, part: &[u32], tokens: &mut [f64]) -> Option<Vec<f64>> {
    let row = |id: &u32| activity.row(*id as usize);
    // C times ones: how much activity each neuron is part of.
    let ones = vec![1.0; part.len()];
    let mut degree = vec![0.0; part.len()];
    multiply(part.iter().map(row), &ones, tokens, &mut degree);
    let total: f64 = degree.iter().sum();
    if total <= 0.0 {
        return None;
    }
    let root: Vec<f64> = degree.iter().map(|degree| degree.sqrt()).collect();
    let scale = |root: f64| if root > 0.0 { 1.0 / root } else { 0.0 };
    // The start is how the part lay, the parent's vector in all but values.
    let middle = (part.len() - 1) as f64 / 2.0;
    let mut vector: Vec<f64> = (0..part.len()).map(|at| at as f64 - middle).collect();
    let mut scaled = vec![0.0; part.len()];
    for _ in 0..STEPS {
        // The first eigenvector, the roots themselves, is taken out.
        let along: f64 = vector.iter().zip(&root).map(|(v, r)| v * r).sum::<f64>() / total;
        let mut norm = 0.0;
        for (value, root) in vector.iter_mut().zip(&root) {
            *value -= along * root;
            norm += *value * *value;
        }
        if norm <= 0.0 {
            return None;
        }
        let by = 1.0 / norm.sqrt();
        for ((scaled, value), root) in scaled.iter_mut().zip(&vector).zip(&root) {
            *scaled = value * by * scale(*root);
        }
        multiply(part.iter().map(row), &scaled, tokens, &mut vector);
        for (value, root) in vector.iter_mut().zip(&root) {
            *value *= scale(*root);
        }
    }
    Some(vector.iter().zip(&root).map(|(value, root)| value * scale(*root)).collect())
}

/// C x: to each token the sum of its active neurons, to each neuron the sum of its tokens.
fn multiply<'a>(
    rows: impl Iterator<Item = &'a [u64]> + Clone,
    x: &[f64],
    tokens: &mut [f64],
    product: &mut [f64],
) {
    tokens.fill(0.0);
    for (row, x) in rows.clone().zip(x) {
        for token in set_bits(row) {
            tokens[token] += x;
        }
    }
    for (row, product) in rows.zip(product) {
        *product = set_bits(row).map(|token| tokens[token]).sum();
    }
}
