/work/main/.ci/firmware/target/release/deps/cfg_if-f8e92bcaf66febdf.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/cfg-if-1.0.5/src/lib.rs

/work/main/.ci/firmware/target/release/deps/libcfg_if-f8e92bcaf66febdf.rlib: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/cfg-if-1.0.5/src/lib.rs

/work/main/.ci/firmware/target/release/deps/libcfg_if-f8e92bcaf66febdf.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/cfg-if-1.0.5/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/cfg-if-1.0.5/src/lib.rs:
