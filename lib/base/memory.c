/* The allocator of the embedder. There is one for the whole process, so this file is in liblido alone: the copy of lib/base in
 * liblido-pg comes here through the public functions.
 */
#include "lido/memory.h"

#include <stdlib.h>
#include <string.h>

#include "base/atomic.h"
#include "base/sized.h"

/* UNUSED -> USED at the first allocation; from then on `chosen` is constant. */
enum { UNUSED, USED };
static _Atomic uint32_t state;
static struct lido_allocator chosen; /* written before anything is allocated, then constant */

int lido_set_allocator(const struct lido_allocator *allocator)
{
        struct lido_allocator ours;
        int rc = sized_take(&ours, sizeof ours, allocator);

        if (rc != LIDO_OK)
                return rc;
        if (allocator && (!ours.allocate || !ours.free))
                return LIDO_EINVAL;
        if (load_acquire(&state) == USED)
                return LIDO_EBUSY;
        chosen = ours;
        return LIDO_OK;
}

/* The C library has zeroed memory cheaply; on boundaries beyond its own it has not. */
static void *allocate_plainly(size_t alignment, size_t bytes)
{
        void *memory;

        if (alignment <= _Alignof(max_align_t))
                return calloc(1, bytes);
        if (posix_memalign(&memory, alignment, bytes) != 0)
                return NULL;
        return memset(memory, 0, bytes);
}

void *lido_allocate(size_t alignment, size_t bytes)
{
        void *memory;

        if (load_relaxed(&state) != USED)
                store_release(&state, USED);
        if (bytes == 0)
                bytes = 1;
        if (!chosen.allocate)
                return allocate_plainly(alignment, bytes);
        memory = chosen.allocate(alignment, bytes, chosen.context);
        return memory ? memset(memory, 0, bytes) : NULL;
}

void lido_deallocate(void *memory)
{
        if (!memory)
                return;
        if (chosen.free)
                chosen.free(memory, chosen.context);
        else
                free(memory);
}
