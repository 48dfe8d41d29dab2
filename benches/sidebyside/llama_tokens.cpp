// Greedy tokens after given token ids by llama.cpp's library, timed one by one. llama-bench makes up its tokens;
// here two programs must be given the same.
//
//     llama_tokens MODEL.gguf --ids 1,2,3 [-n 64] [--threads 2] [--kv f16|f32] [--memory] [--repack] [--seconds S]
//
// What is fair under a memory limit: weights by mmap as llama.cpp has them by default (it maps the file with
// MAP_POPULATE, so that loading reads all of it once), no repacked copies (they are anonymous memory, which the
// kernel cannot take back), no warm-up token, a context of just the tokens asked for, one batch for the prompt.
// --memory reads the weights into memory instead of mapping them, --repack allows repacked copies.
//
// Prints two lines of JSON: {"first_token": ID} when the first token is there, and what the run came to. With --seconds
// it ends after the token during which S seconds were over.

#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "llama.h"

using Clock = std::chrono::steady_clock;

static double since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

[[noreturn]] static void fail(const std::string & what) {
    std::fprintf(stderr, "llama_tokens: %s\n", what.c_str());
    std::exit(1);
}

// What this process has read from devices, mapped pages too, and how often it waited for a page.
struct Read {
    long long bytes = 0;
    long long faults = 0;

    static Read now() {
        Read read;
        if (FILE * file = std::fopen("/proc/self/io", "r")) {
            char line[128];
            while (std::fgets(line, sizeof line, file)) {
                std::sscanf(line, "read_bytes: %lld", &read.bytes);
            }
            std::fclose(file);
        }
        rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        read.faults = usage.ru_majflt;
        return read;
    }
};

template <typename T> static std::string list(const std::vector<T> & values) {
    std::string text;
    for (const T & value : values) {
        text += (text.empty() ? "" : ",") + std::to_string(value);
    }
    return "[" + text + "]";
}

int main(int count, char ** args) {
    const Clock::time_point begin = Clock::now();
    if (count < 2) {
        fail("give MODEL.gguf --ids 1,2,3");
    }
    std::vector<llama_token> ids;
    int tokens = 64, threads = 2;
    double seconds = 1e9;
    llama_model_params model_params = llama_model_default_params();
    model_params.load_mode = LLAMA_LOAD_MODE_MMAP;
    model_params.n_gpu_layers = 0;
    model_params.use_extra_bufts = false;
    llama_context_params params = llama_context_default_params();
    for (int at = 2; at < count; at++) {
        const std::string name = args[at];
        if (name == "--repack") {
            model_params.use_extra_bufts = true;
            continue;
        }
        if (name == "--memory") {
            model_params.load_mode = LLAMA_LOAD_MODE_NONE;
            continue;
        }
        if (at + 1 == count) {
            fail(name + ": no such option, or its value is missing");
        }
        const char * value = args[++at];
        if (name == "--ids") {
            for (const char * next = value; *next;) {
                char * end;
                ids.push_back((llama_token) std::strtol(next, &end, 10));
                if (end == next) {
                    fail(std::string("--ids ") + value + ": not whole numbers with commas between");
                }
                next = *end == ',' ? end + 1 : end;
            }
        } else if (name == "-n") {
            tokens = std::atoi(value);
        } else if (name == "--threads") {
            threads = std::atoi(value);
        } else if (name == "--seconds") {
            seconds = std::atof(value);
        } else if (name == "--kv") {
            params.type_k = params.type_v = std::strcmp(value, "f32") == 0 ? GGML_TYPE_F32 : GGML_TYPE_F16;
        } else {
            fail(name + ": no such option");
        }
    }
    if (ids.empty() || tokens < 1 || threads < 1) {
        fail("at least one id, one token and one thread are needed");
    }
    llama_log_set(
        [](ggml_log_level level, const char * text, void *) {
            if (level == GGML_LOG_LEVEL_ERROR) {
                std::fputs(text, stderr);
            }
        },
        nullptr);
    llama_backend_init();
    llama_model * model = llama_model_load_from_file(args[1], model_params);
    if (!model) {
        fail(std::string(args[1]) + ": llama.cpp does not load it");
    }
    const int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    for (llama_token id : ids) {
        if (id < 0 || id >= vocabulary) {
            fail("--ids: " + std::to_string(id) + " is no token of a vocabulary of " + std::to_string(vocabulary));
        }
    }
    params.n_ctx = (uint32_t) (ids.size() + tokens);
    params.n_batch = params.n_ubatch = (uint32_t) ids.size();
    params.n_threads = params.n_threads_batch = threads;
    llama_context * context = llama_init_from_model(model, params);
    if (!context) {
        fail("no context can be made");
    }
    const double load_s = since(begin);
    const Read loaded = Read::now();
    Read first;
    std::vector<llama_token> made;
    std::vector<long> us;
    double first_s = 0;
    while ((int) made.size() < tokens && (made.empty() || since(begin) < seconds)) {
        const Clock::time_point start = Clock::now();
        llama_batch batch = made.empty() ? llama_batch_get_one(ids.data(), (int32_t) ids.size())
                                         : llama_batch_get_one(&made.back(), 1);
        if (llama_decode(context, batch) != 0) {
            fail("llama_decode failed at token " + std::to_string(made.size()));
        }
        const float * logits = llama_get_logits_ith(context, -1);
        llama_token best = 0;
        for (llama_token id = 1; id < vocabulary; id++) {
            if (logits[id] > logits[best]) {
                best = id;
            }
        }
        made.push_back(best);
        us.push_back((long) (since(start) * 1e6));
        if (made.size() == 1) {
            first_s = since(begin);
            first = Read::now();
            std::printf("{\"first_token\": %d}\n", best);
            std::fflush(stdout);
        }
    }
    const Read end = Read::now();
    const size_t after = made.size() - 1;
    double whole_us = 0;
    for (size_t at = 1; at < us.size(); at++) {
        whole_us += (double) us[at];
    }
    const std::string rate = after ? std::to_string((double) after / (whole_us / 1e6)) : "null";
    std::printf("{\"token_ids\": %s, \"load_s\": %.6f, \"time_to_first_token_s\": %.6f, \"tokens_per_s\": %s, "
                "\"us\": %s, \"model_bytes\": %llu, \"bytes_read\": {\"load\": %lld, \"prompt\": %lld, \"tokens\": %lld}, "
                "\"major_faults\": {\"load\": %lld, \"prompt\": %lld, \"tokens\": %lld}, \"system\": \"%s\"}\n",
                list(made).c_str(), load_s, first_s, rate.c_str(), list(us).c_str(),
                (unsigned long long) llama_model_size(model), loaded.bytes, first.bytes - loaded.bytes,
                end.bytes - first.bytes, loaded.faults, first.faults - loaded.faults, end.faults - first.faults,
                llama_print_system_info());
    llama_free(context);
    llama_model_free(model);
}
