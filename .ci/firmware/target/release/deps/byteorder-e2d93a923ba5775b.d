/work/main/.ci/firmware/target/release/deps/byteorder-e2d93a923ba5775b.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/byteorder-1.5.0/src/lib.rs

/work/main/.ci/firmware/target/release/deps/libbyteorder-e2d93a923ba5775b.rlib: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/byteorder-1.5.0/src/lib.rs

/work/main/.ci/firmware/target/release/deps/libbyteorder-e2d93a923ba5775b.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/byteorder-1.5.0/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/byteorder-1.5.0/src/lib.rs:
