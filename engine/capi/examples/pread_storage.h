/* A storage back end of one's own, the simplest there is: reads are done when they are asked for. A
 * firmware's driver would start a transfer in submit() and collect it in complete(). */
#ifndef PREAD_STORAGE_H
#define PREAD_STORAGE_H

#include "lnp.h"

#define PREAD_STORAGE_DEPTH 8

struct pread_storage {
    int fd;
    /* reads that have ended and were not told of yet: a ring */
    struct {
        uint32_t tag;
        int32_t bytes;
    } ended[PREAD_STORAGE_DEPTH];
    uint32_t begin, count;
    /* for tests: this many more reads succeed, then the device fails; negative: it never does */
    long reads_left;
};

/* Fills in `storage` so that it reads from `context`. */
void pread_storage_init(struct pread_storage *context, int fd, lnp_storage_t *storage);

#endif
