/* buffer/huge.h - buffers above the largest class: each a span of its own, kept while warm.
 *
 * Straight to the operating system and back costs 31 to 62 times a reuse (PEERS C1), so a released one waits
 * on a short list for a request that it fits, at most an eighth larger than asked for, until the decay or
 * warm_bytes sends it back.
 */
#ifndef LIDO_BUFFER_HUGE_H
#define LIDO_BUFFER_HUGE_H

#include "buffer/types.h"

/* Returns: 1; LIDO_EEXHAUSTED at the cap; LIDO_ENOMEM; LIDO_EINVAL above the cap. No lock held. */
int huge_take(struct lido_buffer_pool *pool, size_t bytes, struct entry *entry);

void huge_put(struct lido_buffer_pool *pool, const struct entry *entry);

/* End those that nobody has used for `age` ticks. Returns: bytes. */
size_t huge_shed(struct lido_buffer_pool *pool, uint32_t age);

bool huge_any_warm(struct lido_buffer_pool *pool);

/* A new tick. *ret_left becomes true when any is kept. */
void huge_tick(struct lido_buffer_pool *pool, bool *ret_left);

/* The size that a huge request is rounded to; 0 when it is too large for any. */
size_t huge_bytes_for(const struct lido_buffer_pool *pool, size_t bytes);

#endif
