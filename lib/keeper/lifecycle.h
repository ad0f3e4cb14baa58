/* keeper/lifecycle.h - from lido_pool_open to lido_pool_free; the public half is lido/pool.h. */
#ifndef LIDO_KEEPER_LIFECYCLE_H
#define LIDO_KEEPER_LIFECYCLE_H

#include "pool/pool.h"

/* What a pool is made of. */
struct pool_plan {
        const struct lido_factory *factory;
        const struct lido_pool_options *options;
        struct pool_owner *owner; /* NULL: the embedder */
};

/* lido_pool_open, with an owner, whose `gone` is called at the end of the pool; on LIDO_ECLOSED that was before this returns,
 * and on any other error there was no pool. */
int lifecycle_open(struct lido_pool **ret_pool, struct lido_service *service, const struct pool_plan *plan);

/* Begin to close by this deadline; harmless when it has begun. Threads: any. */
void pool_close(struct lido_pool *pool, uint64_t deadline_ns);

#endif
