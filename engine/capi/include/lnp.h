/* The C ABI of lnp: the FFN of sparse language models, straight from flash.
 * Made from engine/capi/src by cbindgen; docs/integration.md tells how to use it.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */

#ifndef LNP_H
#define LNP_H

#include <stddef.h>
#include <stdint.h>
/* Functions return LNP_OK or one of LNP_ERROR_... unless they say otherwise. */

// Version of the library: major << 16 | minor << 8 | patch. Programs compiled for another major
// version, or another minor version of 0, must not use it.
#define LNP_VERSION 512

// What memory for `lnp_open` must be a multiple of, bytes.
#define LNP_MEMORY_ALIGN 64

// With so much memory a `lnp_open` that fails leaves a text for `lnp_last_error`: enough to be told why
// `lnp_required_bytes` fails.
#define LNP_TEXT_BYTES (32 << 10)

// All is well.
#define LNP_OK 0

// A null or misaligned pointer, a wrong length, an engine that is not open: a mistake of the program.
#define LNP_ERROR_ARGUMENT 1

// The memory is too small: `lnp_required_bytes` says what is needed.
#define LNP_ERROR_MEMORY 2

// A setting breaks its rule.
#define LNP_ERROR_CONFIG 3

// The file cannot be opened.
#define LNP_ERROR_OPEN 4

// A read failed. The engine can be used on; so can the layer, if the device comes back.
#define LNP_ERROR_READ 5

// The file is not a valid pack.
#define LNP_ERROR_PACK 6

// The file is not the pack that was opened: it was replaced. Close, and open again.
#define LNP_ERROR_REPLACED 7

// A bundle does not match its checksum (with `LNP_VERIFY_READS`): flash or file are damaged.
#define LNP_ERROR_DAMAGED 8

// A layer or a neuron that the pack does not have, or ids that do not ascend strictly.
#define LNP_ERROR_ACTIVE 9

// The pack's type has no kernels (a placeholder), or the system has no direct reads, or no io_uring
// though it was asked for.
#define LNP_ERROR_UNSUPPORTED 10

// `lnp_source_t.kind`: the file at `path`.
#define LNP_SOURCE_PATH 1

// `lnp_source_t.kind`: the file or block device open as `fd`, with `O_DIRECT` as a rule. It is
// duplicated: close yours when you like, its position stays.
#define LNP_SOURCE_FD 2

// `lnp_source_t.kind`: the caller's `storage`, copied.
#define LNP_SOURCE_STORAGE 3

// Holes of less than `gap_bytes` are read through.
#define LNP_COLLAPSE_GAP 0

// Never.
#define LNP_COLLAPSE_OFF 1

// Where the device law says it is cheaper (`law_...`, from `lnp probe`).
#define LNP_COLLAPSE_LAW 2

// Always: whole layers, for comparison.
#define LNP_COLLAPSE_WHOLE 3

// The bundles that fired most in the pack's profile stay.
#define LNP_CACHE_PINNED 0

// No cache, whatever `cache_bundles` says.
#define LNP_CACHE_NONE 1

// The least recently used goes.
#define LNP_CACHE_LRU 2

// S3-FIFO.
#define LNP_CACHE_S3_FIFO 3

// Linking-aligned, after Neuralink.
#define LNP_CACHE_LINKING_ALIGNED 4

// Pinned, and linking-aligned in a tenth.
#define LNP_CACHE_PINNED_LINKING_ALIGNED 5

// The bundles used most, lately and by the profile, each by what it costs to read.
#define LNP_CACHE_DECAYED_FREQUENCY 6

// `lnp_config_t.flags`: every bundle read is checked against its checksum.
#define LNP_VERIFY_READS (1 << 0)

// `lnp_config_t.flags`: goes on through the page cache where direct reads cannot be had.
#define LNP_ALLOW_BUFFERED (1 << 1)

// `lnp_config_t.flags`: the device law is learnt on, from what reads take.
#define LNP_ADAPT (1 << 2)

// `lnp_config_t.flags`: pread even where there is io_uring.
#define LNP_NO_URING (1 << 3)

// `lnp_config_t.flags`: an error where there is no io_uring, instead of pread.
#define LNP_NEEDS_URING (1 << 4)

// `lnp_config_t.flags`: memory is taken to ask the pack's predictors (`lnp_forward_predicted`,
// `lnp_prefetch_predicted`); a pack that has not one for each layer is not opened.
#define LNP_PREDICT (1 << 5)

// `lnp_statistics_t.back_end`: the caller's storage.
#define LNP_BACK_END_STORAGE 0

// `lnp_statistics_t.back_end`: io_uring.
#define LNP_BACK_END_URING 1

// `lnp_statistics_t.back_end`: pread.
#define LNP_BACK_END_PREAD 2

// An open engine; it lies in the memory that was given to `lnp_open`. Any thread may use it, one at a
// time; while what `lnp_prefetch` asked for is being read, the thread that asked should go on. It does
// not survive `fork`: to a child it is no engine, whose memory the child may use as it likes, and open
// its own in. Memory that outlives a process must be zeroed before `lnp_open`.
typedef struct lnp_engine_t lnp_engine_t;

// A storage back end of the caller's: a firmware's own driver, for one. All functions are called from
// the thread that calls the engine, never two at a time. A context serves one engine at a time, and no
// `lnp_required_bytes` while that is open.
typedef struct lnp_storage_t {
  // Comes back with every call.
  void *context;
  // Length of the pack, bytes; 0: as the pack itself says.
  uint64_t bytes;
  // Most reads in flight, 1 to 256.
  uint32_t queue_depth;
  // What offset, length and memory of a read must be a multiple of, bytes: a power of two, at most
  // 4,096.
  uint32_t align;
  // Starts a read, and returns 0, or an error number above 0 where it did not start. The memory is
  // the storage's until `complete` has told of `tag`. It lies in what was given to `lnp_open`; but
  // `lnp_required_bytes` and `lnp_open` first read a few blocks to the stack.
  int32_t (*submit)(void *context, uint64_t offset, void *memory, uint32_t bytes, uint32_t tag);
  // Tells of a read that has ended: its tag, and how many bytes came (less than 0: an error number,
  // negated). Returns 1; or 0 where none has ended (it is asked again where `wait` is not 0); or less
  // than 0 where the storage is gone, and nothing writes to any memory any more.
  int32_t (*complete)(void *context, int32_t wait, uint32_t *tag, int32_t *bytes);
  // Nanoseconds since some moment, never falling; null: the system's monotonic clock.
  uint64_t (*now_ns)(void *context);
} lnp_storage_t;

// Where a pack is read from.
typedef struct lnp_source_t {
  // `LNP_SOURCE_...`
  uint32_t kind;
  // A file descriptor.
  int fd;
  // A path that ends with a zero byte.
  const char *path;
  // A storage back end.
  const struct lnp_storage_t *storage;
} lnp_source_t;

// Settings; zero stands for the default of each but the first.
typedef struct lnp_config_t {
  // `sizeof(lnp_config_t)`
  uint32_t struct_bytes;
  // `LNP_VERIFY_READS` and so on, added up.
  uint32_t flags;
  // Bundles that the cache holds. Default: none.
  uint32_t cache_bundles;
  // `LNP_CACHE_...`
  uint32_t cache_policy;
  // `LNP_COLLAPSE_...`
  uint32_t collapse;
  // Reads in flight, up to 256. Default: 32.
  uint32_t queue_depth;
  // Longest read, bytes: a multiple of the pack's block. Default: 1 MiB.
  uint32_t read_bytes_max;
  // Whether the parts of the device law add up (0), or the larger one rules (1).
  uint32_t law_combine;
  // Holes of less than this are read through by `LNP_COLLAPSE_GAP`, bytes. Default: 16 KiB.
  uint64_t gap_bytes;
  // Device law: microseconds of a batch.
  double law_t0_us;
  // Device law: microseconds of a read.
  double law_a_us;
  // Device law: bandwidth, MiB/s.
  double law_b_mib_s;
  // Where reads land, bytes; with less than a layer, layers are read in several rounds. Default: a
  // whole layer.
  uint64_t staging_bytes;
  // Bytes of each of the two areas for `lnp_prefetch`, a multiple of 4,096. Default: none, and no
  // prefetch.
  uint64_t prefetch_bytes;
  // Tokens whose active sets are kept for `lnp_recorded`, up to 32,767: they take an eighth of a byte each for
  // each neuron of the model, and 2 bytes a neuron in all. Default: none, nothing is recorded.
  uint32_t record_tokens;
  // Of about how many of the last tokens they are a sample, `record_tokens` to 32,767. Default: 16,384.
  uint32_t record_span_tokens;
} lnp_config_t;

// What a pack holds; types and activations by the codes of the format (`spec/lnp-v1.md`).
typedef struct lnp_shape_t {
  // Layers.
  uint32_t layers;
  // Neurons of a layer.
  uint32_t neurons;
  // Length of a hidden state.
  uint32_t hidden;
  // Parts of a bundle: 2 (up, down) or 3 (gate, up, down).
  uint32_t parts;
  // Type of the weights: 1 f32, 2 f16, 3 bf16, 4 q8_0, 5 q4_0, 255 placeholder.
  uint32_t dtype;
  // Activation: 1 relu, 2 fatrelu, 3 relu2, 4 silu, 5 gelu, 6 drelu, 7 gelu_tanh.
  uint32_t activation;
  // Threshold of fatrelu.
  float activation_threshold;
  // Bytes of a bundle.
  uint32_t bundle_bytes;
  // Placements of each layer.
  uint32_t placements;
  // Bytes of a block.
  uint32_t block_bytes;
  // Length of the pack, bytes.
  uint64_t file_bytes;
} lnp_shape_t;

// What was done since `lnp_open`.
typedef struct lnp_statistics_t {
  // Calls of `lnp_forward` that succeeded.
  uint64_t forwards;
  // Active bundles asked for.
  uint64_t active;
  // Of them, found in the cache.
  uint64_t hits;
  // Of them, prefetched.
  uint64_t prefetched;
  // Reads.
  uint64_t reads;
  // Runs of adjacent slots among what was read.
  uint64_t runs;
  // Holes that were read through.
  uint64_t merges;
  // Bytes read.
  uint64_t bytes_read;
  // Of them, of bundles that were asked for.
  uint64_t useful_bytes;
  // Nanoseconds from first submissions to last completions.
  uint64_t io_ns;
  // Half of the reads took less, nanoseconds.
  uint64_t latency_ns_p50;
  // 99 of 100 reads took less, nanoseconds.
  uint64_t latency_ns_p99;
  // Bundles in the cache.
  uint32_t cached_bundles;
  // `LNP_BACK_END_...`
  uint32_t back_end;
  // Why it is not io_uring, or why its buffer is not registered (errno); 0 where nothing is missing.
  int32_t back_end_errno;
  // 0
  uint32_t reserved;
} lnp_statistics_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The library's `LNP_VERSION`, to be compared with the header's.
uint32_t lnp_version(void);

// What a number of an error means: one line in English, for ever valid. `lnp_last_error` says more.
const char *lnp_status_text(int32_t status);

// How many bytes `lnp_open` needs for a pack with these settings. Reads three blocks of the pack.
//
// # Safety
// Pointers are null, which is an error, or of what their types say; `source` as for `lnp_open`.
int32_t lnp_required_bytes(const struct lnp_source_t *source,
                           const struct lnp_config_t *config,
                           size_t *bytes);

// Opens a pack in `bytes` bytes of memory, a multiple of `LNP_MEMORY_ALIGN`, which is the engine's
// until `lnp_close`. Nothing is allocated; 160 KiB of stack are used. Where it fails, nothing is open
// and `*engine` is null; `lnp_last_error` of the memory then says more, if it has `LNP_TEXT_BYTES`.
// Memory in which an engine is open is refused.
//
// # Safety
// Pointers are null, which is an error, or of what their types say: the path a string, the memory the
// engine's alone. A storage's functions do what `lnp_storage_t` says.
int32_t lnp_open(const struct lnp_source_t *source,
                 const struct lnp_config_t *config,
                 void *memory,
                 size_t bytes,
                 struct lnp_engine_t **engine);

// What the pack holds.
//
// # Safety
// Pointers are null, which is an error, or of what their types say; the engine is used by one thread
// at a time.
int32_t lnp_shape(struct lnp_engine_t *engine,
                  struct lnp_shape_t *shape);

// Computes a layer's FFN: `y` (`y_count` values) from the hidden state `x` (`x_count` values) over the
// `active_count` active neurons, ids strictly ascending. Both counts are the shape's `hidden`. The bits
// of the result do not depend on order, cache or back end. After an error `y` is undefined and the
// engine can be used on.
//
// # Safety
// Pointers are null, which is an error (but for no active neurons), or of so many values; the engine is
// used by one thread at a time.
int32_t lnp_forward(struct lnp_engine_t *engine,
                    uint32_t layer,
                    const float *x,
                    size_t x_count,
                    const uint32_t *active,
                    size_t active_count,
                    float *y,
                    size_t y_count);

// The same from the hidden state alone: over the neurons that the pack's predictor names at the operating point of
// `quality` (0 to 1: the first of at least that, or the last). Needs `LNP_PREDICT`.
//
// # Safety
// As `lnp_forward`.
int32_t lnp_forward_predicted(struct lnp_engine_t *engine,
                              uint32_t layer,
                              float quality,
                              const float *x,
                              size_t x_count,
                              float *y,
                              size_t y_count);

// Starts to read what a layer will probably need, and returns at once: the next `lnp_forward` of that
// layer finds it there. Two layers can be under way. Needs `prefetch_bytes`. With
// `LNP_BACK_END_PREAD`, which reads only what is waited for, it does nothing.
//
// # Safety
// As `lnp_forward`.
int32_t lnp_prefetch(struct lnp_engine_t *engine,
                     uint32_t layer,
                     const uint32_t *predicted,
                     size_t predicted_count);

// `lnp_prefetch` of what the pack's predictor of `layer` names for `x`, the hidden state of the layer `horizon` before
// it, at the operating point of `quality`. Needs `LNP_PREDICT` and `prefetch_bytes`.
//
// # Safety
// As `lnp_forward`.
int32_t lnp_prefetch_predicted(struct lnp_engine_t *engine,
                               uint32_t layer,
                               uint32_t horizon,
                               float quality,
                               const float *x,
                               size_t x_count);

// What was done since `lnp_open`.
//
// # Safety
// As `lnp_shape`.
int32_t lnp_statistics(struct lnp_engine_t *engine, struct lnp_statistics_t *statistics);

// Copies a part of the trace of what was asked for, from byte `offset` of it on, and says in `*copied` how many bytes:
// fewer than `part_bytes` only where it ends, and 0 behind; at once where nothing was computed in all layers. Put
// together they are a file for `lnp relink --seen`, the same until the next forward. Needs `record_tokens`. For that,
// layers are computed in ascending order; a token of which one fails is computed again from there, or from the first.
//
// # Safety
// As `lnp_shape`; `part` is of so many bytes.
int32_t lnp_recorded(struct lnp_engine_t *engine,
                     uint64_t offset,
                     void *part,
                     size_t part_bytes,
                     size_t *copied);

// Copies one line about the last error, cut to `text_bytes` with the zero byte at its end, and returns
// its whole length without that byte: 0 where there was no error. `engine` may also be the memory that
// a failed `lnp_open` was given.
//
// # Safety
// `engine` is null or memory that was given to `lnp_open`; `text` is null or of so many bytes.
size_t lnp_last_error(struct lnp_engine_t *engine,
                      char *text,
                      size_t text_bytes);

// Waits until nothing is in flight, and gives the memory back to the caller.
//
// # Safety
// As `lnp_shape`.
int32_t lnp_close(struct lnp_engine_t *engine);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LNP_H */
