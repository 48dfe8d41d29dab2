//! Every limit of the engine, named, in one place.

/// Most reads in flight.
pub const QUEUE_DEPTH_MAX: usize = 256;
/// Reads in flight unless the caller says otherwise: what UFS devices take.
pub const QUEUE_DEPTH_DEFAULT: u32 = 32;
/// Largest single read, bytes; longer extents are split.
pub const READ_BYTES_MAX: u32 = 1 << 20;
/// Most bytes of the staging area: one registered buffer of io_uring.
pub const STAGING_BYTES_MAX: usize = 1 << 30;
/// Alignment of the staging area in memory, bytes; f2fs asks for this much.
pub const STAGING_ALIGN: usize = 4096;
/// Alignment of every other slice of the arena, bytes: one cache line.
pub const ARENA_ALIGN: usize = 64;
/// How often one read is tried again after EINTR or EAGAIN, or continued after a short read.
pub const READ_RETRIES_MAX: u32 = 8;
/// How often waiting for the kernel is tried again after EAGAIN or EBUSY, yielding in between.
pub const WAIT_RETRIES_MAX: u32 = 1 << 20;
/// Most cached bundles: a cell's number shares a `u32` with two tag bits.
pub const CACHE_BUNDLES_MAX: u32 = 1 << 29;
/// Evicted bundles that the cache remembers, per bundle that it holds. One token's active set is
/// larger than a small cache, so a memory of the cache's own size would forget between two tokens.
pub const CACHE_GHOSTS_PER_BUNDLE: u32 = 4;
/// Runs of at least so many bundles are *continuous segments* to the linking-aligned cache: the best
/// of 2, 3, 4 and 6 measured (`docs/cache.md`).
pub const CACHE_LONG_RUN_BUNDLES: u32 = 2;
/// Of the bundles of such runs, the linking-aligned cache admits one in so many: about the best
/// of 4 to 64 measured; nearly none.
pub const CACHE_LONG_RUN_ADMITS_ONE_IN: u32 = 32;
/// Share of the cells that the policy `pinned+linking-aligned` pins, per cent: the best of
/// 50 to 90 measured. All of them is the policy `pinned`.
pub const CACHE_PINNED_PERCENT: usize = 90;
