#![no_main]

libfuzzer_sys::fuzz_target!(
    |case: lnp_fuzz::pack_structured::Case| lnp_fuzz::pack_structured::run(&case)
);
