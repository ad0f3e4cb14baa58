#include "pool/quota.h"

#include <string.h>

#include "pool/pool.h"
#include "pool/waitq.h"

uint8_t quota_find(struct lido_pool *pool, const char *tag)
{
        if (!tag)
                return 0;
        for (uint8_t i = 1; i < QUOTAS; i++) {
                const char *known = load_acquire(&pool->quota[i].tag);

                if (!known)
                        return 0;
                if (known == tag || strcmp(known, tag) == 0)
                        return i;
        }
        return 0;
}

bool quota_take(struct lido_pool *pool, uint8_t index)
{
        uint32_t used;

        if (index == 0)
                return true;
        used = load_relaxed(&pool->quota[index].used);
        do
                if (used >= load_relaxed(&pool->quota[index].limit))
                        return false;
        while (!cas_seq_cst(&pool->quota[index].used, &used, used + 1));
        return true;
}

void quota_put(struct lido_pool *pool, uint8_t index)
{
        if (index != 0)
                sub_seq_cst(&pool->quota[index].used, 1);
}

static uint8_t place_for(struct lido_pool *pool, const char *tag) REQUIRES(pool->waitq.lock)
{
        uint8_t index = quota_find(pool, tag);

        for (uint8_t i = 1; index == 0 && i < QUOTAS; i++)
                if (!load_relaxed(&pool->quota[i].tag))
                        index = i;
        return index;
}

int lido_pool_set_quota(struct lido_pool *pool, const char *tag, uint32_t limit)
{
        uint8_t index;

        if (!pool || !tag || limit == 0)
                return LIDO_EINVAL;
        if (load_seq_cst(&pool->gate) & GATE_FORKED)
                return LIDO_EFORKED;
        mutex_lock(&pool->waitq.lock);
        index = place_for(pool, tag);
        if (index != 0) {
                store_relaxed(&pool->quota[index].limit, limit);
                store_release(&pool->quota[index].tag, tag);
                store_relaxed(&pool->has_quotas, 1);
                or_seq_cst(&pool->gate, GATE_CAREFUL_RELEASE); /* each release looks whose quota it frees */
        }
        mutex_unlock(&pool->waitq.lock);
        waitq_serve(pool); /* a raised limit may let somebody pass */
        return index != 0 ? LIDO_OK : LIDO_ENOMEM;
}
