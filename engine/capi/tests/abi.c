/* The border, tried by a C program: every function, every number of an error, every source.
 *
 *   abi PACK PLACEHOLDER DAMAGED PREDICTED BLOCK_DEVICE|-
 *
 * PACK can be computed from, PLACEHOLDER cannot, DAMAGED has a wrong byte in a bundle of layer 0,
 * PREDICTED is PACK with predictors of each layer, and of each but the first a layer ahead. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lnp.h"
#include "../examples/pread_storage.h"

static unsigned long checks;

#define EXPECT(condition)                                                             \
    do {                                                                              \
        checks++;                                                                     \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);   \
            exit(1);                                                                  \
        }                                                                             \
    } while (0)

#define NEURONS_MAX 4096

static lnp_config_t plain(void) {
    lnp_config_t config;
    memset(&config, 0, sizeof config);
    config.struct_bytes = sizeof config;
    return config;
}

static lnp_source_t at(const char *path) {
    lnp_source_t source = {.kind = LNP_SOURCE_PATH, .path = path};
    return source;
}

/* Memory with a guard behind: what the engine was not given it must not touch. */
struct arena {
    unsigned char *bytes;
    size_t size;
};
#define GUARD 4096

static struct arena arena_of(size_t size) {
    struct arena arena = {aligned_alloc(64, (size + GUARD + 63) & ~(size_t)63), size};
    EXPECT(arena.bytes != NULL);
    memset(arena.bytes, 0xa5, size + GUARD);
    return arena;
}

static void give_back(struct arena arena) {
    size_t intact = 0;
    while (intact < GUARD && arena.bytes[arena.size + intact] == 0xa5) intact++;
    EXPECT(intact == GUARD);
    memset(arena.bytes, 0x5a, arena.size); /* whoever still reads it will be seen */
    free(arena.bytes);
}

static lnp_engine_t *open_with(lnp_source_t source, lnp_config_t config, struct arena *arena) {
    size_t bytes = 0;
    EXPECT(lnp_required_bytes(&source, &config, &bytes) == LNP_OK);
    *arena = arena_of(bytes);
    lnp_engine_t *engine = NULL;
    int32_t status = lnp_open(&source, &config, arena->bytes, bytes, &engine);
    if (status != LNP_OK) {
        char text[200];
        lnp_last_error((lnp_engine_t *)arena->bytes, text, sizeof text);
        fprintf(stderr, "lnp_open: %s\n", text);
    }
    EXPECT(status == LNP_OK);
    EXPECT(engine == (void *)arena->bytes);
    return engine;
}

/* A hidden state and an active set from a layer's number. */
static size_t inputs(const lnp_shape_t *shape, uint32_t layer, float *x, uint32_t *active) {
    for (uint32_t i = 0; i < shape->hidden; i++) x[i] = sinf((float)(i * (layer + 1)));
    size_t count = 0;
    for (uint32_t neuron = layer % 3; neuron < shape->neurons; neuron += 1 + (neuron * 7 + layer) % 11)
        active[count++] = neuron;
    return count;
}

static void forward_all(lnp_engine_t *engine, int prefetch, float *y) {
    lnp_shape_t shape;
    EXPECT(lnp_shape(engine, &shape) == LNP_OK);
    float x[NEURONS_MAX];
    uint32_t active[NEURONS_MAX], next[NEURONS_MAX];
    for (int token = 0; token < 3; token++) {
        for (uint32_t layer = 0; layer < shape.layers; layer++) {
            size_t count = inputs(&shape, (layer + 1) % shape.layers, x, next);
            if (prefetch)
                EXPECT(lnp_prefetch(engine, (layer + 1) % shape.layers, next, count) == LNP_OK);
            count = inputs(&shape, layer, x, active);
            EXPECT(lnp_forward(engine, layer, x, shape.hidden, active, count, y + layer * shape.hidden,
                               shape.hidden) == LNP_OK);
        }
    }
}

/* The same bits whatever the source, the settings and the back end. */
static void the_same_bits(const char *path, const char *device) {
    struct arena arena;
    lnp_config_t config = plain();
    lnp_engine_t *engine = open_with(at(path), config, &arena);
    lnp_shape_t shape;
    EXPECT(lnp_shape(engine, &shape) == LNP_OK);
    EXPECT(shape.hidden <= NEURONS_MAX && shape.neurons <= NEURONS_MAX && shape.layers > 0);
    EXPECT(shape.parts == 2 || shape.parts == 3);
    size_t bytes = (size_t)shape.layers * shape.hidden * sizeof(float);
    float *expected = malloc(bytes), *found = malloc(bytes);
    forward_all(engine, 0, expected);
    EXPECT(lnp_close(engine) == LNP_OK);
    give_back(arena);

    int fd = open(path, O_RDONLY | O_DIRECT);
    int buffered = open(path, O_RDONLY);
    EXPECT(fd >= 0 && buffered >= 0);
    struct pread_storage context;
    lnp_storage_t storage;
    pread_storage_init(&context, buffered, &storage);
    lnp_source_t sources[] = {
        at(path),
        {.kind = LNP_SOURCE_FD, .fd = fd},
        {.kind = LNP_SOURCE_STORAGE, .storage = &storage},
        at(device),
    };
    uint32_t policies[] = {LNP_CACHE_PINNED, LNP_CACHE_NONE, LNP_CACHE_LRU, LNP_CACHE_S3_FIFO,
                           LNP_CACHE_LINKING_ALIGNED, LNP_CACHE_PINNED_LINKING_ALIGNED,
                           LNP_CACHE_DECAYED_FREQUENCY};
    for (int i = 0; i < (strcmp(device, "-") ? 4 : 3); i++) {
        for (int variant = 0; variant < 12; variant++) {
            config = plain();
            config.cache_bundles = 100;
            config.cache_policy = policies[variant % 7];
            config.collapse = (uint32_t)variant % 4;
            config.law_t0_us = 10;
            config.law_a_us = 9.64;
            config.law_b_mib_s = 2034;
            config.law_combine = variant / 4 % 2;
            config.flags = (variant & 1 ? LNP_VERIFY_READS : 0) | (variant & 2 ? LNP_NO_URING : 0) |
                           (config.collapse == LNP_COLLAPSE_LAW ? LNP_ADAPT : 0);
            config.prefetch_bytes = variant % 3 ? 1 << 16 : 0;
            config.queue_depth = variant % 5 ? 0 : 3;
            engine = open_with(sources[i], config, &arena);
            memset(found, 0xff, bytes);
            forward_all(engine, variant % 3 != 0, found);
            EXPECT(memcmp(found, expected, bytes) == 0);
            lnp_statistics_t done;
            EXPECT(lnp_statistics(engine, &done) == LNP_OK);
            EXPECT(done.forwards == 3 * shape.layers && done.reads > 0 && done.active > done.hits);
            EXPECT(done.bytes_read >= done.useful_bytes);
            EXPECT((done.back_end == LNP_BACK_END_STORAGE) == (i == 2));
            EXPECT(config.cache_policy == LNP_CACHE_NONE ? done.cached_bundles == 0 : 1);
            /* closed with prefetched reads under way: close waits for them */
            EXPECT(lnp_close(engine) == LNP_OK);
            give_back(arena);
        }
    }
    close(fd);
    close(buffered);
    free(expected);
    free(found);
}

/* What the pack's predictors name is read and computed: the same bits with and without reading ahead, by all of them
 * nearly what all neurons give, and an error where there are none. */
static void predicting(const char *without, const char *path) {
    struct arena arena;
    lnp_config_t config = plain();
    lnp_engine_t *engine = open_with(at(path), config, &arena);
    size_t plainly = arena.size;
    lnp_shape_t shape;
    EXPECT(lnp_shape(engine, &shape) == LNP_OK);
    uint32_t n = shape.hidden;
    float x[NEURONS_MAX], y[NEURONS_MAX], ahead[NEURONS_MAX];
    uint32_t none[NEURONS_MAX];
    inputs(&shape, 0, x, none);
    EXPECT(lnp_forward_predicted(engine, 0, 0.99f, x, n, y, n) == LNP_ERROR_CONFIG); /* no LNP_PREDICT */
    EXPECT(lnp_prefetch_predicted(engine, 1, 1, 0.99f, x, n) == LNP_ERROR_CONFIG);
    EXPECT(lnp_close(engine) == LNP_OK);
    give_back(arena);

    config.flags = LNP_PREDICT;
    config.prefetch_bytes = 1 << 20;
    engine = open_with(at(path), config, &arena);
    EXPECT(arena.size > plainly + 2 * config.prefetch_bytes);
    for (uint32_t layer = 0; layer < shape.layers; layer++) {
        lnp_statistics_t before, after;
        inputs(&shape, layer, x, none);
        EXPECT(lnp_statistics(engine, &before) == LNP_OK);
        EXPECT(lnp_forward_predicted(engine, layer, 0.99f, x, n, y, n) == LNP_OK);
        EXPECT(lnp_statistics(engine, &after) == LNP_OK);
        uint64_t named = after.active - before.active;
        EXPECT(after.forwards == before.forwards + 1 && named > 0 && named < shape.neurons);
        if (layer > 0) EXPECT(lnp_prefetch_predicted(engine, layer, 1, 0.99f, x, n) == LNP_OK);
        EXPECT(lnp_forward_predicted(engine, layer, 0.99f, x, n, ahead, n) == LNP_OK);
        EXPECT(memcmp(y, ahead, n * sizeof(float)) == 0);
    }
    EXPECT(lnp_forward_predicted(engine, shape.layers, 0.5f, x, n, y, n) == LNP_ERROR_UNSUPPORTED);
    EXPECT(lnp_prefetch_predicted(engine, 0, 1, 0.5f, x, n) == LNP_ERROR_UNSUPPORTED);
    EXPECT(lnp_forward_predicted(engine, 0, 0.5f, x, n - 1, y, n) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_forward_predicted(engine, 0, 0.5f, x, n, y, n - 1) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_forward_predicted(engine, 0, 0.5f, NULL, n, y, n) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_forward_predicted(engine, 0, 0.5f, x, n, NULL, n) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_forward_predicted(engine, 0, 0.5f, x, n, x, n) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_forward_predicted(NULL, 0, 0.5f, x, n, y, n) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_prefetch_predicted(engine, 1, 1, 0.5f, NULL, n) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_prefetch_predicted(engine, 1, 1, 0.5f, (float *)arena.bytes, n) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_close(engine) == LNP_OK);
    give_back(arena);

    lnp_source_t source = at(without);
    size_t bytes = 0;
    EXPECT(lnp_required_bytes(&source, &config, &bytes) == LNP_OK);
    arena = arena_of(bytes);
    EXPECT(lnp_open(&source, &config, arena.bytes, bytes, &engine) == LNP_ERROR_UNSUPPORTED && engine == NULL);
    give_back(arena);
}

/* What was recorded, in parts of so many bytes. */
static unsigned char *recorded(lnp_engine_t *engine, size_t part_bytes, size_t *bytes) {
    size_t room = 1 << 20, copied;
    unsigned char *file = malloc(room);
    EXPECT(file != NULL);
    *bytes = 0;
    do {
        EXPECT(*bytes + part_bytes <= room);
        EXPECT(lnp_recorded(engine, *bytes, file + *bytes, part_bytes, &copied) == LNP_OK);
        EXPECT(copied <= part_bytes);
        *bytes += copied;
    } while (copied == part_bytes);
    return file;
}

/* What was asked for comes out as rows of bits: those of the last three tokens, all alike, in each layer. */
static void recording(const char *path, const char *predicted) {
    struct arena arena;
    lnp_config_t config = plain();
    lnp_engine_t *engine = open_with(at(path), config, &arena);
    size_t plainly = arena.size, bytes = 0, again = 0, copied = 7;
    unsigned char byte;
    EXPECT(lnp_recorded(engine, 0, &byte, 1, &copied) == LNP_ERROR_CONFIG); /* no record_tokens */
    EXPECT(lnp_close(engine) == LNP_OK);
    give_back(arena);

    config.record_tokens = 2;
    engine = open_with(at(path), config, &arena);
    lnp_shape_t shape;
    EXPECT(lnp_shape(engine, &shape) == LNP_OK);
    size_t row = (shape.neurons + 7) / 8, rows = 2;
    EXPECT(arena.size >= plainly + shape.layers * (2 * row + 2 * shape.neurons));
    EXPECT(arena.size < plainly + shape.layers * (2 * row + 2 * shape.neurons) + 4096);
    EXPECT(lnp_recorded(engine, 0, &byte, 1, &copied) == LNP_OK && copied == 0); /* nothing yet */
    float *y = malloc((size_t)shape.layers * shape.hidden * sizeof(float)), x[NEURONS_MAX];
    uint32_t active[NEURONS_MAX];
    forward_all(engine, 0, y);
    unsigned char *file = recorded(engine, 4096, &bytes), *parts = recorded(engine, 7, &again);
    EXPECT(bytes == again && memcmp(file, parts, bytes) == 0);
    uint64_t header;
    memcpy(&header, file, 8);
    EXPECT(bytes == 8 + header + shape.layers * (rows * row + 2 * shape.neurons));
    EXPECT(memmem(file + 8, header, "\"tokens\":\"2\"", 12) != NULL);
    EXPECT(memmem(file + 8, header, "\"seen_tokens\":\"3\"", 17) != NULL);
    EXPECT(memmem(file + 8, header, "\"model\":\"", 9) != NULL);
    const unsigned char *bits = file + 8 + header, *counts = bits + shape.layers * rows * row;
    for (uint32_t layer = 0; layer < shape.layers; layer++) {
        size_t count = inputs(&shape, layer, x, active), next = 0;
        for (uint32_t neuron = 0; neuron < shape.neurons; neuron++) {
            int is_active = next < count && active[next] == neuron;
            next += is_active;
            for (size_t token = 0; token < rows; token++)
                EXPECT((bits[(layer * rows + token) * row + neuron / 8] >> neuron % 8 & 1) == is_active);
            EXPECT(counts[2 * (layer * shape.neurons + neuron)] == 3 * is_active);
        }
    }
    EXPECT(lnp_recorded(engine, UINT64_MAX, &byte, 1, &copied) == LNP_OK && copied == 0);
    EXPECT(lnp_recorded(NULL, 0, &byte, 1, &copied) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_recorded(engine, 0, NULL, 1, &copied) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_recorded(engine, 0, &byte, 1, NULL) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_recorded(engine, 0, &byte, SIZE_MAX, &copied) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_recorded(engine, 0, arena.bytes + 64, 1, &copied) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_recorded(engine, 0, &copied, sizeof copied, &copied) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_close(engine) == LNP_OK);
    EXPECT(lnp_recorded(engine, 0, &byte, 1, &copied) == LNP_ERROR_ARGUMENT);
    give_back(arena);
    free(file);
    free(parts);

    /* what predictors name is recorded too */
    config.flags = LNP_PREDICT;
    config.record_tokens = 1;
    engine = open_with(at(predicted), config, &arena);
    for (uint32_t layer = 0; layer < shape.layers; layer++) {
        inputs(&shape, layer, x, active);
        EXPECT(lnp_forward_predicted(engine, layer, 0.99f, x, shape.hidden, y, shape.hidden) == LNP_OK);
    }
    lnp_statistics_t done;
    EXPECT(lnp_statistics(engine, &done) == LNP_OK);
    file = recorded(engine, 100, &bytes);
    memcpy(&header, file, 8);
    uint64_t found = 0;
    for (size_t i = 0; i < shape.layers * row; i++) found += (uint64_t)__builtin_popcount(file[8 + header + i]);
    EXPECT(found == done.active && found > 0);
    EXPECT(lnp_close(engine) == LNP_OK);
    give_back(arena);
    free(file);
    free(y);
}

static void wrong_arguments(const char *path) {
    lnp_source_t source = at(path);
    lnp_config_t config = plain();
    size_t bytes = 0;
    lnp_engine_t *engine = NULL;
    EXPECT(lnp_required_bytes(NULL, &config, &bytes) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_required_bytes(&source, NULL, &bytes) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_required_bytes(&source, &config, NULL) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_required_bytes(&source, &config, &bytes) == LNP_OK && bytes > 0);
    struct arena arena = arena_of(bytes);
    void *memory = arena.bytes;
    EXPECT(lnp_open(NULL, &config, memory, bytes, &engine) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_open(&source, NULL, memory, bytes, &engine) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_open(&source, &config, NULL, bytes, &engine) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_open(&source, &config, memory, bytes, NULL) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_open(&source, &config, (char *)memory + 4, bytes - 4, &engine) == LNP_ERROR_ARGUMENT);
    EXPECT(engine == NULL);
    for (size_t less = 0; less < bytes; less += less < 64 ? 1 : bytes / 50) {
        EXPECT(lnp_open(&source, &config, memory, less, &engine) == LNP_ERROR_MEMORY);
        EXPECT(engine == NULL);
    }
    EXPECT(lnp_open(&source, &config, memory, bytes - 1, &engine) == LNP_ERROR_MEMORY);
    /* a failed open leaves its text, and no engine */
    char text[240];
    EXPECT(lnp_last_error(memory, text, sizeof text) == strlen(text));
    char number[32];
    snprintf(number, sizeof number, "%zu", bytes);
    EXPECT(strstr(text, number) != NULL);
    lnp_shape_t shape;
    EXPECT(lnp_shape(memory, &shape) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_close(memory) == LNP_ERROR_ARGUMENT);

    EXPECT(lnp_open(&source, &config, memory, bytes, &engine) == LNP_OK);
    lnp_engine_t *again = engine;
    EXPECT(lnp_open(&source, &config, memory, bytes, &again) == LNP_ERROR_ARGUMENT && again == NULL);
    EXPECT(lnp_shape(engine, &shape) == LNP_OK);
    EXPECT(lnp_shape(engine, NULL) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_shape(NULL, &shape) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_shape((lnp_engine_t *)((char *)memory + 1), &shape) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_statistics(engine, NULL) == LNP_ERROR_ARGUMENT);
    float x[NEURONS_MAX + 1], y[NEURONS_MAX + 1];
    uint32_t active[NEURONS_MAX];
    uint32_t n = shape.hidden;
    size_t count = inputs(&shape, 0, x, active);
#define FORWARD(layer, x, x_count, active, count, y, y_count) \
    lnp_forward(engine, layer, x, x_count, active, count, y, y_count)
    EXPECT(FORWARD(0, x, n, active, count, y, n) == LNP_OK);
    EXPECT(FORWARD(0, x, n, NULL, 0, y, n) == LNP_OK);
    EXPECT(lnp_forward(NULL, 0, x, n, active, count, y, n) == LNP_ERROR_ARGUMENT);
    EXPECT(FORWARD(0, NULL, n, active, count, y, n) == LNP_ERROR_ARGUMENT);
    EXPECT(FORWARD(0, x, n, NULL, count, y, n) == LNP_ERROR_ARGUMENT);
    EXPECT(FORWARD(0, x, n, active, count, NULL, n) == LNP_ERROR_ARGUMENT);
    EXPECT(FORWARD(0, x, n - 1, active, count, y, n) == LNP_ERROR_ARGUMENT);
    EXPECT(FORWARD(0, x, n, active, count, y, n - 1) == LNP_ERROR_ARGUMENT);
    EXPECT(FORWARD(0, x, 0, active, count, y, 0) == LNP_ERROR_ARGUMENT);
    EXPECT(FORWARD(0, x, n, active, SIZE_MAX, y, n) == LNP_ERROR_ARGUMENT);
    EXPECT(FORWARD(0, x, SIZE_MAX / 2, active, count, y, n) == LNP_ERROR_ARGUMENT);
    EXPECT(FORWARD(0, (float *)((char *)x + 1), n, active, count, y, n) == LNP_ERROR_ARGUMENT);
    EXPECT(FORWARD(0, x, n, active, count, (float *)((char *)y + 2), n) == LNP_ERROR_ARGUMENT);
    EXPECT(FORWARD(0, x, n, active, count, x, n) == LNP_ERROR_ARGUMENT);
    EXPECT(FORWARD(0, x, n, active, count, x + 1, n) == LNP_ERROR_ARGUMENT);
    EXPECT(FORWARD(0, x, n, active, count, memory, n) == LNP_ERROR_ARGUMENT);
    EXPECT(FORWARD(0, (float *)((char *)memory + bytes - 64), n, active, count, y, n) == LNP_ERROR_ARGUMENT);
    EXPECT(FORWARD(shape.layers, x, n, active, count, y, n) == LNP_ERROR_ACTIVE);
    EXPECT(FORWARD(UINT32_MAX, x, n, active, count, y, n) == LNP_ERROR_ACTIVE);
    EXPECT(lnp_last_error(engine, NULL, 0) > 0);
    EXPECT(lnp_last_error(engine, text, 5) > 4 && strlen(text) == 4);
    EXPECT(lnp_last_error(NULL, text, sizeof text) == 0 && text[0] == 0);
    uint32_t twice[] = {1, 1}, falling[] = {5, 4}, beyond[] = {shape.neurons};
    EXPECT(FORWARD(0, x, n, twice, 2, y, n) == LNP_ERROR_ACTIVE);
    EXPECT(FORWARD(0, x, n, falling, 2, y, n) == LNP_ERROR_ACTIVE);
    EXPECT(FORWARD(0, x, n, beyond, 1, y, n) == LNP_ERROR_ACTIVE);
    EXPECT(lnp_prefetch(engine, 0, active, count) == LNP_ERROR_CONFIG); /* no prefetch_bytes */
    EXPECT(lnp_prefetch(engine, 0, NULL, count) == LNP_ERROR_ARGUMENT);
    EXPECT(FORWARD(0, x, n, active, count, y, n) == LNP_OK);
    EXPECT(lnp_close(engine) == LNP_OK);
    EXPECT(lnp_close(engine) == LNP_ERROR_ARGUMENT);
    EXPECT(FORWARD(0, x, n, active, count, y, n) == LNP_ERROR_ARGUMENT);
    EXPECT(lnp_close(NULL) == LNP_ERROR_ARGUMENT);
    give_back(arena);
    for (int32_t status = -2; status < 20; status++) EXPECT(strlen(lnp_status_text(status)) > 0);
}

static int32_t sized(lnp_source_t source, lnp_config_t config) {
    size_t bytes;
    return lnp_required_bytes(&source, &config, &bytes);
}

static void wrong_settings(const char *path) {
    lnp_config_t config;
#define WRONG(setting, expected)                       \
    config = plain();                                  \
    config.setting;                                    \
    EXPECT(sized(at(path), config) == expected)
    WRONG(struct_bytes = 0, LNP_ERROR_ARGUMENT);
    WRONG(struct_bytes += 8, LNP_ERROR_ARGUMENT);
    WRONG(flags = 1u << 31, LNP_ERROR_CONFIG);
    WRONG(flags = LNP_NO_URING | LNP_NEEDS_URING, LNP_ERROR_CONFIG);
    WRONG(flags = LNP_ADAPT, LNP_ERROR_CONFIG); /* without a law */
    WRONG(cache_policy = LNP_CACHE_DECAYED_FREQUENCY + 1, LNP_ERROR_CONFIG);
    WRONG(cache_bundles = UINT32_MAX, LNP_ERROR_CONFIG);
    WRONG(collapse = 4, LNP_ERROR_CONFIG);
    WRONG(collapse = LNP_COLLAPSE_LAW, LNP_ERROR_CONFIG); /* no bandwidth */
    WRONG(queue_depth = 257, LNP_ERROR_CONFIG);
    WRONG(read_bytes_max = 3, LNP_ERROR_CONFIG);
    WRONG(staging_bytes = 1, LNP_ERROR_CONFIG);
    WRONG(staging_bytes = UINT64_MAX, LNP_ERROR_CONFIG);
    WRONG(prefetch_bytes = 5, LNP_ERROR_CONFIG);
    WRONG(prefetch_bytes = UINT64_MAX - 4095, LNP_ERROR_CONFIG);
    WRONG(record_tokens = 32768, LNP_ERROR_CONFIG);
    WRONG(record_tokens = 20; config.record_span_tokens = 19, LNP_ERROR_CONFIG);
    config = plain();
    config.collapse = LNP_COLLAPSE_LAW;
    config.law_a_us = 9.64, config.law_b_mib_s = NAN;
    EXPECT(sized(at(path), config) == LNP_ERROR_CONFIG);
}

static void wrong_sources(const char *path, const char *placeholder) {
    lnp_source_t nowhere = {.kind = 0};
    EXPECT(sized(nowhere, plain()) == LNP_ERROR_ARGUMENT);
    EXPECT(sized(at(NULL), plain()) == LNP_ERROR_ARGUMENT);
    EXPECT(sized(at("/nowhere/at/all.lnp"), plain()) == LNP_ERROR_OPEN);
    EXPECT(sized(at(placeholder), plain()) == LNP_ERROR_UNSUPPORTED);
    lnp_source_t source = {.kind = LNP_SOURCE_FD, .fd = -1};
    EXPECT(sized(source, plain()) == LNP_ERROR_OPEN);
    /* a descriptor without O_DIRECT, only where buffered reads are allowed */
    source.fd = open(path, O_RDONLY);
    EXPECT(sized(source, plain()) == LNP_ERROR_UNSUPPORTED);
    lnp_config_t config = plain();
    config.flags = LNP_ALLOW_BUFFERED;
    EXPECT(lseek(source.fd, 100, SEEK_SET) == 100);
    EXPECT(sized(source, config) == LNP_OK);
    EXPECT(lseek(source.fd, 0, SEEK_CUR) == 100);
    close(source.fd);

    lnp_storage_t storage;
    struct pread_storage context;
    pread_storage_init(&context, open(path, O_RDONLY), &storage);
    lnp_source_t own = {.kind = LNP_SOURCE_STORAGE};
    EXPECT(sized(own, plain()) == LNP_ERROR_ARGUMENT);
    own.storage = &storage;
    EXPECT(sized(own, plain()) == LNP_OK);
    storage.align = 3;
    EXPECT(sized(own, plain()) == LNP_ERROR_ARGUMENT);
    storage.align = 1, storage.queue_depth = 0;
    EXPECT(sized(own, plain()) == LNP_ERROR_ARGUMENT);
    storage.queue_depth = 1, storage.submit = NULL;
    EXPECT(sized(own, plain()) == LNP_ERROR_ARGUMENT);
    close(context.fd);
}

/* Copies the first `bytes` of a file; -1: all. */
static void copy(const char *from, const char *to, long bytes) {
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    EXPECT(in != NULL && out != NULL);
    for (int byte; bytes != 0 && (byte = getc(in)) != EOF; bytes--) putc(byte, out);
    EXPECT(fclose(out) == 0);
    fclose(in);
}

static void broken_packs(const char *path, const char *damaged) {
    char other[4096];
    snprintf(other, sizeof other, "%s.copy", path);
    size_t bytes;
    lnp_config_t config = plain();
    lnp_source_t source = at(path);
    EXPECT(lnp_required_bytes(&source, &config, &bytes) == LNP_OK);
    struct arena arena = arena_of(bytes);
    lnp_engine_t *engine;
    source = at(other);
    /* cut short anywhere */
    for (long length = 100; length < 40000; length += 3001) {
        copy(path, other, length);
        int32_t status = lnp_open(&source, &config, arena.bytes, bytes, &engine);
        EXPECT(status == LNP_ERROR_PACK || status == LNP_ERROR_READ);
        EXPECT(engine == NULL && lnp_last_error((lnp_engine_t *)arena.bytes, NULL, 0) > 0);
    }
    give_back(arena);

    /* cut short while it is open: an error, and the engine goes on when the file is whole again */
    copy(path, other, -1);
    config.cache_policy = LNP_CACHE_NONE;
    engine = open_with(source, config, &arena);
    lnp_shape_t shape;
    EXPECT(lnp_shape(engine, &shape) == LNP_OK);
    float x[NEURONS_MAX], y[NEURONS_MAX];
    uint32_t active[NEURONS_MAX];
    uint32_t last = shape.layers - 1;
    size_t count = inputs(&shape, last, x, active);
    EXPECT(lnp_forward(engine, last, x, shape.hidden, active, count, y, shape.hidden) == LNP_OK);
    EXPECT(truncate(other, (off_t)shape.file_bytes / 2 / 4096 * 4096) == 0);
    EXPECT(lnp_forward(engine, last, x, shape.hidden, active, count, y, shape.hidden) == LNP_ERROR_READ);
    copy(path, other, -1);
    EXPECT(lnp_forward(engine, last, x, shape.hidden, active, count, y, shape.hidden) == LNP_OK);
    EXPECT(lnp_close(engine) == LNP_OK);
    give_back(arena);
    EXPECT(unlink(other) == 0);

    /* a wrong byte in a bundle: seen where reads are verified, and only there */
    uint32_t all[NEURONS_MAX];
    for (uint32_t i = 0; i < shape.neurons; i++) all[i] = i;
    for (int verify = 0; verify < 2; verify++) {
        config.flags = verify ? LNP_VERIFY_READS : 0;
        engine = open_with(at(damaged), config, &arena);
        EXPECT(lnp_forward(engine, 0, x, shape.hidden, all, shape.neurons, y, shape.hidden) ==
               (verify ? LNP_ERROR_DAMAGED : LNP_OK));
        EXPECT(lnp_close(engine) == LNP_OK);
        give_back(arena);
    }
}

/* A device that fails after any number of reads: an error each time, never a crash, and it comes back. */
static void failing_storage(const char *path) {
    struct pread_storage context;
    lnp_storage_t storage;
    pread_storage_init(&context, open(path, O_RDONLY), &storage);
    lnp_source_t source = {.kind = LNP_SOURCE_STORAGE, .storage = &storage};
    lnp_config_t config = plain();
    config.prefetch_bytes = 1 << 16;
    size_t bytes;
    EXPECT(lnp_required_bytes(&source, &config, &bytes) == LNP_OK);
    struct arena arena = arena_of(bytes);
    float x[NEURONS_MAX], y[NEURONS_MAX];
    uint32_t active[NEURONS_MAX];
    unsigned long failed = 0;
    for (long reads = 0; reads < 60; reads++) {
        context.reads_left = reads;
        lnp_engine_t *engine;
        int32_t status = lnp_open(&source, &config, arena.bytes, bytes, &engine);
        if (status != LNP_OK) {
            EXPECT(status == LNP_ERROR_READ);
            failed++;
            continue;
        }
        lnp_shape_t shape;
        EXPECT(lnp_shape(engine, &shape) == LNP_OK);
        for (uint32_t layer = 0; layer < shape.layers; layer++) {
            size_t count = inputs(&shape, layer, x, active);
            EXPECT(lnp_prefetch(engine, (layer + 1) % shape.layers, active, count / 2) == LNP_OK);
            status = lnp_forward(engine, layer, x, shape.hidden, active, count, y, shape.hidden);
            EXPECT(status == LNP_OK || status == LNP_ERROR_READ);
            failed += status != LNP_OK;
        }
        context.reads_left = -1;
        size_t count = inputs(&shape, 0, x, active);
        EXPECT(lnp_forward(engine, 0, x, shape.hidden, active, count, y, shape.hidden) == LNP_OK);
        EXPECT(lnp_close(engine) == LNP_OK);
    }
    EXPECT(failed > 5);
    close(context.fd);
    give_back(arena);
}

static int32_t (*sound_complete)(void *, int32_t, uint32_t *, int32_t *);
static unsigned lies;

/* Says that nothing has ended though it should wait, and now and then tells of a read that there is not. */
static int32_t lying_complete(void *context, int32_t wait, uint32_t *tag, int32_t *bytes) {
    if (++lies % 2) return 0;
    if (lies % 64 == 0) {
        *tag = 77;
        *bytes = 4096;
        return 1;
    }
    return sound_complete(context, wait, tag, bytes);
}

/* A storage that does not keep its promises: errors, and nothing given back under its reads. */
static void lying_storage(const char *path) {
    struct pread_storage context;
    lnp_storage_t storage;
    pread_storage_init(&context, open(path, O_RDONLY), &storage);
    sound_complete = storage.complete;
    storage.complete = lying_complete;
    lnp_source_t source = {.kind = LNP_SOURCE_STORAGE, .storage = &storage};
    lnp_config_t config = plain();
    unsigned long failed = 0, fine = 0;
    for (int round = 0; round < 40; round++) {
        struct arena arena;
        lnp_engine_t *engine = open_with(source, config, &arena);
        lnp_shape_t shape;
        EXPECT(lnp_shape(engine, &shape) == LNP_OK);
        float x[NEURONS_MAX], y[NEURONS_MAX];
        uint32_t active[NEURONS_MAX];
        for (uint32_t layer = 0; layer < shape.layers; layer++) {
            size_t count = inputs(&shape, layer, x, active);
            int32_t status = lnp_forward(engine, layer, x, shape.hidden, active, count, y, shape.hidden);
            EXPECT(status == LNP_OK || status == LNP_ERROR_READ);
            if (status == LNP_OK) fine++; else failed++;
        }
        EXPECT(lnp_close(engine) == LNP_OK);
        EXPECT(context.count == 0); /* all was told of */
        give_back(arena);
    }
    EXPECT(failed > 0 && fine > 0);
    close(context.fd);
}

/* A child opens its own, elsewhere or where its parent's is; that one it can neither use nor close. */
static void forked(const char *path) {
    struct arena arena;
    lnp_engine_t *engine = open_with(at(path), plain(), &arena);
    pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        struct arena own;
        lnp_engine_t *mine = open_with(at(path), plain(), &own);
        lnp_shape_t shape;
        EXPECT(lnp_shape(mine, &shape) == LNP_OK && lnp_close(mine) == LNP_OK);
        EXPECT(lnp_shape(engine, &shape) == LNP_ERROR_ARGUMENT);
        EXPECT(lnp_close(engine) == LNP_ERROR_ARGUMENT);
        EXPECT(lnp_last_error(engine, NULL, 0) == 0);
        lnp_source_t source = at(path);
        lnp_config_t config = plain();
        EXPECT(lnp_open(&source, &config, arena.bytes, arena.size, &mine) == LNP_OK);
        EXPECT(lnp_shape(mine, &shape) == LNP_OK);
        float *z = malloc((size_t)shape.layers * shape.hidden * sizeof(float));
        forward_all(mine, 0, z);
        EXPECT(lnp_close(mine) == LNP_OK);
        _exit(0);
    }
    int status = 1;
    EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    lnp_shape_t shape;
    EXPECT(lnp_shape(engine, &shape) == LNP_OK);
    float *y = malloc((size_t)shape.layers * shape.hidden * sizeof(float));
    forward_all(engine, 0, y);
    free(y);
    EXPECT(lnp_close(engine) == LNP_OK);
    give_back(arena);
}

/* From now on getpid fails; 0 where the system cannot be told so, as emulators cannot. */
static int forbid_getpid(void) {
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof steps / sizeof *steps, .filter = steps};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return 0;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 && syscall(SYS_getpid) == -1;
}

/* Between open and close nobody asks the kernel which process this is: not on the way of a token. */
static void whose_without_a_system_call(const char *path) {
    pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        struct arena arena;
        lnp_config_t config = plain();
        config.prefetch_bytes = 1 << 20;
        lnp_engine_t *engine = open_with(at(path), config, &arena);
        if (!forbid_getpid()) _exit(77);
        lnp_shape_t shape;
        EXPECT(lnp_shape(engine, &shape) == LNP_OK);
        float *y = malloc((size_t)shape.layers * shape.hidden * sizeof(float));
        forward_all(engine, 1, y);
        lnp_statistics_t statistics;
        EXPECT(lnp_statistics(engine, &statistics) == LNP_OK);
        EXPECT(lnp_last_error(engine, NULL, 0) == 0);
        EXPECT(lnp_close(engine) == LNP_OK);
        _exit(0);
    }
    int status = 1;
    EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) puts("system calls cannot be forbidden here: getpid was not looked for");
    EXPECT(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77);
}

/* --- how much stack the functions take --- */

#define STACK (1 << 20)

/* What is done on a stack of its own. */
struct task {
    int what; /* 0: nothing, 1: sizes, 2: open, 3: a token */
    lnp_source_t source;
    lnp_config_t config;
    struct arena arena;
    lnp_engine_t *engine;
    float *x, *y;
    uint32_t *active;
};

static void *perform(void *given) {
    struct task *task = given;
    size_t bytes;
    lnp_shape_t shape;
    lnp_statistics_t statistics;
    switch (task->what) {
    case 1:
        EXPECT(lnp_required_bytes(&task->source, &task->config, &bytes) == LNP_OK);
        break;
    case 2:
        EXPECT(lnp_open(&task->source, &task->config, task->arena.bytes, task->arena.size, &task->engine) == LNP_OK);
        break;
    case 3:
        EXPECT(lnp_shape(task->engine, &shape) == LNP_OK);
        for (uint32_t layer = 0; layer < shape.layers; layer++) {
            size_t count = inputs(&shape, layer, task->x, task->active);
            EXPECT(lnp_prefetch(task->engine, (layer + 1) % shape.layers, task->active, count) == LNP_OK);
            EXPECT(lnp_forward(task->engine, layer, task->x, shape.hidden, task->active, count, task->y,
                               shape.hidden) == LNP_OK);
        }
        EXPECT(lnp_statistics(task->engine, &statistics) == LNP_OK);
        break;
    }
    return NULL;
}

/* Bytes of stack that a task touches, the thread's own included. */
static size_t stack_of(struct task *task, int what) {
    unsigned char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(stack != MAP_FAILED);
    memset(stack, 0xa5, STACK);
    pthread_attr_t attributes;
    pthread_t thread;
    task->what = what;
    EXPECT(pthread_attr_init(&attributes) == 0 && pthread_attr_setstack(&attributes, stack, STACK) == 0);
    EXPECT(pthread_create(&thread, &attributes, perform, task) == 0 && pthread_join(thread, NULL) == 0);
    pthread_attr_destroy(&attributes);
    size_t untouched = 0;
    while (untouched < STACK && stack[untouched] == 0xa5) untouched++;
    munmap(stack, STACK);
    return STACK - untouched;
}

/* As docs/integration.md says. */
static void stack_use(const char *path) {
    struct task task = {.source = at(path), .config = plain()};
    task.config.collapse = LNP_COLLAPSE_LAW;
    task.config.flags |= LNP_ADAPT | LNP_VERIFY_READS;
    task.config.law_a_us = 10, task.config.law_b_mib_s = 2000;
    task.config.prefetch_bytes = 1 << 20;
    size_t bytes = 0;
    EXPECT(lnp_required_bytes(&task.source, &task.config, &bytes) == LNP_OK);
    task.arena = arena_of(bytes);
    task.x = malloc(NEURONS_MAX * sizeof(float)), task.y = malloc(NEURONS_MAX * sizeof(float));
    task.active = malloc(NEURONS_MAX * sizeof(uint32_t));
    size_t own = stack_of(&task, 0), sizes = stack_of(&task, 1) - own, opening = stack_of(&task, 2) - own;
    size_t token = stack_of(&task, 3) - own;
    printf("stack: %zu bytes for lnp_required_bytes, %zu for lnp_open, %zu for a token\n", sizes, opening, token);
    EXPECT(lnp_close(task.engine) == LNP_OK);
    EXPECT(sizes <= 32 << 10 && opening <= 160 << 10 && token <= 16 << 10);
    free(task.x), free(task.y), free(task.active);
    give_back(task.arena);
}

int main(int count, char **arguments) {
    if (count != 6) {
        fprintf(stderr, "usage: abi PACK PLACEHOLDER DAMAGED PREDICTED BLOCK_DEVICE|-\n");
        return 2;
    }
    EXPECT(lnp_version() == LNP_VERSION);
    the_same_bits(arguments[1], arguments[5]);
    predicting(arguments[1], arguments[4]);
    recording(arguments[1], arguments[4]);
    wrong_arguments(arguments[1]);
    wrong_settings(arguments[1]);
    wrong_sources(arguments[1], arguments[2]);
    broken_packs(arguments[1], arguments[3]);
    failing_storage(arguments[1]);
    lying_storage(arguments[1]);
    forked(arguments[1]);
    whose_without_a_system_call(arguments[1]);
    stack_use(arguments[1]);
    printf("%lu checks of the C ABI, all so\n", checks);
    return 0;
}
