//! Predictors files: small ones of every kind.

use super::{Bytes, Made, Tensor};

/// Weights of a block of numbers of few bits.
const BLOCK: usize = 32;

/// Takes a valid predictors file from the front of the bytes.
pub fn predictors(bytes: &mut Bytes<'_>) -> Made {
    let (layers, neurons) = (bytes.count(3), bytes.count(12));
    let (choice, more) = (bytes.byte(), bytes.byte());
    let numbers =
        ["f32", "f16", "q8_0", "bits:1", "bits:2", "bits:4", "bits:8"][usize::from(choice % 7)];
    let in_blocks = !numbers.starts_with('f');
    let (low_rank, relu, biased) = (more & 1 == 0, more & 2 != 0, more & 4 != 0);
    let (by_neuron, scaled, ahead) = (more & 8 != 0, more & 16 != 0, more & 32 != 0);
    let wide = |count: usize| if in_blocks { count.div_ceil(8) * BLOCK } else { count };
    let (hidden, rank, points) = (wide(bytes.count(16)), wide(bytes.count(9)), bytes.count(3));
    let mut tensors = Vec::new();
    let mut metadata = vec![
        ("ffn_bytes".to_owned(), "1000".to_owned()),
        ("format".to_owned(), "lnp-predictors-v1".to_owned()),
        ("hidden".to_owned(), hidden.to_string()),
        ("layers".to_owned(), layers.to_string()),
        ("model".to_owned(), "m".to_owned()),
        ("neurons".to_owned(), neurons.to_string()),
        ("recall".to_owned(), "0.99".to_owned()),
        ("rows".to_owned(), "7".to_owned()),
        ("source.0.bytes".to_owned(), "9".to_owned()),
        ("source.0.file".to_owned(), "a".to_owned()),
        ("source.0.sha256".to_owned(), "0f".repeat(32)),
        ("traces".to_owned(), "[]".to_owned()),
    ];
    let horizons = if ahead { 2 } else { 1 };
    for (layer, horizon) in (0..layers).flat_map(|layer| (0..horizons).map(move |at| (layer, at))) {
        if horizon > layer {
            continue;
        }
        let mut add = |name: &str, tensor: (&'static str, Vec<usize>, Vec<u8>)| {
            tensors.push((format!("{name}.{layer}.{horizon}"), tensor.0, tensor.1, tensor.2));
        };
        let mut about = format!(r#""numbers":"{numbers}""#);
        if low_rank {
            add("reduce", matrix(numbers, rank, hidden, choice));
            add("expand", matrix(numbers, neurons, rank, choice));
            about += &format!(r#","kind":"low-rank","rank":{rank}"#);
            if relu {
                about += r#","between":"relu""#;
                if biased {
                    add("reduce_bias", halves(vec![rank]));
                }
            }
        } else {
            about += r#","kind":"rows""#;
            add("rows", matrix(numbers, neurons, hidden, choice));
        }
        about += if by_neuron { r#","thresholds":"neuron""# } else { r#","thresholds":"layer""# };
        add("offset", halves(if by_neuron { vec![points, neurons] } else { vec![neurons] }));
        if scaled {
            add("strength_scale", halves(vec![neurons]));
        }
        add("points", operating_points(points));
        metadata.push((format!("predictor.{layer}.{horizon}"), format!("{{{about}}}")));
    }
    tensors.sort_by(|a: &Tensor, b| a.0.cmp(&b.0));
    let metadata: Vec<(&str, String)> =
        metadata.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    Made::new(&metadata, tensors)
}

/// A matrix as the file has it: of blocks the bytes of rows, a scale of a half and codes.
fn matrix(
    numbers: &str,
    rows: usize,
    columns: usize,
    seed: u8,
) -> (&'static str, Vec<usize>, Vec<u8>) {
    let bits = match numbers {
        "f32" => return ("F32", vec![rows, columns], [0, 0, 0, 0x3f].repeat(rows * columns)),
        "f16" => return ("F16", vec![rows, columns], [0, 0x38].repeat(rows * columns)),
        "q8_0" => 8,
        _ => numbers.bytes().last().map_or(0, |digit| usize::from(digit - b'0')),
    };
    let codes = bits * BLOCK / 8;
    let width = columns / BLOCK * (2 + codes);
    let block = [&[0, 0x38][..], &vec![seed; codes]].concat();
    ("U8", vec![rows, width], block.repeat(rows * columns / BLOCK))
}

fn halves(shape: Vec<usize>) -> (&'static str, Vec<usize>, Vec<u8>) {
    let bytes = [0, 0x38].repeat(shape.iter().product());
    ("F16", shape, bytes)
}

/// Qualities of a quarter and more, and what comes of them.
fn operating_points(points: usize) -> (&'static str, Vec<usize>, Vec<u8>) {
    let numbers = (1..=points).flat_map(|at| [at as f32 / 4.0, 0.25, 0.9, 1.5, 0.99]);
    ("F32", vec![points, 5], numbers.flat_map(f32::to_le_bytes).collect())
}
