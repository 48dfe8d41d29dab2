//! What the CPU at hand can do.

use lnp_kernels::CpuFeatures;

/// Detects the features that the kernels have code for.
pub fn detect() -> CpuFeatures {
    let features = CpuFeatures::NONE;
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2")
        && std::is_x86_feature_detected!("fma")
        && std::is_x86_feature_detected!("f16c")
    {
        // SAFETY: the three were detected on this CPU (and with them the operating system's
        // support for AVX); Linux offers no machine whose CPUs differ in them.
        return unsafe { features.with_avx2_fma_f16c() };
    }
    features
}
