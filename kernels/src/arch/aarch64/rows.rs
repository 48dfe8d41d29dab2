//! Matrices of rows on aarch64.

use core::arch::aarch64::float32x4_t;

use super::bits::Doubled;
use super::bytes::{Multiply as Widening, Products};
use super::fhm;
use crate::arch::quad::{self, Apart};
use crate::arch::rows::{Multiply, RowsCode};
use crate::arch::vector::{self, Bf16, Bits, F16, F32, Load, Q4, Q8};
use crate::arch::{Ahead, Prepare, Tier, prepare_values};
use crate::input::{Form, Input, quantise};
use crate::numbers::Numbers;

/// The code of a tier for a number type, where it has some of its own.
pub(in crate::arch) fn rows_code(tier: Tier, numbers: Numbers) -> Option<RowsCode> {
    let values = |multiply: Multiply| {
        let prepare: Prepare = prepare_values;
        Some(RowsCode { form: Form::Values, prepare, multiply })
    };
    let q8 = |multiply: Multiply| {
        let prepare: Prepare = quantise;
        Some(RowsCode { form: Form::Q8, prepare, multiply })
    };
    match (tier, numbers) {
        (Tier::Neon, Numbers::F32) => values(neon::<F32>),
        (Tier::Neon, Numbers::F16) => values(neon::<F16>),
        (Tier::Neon, Numbers::Bf16) => values(neon::<Bf16>),
        (Tier::Neon, Numbers::Q8_0) => q8(neon_integer::<Widening<Q8>>),
        (Tier::Neon, Numbers::Q4_0) => q8(neon_integer::<Widening<Q4>>),
        (Tier::Neon, Numbers::Bits1) => q8(neon_integer::<Widening<Bits<1>>>),
        (Tier::Neon, Numbers::Bits2) => q8(neon_integer::<Widening<Bits<2>>>),
        (Tier::Neon, Numbers::Bits4) => q8(neon_integer::<Widening<Bits<4>>>),
        (Tier::Neon, Numbers::Bits8) => q8(neon_integer::<Doubled<Widening<Bits<8>>>>),
        (Tier::NeonFhm, Numbers::F16) => {
            Some(RowsCode { form: Form::F16Scaled, prepare: fhm::prepare, multiply: neon_fhm })
        }
        (Tier::NeonDotprod, Numbers::Q8_0) => q8(neon_dotprod::<Products<Q8>>),
        (Tier::NeonDotprod, Numbers::Q4_0) => q8(neon_dotprod::<Products<Q4>>),
        (Tier::NeonDotprod, Numbers::Bits1) => q8(neon_dotprod::<Products<Bits<1>>>),
        (Tier::NeonDotprod, Numbers::Bits2) => q8(neon_dotprod::<Products<Bits<2>>>),
        (Tier::NeonDotprod, Numbers::Bits4) => q8(neon_dotprod::<Products<Bits<4>>>),
        (Tier::NeonDotprod, Numbers::Bits8) => q8(neon_dotprod::<Doubled<Products<Bits<8>>>>),
        _ => None,
    }
}

/// [`vector::rows`] of this instruction set.
///
/// # Safety
/// Advanced SIMD.
#[target_feature(enable = "neon")]
unsafe fn neon<W: Load<float32x4_t>>(x: &Input<'_>, rows: &[u8], out: &mut [f32], ahead: Ahead) {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { vector::rows::<float32x4_t, W>(x.values, rows, out, ahead) }
}

/// [`quad::rows`] by widening multiplication.
///
/// # Safety
/// Advanced SIMD.
#[target_feature(enable = "neon")]
unsafe fn neon_integer<I: Apart>(x: &Input<'_>, rows: &[u8], out: &mut [f32], ahead: Ahead) {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { quad::rows::<I>(x, rows, out, ahead) }
}

/// [`quad::rows`] by dot products of bytes.
///
/// # Safety
/// Advanced SIMD and FEAT_DotProd.
#[target_feature(enable = "neon,dotprod")]
unsafe fn neon_dotprod<I: Apart>(x: &Input<'_>, rows: &[u8], out: &mut [f32], ahead: Ahead) {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { quad::rows::<I>(x, rows, out, ahead) }
}

/// [`fhm::dot`] for each row.
///
/// # Safety
/// Advanced SIMD and FEAT_FHM.
#[target_feature(enable = "neon,fp16,fhm")]
unsafe fn neon_fhm(x: &Input<'_>, rows: &[u8], out: &mut [f32], ahead: Ahead) {
    let row_bytes = Numbers::F16.row_bytes(x.values.len());
    for (row, out) in rows.chunks_exact(row_bytes.max(1)).zip(out) {
        // SAFETY: the features that it asks for are those that this function is compiled for and asks
        // of its own caller; any lengths will do.
        *out = unsafe { fhm::dot(x, row, ahead) };
    }
}
