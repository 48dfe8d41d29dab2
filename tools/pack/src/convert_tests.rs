//! Every type against what GGUF's own package wrote (`kernels/tests/vectors`), and its error against
//! what the size of its steps allows.

use lnp_format::Dtype;
use lnp_model::checkpoint::StoredType;
use proptest::prelude::*;
use serde::Deserialize;

use super::convert::{convert, decode, decode_stored};

#[derive(Deserialize)]
struct Vectors {
    gguf_version: String,
    blocks: Vec<Block>,
}

#[derive(Deserialize)]
struct Block {
    name: String,
    x_bits: Vec<u32>,
    q8_0: Encoded,
    q4_0: Encoded,
    bf16: Encoded,
}

#[derive(Deserialize)]
struct Encoded {
    bytes: String,
    values_bits: Vec<u32>,
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().as_chunks::<2>().0.iter();
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// What `convert` makes of weights in f32.
fn encoded(values: &[f32], dtype: Dtype) -> anyhow::Result<Vec<u8>> {
    let row: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut out = vec![0xa5; dtype.part_bytes(values.len() as u32) as usize];
    convert(StoredType::F32, &row, dtype, &mut out)?;
    Ok(out)
}

#[test]
fn the_same_bytes_and_values_as_gguf() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../kernels/tests/vectors/gguf.json");
    let vectors: Vectors = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(vectors.blocks.len() >= 24 && !vectors.gguf_version.is_empty());
    for dtype in [Dtype::Q8_0, Dtype::Q4_0, Dtype::Bf16] {
        // each block alone, and all of them as one part
        let (mut all, mut all_expected) = (Vec::new(), Vec::new());
        for block in &vectors.blocks {
            let expected = match dtype {
                Dtype::Q8_0 => &block.q8_0,
                Dtype::Q4_0 => &block.q4_0,
                _ => &block.bf16,
            };
            let x: Vec<f32> = block.x_bits.iter().map(|bits| f32::from_bits(*bits)).collect();
            let bytes = from_hex(&expected.bytes);
            assert_eq!(encoded(&x, dtype).unwrap(), bytes, "{dtype}, {}", block.name);
            let values = decode(dtype, &bytes).unwrap();
            assert_eq!(bits(&values), expected.values_bits, "{dtype}, {}", block.name);
            all.extend(x);
            all_expected.extend(bytes);
        }
        assert_eq!(encoded(&all, dtype).unwrap(), all_expected, "{dtype}");
    }
}

#[test]
fn f16_rounds_to_even_and_refuses_what_becomes_infinite() {
    // a tie on either side of an even last place, the largest weight, the least and half of it
    let x = [1.0 + 2f32.powi(-11), 1.0 + 3.0 * 2f32.powi(-11), 65519.0, 2f32.powi(-24)];
    let rounded = [1.0, 1.0 + 2f32.powi(-9), 65504.0, 2f32.powi(-24)];
    let out = encoded(&x, Dtype::F16).unwrap();
    assert_eq!(decode(Dtype::F16, &out).unwrap(), rounded);
    assert_eq!(decode_stored(StoredType::F16, &out).unwrap(), rounded);
    assert_eq!(encoded(&[2f32.powi(-25)], Dtype::F16).unwrap(), [0, 0]);
}

/// What a type cannot hold is refused: with the weight, and what to use instead.
#[test]
fn weights_beyond_a_type_are_refused() {
    let block = |most: f32| {
        let mut block = [0.5; 64];
        block[40] = most;
        block
    };
    for (dtype, fits, too_large, instead) in [
        (Dtype::F16, 65519.0, 65520.0, "use --dtype bf16 or f32"),
        (Dtype::Bf16, f32::from_bits(0x7f7f_7fff), f32::MAX, "use --dtype f32"),
        (Dtype::Q8_0, 65519.0 * 127.0, 65520.0 * 127.0, "use --dtype bf16 or f32"),
        (Dtype::Q4_0, 65519.0 * 8.0, 65520.0 * 8.0, "use --dtype bf16 or f32"),
    ] {
        for sign in [1.0, -1.0] {
            encoded(&block(sign * fits), dtype).unwrap();
            let told = encoded(&block(sign * too_large), dtype).unwrap_err().to_string();
            assert!(told.contains(&format!("weight {} ", sign * too_large)), "{told}");
            assert!(told.ends_with(instead), "{told}");
        }
    }
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Q8_0, Dtype::Q4_0] {
        for value in [f32::NAN, f32::INFINITY] {
            let told = encoded(&block(value), dtype).unwrap_err().to_string();
            assert!(told.contains("damaged"), "{told}");
        }
        // a part that is too long or too short for the weights
        let mut out = vec![0; dtype.part_bytes(32) as usize + 1];
        convert(StoredType::F32, &[0; 32 * 4], dtype, &mut out).unwrap_err();
    }
    encoded(&[0.0; 32], Dtype::Placeholder).unwrap_err();
    decode(Dtype::Placeholder, &[0; 32]).unwrap_err();
    decode_stored(StoredType::Other("I32"), &[0; 32]).unwrap_err();
}

/// Where the inverse of the scale overflows, GGUF leaves the bytes to the C compiler's way with
/// infinities; ours are zeros.
#[test]
fn weights_too_small_for_an_inverse_are_zeros() {
    let x = [1e-44_f32; 32];
    assert_eq!(encoded(&x, Dtype::Q8_0).unwrap(), [0; 34]);
    let mut expected = [0x88; 18];
    expected[..2].copy_from_slice(&[0, 0x80]);
    assert_eq!(encoded(&x, Dtype::Q4_0).unwrap(), expected);
}

/// Blocks whose weights differ in size by a factor of up to 2^16, of any size that the types take.
fn blocks() -> impl Strategy<Value = Vec<f32>> {
    let weight = (-1.0f32..1.0, 0..16_i32).prop_map(|(value, small)| value * 2f32.powi(-small));
    let size = -20..17_i32;
    (prop::collection::vec(weight, 32), size)
        .prop_map(|(block, size)| block.iter().map(|value| value * 2f32.powi(size)).collect())
}

/// What rounding the scale `d` to f16 can add where it counts `steps` times, and a little for the
/// roundings to f32 on the way.
fn slack(d: f64, steps: f64) -> f64 {
    steps * (d * 2f64.powi(-11)).max(2f64.powi(-25)) + 1e-4 * d
}

proptest! {
    #[test]
    fn q8_0_is_within_half_a_step(x in blocks()) {
        let d = x.iter().fold(0.0, |most, value| f64::from(value.abs()).max(most)) / 127.0;
        let found = decode(Dtype::Q8_0, &encoded(&x, Dtype::Q8_0).unwrap()).unwrap();
        for (x, found) in x.iter().zip(found) {
            let error = (f64::from(*x) - f64::from(found)).abs();
            prop_assert!(error <= d / 2.0 + slack(d, 127.0), "{x} became {found}, d = {d}");
        }
    }

    /// Half a step, or up to a whole one at the end that has seven steps only.
    #[test]
    fn q4_0_is_within_half_a_step_and_a_whole_one_at_one_end(x in blocks()) {
        let most = x.iter().fold(0.0f32, |most, v| if v.abs() > most.abs() { *v } else { most });
        let d = f64::from(most.abs()) / 8.0;
        let found = decode(Dtype::Q4_0, &encoded(&x, Dtype::Q4_0).unwrap()).unwrap();
        for (x, found) in x.iter().zip(found) {
            let against = -f64::from(*x) * f64::from(most.signum());
            let allowed = (d / 2.0).max(against - 7.0 * d);
            let error = (f64::from(*x) - f64::from(found)).abs();
            prop_assert!(error <= allowed + slack(d, 8.0), "{x} became {found}, d = {d}");
        }
    }
}
