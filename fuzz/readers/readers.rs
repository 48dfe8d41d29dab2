#![no_main]

mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
