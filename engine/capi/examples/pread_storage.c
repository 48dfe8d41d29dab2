#include "pread_storage.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static int32_t submit(void *context, uint64_t offset, void *memory, uint32_t bytes, uint32_t tag) {
    struct pread_storage *storage = context;
    if (storage->count == PREAD_STORAGE_DEPTH) return EBUSY;
    uint32_t place = (storage->begin + storage->count++) % PREAD_STORAGE_DEPTH;
    storage->ended[place].tag = tag;
    if (storage->reads_left == 0) {
        storage->ended[place].bytes = -EIO;
        return 0;
    }
    if (storage->reads_left > 0) storage->reads_left--;
    uint32_t done = 0;
    while (done < bytes) {
        ssize_t came = pread(storage->fd, (char *)memory + done, bytes - done, (off_t)(offset + done));
        if (came < 0 && errno == EINTR) continue;
        if (came < 0) {
            storage->ended[place].bytes = -errno;
            return 0;
        }
        if (came == 0) break;
        done += (uint32_t)came;
    }
    storage->ended[place].bytes = (int32_t)done;
    return 0;
}

static int32_t complete(void *context, int32_t wait, uint32_t *tag, int32_t *bytes) {
    struct pread_storage *storage = context;
    (void)wait; /* whatever was submitted has ended */
    if (storage->count == 0) return 0;
    *tag = storage->ended[storage->begin].tag;
    *bytes = storage->ended[storage->begin].bytes;
    storage->begin = (storage->begin + 1) % PREAD_STORAGE_DEPTH;
    storage->count--;
    return 1;
}

void pread_storage_init(struct pread_storage *context, int fd, lnp_storage_t *storage) {
    memset(context, 0, sizeof *context);
    memset(storage, 0, sizeof *storage);
    context->fd = fd;
    context->reads_left = -1;
    storage->context = context;
    storage->queue_depth = PREAD_STORAGE_DEPTH;
    storage->align = 1; /* pread through the page cache takes anything */
    storage->submit = submit;
    storage->complete = complete;
}
