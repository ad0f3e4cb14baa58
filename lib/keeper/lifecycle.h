/* keeper/lifecycle.h - from lido_pool_open to lido_pool_free; the public half is lido/pool.h. */
#ifndef LIDO_KEEPER_LIFECYCLE_H
#define LIDO_KEEPER_LIFECYCLE_H

#include "pool/pool.h"

/* Begin to close by this deadline; harmless when it has begun. Threads: any. */
void pool_close(struct lido_pool *pool, uint64_t deadline_ns);

#endif
