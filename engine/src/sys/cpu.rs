//! What the CPU at hand can do.

use lnp_kernels::{CpuFeatures, Feature};

/// Detects the features that the kernels have code for.
pub fn detect() -> CpuFeatures {
    features().into_iter().filter(|(_, found)| *found).fold(
        CpuFeatures::NONE,
        |set, (feature, _)| {
            // SAFETY: all that the feature names was detected on this CPU, and with it the operating
            // system's support for the registers; Linux offers no machine whose CPUs differ in it.
            unsafe { set.with(feature) }
        },
    )
}

/// The features of this architecture, and whether they are there.
#[cfg(target_arch = "x86_64")]
fn features() -> [(Feature, bool); 4] {
    use std::is_x86_feature_detected as has;
    [
        (Feature::Avx2, has!("avx2") && has!("fma") && has!("f16c")),
        (
            Feature::Avx512,
            has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl"),
        ),
        (Feature::Avx512Bf16, has!("avx512bf16")),
        (Feature::Avx512Vnni, has!("avx512vnni")),
    ]
}

#[cfg(target_arch = "aarch64")]
fn features() -> [(Feature, bool); 5] {
    use std::arch::is_aarch64_feature_detected as has;
    [
        (Feature::Neon, has!("neon")),
        (Feature::Fp16, has!("fp16")),
        (Feature::Fhm, has!("fhm")),
        (Feature::Dotprod, has!("dotprod")),
        (Feature::I8mm, has!("i8mm")),
    ]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> [(Feature, bool); 0] {
    []
}
