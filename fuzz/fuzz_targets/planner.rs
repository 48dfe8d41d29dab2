#![no_main]

libfuzzer_sys::fuzz_target!(|case: lnp_fuzz::planner::Case| lnp_fuzz::planner::run(&case));
