/* Generates text with a small OPT model: embeddings, attention and norms in plain C from the model's
 * folder, the FFN through lnp, which reads the active neurons from a pack on flash.
 *
 *   generate PACK MODEL_DIR TOKENS ID,ID,...            prints the ids generated, greedily
 *   generate --storage PACK MODEL_DIR TOKENS ID,ID,...  the same by a storage back end of its own
 *   generate --record TRACE PACK MODEL_DIR TOKENS ...   also writes what was asked for, for `lnp relink --seen TRACE`
 *
 * For f16 and f32 models with the norm before (as demo/ is). The ids of a prompt are those that
 * `lnp run --json` prints. It stands for what a program around the engine does; it is not fast. */
#define _GNU_SOURCE /* O_DIRECT is not needed here, mmap is */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lnp.h"
#include "pread_storage.h"

#define TOKENS_MAX 256

static void die(const char *what, const char *why) {
    fprintf(stderr, "generate: %s: %s\n", what, why);
    exit(1);
}

/* --- the model's file --- */

struct file {
    const char *bytes;
    size_t size;
};

struct tensor {
    const char *bytes;
    size_t rows, columns; /* columns 1 for a vector */
    int half;             /* f16, else f32 */
};

static struct file map_file(const char *folder, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat found;
    if (fd < 0 || fstat(fd, &found) != 0 || found.st_size == 0) die(path, "cannot be read");
    void *bytes = mmap(NULL, (size_t)found.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED) die(path, "cannot be mapped");
    close(fd);
    return (struct file){bytes, (size_t)found.st_size};
}

/* The place after `"key":` in `size` bytes of JSON. */
static const char *after_key(const char *json, size_t size, const char *key) {
    char quoted[256];
    snprintf(quoted, sizeof quoted, "\"%s\"", key);
    const char *found = memmem(json, size, quoted, strlen(quoted));
    if (found == NULL) die(key, "not in the model");
    found += strlen(quoted);
    while (found < json + size && (*found == ':' || *found == ' ')) found++;
    return found;
}

/* A tensor of so many rows, or of any number where that is 0. */
static struct tensor tensor(struct file file, const char *name, size_t rows_wanted, size_t columns_wanted) {
    uint64_t header;
    memcpy(&header, file.bytes, sizeof header);
    if (file.size < 8 || header > file.size - 8) die(name, "the model file is cut short");
    const char *json = file.bytes + 8, *entry = after_key(json, header, name);
    const char *end = memchr(entry, '}', (size_t)(json + header - entry));
    if (end == NULL) die(name, "the model file's header is damaged");
    size_t length = (size_t)(end - entry);
    struct tensor found = {.columns = 1};
    found.half = memmem(entry, length, "\"F16\"", 5) != NULL;
    if (!found.half && memmem(entry, length, "\"F32\"", 5) == NULL) die(name, "neither f16 nor f32");
    unsigned long long rows, columns = 1, begin, stop;
    if (sscanf(after_key(entry, length, "shape"), "[%llu,%llu", &rows, &columns) < 1 ||
        sscanf(after_key(entry, length, "data_offsets"), "[%llu,%llu", &begin, &stop) != 2 ||
        stop > file.size - 8 - header || begin > stop ||
        stop - begin != rows * columns * (found.half ? 2 : 4))
        die(name, "the model file's header is damaged");
    if ((rows_wanted != 0 && rows != rows_wanted) || columns != columns_wanted)
        die(name, "of another shape than the pack is for: another model?");
    found.rows = rows;
    found.columns = columns;
    found.bytes = json + header + begin;
    return found;
}

static struct tensor layer_tensor(struct file file, unsigned layer, const char *name, size_t rows, size_t columns) {
    char full[128];
    snprintf(full, sizeof full, "model.decoder.layers.%u.%s", layer, name);
    return tensor(file, full, rows, columns);
}

static float value(struct tensor tensor, size_t at) {
    if (!tensor.half) {
        float single;
        memcpy(&single, tensor.bytes + 4 * at, 4);
        return single;
    }
    uint16_t half;
    memcpy(&half, tensor.bytes + 2 * at, 2);
    int exponent = half >> 10 & 31, mantissa = half & 1023;
    float size = exponent == 0 ? ldexpf((float)mantissa, -24) : ldexpf((float)(mantissa + 1024), exponent - 25);
    return half >> 15 ? -size : size;
}

/* --- the dense parts --- */

static float dot(struct tensor matrix, size_t row, const float *x) {
    float sum = 0;
    for (size_t i = 0; i < matrix.columns; i++) sum += value(matrix, row * matrix.columns + i) * x[i];
    return sum;
}

static void linear(struct file file, unsigned layer, const char *name, size_t hidden, const float *x, float *y) {
    char weight[64], bias[64];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    struct tensor w = layer_tensor(file, layer, weight, hidden, hidden);
    struct tensor b = layer_tensor(file, layer, bias, hidden, 1);
    for (size_t i = 0; i < w.rows; i++) y[i] = dot(w, i, x) + value(b, i);
}

static void norm(struct tensor scale, struct tensor shift, const float *x, float *y) {
    size_t n = scale.rows;
    double mean = 0, square = 0;
    for (size_t i = 0; i < n; i++) mean += x[i];
    mean /= (double)n;
    for (size_t i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
    double by = 1 / sqrt(square / (double)n + 1e-5);
    for (size_t i = 0; i < n; i++)
        y[i] = (float)((x[i] - mean) * by) * value(scale, i) + value(shift, i);
}

/* keys and values of all tokens so far: [layer][token][hidden] */
struct memory {
    float *keys, *values;
};

static void attention(struct file file, unsigned layer, unsigned heads, size_t hidden, size_t token,
                      struct memory memory, const float *x, float *y) {
    float query[hidden], mixed[hidden], weight[TOKENS_MAX];
    size_t width = hidden / heads, base = layer * TOKENS_MAX * hidden;
    linear(file, layer, "self_attn.q_proj", hidden, x, query);
    linear(file, layer, "self_attn.k_proj", hidden, x, memory.keys + base + token * hidden);
    linear(file, layer, "self_attn.v_proj", hidden, x, memory.values + base + token * hidden);
    for (size_t head = 0; head < heads; head++) {
        float most = -INFINITY, sum = 0;
        for (size_t t = 0; t <= token; t++) {
            const float *key = memory.keys + base + t * hidden + head * width;
            weight[t] = 0;
            for (size_t i = 0; i < width; i++) weight[t] += query[head * width + i] * key[i];
            weight[t] /= sqrtf((float)width);
            most = fmaxf(most, weight[t]);
        }
        for (size_t t = 0; t <= token; t++) sum += weight[t] = expf(weight[t] - most);
        for (size_t i = 0; i < width; i++) {
            float total = 0;
            for (size_t t = 0; t <= token; t++)
                total += weight[t] / sum * memory.values[base + t * hidden + head * width + i];
            mixed[head * width + i] = total;
        }
    }
    linear(file, layer, "self_attn.out_proj", hidden, mixed, y);
}

/* --- the FFN, through lnp --- */

static void check(int32_t status, lnp_engine_t *engine, const char *what) {
    if (status == LNP_OK) return;
    char text[240] = "";
    lnp_last_error(engine, text, sizeof text);
    die(what, text[0] ? text : lnp_status_text(status));
}

/* The neurons that will fire, by the model's own weights: where a predictor would stand. */
static size_t predict(struct file file, unsigned layer, const lnp_shape_t *shape, const float *x, uint32_t *active) {
    struct tensor up = layer_tensor(file, layer, "fc1.weight", shape->neurons, shape->hidden);
    struct tensor bias = layer_tensor(file, layer, "fc1.bias", shape->neurons, 1);
    size_t count = 0;
    for (size_t neuron = 0; neuron < up.rows; neuron++)
        if (dot(up, neuron, x) + value(bias, neuron) > 0) active[count++] = (uint32_t)neuron;
    return count;
}

/* One token through the model; the id that is most likely next. */
static uint32_t step(struct file file, lnp_engine_t *engine, const lnp_shape_t *shape, unsigned heads,
                     struct memory memory, size_t token, uint32_t id) {
    size_t hidden = shape->hidden;
    struct tensor tokens = tensor(file, "model.decoder.embed_tokens.weight", 0, hidden);
    struct tensor places = tensor(file, "model.decoder.embed_positions.weight", 0, hidden);
    float x[hidden], normed[hidden], y[hidden];
    uint32_t active[shape->neurons];
    if (id >= tokens.rows || token + 2 >= places.rows) die("prompt", "an id or a length that the model does not have");
    for (size_t i = 0; i < hidden; i++)
        x[i] = value(tokens, id * hidden + i) + value(places, (token + 2) * hidden + i);
    for (unsigned layer = 0; layer < shape->layers; layer++) {
        norm(layer_tensor(file, layer, "self_attn_layer_norm.weight", hidden, 1),
             layer_tensor(file, layer, "self_attn_layer_norm.bias", hidden, 1), x, normed);
        attention(file, layer, heads, hidden, token, memory, normed, y);
        for (size_t i = 0; i < hidden; i++) x[i] += y[i];
        norm(layer_tensor(file, layer, "final_layer_norm.weight", hidden, 1),
             layer_tensor(file, layer, "final_layer_norm.bias", hidden, 1), x, normed);
        size_t count = predict(file, layer, shape, normed, active);
        check(lnp_forward(engine, layer, normed, hidden, active, count, y, hidden), engine, "FFN");
        for (size_t i = 0; i < hidden; i++) x[i] += y[i];
    }
    norm(tensor(file, "model.decoder.final_layer_norm.weight", hidden, 1),
         tensor(file, "model.decoder.final_layer_norm.bias", hidden, 1), x, normed);
    uint32_t best = 0;
    float most = -INFINITY;
    for (uint32_t i = 0; i < tokens.rows; i++) {
        float logit = dot(tokens, i, normed);
        if (logit > most) most = logit, best = i;
    }
    return best;
}

/* What was asked for, as a trace file. A program that is to survive a power cut writes beside, syncs, and renames. */
static void write_recorded(lnp_engine_t *engine, const char *path) {
    FILE *file = fopen(path, "wb");
    if (file == NULL) die(path, "cannot be written");
    char part[4096];
    size_t copied = 0;
    for (uint64_t at = 0;; at += copied) {
        check(lnp_recorded(engine, at, part, sizeof part, &copied), engine, "recorded");
        if (copied == 0) break;
        if (fwrite(part, 1, copied, file) != copied) die(path, "cannot be written");
    }
    if (fclose(file) != 0) die(path, "cannot be written");
}

int main(int count, char **arguments) {
    int own_storage = count > 1 && strcmp(arguments[1], "--storage") == 0;
    const char *record = count > 2 && strcmp(arguments[1], "--record") == 0 ? arguments[2] : NULL;
    int options = own_storage + (record ? 2 : 0);
    char **argument = arguments + 1 + options;
    if (count - options != 5) {
        fprintf(stderr, "usage: generate [--storage | --record TRACE] PACK MODEL_DIR TOKENS ID,ID,...\n");
        return 2;
    }
    if (lnp_version() >> 8 != LNP_VERSION >> 8) die("lnp", "the library is of another version");

    lnp_config_t config = {.struct_bytes = sizeof config, .cache_bundles = 256, .flags = LNP_VERIFY_READS};
    lnp_source_t source = {.kind = LNP_SOURCE_PATH, .path = argument[0]};
    if (record) config.record_tokens = TOKENS_MAX;
    struct pread_storage context;
    lnp_storage_t storage;
    if (own_storage) {
        pread_storage_init(&context, open(argument[0], O_RDONLY | O_CLOEXEC), &storage);
        source = (lnp_source_t){.kind = LNP_SOURCE_STORAGE, .storage = &storage};
    }
    size_t bytes;
    check(lnp_required_bytes(&source, &config, &bytes), NULL, argument[0]);
    void *arena = aligned_alloc(4096, (bytes + 4095) & ~(size_t)4095);
    if (arena == NULL) die("memory", "there is not enough");
    lnp_engine_t *engine;
    check(lnp_open(&source, &config, arena, bytes, &engine), arena, argument[0]);
    lnp_shape_t shape;
    check(lnp_shape(engine, &shape), engine, "shape");

    struct file settings = map_file(argument[1], "config.json");
    struct file weights = map_file(argument[1], "model.safetensors");
    unsigned heads = (unsigned)atoi(after_key(settings.bytes, settings.size, "num_attention_heads"));
    if (heads == 0 || shape.hidden % heads != 0) die("config.json", "no number of heads that fits");
    size_t floats = (size_t)shape.layers * TOKENS_MAX * shape.hidden;
    struct memory memory = {calloc(floats, sizeof(float)), calloc(floats, sizeof(float))};
    if (memory.keys == NULL || memory.values == NULL) die("memory", "there is not enough");

    size_t token = 0;
    uint32_t next = 0;
    for (char *id = strtok(argument[3], ","); id != NULL; id = strtok(NULL, ",")) {
        if (token == TOKENS_MAX) die("prompt", "too long");
        next = step(weights, engine, &shape, heads, memory, token++, (uint32_t)atoi(id));
    }
    size_t wanted = (size_t)atoi(argument[2]);
    if (token == 0 || token + wanted > TOKENS_MAX) die("tokens", "no prompt, or more than 256 in all");
    printf("[");
    for (size_t made = 0; made < wanted; made++) {
        printf(made ? ", %u" : "%u", next);
        if (made + 1 < wanted) next = step(weights, engine, &shape, heads, memory, token++, next);
    }
    printf("]\n");

    lnp_statistics_t done;
    check(lnp_statistics(engine, &done), engine, "statistics");
    fprintf(stderr, "%llu active bundles, %llu of them cached, %llu reads, %llu bytes, back end %u\n",
            (unsigned long long)done.active, (unsigned long long)done.hits, (unsigned long long)done.reads,
            (unsigned long long)done.bytes_read, done.back_end);
    if (record) write_recorded(engine, record);
    check(lnp_close(engine), engine, "close");
    free(arena);
    return 0;
}
