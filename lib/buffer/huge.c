#include "buffer/huge.h"

#include "buffer/decay.h"
#include "buffer/span.h"

#define SHED_BATCH 32

size_t huge_bytes_for(const struct lido_buffer_pool *pool, size_t bytes)
{
        size_t boundary = pool->alignment > PAGE_BYTES ? pool->alignment : PAGE_BYTES;

        if (pool->only_bytes != 0 || (pool->flags & LIDO_BUFFER_CALLER_MEMORY) || bytes > SIZE_MAX / 2)
                return 0;
        bytes = (bytes + boundary - 1) & ~(boundary - 1);
        return bytes > pool->max_bytes ? 0 : bytes;
}

/* The least of the warm ones that fits, and is not much too large. */
static struct span *best_fit_locked(struct lido_buffer_pool *pool, size_t bytes) REQUIRES(pool->huge_lock)
{
        struct span *best = NULL;

        list_for_each(it, &pool->huge_warm)
        {
                struct span *span = list_entry(it, struct span, link);

                if (span->bytes >= bytes && span->bytes - bytes <= bytes / 8 &&
                    (!best || span->bytes < best->bytes))
                        best = span;
        }
        return best;
}

int huge_take(struct lido_buffer_pool *pool, size_t bytes, struct entry *entry)
{
        struct span *span;
        int rc;

        bytes = huge_bytes_for(pool, bytes);
        if (bytes == 0)
                return LIDO_EINVAL;
        mutex_lock(&pool->huge_lock);
        span = best_fit_locked(pool, bytes);
        if (span) {
                list_unlink(&span->link);
                pool->huge_warm_bytes -= span->bytes;
                span->free = span->kept = 0;
        }
        mutex_unlock(&pool->huge_lock);
        if (!span) {
                rc = span_new(pool, CLASS_HUGE, bytes, &span);
                if (rc != LIDO_OK)
                        return rc;
                span->free = span->kept = 0;
        }
        store_relaxed(&span->state[0], STATE_CACHED);
        entry->buffer = span_buffer(span, 0);
        entry->state = &span->state[0];
        return 1;
}

/* Unlink the oldest warm ones, while there are more than `keep` bytes, that are `age` ticks old. Returns: how
 * many. */
static uint32_t pick_locked(struct lido_buffer_pool *pool, struct span **spans, size_t keep, uint32_t age)
        REQUIRES(pool->huge_lock)
{
        uint32_t n = 0;
        struct list *link;

        while (n < SHED_BATCH && pool->huge_warm_bytes > keep && (link = list_back(&pool->huge_warm))) {
                struct span *span = list_entry(link, struct span, link);

                if (pool->huge_tick - span->stamp < age)
                        break;
                list_unlink(link);
                pool->huge_warm_bytes -= span->bytes;
                spans[n++] = span;
        }
        return n;
}

static size_t end_all(struct span **spans, uint32_t count)
{
        size_t bytes = 0;

        for (uint32_t i = 0; i < count; i++) {
                bytes += spans[i]->bytes;
                span_end(spans[i]);
        }
        return bytes;
}

void huge_put(struct lido_buffer_pool *pool, const struct entry *entry)
{
        struct span *spans[SHED_BATCH], *span = span_of(entry->buffer);
        size_t keep = load_acquire(&pool->closed) || pool->options.mode == LIDO_BUFFER_MODE_RESERVE
                              ? 0
                              : pool->options.warm_bytes;
        uint32_t n;

        mutex_lock(&pool->huge_lock);
        store_relaxed(entry->state, STATE_KEPT);
        span->free = span->kept = 1;
        span->stamp = pool->huge_tick;
        list_push_front(&pool->huge_warm, &span->link);
        pool->huge_warm_bytes += span->bytes;
        n = pick_locked(pool, spans, keep, 0);
        mutex_unlock(&pool->huge_lock);
        end_all(spans, n);
        decay_arm(pool);
}

size_t huge_shed(struct lido_buffer_pool *pool, uint32_t age)
{
        struct span *spans[SHED_BATCH];
        size_t bytes = 0;
        uint32_t n;

        do {
                mutex_lock(&pool->huge_lock);
                n = pick_locked(pool, spans, 0, age);
                mutex_unlock(&pool->huge_lock);
                bytes += end_all(spans, n);
        } while (n == SHED_BATCH);
        return bytes;
}

void huge_tick(struct lido_buffer_pool *pool, bool *ret_left)
{
        mutex_lock(&pool->huge_lock);
        pool->huge_tick++;
        if (!list_is_empty(&pool->huge_warm))
                *ret_left = true;
        mutex_unlock(&pool->huge_lock);
}

bool huge_any_warm(struct lido_buffer_pool *pool)
{
        bool any;

        mutex_lock(&pool->huge_lock);
        any = !list_is_empty(&pool->huge_warm);
        mutex_unlock(&pool->huge_lock);
        return any;
}
