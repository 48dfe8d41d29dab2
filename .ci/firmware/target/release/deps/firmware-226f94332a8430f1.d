/work/main/.ci/firmware/target/release/deps/firmware-226f94332a8430f1.d: src/lib.rs

/work/main/.ci/firmware/target/release/deps/libfirmware-226f94332a8430f1.a: src/lib.rs

src/lib.rs:
