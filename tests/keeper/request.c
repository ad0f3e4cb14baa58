/* The acquire that does not block, on a uv loop and without one. The line it stands in: tests/pool/waitq.c. Posts and timers:
 * tests/keeper/loop.c.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "pool/pool.h"
#include "support/crew.h"
#include "support/fixture.h"
#include "support/looper.h"
#include "support/suite.h"

#define LATE_NS (20 * NS_PER_MS)

START_TEST(an_idle_object_comes_by_callback_after_the_call_has_returned)
{
        struct fixture *f = pool_of(1);
        struct looper looper;
        struct asked asked = { .calls = 0 };

        looper_init(&looper);
        warm_up(f, 1);
        ck_assert_int_eq(looper_ask(&looper, &asked, f->pool, 1000), LIDO_OK);
        ck_assert_uint_eq(asked.calls, 0);
        ck_assert_int_eq(looper_await(&looper, &asked), LIDO_OK);

        ck_assert_ptr_nonnull(lido_object(asked.lease));
        must_release(asked.lease);
        looper_fini(&looper);
        fixture_end(f);
}
END_TEST

START_TEST(whoever_waits_on_a_loop_is_called_back_when_an_object_is_released)
{
        struct fixture *f = pool_of(1);
        struct looper looper;
        struct asked asked = { .calls = 0 };
        lido_lease lease = must_acquire(f);

        looper_init(&looper);
        ck_assert_int_eq(looper_ask(&looper, &asked, f->pool, LIDO_NEVER), LIDO_OK);
        looper_turn(&looper);
        ck_assert_uint_eq(asked.calls, 0);
        must_release(lease);
        ck_assert_int_eq(looper_await(&looper, &asked), LIDO_OK);

        must_release(asked.lease);
        looper_fini(&looper);
        fixture_end(f);
}
END_TEST

START_TEST(loops_and_threads_are_served_in_the_order_in_which_they_came)
{
        struct fixture *f = pool_of(1);
        struct looper looper;
        struct asked asked[5] = { { .calls = 0 } };
        struct borrower b[5] = { { .rc = 0 } };
        lido_lease lease = must_acquire(f);

        looper_init(&looper);
        for (int i = 0; i < 5; i++) {
                borrower_queue(&b[i], f->pool, PATIENCE_MS);
                ck_assert_int_eq(looper_ask(&looper, &asked[i], f->pool, LIDO_NEVER), LIDO_OK);
        }
        for (int i = 0; i < 5; i++) {
                uint64_t until = real_now_ns() + 100 * NS_PER_US; /* so long a hold is handed over */

                while (real_now_ns() < until)
                        ;
                must_release(lease);
                ck_assert_int_eq(borrower_join(&b[i]), LIDO_OK);
                for (int k = i + 1; k < 5; k++)
                        ck_assert(!atomic_load(&b[k].is_done));
                ck_assert_uint_eq(asked[i].calls, 0);
                must_release(b[i].lease);
                ck_assert_int_eq(looper_await(&looper, &asked[i]), LIDO_OK);
                lease = asked[i].lease;
        }
        must_release(lease);
        looper_fini(&looper);
        fixture_end(f);
}
END_TEST

/* Returns: how many timed out late. */
static unsigned time_out_often(struct looper *looper, struct lido_pool *pool)
{
        unsigned late = 0;

        for (int64_t timeout_ms = 1; timeout_ms <= 20; timeout_ms++) {
                struct asked asked = { .calls = 0 };
                uint64_t began = real_now_ns(), took;

                ck_assert_int_eq(looper_ask(looper, &asked, pool, timeout_ms), LIDO_OK);
                ck_assert_int_eq(looper_await(looper, &asked), LIDO_ETIMEDOUT);
                took = asked.called_ns - began;
                ck_assert_uint_ge(took, (uint64_t)timeout_ms * NS_PER_MS);
                late += took > (uint64_t)timeout_ms * NS_PER_MS + LATE_NS;
        }
        return late;
}

/* A machine with more to do than it can is late for everybody, but not always; what lido adds it would add each time. */
START_TEST(a_request_times_out_at_its_deadline_and_never_before)
{
        struct fixture *f = pool_of(1);
        struct looper looper;
        lido_lease lease = must_acquire(f);
        unsigned least = UINT_MAX;

        looper_init(&looper);
        for (int round = 0; round < 20 && least > 3; round++) {
                unsigned late = time_out_often(&looper, f->pool);

                least = late < least ? late : least;
        }

        ck_assert_uint_le(least, 3);
        must_release(lease);
        looper_fini(&looper);
        fixture_end(f);
}
END_TEST

START_TEST(a_request_is_cancelled_once_and_called_back_once)
{
        struct fixture *f = pool_of(1);
        struct looper looper;
        struct asked asked = { .calls = 0 };
        lido_lease lease = must_acquire(f);

        looper_init(&looper);
        looper_ask(&looper, &asked, f->pool, LIDO_NEVER);
        ck_assert_int_eq(lido_cancel(&asked.request), LIDO_OK);
        ck_assert_int_eq(lido_cancel(&asked.request), LIDO_EBUSY); /* settled, though not yet called back */
        ck_assert_int_eq(looper_await(&looper, &asked), LIDO_ECANCELED);
        ck_assert_int_eq(lido_cancel(&asked.request), LIDO_EINVAL);
        must_release(lease);
        looper_turn(&looper);

        ck_assert_uint_eq(asked.calls, 1);
        ck_assert_uint_eq(stats_of(f->pool).idle, 1);
        looper_fini(&looper);
        fixture_end(f);
}
END_TEST

START_TEST(a_request_that_has_got_its_object_cannot_be_cancelled)
{
        struct fixture *f = pool_of(1);
        struct looper looper;
        struct asked asked = { .calls = 0 };

        looper_init(&looper);
        warm_up(f, 1);
        looper_ask(&looper, &asked, f->pool, 1000);
        ck_assert_int_eq(lido_cancel(&asked.request), LIDO_EBUSY);
        ck_assert_int_eq(looper_await(&looper, &asked), LIDO_OK);

        must_release(asked.lease);
        looper_fini(&looper);
        fixture_end(f);
}
END_TEST

START_TEST(what_cannot_be_asked_for_is_refused_without_a_callback)
{
        struct fixture *f = pool_of(1);
        struct looper looper;
        struct asked asked = { .calls = 0 };
        lido_lease lease = must_acquire(f);

        looper_init(&looper);
        ck_assert_int_eq(looper_ask(&looper, &asked, f->pool, 0), LIDO_EEXHAUSTED);
        ck_assert_int_eq(looper_ask(&looper, &asked, f->pool, -3), LIDO_EINVAL);
        ck_assert_int_eq(lido_acquire_async(f->pool, &asked.request, 1, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_acquire_async(NULL, &asked.request, 1, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_cancel(NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_cancel(&asked.request), LIDO_EINVAL);
        looper_ask(&looper, &asked, f->pool, LIDO_NEVER);
        ck_assert_int_eq(lido_acquire_async(f->pool, &asked.request, 1, (lido_acquired_cb)abort), LIDO_EBUSY);
        lido_cancel(&asked.request);
        looper_await(&looper, &asked);
        must_release(lease);
        lido_pool_close(f->pool, 0);
        ck_assert_int_eq(looper_ask(&looper, &asked, f->pool, 100), LIDO_ECLOSED);
        looper_turn(&looper);

        ck_assert_uint_eq(asked.calls, 0);
        looper_fini(&looper);
        fixture_end(f);
}
END_TEST

static void ask_from_elsewhere(void *context, unsigned number)
{
        struct asked *asked = context;

        (void)number;
        asked->status = lido_acquire_async(asked->lease.slot ? NULL : (void *)asked->turn, &asked->request, 1, (lido_acquired_cb)abort);
}

START_TEST(a_loop_is_asked_on_its_own_thread_only)
{
        struct fixture *f = pool_of(1);
        struct looper looper;
        struct asked asked = { .turn = (uint32_t *)(void *)f->pool };

        looper_init(&looper);
        asked.request.loop = looper.loop;
        crew_run(1, ask_from_elsewhere, &asked);

        ck_assert_int_eq(asked.status, LIDO_EINVAL);
        looper_fini(&looper);
        fixture_end(f);
}
END_TEST

START_TEST(closing_the_pool_calls_back_all_who_wait)
{
        struct fixture *f = pool_of(1);
        struct looper looper;
        struct asked asked[10] = { { .calls = 0 } };
        lido_lease lease = must_acquire(f);

        looper_init(&looper);
        for (int i = 0; i < 10; i++)
                looper_ask(&looper, &asked[i], f->pool, LIDO_NEVER);
        ck_assert_int_eq(lido_pool_close(f->pool, LIDO_NEVER), LIDO_OK);
        for (int i = 0; i < 10; i++)
                ck_assert_int_eq(looper_await(&looper, &asked[i]), LIDO_ECLOSED);
        must_release(lease);
        looper_fini(&looper);
        fixture_end(f);
}
END_TEST

START_TEST(closing_the_loop_cancels_and_calls_back_all_that_is_pending)
{
        struct fixture *f = pool_of(1);
        struct looper looper;
        struct asked asked[10] = { { .calls = 0 } };
        lido_lease lease = must_acquire(f);

        looper_init(&looper);
        for (int i = 0; i < 10; i++)
                looper_ask(&looper, &asked[i], f->pool, LIDO_NEVER);
        looper_fini(&looper);

        for (int i = 0; i < 10; i++) {
                ck_assert_uint_eq(asked[i].calls, 1);
                ck_assert_int_eq(asked[i].status, LIDO_ECANCELED);
        }
        ck_assert_uint_eq(stats_of(f->pool).waiting, 0);
        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(what_a_closing_loop_has_got_is_called_back_with_it)
{
        struct fixture *f = pool_of(1);
        struct looper looper;
        struct asked asked = { .releases = true };
        lido_lease lease = must_acquire(f);

        looper_init(&looper);
        looper_ask(&looper, &asked, f->pool, LIDO_NEVER);
        must_release(lease); /* given, and its post under way */
        looper_fini(&looper);

        ck_assert_uint_eq(asked.calls, 1);
        ck_assert_int_eq(asked.status, LIDO_OK);
        ck_assert_uint_eq(stats_of(f->pool).idle, 1);
        fixture_end(f);
}
END_TEST

static struct fixture *pool_of_sleepers(uint32_t max)
{
        struct fixture *f = fixture_new();

        fake_add_hooks(&f->fake, FAKE_HAS_PEEK);
        f->options.max = max;
        f->options.rest_after_ms = 1;
        f->options.check_after_ms = LIDO_NEVER;
        fixture_open(f);
        return f;
}

START_TEST(a_request_given_what_died_in_its_sleep_gets_a_new_one)
{
        struct fixture *f = pool_of_sleepers(1);
        struct looper looper;
        struct asked asked = { .calls = 0 };
        lido_lease lease = must_acquire(f);

        looper_init(&looper);
        fake_break(object_of(lease));
        must_release(lease);
        ck_eventually(word_state(load_relaxed(&lease.slot->word)) == SLOT_RESTED);
        ck_assert_int_eq(looper_ask(&looper, &asked, f->pool, PATIENCE_MS), LIDO_OK);
        ck_assert_int_eq(looper_await(&looper, &asked), LIDO_OK);

        ck_assert_uint_eq(object_of(asked.lease)->serial, 2);
        must_release(asked.lease);
        looper_fini(&looper);
        fixture_end(f);
}
END_TEST

/* ---- without a loop ------------------------------------------------------------------------------------------------------- */

struct noted {
        struct lido_request request; /* first */
        _Atomic uint32_t calls;
        _Atomic int status;
        lido_lease lease;
        uint32_t thread;
        uint64_t called_ns;
};

static void note(struct lido_request *request, int status, lido_lease lease)
{
        struct noted *noted = (struct noted *)(void *)request;

        noted->lease = lease;
        noted->thread = thread_id();
        noted->called_ns = real_now_ns();
        atomic_store(&noted->status, status);
        atomic_fetch_add(&noted->calls, 1);
}

START_TEST(without_a_loop_what_is_idle_comes_before_the_call_returns)
{
        struct fixture *f = pool_of(1);
        struct noted noted = { .calls = 0 };

        warm_up(f, 1);
        ck_assert_int_eq(lido_acquire_notify(f->pool, &noted.request, 1000, note), LIDO_OK);

        ck_assert_uint_eq(atomic_load(&noted.calls), 1);
        ck_assert_uint_eq(noted.thread, thread_id());
        must_release(noted.lease);
        fixture_end(f);
}
END_TEST

START_TEST(without_a_loop_the_releasing_thread_calls_back)
{
        struct fixture *f = pool_of(1);
        struct noted noted = { .calls = 0 };
        struct borrower b = { .rc = 0 };
        lido_lease lease = must_acquire(f);

        ck_assert_int_eq(lido_acquire_notify(f->pool, &noted.request, LIDO_NEVER, note), LIDO_OK);
        ck_assert_uint_eq(atomic_load(&noted.calls), 0);
        must_release(lease);
        ck_assert_uint_eq(atomic_load(&noted.calls), 1);
        ck_assert_int_eq(atomic_load(&noted.status), LIDO_OK);
        must_release(noted.lease);
        (void)b;
        fixture_end(f);
}
END_TEST

START_TEST(without_a_loop_the_keeper_keeps_the_deadline)
{
        struct fixture *f = pool_of(1);
        struct noted noted = { .calls = 0 };
        lido_lease lease = must_acquire(f);
        uint64_t began = real_now_ns();

        ck_assert_int_eq(lido_acquire_notify(f->pool, &noted.request, 30, note), LIDO_OK);
        ck_eventually(atomic_load(&noted.calls) == 1);

        ck_assert_int_eq(atomic_load(&noted.status), LIDO_ETIMEDOUT);
        ck_assert_uint_ge(noted.called_ns - began, 30 * NS_PER_MS);
        ck_assert_uint_ne(noted.thread, thread_id());
        must_release(lease);
        fixture_end(f);
}
END_TEST

/* ---- races ------------------------------------------------------------------------------------------------------------------ */

struct race {
        struct fixture *f;
        struct noted noted;
        lido_lease lease;
        _Atomic int cancelled;
};

static void give_cancel_or_close(void *context, unsigned number)
{
        struct race *race = context;

        if (number == 0)
                must(lido_release(race->lease) == LIDO_OK);
        else if (number == 1)
                atomic_store(&race->cancelled, lido_cancel(&race->noted.request));
        else
                must(lido_pool_close(race->f->pool, LIDO_NEVER) == LIDO_OK);
}

/* The deadline is of the same moment, so that all four outcomes are in the race. */
START_TEST(however_give_timeout_cancel_and_close_race_there_is_one_outcome)
{
        for (int round = 0; round < 150; round++) {
                struct fixture *f = pool_of(1);
                struct race race = { .f = f, .cancelled = 1 };
                int status;

                race.lease = must_acquire(f);
                must(lido_acquire_notify(f->pool, &race.noted.request, 1, note) == LIDO_OK);
                crew_run(2 + (unsigned)round % 2, give_cancel_or_close, &race);
                ck_eventually(atomic_load(&race.noted.calls) > 0);
                status = atomic_load(&race.noted.status);
                must(status == LIDO_OK || status == LIDO_ETIMEDOUT || status == LIDO_ECANCELED || status == LIDO_ECLOSED);
                must((atomic_load(&race.cancelled) == LIDO_OK) == (status == LIDO_ECANCELED));
                if (status == LIDO_OK)
                        must_release(race.noted.lease);
                fixture_end(f);
                must(atomic_load(&race.noted.calls) == 1);
        }
}
END_TEST

struct rejoin {
        struct fixture *f;
        struct noted *noted;
        _Atomic bool is_over;
};

static void cancel_at_random(void *context, unsigned number)
{
        struct rejoin *rejoin = context;

        (void)number;
        while (!atomic_load(&rejoin->is_over)) {
                int rc = lido_cancel(&rejoin->noted->request);

                must(rc == LIDO_OK || rc == LIDO_EBUSY || rc == LIDO_EINVAL);
        }
}

static void cancel_late(void *context, unsigned number)
{
        struct rejoin *rejoin = context;

        ck_eventually(atomic_load(&rejoin->f->fake.closed) > 0 || atomic_load(&rejoin->is_over));
        cancel_at_random(context, number);
}

/* Have `count` objects dead and at rest. */
static void kill_in_their_sleep(struct fixture *f, uint32_t count)
{
        lido_lease lease[8];

        for (uint32_t i = 0; i < count; i++) {
                lease[i] = must_acquire(f);
                fake_break(object_of(lease[i]));
        }
        for (uint32_t i = 0; i < count; i++)
                must_release(lease[i]);
        for (uint32_t i = 0; i < count; i++)
                ck_eventually(word_state(load_relaxed(&lease[i].slot->word)) == SLOT_RESTED);
}

/* It waits until the pause is over, and is then given one dead object after the other, each of which sends it back into the line,
 * while it is being cancelled. */
START_TEST(a_cancel_that_meets_a_request_on_its_way_back_into_the_line_is_not_lost)
{
        uint32_t cancelled = 0;
        struct fixture *f = pool_of_sleepers(4);

        for (int round = 0; round < 60; round++) {
                struct noted noted = { .calls = 0 };
                struct rejoin rejoin = { .f = f, .noted = &noted };
                struct crew crew;

                kill_in_their_sleep(f, 4);
                must(lido_pool_pause(f->pool, LIDO_PAUSE_HOLD) == LIDO_OK);
                must(lido_acquire_notify(f->pool, &noted.request, PATIENCE_MS, note) == LIDO_OK);
                crew_start(&crew, 1, round % 2 ? cancel_at_random : cancel_late, &rejoin);
                must(lido_pool_resume(f->pool) == LIDO_OK);
                ck_eventually(atomic_load(&noted.calls) > 0);
                atomic_store(&rejoin.is_over, true);
                crew_join(&crew);
                must(atomic_load(&noted.status) == LIDO_OK || atomic_load(&noted.status) == LIDO_ECANCELED);
                if (atomic_load(&noted.status) == LIDO_OK)
                        must_release(noted.lease);
                cancelled += atomic_load(&noted.status) == LIDO_ECANCELED;
                must(atomic_load(&noted.calls) == 1);
        }
        ck_assert_uint_gt(cancelled, 0);
        check_quiet(f->pool);
        ck_assert_uint_eq(stats_of(f->pool).waiting, 0);
        fixture_end(f);
}
END_TEST

int main(void)
{
        return suite_run("keeper/request",
                         (const TTest *[]){
                                 an_idle_object_comes_by_callback_after_the_call_has_returned,
                                 whoever_waits_on_a_loop_is_called_back_when_an_object_is_released,
                                 loops_and_threads_are_served_in_the_order_in_which_they_came,
                                 a_request_times_out_at_its_deadline_and_never_before,
                                 a_request_is_cancelled_once_and_called_back_once,
                                 a_request_that_has_got_its_object_cannot_be_cancelled,
                                 what_cannot_be_asked_for_is_refused_without_a_callback,
                                 a_loop_is_asked_on_its_own_thread_only,
                                 closing_the_pool_calls_back_all_who_wait,
                                 closing_the_loop_cancels_and_calls_back_all_that_is_pending,
                                 what_a_closing_loop_has_got_is_called_back_with_it,
                                 a_request_given_what_died_in_its_sleep_gets_a_new_one,
                                 without_a_loop_what_is_idle_comes_before_the_call_returns,
                                 without_a_loop_the_releasing_thread_calls_back,
                                 without_a_loop_the_keeper_keeps_the_deadline,
                                 however_give_timeout_cancel_and_close_race_there_is_one_outcome,
                                 a_cancel_that_meets_a_request_on_its_way_back_into_the_line_is_not_lost,
                                 NULL,
                         });
}
