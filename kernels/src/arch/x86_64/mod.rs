//! x86-64: registers of 256 bits, of 512 bits, and dot products of bf16 and of bytes.

mod avx2;
mod avx512;
mod bits;
mod rows;

use super::vector::{Bf16, F16, F32, Q4, Q8};
use super::{AddScaled, Code, Dot, Prepare, Tier, prepare_values};
use crate::dtype::Dtype;
use crate::input::{Form, interleave, quantise, split_bf16};
pub(super) use rows::rows_code;

/// The code of a tier for a number type, where it has some of its own.
pub(super) fn code(tier: Tier, dtype: Dtype) -> Option<Code> {
    let values = |dot: Dot, add_scaled: AddScaled| {
        let prepare: Prepare = prepare_values;
        Some(Code { form: Form::Values, prepare, dot, dot_pair: None, add_scaled })
    };
    let q8 = |dot: Dot, add_scaled: AddScaled| {
        let prepare: Prepare = quantise;
        Some(Code { form: Form::Q8, prepare, dot, dot_pair: None, add_scaled })
    };
    match (tier, dtype) {
        (Tier::Avx2, Dtype::F32) => values(avx2::dot::<F32>, avx2::add_scaled::<F32>),
        (Tier::Avx2, Dtype::F16) => values(avx2::dot::<F16>, avx2::add_scaled::<F16>),
        (Tier::Avx2, Dtype::Bf16) => values(avx2::dot::<Bf16>, avx2::add_scaled::<Bf16>),
        (Tier::Avx2, Dtype::Q8_0) => q8(avx2::dot_integer::<Q8>, avx2::add_scaled::<Q8>),
        (Tier::Avx2, Dtype::Q4_0) => q8(avx2::dot_integer::<Q4>, avx2::add_scaled::<Q4>),
        (Tier::Avx512, Dtype::F32) => values(avx512::dot::<F32>, avx512::add_scaled::<F32>),
        (Tier::Avx512, Dtype::F16) => values(avx512::dot::<F16>, avx512::add_scaled::<F16>),
        (Tier::Avx512, Dtype::Bf16) => values(avx512::dot::<Bf16>, avx512::add_scaled::<Bf16>),
        // Without dot products of bytes, 512 bits help only the sums.
        (Tier::Avx512, Dtype::Q8_0) => q8(avx2::dot_integer::<Q8>, avx512::add_scaled::<Q8>),
        (Tier::Avx512, Dtype::Q4_0) => q8(avx2::dot_integer::<Q4>, avx512::add_scaled::<Q4>),
        (Tier::Avx512Bf16, Dtype::Bf16) => Some(Code {
            form: Form::Bf16Twice,
            prepare: split_bf16,
            dot: avx512::dot_bf16,
            dot_pair: None,
            add_scaled: avx512::add_scaled::<Bf16>,
        }),
        (Tier::Avx512Vnni, Dtype::Q8_0) => {
            q8(avx512::dot_vnni::<avx512::Q8Vnni>, avx512::add_scaled::<Q8>)
        }
        (Tier::Avx512Vnni, Dtype::Q4_0) => Some(Code {
            form: Form::Q8Interleaved,
            prepare: prepare_interleaved,
            dot: avx512::dot_vnni::<avx512::Q4Vnni>,
            dot_pair: None,
            add_scaled: avx512::add_scaled::<Q4>,
        }),
        _ => None,
    }
}

/// [`Form::Q8Interleaved`].
fn prepare_interleaved(values: &[f32], out: &mut [u8]) {
    quantise(values, out);
    interleave(out);
}
