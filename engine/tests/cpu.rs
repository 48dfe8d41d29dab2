//! The detector of CPU features, which must do without std, against std's.

use lnp_engine::sys::cpu;
use lnp_kernels::Feature;

#[test]
fn features_are_those_that_std_finds() {
    #[cfg(target_arch = "x86_64")]
    let told = {
        use std::is_x86_feature_detected as has;
        let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
        [
            (Feature::Avx2, has!("avx2") && has!("fma") && has!("f16c")),
            (Feature::Avx512, avx512),
            (Feature::Avx512Bf16, avx512 && has!("avx512bf16")),
            (Feature::Avx512Vnni, avx512 && has!("avx512vnni")),
        ]
    };
    #[cfg(target_arch = "aarch64")]
    let told = {
        use std::arch::is_aarch64_feature_detected as has;
        [
            (Feature::Neon, has!("neon")),
            (Feature::Fp16, has!("fp16")),
            (Feature::Fhm, has!("fhm")),
            (Feature::Dotprod, has!("dotprod")),
            (Feature::I8mm, has!("i8mm")),
        ]
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let told: [(Feature, bool); 0] = [];
    for (feature, there) in told {
        assert_eq!(cpu::detect().has(feature), there, "{feature:?}");
    }
}
