/* buffer/acquire.h - the ways to a buffer and back, shared by the public calls, waiters and cache handles. */
#ifndef LIDO_BUFFER_ACQUIRE_H
#define LIDO_BUFFER_ACQUIRE_H

#include "buffer/types.h"

/* The class for a size; CLASS_HUGE also when there is none. */
uint32_t acquire_class(const struct lido_buffer_pool *pool, size_t bytes);

/* As depot_supply, with guard mode. Returns: how many, or a code. */
int acquire_supply(struct lido_buffer_pool *pool, uint32_t class_index, size_t bytes, struct entry *entries,
                   uint32_t count);

/* One entry for a newcomer, who does not overtake the line: thread cache refilled, or supply.
 * Returns: LIDO_OK, LIDO_EEXHAUSTED, LIDO_ENOMEM, LIDO_EFACTORY, LIDO_EINVAL, LIDO_ECLOSED, LIDO_EFORKED. */
int acquire_entry(struct lido_buffer_pool *pool, uint32_t class_index, size_t bytes, struct entry *ret_entry);

/* An entry becomes a lent buffer. */
void *acquire_finish(struct lido_buffer_pool *pool, const struct entry *entry, size_t bytes,
                     const char *site);

/* Entries of one pool and class that were won and are on no rack. `span` is that of one of them. */
void release_batch(struct span *span, const struct entry *entries, uint32_t count);

#endif
