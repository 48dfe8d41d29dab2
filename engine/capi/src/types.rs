//! What crosses the border. All structs may be filled with zeros, which asks for defaults.

use core::ffi::{c_char, c_int, c_void};

/// Version of the library: major << 16 | minor << 8 | patch. Programs compiled for another major
/// version, or another minor version of 0, must not use it.
pub const LNP_VERSION: u32 = 0x00_02_00;
/// What memory for `lnp_open` must be a multiple of, bytes.
pub const LNP_MEMORY_ALIGN: usize = 64;

/// With so much memory a `lnp_open` that fails leaves a text for `lnp_last_error`: enough to be told why
/// `lnp_required_bytes` fails.
pub const LNP_TEXT_BYTES: usize = 32 << 10;

/// All is well.
pub const LNP_OK: i32 = 0;
/// A null or misaligned pointer, a wrong length, an engine that is not open: a mistake of the program.
pub const LNP_ERROR_ARGUMENT: i32 = 1;
/// The memory is too small: `lnp_required_bytes` says what is needed.
pub const LNP_ERROR_MEMORY: i32 = 2;
/// A setting breaks its rule.
pub const LNP_ERROR_CONFIG: i32 = 3;
/// The file cannot be opened.
pub const LNP_ERROR_OPEN: i32 = 4;
/// A read failed. The engine can be used on; so can the layer, if the device comes back.
pub const LNP_ERROR_READ: i32 = 5;
/// The file is not a valid pack.
pub const LNP_ERROR_PACK: i32 = 6;
/// The file is not the pack that was opened: it was replaced. Close, and open again.
pub const LNP_ERROR_REPLACED: i32 = 7;
/// A bundle does not match its checksum (with `LNP_VERIFY_READS`): flash or file are damaged.
pub const LNP_ERROR_DAMAGED: i32 = 8;
/// A layer or a neuron that the pack does not have, or ids that do not ascend strictly.
pub const LNP_ERROR_ACTIVE: i32 = 9;
/// The pack's type has no kernels (a placeholder), or the system has no direct reads, or no io_uring
/// though it was asked for.
pub const LNP_ERROR_UNSUPPORTED: i32 = 10;

/// An open engine; it lies in the memory that was given to `lnp_open`. Any thread may use it, one at a
/// time; while what `lnp_prefetch` asked for is being read, the thread that asked should go on. It does
/// not survive `fork`: to a child it is no engine, whose memory the child may use as it likes, and open
/// its own in. Memory that outlives a process must be zeroed before `lnp_open`.
pub enum lnp_engine_t {}

/// A storage back end of the caller's: a firmware's own driver, for one. All functions are called from
/// the thread that calls the engine, never two at a time. A context serves one engine at a time, and no
/// `lnp_required_bytes` while that is open.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct lnp_storage_t {
    /// Comes back with every call.
    pub context: *mut c_void,
    /// Length of the pack, bytes; 0: as the pack itself says.
    pub bytes: u64,
    /// Most reads in flight, 1 to 256.
    pub queue_depth: u32,
    /// What offset, length and memory of a read must be a multiple of, bytes: a power of two, at most
    /// 4,096.
    pub align: u32,
    /// Starts a read, and returns 0, or an error number above 0 where it did not start. The memory is
    /// the storage's until `complete` has told of `tag`. It lies in what was given to `lnp_open`; but
    /// `lnp_required_bytes` and `lnp_open` first read a few blocks to the stack.
    pub submit: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            offset: u64,
            memory: *mut c_void,
            bytes: u32,
            tag: u32,
        ) -> i32,
    >,
    /// Tells of a read that has ended: its tag, and how many bytes came (less than 0: an error number,
    /// negated). Returns 1; or 0 where none has ended (it is asked again where `wait` is not 0); or less
    /// than 0 where the storage is gone, and nothing writes to any memory any more.
    pub complete: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            wait: i32,
            tag: *mut u32,
            bytes: *mut i32,
        ) -> i32,
    >,
    /// Nanoseconds since some moment, never falling; null: the system's monotonic clock.
    pub now_ns: Option<unsafe extern "C" fn(context: *mut c_void) -> u64>,
}

/// `lnp_source_t.kind`: the file at `path`.
pub const LNP_SOURCE_PATH: u32 = 1;
/// `lnp_source_t.kind`: the file or block device open as `fd`, with `O_DIRECT` as a rule. It is
/// duplicated: close yours when you like, its position stays.
pub const LNP_SOURCE_FD: u32 = 2;
/// `lnp_source_t.kind`: the caller's `storage`, copied.
pub const LNP_SOURCE_STORAGE: u32 = 3;

/// Where a pack is read from.
#[repr(C)]
pub struct lnp_source_t {
    /// `LNP_SOURCE_...`
    pub kind: u32,
    /// A file descriptor.
    pub fd: c_int,
    /// A path that ends with a zero byte.
    pub path: *const c_char,
    /// A storage back end.
    pub storage: *const lnp_storage_t,
}

/// Holes of less than `gap_bytes` are read through.
pub const LNP_COLLAPSE_GAP: u32 = 0;
/// Never.
pub const LNP_COLLAPSE_OFF: u32 = 1;
/// Where the device law says it is cheaper (`law_...`, from `lnp probe`).
pub const LNP_COLLAPSE_LAW: u32 = 2;
/// Always: whole layers, for comparison.
pub const LNP_COLLAPSE_WHOLE: u32 = 3;

/// The bundles that fired most in the pack's profile stay.
pub const LNP_CACHE_PINNED: u32 = 0;
/// No cache, whatever `cache_bundles` says.
pub const LNP_CACHE_NONE: u32 = 1;
/// The least recently used goes.
pub const LNP_CACHE_LRU: u32 = 2;
/// S3-FIFO.
pub const LNP_CACHE_S3_FIFO: u32 = 3;
/// Linking-aligned, after Neuralink.
pub const LNP_CACHE_LINKING_ALIGNED: u32 = 4;
/// Pinned, and linking-aligned in a tenth.
pub const LNP_CACHE_PINNED_LINKING_ALIGNED: u32 = 5;
/// The bundles used most, lately and by the profile, each by what it costs to read.
pub const LNP_CACHE_DECAYED_FREQUENCY: u32 = 6;

/// `lnp_config_t.flags`: every bundle read is checked against its checksum.
pub const LNP_VERIFY_READS: u32 = 1 << 0;
/// `lnp_config_t.flags`: goes on through the page cache where direct reads cannot be had.
pub const LNP_ALLOW_BUFFERED: u32 = 1 << 1;
/// `lnp_config_t.flags`: the device law is learnt on, from what reads take.
pub const LNP_ADAPT: u32 = 1 << 2;
/// `lnp_config_t.flags`: pread even where there is io_uring.
pub const LNP_NO_URING: u32 = 1 << 3;
/// `lnp_config_t.flags`: an error where there is no io_uring, instead of pread.
pub const LNP_NEEDS_URING: u32 = 1 << 4;
/// `lnp_config_t.flags`: memory is taken to ask the pack's predictors (`lnp_forward_predicted`,
/// `lnp_prefetch_predicted`); a pack that has not one for each layer is not opened.
pub const LNP_PREDICT: u32 = 1 << 5;

/// Settings; zero stands for the default of each but the first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct lnp_config_t {
    /// `sizeof(lnp_config_t)`
    pub struct_bytes: u32,
    /// `LNP_VERIFY_READS` and so on, added up.
    pub flags: u32,
    /// Bundles that the cache holds. Default: none.
    pub cache_bundles: u32,
    /// `LNP_CACHE_...`
    pub cache_policy: u32,
    /// `LNP_COLLAPSE_...`
    pub collapse: u32,
    /// Reads in flight, up to 256. Default: 32.
    pub queue_depth: u32,
    /// Longest read, bytes: a multiple of the pack's block. Default: 1 MiB.
    pub read_bytes_max: u32,
    /// Whether the parts of the device law add up (0), or the larger one rules (1).
    pub law_combine: u32,
    /// Holes of less than this are read through by `LNP_COLLAPSE_GAP`, bytes. Default: 16 KiB.
    pub gap_bytes: u64,
    /// Device law: microseconds of a batch.
    pub law_t0_us: f64,
    /// Device law: microseconds of a read.
    pub law_a_us: f64,
    /// Device law: bandwidth, MiB/s.
    pub law_b_mib_s: f64,
    /// Where reads land, bytes; with less than a layer, layers are read in several rounds. Default: a
    /// whole layer.
    pub staging_bytes: u64,
    /// Bytes of each of the two areas for `lnp_prefetch`, a multiple of 4,096. Default: none, and no
    /// prefetch.
    pub prefetch_bytes: u64,
    /// Tokens whose active sets are kept for `lnp_recorded`, up to 32,767: they take an eighth of a byte each for
    /// each neuron of the model, and 2 bytes a neuron in all. Default: none, nothing is recorded.
    pub record_tokens: u32,
    /// Of about how many of the last tokens they are a sample, `record_tokens` to 32,767. Default: 16,384.
    pub record_span_tokens: u32,
}

/// What a pack holds; types and activations by the codes of the format (`spec/lnp-v1.md`).
#[repr(C)]
pub struct lnp_shape_t {
    /// Layers.
    pub layers: u32,
    /// Neurons of a layer.
    pub neurons: u32,
    /// Length of a hidden state.
    pub hidden: u32,
    /// Parts of a bundle: 2 (up, down) or 3 (gate, up, down).
    pub parts: u32,
    /// Type of the weights: 1 f32, 2 f16, 3 bf16, 4 q8_0, 5 q4_0, 255 placeholder.
    pub dtype: u32,
    /// Activation: 1 relu, 2 fatrelu, 3 relu2, 4 silu, 5 gelu, 6 drelu, 7 gelu_tanh.
    pub activation: u32,
    /// Threshold of fatrelu.
    pub activation_threshold: f32,
    /// Bytes of a bundle.
    pub bundle_bytes: u32,
    /// Placements of each layer.
    pub placements: u32,
    /// Bytes of a block.
    pub block_bytes: u32,
    /// Length of the pack, bytes.
    pub file_bytes: u64,
}

/// `lnp_statistics_t.back_end`: the caller's storage.
pub const LNP_BACK_END_STORAGE: u32 = 0;
/// `lnp_statistics_t.back_end`: io_uring.
pub const LNP_BACK_END_URING: u32 = 1;
/// `lnp_statistics_t.back_end`: pread.
pub const LNP_BACK_END_PREAD: u32 = 2;

/// What was done since `lnp_open`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct lnp_statistics_t {
    /// Calls of `lnp_forward` that succeeded.
    pub forwards: u64,
    /// Active bundles asked for.
    pub active: u64,
    /// Of them, found in the cache.
    pub hits: u64,
    /// Of them, prefetched.
    pub prefetched: u64,
    /// Reads.
    pub reads: u64,
    /// Runs of adjacent slots among what was read.
    pub runs: u64,
    /// Holes that were read through.
    pub merges: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Of them, of bundles that were asked for.
    pub useful_bytes: u64,
    /// Nanoseconds from first submissions to last completions.
    pub io_ns: u64,
    /// Half of the reads took less, nanoseconds.
    pub latency_ns_p50: u64,
    /// 99 of 100 reads took less, nanoseconds.
    pub latency_ns_p99: u64,
    /// Bundles in the cache.
    pub cached_bundles: u32,
    /// `LNP_BACK_END_...`
    pub back_end: u32,
    /// Why it is not io_uring, or why its buffer is not registered (errno); 0 where nothing is missing.
    pub back_end_errno: i32,
    /// 0
    pub reserved: u32,
}
