#![no_main]

libfuzzer_sys::fuzz_target!(|case: lnp_fuzz::engine::Case| lnp_fuzz::engine::run(&case));
