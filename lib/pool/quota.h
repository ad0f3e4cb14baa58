/* pool/quota.h - how many objects are lent at once on behalf of one tag.
 *
 * A quota is taken before a slot is claimed or given, and put back when the lease ends; the slot remembers whose it is.
 * Index 0 is no quota.
 */
#ifndef LIDO_POOL_QUOTA_H
#define LIDO_POOL_QUOTA_H

#include "base/atomic.h"

#define QUOTAS 16

struct lido_pool;

struct quota {
        _Atomic(const char *) tag; /* set under the pool's lock, then constant */
        _Atomic uint32_t limit;
        _Atomic uint32_t used;
};

/* The quota of a tag; 0: it has none. Threads: any. */
uint8_t quota_find(struct lido_pool *pool, const char *tag);

/* Returns: false when the quota is used up. Threads: any. */
bool quota_take(struct lido_pool *pool, uint8_t index);

void quota_put(struct lido_pool *pool, uint8_t index);

#endif
