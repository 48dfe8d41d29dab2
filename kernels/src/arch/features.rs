//! What the CPU at hand can do, and which code that allows.

/// Extensions of an instruction set that there is code for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum Feature {
    /// x86-64: AVX2, FMA and F16C.
    Avx2,
    /// x86-64: AVX-512 F, BW, DQ and VL.
    Avx512,
    /// x86-64: AVX512_BF16.
    Avx512Bf16,
    /// x86-64: AVX512_VNNI.
    Avx512Vnni,
    /// aarch64: Advanced SIMD.
    Neon,
    /// aarch64: half-precision arithmetic (FEAT_FP16).
    Fp16,
    /// aarch64: half-precision products added in single (FEAT_FHM).
    Fhm,
    /// aarch64: 8-bit dot products (FEAT_DotProd).
    Dotprod,
    /// aarch64: 8-bit matrix products (FEAT_I8MM).
    I8mm,
}

/// A set of [`Feature`]s: those that the CPU has, as far as the caller lets us use them.
///
/// `core` cannot detect features, so the caller does (`lnp_engine::sys::cpu` has a detector).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuFeatures {
    bits: u16,
}

impl CpuFeatures {
    /// The baseline: portable code only.
    pub const NONE: Self = Self { bits: 0 };

    /// With one more.
    ///
    /// # Safety
    /// Every CPU that code with this value runs on has all that the feature names, and the
    /// operating system saves the registers that belong to it.
    pub const unsafe fn with(self, feature: Feature) -> Self {
        Self { bits: self.bits | 1 << feature as u8 }
    }

    /// Whether a feature may be used.
    pub const fn has(self, feature: Feature) -> bool {
        self.bits & 1 << feature as u8 != 0
    }

    /// Only those that tiers up to this one need: so that a machine can test its lower tiers too.
    pub fn up_to(self, tier: Tier) -> Self {
        let tiers = Tier::ALL.iter().filter(|other| **other <= tier);
        let needed =
            tiers.flat_map(|tier| tier.needs()).fold(0, |bits, feature| bits | 1 << *feature as u8);
        Self { bits: self.bits & needed }
    }

    /// Whether these are all that a tier needs.
    pub fn allows(self, tier: Tier) -> bool {
        tier.needs().iter().all(|feature| self.has(*feature))
    }
}

/// Which code runs. The later in the list, the better, where there is code for a number type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Tier {
    /// Plain loops ([`crate::portable`]): every type.
    Portable,
    /// x86-64, 256 bits: every type.
    Avx2,
    /// x86-64, 512 bits: every type.
    Avx512,
    /// The same with dot products of bf16: bf16.
    Avx512Bf16,
    /// The same with dot products of bytes: q8_0, q4_0.
    Avx512Vnni,
    /// aarch64, 128 bits: every type.
    Neon,
    /// The same, with numbers made f32 by way of f16: q8_0, q4_0.
    NeonFp16,
    /// The same with products of f16 added in f32: f16.
    NeonFhm,
    /// The same with dot products of bytes: q8_0, q4_0.
    NeonDotprod,
    /// The same with matrix products of bytes, for two tokens and a gated FFN: q8_0, q4_0.
    NeonI8mm,
}

impl Tier {
    /// All tiers, each better than those before it.
    pub const ALL: [Self; 10] = [
        Self::Portable,
        Self::Avx2,
        Self::Avx512,
        Self::Avx512Bf16,
        Self::Avx512Vnni,
        Self::Neon,
        Self::NeonFp16,
        Self::NeonFhm,
        Self::NeonDotprod,
        Self::NeonI8mm,
    ];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512_bf16",
            Self::Avx512Vnni => "avx512_vnni",
            Self::Neon => "neon",
            Self::NeonFp16 => "neon_fp16",
            Self::NeonFhm => "neon_fhm",
            Self::NeonDotprod => "neon_dotprod",
            Self::NeonI8mm => "neon_i8mm",
        }
    }

    /// The tier of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.name() == name)
    }

    /// The features that its code needs.
    pub const fn needs(self) -> &'static [Feature] {
        use Feature::{Avx2, Avx512, Avx512Bf16, Avx512Vnni, Dotprod, Fhm, Fp16, I8mm, Neon};
        match self {
            Self::Portable => &[],
            Self::Avx2 => &[Avx2],
            Self::Avx512 => &[Avx2, Avx512],
            Self::Avx512Bf16 => &[Avx2, Avx512, Avx512Bf16],
            Self::Avx512Vnni => &[Avx2, Avx512, Avx512Vnni],
            Self::Neon => &[Neon],
            Self::NeonFp16 => &[Neon, Fp16],
            Self::NeonFhm => &[Neon, Fp16, Fhm],
            Self::NeonDotprod => &[Neon, Fp16, Dotprod],
            Self::NeonI8mm => &[Neon, Fp16, Dotprod, I8mm],
        }
    }
}
