//! Benchmarks of the workspace: see `benches/README.md`.
