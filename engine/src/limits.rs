//! Every limit of the engine, named, in one place.

/// Most reads in flight.
pub const QUEUE_DEPTH_MAX: usize = 256;
/// Reads in flight unless the caller says otherwise: what UFS devices take.
pub const QUEUE_DEPTH_DEFAULT: u32 = 32;
/// Longest read that can be configured, bytes.
pub const READ_BYTES_MAX: u32 = 1 << 24;
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
/// How long the kernel's thread of submission polling looks for reads before it sleeps, milliseconds:
/// longer than a token's computing between two batches, so that it sleeps only when nothing is asked.
pub const SUBMISSION_POLL_IDLE_MS: u32 = 50;
/// Most cached bundles: a cell's number shares a `u32` with two tag bits.
pub const CACHE_BUNDLES_MAX: u32 = 1 << 29;
/// Evicted bundles that the cache remembers, per bundle that it holds. One token's active set is
/// larger than a small cache, so a memory of the cache's own size would forget between two tokens.
pub const CACHE_GHOSTS_PER_BUNDLE: u32 = 4;
/// Reads at most this long, bytes, unless the caller knows the device better.
pub const READ_BYTES_DEFAULT: u32 = 1 << 20;
/// Cached bundles of so many neighbouring places are computed together, between two looks at the
/// queue.
pub const HIT_GROUP_BUNDLES: usize = 8;
/// Most bundles handed out between two looks at the queue.
pub const FINISH_BATCH: usize = 16;
/// Bit of a read's tag that tells what is foreseen from what is asked for.
pub const TAG_BANK: u32 = 1 << 31;
