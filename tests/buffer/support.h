/* tests/buffer/support.h - what the tests of buffers share: a pool in one line, and the invariants of
 * lib/buffer/types.h. */
#ifndef LIDO_TESTS_BUFFER_SUPPORT_H
#define LIDO_TESTS_BUFFER_SUPPORT_H

#include <stdlib.h>
#include <string.h>

#include "buffer/cache.h"
#include "buffer/span.h"
#include "buffer/types.h"
#include "support/suite.h"

static inline struct lido_buffer_pool *pool_with(const struct lido_buffer_options *options)
{
        struct lido_buffer_pool *pool = NULL;

        ck_assert_int_eq(lido_buffer_pool_open(&pool, options), LIDO_OK);
        return pool;
}

static inline struct lido_buffer_options plain_options(void)
{
        struct lido_buffer_options options = LIDO_BUFFER_OPTIONS_INIT;

        options.flags = LIDO_BUFFER_NO_TOOLS; /* the plain paths are tested under ASan and Valgrind too */
        return options;
}

/* A pool of one size; max: how many at most, 0 without end. */
static inline struct lido_buffer_pool *fixed_pool(size_t bytes, uint32_t max)
{
        struct lido_buffer_options options = plain_options();

        options.buffer_bytes = bytes;
        options.max_bytes = bytes * max;
        return pool_with(&options);
}

static inline void *must_acquire(struct lido_buffer_pool *pool, size_t bytes)
{
        void *buffer = NULL;

        ck_assert_int_eq(lido_buffer_try_acquire(pool, bytes, &buffer), LIDO_OK);
        ck_assert_ptr_nonnull(buffer);
        return buffer;
}

static inline void must_release(void *buffer)
{
        ck_assert_int_eq(lido_buffer_release(buffer), LIDO_OK);
}

static inline struct lido_buffer_stats stats_of(struct lido_buffer_pool *pool)
{
        struct lido_buffer_stats stats = LIDO_BUFFER_STATS_INIT;

        ck_assert_int_eq(lido_buffer_pool_stats(pool, &stats), LIDO_OK);
        return stats;
}

/* Count an entry, which must be of a buffer that is CACHED and has not been counted before: it is marked by
 * RAW meanwhile. */
static inline void check_entry(const struct entry *entry)
{
        ck_assert_ptr_eq(span_state(span_of(entry->buffer), entry->buffer), entry->state);
        ck_assert_int_eq(load_relaxed(entry->state), STATE_CACHED);
        store_relaxed(entry->state, STATE_RAW);
}

static inline void check_span(struct span *span, size_t *mapped)
{
        uint32_t free = 0, kept = 0;

        for (uint32_t i = 0; i < span->count; i++) {
                uint8_t state = load_relaxed(span_state_at(span, i));

                ck_assert_ptr_eq(span_of(span_buffer(span, i)), span);
                ck_assert_int_ne(state, STATE_NONE);
                ck_assert_msg(state != STATE_CACHED, "a cached buffer has no entry");
                if (state == STATE_RAW)
                        store_relaxed(span_state_at(span, i), STATE_CACHED);
                kept += state == STATE_KEPT;
                free += state == STATE_KEPT || state == STATE_CLEAN;
        }
        if (!(span->pool->checks & CHECK_GUARD)) {
                ck_assert_uint_eq(free, span->free);
                ck_assert_uint_eq(kept, span->kept);
        }
        *mapped += span->count * span->bytes;
}

/* Assert the invariants of a pool at rest: no thread is in any call on it. */
static inline void buffers_check(struct lido_buffer_pool *pool)
{
        size_t mapped = 0;

        list_for_each(it, &pool->caches)
        {
                struct lido_buffer_cache *cache = list_entry(it, struct lido_buffer_cache, link);

                ck_assert_uint_eq(load_relaxed(&cache->busy), 0);
                if (load_relaxed(&pool->attention) > 0)
                        ck_assert_ptr_null(load_relaxed(&cache->open));
                for (uint32_t c = 0; c < pool->class_count; c++) {
                        struct rack *rack = &cache->racks[c];

                        ck_assert_uint_le(rack_count(rack), rack_limit(rack));
                        ck_assert_uint_le(rack_limit(rack), pool->classes[c].rack_cap);
                        if (cache->drained)
                                ck_assert_uint_eq(rack_count(rack), 0);
                        for (struct entry *e = rack->base; e < rack->top; e++)
                                check_entry(e);
                }
        }
        for (uint32_t c = 0; c < pool->class_count; c++)
                for (uint32_t i = 0; i < pool->classes[c].count; i++)
                        check_entry(&pool->classes[c].entries[i]);
        for (uint32_t i = 0; i < pool->reserve_count; i++)
                check_entry(&pool->reserve[i]);
        for (uint32_t c = 0; c < pool->class_count; c++)
                list_for_each(it, &pool->classes[c].all)
                        check_span(list_entry(it, struct span, member), &mapped);
        list_for_each(it, &pool->huge_all) check_span(list_entry(it, struct span, member), &mapped);
        ck_assert_uint_eq(mapped, load_relaxed(&pool->mapped_bytes));
        ck_assert_uint_le(mapped, pool->max_bytes);
}

#endif
