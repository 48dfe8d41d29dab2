// What memory gives: THREADS threads each sum their own MIB of memory again and again; the median pass, in bytes a
// second. Compiled for this very CPU, so that the sum is as wide as its registers.
//
//     bandwidth THREADS MIB PASSES

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static size_t words;
static int passes;
static pthread_barrier_t barrier;
static volatile uint64_t sink;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double) time.tv_sec + (double) time.tv_nsec / 1e9;
}

// All threads read at the same time; the first one takes the time from when all begin to when all have ended.
static void * reader(void * times) {
    uint64_t * memory = mmap(NULL, words * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr, "bandwidth: no memory\n");
        exit(1);
    }
    madvise(memory, words * 8, MADV_HUGEPAGE);
    for (size_t at = 0; at < words; at++) {
        memory[at] = at;
    }
    for (int pass = 0; pass < passes; pass++) {
        pthread_barrier_wait(&barrier);
        const double begin = now();
        uint64_t sum = 0;
        for (size_t at = 0; at < words; at++) {
            sum += memory[at];
        }
        sink = sum;
        pthread_barrier_wait(&barrier);
        if (times) {
            ((double *) times)[pass] = now() - begin;
        }
    }
    return NULL;
}

static int shorter(const void * a, const void * b) {
    const double left = *(const double *) a, right = *(const double *) b;
    return (left > right) - (left < right);
}

int main(int count, char ** args) {
    const int threads = count == 4 ? atoi(args[1]) : 0;
    words = count == 4 ? (size_t) atol(args[2]) << 17 : 0;
    passes = count == 4 ? atoi(args[3]) : 0;
    if (threads < 1 || words < 1 || passes < 1) {
        fprintf(stderr, "bandwidth: give THREADS MIB PASSES\n");
        return 2;
    }
    double * times = calloc((size_t) passes, sizeof *times);
    pthread_t others[threads];
    pthread_barrier_init(&barrier, NULL, (unsigned) threads);
    for (int at = 1; at < threads; at++) {
        pthread_create(&others[at], NULL, reader, NULL);
    }
    reader(times);
    for (int at = 1; at < threads; at++) {
        pthread_join(others[at], NULL);
    }
    qsort(times, (size_t) passes, sizeof *times, shorter);
    printf("%.0f\n", (double) threads * (double) words * 8 / times[passes / 2]);
}
