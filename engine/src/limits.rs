//! Every limit of the engine, named, in one place.

/// Most reads in flight.
pub const QUEUE_DEPTH_MAX: usize = 256;
/// Reads in flight unless the caller says otherwise: what UFS devices take.
pub const QUEUE_DEPTH_DEFAULT: u32 = 32;
/// Hole that is read through where nothing is known of the device, bytes: the break-even of UFS 4.0 as
/// published is 16 to 20 KiB.
pub const GAP_BYTES_USUAL: u64 = 16 << 10;
/// Longest read that can be configured, bytes.
pub const READ_BYTES_MAX: u32 = 1 << 24;
/// Reads, and so the extents that are planned, are at most this long, bytes, unless the caller knows
/// the device better. (A single bundle may be longer.)
pub const READ_BYTES_DEFAULT: u32 = 1 << 20;
/// Most points of a measured curve: the powers of two from 512 B to 16 MiB.
pub const CURVE_POINTS_MAX: usize = 16;
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
/// io_uring takes what was submitted once it is one part in so many of the queue depth, and does not wait for
/// the end of the batch: the device begins while the rest is being prepared (`benches/README.md`).
pub const SUBMIT_EARLY_PARTS: u32 = 4;
/// But no fewer reads than these: a system call for each would cost more than it gains.
pub const SUBMIT_EARLY_READS_MIN: u32 = 4;
/// Prefetched reads leave one place of the queue in so many free for what is demanded meanwhile.
pub const DEMAND_RESERVE_PARTS: u32 = 4;
/// Share of a layer's I/O time that reading it ahead must be expected to save: what is expected is no more exact.
pub const AHEAD_GAIN_MIN: f64 = 0.02;
/// Most prices of strength that are tried to find the one that leaves out no more than is allowed; 6 to 10 are usual.
pub const BUDGET_ROUNDS_MAX: usize = 32;
/// Most tokens whose sparse FFN is computed together: the pieces that long prompts are fed in.
pub const BATCH_TOKENS_MAX: usize = 256;
/// Part by which the price of strength follows what a token lost over what it may.
pub const PACE_STEP: f64 = 0.05;
/// Most that a token counts for in that, in shares that it may lose.
pub const PACE_OVER_MAX: f64 = 10.0;
/// How long the kernel's thread of submission polling looks for reads before it sleeps, milliseconds:
/// longer than a token's computing between two batches, so that it sleeps only when nothing is asked.
pub const SUBMISSION_POLL_IDLE_MS: u32 = 50;
/// Most cached bundles: a cell's number shares a `u32` with two tag bits.
pub const CACHE_BUNDLES_MAX: u32 = 1 << 29;
/// Evicted bundles that the cache remembers, per bundle that it holds. One token's active set is
/// larger than a small cache, so a memory of the cache's own size would forget between two tokens.
pub const CACHE_GHOSTS_PER_BUNDLE: u32 = 4;
/// Cached bundles of so many neighbouring places are computed together, between two looks at the
/// queue.
pub const HIT_GROUP_BUNDLES: usize = 8;
/// Most bundles handed out between two looks at the queue.
pub const FINISH_BATCH: usize = 16;
/// How far after a bundle the later one is that is named with it, so that kernels can ask for its
/// memory: half of it, what one phase reads, lasts about as long as memory takes.
pub const LOOKAHEAD_BYTES: usize = 12 << 10;
/// Banks: one for what is demanded, two for what is prefetched, so that one can be consumed while the
/// other is read.
pub const BANKS: usize = 3;
/// Bits of a read's tag that number its extent; those above tell the bank.
pub const TAG_EXTENT_BITS: u32 = 30;
/// Batches of reads that adaptive collapse looks back on.
pub const ADAPT_BATCHES: usize = 512;
/// Least batches to fit a law to.
pub const ADAPT_BATCHES_MIN: usize = 24;
/// Share by which `a * B` must move before plans follow, under the sum and under the maximum. Under
/// the sum the time is flat around the best gap; under the maximum it has an edge there, and being
/// off by 3 % costs above 1 % of the time.
pub const ADAPT_HYSTERESIS: [f64; 2] = [0.05, 0.02];
/// Relative errors up to this are never taken for a change of the device.
pub const ADAPT_CHANGE: f64 = 0.08;
/// Batches after a change of the device before another one is looked for.
pub const ADAPT_CHANGE_AFTER: u32 = 128;
/// Batches from one that explores another gap to the next, once the law is at rest.
pub const ADAPT_EXPLORE_EVERY: u32 = 31;
/// Budget that exploring starts with and can save up; each batch adds one.
pub const ADAPT_BUDGET_MAX: u32 = 1200;
/// Runs of at least so many bundles are *continuous segments* to the linking-aligned cache: the best
/// of 2, 3, 4 and 6 measured (`docs/cache.md`).
pub const CACHE_LONG_RUN_BUNDLES: u32 = 2;
/// Of the bundles of such runs, the linking-aligned cache admits one in so many: about the best
/// of 4 to 64 measured; nearly none.
pub const CACHE_LONG_RUN_ADMITS_ONE_IN: u32 = 32;
/// Share of the cells that the policy `pinned+linking-aligned` pins, per cent: the best of
/// 50 to 90 measured. All of them is the policy `pinned`.
pub const CACHE_PINNED_PERCENT: usize = 90;
/// The clock of the policy `decayed-frequency` ticks so often while as many bundles are asked for as a pack has, which
/// takes 6 to 30 tokens of the models in view: what is learned goes by how much was seen.
pub const CACHE_TICKS_PER_ROUND: usize = 16;
/// Half-life of what it counts in the long run, in ticks: 250 to 1,200 tokens. As much weighs what the profile counted.
pub const CACHE_STEADY_HALF_LIFE_TICKS: usize = 640;
/// Half-life of what it counts as recent, in ticks.
pub const CACHE_RECENT_HALF_LIFE_TICKS: usize = 16;
/// What a recent use weighs more.
pub const CACHE_RECENT_WEIGHT: f32 = 28.0;
/// What a bundle is worth that costs nothing beside others, of one that costs an operation.
pub const CACHE_COST_LEAST: f32 = 0.1;
/// What a bundle is taken to cost before it was read, operations.
pub const CACHE_COST_FIRST: f32 = 0.6;
/// Share by which each read moves the mean of what a bundle costs.
pub const CACHE_COST_STEP: f32 = 0.1;
/// Cells among which the one worth least is looked for.
pub const CACHE_SAMPLE_CELLS: u32 = 16;
/// Most changes of the simulated device's timing that can be told beforehand.
pub const TIMING_CHANGES_MAX: usize = 8;
/// Tokens that what a recorder keeps stands for, where nothing else is said.
pub const RECORD_SPAN_TOKENS_DEFAULT: u32 = 16_384;
/// Most of them: counts of twice as many fit 16 bits.
pub const RECORD_SPAN_TOKENS_MAX: u32 = 32_767;
