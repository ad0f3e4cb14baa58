#include "buffer/guard.h"

#include "buffer/os.h"
#include "buffer/span.h"

size_t guard_bytes_for(const struct lido_buffer_pool *pool, size_t bytes)
{
        return (bytes + pool->alignment - 1) & ~(pool->alignment - 1);
}

/* Unlink the oldest in quarantine while there are more than `keep`. Returns: it, or NULL. */
static struct span *oldest(struct lido_buffer_pool *pool, uint32_t keep)
{
        struct span *span = NULL;

        mutex_lock(&pool->guard_lock);
        if (pool->guard_count > keep) {
                span = list_entry(list_front(&pool->guarded), struct span, link);
                list_unlink(&span->link);
                pool->guard_count--;
        }
        mutex_unlock(&pool->guard_lock);
        return span;
}

static size_t shed(struct lido_buffer_pool *pool, uint32_t keep)
{
        struct span *span;
        size_t bytes = 0;

        while ((span = oldest(pool, keep)) != NULL) {
                bytes += span->region_bytes;
                os_protect(span->region, span->region_bytes, true); /* the source may want to write on it */
                span_end(span);
        }
        return bytes;
}

int guard_take(struct lido_buffer_pool *pool, size_t bytes, struct entry *entry)
{
        struct span *span;
        int rc;

        bytes = guard_bytes_for(pool, bytes);
        rc = span_new(pool, CLASS_HUGE, bytes, &span);
        if (rc == LIDO_EEXHAUSTED || rc == LIDO_ENOMEM)
                rc = shed(pool, 0) > 0 ? span_new(pool, CLASS_HUGE, bytes, &span) : rc;
        if (rc != LIDO_OK)
                return rc;
        os_protect(span->region, PAGE_BYTES, false);
        os_protect((char *)span->region + span->region_bytes - PAGE_BYTES, PAGE_BYTES, false);
        span->free = span->kept = 0;
        store_relaxed(&span->state[0], STATE_CACHED);
        entry->buffer = span_buffer(span, 0);
        entry->state = &span->state[0];
        return 1;
}

void guard_put(struct lido_buffer_pool *pool, const struct entry *entry)
{
        struct span *span = span_of(entry->buffer);

        os_protect(span->region, span->region_bytes, false);
        store_relaxed(entry->state, STATE_KEPT);
        mutex_lock(&pool->guard_lock);
        list_push_back(&pool->guarded, &span->link);
        pool->guard_count++;
        mutex_unlock(&pool->guard_lock);
        shed(pool, load_acquire(&pool->closed) ? 0 : QUARANTINE);
}

size_t guard_shed(struct lido_buffer_pool *pool)
{
        return shed(pool, 0);
}
