/* What no borrower should do, and what each of it is answered. */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/random.h"
#include "buffer/support.h"
#include "support/crew.h"

static _Thread_local struct lido_event last; /* an event comes on the thread of the misuse */
static _Atomic int events;

static void note(const struct lido_event *event, void *context)
{
        (void)context;
        last = *event;
        atomic_fetch_add(&events, 1);
}

static struct lido_buffer_pool *noting_pool(size_t bytes)
{
        struct lido_buffer_options options = plain_options();

        options.buffer_bytes = bytes;
        options.on_event = note;
        options.name = "noting";
        return pool_with(&options);
}

START_TEST(a_double_release_is_refused_and_reported)
{
        struct lido_buffer_pool *pool = noting_pool(1000);
        void *buffer = must_acquire(pool, 1000);

        must_release(buffer);
        ck_assert_int_eq(lido_buffer_release(buffer), LIDO_EDOUBLE);
        ck_assert_int_eq(atomic_load(&events), 1);
        ck_assert_int_eq(last.type, LIDO_EVENT_MISUSE);
        ck_assert_int_eq(last.code, LIDO_EDOUBLE);
        ck_assert_str_eq(last.pool_name, "noting");
        ck_assert_ptr_nonnull(strstr(last.site, "misuse.c:"));
        lido_buffer_pool_trim(pool, NULL);
        ck_assert_int_ne(lido_buffer_release(buffer), LIDO_OK);
        ck_assert_uint_ge(stats_of(pool).misused, 1);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(a_double_release_is_refused_wherever_the_buffer_went)
{
        struct lido_buffer_pool *pool = noting_pool(64);
        enum { N = 3000 };
        static void *lent[N];

        for (int i = 0; i < N; i++)
                lent[i] = must_acquire(pool, 64);
        for (int i = 0; i < N; i++)
                must_release(lent[i]);
        for (int i = 0; i < N; i++)
                ck_assert_int_eq(lido_buffer_release(lent[i]), LIDO_EDOUBLE);
        ck_assert_int_eq(lido_buffer_release_bulk(lent, N), LIDO_EDOUBLE);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(pointers_that_are_no_buffers_are_refused_unfollowed)
{
        struct lido_buffer_pool *pool = noting_pool(3000);
        char *buffer = must_acquire(pool, 3000), on_stack[64];
        void *wild[] = {(void *)1,
                        (void *)4096,
                        (void *)0xdeadbeefdead000,
                        (void *)UINTPTR_MAX,
                        (void *)(UINTPTR_MAX << 48),
                        on_stack,
                        (void *)note,
                        malloc(10),
                        (void *)((uintptr_t)buffer | (uintptr_t)1 << 56)};

        ck_assert_int_eq(lido_buffer_release(NULL), LIDO_EINVAL);
        for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
                ck_assert_int_eq(lido_buffer_release(wild[i]), LIDO_EFOREIGN);
                ck_assert_uint_eq(lido_buffer_bytes(wild[i]), 0);
                ck_assert_ptr_null(lido_buffer_pool_of(wild[i]));
                lido_buffer_touch(wild[i]);
        }
        for (int i = 1; i < 3000; i++)
                ck_assert_int_eq(lido_buffer_release(buffer + i), LIDO_EFOREIGN);
        free(wild[7]);
        must_release(buffer);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(a_pointer_into_a_region_that_has_gone_is_refused)
{
        struct lido_buffer_pool *pool = noting_pool(1 << 20);
        void *buffer = must_acquire(pool, 1 << 20);

        must_release(buffer);
        lido_buffer_pool_trim(pool, NULL);
        ck_assert_int_eq(lido_buffer_release(buffer), LIDO_EFOREIGN);
        lido_buffer_pool_free(pool);
        ck_assert_int_eq(lido_buffer_release(buffer), LIDO_EFOREIGN);
}
END_TEST

struct racers {
        pthread_barrier_t start;
        void *buffer;
        int rc[4];
        _Atomic int next;
};

static void *race(void *context)
{
        struct racers *r = context;

        for (int round = 0; round < 500; round++) {
                pthread_barrier_wait(&r->start);
                r->rc[atomic_fetch_add(&r->next, 1) % 4] = lido_buffer_release(r->buffer);
                pthread_barrier_wait(&r->start);
        }
        return NULL;
}

START_TEST(of_many_racing_releases_exactly_one_succeeds)
{
        struct lido_buffer_pool *pool = noting_pool(512);
        struct racers r = {0};
        pthread_t threads[4];

        pthread_barrier_init(&r.start, NULL, 5);
        for (int i = 0; i < 4; i++)
                pthread_create(&threads[i], NULL, race, &r);
        for (int round = 0; round < 500; round++) {
                int good = 0;

                r.buffer = must_acquire(pool, 512);
                pthread_barrier_wait(&r.start);
                pthread_barrier_wait(&r.start);
                for (int i = 0; i < 4; i++) {
                        good += r.rc[i] == LIDO_OK;
                        if (r.rc[i] != LIDO_OK)
                                ck_assert_int_eq(r.rc[i], LIDO_EDOUBLE);
                }
                ck_assert_int_eq(good, 1);
        }
        for (int i = 0; i < 4; i++)
                pthread_join(threads[i], NULL);
        pthread_barrier_destroy(&r.start);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

enum { NEIGHBOURS = 64 };

START_TEST(of_neighbours_released_at_once_those_that_were_not_lent_are_refused)
{
        for (size_t bytes = 16; bytes <= 8192; bytes *= 2) {
                struct lido_buffer_pool *pool = noting_pool(bytes);
                void *lent[NEIGHBOURS];

                for (int i = 0; i < NEIGHBOURS; i++)
                        lent[i] = must_acquire(pool, bytes);
                for (int i = 3; i < NEIGHBOURS; i += 7)
                        must_release(lent[i]);
                ck_assert_int_eq(lido_buffer_release_bulk(lent, NEIGHBOURS), LIDO_EDOUBLE);
                ck_assert_uint_eq(stats_of(pool).lent, 0);
                ck_assert_uint_eq(stats_of(pool).misused, (NEIGHBOURS - 3 + 6) / 7);
                buffers_check(pool); /* no buffer has two entries */
                lido_buffer_pool_free(pool);
        }
}
END_TEST

struct bulk_race {
        struct lido_buffer_pool *pool;
        void *lent[NEIGHBOURS];
};

/* Forwards, backwards, in pieces, one by one. */
static void release_all(void *context, unsigned number)
{
        struct bulk_race *race = context;
        void *order[NEIGHBOURS];

        for (int i = 0; i < NEIGHBOURS; i++)
                order[i] = race->lent[number == 1 ? NEIGHBOURS - 1 - i : i];
        if (number == 3)
                for (int i = 0; i < NEIGHBOURS; i++)
                        lido_buffer_release(order[i]);
        else if (number == 2)
                for (uint32_t i = 0; i < NEIGHBOURS; i += 16)
                        lido_buffer_release_bulk(order + i + 1, 15);
        else
                lido_buffer_release_bulk(order, NEIGHBOURS);
}

START_TEST(of_racing_bulk_releases_one_gets_each_buffer)
{
        for (int round = 0; round < 200; round++) {
                struct bulk_race race = {.pool = noting_pool(64)};

                for (int i = 0; i < NEIGHBOURS; i++)
                        race.lent[i] = must_acquire(race.pool, 64);
                crew_run(4, release_all, &race);
                ck_assert_uint_eq(stats_of(race.pool).lent, 0);
                ck_assert_uint_eq(stats_of(race.pool).misused, 2 * NEIGHBOURS + NEIGHBOURS - 4);
                buffers_check(race.pool);
                lido_buffer_pool_free(race.pool);
        }
}
END_TEST

START_TEST(a_million_random_misuses_change_nothing)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool;
        struct random r = {random_seed()};
        enum { N = 64 };
        struct {
                char *buffer;
                int lent;
        } known[N] = {0};
        uint64_t refused = 0;

        pool = pool_with(&options);
        for (int i = 0; i < 1000000; i++) {
                uint64_t k = random_below(&r, N);
                int rc;

                switch (random_below(&r, 4)) {
                case 0:
                        rc = lido_buffer_release((char *)(uintptr_t)random_next(&r));
                        break;
                case 1:
                        rc = lido_buffer_release(known[k].buffer ? known[k].buffer + 1 + random_below(&r, 15)
                                                                 : NULL);
                        break;
                case 2:
                        if (known[k].lent && lido_buffer_release(known[k].buffer) != LIDO_OK)
                                ck_abort_msg("a release was refused");
                        known[k].lent = 0;
                        rc = LIDO_EINVAL; /* whether it is lent again, to another of ours, decides what a
                                             second release means */
                        break;
                default:
                        if (!known[k].lent) {
                                void *buffer = NULL;

                                known[k].lent =
                                        lido_buffer_try_acquire(pool, 1 + (size_t)random_below(&r, 40000),
                                                                &buffer) == LIDO_OK;
                                known[k].buffer = buffer;
                        }
                        rc = LIDO_EINVAL;
                }
                if (rc >= 0)
                        ck_abort_msg("a misuse was accepted");
                refused++;
        }
        ck_assert_uint_eq(refused, 1000000);
        for (int k = 0; k < N; k++)
                if (known[k].lent)
                        must_release(known[k].buffer);
        ck_assert_uint_eq(stats_of(pool).lent, 0);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(options_out_of_range_are_refused)
{
        static const struct lido_buffer_options bad[] = {
                {.size = sizeof bad[0], .flags = 0x8000},
                {.size = sizeof bad[0], .mode = 7},
                {.size = sizeof bad[0], .alignment_bytes = 48},
                {.size = sizeof bad[0], .alignment_bytes = (size_t)4 << 20},
                {.size = sizeof bad[0], .per_doubling = 3},
                {.size = sizeof bad[0], .largest_bytes = (size_t)64 << 20},
                {.size = sizeof bad[0], .reserve = 4},
                {.size = sizeof bad[0], .buffer_bytes = 64, .mode = LIDO_BUFFER_MODE_RESERVE},
                {.size = sizeof bad[0], .buffer_bytes = 64, .per_doubling = 4},
                {.size = sizeof bad[0], .buffer_bytes = (size_t)2 << 30},
                {.size = sizeof bad[0], .decay_ms = -2},
                {.size = sizeof bad[0], .acquire_timeout_ms = -2},
                {.size = sizeof bad[0], .flags = LIDO_BUFFER_CALLER_MEMORY},
                {.size = sizeof bad[0], .flags = LIDO_BUFFER_GUARD | LIDO_BUFFER_POISON},
                {.size = sizeof bad[0], .named_count = 1},
                {.size = sizeof bad[0], .buffer_bytes = 4096, .max_bytes = 8192, .reserve = 3},
                {.size = 4},
        };
        struct lido_buffer_pool *pool = NULL;

        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
                ck_assert_msg(lido_buffer_pool_open(&pool, &bad[i]) == LIDO_EINVAL, "bad options %zu", i);
        ck_assert_ptr_null(pool);
        lido_buffer_pool_free(NULL);
        lido_buffer_cache_close(NULL);
        ck_assert_int_eq(lido_buffer_pool_close(NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_buffer_pool_trim(NULL, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_buffer_pool_open(NULL, NULL), LIDO_EINVAL);
}
END_TEST

START_TEST(a_child_is_told_that_the_pool_is_its_parents_and_may_open_its_own)
{
        struct lido_buffer_pool *pool = noting_pool(4096), *own = NULL;
        char *lent = must_acquire(pool, 4096);
        void *buffer;
        int status = 0;
        pid_t child;

        lent[0] = 'x';
        must_release(must_acquire(pool, 4096));
        child = fork();
        if (child == 0) {
                int ok = lido_buffer_try_acquire(pool, 1, &buffer) == LIDO_EFORKED &&
                         lido_buffer_acquire_bulk(pool, 1, 1, &buffer) == LIDO_EFORKED && lent[0] == 'x' &&
                         lido_buffer_release(lent) == LIDO_EFORKED &&
                         lido_buffer_release(lent) == LIDO_EFORKED &&
                         lido_buffer_pool_trim(pool, NULL) == LIDO_EFORKED &&
                         lido_buffer_pool_close(pool) == LIDO_EFORKED &&
                         lido_buffer_pool_upkeep(pool) == LIDO_EFORKED;

                lido_buffer_pool_free(pool);
                ok = ok && lido_buffer_pool_open(&own, NULL) == LIDO_OK &&
                     lido_buffer_acquire(own, 100, &buffer) == LIDO_OK &&
                     lido_buffer_release(buffer) == LIDO_OK;
                lido_buffer_pool_free(own);
                _exit(ok ? 0 : 1);
        }
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_int_eq(status, 0);
        must_release(lent);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

int main(void)
{
        return suite_run(
                "buffer/misuse",
                (const TTest *[]){a_double_release_is_refused_and_reported,
                                  a_double_release_is_refused_wherever_the_buffer_went,
                                  pointers_that_are_no_buffers_are_refused_unfollowed,
                                  a_pointer_into_a_region_that_has_gone_is_refused,
                                  of_many_racing_releases_exactly_one_succeeds,
                                  of_neighbours_released_at_once_those_that_were_not_lent_are_refused,
                                  of_racing_bulk_releases_one_gets_each_buffer,
                                  a_million_random_misuses_change_nothing, options_out_of_range_are_refused,
                                  a_child_is_told_that_the_pool_is_its_parents_and_may_open_its_own, NULL});
}
