#include "buffer/decay.h"

#include "base/clock.h"
#include "base/list.h"
#include "buffer/cache.h"
#include "buffer/debug.h"
#include "buffer/depot.h"
#include "buffer/guard.h"
#include "buffer/huge.h"
#include "buffer/pool.h"

#define SURVIVES 8                     /* one in so many of the unused outlives a tick */
#define TRIMMED_FROM ((size_t)1 << 20) /* bytes given back at once of which the source is told */

/* How many of the unused to shed now. */
static uint32_t portion(uint32_t unused)
{
        return unused < SURVIVES ? unused : unused - unused / SURVIVES;
}

static void tell_source(struct lido_buffer_pool *pool, size_t bytes)
{
        if (bytes >= TRIMMED_FROM && pool->source.trimmed)
                pool->source.trimmed(pool->source.context);
}

bool decay_tick(struct lido_buffer_pool *pool)
{
        size_t bytes = 0;
        bool left = false;

        cache_tick(pool, &left);
        for (uint32_t c = 0; c < pool->class_count; c++) {
                bool kept = false;
                uint32_t unused = depot_tick(pool, c, &kept);

                if (!kept)
                        continue;
                left = true;
                bytes += depot_shed(pool, c, portion(unused), 1);
        }
        huge_tick(pool, &left);
        bytes += huge_shed(pool, 2);
        if (pool->checks & CHECK_LEAKS)
                left |= debug_leak_tick(pool);
        tell_source(pool, bytes);
        return left;
}

size_t decay_trim(struct lido_buffer_pool *pool)
{
        size_t bytes = 0;

        cache_collect_all(pool);
        for (uint32_t c = 0; c < pool->class_count; c++)
                bytes += depot_shed(pool, c, UINT32_MAX, 0);
        bytes += huge_shed(pool, 0);
        if (pool->checks & CHECK_GUARD)
                bytes += guard_shed(pool);
        tell_source(pool, bytes);
        return bytes;
}

/* ---- on a loop ---- */

static bool anything_kept(struct lido_buffer_pool *pool)
{
        bool kept = cache_any_open(pool) || huge_any_warm(pool);

        for (uint32_t c = 0; c < pool->class_count && !kept; c++)
                kept = depot_any_kept(pool, c);
        return kept;
}

static void set_timer(struct lido_buffer_pool *pool)
{
        pool->timer_is_set = true;
        lido_timer_set(pool->loop, &pool->timer, clock_after_ms(clock_now_ns(), (int64_t)pool->tick_ms));
}

/* The reference that came with the post stays with the timer. */
static void on_post(struct lido_post *post)
{
        struct lido_buffer_pool *pool = list_entry(post, struct lido_buffer_pool, post);

        if (load_acquire(&pool->closed))
                pool_unref(pool);
        else
                set_timer(pool);
}

static void on_timer(struct lido_timer *timer)
{
        struct lido_buffer_pool *pool = list_entry(timer, struct lido_buffer_pool, timer);

        pool->timer_is_set = false;
        if (!load_acquire(&pool->closed)) {
                if (decay_tick(pool)) {
                        set_timer(pool);
                        return;
                }
                store_seq_cst(&pool->armed, 0);
                if (anything_kept(pool))
                        decay_arm(pool);
        }
        pool_unref(pool);
}

static void on_stop(struct lido_post *post)
{
        struct lido_buffer_pool *pool = list_entry(post, struct lido_buffer_pool, stop);

        if (pool->timer_is_set) {
                pool->timer_is_set = false;
                lido_timer_clear(pool->loop, &pool->timer);
                pool_unref(pool);
        }
        pool_unref(pool);
}

void decay_init(struct lido_buffer_pool *pool)
{
        pool->post.run = on_post;
        pool->stop.run = on_stop;
        pool->timer.run = on_timer;
}

void decay_arm_slow(struct lido_buffer_pool *pool)
{
        uint32_t seen = 0;

        if (pool->tick_ms == 0 || load_acquire(&pool->closed) || !cas_acq_rel(&pool->armed, &seen, 1))
                return;
        add_relaxed(&pool->refs, 1);
        if (lido_loop_is_self(pool->loop))
                set_timer(pool);
        else
                lido_loop_post(pool->loop, &pool->post);
}

void decay_stop(struct lido_buffer_pool *pool)
{
        if (!pool->loop)
                return;
        add_relaxed(&pool->refs, 1);
        if (lido_loop_is_self(pool->loop))
                on_stop(&pool->stop);
        else
                lido_loop_post(pool->loop, &pool->stop);
}
