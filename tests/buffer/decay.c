/* What is unused goes back: trim, ticks, the loop that ticks, and that it falls silent. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <uv.h>

#include "base/clock.h"
#include "base/random.h"
#include "base/thread.h"
#include "buffer/decay.h"
#include "buffer/line.h"
#include "buffer/support.h"
#include "support/crew.h"
#include "support/patience.h"

/* Pages of [memory, memory + bytes) that are in memory, by mincore; unmapped ones count as not. */
static size_t resident(void *memory, size_t bytes)
{
        size_t pages = bytes / 4096, count = 0;
        unsigned char *in = calloc(pages, 1);

        if (mincore(memory, bytes, in) == 0)
                for (size_t i = 0; i < pages; i++)
                        count += in[i] & 1;
        free(in);
        return count;
}

START_TEST(a_trim_gives_back_all_that_is_not_lent)
{
        const size_t sizes[] = {16, 100, 1000, 5000, 16384, 20000, 300000, (size_t)1 << 20, (size_t)6 << 20};
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool = pool_with(&options);
        size_t bytes = 0;

        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
                void *lent[8];

                for (int k = 0; k < 8; k++)
                        memset(lent[k] = must_acquire(pool, sizes[i]), 1, sizes[i]);
                for (int k = 0; k < 8; k++)
                        must_release(lent[k]);
        }
        ck_assert_int_eq(lido_buffer_pool_trim(pool, &bytes), LIDO_OK);
        ck_assert_uint_gt(bytes, (size_t)48 << 20);
        ck_assert_uint_eq(stats_of(pool).mapped_bytes, 0);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(free_pages_between_lent_buffers_go_back_too)
{
        struct lido_buffer_pool *pool = fixed_pool(8192, 0);
        enum { N = 160 };
        char *lent[N];
        size_t before = 0, after = 0;

        for (int i = 0; i < N; i++)
                memset(lent[i] = must_acquire(pool, 8192), i, 8192);
        for (int i = 0; i < N; i++)
                before += resident(lent[i], 8192);
        ck_assert_uint_eq(before, 2 * N);
        for (int i = 0; i < N; i++)
                if (i % 5 != 0)
                        must_release(lent[i]);
        lido_buffer_pool_trim(pool, NULL);
        for (int i = 0; i < N; i++)
                after += resident(lent[i], 8192);
        ck_assert_uint_eq(after, 2 * N / 5);
        ck_assert_uint_eq(stats_of(pool).kept_bytes, 0);
        for (int i = 0; i < N; i += 5) {
                ck_assert_int_eq((unsigned char)lent[i][8191], i);
                must_release(lent[i]);
        }
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(what_is_in_use_from_tick_to_tick_stays_warm)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool = pool_with(&options);
        uint64_t grown = 0;

        for (int tick = 0; tick < 10; tick++) {
                void *lent[20];

                for (int i = 0; i < 20; i++)
                        lent[i] = must_acquire(pool, 100000);
                for (int i = 0; i < 20; i++)
                        must_release(lent[i]);
                ck_assert_int_eq(lido_buffer_pool_upkeep(pool), 1);
                if (tick == 1)
                        grown = stats_of(pool).grown;
        }
        ck_assert_uint_eq(stats_of(pool).grown, grown);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(an_unused_pool_has_nothing_left_after_a_few_ticks)
{
        const size_t sizes[] = {64, 3000, 12000, 100000, (size_t)3 << 20};
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool = pool_with(&options);
        int ticks = 0;

        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
                void *lent[40];

                for (int k = 0; k < 40; k++)
                        lent[k] = must_acquire(pool, sizes[i]);
                for (int k = 0; k < 40; k++)
                        must_release(lent[k]);
        }
        while (lido_buffer_pool_upkeep(pool) == 1)
                ck_assert_int_lt(++ticks, 12);
        ck_assert_uint_eq(stats_of(pool).mapped_bytes, 0);
        ck_assert_uint_eq(stats_of(pool).cached_bytes, 0);
        buffers_check(pool);
        must_release(must_acquire(pool, 64));
        ck_assert_int_eq(lido_buffer_pool_upkeep(pool), 1);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(after_a_burst_seven_eighths_go_at_the_first_chance)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool = pool_with(&options);
        enum { N = 400 };
        static void *lent[N];

        for (int i = 0; i < N; i++)
                lent[i] = must_acquire(pool, 100000);
        for (int i = 0; i < N; i++)
                must_release(lent[i]);
        lido_buffer_pool_upkeep(pool); /* the burst was in this one */
        lido_buffer_pool_upkeep(pool);
        lido_buffer_pool_upkeep(pool);
        ck_assert_uint_le(stats_of(pool).mapped_bytes, (size_t)N * 100000 / 7);
        ck_assert_uint_gt(stats_of(pool).mapped_bytes, 0);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

struct idler {
        struct lido_buffer_pool *pool;
        _Atomic int phase;
};

static void *idle(void *context)
{
        struct idler *i = context;
        void *lent[30];

        for (int k = 0; k < 30; k++)
                lent[k] = must_acquire(i->pool, 900);
        for (int k = 0; k < 30; k++)
                must_release(lent[k]);
        atomic_store(&i->phase, 1);
        while (atomic_load(&i->phase) != 2)
                thread_yield();
        must_release(must_acquire(i->pool, 900));
        return NULL;
}

START_TEST(an_idle_threads_cache_decays_and_works_again_afterwards)
{
        struct lido_buffer_options options = plain_options();
        struct idler i = {.pool = pool_with(&options)};
        pthread_t thread;

        pthread_create(&thread, NULL, idle, &i);
        while (atomic_load(&i.phase) != 1)
                thread_yield();
        for (int tick = 0; tick < 12 && lido_buffer_pool_upkeep(i.pool) == 1; tick++)
                ;
        ck_assert_uint_eq(stats_of(i.pool).mapped_bytes, 0);
        atomic_store(&i.phase, 2);
        pthread_join(thread, NULL);
        buffers_check(i.pool);
        lido_buffer_pool_free(i.pool);
}
END_TEST

static unsigned char callers[1 << 20];

START_TEST(the_callers_memory_is_used_alone_and_given_back_whole)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool;
        void *buffer, *lent[300];
        int n = 0;

        options.buffer_bytes = 4096;
        options.flags |= LIDO_BUFFER_CALLER_MEMORY;
        pool = pool_with(&options);
        ck_assert_int_eq(lido_buffer_try_acquire(pool, 1, &buffer), LIDO_EEXHAUSTED);
        ck_assert_int_eq(lido_buffer_pool_populate(pool, callers, 100), LIDO_EINVAL);
        ck_assert_int_eq(lido_buffer_pool_populate(pool, callers, sizeof callers), LIDO_OK);
        while (lido_buffer_try_acquire(pool, 1, &lent[n]) == LIDO_OK) {
                ck_assert((unsigned char *)lent[n] >= callers &&
                          (unsigned char *)lent[n] + 4096 <= callers + sizeof callers);
                n++;
        }
        ck_assert_int_ge(n, 255);
        while (n > 0)
                must_release(lent[--n]);
        lido_buffer_pool_trim(pool, NULL);
        ck_assert_uint_ge(stats_of(pool).mapped_bytes, (size_t)255 * 4096);
        buffers_check(pool);
        lido_buffer_pool_close(pool);
        ck_assert_int_eq(lido_buffer_pool_drain(pool, 0), LIDO_OK);
        memset(callers, 1, sizeof callers);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(malloc_serves_as_a_source)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool;

        options.source = &lido_buffer_source_malloc;
        pool = pool_with(&options);
        for (size_t bytes = 1; bytes < (size_t)4 << 20; bytes *= 2)
                must_release(must_acquire(pool, bytes));
        lido_buffer_pool_trim(pool, NULL);
        ck_assert_uint_eq(stats_of(pool).mapped_bytes, 0);
        lido_buffer_pool_free(pool);
}
END_TEST

static _Atomic int trimmed;

static void on_trimmed(void *context)
{
        (void)context;
        atomic_fetch_add(&trimmed, 1);
}

START_TEST(hints_for_huge_pages_and_a_node_are_harmless)
{
        struct lido_buffer_source source = lido_buffer_source_mmap;
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool;
        char *buffer;

        source.trimmed = on_trimmed;
        options.source = &source;
        options.flags |= LIDO_BUFFER_HUGE_PAGES;
        options.numa_node = 1;
        pool = pool_with(&options);
        buffer = must_acquire(pool, 60000);
        ck_assert_uint_eq((uintptr_t)span_of(buffer)->region % ((size_t)2 << 20), 0);
        memset(buffer, 1, 60000);
        must_release(buffer);
        lido_buffer_pool_trim(pool, NULL);
        ck_assert_int_eq(atomic_load(&trimmed), 1);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

/* A tick opens a cache again that is in use, and a trim meanwhile says that it has emptied it: were it open and taken
 * for empty nobody would look into it any more. */
static void tick_or_trim(void *context, unsigned number)
{
        struct idler *i = context;

        while (atomic_load(&i->phase) == 0)
                if (number % 2)
                        lido_buffer_pool_trim(i->pool, NULL);
                else
                        lido_buffer_pool_upkeep(i->pool);
}

START_TEST(trims_and_ticks_at_once_leave_no_cache_behind)
{
        for (int round = 0; round < 60; round++) {
                struct lido_buffer_options options = plain_options();
                struct idler i = {.pool = pool_with(&options)};
                struct crew crew;

                crew_start(&crew, 2, tick_or_trim, &i);
                for (int k = 0; k < 4000; k++) {
                        void *small = must_acquire(i.pool, 100), *large = must_acquire(i.pool, 9000);

                        must_release(small);
                        must_release(large);
                }
                atomic_store(&i.phase, 1);
                crew_join(&crew);
                must_release(must_acquire(i.pool, 100));
                must_release(must_acquire(i.pool, 9000));
                lido_buffer_pool_trim(i.pool, NULL);
                ck_assert_uint_eq(stats_of(i.pool).mapped_bytes, 0);
                buffers_check(i.pool);
                lido_buffer_pool_free(i.pool);
        }
}
END_TEST

/* The tick found the span free a moment before the trim came. */
START_TEST(what_a_tick_purges_while_a_trim_passes_goes_with_a_later_tick)
{
        struct lido_buffer_pool *pool = fixed_pool(8192, 0);
        struct buffer_class *class = &pool->classes[0];
        struct span *span;
        uint32_t cleaned;

        /* given */ must_release(must_acquire(pool, 8192));
        cache_collect_all(pool);
        mutex_lock(&class->lock);
        ck_assert_uint_gt(class->count, 0);
        while (class->count > 0)
                span_give_back_locked(class, &class->entries[--class->count], STATE_KEPT);
        span = list_entry(list_front(&class->spans[FULLNESS - 1]), struct span, link);
        list_unlink(&span->link);
        span->detached = 1;
        mutex_unlock(&class->lock);
        /* when  */ lido_buffer_pool_trim(pool, NULL);
        ck_assert_uint_gt(stats_of(pool).mapped_bytes, 0);
        span_purge(span, &cleaned);
        mutex_lock(&class->lock);
        span_attach_locked(class, span, cleaned);
        mutex_unlock(&class->lock);
        /* then  */ for (int tick = 0; tick < 100 && decay_tick(pool); tick++)
                continue;
        ck_assert_uint_eq(stats_of(pool).mapped_bytes, 0);
        lido_buffer_pool_free(pool);
}
END_TEST

/* ---- on a loop ---- */

struct looped {
        uv_loop_t uv;
        struct lido_loop *loop;
        struct lido_buffer_pool *pool;
};

static void looped_open(struct looped *l, int64_t decay_ms)
{
        struct lido_buffer_options options = plain_options();

        ck_assert_int_eq(uv_loop_init(&l->uv), 0);
        ck_assert_int_eq(lido_loop_open(&l->loop, &l->uv), LIDO_OK);
        options.loop = l->loop;
        options.decay_ms = decay_ms;
        l->pool = pool_with(&options);
}

static void looped_close(struct looped *l)
{
        lido_buffer_pool_free(l->pool);
        lido_loop_close(l->loop, NULL, NULL);
        uv_run(&l->uv, UV_RUN_DEFAULT);
        ck_assert_int_eq(uv_loop_close(&l->uv), 0);
}

START_TEST(a_loop_decays_the_pool_and_then_falls_silent)
{
        struct looped l;
        uint64_t before;

        looped_open(&l, 40);
        for (int round = 0; round < 3; round++) {
                must_release(must_acquire(l.pool, 500000));
                must_release(must_acquire(l.pool, 500));
                before = clock_now_ns();
                uv_run(&l.uv, UV_RUN_DEFAULT); /* returns once no timer is armed */
                ck_assert_uint_ge(clock_now_ns() - before, 10 * NS_PER_MS);
                ck_assert_uint_eq(stats_of(l.pool).mapped_bytes, 0);
                ck_assert_uint_eq(load_relaxed(&l.pool->armed), 0);
        }
        looped_close(&l);
}
END_TEST

/* He was offered one in the moment in which he gave up, long after the ticks had stopped. */
START_TEST(what_a_waiter_came_too_late_for_decays_too)
{
        struct wait late = {.class_index = 0, .bytes = 500};
        struct looped l;

        /* given */ looped_open(&l, 40);
        waiter_init(&late.waiter, NULL);
        ck_assert(waiter_settle(&late.waiter, WAITER_TIMED_OUT));
        list_push_back(&l.pool->waiters, &late.waiter.link);
        l.pool->waiter_count++;
        /* when  */ line_serve(l.pool);
        ck_assert_uint_gt(stats_of(l.pool).mapped_bytes, 0);
        /* then  */ uv_run(&l.uv, UV_RUN_DEFAULT);
        ck_assert_uint_eq(stats_of(l.pool).mapped_bytes, 0);
        looped_close(&l);
}
END_TEST

START_TEST(a_pool_freed_while_its_timer_is_armed_leaves_the_loop)
{
        struct looped l;

        looped_open(&l, 3600 * 1000);
        must_release(must_acquire(l.pool, 500000));
        uv_run(&l.uv, UV_RUN_NOWAIT);
        looped_close(&l);
        looped_open(&l, 3600 * 1000);
        must_release(must_acquire(l.pool, 500000));
        looped_close(&l);
}
END_TEST

/* ---- on a service ---- */

static struct lido_buffer_pool *pool_on(struct lido_service *service, int64_t decay_ms)
{
        struct lido_buffer_options options = plain_options();

        options.service = service;
        options.decay_ms = decay_ms;
        return pool_with(&options);
}

START_TEST(a_service_decays_its_pools_and_each_falls_silent)
{
        struct lido_service *service;
        struct lido_buffer_pool *pool[3];

        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        for (int i = 0; i < 3; i++)
                pool[i] = pool_on(service, 20);
        for (int round = 0; round < 2; round++)
                for (int i = 0; i < 3; i++) {
                        must_release(must_acquire(pool[i], 500000));
                        must_release(must_acquire(pool[i], 500));
                        ck_eventually(stats_of(pool[i]).mapped_bytes == 0);
                        ck_eventually(load_relaxed(&pool[i]->armed) == 0);
                }
        for (int i = 0; i < 3; i++)
                lido_buffer_pool_free(pool[i]);
        ck_assert_int_eq(lido_service_stop(service, 0), LIDO_OK);
}
END_TEST

START_TEST(a_service_may_be_stopped_as_soon_as_its_pools_are_freed)
{
        for (int round = 0; round < 50; round++) {
                struct lido_service *service;
                struct lido_buffer_pool *pool;

                ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
                pool = pool_on(service, round % 2 ? 1 : 3600 * 1000);
                must_release(must_acquire(pool, 500));
                lido_buffer_pool_free(pool);
                ck_assert_int_eq(lido_service_stop(service, 0), LIDO_OK);
        }
}
END_TEST

static void note_detached(int status, void *context)
{
        ck_assert_int_eq(status, LIDO_OK);
        *(bool *)context = true;
}

START_TEST(an_attached_service_decays_while_the_embedder_runs_its_loop)
{
        struct lido_service *service;
        struct lido_buffer_pool *pool;
        bool is_detached = false;
        uv_loop_t uv;

        ck_assert_int_eq(uv_loop_init(&uv), 0);
        ck_assert_int_eq(lido_service_attach(&service, &uv, NULL), LIDO_OK);
        pool = pool_on(service, 20);
        ck_assert_int_eq(uv_run(&uv, UV_RUN_DEFAULT), 0); /* a pool that keeps nothing does not keep it going */
        must_release(must_acquire(pool, 500000));
        uv_run(&uv, UV_RUN_DEFAULT);
        ck_assert_uint_eq(stats_of(pool).mapped_bytes, 0);
        lido_buffer_pool_free(pool);
        ck_assert_int_eq(lido_service_detach(service, 0, note_detached, &is_detached), LIDO_OK);
        uv_run(&uv, UV_RUN_DEFAULT);
        ck_assert(is_detached);
        ck_assert_int_eq(uv_loop_close(&uv), 0);
}
END_TEST

/* ---- what is in memory ---- */

static size_t resident_of_list(const struct list *all)
{
        size_t pages = 0;

        list_for_each(it, all)
        {
                struct span *span = list_entry(it, struct span, member);

                pages += resident(span->region, span->region_bytes);
        }
        return pages * 4096;
}

static size_t resident_of(struct lido_buffer_pool *pool)
{
        size_t bytes = resident_of_list(&pool->huge_all);

        for (uint32_t c = 0; c < pool->class_count; c++)
                bytes += resident_of_list(&pool->classes[c].all);
        return bytes;
}

/* decay_ms is four ticks; lib/buffer/README.md states one more. Sizes are spread evenly over 16 B to 1 MiB by their
 * logarithm, and what stays lent is spread over all of them, as after a rush hour. */
START_TEST(resident_memory_follows_live_bytes_down_within_five_ticks)
{
        enum { N = 4000 };
        static void *lent[N];
        static size_t sizes[N];
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool = pool_with(&options);
        struct random r = {11};
        size_t live = 0;

        for (int i = 0; i < N; i++) {
                unsigned doubling = (unsigned)random_below(&r, 16);

                sizes[i] = ((size_t)16 << doubling) + random_below(&r, (size_t)16 << doubling);
                lent[i] = must_acquire(pool, sizes[i]);
                memset(lent[i], 1, sizes[i]);
                live += sizes[i];
        }
        ck_assert_uint_le(resident_of(pool), live + live / 5);
        for (int i = 0; i < N; i++)
                if (i % 10 != 0) {
                        must_release(lent[i]);
                        live -= sizes[i];
                }
        for (int tick = 0; tick < 5; tick++)
                lido_buffer_pool_upkeep(pool);
        ck_assert_msg(resident_of(pool) <= live + live / 2, "%zu KiB in memory for %zu KiB lent",
                      resident_of(pool) >> 10, live >> 10);
        for (int i = 0; i < N; i += 10) {
                ck_assert_int_eq(((char *)lent[i])[sizes[i] - 1], 1);
                must_release(lent[i]);
        }
        for (int tick = 0; tick < 5; tick++)
                lido_buffer_pool_upkeep(pool);
        ck_assert_uint_eq(resident_of(pool), 0);
        lido_buffer_pool_free(pool);
}
END_TEST

int main(void)
{
        return suite_run("buffer/decay",
                         (const TTest *[]){a_trim_gives_back_all_that_is_not_lent,
                                           free_pages_between_lent_buffers_go_back_too,
                                           what_is_in_use_from_tick_to_tick_stays_warm,
                                           an_unused_pool_has_nothing_left_after_a_few_ticks,
                                           after_a_burst_seven_eighths_go_at_the_first_chance,
                                           an_idle_threads_cache_decays_and_works_again_afterwards,
                                           trims_and_ticks_at_once_leave_no_cache_behind,
                                           what_a_tick_purges_while_a_trim_passes_goes_with_a_later_tick,
                                           the_callers_memory_is_used_alone_and_given_back_whole,
                                           malloc_serves_as_a_source,
                                           hints_for_huge_pages_and_a_node_are_harmless,
                                           a_loop_decays_the_pool_and_then_falls_silent,
                                           what_a_waiter_came_too_late_for_decays_too,
                                           a_pool_freed_while_its_timer_is_armed_leaves_the_loop,
                                           a_service_decays_its_pools_and_each_falls_silent,
                                           a_service_may_be_stopped_as_soon_as_its_pools_are_freed,
                                           an_attached_service_decays_while_the_embedder_runs_its_loop,
                                           resident_memory_follows_live_bytes_down_within_five_ticks, NULL});
}
