/* When the keeper opens, on a clock that the test moves. Not covered here: what an acquire gets while opens fail (lifecycle.c),
 * and the hooks themselves (work.c, helpers.c). */
#include "keeper/grow.h"

#include "pool/waitq.h"
#include "support/desk.h"
#include "support/suite.h"

static const struct fake_step later = { .way = FAKE_LATER };

static struct fake_step failing(int failure)
{
        return (struct fake_step){ .status = LIDO_EFACTORY, .failure = failure };
}

START_TEST(a_lazy_pool_opens_nothing_until_somebody_waits)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };

        desk_open(desk);
        desk_pass_time(desk, 60 * NS_PER_S);
        ck_assert_uint_eq(desk->f.fake.opened, 0);

        ck_assert_int_eq(desk_wait(desk, &w, 1000), LIDO_OK);
        desk_turn(desk);

        ck_assert_uint_eq(desk->f.fake.opened, 1);
        ck_assert_int_eq(w.status, LIDO_OK);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(opens_under_way_never_exceed_open_limit_nor_those_who_wait)
{
        struct desk *desk = desk_new();
        struct waiting w[6] = { { .calls = 0 } };

        desk->f.options.max = 8;
        desk->f.options.open_limit = 3;
        fake_always(&desk->f.fake, FAKE_OPEN, later);
        desk_open(desk);
        desk_wait(desk, &w[0], LIDO_NEVER);
        desk_turn(desk);
        ck_assert_uint_eq(desk->f.fake.at_work[FAKE_OPEN], 1);

        for (int i = 1; i < 6; i++)
                desk_wait(desk, &w[i], LIDO_NEVER);
        desk_turn(desk);
        ck_assert_uint_eq(desk->f.fake.at_work[FAKE_OPEN], 3);

        while (fake_kept(&desk->f.fake, FAKE_OPEN) > 0) {
                fake_answer(&desk->f.fake, FAKE_OPEN);
                desk_turn(desk);
        }
        ck_assert_uint_eq(desk->f.fake.most_at_work[FAKE_OPEN], 3);
        ck_assert_uint_eq(desk->f.fake.opened, 6);
        for (int i = 0; i < 6; i++)
                must_release(w[i].lease);
        desk_end(desk);
}
END_TEST

START_TEST(an_open_goes_on_when_its_waiter_is_cancelled_and_counts_in_max)
{
        struct desk *desk = desk_new();
        struct waiting w[8] = { { .calls = 0 } };

        desk->f.options.max = 2;
        fake_always(&desk->f.fake, FAKE_OPEN, later);
        desk_open(desk);
        for (int i = 0; i < 8; i++) { /* a storm of those who come and go */
                desk_wait(desk, &w[i], LIDO_NEVER);
                desk_turn(desk);
                ck_assert_int_eq(lido_cancel(&w[i].request), LIDO_OK);
                desk_turn(desk);
                ck_assert_int_eq(w[i].status, LIDO_ECANCELED);
        }
        ck_assert_uint_le(desk->f.fake.called[FAKE_OPEN], 2);

        fake_answer_all(&desk->f.fake);
        desk_turn(desk);

        ck_assert_uint_ge(desk->f.fake.opened, 1);
        check_quiet(desk->pool);
        desk_end(desk);
}
END_TEST

START_TEST(min_and_min_idle_are_kept_open)
{
        struct desk *desk = desk_new();
        lido_lease a, b;

        desk->f.options.max = 8;
        desk->f.options.min = 1;
        desk->f.options.min_idle = 2;
        desk_open(desk);
        desk_turn(desk);
        ck_assert_uint_eq(stats_of(desk->pool).idle, 2);

        a = desk_acquire(desk);
        b = desk_acquire(desk);
        ck_assert_int_eq(lido_discard(a), LIDO_OK);
        desk_turn(desk);

        ck_assert_uint_ge(stats_of(desk->pool).live, 1);
        must_release(b);
        desk_end(desk);
}
END_TEST

START_TEST(after_a_failure_one_open_at_a_time_is_tried_after_growing_pauses)
{
        struct desk *desk = desk_new();
        struct waiting w[4] = { { .calls = 0 } };
        uint32_t first_second, later_second;

        desk->f.options.max = 4;
        desk->f.options.backoff_min_ms = 100;
        desk->f.options.backoff_max_ms = 10000;
        fake_always(&desk->f.fake, FAKE_OPEN, failing(LIDO_FAILURE_TRANSIENT));
        desk_open(desk);
        for (int i = 0; i < 4; i++)
                desk_wait(desk, &w[i], LIDO_NEVER);
        desk_turn(desk);
        first_second = desk->f.fake.called[FAKE_OPEN];
        ck_assert_uint_le(first_second, 4);

        desk_pass_time(desk, 60 * NS_PER_S);
        later_second = desk->f.fake.called[FAKE_OPEN];
        desk_pass_time(desk, NS_PER_S);

        ck_assert_uint_ge(later_second, first_second + 5);
        ck_assert_uint_le(later_second, first_second + 200);
        ck_assert_uint_le(desk->f.fake.called[FAKE_OPEN] - later_second, 10);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_DOWN), 1);

        fake_always(&desk->f.fake, FAKE_OPEN, (struct fake_step){ .status = LIDO_OK });
        desk_pass_time(desk, 30 * NS_PER_S);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_UP), 1);
        for (int i = 0; i < 4; i++) {
                ck_assert_int_eq(w[i].status, LIDO_OK);
                must_release(w[i].lease);
        }
        desk_end(desk);
}
END_TEST

START_TEST(a_server_that_is_down_is_asked_again_within_half_a_second_however_long_it_was_down)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };

        fake_always(&desk->f.fake, FAKE_OPEN, failing(LIDO_FAILURE_NETWORK));
        desk_open(desk);
        desk_wait(desk, &w, LIDO_NEVER);
        desk_pass_time(desk, 300 * NS_PER_S);

        fake_always(&desk->f.fake, FAKE_OPEN, (struct fake_step){ .status = LIDO_OK });
        desk_pass_time(desk, NS_PER_S / 2);

        ck_assert_uint_eq(w.calls, 1);
        ck_assert_int_eq(w.status, LIDO_OK);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(a_permanent_failure_fails_the_waiters_at_once_and_those_who_come_later)
{
        struct desk *desk = desk_new();
        struct waiting w[3] = { { .calls = 0 } };

        desk->f.options.max = 2;
        fake_always(&desk->f.fake, FAKE_OPEN, failing(LIDO_FAILURE_PERMANENT));
        desk_open(desk);
        desk_wait(desk, &w[0], LIDO_NEVER);
        desk_wait(desk, &w[1], LIDO_NEVER);
        desk_turn(desk);
        ck_assert_int_eq(w[0].status, LIDO_EPERMANENT);
        ck_assert_int_eq(w[1].status, LIDO_EPERMANENT);

        desk_wait(desk, &w[2], LIDO_NEVER);
        desk_turn(desk);
        ck_assert_int_eq(w[2].status, LIDO_EPERMANENT);

        desk_pass_time(desk, 2 * NS_PER_S);
        ck_assert_uint_le(desk->f.fake.called[FAKE_OPEN], 3); /* it does not hammer */
        desk_end(desk);
}
END_TEST

START_TEST(a_server_that_takes_no_more_is_used_as_far_as_it_goes_and_asked_again_slowly)
{
        struct desk *desk = desk_new();
        struct waiting w[4] = { { .calls = 0 } };

        desk->f.options.max = 8;
        desk->f.options.open_limit = 1;
        desk_open(desk);
        desk_warm_up(desk, 2);
        fake_always(&desk->f.fake, FAKE_OPEN, failing(LIDO_FAILURE_CAPACITY));
        for (int i = 0; i < 4; i++)
                desk_wait(desk, &w[i], LIDO_NEVER);
        desk_turn(desk);
        ck_assert_uint_eq(load_relaxed(&desk->pool->limit), 2);
        ck_assert_uint_eq(w[2].calls, 0); /* those beyond it wait for what comes back */

        desk_pass_time(desk, 10 * NS_PER_S);
        ck_assert_uint_le(desk->f.fake.called[FAKE_OPEN], 2 + 12);

        fake_always(&desk->f.fake, FAKE_OPEN, (struct fake_step){ .status = LIDO_OK });
        desk_pass_time(desk, 40 * NS_PER_S);
        ck_assert_int_eq(w[3].status, LIDO_OK);
        ck_assert_uint_eq(load_relaxed(&desk->pool->limit), 8); /* it has grown back one by one */
        for (int i = 0; i < 4; i++)
                must_release(w[i].lease);
        desk_end(desk);
}
END_TEST

START_TEST(the_reserve_opens_for_who_has_waited_too_long_and_goes_when_nobody_waits)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };
        lido_lease a;

        desk->f.options.max = 1;
        desk->f.options.reserve = 1;
        desk->f.options.reserve_after_ms = 5000;
        desk_open(desk);
        desk_warm_up(desk, 1);
        a = desk_acquire(desk);
        desk_wait(desk, &w, LIDO_NEVER);
        desk_pass_time(desk, 4900 * NS_PER_MS);
        ck_assert_uint_eq(w.calls, 0);

        desk_pass_time(desk, 200 * NS_PER_MS);
        ck_assert_int_eq(w.status, LIDO_OK);
        ck_assert_uint_eq(stats_of(desk->pool).live, 2);

        must_release(w.lease);
        must_release(a);
        desk_pass_time(desk, 5 * NS_PER_S);
        ck_assert_uint_eq(stats_of(desk->pool).live, 1);
        desk_end(desk);
}
END_TEST

START_TEST(an_outage_that_lasts_is_reported_once)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };

        desk->f.options.give_up_after_ms = 300000;
        fake_always(&desk->f.fake, FAKE_OPEN, failing(LIDO_FAILURE_NETWORK));
        desk_open(desk);
        desk_wait(desk, &w, LIDO_NEVER);
        desk_pass_time(desk, 299 * NS_PER_S);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_UNRECOVERABLE), 0);

        desk_pass_time(desk, 600 * NS_PER_S);

        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_UNRECOVERABLE), 1);
        lido_cancel(&w.request);
        desk_end(desk);
}
END_TEST

START_TEST(fail_fast_pools_answer_at_once_while_nothing_can_be_opened)
{
        struct desk *desk = desk_new();
        struct waiting w[2] = { { .calls = 0 } };

        desk->f.options.fail_fast = 1;
        fake_always(&desk->f.fake, FAKE_OPEN, failing(LIDO_FAILURE_NETWORK));
        desk_open(desk);
        desk_wait(desk, &w[0], LIDO_NEVER);
        desk_turn(desk);
        ck_assert_int_eq(w[0].status, LIDO_EUNAVAIL);

        desk_wait(desk, &w[1], LIDO_NEVER);
        ck_assert_int_eq(w[1].status, LIDO_EUNAVAIL);
        desk_end(desk);
}
END_TEST

START_TEST(a_try_on_an_empty_pool_has_one_opened)
{
        struct desk *desk = desk_new();
        lido_lease lease;

        desk_open(desk);
        desk_turn(desk);
        ck_assert_int_eq(lido_try_acquire(desk->pool, &lease), LIDO_EEXHAUSTED);
        desk_turn(desk);

        ck_assert_int_eq(lido_try_acquire(desk->pool, &lease), LIDO_OK);
        must_release(lease);
        desk_end(desk);
}
END_TEST

/* ---- crowds ---------------------------------------------------------------------------------------------------- */

#define CROWD 20

static struct desk *desk_of(uint32_t max)
{
        struct desk *desk = desk_new();

        desk->f.options.max = max;
        return desk;
}

static struct waiting waiting[CROWD];

static void queue(struct desk *desk, unsigned count, int64_t timeout_ms)
{
        for (unsigned i = 0; i < count; i++) {
                waiting[i] = (struct waiting){ .calls = 0 };
                ck_assert_int_eq(desk_wait(desk, &waiting[i], timeout_ms), LIDO_OK);
        }
        desk_turn(desk);
}

static void cancel_all(unsigned count)
{
        for (unsigned i = 0; i < count; i++)
                if (waiting[i].calls == 0)
                        ck_assert_int_eq(lido_cancel(&waiting[i].request), LIDO_OK);
}

static uint32_t opens(struct desk *desk)
{
        return atomic_load(&desk->f.fake.called[FAKE_OPEN]);
}

static void opens_later(struct desk *desk)
{
        fake_always(&desk->f.fake, FAKE_OPEN, (struct fake_step){ .way = FAKE_LATER });
}

static void opens_fail(struct desk *desk, int failure)
{
        fake_always(&desk->f.fake, FAKE_OPEN, (struct fake_step){ .status = LIDO_EFACTORY, .failure = failure });
}

static void opens_work(struct desk *desk)
{
        fake_always(&desk->f.fake, FAKE_OPEN, (struct fake_step){ .way = FAKE_NOW });
}

START_TEST(objects_being_opened_count_in_max_even_while_waiters_come_and_go)
{
        struct desk *desk = desk_of(3);

        desk->f.options.open_limit = 100;
        opens_later(desk);
        desk_open(desk);
        for (int round = 0; round < 20; round++) {
                queue(desk, CROWD, LIDO_NEVER);
                ck_assert_uint_le(stats_of(desk->pool).live, 3);
                cancel_all(CROWD);
                desk_turn(desk);
        }

        ck_assert_uint_eq(opens(desk), 3);
        fake_answer_all(&desk->f.fake);
        desk_turn(desk);
        ck_assert_uint_eq(stats_of(desk->pool).idle, 3);
        desk_end(desk);
}
END_TEST

START_TEST(a_burst_opens_no_more_than_it_needs)
{
        struct desk *desk = desk_of(50);

        desk->f.options.open_limit = 4;
        opens_later(desk);
        desk_open(desk);
        queue(desk, CROWD, LIDO_NEVER);
        for (unsigned served = 0; served < CROWD;) { /* whoever is served is done before the next open is answered */
                fake_answer(&desk->f.fake, FAKE_OPEN);
                desk_turn(desk);
                for (unsigned i = 0; i < CROWD; i++)
                        if (waiting[i].calls == 1 && waiting[i].lease.slot) {
                                must_release(waiting[i].lease);
                                waiting[i].lease.slot = NULL;
                                served++;
                        }
        }

        ck_assert_uint_le(opens(desk), 5);
        fake_answer_all(&desk->f.fake);
        desk_turn(desk);
        desk_end(desk);
}
END_TEST

START_TEST(a_success_ends_the_pauses)
{
        struct desk *desk = desk_of(2);

        opens_fail(desk, LIDO_FAILURE_TRANSIENT);
        desk_open(desk);
        queue(desk, 1, LIDO_NEVER);
        desk_pass_time(desk, 60 * NS_PER_S);
        opens_work(desk);
        desk_pass_time(desk, 60 * NS_PER_S);
        ck_assert_int_eq(waiting[0].status, LIDO_OK);
        ck_assert_int_eq(desk_wait(desk, &waiting[1], LIDO_NEVER), LIDO_OK);
        desk_turn(desk);

        ck_assert_int_eq(waiting[1].status, LIDO_OK); /* at once */
        must_release(waiting[0].lease);
        must_release(waiting[1].lease);
        desk_end(desk);
}
END_TEST

START_TEST(a_permanent_failure_is_tried_again_after_seconds_not_milliseconds)
{
        struct desk *desk = desk_of(1);

        desk->f.options.min = 1;
        opens_fail(desk, LIDO_FAILURE_PERMANENT);
        desk_open(desk);
        desk_pass_time(desk, 4 * NS_PER_S);
        ck_assert_uint_eq(opens(desk), 1);
        opens_work(desk);
        desk_pass_time(desk, 40 * NS_PER_S);

        ck_assert_uint_eq(stats_of(desk->pool).idle, 1);
        desk_end(desk);
}
END_TEST

START_TEST(with_an_object_lent_a_permanent_failure_fails_nobody)
{
        struct desk *desk = desk_of(2);
        lido_lease lease;

        desk_open(desk);
        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);
        opens_fail(desk, LIDO_FAILURE_PERMANENT);
        queue(desk, 1, LIDO_NEVER);
        ck_assert_uint_eq(waiting[0].calls, 0);
        must_release(lease);

        ck_assert_int_eq(waiting[0].status, LIDO_OK);
        must_release(waiting[0].lease);
        desk_end(desk);
}
END_TEST

START_TEST(a_waiter_times_out_at_its_deadline_while_opening_fails_and_learns_why)
{
        struct desk *desk = desk_of(1);
        struct lido_blame blame = LIDO_BLAME_INIT;
        uint64_t began;

        opens_fail(desk, LIDO_FAILURE_NETWORK);
        desk_open(desk);
        began = clock_now_ns();
        queue(desk, 1, 777);
        desk_pass_time(desk, 5 * NS_PER_S);
        lido_pool_blame(desk->pool, &blame);

        ck_assert_int_eq(waiting[0].status, LIDO_ETIMEDOUT);
        ck_assert_uint_eq(waiting[0].called_ns, began + 777 * NS_PER_MS);
        ck_assert_int_eq(blame.cause, LIDO_CAUSE_DOWN);
        desk_end(desk);
}
END_TEST

int main(void)
{
        return suite_run(
                "keeper/grow",
                (const TTest *[]){ a_lazy_pool_opens_nothing_until_somebody_waits,
                                   opens_under_way_never_exceed_open_limit_nor_those_who_wait,
                                   an_open_goes_on_when_its_waiter_is_cancelled_and_counts_in_max,
                                   min_and_min_idle_are_kept_open,
                                   after_a_failure_one_open_at_a_time_is_tried_after_growing_pauses,
                                   a_server_that_is_down_is_asked_again_within_half_a_second_however_long_it_was_down,
                                   a_permanent_failure_fails_the_waiters_at_once_and_those_who_come_later,
                                   a_server_that_takes_no_more_is_used_as_far_as_it_goes_and_asked_again_slowly,
                                   the_reserve_opens_for_who_has_waited_too_long_and_goes_when_nobody_waits,
                                   an_outage_that_lasts_is_reported_once,
                                   fail_fast_pools_answer_at_once_while_nothing_can_be_opened,
                                   a_try_on_an_empty_pool_has_one_opened,
                                   objects_being_opened_count_in_max_even_while_waiters_come_and_go,
                                   a_burst_opens_no_more_than_it_needs,
                                   a_success_ends_the_pauses,
                                   a_permanent_failure_is_tried_again_after_seconds_not_milliseconds,
                                   with_an_object_lent_a_permanent_failure_fails_nobody,
                                   a_waiter_times_out_at_its_deadline_while_opening_fails_and_learns_why, NULL });
}
