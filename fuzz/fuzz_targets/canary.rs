#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lnp_fuzz::canary::run(data));
