/* buffer/os.h - regions of memory: the sources that come along, and what a pool asks of whatever source it
 * has. */
#ifndef LIDO_BUFFER_OS_H
#define LIDO_BUFFER_OS_H

#include "buffer/types.h"

/* A region for a pool, on a boundary of `alignment`, with its hints (huge pages, node) applied. NULL: none.
 * No lock held. */
void *region_map(struct lido_buffer_pool *pool, size_t bytes, size_t alignment);
void region_unmap(struct lido_buffer_pool *pool, void *region, size_t bytes);

/* Drop the contents of whole pages. Returns: true when the memory behind them is gone. */
bool region_purge(struct lido_buffer_pool *pool, void *memory, size_t bytes);

/* Address space without memory behind it until it is touched, for tables; NULL: none. */
void *os_reserve(size_t bytes);
void os_unreserve(void *memory, size_t bytes);

/* Make pages unreachable, or reachable again. Returns: true when done. */
bool os_protect(void *memory, size_t bytes, bool reachable);

#endif
