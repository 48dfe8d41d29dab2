//! What multiplies rows: one call for many of them, so that short rows cost no call each.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::native;
use super::{Ahead, CpuFeatures, Prepare, Tier, prepare_values};
use crate::input::{Form, Input, STEP};
use crate::numbers::Numbers;
use crate::portable;

/// `out[i] = row i . x`.
pub(super) type Multiply = unsafe fn(&Input<'_>, &[u8], &mut [f32], Ahead);

/// The code of one tier for one number type of rows. Its functions need the tier's features, and an
/// input of its form.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowsCode {
    pub(super) form: Form,
    pub(super) prepare: Prepare,
    pub(super) multiply: Multiply,
}

/// The primitives for rows of one number type on one tier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowsOps {
    tier: Tier,
    numbers: Numbers,
    code: RowsCode,
}

impl RowsOps {
    /// The best tier that `features` allow.
    pub(crate) fn select(numbers: Numbers, features: CpuFeatures) -> Self {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        for tier in Tier::ALL.into_iter().rev().filter(|tier| features.allows(*tier)) {
            if let Some(code) = native::rows_code(tier, numbers) {
                return Self { tier, numbers, code };
            }
        }
        let _ = features;
        let multiply = portable_multiply(numbers);
        let code = RowsCode { form: Form::Values, prepare: prepare_values, multiply };
        Self { tier: Tier::Portable, numbers, code }
    }

    pub(crate) const fn tier(&self) -> Tier {
        self.tier
    }

    pub(crate) const fn numbers(&self) -> Numbers {
        self.numbers
    }

    pub(crate) const fn form(&self) -> Form {
        self.code.form
    }

    /// Rows that the code takes together; it takes fewer at the end only.
    pub(crate) const fn rows_together(&self) -> usize {
        match self.code.form {
            Form::Q8 => STEP,
            _ => 1,
        }
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

    /// `out[i] = row i . x`; `rows` holds as many rows as `out` has places. NaN where `x` or `rows` is
    /// not of this kind, which [`crate::Rows`] has ruled out.
    pub(crate) fn multiply(&self, x: &Input<'_>, rows: &[u8], out: &mut [f32], ahead: Ahead) {
        let row_bytes = self.numbers.row_bytes(x.values.len());
        let fits = out.len().checked_mul(row_bytes) == Some(rows.len());
        if x.form != self.code.form || !fits {
            out.fill(f32::NAN);
            return;
        }
        // SAFETY: `select` took the code only where the features it needs are there; form and
        // lengths were checked above.
        unsafe { (self.code.multiply)(x, rows, out, ahead) }
    }
}

/// The reference as code of a tier.
fn portable_multiply(numbers: Numbers) -> Multiply {
    macro_rules! of {
        ($numbers:expr) => {
            |x: &Input<'_>, rows: &[u8], out: &mut [f32], _: Ahead| {
                portable::multiply($numbers, x.values, rows, out)
            }
        };
    }
    match numbers {
        Numbers::F32 => of!(Numbers::F32),
        Numbers::F16 => of!(Numbers::F16),
        Numbers::Bf16 => of!(Numbers::Bf16),
        Numbers::Q8_0 => of!(Numbers::Q8_0),
        Numbers::Q4_0 => of!(Numbers::Q4_0),
        Numbers::Bits1 => of!(Numbers::Bits1),
        Numbers::Bits2 => of!(Numbers::Bits2),
        Numbers::Bits4 => of!(Numbers::Bits4),
        Numbers::Bits8 => of!(Numbers::Bits8),
    }
}
