/* The storm: threads do at random all that can be done to a pool at once, and the invariants hold at every
 * rest.
 *
 * LIDO_STORM_SEED replays a run (up to the scheduler), LIDO_STORM_ROUNDS makes it longer. Every buffer
 * carries a stamp of who has it: two borrowers of one buffer would see each other's. */
#include <pthread.h>
#include <stdio.h>
#include <uv.h>

#include "base/random.h"
#include "base/thread.h"
#include "buffer/support.h"

enum { THREADS = 4, HOLD = 24, SLOTS = 32 };

struct storm {
        struct lido_buffer_pool *pool;
        size_t largest;                /* sizes asked for */
        _Atomic(void *) handed[SLOTS]; /* buffers that travel between threads */
        _Atomic uint64_t served, refused;
        uint32_t steps;
        uint64_t seed;
        int check_stamps;
};

struct sailor {
        struct storm *storm;
        pthread_t thread;
        uint64_t id;
        void *held[HOLD];
        int holds;
};

static uint64_t rounds(uint64_t usual)
{
        const char *text = getenv("LIDO_STORM_ROUNDS");

        return text ? strtoull(text, NULL, 0) : usual;
}

static uint64_t seed(void)
{
        const char *text = getenv("LIDO_STORM_SEED");
        uint64_t value = text ? strtoull(text, NULL, 0) : random_seed();

        printf("LIDO_STORM_SEED=%llu\n", (unsigned long long)value);
        fflush(stdout);
        return value;
}

static void stamp(struct sailor *s, void *buffer)
{
        memcpy(buffer, &s->id, sizeof s->id);
}

static void unstamp(const void *buffer, uint64_t id)
{
        uint64_t seen;

        memcpy(&seen, buffer, sizeof seen);
        if (seen != id)
                ck_abort_msg("a buffer of %llu has the stamp of %llu", (unsigned long long)id,
                             (unsigned long long)seen);
}

static void got(struct sailor *s, void *buffer)
{
        stamp(s, buffer);
        s->held[s->holds++] = buffer;
        add_relaxed(&s->storm->served, 1);
}

static void acquire_somehow(struct sailor *s, struct random *r)
{
        size_t bytes = 8 + (size_t)random_below(r, s->storm->largest - 7);
        void *many[4];
        int rc, k = HOLD - s->holds < 4 ? HOLD - s->holds : 4;

        if (k == 0)
                return;
        if (bytes > 1000 && random_below(r, 4) != 0)
                bytes = 8 + (size_t)random_below(r, 1000);
        switch (random_below(r, 4)) {
        case 0:
                rc = lido_buffer_timed_acquire(s->storm->pool, bytes, (int64_t)random_below(r, 2), &many[0]);
                k = 1;
                break;
        case 1:
                rc = lido_buffer_acquire_bulk(s->storm->pool, bytes, (uint32_t)k, many);
                break;
        default:
                rc = lido_buffer_try_acquire(s->storm->pool, bytes, &many[0]);
                k = 1;
        }
        if (rc == LIDO_OK)
                for (int i = 0; i < k; i++)
                        got(s, many[i]);
        else
                add_relaxed(&s->storm->refused, 1);
}

static void release_somehow(struct sailor *s, struct random *r)
{
        int n = s->holds > 3 && random_below(r, 3) == 0 ? 3 : 1;

        if (s->holds == 0)
                return;
        s->holds -= n;
        for (int i = 0; i < n; i++)
                unstamp(s->held[s->holds + i], s->id);
        if (n > 1)
                ck_assert_int_eq(lido_buffer_release_bulk(&s->held[s->holds], (uint32_t)n), LIDO_OK);
        else
                must_release(s->held[s->holds]);
}

/* Hand one over to whoever comes by, and take what lies there. */
static void swap_somehow(struct sailor *s, struct random *r)
{
        _Atomic(void *) *place = &s->storm->handed[random_below(r, SLOTS)];
        void *mine = NULL, *other;

        if (s->holds > 0) {
                mine = s->held[--s->holds];
                unstamp(mine, s->id);
        }
        other = exchange_acq_rel(place, mine);
        if (!other)
                return;
        if (s->holds < HOLD && random_below(r, 2))
                got(s, other);
        else
                must_release(other);
}

static void *sail(void *context)
{
        struct sailor *s = context;
        struct random r = {s->storm->seed + s->id};

        for (uint32_t step = 0; step < s->storm->steps; step++) {
                switch (random_below(&r, 16)) {
                case 0:
                        if (random_below(&r, 8) == 0)
                                lido_buffer_pool_trim(s->storm->pool, NULL);
                        break;
                case 1:
                        if (random_below(&r, 4) == 0)
                                lido_buffer_pool_upkeep(s->storm->pool);
                        break;
                case 2:
                        if (random_below(&r, 4) == 0)
                                (void)stats_of(s->storm->pool);
                        break;
                case 3:
                case 4:
                        swap_somehow(s, &r);
                        break;
                case 5:
                case 6:
                case 7:
                case 8:
                case 9:
                        release_somehow(s, &r);
                        break;
                default:
                        acquire_somehow(s, &r);
                }
        }
        while (s->holds > 0)
                release_somehow(s, &r);
        return NULL;
}

/* One round: threads are born, sail and end; then the pool is at rest. */
static void blow(struct storm *storm)
{
        struct sailor sailors[THREADS] = {0};

        for (int i = 0; i < THREADS; i++) {
                sailors[i].storm = storm;
                sailors[i].id = (uint64_t)i + 1;
                ck_assert_int_eq(pthread_create(&sailors[i].thread, NULL, sail, &sailors[i]), 0);
        }
        for (int i = 0; i < THREADS; i++)
                pthread_join(sailors[i].thread, NULL);
        for (int i = 0; i < SLOTS; i++)
                if (storm->handed[i])
                        must_release(exchange_acq_rel(&storm->handed[i], NULL));
        buffers_check(storm->pool);
        ck_assert_uint_eq(stats_of(storm->pool).lent, 0);
        ck_assert_uint_eq(stats_of(storm->pool).waiting, 0);
        ck_assert_uint_eq(load_relaxed(&storm->pool->attention), storm->pool->reserve_short);
}

static void storm_over(const struct lido_buffer_options *options, size_t largest, uint64_t n)
{
        struct storm storm = {.pool = pool_with(options), .largest = largest, .steps = 2000, .seed = seed()};

        for (uint64_t round = 0; round < rounds(n); round++) {
                blow(&storm);
                storm.seed += 1000;
        }
        ck_assert_uint_gt(load_relaxed(&storm.served), 0);
        lido_buffer_pool_free(storm.pool);
}

START_TEST(a_storm_over_classes_without_a_cap)
{
        struct lido_buffer_options options = plain_options();

        storm_over(&options, 300000, 10);
}
END_TEST

START_TEST(a_storm_over_classes_at_the_cap)
{
        struct lido_buffer_options options = plain_options();

        options.max_bytes = (size_t)1 << 20;
        options.largest_bytes = 65536;
        storm_over(&options, 100000, 10);
}
END_TEST

START_TEST(a_storm_over_one_size_at_the_cap)
{
        struct lido_buffer_options options = plain_options();

        options.buffer_bytes = 1024;
        options.max_bytes = (size_t)40 * 1024;
        storm_over(&options, 1024, 10);
}
END_TEST

START_TEST(a_storm_over_a_reserve)
{
        struct lido_buffer_options options = plain_options();

        options.buffer_bytes = 8192;
        options.max_bytes = (size_t)30 * 8192;
        options.reserve = 10;
        storm_over(&options, 8192, 6);
        options.mode = LIDO_BUFFER_MODE_RESERVE;
        storm_over(&options, 8192, 3);
}
END_TEST

START_TEST(a_storm_over_checked_pools)
{
        struct lido_buffer_options options = plain_options();

        options.flags |=
                LIDO_BUFFER_COOKIES | LIDO_BUFFER_POISON | LIDO_BUFFER_LEAKS | LIDO_BUFFER_ZERO_ON_RELEASE;
        options.leak_sample = 3;
        storm_over(&options, 3000, 3);
        options.flags = LIDO_BUFFER_GUARD;
        storm_over(&options, 3000, 2);
        options.flags = 0; /* ASan or Valgrind, when there */
        storm_over(&options, 3000, 2);
}
END_TEST

static _Atomic uint64_t asked, built, torn;

static int build(void *buffer, size_t bytes, void *context)
{
        (void)context;
        if (add_relaxed(&asked, 1) % 97 == 96)
                return -1;
        add_relaxed(&built, 1);
        memset((char *)buffer + 8, 0x77, bytes - 8);
        return 0;
}

static void tear(void *buffer, size_t bytes, void *context)
{
        (void)context;
        for (size_t i = 8; i < bytes; i++)
                if (((unsigned char *)buffer)[i] != 0x77)
                        ck_abort_msg("a constructed state was lost");
        add_relaxed(&torn, 1);
}

START_TEST(a_storm_over_constructed_buffers)
{
        struct lido_buffer_options options = plain_options();

        options.buffer_bytes = 64;
        options.construct = build;
        options.destruct = tear;
        storm_over(&options, 64, 5);
        ck_assert_uint_eq(load_relaxed(&built), load_relaxed(&torn));
}
END_TEST

static void *release_list(void *context)
{
        void **list = context;

        for (int i = 0; list[i]; i++)
                must_release(list[i]);
        return NULL;
}

START_TEST(a_storm_in_which_the_pool_is_freed_under_its_buffers)
{
        for (uint64_t round = 0; round < rounds(10); round++) {
                struct lido_buffer_options options = plain_options();
                struct storm storm = {
                        .pool = pool_with(&options), .largest = 50000, .steps = 300, .seed = seed()};
                pthread_t threads[THREADS];
                void *lists[THREADS][17];

                for (int i = 0; i < THREADS; i++) {
                        for (int k = 0; k < 16; k++)
                                lists[i][k] = must_acquire(storm.pool, 10 + (size_t)(k * 7000) % 40000);
                        lists[i][16] = NULL;
                }
                for (int i = 0; i < THREADS; i++)
                        pthread_create(&threads[i], NULL, release_list, lists[i]);
                lido_buffer_pool_free(storm.pool);
                for (int i = 0; i < THREADS; i++)
                        pthread_join(threads[i], NULL);
        }
}
END_TEST

int main(void)
{
        return suite_run("buffer/storm",
                         (const TTest *[]){a_storm_over_classes_without_a_cap,
                                           a_storm_over_classes_at_the_cap, a_storm_over_one_size_at_the_cap,
                                           a_storm_over_a_reserve, a_storm_over_checked_pools,
                                           a_storm_over_constructed_buffers,
                                           a_storm_in_which_the_pool_is_freed_under_its_buffers, NULL});
}
