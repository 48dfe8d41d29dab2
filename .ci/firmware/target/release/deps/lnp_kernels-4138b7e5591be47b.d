/work/main/.ci/firmware/target/release/deps/lnp_kernels-4138b7e5591be47b.d: /work/main/kernels/src/lib.rs /work/main/kernels/src/activation.rs /work/main/kernels/src/arch/mod.rs /work/main/kernels/src/arch/features.rs /work/main/kernels/src/arch/integer.rs /work/main/kernels/src/arch/prefetch.rs /work/main/kernels/src/arch/vector.rs /work/main/kernels/src/arch/x86_64/mod.rs /work/main/kernels/src/arch/x86_64/avx2.rs /work/main/kernels/src/arch/x86_64/avx512.rs /work/main/kernels/src/dtype.rs /work/main/kernels/src/error.rs /work/main/kernels/src/input.rs /work/main/kernels/src/kernel.rs /work/main/kernels/src/portable.rs

/work/main/.ci/firmware/target/release/deps/liblnp_kernels-4138b7e5591be47b.rlib: /work/main/kernels/src/lib.rs /work/main/kernels/src/activation.rs /work/main/kernels/src/arch/mod.rs /work/main/kernels/src/arch/features.rs /work/main/kernels/src/arch/integer.rs /work/main/kernels/src/arch/prefetch.rs /work/main/kernels/src/arch/vector.rs /work/main/kernels/src/arch/x86_64/mod.rs /work/main/kernels/src/arch/x86_64/avx2.rs /work/main/kernels/src/arch/x86_64/avx512.rs /work/main/kernels/src/dtype.rs /work/main/kernels/src/error.rs /work/main/kernels/src/input.rs /work/main/kernels/src/kernel.rs /work/main/kernels/src/portable.rs

/work/main/.ci/firmware/target/release/deps/liblnp_kernels-4138b7e5591be47b.rmeta: /work/main/kernels/src/lib.rs /work/main/kernels/src/activation.rs /work/main/kernels/src/arch/mod.rs /work/main/kernels/src/arch/features.rs /work/main/kernels/src/arch/integer.rs /work/main/kernels/src/arch/prefetch.rs /work/main/kernels/src/arch/vector.rs /work/main/kernels/src/arch/x86_64/mod.rs /work/main/kernels/src/arch/x86_64/avx2.rs /work/main/kernels/src/arch/x86_64/avx512.rs /work/main/kernels/src/dtype.rs /work/main/kernels/src/error.rs /work/main/kernels/src/input.rs /work/main/kernels/src/kernel.rs /work/main/kernels/src/portable.rs

/work/main/kernels/src/lib.rs:
/work/main/kernels/src/activation.rs:
/work/main/kernels/src/arch/mod.rs:
/work/main/kernels/src/arch/features.rs:
/work/main/kernels/src/arch/integer.rs:
/work/main/kernels/src/arch/prefetch.rs:
/work/main/kernels/src/arch/vector.rs:
/work/main/kernels/src/arch/x86_64/mod.rs:
/work/main/kernels/src/arch/x86_64/avx2.rs:
/work/main/kernels/src/arch/x86_64/avx512.rs:
/work/main/kernels/src/dtype.rs:
/work/main/kernels/src/error.rs:
/work/main/kernels/src/input.rs:
/work/main/kernels/src/kernel.rs:
/work/main/kernels/src/portable.rs:
