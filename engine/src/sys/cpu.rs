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
    use core::arch::x86_64::{__cpuid, __cpuid_count};

    // Intel's manual (SDM volume 2, CPUID; volume 1, 13.3: XCR0).
    let most = __cpuid(0).eax;
    let base = __cpuid(1).ecx;
    let has = |bits: u32, bit: u32| bits >> bit & 1 != 0;
    let saved = if has(base, 27) { saved_registers() } else { 0 };
    let wide = if most >= 7 { __cpuid_count(7, 0) } else { __cpuid(most) };
    let more = if most >= 7 && wide.eax >= 1 { __cpuid_count(7, 1).eax } else { 0 };
    let (ebx, ecx) = if most >= 7 { (wide.ebx, wide.ecx) } else { (0, 0) };
    // XMM, YMM; then masks and the two parts of ZMM
    let (avx, avx512) = (saved & 0x6 == 0x6, saved & 0xe6 == 0xe6);
    let all = |bits: u32, wanted: &[u32]| wanted.iter().all(|bit| has(bits, *bit));
    let f = avx512 && all(ebx, &[16, 30, 17, 31]); // F, BW, DQ, VL
    [
        // FMA, AVX, F16C; AVX2
        (Feature::Avx2, avx && all(base, &[12, 28, 29]) && has(ebx, 5)),
        (Feature::Avx512, f),
        (Feature::Avx512Bf16, f && has(more, 5)),
        (Feature::Avx512Vnni, f && has(ecx, 11)),
    ]
}

/// Which registers the operating system saves: XCR0.
#[cfg(target_arch = "x86_64")]
fn saved_registers() -> u32 {
    let low: u32;
    // SAFETY: the instruction is there and allowed, since CPUID says OSXSAVE; it writes two registers.
    unsafe {
        core::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nomem, nostack));
    }
    low
}

/// The features of this architecture, and whether they are there.
#[cfg(target_arch = "aarch64")]
fn features() -> [(Feature, bool); 5] {
    // Linux: Documentation/arch/arm64/elf_hwcaps.rst; numbers of arch/arm64/include/uapi/asm/hwcap.h
    // SAFETY: takes and returns plain numbers; reads what the kernel gave the process at its start.
    let first = unsafe { libc::getauxval(libc::AT_HWCAP) };
    // SAFETY: takes and returns plain numbers; reads what the kernel gave the process at its start.
    let second = unsafe { libc::getauxval(libc::AT_HWCAP2) };
    let has = |bits: libc::c_ulong, bit: u32| bits >> bit & 1 != 0;
    let neon = has(first, 1);
    let fp16 = neon && has(first, 9) && has(first, 10); // scalars, vectors
    [
        (Feature::Neon, neon),
        (Feature::Fp16, fp16),
        (Feature::Fhm, fp16 && has(first, 23)),
        (Feature::Dotprod, neon && has(first, 20)),
        (Feature::I8mm, neon && has(second, 13)),
    ]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> [(Feature, bool); 0] {
    []
}
