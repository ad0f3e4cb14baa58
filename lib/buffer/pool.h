/* buffer/pool.h - how long a pool lives: until its user, its spans, and every call still in it have let go.
 */
#ifndef LIDO_BUFFER_POOL_H
#define LIDO_BUFFER_POOL_H

#include "buffer/types.h"

/* Let go of one reference; the last one frees the pool. */
void pool_unref(struct lido_buffer_pool *pool);

/* A span has ended: wake who drains, and let go of its reference. */
void pool_span_gone(struct lido_buffer_pool *pool);

#endif
