/* buffer/classes.h - sizes: which classes a pool has, and which of them holds a buffer of so many bytes.
 *
 * Classes are geometric, per_doubling of them between a power of two and the next, no two closer than 16
 * bytes, each a multiple of the alignment, those above SINGLE_FROM whole pages; sizes named by the embedder
 * are added as they are. The waste of each scheme is in lib/buffer/README.md.
 *
 * The look-up: the three bits below the leading one of (bytes - 1) choose one of 8 ranges a doubling; map[]
 * has the first class that can hold the least size of the range, and a step or two lead from there to the
 * right one.
 */
#ifndef LIDO_BUFFER_CLASSES_H
#define LIDO_BUFFER_CLASSES_H

#include "buffer/types.h"

#define CLASS_LARGEST_MAX ((size_t)16 << 20)

/* Fill pool->sizes, class_count, map, largest, only_bytes from its options. Returns: LIDO_OK; LIDO_EINVAL. */
int classes_init(struct lido_buffer_pool *pool);

/* The range of a size; sizes from 1 to CLASS_LARGEST_MAX. */
static inline uint32_t class_range(size_t bytes)
{
        uint64_t m = (bytes - 1) | 15;
        uint32_t lg = 63u - (uint32_t)__builtin_clzll(m);

        return ((lg - 3) << 3) | (uint32_t)((m >> (lg - 3)) & 7);
}

/* The class of a size; CLASS_HUGE for none. `bytes` > 0. Hot. */
static inline uint32_t class_of(const struct lido_buffer_pool *pool, size_t bytes)
{
        uint32_t c;

        if (bytes > pool->largest)
                return CLASS_HUGE;
        if (pool->only_bytes != 0)
                return 0;
        c = pool->map[class_range(bytes)];
        while (pool->sizes[c] < bytes)
                c++;
        return c;
}

#endif
