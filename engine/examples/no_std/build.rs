//! The C library's start-up code calls `main`.
fn main() {
    println!("cargo:rustc-link-lib=c");
}
