/* Acquire and release: sizes, classes, caches, bulk, handles. Waiting is in wait.c, misuse in misuse.c, decay
 * in decay.c. */
#include <pthread.h>

#include "buffer/classes.h"
#include "buffer/support.h"

START_TEST(a_buffer_is_as_large_as_asked_and_writable)
{
        struct lido_buffer_pool *pool =
                pool_with(&(struct lido_buffer_options){.size = sizeof(struct lido_buffer_options)});

        for (size_t bytes = 1; bytes < (size_t)4 << 20; bytes += bytes / 7 + 1) {
                void *buffer = must_acquire(pool, bytes);

                ck_assert_uint_ge(lido_buffer_bytes(buffer), bytes);
                ck_assert_uint_eq(lido_buffer_bytes(buffer), lido_buffer_pool_bytes_for(pool, bytes));
                ck_assert_ptr_eq(lido_buffer_pool_of(buffer), pool);
                memset(buffer, 0x5a, bytes);
                must_release(buffer);
                ck_assert_uint_eq(lido_buffer_bytes(buffer), 0);
        }
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(no_two_lent_buffers_overlap)
{
        enum { N = 3000 };
        static unsigned char *lent[N];
        static size_t sizes[N];
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool = pool_with(&options);

        for (int i = 0; i < N; i++) {
                sizes[i] = 1 + (size_t)i * 37 % 9000;
                lent[i] = must_acquire(pool, sizes[i]);
                memset(lent[i], i & 0xff, sizes[i]);
        }
        for (int i = 0; i < N; i++) {
                size_t same = 0;

                while (same < sizes[i] && lent[i][same] == (i & 0xff))
                        same++;
                ck_assert_uint_eq(same, sizes[i]);
                must_release(lent[i]);
        }
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(the_class_of_a_size_is_the_least_that_holds_it)
{
        for (uint32_t per = 1; per <= 8; per *= 2) {
                const size_t named[] = {1500, 65601, 100000};
                struct lido_buffer_options options = plain_options();
                struct lido_buffer_pool *pool;

                options.per_doubling = per;
                options.named_bytes = named;
                options.named_count = 3;
                pool = pool_with(&options);
                for (size_t bytes = 1; bytes <= pool->largest; bytes += bytes < 70000 ? 1 : 977) {
                        uint32_t c = class_of(pool, bytes);

                        ck_assert_uint_ge(pool->sizes[c], bytes);
                        if (c > 0)
                                ck_assert_uint_lt(pool->sizes[c - 1], bytes);
                }
                ck_assert_uint_eq(lido_buffer_pool_bytes_for(pool, 1500), 1504);
                lido_buffer_pool_free(pool);
        }
}
END_TEST

START_TEST(the_default_classes_waste_a_tenth_at_most)
{
        struct lido_buffer_pool *pool = pool_with(NULL);
        double asked = 0, got = 0, bytes = 16;

        while (bytes < 1 << 20) {
                asked += (double)(size_t)bytes;
                got += (double)lido_buffer_pool_bytes_for(pool, (size_t)bytes);
                bytes *= 1.0001;
        }
        ck_assert_double_lt(got / asked, 1.10);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(a_thread_gets_the_buffer_back_that_it_released_last)
{
        struct lido_buffer_pool *pool = fixed_pool(4096, 0);
        void *a = must_acquire(pool, 4096), *b = must_acquire(pool, 4096);

        must_release(a);
        must_release(b);
        ck_assert_ptr_eq(must_acquire(pool, 4096), b);
        ck_assert_ptr_eq(must_acquire(pool, 100), a);
        must_release(a);
        must_release(b);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(buffers_are_on_the_alignment_asked_for)
{
        const size_t alignments[] = {1, 16, 64, 4096, 65536, (size_t)2 << 20};

        for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
                struct lido_buffer_options options = plain_options();
                struct lido_buffer_pool *pool;

                options.alignment_bytes = alignments[i];
                pool = pool_with(&options);
                for (size_t bytes = 1; bytes < (size_t)3 << 20; bytes = bytes * 3 + 1) {
                        void *buffer = must_acquire(pool, bytes);

                        ck_assert_uint_eq((uintptr_t)buffer % alignments[i], 0);
                        must_release(buffer);
                }
                buffers_check(pool);
                lido_buffer_pool_free(pool);
        }
}
END_TEST

START_TEST(power_of_two_sizes_are_aligned_to_themselves_up_to_a_page)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool = pool_with(&options);

        for (size_t bytes = 16; bytes <= (size_t)1 << 20; bytes *= 2) {
                void *buffer = must_acquire(pool, bytes);

                ck_assert_uint_eq((uintptr_t)buffer % (bytes < 4096 ? bytes : 4096), 0);
                must_release(buffer);
        }
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(a_size_above_the_classes_is_huge_and_reused_while_warm)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool = pool_with(&options);
        void *buffer = must_acquire(pool, (size_t)3 << 20);

        ck_assert_uint_eq(stats_of(pool).huge, 1);
        ck_assert_uint_eq(stats_of(pool).huge_bytes, (size_t)3 << 20);
        must_release(buffer);
        ck_assert_ptr_eq(must_acquire(pool, ((size_t)3 << 20) - 5000), buffer);
        must_release(buffer);
        ck_assert_uint_eq(stats_of(pool).grown, 1);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(warm_huge_buffers_stay_within_warm_bytes)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool;
        void *lent[6];

        options.warm_bytes = (size_t)8 << 20;
        pool = pool_with(&options);
        for (int i = 0; i < 6; i++)
                lent[i] = must_acquire(pool, (size_t)4 << 20);
        for (int i = 0; i < 6; i++)
                must_release(lent[i]);
        ck_assert_uint_eq(stats_of(pool).mapped_bytes, (size_t)8 << 20);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(a_bulk_acquire_gives_all_or_none)
{
        struct lido_buffer_pool *pool = fixed_pool(1024, 100);
        void *lent[101];

        ck_assert_int_eq(lido_buffer_acquire_bulk(pool, 1024, 101, lent), LIDO_EEXHAUSTED);
        ck_assert_uint_eq(stats_of(pool).lent, 0);
        ck_assert_int_eq(lido_buffer_acquire_bulk(pool, 1024, 100, lent), LIDO_OK);
        ck_assert_uint_eq(stats_of(pool).lent, 100);
        for (int i = 0; i < 100; i++)
                memset(lent[i], i, 1024);
        for (int i = 0; i < 100; i++)
                ck_assert_int_eq(*(unsigned char *)lent[i], i);
        ck_assert_int_eq(lido_buffer_release_bulk(lent, 100), LIDO_OK);
        ck_assert_uint_eq(stats_of(pool).lent, 0);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(a_bulk_release_takes_buffers_of_several_pools_and_classes)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *a = pool_with(&options), *b = fixed_pool(512, 0);
        void *lent[60];

        for (int i = 0; i < 60; i++)
                lent[i] = i % 3 == 0 ? must_acquire(b, 512) : must_acquire(a, (size_t)i * 50000 + 1);
        ck_assert_int_eq(lido_buffer_release_bulk(lent, 60), LIDO_OK);
        ck_assert_uint_eq(stats_of(a).lent + stats_of(b).lent, 0);
        buffers_check(a);
        buffers_check(b);
        lido_buffer_pool_free(a);
        lido_buffer_pool_free(b);
}
END_TEST

START_TEST(a_cache_handle_serves_without_the_thread_cache)
{
        struct lido_buffer_pool *pool = fixed_pool(256, 0);
        struct lido_buffer_cache *cache;
        void *a, *b;

        ck_assert_int_eq(lido_buffer_cache_open(&cache, pool), LIDO_OK);
        ck_assert_int_eq(lido_buffer_cache_acquire(cache, 200, &a), LIDO_OK);
        ck_assert_int_eq(lido_buffer_cache_release(cache, a), LIDO_OK);
        ck_assert_int_eq(lido_buffer_cache_acquire(cache, 200, &b), LIDO_OK);
        ck_assert_ptr_eq(a, b);
        ck_assert_ptr_null(cache_slots[pool->slot]);
        must_release(b);
        ck_assert_int_eq(lido_buffer_cache_release(cache, b), LIDO_EDOUBLE);
        lido_buffer_cache_close(cache);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

static void *release_all(void *context)
{
        void **lent = context;

        for (int i = 0; lent[i]; i++)
                must_release(lent[i]);
        return NULL;
}

START_TEST(a_buffer_may_be_released_on_another_thread_and_its_cache_comes_back_at_exit)
{
        struct lido_buffer_pool *pool = fixed_pool(2000, 64);
        void *lent[65];
        pthread_t thread;

        for (int round = 0; round < 20; round++) {
                for (int i = 0; i < 64; i++)
                        lent[i] = must_acquire(pool, 2000);
                lent[64] = NULL;
                pthread_create(&thread, NULL, release_all, lent);
                pthread_join(thread, NULL);
                ck_assert_uint_eq(stats_of(pool).lent, 0);
        }
        ck_assert_uint_le(stats_of(pool).caches, 1);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(more_pools_than_thread_local_places_work_side_by_side)
{
        enum { POOLS = CACHE_SLOTS * 2 + 3 };
        struct lido_buffer_pool *pools[POOLS];
        void *lent[POOLS];

        for (int i = 0; i < POOLS; i++)
                pools[i] = fixed_pool(64 + 16 * (size_t)i, 0);
        for (int round = 0; round < 10; round++) {
                for (int i = 0; i < POOLS; i++)
                        lent[i] = must_acquire(pools[i], 64);
                for (int i = 0; i < POOLS; i++)
                        must_release(lent[i]);
        }
        for (int i = 0; i < POOLS; i++) {
                buffers_check(pools[i]);
                lido_buffer_pool_free(pools[i]);
        }
        ck_assert_int_eq(lido_buffer_pool_open(&pools[0], NULL), LIDO_OK);
        must_release(must_acquire(pools[0], 1));
        lido_buffer_pool_free(pools[0]);
}
END_TEST

START_TEST(a_full_cache_gives_its_coldest_half_to_the_depot)
{
        enum { N = 96, RACK = 64 }; /* 32 KiB of buffers of 512 bytes */
        struct lido_buffer_pool *pool = fixed_pool(512, 0);
        struct buffer_class *class = &pool->classes[0];
        void *lent[N];

        for (int i = 0; i < N; i++)
                lent[i] = must_acquire(pool, 512);
        lido_buffer_pool_trim(pool, NULL);
        for (int i = 0; i < N; i++)
                must_release(lent[i]);
        ck_assert_uint_eq(class->count, RACK / 2); /* one trip */
        for (uint32_t i = 0; i < class->count; i++)
                ck_assert_ptr_eq(class->entries[i].buffer, lent[i]);
        for (int i = N; i-- > RACK / 2;)
                ck_assert_ptr_eq(must_acquire(pool, 512), lent[i]); /* the rest stays, the warmest first */
        buffers_check(pool);
        lido_buffer_pool_free(pool);
        for (int i = RACK / 2; i < N; i++)
                must_release(lent[i]);
}
END_TEST

START_TEST(an_empty_cache_is_refilled_by_half_at_one_trip)
{
        struct lido_buffer_pool *pool = fixed_pool(512, 0);
        void *lent[32];
        uint64_t trips;

        must_release(must_acquire(pool, 512)); /* a span, and a cache */
        for (int i = 0; i < 32; i++)
                lent[i] = must_acquire(pool, 512);
        trips = stats_of(pool).contended;
        ck_assert_uint_le(trips, 2);
        for (int i = 0; i < 32; i++)
                must_release(lent[i]);
        ck_assert_uint_eq(stats_of(pool).contended, trips);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(a_cache_grows_with_its_trips_and_not_beyond_its_bound)
{
        enum { N = 400, BASE = 8 }; /* 32 KiB of buffers of 4 KiB */
        static void *lent[N];
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool;
        struct rack *rack;

        options.buffer_bytes = 4096;
        options.cache_bytes = (size_t)64 << 10;
        pool = pool_with(&options);
        for (int round = 0; round < 20; round++) {
                for (int i = 0; i < N; i++)
                        lent[i] = must_acquire(pool, 1);
                for (int i = 0; i < N; i++)
                        must_release(lent[i]);
        }
        rack = &cache_slots[pool->slot]->racks[0];
        ck_assert_uint_gt(rack_limit(rack), BASE);
        ck_assert_uint_le(rack_limit(rack), BASE + (64 << 10) / 4096);
        ck_assert_uint_le(rack_count(rack), rack_limit(rack));
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

static uintptr_t line_of(void *buffer)
{
        return (uintptr_t)span_state(span_of(buffer), buffer) / 64;
}

START_TEST(what_two_caches_use_shares_no_line)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool = pool_with(&options);
        struct lido_buffer_cache *cache[2];
        void *buffer[2];

        for (int i = 0; i < 2; i++)
                ck_assert_int_eq(lido_buffer_cache_open(&cache[i], pool), LIDO_OK);
        for (uint32_t c = 0; c < pool->class_count; c++) {
                for (int i = 0; i < 2; i++)
                        ck_assert_int_eq(lido_buffer_cache_acquire(cache[i], pool->sizes[c], &buffer[i]), LIDO_OK);
                ck_assert_uint_ne(line_of(buffer[0]), line_of(buffer[1]));
                for (int i = 0; i < 2; i++)
                        ck_assert_int_eq(lido_buffer_cache_release(cache[i], buffer[i]), LIDO_OK);
        }
        for (int i = 0; i < 2; i++)
                lido_buffer_cache_close(cache[i]);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(steady_use_takes_nothing_more_from_the_source)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool = pool_with(&options);
        uint64_t grown = 0, contended = 0;

        for (int round = 0; round < 3000; round++) {
                void *a = must_acquire(pool, 700), *b = must_acquire(pool, 30000),
                     *c = must_acquire(pool, 600000);

                must_release(b);
                must_release(a);
                must_release(c);
                if (round == 100) {
                        grown = stats_of(pool).grown;
                        contended = stats_of(pool).contended;
                }
        }
        ck_assert_uint_eq(stats_of(pool).grown, grown);
        ck_assert_uint_eq(stats_of(pool).contended, contended);
        ck_assert_uint_eq(stats_of(pool).acquired, 9000);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(lent_buffers_outlive_their_pool)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool = pool_with(&options);
        char *a = must_acquire(pool, 100), *b = must_acquire(pool, 100),
             *c = must_acquire(pool, (size_t)5 << 20);

        lido_buffer_pool_free(pool);
        memset(a, 1, 100);
        memset(c, 1, (size_t)5 << 20);
        must_release(a);
        ck_assert_int_eq(b[0], b[0]);
        must_release(c);
        must_release(b);
        ck_assert_int_eq(lido_buffer_release(b), LIDO_EFOREIGN);
}
END_TEST

START_TEST(a_drain_ends_with_the_last_release)
{
        struct lido_buffer_pool *pool = fixed_pool(4096, 0);
        void *buffer = must_acquire(pool, 1);

        ck_assert_int_eq(lido_buffer_pool_drain(pool, 0), LIDO_EINVAL);
        ck_assert_int_eq(lido_buffer_pool_close(pool), LIDO_OK);
        ck_assert_int_eq(lido_buffer_pool_close(pool), LIDO_OK);
        ck_assert_int_eq(lido_buffer_try_acquire(pool, 1, &buffer), LIDO_ECLOSED);
        ck_assert_int_eq(lido_buffer_pool_drain(pool, 10), LIDO_ETIMEDOUT);
        must_release(buffer);
        ck_assert_int_eq(lido_buffer_pool_drain(pool, LIDO_NEVER), LIDO_OK);
        ck_assert_uint_eq(stats_of(pool).mapped_bytes, 0);
        lido_buffer_pool_free(pool);
}
END_TEST

int main(void)
{
        return suite_run(
                "buffer/acquire",
                (const TTest *[]){a_buffer_is_as_large_as_asked_and_writable, no_two_lent_buffers_overlap,
                                  the_class_of_a_size_is_the_least_that_holds_it,
                                  the_default_classes_waste_a_tenth_at_most,
                                  a_thread_gets_the_buffer_back_that_it_released_last,
                                  buffers_are_on_the_alignment_asked_for,
                                  power_of_two_sizes_are_aligned_to_themselves_up_to_a_page,
                                  a_size_above_the_classes_is_huge_and_reused_while_warm,
                                  warm_huge_buffers_stay_within_warm_bytes, a_bulk_acquire_gives_all_or_none,
                                  a_bulk_release_takes_buffers_of_several_pools_and_classes,
                                  a_cache_handle_serves_without_the_thread_cache,
                                  a_buffer_may_be_released_on_another_thread_and_its_cache_comes_back_at_exit,
                                  more_pools_than_thread_local_places_work_side_by_side,
                                  a_full_cache_gives_its_coldest_half_to_the_depot,
                                  an_empty_cache_is_refilled_by_half_at_one_trip,
                                  a_cache_grows_with_its_trips_and_not_beyond_its_bound,
                                  what_two_caches_use_shares_no_line,
                                  steady_use_takes_nothing_more_from_the_source,
                                  lent_buffers_outlive_their_pool, a_drain_ends_with_the_last_release, NULL});
}
