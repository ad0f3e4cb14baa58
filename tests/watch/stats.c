/* Figures: gauges, counters, histograms and their quantiles. What each counter counts is seen beside what it counts, in the other
 * tests; here that they hold together.
 */
#include "lido/stats.h"

#include <string.h>

#include "base/random.h"
#include "pool/pool.h"
#include "support/crew.h"
#include "support/fixture.h"
#include "support/suite.h"

struct recorder {
        _Atomic uint64_t sum_ns, max_ns, bucket[LIDO_HISTOGRAM_BUCKETS];
};

static struct lido_histogram histogram_of(struct recorder *r)
{
        struct lido_histogram h = { 0 };

        h.sum_ns = r->sum_ns;
        h.max_ns = r->max_ns;
        for (int i = 0; i < LIDO_HISTOGRAM_BUCKETS; i++) {
                h.bucket[i] = r->bucket[i];
                h.count += h.bucket[i];
        }
        return h;
}

static void record(struct recorder *r, uint64_t ns)
{
        pool_record(&r->sum_ns, &r->max_ns, r->bucket, ns);
}

START_TEST(an_empty_histogram_has_no_quantile)
{
        struct lido_histogram none = { 0 };

        ck_assert_uint_eq(lido_histogram_quantile_ns(&none, 0.5), 0);
}
END_TEST

START_TEST(a_quantile_is_at_most_a_quarter_above_the_sample)
{
        struct random random = { 5 };

        for (int i = 0; i < 20000; i++) {
                struct recorder r = { 0 };
                struct lido_histogram h;
                uint64_t ns = random_next(&random) >> (20 + random_below(&random, 44)), quantile;

                record(&r, ns);
                record(&r, UINT64_C(1) << 62); /* so that the maximum does not cut it short */
                h = histogram_of(&r);
                quantile = lido_histogram_quantile_ns(&h, 0.5);
                must(quantile >= ns);
                if (ns < UINT64_C(1) << 40)
                        must(quantile <= ns + ns / 4 + 1);
        }
}
END_TEST

START_TEST(quantiles_grow_and_end_at_the_maximum)
{
        struct recorder r = { 0 };
        struct lido_histogram h;
        uint64_t last = 0;

        for (uint64_t ns = 1; ns <= 1000000; ns += 997)
                record(&r, ns);
        h = histogram_of(&r);

        for (int percent = 0; percent <= 100; percent++) {
                uint64_t quantile = lido_histogram_quantile_ns(&h, percent / 100.0);

                ck_assert_uint_ge(quantile, last);
                last = quantile;
        }
        ck_assert_uint_eq(last, h.max_ns);
        ck_assert_uint_ge(lido_histogram_quantile_ns(&h, 0.5), 500000 - 997);
        ck_assert_uint_le(lido_histogram_quantile_ns(&h, 0.5), 500000 * 5 / 4);
}
END_TEST

START_TEST(the_longest_duration_falls_into_the_last_bucket)
{
        struct recorder r = { 0 };

        record(&r, UINT64_MAX);
        record(&r, 0);

        ck_assert_uint_eq(r.bucket[LIDO_HISTOGRAM_BUCKETS - 1], 1);
        ck_assert_uint_eq(r.bucket[0], 1);
        ck_assert_uint_eq(r.max_ns, UINT64_MAX);
}
END_TEST

START_TEST(an_older_caller_gets_as_much_as_it_has_room_for)
{
        struct fixture *f = pool_of(3);
        struct lido_stats stats;

        memset(&stats, 0x55, sizeof stats);
        stats.size = offsetof(struct lido_stats, opening);
        ck_assert_int_eq(lido_pool_stats(f->pool, &stats), LIDO_OK);

        ck_assert_uint_eq(stats.max, 3);
        ck_assert_uint_eq(stats.opening, 0x55555555);
        ck_assert_uint_eq(stats.size, offsetof(struct lido_stats, opening));
        fixture_end(f);
}
END_TEST

START_TEST(nothing_or_too_little_to_fill_is_refused)
{
        struct fixture *f = pool_of(1);
        struct lido_stats stats = { .size = 0 };
        struct lido_blame blame = { .size = 0 };

        ck_assert_int_eq(lido_pool_stats(f->pool, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_stats(f->pool, &stats), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_stats(NULL, &stats), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_blame(f->pool, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_blame(f->pool, &blame), LIDO_EINVAL);
        fixture_end(f);
}
END_TEST

START_TEST(at_rest_every_figure_agrees_with_what_was_done)
{
        struct fixture *f = pool_of(2);
        struct lido_stats stats;
        lido_lease lease[2], none;

        for (int i = 0; i < 2; i++)
                lease[i] = must_acquire(f);
        ck_assert_int_eq(lido_try_acquire(f->pool, &none), LIDO_EEXHAUSTED);
        must_release(lease[0]);
        ck_assert_int_eq(lido_discard(lease[1]), LIDO_OK);
        ck_eventually(stats_of(f->pool).live == 1);
        stats = stats_of(f->pool);

        ck_assert_uint_eq(stats.acquired, 2);
        ck_assert_uint_eq(stats.waited, 2);
        ck_assert_uint_eq(stats.opened, 2);
        ck_assert_uint_eq(stats.closed[LIDO_CLOSE_DISCARDED], 1);
        ck_assert_uint_eq(stats.idle, 1);
        ck_assert_uint_eq(stats.leased, 0);
        ck_assert_uint_eq(stats.wait.count, 2);
        ck_assert_uint_eq(stats.open_time.count, 2);
        fixture_end(f);
}
END_TEST

struct watchers {
        struct fixture *f;
        _Atomic bool is_over;
};

static void watch_or_work(void *context, unsigned number)
{
        struct watchers *w = context;

        if (number > 0) {
                for (int i = 0; i < 5000; i++)
                        must_release(must_acquire(w->f));
                atomic_store(&w->is_over, true);
                return;
        }
        for (uint64_t acquired = 0; !atomic_load(&w->is_over);) {
                struct lido_stats s = stats_of(w->f->pool);

                must(s.live == s.opening + s.idle + s.leased + s.checking + s.resetting + s.closing);
                must(s.acquired >= acquired);
                must(s.live <= 4);
                acquired = s.acquired;
        }
}

START_TEST(read_beside_borrowers_the_gauges_add_up_and_no_counter_goes_back)
{
        struct watchers w = { .f = pool_of(4) };

        crew_run(4, watch_or_work, &w);

        ck_assert_uint_eq(stats_of(w.f->pool).acquired, 15000);
        fixture_end(w.f);
}
END_TEST

int main(void)
{
        return suite_run("watch/stats", (const TTest *[]){
                                                an_empty_histogram_has_no_quantile,
                                                a_quantile_is_at_most_a_quarter_above_the_sample,
                                                quantiles_grow_and_end_at_the_maximum,
                                                the_longest_duration_falls_into_the_last_bucket,
                                                an_older_caller_gets_as_much_as_it_has_room_for,
                                                nothing_or_too_little_to_fill_is_refused,
                                                at_rest_every_figure_agrees_with_what_was_done,
                                                read_beside_borrowers_the_gauges_add_up_and_no_counter_goes_back,
                                                NULL,
                                        });
}
