/* Many at once: one visit to the rack, one trip to the depot, whatever the count. */
#include <string.h>

#include "buffer/acquire.h"
#include "buffer/cache.h"
#include "buffer/classes.h"
#include "buffer/depot.h"
#include "buffer/decay.h"
#include "buffer/pool.h"
#include "buffer/span.h"
#include "buffer/line.h"

#define BATCH 64

/* ---- acquire ---- */

static void lend(const struct entry *entries, uint32_t count, void **ret_buffers)
{
        for (uint32_t i = 0; i < count; i++) {
                store_relaxed(entries[i].state, STATE_LENT);
                ret_buffers[i] = entries[i].buffer;
        }
}

/* What the rack has. Hot: measured by the batch workload. Returns: how many. */
static uint32_t from_rack(struct lido_buffer_cache *cache, struct lido_buffer_pool *pool, uint32_t class_index,
                           void **ret_buffers, uint32_t count)
{
        struct rack *rack = &cache->racks[class_index];
        uint32_t n;

        if (!cache_enter_checked(cache, pool))
                return 0;
        n = rack_count(rack);
        if (count > n)
                count = n;
        lend(rack->top - count, count, ret_buffers);
        rack->top -= count;
        store_relaxed(&rack->acquired, load_relaxed(&rack->acquired) + count);
        cache_leave(cache);
        return count;
}

/* One by one, for what is not plain. Returns: how many. */
static uint32_t singly(struct lido_buffer_pool *pool, size_t bytes, void **ret_buffers, uint32_t count, int *ret_rc)
{
        for (uint32_t i = 0; i < count; i++) {
                *ret_rc = lido_buffer_try_acquire_at(pool, bytes, &ret_buffers[i], "bulk");
                if (*ret_rc != LIDO_OK)
                        return i;
        }
        return count;
}

static uint32_t from_depot(struct lido_buffer_pool *pool, uint32_t class_index, size_t bytes, void **ret_buffers,
                           uint32_t count, int *ret_rc)
{
        struct entry entries[BATCH];
        uint32_t got = 0;

        while (got < count) {
                uint32_t want = count - got < BATCH ? count - got : BATCH;
                int rc = depot_supply(pool, class_index, bytes, entries, want);

                if (rc < 1) {
                        *ret_rc = rc;
                        break;
                }
                lend(entries, (uint32_t)rc, ret_buffers + got);
                got += (uint32_t)rc;
        }
        add_relaxed(&pool->acquired_directly, got);
        return got;
}

int lido_buffer_acquire_bulk(struct lido_buffer_pool *pool, size_t bytes, uint32_t count, void **ret_buffers)
{
        struct lido_buffer_cache *cache;
        uint32_t class_index, got = 0;
        int rc = LIDO_OK;

        if (!pool || !ret_buffers || count == 0)
                return LIDO_EINVAL;
        if (bytes - 1 >= pool->plain || pool->epoch != fork_epoch || load_acquire(&pool->closed)) {
                got = singly(pool, bytes, ret_buffers, count, &rc);
        } else {
                class_index = class_of(pool, bytes);
                cache = cache_slots[pool->slot];
                if (unlikely(!cache || load_relaxed(&cache->open) != pool))
                        cache = cache_get(pool);
                if (likely(cache != NULL))
                        got = from_rack(cache, pool, class_index, ret_buffers, count);
                if (got < count && line_exists(pool))
                        rc = LIDO_EEXHAUSTED;
                else if (got < count)
                        got += from_depot(pool, class_index, bytes, ret_buffers + got, count - got, &rc);
        }
        if (got == count)
                return LIDO_OK;
        if (got > 0)
                lido_buffer_release_bulk(ret_buffers, got);
        return rc;
}

/* ---- release ---- */

struct batch {
        struct span *span; /* of the first: the rest are of its pool and class */
        uint32_t count;
        struct entry entries[BATCH];
};

/* Put a batch down: on the rack as far as there is room, the rest in the depot. */
static void put_down(struct batch *batch)
{
        struct lido_buffer_pool *pool = batch->span->pool;
        struct lido_buffer_cache *cache = cache_slots[pool->slot];
        struct rack *rack;
        uint32_t fit = 0;

        if (likely(cache && cache_enter_checked(cache, pool))) {
                rack = rack_at(cache, batch->span->rack);
                fit = (uint32_t)(rack->end - rack->top);
                if (fit > batch->count)
                        fit = batch->count;
                if (fit > 0)
                        memcpy(rack->top, batch->entries, fit * sizeof *batch->entries);
                rack->top += fit;
                cache_leave(cache);
        }
        if (fit < batch->count)
                release_batch(batch->span, batch->entries + fit, batch->count - fit);
        batch->count = 0;
}

int lido_buffer_release_bulk(void *const *buffers, uint32_t count)
{
        struct batch batch;
        int first = LIDO_OK;

        if (!buffers)
                return LIDO_EINVAL;
        batch.count = 0;
        for (uint32_t i = 0; i < count; i++) {
                struct span *span = span_of(buffers[i]);
                uint64_t place = likely(span != NULL) ? span_index(span, buffers[i]) : UINT64_MAX;
                uint8_t seen = STATE_LENT;

                if (unlikely(!span || place >= span->plain ||
                             !cas_acq_rel(&span->state[place], &seen, STATE_CACHED))) {
                        int rc = lido_buffer_release_at(buffers[i], "bulk");

                        if (first == LIDO_OK)
                                first = rc;
                        continue;
                }
                if (batch.count == BATCH || (batch.count > 0 && (batch.span->pool != span->pool ||
                                                                  batch.span->rack != span->rack)))
                        put_down(&batch);
                if (batch.count == 0)
                        batch.span = span;
                batch.entries[batch.count].buffer = buffers[i];
                batch.entries[batch.count].state = &span->state[place];
                batch.count++;
        }
        if (batch.count > 0)
                put_down(&batch);
        return first;
}
