/* lido/memory.h - where lido takes its memory from.
 *
 * By default from the C library. An embedder with an allocator of its own says so once, before anything else:
 *
 *      struct lido_allocator allocator = LIDO_ALLOCATOR_INIT;
 *      allocator.allocate = my_allocate;
 *      allocator.free = my_free;
 *      lido_set_allocator(&allocator);
 *
 * It serves all that lido keeps for itself, in liblido-pg too. It does not serve what others allocate: libuv
 * (uv_replace_allocator), libpq and the C library. Slots lie in address space that is reserved once from the operating
 * system, and the memory of buffers comes from the source that their pool names (lido/buffer.h). Acquire and release
 * allocate nothing.
 */
#ifndef LIDO_MEMORY_H
#define LIDO_MEMORY_H

#include "lido/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Both are called from any thread, also from several at a time, and perhaps while lido holds a lock: neither may call lido. */
struct lido_allocator {
        size_t size;
        /* Memory of `bytes` (never 0) on a boundary of `alignment`, a power of two; what is in it does not matter. NULL: there is
         * none, and whoever asked gets LIDO_ENOMEM. */
        void *(*allocate)(size_t alignment, size_t bytes, void *context);
        /* Take it back; never NULL. */
        void (*free)(void *memory, void *context);
        void *context;
};
#define LIDO_ALLOCATOR_INIT LIDO_SIZED(lido_allocator)

/* Let lido take its memory from `allocator`, or again from the C library (NULL). Some memory is kept for reuse until the
 * process ends, and never given back.
 * Threads: one at a time, before any other function of lido. Blocks: no. Owns: the struct is copied; functions and context
 * must stay.
 * Returns: LIDO_OK; LIDO_EBUSY once lido has allocated something; LIDO_EINVAL without both functions; LIDO_E2NEW. */
LIDO_API int lido_set_allocator(const struct lido_allocator *allocator);

/* Memory from where lido has its own, zeroed, for factories that would like theirs from there, too; given back by lido_deallocate.
 * Threads: any. Blocks: as the allocator does. Owns: the caller. Returns: the memory; NULL when there is none. */
LIDO_API void *lido_allocate(size_t alignment, size_t bytes);

/* Give it back; NULL is allowed. Threads: any. Blocks: as the allocator does. Owns: the allocator's again. */
LIDO_API void lido_deallocate(void *memory);

#ifdef __cplusplus
}
#endif
#endif
