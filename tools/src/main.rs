//! The `lnp` binary.
fn main() {}
