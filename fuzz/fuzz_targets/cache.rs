#![no_main]

libfuzzer_sys::fuzz_target!(|case: lnp_fuzz::cache::Case| lnp_fuzz::cache::run(&case));
