#![no_main]

libfuzzer_sys::fuzz_target!(|case: lnp_fuzz::kernels::Case| lnp_fuzz::kernels::run(&case));
