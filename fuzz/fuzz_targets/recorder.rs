#![no_main]

libfuzzer_sys::fuzz_target!(|case: lnp_fuzz::recorder::Case| lnp_fuzz::recorder::run(&case));
