//! aarch64: registers of 128 bits; half-precision products, dot products and matrix products of
//! bytes where the CPU has them.
//!
//! Half-precision arithmetic alone (FEAT_FP16, without FEAT_FHM) is of no use to an f16 dot product
//! that adds up in f32: conversion and multiplication are as many instructions without it. What it
//! does for quantised types is to turn bytes into f16 at once, a step on the way to f32.

mod bits;
mod bytes;
mod fhm;
mod matrix;
mod neon;
mod rows;

use super::vector::{Bf16, F16, F32, Q4, Q8};
use super::{AddScaled, Code, Dot, DotPair, Prepare, Tier, prepare_values};
use crate::dtype::Dtype;
use crate::input::{Form, quantise};
use neon::ByHalf;
pub(super) use rows::rows_code;

/// The code of a tier for a number type, where it has some of its own.
pub(super) fn code(tier: Tier, dtype: Dtype) -> Option<Code> {
    let values = |dot: Dot, add_scaled: AddScaled| {
        let prepare: Prepare = prepare_values;
        Some(Code { form: Form::Values, prepare, dot, dot_pair: None, add_scaled })
    };
    let q8 = |dot: Dot, dot_pair: Option<DotPair>, add_scaled: AddScaled| {
        let prepare: Prepare = quantise;
        Some(Code { form: Form::Q8, prepare, dot, dot_pair, add_scaled })
    };
    let (q8_products, q4_products): (Dot, Dot) =
        (bytes::dot_products::<Q8>, bytes::dot_products::<Q4>);
    let (q8_sums, q4_sums): (AddScaled, AddScaled) =
        (neon::add_scaled_fp16::<ByHalf<Q8>>, neon::add_scaled_fp16::<ByHalf<Q4>>);
    match (tier, dtype) {
        (Tier::Neon, Dtype::F32) => values(neon::dot::<F32>, neon::add_scaled::<F32>),
        (Tier::Neon, Dtype::F16) => values(neon::dot::<F16>, neon::add_scaled::<F16>),
        (Tier::Neon, Dtype::Bf16) => values(neon::dot::<Bf16>, neon::add_scaled::<Bf16>),
        (Tier::Neon, Dtype::Q8_0) => q8(bytes::dot::<Q8>, None, neon::add_scaled::<Q8>),
        (Tier::Neon, Dtype::Q4_0) => q8(bytes::dot::<Q4>, None, neon::add_scaled::<Q4>),
        (Tier::NeonFp16, Dtype::Q8_0) => q8(bytes::dot::<Q8>, None, q8_sums),
        (Tier::NeonFp16, Dtype::Q4_0) => q8(bytes::dot::<Q4>, None, q4_sums),
        (Tier::NeonFhm, Dtype::F16) => Some(Code {
            form: Form::F16Scaled,
            prepare: fhm::prepare,
            dot: fhm::dot,
            dot_pair: None,
            add_scaled: neon::add_scaled::<F16>,
        }),
        (Tier::NeonDotprod, Dtype::Q8_0) => q8(q8_products, None, q8_sums),
        (Tier::NeonDotprod, Dtype::Q4_0) => q8(q4_products, None, q4_sums),
        (Tier::NeonI8mm, Dtype::Q8_0) => q8(q8_products, Some(matrix::dot_pair::<Q8>), q8_sums),
        (Tier::NeonI8mm, Dtype::Q4_0) => q8(q4_products, Some(matrix::dot_pair::<Q4>), q4_sums),
        _ => None,
    }
}
