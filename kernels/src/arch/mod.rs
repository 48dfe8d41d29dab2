//! Instruction sets: which there are, which one is taken, and the code for each.
//!
//! The only room of the crate with `unsafe`. What makes it sound is one chain: a [`CpuFeatures`]
//! that names a feature can be made only by an unsafe call whose caller vouches for it;
//! `Ops::select` and `RowsOps::select` take a tier's functions only where the features name all that the
//! tier needs; and `Ops` and `RowsOps` check lengths before they call them.
//!
//! Reading order: [`features`] (what there is), this file and `rows` (which is taken), `vector`,
//! `integer` and `quad` (the algorithms), then the folder of an instruction set.

#[cfg(target_arch = "aarch64")]
mod aarch64;
pub mod features;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod integer;
mod prefetch;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod quad;
mod rows;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as native;
pub use features::{CpuFeatures, Feature, Tier};
#[cfg(target_arch = "x86_64")]
use x86_64 as native;

use crate::dtype::Dtype;
use crate::input::{Form, Input};
use crate::portable;
pub(crate) use prefetch::Ahead;
pub(crate) use rows::RowsOps;

/// `sum of w[i] * x[i]` over a part.
type Dot = unsafe fn(&Input<'_>, &[u8], Ahead) -> f32;
/// `y[i] += scale * w[i]` over a part.
type AddScaled = unsafe fn(f32, &[u8], &mut [f32], Ahead);
/// The dot products of two parts (gate, up) with two inputs: `[gate, up][first, second]`.
type DotPair = unsafe fn([&Input<'_>; 2], [&[u8]; 2], Ahead) -> [[f32; 2]; 2];
/// Fills the prepared form of an input.
type Prepare = unsafe fn(&[f32], &mut [u8]);

/// The code of one tier for one number type. Its functions need the tier's features, and an input
/// of its form.
#[derive(Clone, Copy, Debug)]
struct Code {
    form: Form,
    prepare: Prepare,
    dot: Dot,
    dot_pair: Option<DotPair>,
    add_scaled: AddScaled,
}

/// The primitives for one number type on one tier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ops {
    tier: Tier,
    dtype: Dtype,
    code: Code,
}

impl Ops {
    /// The best tier that `features` allow.
    pub(crate) fn select(dtype: Dtype, features: CpuFeatures) -> Self {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        for tier in Tier::ALL.into_iter().rev().filter(|tier| features.allows(*tier)) {
            if let Some(code) = native::code(tier, dtype) {
                return Self { tier, dtype, code };
            }
        }
        let _ = features;
        Self { tier: Tier::Portable, dtype, code: portable_code(dtype) }
    }

    pub(crate) const fn tier(&self) -> Tier {
        self.tier
    }

    pub(crate) const fn form(&self) -> Form {
        self.code.form
    }

    /// Prepares `values`, a multiple of 32, in the first bytes of `memory`; `None` where it has too
    /// few.
    pub(crate) fn prepare<'a>(&self, values: &'a [f32], memory: &'a mut [u8]) -> Option<Input<'a>> {
        let form = self.code.form;
        let prepared = memory.get_mut(..form.bytes(values.len()))?;
        // SAFETY: `select` took the code only where the features it needs are there; the length is
        // that of the form.
        unsafe { (self.code.prepare)(values, prepared) };
        Some(Input { values, form, prepared, cutoff: 0.0 })
    }

    /// `sum of w[i] * x[i]`; `w` has the bytes of a part. NaN where `x` or `w` is not of this kind,
    /// which the kernel has ruled out.
    pub(crate) fn dot(&self, x: &Input<'_>, w: &[u8], ahead: Ahead) -> f32 {
        if !self.fits(x, w) {
            return f32::NAN;
        }
        // SAFETY: `select` took the code only where the features it needs are there; form and
        // lengths were checked above.
        unsafe { (self.code.dot)(x, w, ahead) }
    }

    /// The dot products of two parts with two inputs, `[part][input]`, with the same bits as four
    /// calls of [`Ops::dot`]; `None` where this tier does them one by one.
    pub(crate) fn dot_pair(
        &self,
        x: [&Input<'_>; 2],
        w: [&[u8]; 2],
        ahead: Ahead,
    ) -> Option<[[f32; 2]; 2]> {
        let dot_pair = self.code.dot_pair?;
        if !self.fits(x[0], w[0])
            || !self.fits(x[1], w[1])
            || x[0].values.len() != x[1].values.len()
        {
            return None;
        }
        // SAFETY: `select` took the code only where the features it needs are there; forms and lengths
        // were checked above, so that all four have the same number of blocks.
        Some(unsafe { dot_pair(x, w, ahead) })
    }

    /// `y[i] += scale * w[i]`; `w` has the bytes of a part. Nothing where the lengths do not fit,
    /// which the kernel has ruled out.
    pub(crate) fn add_scaled(&self, scale: f32, w: &[u8], y: &mut [f32], ahead: Ahead) {
        if w.len() == self.dtype.part_bytes(y.len()) {
            // SAFETY: `select` took the code only where the features it needs are there; the
            // lengths were checked above.
            unsafe { (self.code.add_scaled)(scale, w, y, ahead) }
        }
    }

    fn fits(&self, x: &Input<'_>, w: &[u8]) -> bool {
        x.form == self.code.form && w.len() == self.dtype.part_bytes(x.values.len())
    }
}

/// The reference as code of a tier.
fn portable_code(dtype: Dtype) -> Code {
    macro_rules! of {
        ($dtype:expr) => {
            (
                |x: &Input<'_>, w: &[u8], _: Ahead| portable::dot($dtype, x.values, w),
                |scale: f32, w: &[u8], y: &mut [f32], _: Ahead| {
                    portable::add_scaled($dtype, scale, w, y)
                },
            )
        };
    }
    let (dot, add_scaled): (Dot, AddScaled) = match dtype {
        Dtype::F32 => of!(Dtype::F32),
        Dtype::F16 => of!(Dtype::F16),
        Dtype::Bf16 => of!(Dtype::Bf16),
        Dtype::Q8_0 => of!(Dtype::Q8_0),
        Dtype::Q4_0 => of!(Dtype::Q4_0),
    };
    Code { form: Form::Values, prepare: prepare_values, dot, dot_pair: None, add_scaled }
}

/// [`Form::Values`]: there is nothing to prepare.
fn prepare_values(_: &[f32], _: &mut [u8]) {}
