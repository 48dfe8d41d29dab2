//! Matrices of rows on x86-64.

use core::arch::x86_64::{__m256, __m512};

use super::avx512::Q8Vnni;
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
        (Tier::Avx2, Numbers::F32) => values(avx2::<F32>),
        (Tier::Avx2, Numbers::F16) => values(avx2::<F16>),
        (Tier::Avx2, Numbers::Bf16) => values(avx2::<Bf16>),
        (Tier::Avx2, Numbers::Q8_0) => q8(avx2_integer::<Q8>),
        (Tier::Avx2, Numbers::Q4_0) => q8(avx2_integer::<Q4>),
        (Tier::Avx2, Numbers::Bits1) => q8(avx2_integer::<Bits<1>>),
        (Tier::Avx2, Numbers::Bits2) => q8(avx2_integer::<Bits<2>>),
        (Tier::Avx2, Numbers::Bits4) => q8(avx2_integer::<Bits<4>>),
        (Tier::Avx2, Numbers::Bits8) => q8(avx2_integer::<Bits<8>>),
        (Tier::Avx512, Numbers::F32) => values(avx512::<F32>),
        (Tier::Avx512, Numbers::F16) => values(avx512::<F16>),
        (Tier::Avx512, Numbers::Bf16) => values(avx512::<Bf16>),
        (Tier::Avx512Vnni, Numbers::Q8_0) => q8(avx512_vnni::<Q8Vnni>),
        _ => None,
    }
}

/// [`vector::rows`] of 256 bits.
///
/// # Safety
/// AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<W: Load<__m256>>(x: &Input<'_>, rows: &[u8], out: &mut [f32], ahead: Ahead) {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { vector::rows::<__m256, W>(x.values, rows, out, ahead) }
}

/// [`quad::rows`] of 256 bits.
///
/// # Safety
/// AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2_integer<I: Apart>(x: &Input<'_>, rows: &[u8], out: &mut [f32], ahead: Ahead) {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { quad::rows::<I>(x, rows, out, ahead) }
}

/// [`vector::rows`] of 512 bits.
///
/// # Safety
/// AVX2, FMA, F16C; AVX-512 F, BW, DQ and VL.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn avx512<W: Load<__m512>>(x: &Input<'_>, rows: &[u8], out: &mut [f32], ahead: Ahead) {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { vector::rows::<__m512, W>(x.values, rows, out, ahead) }
}

/// [`quad::rows`] with dot products of bytes.
///
/// # Safety
/// As [`avx512`], and AVX512_VNNI.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn avx512_vnni<I: Apart>(x: &Input<'_>, rows: &[u8], out: &mut [f32], ahead: Ahead) {
    // SAFETY: the features that it asks for are those that this function is compiled for and asks
    // of its own caller; any lengths will do.
    unsafe { quad::rows::<I>(x, rows, out, ahead) }
}
