//! Instruction sets: which there are, which one is taken, and the code for each.
//!
//! The only room of the crate with `unsafe`. What makes it sound is one chain: a [`CpuFeatures`]
//! that names a feature can be made only by an unsafe call whose caller vouches for it;
//! `Ops::select` takes a tier's functions only where the features name all that the tier needs;
//! and `Ops` checks lengths before it calls them.

#[cfg(target_arch = "x86_64")]
mod x86_64;

use crate::kernel::Dtype;
use crate::portable;

/// Which code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Tier {
    /// Plain loops ([`crate::portable`]).
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
}

impl Tier {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
        }
    }
}

/// What the CPU at hand can do beyond its architecture's baseline, as far as the caller lets us use
/// it: to test a lower tier on a better machine, pass fewer features.
///
/// `core` cannot detect features, so the caller does (`lnp_engine::sys::cpu` has a detector).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuFeatures {
    avx2_fma_f16c: bool,
}

impl CpuFeatures {
    /// The baseline: portable code only.
    pub const NONE: Self = Self { avx2_fma_f16c: false };

    /// Says that the CPU has AVX2, FMA and F16C.
    ///
    /// # Safety
    /// Every CPU that code with this value runs on has all three, and the operating system saves
    /// the AVX registers.
    pub const unsafe fn with_avx2_fma_f16c(mut self) -> Self {
        self.avx2_fma_f16c = true;
        self
    }

    /// Whether AVX2, FMA and F16C may be used.
    pub const fn has_avx2_fma_f16c(self) -> bool {
        self.avx2_fma_f16c
    }
}

type Dot = unsafe fn(&[f32], &[u8]) -> f32;
type AddScaled = unsafe fn(f32, &[u8], &mut [f32]);

/// The two primitives for one number type on one tier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ops {
    tier: Tier,
    weight_bytes: usize,
    dot: Dot,
    add_scaled: AddScaled,
}

impl Ops {
    /// The best tier that `features` allow.
    pub(crate) fn select(dtype: Dtype, features: CpuFeatures) -> Self {
        let weight_bytes = dtype.bytes();
        #[cfg(target_arch = "x86_64")]
        if features.has_avx2_fma_f16c() {
            let (dot, add_scaled): (Dot, AddScaled) = match dtype {
                Dtype::F32 => (x86_64::dot_f32, x86_64::add_scaled_f32),
                Dtype::F16 => (x86_64::dot_f16, x86_64::add_scaled_f16),
            };
            return Self { tier: Tier::Avx2, weight_bytes, dot, add_scaled };
        }
        let _ = features;
        let (dot, add_scaled): (Dot, AddScaled) = match dtype {
            Dtype::F32 => (portable::dot_f32, portable::add_scaled_f32),
            Dtype::F16 => (portable::dot_f16, portable::add_scaled_f16),
        };
        Self { tier: Tier::Portable, weight_bytes, dot, add_scaled }
    }

    pub(crate) const fn tier(&self) -> Tier {
        self.tier
    }

    /// `sum of w[i] * x[i]` over the length that both have.
    pub(crate) fn dot(&self, x: &[f32], w: &[u8]) -> f32 {
        let n = self.common(x.len(), w.len());
        let (x, w) = (&x[..n], &w[..n * self.weight_bytes]);
        // SAFETY: `select` took `dot` only where the features it needs are there; `w` holds exactly
        // `x.len()` weights, a multiple of 32, as `common` made sure.
        unsafe { (self.dot)(x, w) }
    }

    /// `y[i] += scale * w[i]` over the length that both have.
    pub(crate) fn add_scaled(&self, scale: f32, w: &[u8], y: &mut [f32]) {
        let n = self.common(y.len(), w.len());
        let (y, w) = (&mut y[..n], &w[..n * self.weight_bytes]);
        // SAFETY: as in `dot`.
        unsafe { (self.add_scaled)(scale, w, y) }
    }

    /// The largest multiple of 32 weights that both slices have.
    fn common(&self, values: usize, bytes: usize) -> usize {
        values.min(bytes / self.weight_bytes) / 32 * 32
    }
}
