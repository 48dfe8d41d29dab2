/work/main/.ci/firmware/target/release/deps/lnp_format-a25b5eac53df0b5b.d: /work/main/format/src/lib.rs /work/main/format/src/checksum.rs /work/main/format/src/codes.rs /work/main/format/src/error.rs /work/main/format/src/layer.rs /work/main/format/src/layout.rs /work/main/format/src/limits.rs /work/main/format/src/provenance.rs /work/main/format/src/read.rs /work/main/format/src/sections.rs /work/main/format/src/shape.rs /work/main/format/src/write.rs

/work/main/.ci/firmware/target/release/deps/liblnp_format-a25b5eac53df0b5b.rlib: /work/main/format/src/lib.rs /work/main/format/src/checksum.rs /work/main/format/src/codes.rs /work/main/format/src/error.rs /work/main/format/src/layer.rs /work/main/format/src/layout.rs /work/main/format/src/limits.rs /work/main/format/src/provenance.rs /work/main/format/src/read.rs /work/main/format/src/sections.rs /work/main/format/src/shape.rs /work/main/format/src/write.rs

/work/main/.ci/firmware/target/release/deps/liblnp_format-a25b5eac53df0b5b.rmeta: /work/main/format/src/lib.rs /work/main/format/src/checksum.rs /work/main/format/src/codes.rs /work/main/format/src/error.rs /work/main/format/src/layer.rs /work/main/format/src/layout.rs /work/main/format/src/limits.rs /work/main/format/src/provenance.rs /work/main/format/src/read.rs /work/main/format/src/sections.rs /work/main/format/src/shape.rs /work/main/format/src/write.rs

/work/main/format/src/lib.rs:
/work/main/format/src/checksum.rs:
/work/main/format/src/codes.rs:
/work/main/format/src/error.rs:
/work/main/format/src/layer.rs:
/work/main/format/src/layout.rs:
/work/main/format/src/limits.rs:
/work/main/format/src/provenance.rs:
/work/main/format/src/read.rs:
/work/main/format/src/sections.rs:
/work/main/format/src/shape.rs:
/work/main/format/src/write.rs:
