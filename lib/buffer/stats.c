/* Gauges are counted on demand, state by state, so that nothing is counted while buffers come and go. */
#include <string.h>

#include "base/sized.h"
#include "buffer/cache.h"
#include "buffer/span.h"
#include "buffer/types.h"

static void add_span(struct lido_buffer_stats *s, struct span *span)
{
        size_t lent = 0, cached = 0, clean = 0;

        for (uint32_t i = 0; i < span->count; i++) {
                uint8_t state = load_relaxed(span_state_at(span, i));

                lent += state == STATE_LENT || state == STATE_LENT_CHECKED || state == STATE_LENT_TRACED;
                cached += state == STATE_CACHED || state == STATE_RAW;
                clean += state == STATE_CLEAN;
        }
        s->lent += lent;
        s->mapped_bytes += span->count * span->bytes;
        s->lent_bytes += lent * span->bytes;
        s->cached_bytes += cached * span->bytes;
        s->clean_bytes += clean * span->bytes;
        s->kept_bytes += (span->count - lent - cached - clean) * span->bytes;
        if (span->class_index == CLASS_HUGE)
                s->huge_bytes += span->bytes;
}

static void add_all(struct lido_buffer_stats *s, const struct list *all)
{
        list_for_each(it, all) add_span(s, list_entry(it, struct span, member));
}

static void add_counts(struct lido_buffer_pool *pool, struct lido_buffer_stats *s)
{
        s->acquired += load_relaxed(&pool->acquired_directly);
        s->huge = load_relaxed(&pool->huge_acquired);
        s->waited = load_relaxed(&pool->waited);
        s->timed_out = load_relaxed(&pool->timed_out);
        s->refused = load_relaxed(&pool->refused);
        s->grown = load_relaxed(&pool->grown);
        s->grown_bytes = load_relaxed(&pool->grown_bytes);
        s->returned = load_relaxed(&pool->returned);
        s->returned_bytes = load_relaxed(&pool->returned_bytes);
        s->from_reserve = load_relaxed(&pool->from_reserve);
        s->misused = load_relaxed(&pool->misused);
        s->damaged = load_relaxed(&pool->damaged);
        s->leaked = load_relaxed(&pool->leaked);
}

int lido_buffer_pool_stats(struct lido_buffer_pool *pool, struct lido_buffer_stats *stats)
{
        struct lido_buffer_stats s, theirs;
        size_t room;
        int rc;

        if (!pool || !stats)
                return LIDO_EINVAL;
        if (pool->epoch != fork_epoch)
                return LIDO_EFORKED;
        rc = sized_take(&theirs, sizeof theirs, stats);
        if (rc != LIDO_OK)
                return rc;
        room = sized_room(stats->size, sizeof s);
        memset(&s, 0, sizeof s);
        s.size = stats->size;
        s.classes = pool->class_count;
        s.reserved = pool->reserve_target;
        for (uint32_t c = 0; c < pool->class_count; c++) {
                struct buffer_class *class = &pool->classes[c];

                mutex_lock(&class->lock);
                s.contended += class->contended;
                if (c == 0)
                        s.reserve_left = pool->reserve_count;
                add_all(&s, &class->all);
                mutex_unlock(&class->lock);
        }
        mutex_lock(&pool->huge_lock);
        add_all(&s, &pool->huge_all);
        mutex_unlock(&pool->huge_lock);
        mutex_lock(&pool->wait_lock);
        s.waiting = pool->waiter_count;
        mutex_unlock(&pool->wait_lock);
        cache_stats(pool, &s);
        add_counts(pool, &s);
        memcpy(stats, &s, room);
        return LIDO_OK;
}
