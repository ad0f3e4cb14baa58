/* buffer/guard.h - guard mode: each buffer ends at an unreachable page, and is unreachable as a whole once
 * released.
 *
 * A released buffer stays in quarantine, unreachable, until so many others have been released after it; then
 * its region ends. Use after release faults at the line that does it, for as long as the quarantine lasts.
 */
#ifndef LIDO_BUFFER_GUARD_H
#define LIDO_BUFFER_GUARD_H

#include "buffer/types.h"

#define QUARANTINE 256

/* The bytes that a buffer is given: rounded up to the alignment alone, so that an overrun is noticed at once.
 */
size_t guard_bytes_for(const struct lido_buffer_pool *pool, size_t bytes);

/* Returns: 1; LIDO_EEXHAUSTED; LIDO_ENOMEM. No lock held. */
int guard_take(struct lido_buffer_pool *pool, size_t bytes, struct entry *entry);

void guard_put(struct lido_buffer_pool *pool, const struct entry *entry);

/* End the quarantine. Returns: bytes. */
size_t guard_shed(struct lido_buffer_pool *pool);

#endif
