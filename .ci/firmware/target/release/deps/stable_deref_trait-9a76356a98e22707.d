/work/main/.ci/firmware/target/release/deps/stable_deref_trait-9a76356a98e22707.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/stable_deref_trait-1.2.1/src/lib.rs

/work/main/.ci/firmware/target/release/deps/libstable_deref_trait-9a76356a98e22707.rlib: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/stable_deref_trait-1.2.1/src/lib.rs

/work/main/.ci/firmware/target/release/deps/libstable_deref_trait-9a76356a98e22707.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/stable_deref_trait-1.2.1/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/stable_deref_trait-1.2.1/src/lib.rs:
