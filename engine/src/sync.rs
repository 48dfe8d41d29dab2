//! The one place that atomics come from. The tests of the buffer states put loom's in its place, which
//! tries all interleavings.

pub(crate) use core::sync::atomic::{AtomicU32, Ordering};
