//! Blocks of q8_0, q4_0 and bf16 as the `gguf` Python package makes them and reads them back
//! (`vectors/make_gguf.py`): every tier takes the same weights from the same bytes.

mod support;

use lnp_kernels::{Dtype, Kernel};
use serde_json::Value;
use support::{from_hex, kernels, shape};

/// The weights that a kernel sees in a block: it adds them to zeros.
fn weights(kernel: &Kernel, block: &[u8]) -> Vec<f32> {
    let mut bundle = vec![0; block.len()];
    bundle.extend(block);
    let mut y = vec![0.0; 32];
    kernel.accumulate(1.0, &bundle, &[], &mut y).unwrap();
    y
}

#[test]
fn every_tier_reads_blocks_as_gguf_does() {
    let vectors: Value = serde_json::from_str(include_str!("vectors/gguf.json")).unwrap();
    let blocks = vectors["blocks"].as_array().unwrap();
    assert!(blocks.len() > 20);
    for dtype in [Dtype::Q8_0, Dtype::Q4_0, Dtype::Bf16] {
        for block in blocks {
            let stored = &block[dtype.name()];
            let expected: Vec<f32> = stored["values_bits"]
                .as_array()
                .unwrap()
                .iter()
                .map(|bits| f32::from_bits(bits.as_u64().unwrap() as u32))
                .collect();
            let bytes = from_hex(stored["bytes"].as_str().unwrap());
            assert_eq!(bytes.len(), dtype.block_bytes());
            for kernel in kernels(shape(dtype, 32, 2)) {
                let found = weights(&kernel, &bytes);
                assert_eq!(found, expected, "{} {}", kernel.tier().name(), block["name"]);
            }
        }
    }
}
