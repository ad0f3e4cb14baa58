/* Caches that belong to no thread. */
#include "buffer/cache.h"
#include "buffer/types.h"

int lido_buffer_cache_open(struct lido_buffer_cache **ret_cache, struct lido_buffer_pool *pool)
{
        if (!ret_cache || !pool)
                return LIDO_EINVAL;
        if (pool->epoch != fork_epoch)
                return LIDO_EFORKED;
        if (load_acquire(&pool->closed))
                return LIDO_ECLOSED;
        return cache_new(pool, true, ret_cache);
}

void lido_buffer_cache_close(struct lido_buffer_cache *cache)
{
        if (cache)
                cache_end(cache);
}
